/* Convolution on the tile registers of AMX: 32 pixels x 32 channels of sums in four of them.

   A tile of codes (panels.h) meets 16 groups of the weights as convolution.h packs them: the rows of a
   tile, 64 V bytes apart. The sums are those of VNNI, to the bit. */

#if defined(WITHOUT_TILES)
static int on_amx(const struct step *s, int images, int threads) { return 0; }
static void convolution_amx(const struct step *s, const struct following *next, int images,
                            struct portion portion, uint8_t *scratch) {}
#else
/* What the tiles of a part's pixels are read from. */
struct reading { const struct windows *windows; uint8_t *copies; };

/* Where a tile's rows are: those of the first `whole` stretches in place, the others' copied. */
struct tile { const uint8_t *x; int64_t apart; const uint8_t *copies; int whole; };

INLINE struct tile tile_of(const struct reading *from, const struct panel *panel, int m) {
    const int64_t apart = panel->apart[m];
    const uint8_t *copies = from->copies + TILE_BYTES * TILE * m;
    return (struct tile){panel->x[panel->first[m]], apart, copies, apart ? from->windows->whole : 0};
}

struct rows { const uint8_t *first; int64_t apart; };

INLINE struct rows rows_of(const struct tile *tile, const struct stretch *stretch, int i) {
    if (i < tile->whole) return (struct rows){tile->x + stretch->source, tile->apart};
    return (struct rows){tile->copies + TILE_BYTES * PANEL * i, TILE_BYTES};
}

/* The sums of M tiles of pixels and N vectors of channels, of V that lie side by side in weights. */
INLINE void multiply_tiles(const struct reading *from, const struct panel *panel, const int8_t *weights,
                           struct ahead *wanted, int32_t *sums, int V, const int M, const int N) {
    const int64_t apart = 4 * LANES * V, row = 4 * LANES * N;
    const struct tile tiles[2] = {tile_of(from, panel, 0), tile_of(from, panel, M - 1)};
    const struct stretch *stretch = from->windows->all;
    const int count = from->windows->count;
    struct ahead ahead = *wanted;
    TILE_ZERO(0);
    if (N > 1) TILE_ZERO(1);
    if (M > 1) TILE_ZERO(2);
    if (M > 1 && N > 1) TILE_ZERO(3);
    for (int i = 0; i < count; i++, stretch++) {
        const struct rows first = rows_of(&tiles[0], stretch, i), second = rows_of(&tiles[1], stretch, i);
        const int8_t *w = weights + stretch->group * apart;
        ask(&ahead);
        TILE_LOAD(4, first.first, first.apart);
        TILE_LOAD(6, w, apart);
        TILE_DOT(0, 4, 6);
        if (N > 1) TILE_LOAD(7, w + 4 * LANES, apart);
        if (N > 1) TILE_DOT(1, 4, 7);
        if (M > 1) TILE_LOAD(5, second.first, second.apart);
        if (M > 1) TILE_DOT(2, 5, 6);
        if (M > 1 && N > 1) TILE_DOT(3, 5, 7);
    }
    *wanted = ahead;
    TILE_STORE(0, sums, row);
    if (N > 1) TILE_STORE(1, sums + LANES, row);
    if (M > 1) TILE_STORE(2, sums + TILE * N * LANES, row);
    if (M > 1 && N > 1) TILE_STORE(3, sums + TILE * N * LANES + LANES, row);
}

/* The results of R pixels of a panel from pixel `first` on, and V vectors of channels, whose sums stand in
   memory: the bias is added here, since zeros come into a tile at once and one row sixteen times does not. */
INLINE void finish_pixels(const struct ending *ending, const struct panel *panel, int first,
                          const int32_t *from, const int32_t *bias, const int R, const int V) {
    __m512i sums[ROWS][VECTORS];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int v = 0; v < V; v++)
            sums[r][v] = _mm512_add_epi32(_mm512_load_si512(from + LANES * (panel->row[first + r] * V + v)),
                                          _mm512_loadu_si512(bias + LANES * v));
    finish_tile(ending, panel->at + first, sums, R, V);
}

