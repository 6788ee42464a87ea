/* Depthwise convolution: one filter per channel, four rows of it at a time (VPDPBUSD).

   A vector of codes holds 16 channels of four rows, interleaved byte by byte; a window's column is
   VECTORS of them for each four rows. Neighbouring pixels of a row share columns: each is interleaved
   once for up to 4 pixels. Weights are packed as [block of 64 channels][four rows][column][vector]
   [channel][row]; the last block ends with the last channel, and repeats some of the one before it.
   Bias and multipliers are packed by block too, in the order of the interleaved channels. */

enum { NEIGHBOURS = 4 };

/* Four rows of 64 channels. Interleaving stays within 128-bit lanes, and so does packing: encode_block
   puts the channels back in order. */
INLINE void interleave(const uint8_t *const *rows, int64_t at, __m512i columns[VECTORS]) {
    const __m512i a = _mm512_loadu_si512(rows[0] + at), b = _mm512_loadu_si512(rows[1] + at);
    const __m512i c = _mm512_loadu_si512(rows[2] + at), d = _mm512_loadu_si512(rows[3] + at);
    const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
    columns[0] = _mm512_unpacklo_epi16(ab_low, cd_low);
    columns[1] = _mm512_unpackhi_epi16(ab_low, cd_low);
    columns[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
    columns[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
}

/* Store P neighbouring pixels. */
INLINE void finish_neighbours(const struct step *s, int64_t image, int64_t pixel, int channel, int block,
                              __m512i sums[NEIGHBOURS][VECTORS], const int P) {
    const struct bounds bounds = bounds_of(s);
    const __mmask64 mask = block_lanes(s->channels, channel);
    uint8_t *output = (uint8_t *)s->output + channel;
    struct place at[NEIGHBOURS];
    __m512 y[NEIGHBOURS][VECTORS], factor[VECTORS];
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) at[p] = place_of(s, image, pixel + p);
    load_factors(s->multiplier + block, factor, VECTORS);
    scale(factor, sums, y, P, VECTORS);
    if (s->residual)
        for (int p = 0; p < P; p++) add_interleaved(s, at[p], channel, y[p]);
    if (s->real) {
        for (int p = 0; p < P; p++) store_real(s, at[p], channel, y[p]);
        return;
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; p++)
        _mm512_mask_storeu_epi8(output + at[p].output, mask, encode(&bounds, y[p], VECTORS));
}

#if defined(KEPT_APART)
#define FINISH_PIXELS(P) case P: finish_neighbours(s, image, pixel, channel, block, sums, P); break;
static __attribute__((noinline)) void neighbours_apart(const struct step *s, int64_t image, int64_t pixel,
                                                       int channel, int block,
                                                       __m512i sums[NEIGHBOURS][VECTORS], int P) {
    switch (P) { FINISH_PIXELS(1) FINISH_PIXELS(2) FINISH_PIXELS(3) FINISH_PIXELS(4) }
}
#define FINISH_NEIGHBOURS neighbours_apart
#else
#define FINISH_NEIGHBOURS finish_neighbours
#endif

/* Sums of pixels that stay in registers, and those of a window's weights, where a CPU needs them. */
struct columns { __m512i sums[NEIGHBOURS][KEPT_VECTORS], weights[KEPT_VECTORS]; };

/* What a column of a window adds to the sums of pixel `p`, for the vectors from `first` on. */
INLINE void multiply_column(struct columns *kept, const int p, const __m512i *column, const int8_t *w, int tap,
                            const int first) {
#pragma GCC unroll 4
    for (int v = 0; v < KEPT_VECTORS; v++) {
        const __m512i weights = _mm512_load_si512(w + 4 * (BLOCK * tap + LANES * (first + v)));
        if (p == 0) add_weights(&kept->weights[v], weights);
        dot_multiplied(&kept->sums[p][v], as_multiplied(column[first + v]), weights);
    }
}

/* The products of P neighbouring pixels, S columns apart, with windows of W columns; S is 0 where they share
   none. */
INLINE void multiply_neighbours(const struct step *s, const uint8_t *x, const int8_t *w,
                                struct columns *kept, const int first, const int P, const int W, const int S) {
    const int64_t apart = P > 1 ? s->input_offsets[1] - s->input_offsets[0] : 0;
    __m512i column[VECTORS];
    for (int run = 0; run < s->runs; run += 4, w += 4 * BLOCK * W) {
        const uint8_t *rows[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) rows[i] = x + s->run_offsets[run + i];
        const int shared = S ? (P - 1) * S + W : 0;
#pragma GCC unroll 16
        for (int j = 0; j < shared; j++) {
            interleave(rows, j * s->width, column);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++)
                if (j >= p * S && j < p * S + W) multiply_column(kept, p, column, w, j - p * S, first);
        }
#pragma GCC unroll 4
        for (int p = 0; !S && p < P; p++)
            for (int tap = 0; tap < W; tap++) {
                interleave(rows, p * apart + tap * s->width, column);
                multiply_column(kept, p, column, w, tap, first);
            }
    }
}

/* P neighbouring pixels, as many vectors of channels at a time as are kept. */
INLINE void neighbours(const struct step *s, int64_t image, int64_t pixel, int channel,
                       const int8_t *w, int block, const int P, const int W, const int S) {
    const uint8_t *x = s->input + place_of(s, image, pixel).input + channel;
    __m512i sums[NEIGHBOURS][VECTORS];
#pragma GCC unroll 4
    for (int first = 0; first < VECTORS; first += KEPT_VECTORS) {
        struct columns kept;
#pragma GCC unroll 4
        for (int v = 0; v < KEPT_VECTORS; v++) {
            const __m512i bias = _mm512_loadu_si512(s->bias + block + LANES * (first + v));
            kept.weights[v] = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) kept.sums[p][v] = bias;
        }
        multiply_neighbours(s, x, w, &kept, first, P, W, S);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < KEPT_VECTORS; v++)
                sums[p][first + v] = with_weights(kept.sums[p][v], kept.weights[v]);
    }
    FINISH_NEIGHBOURS(s, image, pixel, channel, block, sums, P);
}

