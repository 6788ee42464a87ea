/* LayerNorm of rows of channels. The formulas stand in norm.py of compression/quantization; each float is
   rounded as there. */

/* 64 codes of a row, and of what their rounding left if that is known (else `rest` is NULL). */
struct row_block { __m512i codes, rest; };

INLINE struct row_block row_block(const uint8_t *x, const uint8_t *rest, int channel, int channels) {
    const __mmask64 mask = block_lanes(channels, channel);
    return (struct row_block){
        _mm512_maskz_loadu_epi8(mask, x + channel),
        rest ? _mm512_maskz_loadu_epi8(mask, rest + channel) : _mm512_setzero_si512(),
    };
}

/* The sum of the lanes, which are whole numbers without a sign. */
INLINE int64_t lane_sum(__m512i lanes) {
    const __m512i even = _mm512_and_si512(lanes, _mm512_set1_epi64(UINT32_MAX));
    return _mm512_reduce_add_epi64(_mm512_add_epi64(even, _mm512_srli_epi64(lanes, 32)));
}

/* Add the products of 64 pairs of bytes, four to a lane. */
INLINE __m512i add_products(__m512i sums, __m512i x, __m512i y) {
    const __m512i none = _mm512_setzero_si512();
    const __m512i low = _mm512_madd_epi16(_mm512_unpacklo_epi8(x, none), _mm512_unpacklo_epi8(y, none));
    const __m512i high = _mm512_madd_epi16(_mm512_unpackhi_epi8(x, none), _mm512_unpackhi_epi8(y, none));
    return _mm512_add_epi32(sums, _mm512_add_epi32(low, high));
}

/* The sums of a row and of its squares, exact: MOST_CODES and MOST_FINE_CODES keep the lanes from overflow. */
INLINE void row_sums(const uint8_t *x, const uint8_t *rest, int channels, int64_t *total, int64_t *squares) {
    const __m512i none = _mm512_setzero_si512();
    __m512i codes = none, rests = none, of_codes = none, mixed = none, of_rests = none;
    for (int channel = 0; channel < channels; channel += BLOCK) {
        const struct row_block block = row_block(x, rest, channel, channels);
        codes = _mm512_add_epi64(codes, _mm512_sad_epu8(block.codes, none));
        of_codes = add_products(of_codes, block.codes, block.codes);
        if (!rest) continue;
        rests = _mm512_add_epi64(rests, _mm512_sad_epu8(block.rest, none));
        mixed = add_products(mixed, block.codes, block.rest);
        of_rests = add_products(of_rests, block.rest, block.rest);
    }
    const int bits = rest ? REST_BITS : 0;
    *total = (_mm512_reduce_add_epi64(codes) << bits) + _mm512_reduce_add_epi64(rests);
    *squares = (lane_sum(of_codes) << 2 * bits) + (lane_sum(mixed) << (bits + 1)) + lane_sum(of_rests);
}

static void norm(const struct step *s, int images, struct portion portion) {
    const __m512 count = _mm512_set1_ps((float)s->channels);
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        const uint8_t *x = s->input + at.input, *rest = s->residual ? s->residual + at.residual : NULL;
        int64_t sum, squares;
        row_sums(x, rest, s->channels, &sum, &squares);
        const float spread = (float)(s->channels * squares - sum * sum) + s->input_scale;
        const __m512 inverse = _mm512_set1_ps(1.0f / __builtin_sqrtf(spread));
        /* count code - sum, rounded once: the code's distance from a whole number near the mean is exact. */
        const __m512i centre = _mm512_set1_epi32((int32_t)(sum / s->channels));
        const __m512 left = _mm512_set1_ps((float)(sum % s->channels));
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            __m512i wide[VECTORS];
            __m512 y[VECTORS];
            const struct row_block block = row_block(x, rest, channel, s->channels);
            if (rest) interleaved_pairs(block.rest, block.codes, wide);
            else interleaved(block.codes, wide);
            for (int v = 0; v < VECTORS; v++) {
                const __m512 from = _mm512_cvtepi32_ps(_mm512_sub_epi32(wide[v], centre));
                const __m512 normal = _mm512_mul_ps(_mm512_fmsub_ps(from, count, left), inverse);
                y[v] = _mm512_mul_ps(normal, _mm512_loadu_ps(s->multiplier + channel + LANES * v));
                y[v] = _mm512_add_ps(y[v], _mm512_loadu_ps(s->shift + channel + LANES * v));
            }
            store_block(s, at, channel, encode_block(s, y));
        }
    }
}
