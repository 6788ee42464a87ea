/* Convolution as products of u8 codes and s8 weights, four at a time into int32 (VPDPBUSD).

   A window is read in runs: for each of its rows the bytes of kernel width x channels, which lie side
   by side. Weights are packed as [block of 64 channels][run][group of 4 bytes][channel][4]; up to 6
   pixels x 64 channels of sums stay in registers. */

/* In place, by assembly: GCC 12 copies and spills the sums of the intrinsic. */
INLINE void dot(__m512i *sum, __m512i codes, __m512i weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(codes), "v"(weights));
}

INLINE __m512i broadcast(const uint8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return _mm512_set1_epi32(four);
}

INLINE void accumulate(const struct step *s, const struct band *band, const uint8_t *const *x,
                       const int8_t *w, __m512i sums[ROWS][VECTORS], const int R, const int V) {
    for (int run = band->first_run; run < band->first_run + band->runs; run++) {
        const int8_t *group = w + ((int64_t)run * s->groups + band->first_group) * 4 * LANES * V;
        const int64_t from = s->run_offsets[run] + 4 * (int64_t)band->first_group;
        for (int64_t k = from; k < from + 4 * (int64_t)band->groups; k += 4, group += 4 * LANES * V) {
            __m512i weights[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) weights[v] = _mm512_load_si512(group + 4 * LANES * v);
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
                const __m512i codes = broadcast(x[r] + k);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) dot(&sums[r][v], codes, weights[v]);
            }
        }
    }
}

/* R pixels from pixel `index` of the band on, across images, x V vectors of channels. */
INLINE void tile(const struct step *s, const struct band *band, int64_t index, int channel,
                 const int8_t *w, const int R, const int V) {
    const uint8_t *x[ROWS];
    struct place at[ROWS];
    __m512i sums[ROWS][VECTORS];
    int64_t image = index / band->pixels, pixel = index % band->pixels;
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        at[r] = place_of(s, image, band->first_pixel + pixel);
        x[r] = s->input + at[r].input;
        if (++pixel == band->pixels) pixel = 0, image++;
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sums[r][v] = _mm512_loadu_si512(s->bias + channel + LANES * v);
    }
    accumulate(s, band, x, w, sums, R, V);
    __m512 multipliers[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) multipliers[v] = _mm512_loadu_ps(s->multiplier + channel + LANES * v);
    const int whole = V == VECTORS && channel + BLOCK <= s->channels && !s->real;
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        __m512 y[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) y[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), multipliers[v]);
        if (whole) {
            finish_block(s, at[r], channel, y);
            continue;
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) finish(s, at[r], channel + LANES * v, y[v]);
    }
}

#define CASE(R, V) case 8 * R + V: tile(s, band, index, channel, w, R, V); break;
#define CASES(V) CASE(1, V) CASE(2, V) CASE(3, V) CASE(4, V) CASE(5, V) CASE(6, V)
static void dispatch(const struct step *s, const struct band *band, int64_t index, int channel,
                     const int8_t *w, int R, int V) {
    switch (8 * R + V) { CASES(1) CASES(2) CASES(3) CASES(4) }
}

/* The threads share blocks of channels where the weights are more bytes than the codes, else pixels:
   each reads its own part of the larger once. */
static void convolution(const struct step *s, int images, int thread, int threads) {
    const int blocks = (s->channels + BLOCK - 1) / BLOCK;
    const int64_t block_bytes = (int64_t)s->runs * s->groups * 4 * BLOCK;
    const int by_channel = blocks % threads == 0 && blocks * block_bytes > images * s->input_stride;
    const int first = by_channel ? blocks * thread / threads : 0;
    const int last = by_channel ? blocks * (thread + 1) / threads : blocks;
    const int part = by_channel ? 0 : thread, parts = by_channel ? 1 : threads;
    for (int block = first; block < last; block++) {
        const int left = s->channels - BLOCK * block;
        const int vectors = left >= BLOCK ? VECTORS : (left + LANES - 1) / LANES;
        const int8_t *w = s->weights + block * block_bytes;
        for (int b = 0; b < s->band_count; b++) {
            const int64_t total = (int64_t)images * s->bands[b].pixels;
            const int64_t from = total * part / parts, n = total * (part + 1) / parts - from;
            const int64_t tiles = (n + ROWS - 1) / ROWS;
            for (int64_t t = 0; t < tiles; t++) {
                const int64_t a = n * t / tiles, z = n * (t + 1) / tiles;
                dispatch(s, &s->bands[b], from + a, BLOCK * block, w, (int)(z - a), vectors);
            }
        }
    }
}
