/* Convolution on the tile registers of AMX: 32 pixels x 32 channels of sums in four of them.

   64 bytes of a window at a time are copied side by side, zeros in the place of what is no part of it,
   and multiplied by 16 groups of the weights, which lie as convolution.h packs them: the rows of a tile,
   64 V bytes apart. The sums are those of VNNI, to the bit. */

enum { PANEL = 2 * TILE, MOST_BANDS = 32, MOST_STRETCHES = 1024 };

/* 64 bytes of a window: where they begin in it, which of them count, and the groups that they meet. */
struct stretch { int64_t source, group; __mmask64 bytes; };

/* The stretches of all bands: those of band b from first[b] on. */
struct windows { int first[MOST_BANDS + 1]; struct stretch all[MOST_STRETCHES]; };

/* Note groups `from` to `to` of a run, at most 16: with some before them, which do not count, where 16 from
   there on would pass the end of the weights. */
INLINE void note(const struct step *s, int run, int64_t from, int64_t to, struct stretch *found) {
    const int64_t whole = (int64_t)run * s->groups, last = (int64_t)s->runs * s->groups - TILE;
    const int64_t group = whole + from < last ? whole + from : last;
    const __mmask64 bytes = ~0ull >> (TILE_BYTES - 4 * (to - from));
    *found = (struct stretch){
        s->run_offsets[run] + 4 * (group - whole), group, bytes << 4 * (whole + from - group),
    };
}

/* The stretches of a band's windows, run by run. Where columns are whole stretches, the same channels of
   all columns follow one another: most of their bytes are those of the pixel beside. */
static int stretches_of(const struct step *s, const struct band *band, struct stretch *found) {
    const int64_t column = s->width / 4, first = band->first_group, end = first + band->groups;
    const int64_t step = column && column % TILE == 0 ? column : TILE;
    int count = 0;
    for (int run = band->first_run; run < band->first_run + band->runs; run++)
        for (int64_t start = first; start < first + step && start < end; start += TILE)
            for (int64_t from = start; from < end; from += step)
                note(s, run, from, from + TILE < end ? from + TILE : end, found + count++);
    return count;
}

INLINE void copy_stretch(uint8_t *codes, const uint8_t *const *x, const struct stretch *stretch, int R) {
    for (int r = 0; r < R; r++, codes += TILE_BYTES)
        _mm512_store_si512(codes, _mm512_maskz_loadu_epi8(stretch->bytes, x[r] + stretch->source));
}

/* The sums of R pixels, at most M x 16, and N x 16 channels, of V x 16 that lie side by side in weights. */
INLINE void multiply_tiles(const uint8_t *const *x, int R, const struct windows *windows, int band,
                           const int8_t *weights, const int32_t *bias, struct ahead *wanted,
                           int32_t *sums, int V, const int M, const int N) {
    _Alignas(64) uint8_t codes[2][PANEL * TILE_BYTES];
    const int64_t apart = 4 * LANES * V, row = 4 * N * LANES;
    const int last = windows->first[band + 1];
    struct ahead ahead = *wanted;
    TILE_LOAD(0, bias, 0);
    if (N > 1) TILE_LOAD(1, bias + LANES, 0);
    if (M > 1) TILE_LOAD(2, bias, 0);
    if (M > 1 && N > 1) TILE_LOAD(3, bias + LANES, 0);
    copy_stretch(codes[0], x, windows->all + windows->first[band], R);
    for (int i = windows->first[band], turn = 0; i < last; i++, turn ^= 1) {
        const uint8_t *now = codes[turn];
        const int8_t *w = weights + windows->all[i].group * apart;
        if (i + 1 < last) copy_stretch(codes[turn ^ 1], x, windows->all + i + 1, R);
        ask(&ahead);
        TILE_LOAD(4, now, TILE_BYTES);
        TILE_LOAD(6, w, apart);
        TILE_DOT(0, 4, 6);
        if (N > 1) TILE_LOAD(7, w + 4 * LANES, apart);
        if (N > 1) TILE_DOT(1, 4, 7);
        if (M > 1) TILE_LOAD(5, now + TILE * TILE_BYTES, TILE_BYTES);
        if (M > 1) TILE_DOT(2, 5, 6);
        if (M > 1 && N > 1) TILE_DOT(3, 5, 7);
    }
    *wanted = ahead;
    TILE_STORE(0, sums, row);
    if (N > 1) TILE_STORE(1, sums + LANES, row);
    if (M > 1) TILE_STORE(2, sums + TILE * N * LANES, row);
    if (M > 1 && N > 1) TILE_STORE(3, sums + TILE * N * LANES + LANES, row);
}