/* A panel of M tiles times a slice of N vectors of channels, of V that lie side by side in weights. */
INLINE void multiply_pair(const struct step *s, const struct reading *from, const struct panel *panel,
                          const struct slice *slice, struct ahead *ahead, int V, const int M,
                          const int N) {
    _Alignas(64) int32_t sums[PANEL * 2 * LANES];
    multiply_tiles(from, panel, slice->weights, ahead, sums, V, M, N);
    const struct ending ending = ending_of(s, slice, N);
    const int32_t *bias = s->bias + slice->channel;
    int p = 0;
    for (; p + 4 <= panel->first[M]; p += 4) finish_pixels(&ending, panel, p, sums, bias, 4, N);
    for (; p < panel->first[M]; p++) finish_pixels(&ending, panel, p, sums, bias, 1, N);
}

/* A panel times all channels of a slice, two vectors at a time. */
static void multiply_panel(const struct step *s, const struct reading *from, const struct panel *panel,
                           const struct slice *all, struct ahead *ahead) {
    const int V = (all->end - all->channel + LANES - 1) / LANES;
    for (int v = 0; v < V; v += 2) {
        const int channel = all->channel + LANES * v, end = channel + 2 * LANES;
        const struct slice two = {
            channel, end < all->end ? end : all->end, all->input, all->weights + 4 * LANES * v,
        };
        switch (2 * panel->tiles + (v + 1 < V)) {
            case 2: multiply_pair(s, from, panel, &two, ahead, V, 1, 1); break;
            case 3: multiply_pair(s, from, panel, &two, ahead, V, 1, 2); break;
            case 4: multiply_pair(s, from, panel, &two, ahead, V, 2, 1); break;
            default: multiply_pair(s, from, panel, &two, ahead, V, 2, 2);
        }
    }
}

/* All pixels of a part times its slices `first` to `last`, which read the same. */
static void multiply_part(const struct step *s, const struct reading *from, int images, struct part part,
                          int first, int last, struct ahead *ahead) {
    const struct span span = span_of(&s->bands[0], images, part);
    struct slice slice = slice_of(s, first);
    struct panel panel;
    for (int64_t index = span.first, end = index + span.pixels; index < end;) {
        panel.tiles = panel.first[0] = 0;
        for (int left = 2; left && index < end; left--)
            index += add_tile(s, index, end - index, images, &slice, &panel);
        copy_rows(&panel, from->windows, from->copies);
        for (int i = first; i < last; i++) {
            slice = slice_of(s, i);
            multiply_panel(s, from, &panel, &slice, ahead);
        }
    }
}

/* How many slices from slice `first` of a part on are multiplied panel by panel: those that read the same, and
   whose weights stay in the core's cache. */
static int together(const struct step *s, struct part part, int first) {
    const int64_t each = slice_of(s, first + 1).weights - slice_of(s, first).weights;
    const int64_t most = s->slice_input ? 1 : TOGETHER_BYTES / each, left = part.last - first;
    return (int)(most < 1 ? 1 : most < left ? most : left);
}

static void convolution_amx(const struct step *s, const struct following *next, int images,
                            struct portion portion, uint8_t *scratch) {
    const struct part part = part_of(s, images, portion);
    const int64_t panels = (span_of(&s->bands[0], images, part).pixels + PANEL - 1) / PANEL;
    struct windows windows;
    const struct reading from = {&windows, scratch};
    note_all(s, &windows);
    configure_tiles();
    for (int first = part.first, count; first < part.last; first += count) {
        count = together(s, part, first);
        const int last = first + count, channels = slice_of(s, last - 1).end - s->slice * first;
        const int64_t asks = panels < 2 ? 0 : panels * windows.count * ((channels + 2 * LANES - 1) / (2 * LANES));
        struct ahead ahead = ahead_before(s, next, part, last, count, images, asks);
        multiply_part(s, &from, images, part, first, last, &ahead);
    }
    release_tiles();
}

/* Whether a convolution is multiplied on the registers: where it pays, and all pixels read all of their
   windows. */
static int on_amx(const struct step *s, int images, int threads) {
    if (!amx || s->kind != CONVOLUTION || s->band_count > 1) return 0;
    const struct band *band = s->bands;
    if (band->runs < s->runs || band->groups < s->groups) return 0;
    const int64_t groups = (int64_t)s->runs * s->groups, pixels = (int64_t)s->pixels * images;
    if (groups < LEAST_GROUPS || pixels < (int64_t)LEAST_PIXELS * threads) return 0;
    return stretches(s) <= MOST_STRETCHES && stretches(s) + s->runs <= MOST_PIECES;
}

#endif

/* Multiply on the registers from now on, where it is wanted and they are there; return whether. */
int use_amx(int wanted) { return amx = wanted && may_use_tiles(); }

/* Whether convolutions are multiplied on the registers. */
int uses_amx(void) { return amx; }
