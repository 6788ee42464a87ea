/* Rows of codes times columns packed as weights are, for attention: on VNNI, or on AMX. */

/* `rows` rows of `depth` codes, `apart` bytes apart, which meet packed columns. */
struct lines { const uint8_t *x; int64_t apart; int rows, depth; };

/* Their products with V vectors of columns, on AMX. */
static void multiply_on_tiles(const struct lines *from, const int8_t *packed, int32_t *sums, int64_t apart,
                              int V) {
    const int64_t row = 4 * LANES * V;
    TILE_ZERO(0);
    if (V > 1) TILE_ZERO(1);
    if (V > 2) TILE_ZERO(2);
    if (V > 3) TILE_ZERO(3);
    for (int k = 0; k < from->depth; k += TILE_BYTES, packed += TILE * row) {
        TILE_LOAD(4, from->x + k, from->apart);
        TILE_LOAD(5, packed, row);
        TILE_DOT(0, 4, 5);
        if (V > 1) TILE_LOAD(6, packed + 4 * LANES, row);
        if (V > 1) TILE_DOT(1, 4, 6);
        if (V > 2) TILE_LOAD(7, packed + 8 * LANES, row);
        if (V > 2) TILE_DOT(2, 4, 7);
        if (V > 3) TILE_LOAD(5, packed + 12 * LANES, row);
        if (V > 3) TILE_DOT(3, 4, 5);
    }
    TILE_STORE(0, sums, 4 * apart);
    if (V > 1) TILE_STORE(1, sums + LANES, 4 * apart);
    if (V > 2) TILE_STORE(2, sums + 2 * LANES, 4 * apart);
    if (V > 3) TILE_STORE(3, sums + 3 * LANES, 4 * apart);
}

/* The same of R rows on VNNI. */
INLINE void multiply_rows(const struct lines *from, const int8_t *packed, int32_t *sums, int64_t apart,
                          const int R, const int V) {
    const int32_t beginning = 0;
    const struct step one = {.run_offsets = &beginning, .groups = (from->depth + 3) / 4};
    const struct band all = {.runs = 1, .groups = one.groups};
    struct ahead nothing = {0};
    const uint8_t *x[ROWS];
    __m512i y[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        x[r] = from->x + r * from->apart;
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) y[r][v] = _mm512_setzero_si512();
    }
    accumulate(&one, &all, x, packed, &nothing, y, R, V);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) _mm512_storeu_si512(sums + r * apart + LANES * v, y[r][v]);
}

#define MULTIPLY(R, V) case 8 * R + V: multiply_rows(&left, packed, sums, apart, R, V); break;
#define MULTIPLIES(V) MULTIPLY(1, V) MULTIPLY(2, V) MULTIPLY(3, V) MULTIPLY(4, V) MULTIPLY(5, V) MULTIPLY(6, V)
static void multiply(const struct lines *from, const int8_t *packed, int32_t *sums, int64_t apart, int V) {
    if (amx) {
        multiply_on_tiles(from, packed, sums, apart, V);
        return;
    }
    struct lines left = *from;
    for (int R; left.rows; left.rows -= R, left.x += R * left.apart, sums += R * apart) {
        R = left.rows < ROWS ? left.rows : ROWS;
        switch (8 * R + V) { MULTIPLIES(1) MULTIPLIES(2) MULTIPLIES(3) MULTIPLIES(4) }
    }
}
