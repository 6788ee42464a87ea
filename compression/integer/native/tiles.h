/* Tiles of up to 6 pixels x 64 channels of sums, which stay in registers until they are stored. */

/* Channels that read the same codes of each pixel, `input` bytes from its first. */
struct slice { int channel, end; int64_t input; const int8_t *weights; };

/* Where R pixels from pixel `index` of the band on lie, image by image, and where their windows begin. */
INLINE void begin_tile(const struct step *s, const struct band *band, int64_t index,
                       const struct slice *slice, const uint8_t **x, struct place *at, const int R) {
    const int32_t *residual_offsets = s->residual ? s->residual_offsets : s->output_offsets;
    int64_t image = index / band->pixels, pixel = index % band->pixels;
    for (int r = 0; r < R; pixel = 0, image++) {
        const int last = R - r < band->pixels - pixel ? R : r + (int)(band->pixels - pixel);
        const int64_t first = band->first_pixel + pixel - r;
        const uint8_t *input = s->input + slice->input + image * s->input_stride;
        for (; r < last; r++) {
            x[r] = input + s->input_offsets[first + r];
            at[r].output = image * s->output_stride + s->output_offsets[first + r];
            at[r].residual = image * s->residual_stride + residual_offsets[first + r];
        }
    }
}

/* The sums of R pixels x V vectors of channels in units of the output. */
INLINE void scale(const __m512 *factor, __m512i sums[][VECTORS], __m512 y[][VECTORS], const int R,
                  const int V) {
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) y[r][v] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), factor[v]);
}

INLINE void load_factors(const float *multiplier, __m512 *factor, const int V) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) factor[v] = _mm512_loadu_ps(multiplier + LANES * v);
}

/* What the sums of V vectors of channels become: read once for all pixels, since what is stored might be
   these numbers for all that a compiler knows. */
struct ending {
    struct bounds bounds;
    struct addend addend;
    __m512 factor[VECTORS];
    __mmask64 channels;
    const uint8_t *residual;
    void *output;
    int real;
};

INLINE struct ending ending_of(const struct step *s, const struct slice *slice, const int V) {
    struct ending ending = {
        .bounds = bounds_of(s),
        .addend = addend_of(s),
        .channels = block_lanes(slice->end, slice->channel),
        .residual = s->residual ? s->residual + slice->channel : NULL,
        .output = s->real ? (void *)((float *)s->output + slice->channel)
                          : (void *)((uint8_t *)s->output + slice->channel),
        .real = s->real,
    };
    load_factors(s->multiplier + slice->channel, ending.factor, V);
    return ending;
}

/* Store the codes of R pixels: four vectors at a time, of two pixels or four where channels are few. */
INLINE void store_tile(const struct ending *ending, const struct place *at, __m512 y[ROWS][VECTORS],
                       const int R, const int V) {
    const int together = VECTORS / V;
#pragma GCC unroll 6
    for (int r = 0; r < R; r += together) {
        const int some = R - r < together ? R - r : together;
        __m512 block[VECTORS];
#pragma GCC unroll 4
        for (int i = 0; i < some * V; i++) block[i] = y[r + i / V][i % V];
        const __m512i packed = encode(&ending->bounds, block, some * V);
        const __m512i codes = fourths_in_order(packed);
#pragma GCC unroll 4
        for (int i = 0; i < some; i++)
            store_part((uint8_t *)ending->output + at[r + i].output, codes, i, ending->channels, V);
    }
}

/* Sums in units of the output, and what is added to them. */
INLINE void finish_tile(const struct ending *ending, const struct place *at, __m512i sums[ROWS][VECTORS],
                        const int R, const int V) {
    __m512 y[ROWS][VECTORS];
    scale(ending->factor, sums, y, R, V);
    if (ending->residual)
#pragma GCC unroll 6
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                const uint8_t *codes = ending->residual + at[r].residual + LANES * v;
                const __mmask16 mask = (__mmask16)(ending->channels >> LANES * v);
                y[r][v] = with_residual(&ending->addend, widened(codes, mask), y[r][v]);
            }
    if (!ending->real) {
        store_tile(ending, at, y, R, V);
        return;
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            _mm512_mask_storeu_ps((float *)ending->output + at[r].output + LANES * v,
                                  (__mmask16)(ending->channels >> LANES * v), y[r][v]);
}

#if defined(KEPT_APART)
/* A function for all tiles of so many sums: they lie in memory anyway. */
#define FINISH_CASE(R, V) case 8 * R + V: finish_tile(ending, at, sums, R, V); break;
#define FINISH_CASES(V)                                                                 \
    FINISH_CASE(1, V) FINISH_CASE(2, V) FINISH_CASE(3, V)                               \
    FINISH_CASE(4, V) FINISH_CASE(5, V) FINISH_CASE(6, V)
static __attribute__((noinline)) void finish_apart(const struct ending *ending, const struct place *at,
                                                   __m512i sums[ROWS][VECTORS], int R, int V) {
    switch (8 * R + V) { FINISH_CASES(1) FINISH_CASES(2) FINISH_CASES(3) FINISH_CASES(4) }
}
#define FINISH finish_apart
#else
#define FINISH finish_tile
#endif
