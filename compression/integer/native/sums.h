/* Sums of up to three values, and what their rounding leaves: sums.py of compression/quantization. */

/* What rounding leaves of `y`, which counts 1 / `groups` of the steps that it was rounded to. */
INLINE __m512 left_by_rounding(const struct step *s, __m512 y) {
    const __m512 steps = _mm512_set1_ps((float)s->groups);
    const __m512 near = _mm512_roundscale_ps(_mm512_mul_ps(y, _mm512_set1_ps(1.0f / s->groups)),
                                             _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 within = _mm512_min_ps(_mm512_max_ps(near, _mm512_set1_ps((float)s->width)),
                                        _mm512_set1_ps((float)s->plane));
    return _mm512_sub_ps(y, _mm512_mul_ps(within, steps));
}

static void add_up(const struct step *s, int images, int thread, int threads) {
    const struct addend last = {_mm512_set1_ps(s->value_ratio), _mm512_set1_epi32(s->value_zero)};
    for (struct share on = share_of(s, images, thread, threads); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        const uint8_t *third = s->value ? s->value + on.image * s->value_stride + s->value_offsets[on.pixel] : NULL;
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            const __mmask64 mask = block_lanes(s->channels, channel);
            __m512 y[VECTORS];
            map(s, _mm512_maskz_loadu_epi8(mask, s->input + at.input + channel), y);
            if (s->residual) add_interleaved(s, at, channel, y);
            if (third) add_codes(&last, _mm512_maskz_loadu_epi8(mask, third + channel), y);
            for (int v = 0; v < VECTORS && s->groups; v++) y[v] = left_by_rounding(s, y[v]);
            finish_interleaved(s, at, channel, y);
        }
    }
}
