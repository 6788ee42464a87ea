/* Softmax attention. The formulas stand in attention.py of compression/quantization; each float is rounded
   as there. Products are those of VNNI, or of AMX: the same sums, to the bit. */

static int64_t padded(int64_t count, int64_t to) { return (count + to - 1) / to * to; }
static int vectors_of(int64_t left) { return left >= BLOCK ? VECTORS : (int)((left + LANES - 1) / LANES); }

/* What a thread needs of one group. Keys and values are packed as weights are, and are zero where they fill
   up a tile; of queries, their scores and their weights there are TILE rows. */
struct group {
    int8_t *keys, *values;
    int32_t *starts, *sums;    /* of each key: what is added to its scores; rows of scores, or of means */
    uint8_t *queries, *shares;
    int64_t keys_64, depth_64, bytes;
};

static struct group group_of(const struct step *s, uint8_t *scratch) {
    struct group g = {.keys_64 = padded(s->plane, BLOCK), .depth_64 = padded(s->groups, BLOCK)};
    uint8_t *at = scratch;
    g.keys = (int8_t *)at, at += g.keys_64 * g.depth_64;
    g.values = (int8_t *)at, at += padded(s->channels, BLOCK) * g.keys_64;
    g.starts = (int32_t *)at, at += g.keys_64 * sizeof(int32_t);
    g.sums = (int32_t *)at, at += TILE * g.keys_64 * sizeof(int32_t);
    g.queries = at, at += TILE * g.depth_64;
    g.shares = at, at += TILE * g.keys_64;
    g.bytes = at - scratch;
    return g;
}

/* Keys as [block of 64 keys][4 channels][key][4]; to scores the products of the queries' zero are added. */
static void pack_keys(const struct step *s, const uint8_t *base, const int32_t *offsets, const struct group *g) {
    const __m512i quads = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    memset(g->keys, 0, g->keys_64 * g->depth_64);
    memset(g->starts, 0, g->keys_64 * sizeof(int32_t));
    for (int64_t j = 0; j < s->plane; j++) {
        const int64_t block = j / BLOCK * BLOCK, width = LANES * vectors_of(s->plane - block);
        const __m512i places = _mm512_mullo_epi32(quads, _mm512_set1_epi32((int32_t)width));
        int8_t *y = g->keys + block * g->depth_64 + (j - block) * 4;
        __m512i sum = _mm512_setzero_si512();
        for (int c = 0; c < s->groups; c += BLOCK) {
            const __mmask64 mask = block_lanes(s->groups, c);
            const __m512i codes = _mm512_maskz_loadu_epi8(mask, base + offsets[j] + c);
            const __m512i x = _mm512_maskz_sub_epi8(mask, codes, _mm512_set1_epi8((char)0x80));
            _mm512_i32scatter_epi32(y + c * width, places, x, 4);
            dot(&sum, _mm512_set1_epi8(1), x);
        }
        g->starts[j] = -s->input_zero * _mm512_reduce_add_epi32(sum);
    }
}

/* Values as [block of 64 channels][4 keys][channel][4]: four keys' bytes are interleaved. */
static void pack_values(const struct step *s, const uint8_t *base, const int32_t *offsets, const struct group *g) {
    for (int block = 0; block < s->channels; block += BLOCK) {
        const int width = LANES * vectors_of(s->channels - block);
        for (int64_t first = 0; first < g->keys_64; first += 4)
            for (int c = 0; c < width; c += LANES) {
                uint8_t x[4][LANES] = {0};
                const int left = s->channels - block - c;
                for (int i = 0; i < 4 && first + i < s->plane; i++) {
                    const uint8_t *from = base + offsets[first + i] + block + c;
                    memcpy(x[i], from, left >= LANES ? LANES : left);
                }
                for (int i = 0; i < 4; i++)
                    for (int l = 0; l < LANES; l++) x[i][l] ^= 0x80;
                interleave_16(x, g->values + block * g->keys_64 + first * width + c * 4);
            }
    }
}

/* The queries' scores with all keys, as rows of `g`. */
static void score(const struct step *s, const struct group *g, int rows) {
    const struct lines queries = {g->queries, g->depth_64, rows, s->groups};
    for (int64_t block = 0; block < s->plane; block += BLOCK)
        multiply(&queries, g->keys + block * g->depth_64, g->sums + block, g->keys_64,
                 vectors_of(s->plane - block));
}

/* The table of attention.py, entry by entry: 255 exp(-place / 160), rounded. So much of 2^x, x from -1/2 to
   1/2, errs by less than 1 / 30000, half as much as any entry lies from where it would be rounded to another. */
INLINE __m512i table(__m512 places) {
    const __m512 powers = _mm512_mul_ps(places, _mm512_set1_ps(-0x1.2776c6p-7f)); /* -log2(e) / 160 */
    const __m512 whole = nearest(powers);
    const __m512 x = _mm512_sub_ps(powers, whole);
    __m512 y = _mm512_set1_ps(0x1.5e1722p-2f);
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(0x1.3bb0a4p1f));
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(0x1.c4e7b8p3f));
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(0x1.ea0db8p5f));
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(0x1.61814cp7f));
    y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(255.0f));
    return _mm512_cvtps_epi32(_mm512_scalef_ps(y, whole));
}

