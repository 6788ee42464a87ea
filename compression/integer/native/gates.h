/* Gates of recurrent layers, operation by operation those of quantization/gates.py.

   A minimum or maximum has its number as the second operand, which is what comes out where it is NaN. */

#define MOST 87.0f

static const float EXPONENTIAL[] = {0x1.a0d2cep-13f, 0x1.6e879cp-10f, 0x1.11121p-7f,
                                    0x1.555382p-5f, 0x1.555554p-3f, 0x1p-1f};
static const float TANGENT[] = {-0x1.75e1d4p-8f, 0x1.52269cp-6f, -0x1.b83c5ap-5f,
                                0x1.110726p-3f, -0x1.555532p-2f};

INLINE __m512 horner(const float *coefficients, const int count, __m512 x) {
    __m512 value = _mm512_set1_ps(coefficients[0]);
#pragma GCC unroll 8
    for (int i = 1; i < count; i++)
        value = _mm512_add_ps(_mm512_mul_ps(value, x), _mm512_set1_ps(coefficients[i]));
    return value;
}

INLINE __m512 exponential(__m512 x) {
    const __m512 doublings = nearest(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)));
    __m512 rest = _mm512_sub_ps(x, _mm512_mul_ps(doublings, _mm512_set1_ps(0x1.63p-1f)));
    rest = _mm512_sub_ps(rest, _mm512_mul_ps(doublings, _mm512_set1_ps(-0x1.bd0106p-13f)));
    __m512 factor = _mm512_mul_ps(_mm512_mul_ps(horner(EXPONENTIAL, 6, rest), rest), rest);
    factor = _mm512_add_ps(_mm512_add_ps(factor, rest), _mm512_set1_ps(1));
    const __m512i power = _mm512_add_epi32(_mm512_cvtps_epi32(doublings), _mm512_set1_epi32(127));
    return _mm512_mul_ps(factor, _mm512_castsi512_ps(_mm512_slli_epi32(power, 23)));
}

INLINE __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1);
    __m512 minus = _mm512_sub_ps(_mm512_setzero_ps(), x);
    minus = _mm512_min_ps(_mm512_set1_ps(MOST), _mm512_max_ps(_mm512_set1_ps(-MOST), minus));
    return _mm512_div_ps(one, _mm512_add_ps(one, exponential(minus)));
}

INLINE __m512 tangent(__m512 x) {
    const __m512 one = _mm512_set1_ps(1), size = _mm512_abs_ps(x), square = _mm512_mul_ps(x, x);
    __m512 small = _mm512_mul_ps(_mm512_mul_ps(horner(TANGENT, 5, square), square), x);
    small = _mm512_add_ps(small, x);
    const __m512 twice = _mm512_min_ps(_mm512_set1_ps(MOST), _mm512_add_ps(size, size));
    const __m512 beside = _mm512_add_ps(exponential(twice), one);
    const __m512 large = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2), beside));
    const __m512i sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN));
    const __m512 signed_large = _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(large), sign));
    const __mmask16 below = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0.625f), _CMP_LT_OQ);
    return _mm512_mask_blend_ps(below, signed_large, small);
}
