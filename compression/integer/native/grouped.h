/* Convolution in groups of 4 or 8 channels, each read by as many: no product is of zeros.

   16 bytes of a pixel, four of them in each lane of 128 bits, are repeated in all four. There they meet
   the weights of 4 channels of their group: part f (of F, a fourth of a group's channels) of 16 sums
   holds in lane 4 q + d what bytes 4 d to 4 d + 3 give to channel 4 f + q of their group. Weights are
   packed as [slice of channels][tap][16 channels][f][lane][4]. */

/* 16 bytes of the pixels from `row` to `end` for each 16 of the vectors of channels from `first` to `last`,
   times the weights of a tap. */
INLINE void grouped_products(const uint8_t *const *x, int64_t k, const int8_t *w,
                             __m512i parts[ROWS][VECTORS], __m512i *of_weights, const int row,
                             const int end, const int first, const int last, const int F) {
    __m512i weights[VECTORS];
#pragma GCC unroll 4
    for (int i = F * first; i < F * last; i++) {
        weights[i] = _mm512_load_si512(w + 4 * LANES * i);
        add_weights(&of_weights[i], weights[i]);
    }
#pragma GCC unroll 6
    for (int r = row; r < end; r++)
#pragma GCC unroll 4
        for (int v = first; v < last; v++) {
            const __m512i codes = as_multiplied(broadcast_16(x[r] + k + LANES * v));
#pragma GCC unroll 2
            for (int f = 0; f < F; f++)
                dot_multiplied(&parts[r][F * v + f], codes, weights[F * v + f]);
        }
}

/* The sums of 16 channels in their order. */
INLINE __m512i in_order(const __m512i *parts, const int F) {
    if (F == 1) return fourths_in_order(parts[0]);
    const __m512i left = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 2, 6, 10, 14, 18, 22, 26, 30);
    const __m512i right = _mm512_add_epi32(left, _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_permutex2var_epi32(parts[0], left, parts[1]),
                            _mm512_permutex2var_epi32(parts[0], right, parts[1]));
}

INLINE void grouped_tile(const struct step *s, const struct band *band, int64_t index,
                         const struct slice *slice, const int R, const int V, const int F) {
    const uint8_t *x[ROWS];
    struct place at[ROWS];
    __m512i parts[ROWS][VECTORS], sums[ROWS][VECTORS];
    begin_tile(s, band, index, slice, x, at, R);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int i = 0; i < V * F; i++) parts[r][i] = _mm512_setzero_si512();
    const int rows = V * F > KEPT_VECTORS ? (KEPT_PIXELS + F - 1) / F : KEPT_PIXELS;
    const int vectors = KEPT_VECTORS < F ? 1 : KEPT_VECTORS / F;
#pragma GCC unroll 6
    for (int r = 0; r < R; r += rows)
#pragma GCC unroll 4
        for (int v = 0; v < V; v += vectors) {
            const int end = r + rows < R ? r + rows : R, last = v + vectors < V ? v + vectors : V;
            __m512i weights[VECTORS];
#pragma GCC unroll 4
            for (int i = F * v; i < F * last; i++) weights[i] = _mm512_setzero_si512();
            for (int run = band->first_run; run < band->first_run + band->runs; run++)
                grouped_products(x, s->run_offsets[run], slice->weights + run * V * F * 4 * LANES, parts, weights,
                                 r, end, v, last, F);
#pragma GCC unroll 6
            for (int row = r; row < end; row++)
#pragma GCC unroll 4
                for (int i = F * v; i < F * last; i++) parts[row][i] = with_weights(parts[row][i], weights[i]);
        }
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
        const __m512i bias = _mm512_loadu_si512(s->bias + slice->channel + LANES * v);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) sums[r][v] = _mm512_add_epi32(in_order(&parts[r][F * v], F), bias);
    }
    const struct ending ending = ending_of(s, slice, V);
    FINISH(&ending, at, sums, R, V);
}

/* Four vectors of sums, in one part each or in two: `groups` counts the parts. */
#define GROUPED_CASE(R, V, F) case 8 * R + V: grouped_tile(s, band, index, slice, R, V, F); break;
#define GROUPED_CASES(V, F)                                                             \
    GROUPED_CASE(1, V, F) GROUPED_CASE(2, V, F) GROUPED_CASE(3, V, F)                   \
    GROUPED_CASE(4, V, F) GROUPED_CASE(5, V, F) GROUPED_CASE(6, V, F)
static void dispatch_grouped(const struct step *s, const struct band *band, int64_t index,
                             const struct slice *slice, int R, int V) {
    switch (8 * R + V) { GROUPED_CASES(4, 1) GROUPED_CASES(2, 2) GROUPED_CASES(1, 2) }
}
