/* The network's real inputs as codes. */

/* 16 real numbers as codes (int32); what is not a number counts as 0. */
INLINE __m512i quantized(const struct step *s, const float *x, __mmask16 mask) {
    const __m512 reals = _mm512_maskz_loadu_ps(mask, x);
    const __mmask16 numbers = _mm512_cmp_ps_mask(reals, reals, _CMP_ORD_Q);
    __m512 steps = _mm512_maskz_div_ps(numbers, reals, _mm512_set1_ps(s->input_scale));
    steps = _mm512_max_ps(_mm512_min_ps(steps, _mm512_set1_ps(1e6f)), _mm512_set1_ps(-1e6f));
    const __m512i codes = _mm512_add_epi32(_mm512_cvtps_epi32(steps), _mm512_set1_epi32(s->output_zero));
    return _mm512_min_epi32(_mm512_max_epi32(codes, _mm512_setzero_si512()), _mm512_set1_epi32(255));
}

/* Which bytes of 16 int32, and then which int32, hold the codes of up to 4 channels of 16 pixels. */
struct squeeze { uint8_t bytes[BLOCK]; int32_t words[LANES]; };

static struct squeeze squeeze_of(int channels) {
    struct squeeze squeeze;
    for (int i = 0; i < BLOCK; i++) squeeze.bytes[i] = (uint8_t)(i % 16 / channels * 4 + i % 16 % channels);
    for (int i = 0; i < LANES; i++) squeeze.words[i] = i / channels % 4 * 4 + i % channels;
    return squeeze;
}

/* A row of up to 4 channels (NCHW) -> codes (NHWC). */
INLINE void quantize_few(const struct step *s, const struct squeeze *squeeze, const float *x, uint8_t *y) {
    const __m512i bytes = _mm512_loadu_si512(squeeze->bytes), words = _mm512_loadu_si512(squeeze->words);
    for (int64_t at = 0; at < s->width; at += LANES) {
        const int left = s->width - at < LANES ? (int)(s->width - at) : LANES;
        const __mmask16 mask = lanes(left, 0);
        __m512i pixels = _mm512_setzero_si512();
        for (int c = s->channels - 1; c >= 0; c--)
            pixels = _mm512_or_si512(_mm512_slli_epi32(pixels, 8), quantized(s, x + c * s->plane + at, mask));
        pixels = _mm512_permutexvar_epi32(words, _mm512_shuffle_epi8(pixels, bytes));
        _mm512_mask_storeu_epi8(y + at * s->channels, block_lanes(left * s->channels, 0), pixels);
    }
}

/* A row of more channels, one after the other. */
INLINE void quantize_many(const struct step *s, const float *x, uint8_t *y) {
    for (int c = 0; c < s->channels; c++)
        for (int64_t at = 0; at < s->width; at += LANES) {
            const int left = s->width - at < LANES ? (int)(s->width - at) : LANES;
            int32_t codes[LANES];
            _mm512_storeu_si512(codes, quantized(s, x + c * s->plane + at, lanes(left, 0)));
            for (int j = 0; j < left; j++) y[(at + j) * s->channels + c] = (uint8_t)codes[j];
        }
}

static void quantize(const struct step *s, const float *input, int images, struct portion portion) {
    const int64_t height = s->pixels / s->width, total = images * height;
    const struct squeeze squeeze = squeeze_of(s->channels < 4 ? s->channels : 4);
    for (int64_t i = before(total, portion.from); i < before(total, portion.to); i++) {
        const int64_t image = i / height, first = i % height * s->width;
        const float *x = input + image * s->channels * s->plane + first;
        uint8_t *y = (uint8_t *)s->output + image * s->output_stride + s->output_offsets[first];
        if (s->channels <= 4) quantize_few(s, &squeeze, x, y);
        else quantize_many(s, x, y);
    }
}
