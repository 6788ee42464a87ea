/* LayerNorm of rows of channels. The formulas stand in norm.py of compression/quantization; each float is
   rounded as there. */

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
