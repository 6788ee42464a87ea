/* What looks at whole rows: LayerNorm, and softmax attention. The formulas stand in norm.py and
   attention.py of compression/quantization; each float is rounded as there. */

/* Store the codes of 16 channels, or of as many as there are. */
INLINE void store(const struct step *s, struct place at, int channel, __m512 y) {
    y = _mm512_min_ps(y, _mm512_set1_ps((float)(s->high - s->output_zero)));
    y = _mm512_max_ps(y, _mm512_set1_ps((float)(s->low - s->output_zero)));
    const __m512i codes = _mm512_add_epi32(_mm512_cvtps_epi32(y), _mm512_set1_epi32(s->output_zero));
    _mm_mask_storeu_epi8((uint8_t *)s->output + at.output + channel, lanes(s->channels, channel),
                         _mm512_cvtepi32_epi8(codes));
}

/* The sums of a row's codes and of their squares, exact: MOST_CODES keeps the vectors from overflow. */
INLINE void row_sums(const uint8_t *x, int channels, int64_t *total, int64_t *squares) {
    __m512i bytes = _mm512_setzero_si512(), pairs = _mm512_setzero_si512();
    for (int c = 0; c < channels; c += BLOCK) {
        const int left = channels - c;
        const __m512i codes = _mm512_maskz_loadu_epi8(left >= BLOCK ? ~0ull : (1ull << left) - 1, x + c);
        const __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(codes));
        const __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(codes, 1));
        bytes = _mm512_add_epi64(bytes, _mm512_sad_epu8(codes, _mm512_setzero_si512()));
        pairs = _mm512_add_epi32(pairs, _mm512_madd_epi16(low, low));
        pairs = _mm512_add_epi32(pairs, _mm512_madd_epi16(high, high));
    }
    uint32_t parts[LANES];
    _mm512_storeu_si512(parts, pairs);
    *total = _mm512_reduce_add_epi64(bytes);
    *squares = 0;
    for (int i = 0; i < LANES; i++) *squares += parts[i];
}

/* 16 codes of a row as whole numbers: with what their rounding left, if that is known. */
INLINE __m512i row_codes(const uint8_t *x, const uint8_t *rest, int channel, __mmask16 mask) {
    const __m512i codes = widened(x + channel, mask);
    return rest ? _mm512_add_epi32(_mm512_slli_epi32(codes, REST_BITS), widened(rest + channel, mask)) : codes;
}

/* The sums of a row and of its squares, where what rounding left is known: exact, MOST_FINE_CODES. */
INLINE void fine_sums(const uint8_t *x, const uint8_t *rest, int channels, int64_t *total, int64_t *squares) {
    __m512i sums = _mm512_setzero_si512(), even = sums, odd = sums;
    for (int channel = 0; channel < channels; channel += LANES) {
        const __m512i codes = row_codes(x, rest, channel, lanes(channels, channel));
        const __m512i others = _mm512_srli_epi64(codes, 32);
        sums = _mm512_add_epi32(sums, codes);
        even = _mm512_add_epi64(even, _mm512_mul_epu32(codes, codes));
        odd = _mm512_add_epi64(odd, _mm512_mul_epu32(others, others));
    }
    *total = _mm512_reduce_add_epi32(sums);
    *squares = _mm512_reduce_add_epi64(_mm512_add_epi64(even, odd));
}

static void norm(const struct step *s, int images, int thread, int threads) {
    const __m512i count = _mm512_set1_epi32(s->channels);
    for (struct share on = share_of(s, images, thread, threads); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        const uint8_t *x = s->input + at.input, *rest = s->residual ? s->residual + at.residual : NULL;
        int64_t sum, squares;
        if (rest) fine_sums(x, rest, s->channels, &sum, &squares);
        else row_sums(x, s->channels, &sum, &squares);
        const float spread = (float)(s->channels * squares - sum * sum) + s->input_scale;
        const __m512 inverse = _mm512_set1_ps(1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(spread))));
        for (int channel = 0; channel < s->channels; channel += LANES) {
            const __mmask16 mask = lanes(s->channels, channel);
            const __m512i left = _mm512_sub_epi32(_mm512_mullo_epi32(row_codes(x, rest, channel, mask), count),
                                                  _mm512_set1_epi32((int32_t)sum));
            const __m512 normal = _mm512_mul_ps(_mm512_cvtepi32_ps(left), inverse);
            const __m512 y = _mm512_mul_ps(normal, _mm512_maskz_loadu_ps(mask, s->multiplier + channel));
            store(s, at, channel, _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, s->shift + channel)));
        }
    }
}

static int64_t padded(int64_t count, int64_t to) { return (count + to - 1) / to * to; }
static int vectors_of(int64_t left) { return left >= BLOCK ? VECTORS : (int)((left + LANES - 1) / LANES); }

/* What a thread needs of one group: keys and values packed as weights are, and rows of scores. */
struct group {
    int8_t *keys, *values;
    int32_t *starts, *scores;   /* of each key: what its scores begin with; ROWS rows of scores */
    uint8_t *shares;            /* ROWS rows of weights */
    int64_t keys_64, keys_4, bytes;
};

