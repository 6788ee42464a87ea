/* 64 channels at a time, as vectors of int32 or floats in the order that encode_block packs. */

/* 64 numbers of two bytes as int32: the bytes of each `below` and `above`. */
INLINE void interleaved_pairs(__m512i below, __m512i above, __m512i wide[VECTORS]) {
    const __m512i none = _mm512_setzero_si512();
    const __m512i low = _mm512_unpacklo_epi8(below, above), high = _mm512_unpackhi_epi8(below, above);
    wide[0] = _mm512_unpacklo_epi16(low, none);
    wide[1] = _mm512_unpackhi_epi16(low, none);
    wide[2] = _mm512_unpacklo_epi16(high, none);
    wide[3] = _mm512_unpackhi_epi16(high, none);
}

/* 64 codes as int32. */
INLINE void interleaved(__m512i codes, __m512i wide[VECTORS]) {
    interleaved_pairs(codes, _mm512_setzero_si512(), wide);
}

/* Add codes, each as far from its zero, times a ratio. */
INLINE void add_codes(const struct addend *addend, __m512i codes, __m512 y[VECTORS]) {
    __m512i wide[VECTORS];
    interleaved(codes, wide);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) y[v] = with_residual(addend, wide[v], y[v]);
}

/* Add the residual's codes, where there is one. */
INLINE void add_interleaved(const struct step *s, struct place at, int channel, __m512 y[VECTORS]) {
    const __mmask64 mask = block_lanes(s->channels, channel);
    const struct addend addend = addend_of(s);
    add_codes(&addend, _mm512_maskz_loadu_epi8(mask, s->residual + at.residual + channel), y);
}

/* Real numbers in the order of their channels, one by one: few networks end so. */
INLINE void store_real(const struct step *s, struct place at, int channel, const __m512 y[VECTORS]) {
    float numbers[VECTORS][LANES];
    for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(numbers[v], y[v]);
    for (int c = 0; c < BLOCK && channel + c < s->channels; c++)
        ((float *)s->output)[at.output + channel + c] = numbers[c / 4 % 4][c / 16 * 4 + c % 4];
}

INLINE void store_block(const struct step *s, struct place at, int channel, __m512i codes) {
    const __mmask64 mask = block_lanes(s->channels, channel);
    _mm512_mask_storeu_epi8((uint8_t *)s->output + at.output + channel, mask, codes);
}

/* Store codes or real numbers. */
INLINE void finish_interleaved(const struct step *s, struct place at, int channel, const __m512 y[VECTORS]) {
    if (s->real) store_real(s, at, channel, y);
    else store_block(s, at, channel, encode_block(s, y));
}