#define WINDOW(W, S)                                                                     \
    switch (pixels) {                                                                    \
        case 1: neighbours(s, image, pixel, channel, w, block, 1, W, S); break;          \
        case 2: neighbours(s, image, pixel, channel, w, block, 2, W, S); break;          \
        case 3: neighbours(s, image, pixel, channel, w, block, 3, W, S); break;          \
        case 4: neighbours(s, image, pixel, channel, w, block, 4, W, S); break;          \
    }
static void dispatch_depthwise(const struct step *s, int64_t image, int64_t pixel, int channel,
                               const int8_t *w, int block, int pixels, int stride) {
    if (s->groups == 3 && stride == 1) WINDOW(3, 1)
    else if (s->groups == 3 && stride == 2) WINDOW(3, 2)
    else if (s->groups == 5 && stride == 1) WINDOW(5, 1)
    else if (s->groups == 1) WINDOW(1, 0)
    else if (stride) WINDOW(s->groups, stride)
    else WINDOW(s->groups, 0)
}

/* The columns from a pixel's window to that of the next one in its row; 0 where they share none. */
INLINE int columns_apart(const struct step *s) {
    if (s->plane == 1) return 0;
    const int64_t apart = s->input_offsets[1] - s->input_offsets[0];
    return apart % s->width || apart / s->width >= s->groups ? 0 : (int)(apart / s->width);
}

/* Whether a filter is one weight per channel, as a batch norm after a concatenation is: four rows that are
   one, of which the first has a weight. */
static int is_affine(const struct step *s) {
    const int32_t *at = s->run_offsets;
    return s->runs == 4 && s->groups == 1 && at[0] == at[3] && !s->residual && !s->real;
}

/* One block of channels of P pixels: what `interleave` makes of four equal rows, but for what meets no
   weight. */
INLINE void scale_block(const struct step *s, const struct bounds *bounds, const struct place *at, int b,
                        int channel, const int P) {
    const uint32_t quad[] = {0x80808000, 0x80808001, 0x80808002, 0x80808003};
    const __m512i quads = broadcast_16(quad);
    const __mmask64 mask = block_lanes(s->channels, channel);
    __m512i weights[VECTORS], bias[VECTORS], places[VECTORS];
    __m512 factor[VECTORS], y[VECTORS];
    load_factors(s->multiplier + BLOCK * b, factor, VECTORS);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
        weights[v] = _mm512_load_si512(s->weights + 4 * (BLOCK * b + LANES * v));
        bias[v] = _mm512_loadu_si512(s->bias + BLOCK * b + LANES * v);
        places[v] = _mm512_add_epi8(quads, _mm512_set1_epi32(4 * v));
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
        const __m512i codes = _mm512_loadu_si512(s->input + at[p].input + channel);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            __m512i sum = bias[v];
            dot(&sum, _mm512_shuffle_epi8(codes, places[v]), weights[v]);
            y[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor[v]);
        }
        uint8_t *output = (uint8_t *)s->output + at[p].output + channel;
        _mm512_mask_storeu_epi8(output, mask, encode(bounds, y, VECTORS));
    }
}

static void affine(const struct step *s, int images, struct portion portion) {
    const struct bounds bounds = bounds_of(s);
    const int blocks = (s->channels + BLOCK - 1) / BLOCK, last = s->channels < BLOCK ? 0 : s->channels - BLOCK;
    for (struct share on = share_of(s, images, portion); on.left;) {
        struct place at[NEIGHBOURS];
        int P = 0;
        for (; P < NEIGHBOURS && on.left; P++, advance(s, &on)) at[P] = place_of(s, on.image, on.pixel);
        for (int b = 0; b < blocks; b++) {
            const int channel = BLOCK * b < last ? BLOCK * b : last;
            if (P == NEIGHBOURS) scale_block(s, &bounds, at, b, channel, NEIGHBOURS);
            else for (int p = 0; p < P; p++) scale_block(s, &bounds, at + p, b, channel, 1);
        }
    }
}

static void depthwise(const struct step *s, int images, struct portion portion) {
    if (is_affine(s)) {
        affine(s, images, portion);
        return;
    }
    const int stride = columns_apart(s), blocks = (s->channels + BLOCK - 1) / BLOCK;
    const int64_t tiles = (s->plane + NEIGHBOURS - 1) / NEIGHBOURS, rows = s->pixels / s->plane;
    const int64_t each = s->plane / tiles, more = s->plane % tiles; /* pixels of a tile */
    const int64_t total = images * rows * tiles, block_bytes = (int64_t)s->runs * s->groups * BLOCK;
    const int64_t first = before(total, portion.from), end = before(total, portion.to);
    int64_t tile = first % tiles, row = first / tiles % rows, image = first / tiles / rows;
    for (int64_t i = first; i < end; i++) {
        const int64_t a = tile * each + (tile < more ? tile : more);
        for (int b = 0; b < blocks; b++) {
            const int last = s->channels < BLOCK ? 0 : s->channels - BLOCK;
            const int channel = BLOCK * b < last ? BLOCK * b : last;
            dispatch_depthwise(s, image, row * s->plane + a, channel, s->weights + b * block_bytes,
                               BLOCK * b, (int)each + (tile < more), stride);
        }
        if (++tile == tiles) {
            tile = 0;
            if (++row == rows) row = 0, image++;
        }
    }
}