static struct group group_of(const struct step *s, uint8_t *scratch) {
    struct group g = {.keys_64 = padded(s->plane, BLOCK), .keys_4 = padded(s->plane, 4)};
    uint8_t *at = scratch;
    g.keys = (int8_t *)at, at += g.keys_64 * padded(s->groups, 4);
    g.values = (int8_t *)at, at += padded(s->channels, BLOCK) * padded(g.keys_4, BLOCK);
    g.starts = (int32_t *)at, at += g.keys_64 * sizeof(int32_t);
    g.scores = (int32_t *)at, at += ROWS * g.keys_64 * sizeof(int32_t);
    g.shares = at, at += ROWS * g.keys_64;
    g.bytes = padded(at - scratch, BLOCK);
    return g;
}

/* The bytes of scratch memory that each thread needs for these steps. */
int64_t scratch_bytes(const struct step *steps, int64_t count) {
    int64_t most = BLOCK;
    for (int64_t i = 0; i < count; i++) {
        const struct step *s = &steps[i];
        const int64_t bytes = s->kind == ATTENTION ? group_of(s, NULL).bytes : copied_bytes(s);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Keys as [block of 64 keys][4 channels][key][4]; a score begins with the products of the queries' zero. */
static void pack_keys(const struct step *s, const uint8_t *base, const int32_t *offsets, const struct group *g) {
    const int depth = s->groups, quads = (depth + 3) / 4;
    memset(g->keys, 0, g->keys_64 * quads * 4);
    memset(g->starts, 0, g->keys_64 * sizeof(int32_t));
    for (int64_t j = 0; j < s->plane; j++) {
        const int64_t block = j / BLOCK * BLOCK, width = LANES * vectors_of(s->plane - block);
        const uint8_t *x = base + offsets[j];
        int8_t *y = g->keys + block * quads * 4 + (j - block) * 4;
        int32_t sum = 0;
        for (int c = 0; c < depth; c++) {
            const int8_t code = (int8_t)(x[c] ^ 0x80);
            y[c / 4 * width * 4 + c % 4] = code;
            sum += code;
        }
        g->starts[j] = -s->input_zero * sum;
    }
}

/* Values as [block of 64 channels][4 keys][channel][4]: four keys' bytes are interleaved. */
static void pack_values(const struct step *s, const uint8_t *base, const int32_t *offsets, const struct group *g) {
    const __m128i signs = _mm_set1_epi8((char)0x80);
    const int64_t quads = g->keys_4 / 4;
    for (int block = 0; block < s->channels; block += BLOCK) {
        const int width = LANES * vectors_of(s->channels - block);
        for (int64_t quad = 0; quad < quads; quad++)
            for (int c = 0; c < width; c += LANES) {
                __m128i x[4];
                const __mmask16 mask = lanes(s->channels, block + c);
                for (int i = 0; i < 4; i++) {
                    const int64_t j = 4 * quad + i;
                    const __mmask16 held = j < s->plane ? mask : 0;
                    const uint8_t *from = base + (held ? offsets[j] + block + c : 0);
                    x[i] = _mm_xor_si128(_mm_maskz_loadu_epi8(held, from), signs);
                }
                const __m128i low[2] = {_mm_unpacklo_epi8(x[0], x[1]), _mm_unpacklo_epi8(x[2], x[3])};
                const __m128i high[2] = {_mm_unpackhi_epi8(x[0], x[1]), _mm_unpackhi_epi8(x[2], x[3])};
                __m128i *y = (__m128i *)(g->values + block * quads * 4 + (quad * width + c) * 4);
                _mm_storeu_si128(y, _mm_unpacklo_epi16(low[0], low[1]));
                _mm_storeu_si128(y + 1, _mm_unpackhi_epi16(low[0], low[1]));
                _mm_storeu_si128(y + 2, _mm_unpacklo_epi16(high[0], high[1]));
                _mm_storeu_si128(y + 3, _mm_unpackhi_epi16(high[0], high[1]));
            }
    }
}

/* Add the products of R rows of `quads` x 4 codes with V vectors of packed columns. */
#define MULTIPLY(R, V) case 8 * R + V: accumulate(&one, &all, x, packed, &nothing, sums, R, V); break;
#define MULTIPLIES(V) MULTIPLY(1, V) MULTIPLY(2, V) MULTIPLY(3, V) MULTIPLY(4, V) MULTIPLY(5, V) MULTIPLY(6, V)
static void multiply(const uint8_t *const *x, const int8_t *packed, int quads, int R, int V,
                     __m512i sums[ROWS][VECTORS]) {
    const int32_t beginning = 0;
    const struct step one = {.run_offsets = &beginning, .groups = quads};
    const struct band all = {.runs = 1, .groups = quads};
    struct ahead nothing = {0};
    switch (8 * R + V) { MULTIPLIES(1) MULTIPLIES(2) MULTIPLIES(3) MULTIPLIES(4) }
}

/* A row's scores -> weights, 255 for the largest; return their sum. */
static int32_t shares_of(const struct step *s, const int32_t *scores, uint8_t *shares, int64_t keys_64) {
    __m512i largest = _mm512_set1_epi32(INT32_MIN), sum = _mm512_setzero_si512();
    for (int64_t j = 0; j < s->plane; j += LANES) {
        const __mmask16 mask = s->plane - j >= LANES ? 0xffff : (1u << (s->plane - j)) - 1;
        largest = _mm512_mask_max_epi32(largest, mask, largest, _mm512_loadu_si512(scores + j));
    }
    const __m512i top = _mm512_set1_epi32(_mm512_reduce_max_epi32(largest));
    for (int64_t j = 0; j < keys_64; j += LANES) {
        const int64_t left = s->plane - j;
        const __mmask16 mask = left >= LANES ? 0xffff : left > 0 ? (1u << left) - 1 : 0;
        const __m512i below = _mm512_sub_epi32(top, _mm512_maskz_loadu_epi32(mask, scores + j));
        const __m512 steps = _mm512_mul_ps(_mm512_cvtepi32_ps(below), _mm512_set1_ps(s->input_scale));
        const __m512i places = _mm512_cvtps_epi32(_mm512_min_ps(steps, _mm512_set1_ps((float)LAST)));
        const __m512i found = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, places, s->run_offsets, 4);
        sum = _mm512_add_epi32(sum, found);
        _mm_storeu_si128((__m128i *)(shares + j), _mm512_cvtepi32_epi8(found));
    }
    return _mm512_reduce_add_epi32(sum);
}

/* R queries from `first` on: their scores with all keys, as rows of `g`. */
static void score(const struct step *s, const struct group *g, const uint8_t *const *x,
                  const int32_t *mask, int R) {
    const int quads = (s->groups + 3) / 4;
    for (int64_t block = 0; block < s->plane; block += BLOCK) {
        const int V = vectors_of(s->plane - block);
        __m512i sums[ROWS][VECTORS];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) {
                const int64_t j = block + LANES * v, left = s->plane - j;
                const __mmask16 held = left >= LANES ? 0xffff : (1u << left) - 1;
                sums[r][v] = _mm512_loadu_si512(g->starts + j);
                if (mask)
                    sums[r][v] = _mm512_add_epi32(
                        sums[r][v], _mm512_maskz_loadu_epi32(held, mask + r * s->plane + j));
            }
        multiply(x, g->keys + block * quads * 4, quads, R, V, sums);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++)
                _mm512_storeu_si512(g->scores + r * g->keys_64 + block + LANES * v, sums[r][v]);
    }
}

