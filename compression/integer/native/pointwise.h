/* What multiplies no matrices: one pixel's channels at a time. */

/* The largest code of a window, 64 channels at a time. */
static void maximum(const struct step *s, int images, struct portion portion) {
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            const __mmask64 mask = block_lanes(s->channels, channel);
            const uint8_t *x = s->input + at.input + channel;
            __m512i largest = _mm512_setzero_si512();
            for (int run = 0; run < s->runs; run++)
                largest = _mm512_max_epu8(largest, _mm512_maskz_loadu_epi8(mask, x + s->run_offsets[run]));
            _mm512_mask_storeu_epi8((uint8_t *)s->output + at.output + channel, mask, largest);
        }
    }
}

/* `x` over a whole number, rounded as a division is, in a fifth of its time: the quotient by the rounded
   reciprocal, and what that leaves (Markstein 1990, theorem 7). */
INLINE __m512 quotient(__m512 x, float count) {
    const __m512 by = _mm512_set1_ps(count), reciprocal = _mm512_set1_ps(1.0f / count);
    const __m512 near = _mm512_mul_ps(x, reciprocal);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(near, by, x), reciprocal, near);
}

/* The mean over runs of `groups` pixels; the sum is exact: 16 bits hold that of 257 codes. */
INLINE void mean(const struct step *s, const uint8_t *x, __mmask64 mask, __m512 y[VECTORS]) {
    const __m512i none = _mm512_setzero_si512();
    __m512i sums[VECTORS] = {none, none, none, none}, low = none, high = none;
    const int32_t count = s->runs * s->groups;
    for (int32_t n = 0, run = 0, i = 0; n < count; n++, i++) {
        if (i == s->groups) i = 0, run++;
        const uint8_t *pixel = x + s->run_offsets[run] + i * s->width;
        const __m512i codes = _mm512_maskz_loadu_epi8(mask, pixel);
        low = _mm512_add_epi16(low, _mm512_unpacklo_epi8(codes, none));
        high = _mm512_add_epi16(high, _mm512_unpackhi_epi8(codes, none));
        if (n % 256 != 255 && n != count - 1) continue;
        sums[0] = _mm512_add_epi32(sums[0], _mm512_unpacklo_epi16(low, none));
        sums[1] = _mm512_add_epi32(sums[1], _mm512_unpackhi_epi16(low, none));
        sums[2] = _mm512_add_epi32(sums[2], _mm512_unpacklo_epi16(high, none));
        sums[3] = _mm512_add_epi32(sums[3], _mm512_unpackhi_epi16(high, none));
        low = high = none;
    }
    for (int v = 0; v < VECTORS; v++) {
        const __m512i left = _mm512_sub_epi32(sums[v], _mm512_set1_epi32(count * s->input_zero));
        const __m512 means = quotient(_mm512_cvtepi32_ps(left), (float)count);
        y[v] = _mm512_mul_ps(means, _mm512_set1_ps(s->input_scale));
    }
}

INLINE void map(const struct step *s, __m512i codes, __m512 y[VECTORS]) {
    __m512i wide[VECTORS];
    interleaved(codes, wide);
    for (int v = 0; v < VECTORS; v++) {
        const __m512i left = _mm512_sub_epi32(wide[v], _mm512_set1_epi32(s->input_zero));
        y[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(left), _mm512_set1_ps(s->input_scale));
    }
}

/* The product of two codes, each as far from its zero: exact before it is scaled. */
INLINE void product(const struct step *s, __m512i codes, __m512i others, __m512 y[VECTORS]) {
    __m512i a[VECTORS], b[VECTORS];
    interleaved(codes, a);
    interleaved(others, b);
    for (int v = 0; v < VECTORS; v++) { /* 16 bits hold them, and the upper halves of `a` are cut off */
        a[v] = _mm512_sub_epi16(a[v], _mm512_set1_epi32(s->input_zero));
        b[v] = _mm512_sub_epi16(b[v], _mm512_set1_epi32(s->residual_zero));
        y[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(a[v], b[v])),
                             _mm512_set1_ps(s->input_scale));
    }
}

INLINE void pointwise(const struct step *s, int images, struct portion portion, const int kind) {
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            const uint8_t *x = s->input + at.input + channel;
            const __mmask64 mask = block_lanes(s->channels, channel);
            __m512 y[VECTORS];
            if (kind == MEAN) mean(s, x, mask, y);
            else if (kind == MAP) map(s, _mm512_maskz_loadu_epi8(mask, x), y);
            else product(s, _mm512_maskz_loadu_epi8(mask, x),
                         _mm512_maskz_loadu_epi8(mask, s->residual + at.residual + channel), y);
            if (kind == MAP && s->residual) add_interleaved(s, at, channel, y);
            finish_interleaved(s, at, channel, y);
        }
    }
}

/* Four neighbours, times weights in units of 2^-11 by column and by row: exact before it is scaled.
   `bias` holds those of each column, left and right, and then those of each row, above and below. */
static void interpolation(const struct step *s, int images, struct portion portion) {
    const __m512i start = _mm512_set1_epi32(-s->input_zero * (1 << 22));
    const __m512 unit = _mm512_set1_ps(1.0f / (1 << 22)), scale = _mm512_set1_ps(s->input_scale);
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        const int32_t *column = s->bias + 2 * (on.pixel % s->width);
        const int32_t *row = s->bias + 2 * (s->width + on.pixel / s->width);
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            const uint8_t *x = s->input + at.input + channel;
            const __mmask64 mask = block_lanes(s->channels, channel);
            __m512i sums[VECTORS] = {start, start, start, start}, codes[VECTORS];
            __m512 y[VECTORS];
            for (int tap = 0; tap < s->runs; tap++) {
                const __m512i weight = _mm512_set1_epi32(row[tap / 2] * column[tap % 2]);
                interleaved(_mm512_maskz_loadu_epi8(mask, x + s->run_offsets[tap]), codes);
                for (int v = 0; v < VECTORS; v++)
                    sums[v] = _mm512_add_epi32(sums[v], _mm512_mullo_epi32(codes[v], weight));
            }
            for (int v = 0; v < VECTORS; v++)
                y[v] = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), unit), scale);
            if (s->residual) add_interleaved(s, at, channel, y);
            finish_interleaved(s, at, channel, y);
        }
    }
}
