/* Sums of up to three values, and what their rounding leaves: sums.py of compression/quantization. */

/* Round `y` to whole steps within the bounds of a step's codes; return what that leaves, in 2^REST_BITS to one. */
INLINE __m512 round_off(const struct step *s, __m512 *y) {
    const __m512 least = _mm512_set1_ps((float)(s->low - s->output_zero));
    const __m512 most = _mm512_set1_ps((float)(s->high - s->output_zero));
    const __m512 whole = _mm512_min_ps(_mm512_max_ps(nearest(*y), least), most);
    const __m512 left = _mm512_mul_ps(_mm512_sub_ps(*y, whole), _mm512_set1_ps(1 << REST_BITS));
    *y = whole;
    return left;
}

static void add_up(const struct step *s, int images, struct portion portion) {
    const struct addend last = {_mm512_set1_ps(s->value_ratio), _mm512_set1_epi32(s->value_zero)};
    const struct bounds about = bounds_about(s, s->rest_zero);
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        const uint8_t *third = s->value ? s->value + on.image * s->value_stride + s->value_offsets[on.pixel] : NULL;
        uint8_t *rest = s->rest ? (uint8_t *)s->rest + on.image * s->rest_stride + s->rest_offsets[on.pixel] : NULL;
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            const __mmask64 mask = block_lanes(s->channels, channel);
            __m512 y[VECTORS], left[VECTORS];
            map(s, _mm512_maskz_loadu_epi8(mask, s->input + at.input + channel), y);
            if (s->residual) add_interleaved(s, at, channel, y);
            if (third) add_codes(&last, _mm512_maskz_loadu_epi8(mask, third + channel), y);
            if (rest) {
                for (int v = 0; v < VECTORS; v++) left[v] = round_off(s, &y[v]);
                _mm512_mask_storeu_epi8(rest + channel, mask, encode(&about, left, VECTORS));
            }
            finish_interleaved(s, at, channel, y);
        }
    }
}
