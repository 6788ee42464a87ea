/* Convolution as products of u8 codes and s8 weights, four at a time into int32 (VPDPBUSD).

   A window is read in runs: for each of its rows the bytes of kernel width x channels, which lie side
   by side. Weights are packed as [slice of channels][run][group of 4 bytes][channel][4]: 64 channels,
   or those of some groups of a grouped convolution, which read a slice of the input, too. */

/* Sums that stay in registers, and those of the weights, where a CPU needs them. */
struct kept { __m512i sums[KEPT_PIXELS][KEPT_VECTORS], weights[KEPT_VECTORS]; };

/* Four bytes of R pixels times V vectors of weights. */
INLINE void products(const uint8_t *const *x, int64_t k, const int8_t *group, struct kept *kept, const int R,
                     const int V) {
    __m512i weights[KEPT_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
        weights[v] = _mm512_load_si512(group + 4 * LANES * v);
        add_weights(&kept->weights[v], weights[v]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        const __m512i codes = as_multiplied(broadcast(x[r] + k));
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) dot_multiplied(&kept->sums[r][v], codes, weights[v]);
    }
}

/* Weights that are wanted next, of which `lines` lines are asked for with every four bytes of a tile. */
enum { LINE = 64, MOST_AHEAD = 1 << 19 };
struct ahead { const int8_t *at, *end; int lines; };

INLINE void ask(struct ahead *ahead) {
    for (int l = 0; l < ahead->lines && ahead->at < ahead->end; l++, ahead->at += LINE)
        __builtin_prefetch(ahead->at, 0, 2);
}

/* Few sums are made twice, of every other four bytes: each waits for the one before it. */
INLINE void accumulate_kept(const struct step *s, const struct band *band, const uint8_t *const *x,
                            const int8_t *w, int bytes, struct ahead *wanted, struct kept *kept, const int R,
                            const int V) {
    struct ahead ahead = *wanted;
    const int twice = R * V <= FEW_SUMS;
    struct kept others;
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
        kept->weights[v] = others.weights[v] = _mm512_setzero_si512();
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) others.sums[r][v] = _mm512_setzero_si512();
    }
    for (int run = band->first_run; run < band->first_run + band->runs; run++) {
        const int8_t *group = w + ((int64_t)run * s->groups + band->first_group) * bytes;
        int64_t k = s->run_offsets[run] + 4 * (int64_t)band->first_group;
        const int64_t end = k + 4 * (int64_t)band->groups;
        for (; twice && k + 4 < end; k += 8, group += 2 * bytes) {
            products(x, k, group, kept, R, V);
            ask(&ahead);
            products(x, k + 4, group + bytes, &others, R, V);
            ask(&ahead);
        }
        for (; k < end; k += 4, group += bytes) {
            products(x, k, group, kept, R, V);
            ask(&ahead);
        }
    }
    *wanted = ahead;
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
        if (twice) kept->weights[v] = _mm512_add_epi32(kept->weights[v], others.weights[v]);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            if (twice) kept->sums[r][v] = _mm512_add_epi32(kept->sums[r][v], others.sums[r][v]);
            kept->sums[r][v] = with_weights(kept->sums[r][v], kept->weights[v]);
        }
    }
}

#if defined(KEPT_APART)
/* A function for each number of pixels, where that of sums that are kept is small: tiles consist of them. */
#define APART(R) \
    case R: accumulate_kept(s, band, x, w, bytes, wanted, &own, R < KEPT_PIXELS ? R : KEPT_PIXELS, 1); break;
static __attribute__((noinline)) void accumulate_apart(const struct step *s, const struct band *band,
                                                       const uint8_t *const *x, const int8_t *w, int bytes,
                                                       struct ahead *wanted, struct kept *kept, int R, int V) {
    struct kept own = *kept; /* in registers: what is kept elsewhere might be the weights, for a compiler */
    switch (R) { APART(1) APART(2) APART(3) APART(4) APART(5) APART(6) }
    *kept = own;
}
#define ACCUMULATE accumulate_apart
#else
#define ACCUMULATE accumulate_kept
#endif

/* Add the products of R pixels and V vectors of weights to their sums: as many at a time as are kept. */
INLINE void accumulate(const struct step *s, const struct band *band, const uint8_t *const *x,
                       const int8_t *w, struct ahead *wanted, __m512i sums[ROWS][VECTORS], const int R,
                       const int V) {
#pragma GCC unroll 6
    for (int r = 0; r < R; r += KEPT_PIXELS)
#pragma GCC unroll 4
        for (int v = 0; v < V; v += KEPT_VECTORS) {
            const int rows = R - r < KEPT_PIXELS ? R - r : KEPT_PIXELS;
            const int vectors = V - v < KEPT_VECTORS ? V - v : KEPT_VECTORS;
            struct kept kept;
#pragma GCC unroll 6
            for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
                for (int j = 0; j < vectors; j++) kept.sums[i][j] = sums[r + i][v + j];
            ACCUMULATE(s, band, x + r, w + 4 * LANES * v, 4 * LANES * V, wanted, &kept, rows, vectors);
#pragma GCC unroll 6
            for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
                for (int j = 0; j < vectors; j++) sums[r + i][v + j] = kept.sums[i][j];
        }
}