/* Its entries from 0 to LAST, for a test to compare. */
void softmax_table(int32_t *entries) {
    for (int i = 0; i <= LAST; i++) {
        int32_t alike[LANES];
        _mm512_storeu_si512(alike, table(_mm512_set1_ps((float)i)));
        entries[i] = alike[0];
    }
}

/* Scores of row `row`, to which `mask` is added -> weights, 255 for the largest; return their sum. */
static int32_t shares_of(const struct step *s, const struct group *g, const int32_t *mask, int row) {
    int32_t *scores = g->sums + row * g->keys_64;
    uint8_t *shares = g->shares + row * g->keys_64;
    const int64_t whole = s->plane / LANES * LANES;
    __m512i largest = _mm512_set1_epi32(INT32_MIN), sum = _mm512_setzero_si512();
    for (int64_t j = 0; j < s->plane; j += LANES) {
        const __mmask16 held = lanes((int)s->plane, (int)j);
        __m512i found = _mm512_add_epi32(_mm512_loadu_si512(scores + j), _mm512_loadu_si512(g->starts + j));
        if (mask) found = _mm512_add_epi32(found, _mm512_maskz_loadu_epi32(held, mask + j));
        _mm512_storeu_si512(scores + j, found);
        largest = _mm512_mask_max_epi32(largest, held, largest, found);
    }
    const __m512i top = _mm512_set1_epi32(_mm512_reduce_max_epi32(largest));
    memset(shares + whole, 0, g->keys_64 - whole);
    for (int64_t j = 0; j < s->plane; j += LANES) {
        const __m512i below = _mm512_sub_epi32(top, _mm512_loadu_si512(scores + j));
        const __m512 steps = _mm512_mul_ps(_mm512_cvtepi32_ps(below), _mm512_set1_ps(s->input_scale));
        const __m512 places = _mm512_min_ps(steps, _mm512_set1_ps((float)LAST));
        const __m512i found = _mm512_maskz_mov_epi32(lanes((int)s->plane, (int)j), table(nearest(places)));
        sum = _mm512_add_epi32(sum, found);
        store_lowest_bytes(shares + j, 0xffff, found);
    }
    return _mm512_reduce_add_epi32(sum);
}

/* What the queries attend to: sums of values by their weights, over the weights' sum. */
static void mix(const struct step *s, const struct group *g, const int32_t *totals, const int64_t *outputs,
                int rows) {
    const struct bounds bounds = bounds_of(s);
    const __m512 ratio = _mm512_set1_ps(s->residual_ratio);
    const struct lines shares = {g->shares, g->keys_64, rows, (int)s->plane};
    for (int block = 0; block < s->channels; block += BLOCK) {
        const int V = vectors_of(s->channels - block);
        multiply(&shares, g->values + block * g->keys_64, g->sums, g->keys_64, V);
        for (int r = 0; r < rows; r++) {
            const __m512i zero = _mm512_set1_epi32((s->value_zero - 128) * totals[r]);
            __m512 y[VECTORS];
            for (int v = 0; v < V; v++) {
                const __m512i sum = _mm512_loadu_si512(g->sums + r * g->keys_64 + LANES * v);
                const __m512 left = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, zero));
                y[v] = _mm512_mul_ps(quotient(left, (float)totals[r]), ratio);
            }
            const __m512i codes = fourths_in_order(encode(&bounds, y, V));
            store_part((uint8_t *)s->output + outputs[r] + block, codes, 0, block_lanes(s->channels, block), V);
        }
    }
}

/* `rows` queries from pixel `first` on attend to the keys of their group. */
static void attend(const struct step *s, const struct group *g, int64_t image, int64_t first,
                   const int32_t *mask, int rows) {
    const uint8_t *base = s->input + image * s->input_stride;
    int64_t outputs[TILE];
    int32_t totals[TILE];
    for (int r = 0; r < rows; r++) {
        outputs[r] = image * s->output_stride + s->output_offsets[first + r];
        for (int c = 0; c < s->groups; c += BLOCK) {
            const uint8_t *x = base + s->input_offsets[first + r] + c;
            const __m512i codes = _mm512_maskz_loadu_epi8(block_lanes(s->groups, c), x);
            _mm512_storeu_si512(g->queries + r * g->depth_64 + c, codes);
        }
    }
    score(s, g, rows);
    for (int r = 0; r < rows; r++)
        totals[r] = shares_of(s, g, mask ? mask + r * s->plane : NULL, r);
    mix(s, g, totals, outputs, rows);
}

/* Groups of queries attend to keys of their own: each thread takes whole groups. */
static void attention(const struct step *s, int images, struct portion portion, uint8_t *scratch) {
    const struct group g = group_of(s, scratch);
    const int64_t groups = s->pixels / s->width, total = images * groups;
    if (amx) configure_tiles();
    for (int64_t i = before(total, portion.from); i < before(total, portion.to); i++) {
        const int64_t image = i / groups, group = i % groups;
        pack_keys(s, s->residual + image * s->residual_stride, s->residual_offsets + group * s->plane, &g);
        pack_values(s, s->value + image * s->value_stride, s->value_offsets + group * s->plane, &g);
        const int32_t *mask = s->mask ? s->mask + group % s->masks * s->width * s->plane : NULL;
        for (int64_t first = 0; first < s->width; first += TILE)
            attend(s, &g, image, group * s->width + first, mask ? mask + first * s->plane : NULL,
                   s->width - first < TILE ? (int)(s->width - first) : TILE);
    }
    if (amx) release_tiles();
}