/* The results of R pixels and V vectors of channels, whose sums stand in memory. */
INLINE void finish_sums(const struct step *s, const struct slice *slice, const struct place *at,
                        const int32_t *from, const int R, const int V) {
    __m512i sums[ROWS][VECTORS];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sums[r][v] = _mm512_load_si512(from + LANES * (r * V + v));
    finish_tile(s, slice, at, sums, R, V);
}

/* R pixels, at most 32, from pixel `index` of the band on, x a slice of N vectors, of V in the weights. */
INLINE void panel(const struct step *s, const struct windows *windows, int band, int64_t index, int R,
                  const struct slice *slice, struct ahead *ahead, int V, const int N) {
    const uint8_t *x[PANEL];
    struct place at[PANEL];
    _Alignas(64) int32_t sums[PANEL * 2 * LANES];
    const int32_t *bias = s->bias + slice->channel;
    begin_tile(s, &s->bands[band], index, slice, x, at, R);
    if (R > TILE) multiply_tiles(x, R, windows, band, slice->weights, bias, ahead, sums, V, 2, N);
    else multiply_tiles(x, R, windows, band, slice->weights, bias, ahead, sums, V, 1, N);
    int r = 0;
    for (; r + 4 <= R; r += 4) finish_sums(s, slice, at + r, sums + r * N * LANES, 4, N);
    for (; r < R; r++) finish_sums(s, slice, at + r, sums + r * N * LANES, 1, N);
}

/* The panels of a part's pixels. */
static int64_t panels_of(struct span span) { return (span.pixels + PANEL - 1) / PANEL; }

/* One or two vectors of a slice of V, for all pixels of a part. */
static void pair(const struct step *s, const struct windows *windows, int images, struct part part,
                 const struct slice *slice, struct ahead *ahead, int V) {
    for (int b = 0; b < s->band_count; b++) {
        const struct span span = span_of(&s->bands[b], images, part);
        const int64_t panels = panels_of(span);
        for (int64_t t = 0; t < panels; t++) {
            const int64_t a = span.pixels * t / panels, R = span.pixels * (t + 1) / panels - a;
            if (slice->end - slice->channel > LANES)
                panel(s, windows, b, span.first + a, (int)R, slice, ahead, V, 2);
            else panel(s, windows, b, span.first + a, (int)R, slice, ahead, V, 1);
        }
    }
}

static void convolution_amx(const struct step *s, const struct step *next, int images, int thread,
                            int threads) {
    const struct part part = part_of(s, images, thread, threads);
    struct windows windows;
    int64_t panels = 0, asks = 0;
    windows.first[0] = 0;
    for (int b = 0; b < s->band_count; b++) {
        const int first = windows.first[b], count = stretches_of(s, &s->bands[b], windows.all + first);
        const int64_t more = panels_of(span_of(&s->bands[b], images, part));
        windows.first[b + 1] = first + count, panels += more, asks += more * count;
    }
    configure_tiles();
    for (int i = part.first; i < part.last; i++) {
        const struct slice all = slice_of(s, i);
        const int vectors = (all.end - all.channel + LANES - 1) / LANES;
        const int64_t all_asks = panels < 2 ? 0 : asks * ((vectors + 1) / 2);
        struct ahead ahead = {0};
        if (i + 1 < part.last) ahead = ahead_of(s, i + 1, all_asks);
        else if (next) ahead = ahead_of(next, part_of(next, images, thread, threads).first, all_asks);
        for (int v = 0; v < vectors; v += 2) {
            const int channel = all.channel + LANES * v, end = channel + 2 * LANES;
            const struct slice two = {
                channel, end < all.end ? end : all.end, all.input, all.weights + 4 * LANES * v,
            };
            pair(s, &windows, images, part, &two, &ahead, vectors);
        }
    }
    release_tiles();
}

/* Whether a convolution is multiplied on the registers: where it pays, and a thread can note its windows. */
static int on_amx(const struct step *s, int images, int threads) {
    if (!amx || s->kind != CONVOLUTION || s->band_count > MOST_BANDS) return 0;
    const int64_t groups = (int64_t)s->runs * s->groups, pixels = (int64_t)s->pixels * images;
    if (groups < LEAST_GROUPS || pixels < (int64_t)LEAST_PIXELS * threads) return 0;
    int64_t count = 0;
    for (int b = 0; b < s->band_count; b++)
        count += s->bands[b].runs * (int64_t)((s->bands[b].groups + TILE - 1) / TILE);
    return count <= MOST_STRETCHES;
}

/* Multiply on the registers from now on, where it is wanted and they are there; return whether. */
int use_amx(int wanted) { return amx = wanted && may_use_tiles(); }