/* What R queries attend to: sums of values by their weights, over the weights' sum. */
static void mix(const struct step *s, const struct group *g, const int32_t *totals, const struct place *at, int R) {
    const uint8_t *x[ROWS];
    for (int r = 0; r < R; r++) x[r] = g->shares + r * g->keys_64;
    for (int block = 0; block < s->channels; block += BLOCK) {
        const int V = vectors_of(s->channels - block);
        __m512i sums[ROWS][VECTORS];
        memset(sums, 0, sizeof sums);
        multiply(x, g->values + block * g->keys_4, (int)(g->keys_4 / 4), R, V, sums);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) {
                const __m512i zero = _mm512_set1_epi32((s->value_zero - 128) * totals[r]);
                const __m512 left = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r][v], zero));
                const __m512 mean = _mm512_div_ps(left, _mm512_set1_ps((float)totals[r]));
                const int channel = block + LANES * v;
                store(s, at[r], channel, _mm512_mul_ps(mean, _mm512_set1_ps(s->residual_ratio)));
            }
    }
}

/* Groups of queries attend to keys of their own: each thread takes whole groups. */
static void attention(const struct step *s, int images, int thread, int threads, uint8_t *scratch) {
    const struct group g = group_of(s, scratch);
    const int64_t groups = s->pixels / s->width, total = images * groups;
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const int64_t image = i / groups, group = i % groups;
        pack_keys(s, s->residual + image * s->residual_stride, s->residual_offsets + group * s->plane, &g);
        pack_values(s, s->value + image * s->value_stride, s->value_offsets + group * s->plane, &g);
        for (int64_t first = 0; first < s->width; first += ROWS) {
            const int R = s->width - first < ROWS ? (int)(s->width - first) : ROWS;
            const uint8_t *x[ROWS];
            struct place at[ROWS];
            int32_t totals[ROWS];
            for (int r = 0; r < R; r++) {
                const int64_t pixel = group * s->width + first + r;
                x[r] = s->input + image * s->input_stride + s->input_offsets[pixel];
                at[r].output = image * s->output_stride + s->output_offsets[pixel];
            }
            const int32_t *mask = s->mask ? s->mask + (group % s->masks * s->width + first) * s->plane : NULL;
            score(s, &g, x, mask, R);
            for (int r = 0; r < R; r++)
                totals[r] = shares_of(s, g.scores + r * g.keys_64, g.shares + r * g.keys_64, g.keys_64);
            mix(s, &g, totals, at, R);
        }
    }
}
