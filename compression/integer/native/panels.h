/* What the tile registers of AMX read of a convolution: 64 bytes of the windows of up to 16 pixels.

   Where pixels lie equally far apart, a tile is loaded from where their codes lie: those of a row of an
   image, and of the next one, with rows between them that nobody asked for. Else its rows are copied side
   by side, piece by piece, with zeros in the place of what is no part of a window. */

enum { PANEL = 2 * TILE, MOST_STRETCHES = 1024, MOST_PIECES = 2 * MOST_STRETCHES, LEAST_IN_PLACE = 12,
       TOGETHER_BYTES = 1 << 18 };

/* Bytes of a window that lie side by side: which of 64 they are, and where the first of 64 would lie. */
struct piece { int64_t source; __mmask64 bytes; };

/* 64 bytes of a window and the first of 16 groups of weights that they meet: from `source` on, or, where
   they do not lie side by side, in pieces. */
struct stretch { int64_t source, group; int first, pieces; };

/* The stretches of a window; those that lie side by side come first. */
struct windows {
    int count, whole, pieces;
    struct stretch all[MOST_STRETCHES];
    struct piece piece[MOST_PIECES];
};

/* Note the groups `from` to `to` of a window, at most 16: with some before them, which do not count, where
   16 from there on would pass the end of the weights. */
INLINE void note(const struct step *s, int64_t from, int64_t to, struct windows *found) {
    const int64_t last = (int64_t)s->runs * s->groups - TILE, group = from < last ? from : last;
    struct stretch stretch = {0, group, found->pieces, 0};
    for (int64_t run = from / s->groups; run * s->groups < to; run++, stretch.pieces++) {
        const int64_t whole = run * s->groups, end = whole + s->groups < to ? whole + s->groups : to;
        const int64_t start = from > whole ? from : whole;
        const __mmask64 bytes = ~0ull >> (TILE_BYTES - 4 * (end - start));
        stretch.source = s->run_offsets[run] + 4 * (group - whole);
        found->piece[found->pieces++] = (struct piece){stretch.source, bytes << 4 * (start - group)};
    }
    found->all[found->count++] = stretch;
    if (stretch.pieces > 1 || to - from < TILE) return;
    found->all[found->count - 1] = found->all[found->whole];
    found->all[found->whole++] = stretch;
}

/* The stretches of a window, run by run. Where columns are whole stretches, the same channels of a run's
   columns follow one another: most of their bytes are those of the pixel beside. */
static void note_all(const struct step *s, struct windows *found) {
    const int64_t column = s->width % TILE_BYTES ? 0 : s->width / 4, total = (int64_t)s->runs * s->groups;
    found->count = found->whole = found->pieces = 0;
    if (column == 0 || s->groups % column) {
        for (int64_t from = 0; from < total; from += TILE)
            note(s, from, from + TILE < total ? from + TILE : total, found);
        return;
    }
    for (int64_t run = 0; run < total; run += s->groups)
        for (int64_t start = run; start < run + column; start += TILE)
            for (int64_t from = start; from < run + s->groups; from += column)
                note(s, from, from + TILE, found);
}

static int64_t stretches(const struct step *s) { return ((int64_t)s->runs * s->groups + TILE - 1) / TILE; }

/* The bytes of copies that a thread may need for this step. */
static int64_t copied_bytes(const struct step *s) {
    return s->kind == CONVOLUTION && stretches(s) <= MOST_STRETCHES ? stretches(s) * PANEL * TILE_BYTES : 0;
}

/* The pixels of one or two tiles, those of tile m from first[m] on, and which row of both each is. The rows
   of a tile lie `apart`, or anywhere (0). */
struct panel {
    int tiles, first[3], row[PANEL];
    int64_t apart[2];
    const uint8_t *x[PANEL];
    struct place at[PANEL];
};

/* How many of R pixels lie in the rows of a tile from the first of them on, `apart`; note which. */
INLINE int rows_in_place(const uint8_t *const *x, int64_t apart, int *row, int R) {
    int64_t others = apart <= 0;
    for (int i = 0; i < R; i++) row[i] = i;
    for (int i = 1; i < R; i++) others |= x[i] - x[i - 1] - apart;
    if (!others) return R;
    int r = 1;
    for (; apart > 0 && r < R; r++) {
        const int64_t on = x[r] - x[r - 1];
        if (on != apart && (on < 0 || on >= TILE * apart || on % apart)) break;
        row[r] = row[r - 1] + (on == apart ? 1 : (int)(on / apart));
        if (row[r] >= TILE) break;
    }
    return r;
}

/* Add a tile of pixels from pixel `index` on, of so many that are left: those in place, where they are many
   and all rows begin before the last pixel of all; else the next ones. Return how many. */
INLINE int add_tile(const struct step *s, int64_t index, int64_t left, int images,
                    const struct slice *slice, struct panel *panel) {
    const int m = panel->tiles++, first = panel->first[m], R = left < TILE ? (int)left : TILE;
    const uint8_t **x = panel->x + first;
    int *row = panel->row + first;
    begin_tile(s, &s->bands[0], index, slice, x, panel->at + first, R);
    const uint8_t *last = s->input + place_of(s, images - 1, s->pixels - 1).input + slice->input;
    const int64_t apart = R > 1 ? x[1] - x[0] : 0;
    int count = rows_in_place(x, apart, row, R);
    const int in_place = count >= LEAST_IN_PLACE && x[0] + (TILE - 1) * apart <= last;
    panel->apart[m] = in_place ? apart : 0;
    if (!in_place) count = R;
    for (int r = 0; r < count; r++) row[r] = TILE * m + (in_place ? row[r] : r);
    panel->first[m + 1] = first + count;
    return count;
}

/* Copy the rows of a panel that are not loaded from where they lie: of each stretch, 32. */
static void copy_rows(const struct panel *panel, const struct windows *windows, uint8_t *copies) {
    for (int m = 0; m < panel->tiles; m++)
        for (int i = panel->apart[m] ? windows->whole : 0; i < windows->count; i++) {
            const struct piece *piece = windows->piece + windows->all[i].first;
            for (int r = panel->first[m]; r < panel->first[m + 1]; r++) {
                const uint8_t *x = panel->x[r];
                __m512i codes = _mm512_maskz_loadu_epi8(piece->bytes, x + piece->source);
                for (int p = 1; p < windows->all[i].pieces; p++)
                    codes = _mm512_mask_loadu_epi8(codes, piece[p].bytes, x + piece[p].source);
                _mm512_store_si512(copies + TILE_BYTES * (PANEL * i + panel->row[r]), codes);
            }
        }
}
