/* Parts of 32 bytes: AVX2 with fused multiply-add, and, where the CPU has it for them, VNNI. */
#include <immintrin.h>
#include "names.h"

#define PART(name) _mm256_##name
enum { PARTS = 2 };
typedef __m256i part;
typedef __m256 real_part;

/* What AVX2 calls otherwise. */
INLINE part _mm256_and(part a, part b) { return _mm256_and_si256(a, b); }
INLINE part _mm256_or(part a, part b) { return _mm256_or_si256(a, b); }
INLINE part _mm256_set1_epi64(int64_t x) { return _mm256_set1_epi64x(x); }
INLINE part _mm256_loadu(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE void _mm256_storeu(void *to, part x) { _mm256_storeu_si256((__m256i *)to, x); }
INLINE part _mm256_castps_si512(real_part x) { return _mm256_castps_si256(x); }
INLINE real_part _mm256_castsi512_ps(part x) { return _mm256_castsi256_ps(x); }
INLINE real_part _mm256_choose_ps(part chosen, real_part a, real_part b) {
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(chosen));
}
INLINE real_part _mm256_less_ps(real_part a, real_part b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE real_part _mm256_ordered_ps(real_part a, real_part b) { return _mm256_cmp_ps(a, b, _CMP_ORD_Q); }
INLINE unsigned _mm256_bits_of(real_part x) { return (unsigned)_mm256_movemask_ps(x); }
INLINE real_part _mm256_nearest(real_part x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* 8 bytes as int32. */
INLINE part _mm256_widened(const uint8_t *from) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from)); }
INLINE part _mm256_widened_signed(const int8_t *from) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from));
}
INLINE part _mm256_broadcast_16(const void *from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)from));
}

INLINE void _mm256_fourths_in_order(const part *from, part *to) {
    const part places = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    to[0] = _mm256_permutevar8x32_epi32(_mm256_unpacklo_epi32(from[0], from[1]), places);
    to[1] = _mm256_permutevar8x32_epi32(_mm256_unpackhi_epi32(from[0], from[1]), places);
}

static inline int permutes_bytes(void) { return 0; }

/* Sums of so many pixels x vectors of channels stay in registers. */
#if defined(__AVXVNNI__)
enum { KEPT_PIXELS = 6, KEPT_VECTORS = 1, FEW_SUMS = 2 };
INLINE part _mm256_dot(part sum, part codes, part weights) { return _mm256_dpbusd_avx_epi32(sum, codes, weights); }
#else
enum { KEPT_PIXELS = 3, KEPT_VECTORS = 1, FEW_SUMS = 0 };
/* Bytes at even places and at odd ones, as 16 bits: sums of two of these products fit 32 bits, where those of
   bytes do not fit 16. */
INLINE part _mm256_dot(part sum, part codes, part weights) {
    const part even = _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(255)),
                                        _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8));
    const part odd = _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), _mm256_srai_epi16(weights, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#endif