/* R pixels from pixel `index` of the band on, across images, x V vectors of channels. */
INLINE void tile(const struct step *s, const struct band *band, int64_t index,
                 const struct slice *slice, struct ahead *ahead, const int R, const int V) {
    const uint8_t *x[ROWS];
    struct place at[ROWS];
    __m512i sums[ROWS][VECTORS];
    begin_tile(s, band, index, slice, x, at, R);
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
        const __m512i bias = _mm512_loadu_si512(s->bias + slice->channel + LANES * v);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) sums[r][v] = bias;
    }
    accumulate(s, band, x, slice->weights, ahead, sums, R, V);
    const struct ending ending = ending_of(s, slice, V);
    FINISH(&ending, at, sums, R, V);
}

#define CASE(R, V) case 8 * R + V: tile(s, band, index, slice, ahead, R, V); break;
#define CASES(V) CASE(1, V) CASE(2, V) CASE(3, V) CASE(4, V) CASE(5, V) CASE(6, V)
static void dispatch(const struct step *s, const struct band *band, int64_t index,
                     const struct slice *slice, struct ahead *ahead, int R, int V) {
    switch (8 * R + V) { CASES(1) CASES(2) CASES(3) CASES(4) }
}

static struct slice slice_of(const struct step *s, int index) {
    const int channel = s->slice * index, vectors = (s->slice + LANES - 1) / LANES;
    return (struct slice){
        .channel = channel,
        .end = channel + s->slice < s->channels ? channel + s->slice : s->channels,
        .input = (int64_t)index * s->slice_input,
        .weights = s->weights + (int64_t)index * s->runs * s->groups * 4 * LANES * vectors,
    };
}

/* A thread's slices of channels, and which part of their pixels it takes. The threads share slices where
   the weights are more bytes than the codes, else pixels: each reads its own part of the larger once. */
struct part { int first, last; int64_t from, to; };

static int slices_of(const struct step *s) { return (s->channels + s->slice - 1) / s->slice; }

static int shares_slices(const struct step *s, int images, int threads) {
    const int64_t weights = slice_of(s, slices_of(s)).weights - s->weights;
    return slices_of(s) % threads == 0 && weights > images * s->input_stride;
}

static struct part part_of(const struct step *s, int images, struct portion portion) {
    const int slices = slices_of(s);
    if (shares_slices(s, images, portion.threads))
        return (struct part){(int)before(slices, portion.from), (int)before(slices, portion.to), 0, WHOLE};
    return (struct part){0, slices, portion.from, portion.to};
}

/* A part's pixels of a band, and the tiles that they are cut into. */
struct span { int64_t first, pixels, tiles; };

static struct span span_of(const struct band *band, int images, struct part part) {
    const int64_t total = images * (int64_t)band->pixels, first = before(total, part.from);
    const int64_t pixels = before(total, part.to) - first;
    return (struct span){first, pixels, (pixels + ROWS - 1) / ROWS};
}

/* Of `count` slices of a part from slice `first` on, or of those that it has, in so many times asking. */
static struct ahead ahead_of(const struct step *s, struct part part, int first, int count, int64_t asks) {
    if (!asks) return (struct ahead){0};
    const int last = first + count < part.last ? first + count : part.last;
    const int8_t *at = slice_of(s, first).weights, *end = slice_of(s, last).weights;
    if (end > at + MOST_AHEAD) end = at + MOST_AHEAD;
    return (struct ahead){at, end, (int)(((end - at) / LINE + asks - 1) / asks)};
}

/* The convolution after this one (NULL after the last), and what the thread takes of it. */
struct following { const struct step *step; struct portion portion; };

/* What is wanted before slice `first` of a part, in so many times asking: `count` slices from there on, or the
   first ones of the next convolution. */
static struct ahead ahead_before(const struct step *s, const struct following *next, struct part part,
                                 int first, int count, int images, int64_t asks) {
    if (first < part.last) return ahead_of(s, part, first, count, asks);
    if (!next->step) return (struct ahead){0};
    const struct part follows = part_of(next->step, images, next->portion);
    return ahead_of(next->step, follows, follows.first, count, asks);
}

/* How often a slice's tiles ask: never in one tile only, which reads its own weights as fast as memory
   gives them. */
static int64_t asks_of(const struct step *s, int images, struct part part) {
    int64_t tiles = 0, groups = 0;
    for (int b = 0; b < s->band_count; b++) {
        const struct band *band = &s->bands[b];
        const int64_t more = span_of(band, images, part).tiles;
        tiles += more, groups += more * band->runs * band->groups;
    }
    return tiles < 2 ? 0 : groups;
}

/* While a slice is multiplied, the next one's weights come into the core's own cache. At batch 1 ResNets
   gain 3 to 7%. */
static void convolution(const struct step *s, const struct following *next, int images,
                        struct portion portion) {
    const struct part part = part_of(s, images, portion);
    const int64_t asks = asks_of(s, images, part);
    for (int i = part.first; i < part.last; i++) {
        const struct slice slice = slice_of(s, i);
        const int vectors = (slice.end - slice.channel + LANES - 1) / LANES;
        struct ahead ahead = ahead_before(s, next, part, i + 1, 1, images, asks);
        for (int b = 0; b < s->band_count; b++) {
            const struct span span = span_of(&s->bands[b], images, part);
            for (int64_t t = 0; t < span.tiles; t++) {
                const int64_t a = span.pixels * t / span.tiles, z = span.pixels * (t + 1) / span.tiles;
                if (s->kind == GROUPED)
                    dispatch_grouped(s, &s->bands[b], span.first + a, &slice, (int)(z - a), vectors);
                else dispatch(s, &s->bands[b], span.first + a, &slice, &ahead, (int)(z - a), vectors);
            }
        }
    }
}
