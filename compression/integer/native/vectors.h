/* Vectors of 64 bytes, under the names that AVX-512 gives to what is done with them: the CPU's own, or, on
   CPUs whose vectors are shorter, as many of theirs (wide.h). */
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512VNNI__)
#include <immintrin.h>

/* Sums of so many pixels x vectors of channels stay in registers. */
enum { KEPT_PIXELS = 6, KEPT_VECTORS = 4, FEW_SUMS = 8 };

/* Add the products of four codes (u8) and four weights (s8) to each sum. In place, by assembly: GCC 12 copies
   and spills the sums of the intrinsic. */
INLINE void dot(__m512i *sum, __m512i codes, __m512i weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(codes), "v"(weights));
}

/* Functions that permute bytes of two vectors, and whether they can be called. */
#define PERMUTED __attribute__((target("avx512vbmi")))
static inline int permutes_bytes(void) { return __builtin_cpu_supports("avx512vbmi"); }

/* Of each byte, that of `low` or, where `x` is negative, that of `high`. */
INLINE __m512i by_sign(__m512i x, __m512i low, __m512i high) {
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
}

/* Each rounded to a whole number, a tie to the even one. */
INLINE __m512 nearest(__m512 x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* What signed numbers the lowest 4 bits of each lane are: a permutation looks them up. */
INLINE __m512 nibble_numbers(__m512i lanes) {
    return _mm512_permutexvar_ps(lanes, _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
}

/* The lanes in order, where packing or grouped.h left every fourth side by side. */
INLINE __m512i fourths_in_order(__m512i lanes) {
    const __m512i every_fourth = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(every_fourth, lanes);
}

/* 16 bytes, or 8, repeated. */
INLINE __m512i broadcast_16(const void *from) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)from));
}
INLINE __m512i broadcast_8(const void *from) {
    return _mm512_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)from));
}

/* 16 codes, those of a mask, as int32. */
INLINE __m512i widened(const uint8_t *codes, __mmask16 mask) {
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, codes));
}
INLINE __m512i widened_signed(const int8_t *codes, __mmask16 mask) {
    return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, codes));
}

/* The lowest byte of each lane of a mask. */
INLINE void store_lowest_bytes(uint8_t *to, __mmask16 mask, __m512i lanes) {
    _mm_mask_storeu_epi8(to, mask, _mm512_cvtepi32_epi8(lanes));
}

/* The bytes of a mask of 16 V bytes (64, where V is 3), those that stand at `index` of as many such. */
INLINE void store_part(uint8_t *to, __m512i codes, int index, __mmask64 mask, const int V) {
    if (V > 2) _mm512_mask_storeu_epi8(to, mask, codes);
    else if (V == 2)
        _mm256_mask_storeu_epi8(to, (__mmask32)mask, index ? _mm512_extracti64x4_epi64(codes, 1)
                                                           : _mm512_castsi512_si256(codes));
    else
        _mm_mask_storeu_epi8(to, (__mmask16)mask, index == 0 ? _mm512_castsi512_si128(codes)
                                                : index == 1 ? _mm512_extracti32x4_epi32(codes, 1)
                                                : index == 2 ? _mm512_extracti32x4_epi32(codes, 2)
                                                             : _mm512_extracti32x4_epi32(codes, 3));
}

#else
#include "wide.h"
#endif

#if defined(SIGNED_PRODUCTS)
/* A CPU that multiplies signed bytes alone takes codes less 128; 128 times the sum of the weights, which is
   kept beside, makes up for it. */
enum { TAKEN_OFF = 128 };
INLINE __m512i as_multiplied(__m512i codes) { return _mm512_sub_epi8(codes, _mm512_set1_epi8((char)0x80)); }
INLINE void dot_multiplied(__m512i *sum, __m512i codes, __m512i weights) { dot_signed(sum, codes, weights); }
INLINE void add_weights(__m512i *sum, __m512i weights) { dot_signed(sum, _mm512_set1_epi8(1), weights); }
INLINE __m512i with_weights(__m512i sum, __m512i weights) {
    return _mm512_add_epi32(sum, _mm512_slli_epi32(weights, 7));
}
#else
enum { TAKEN_OFF = 0 };
INLINE __m512i as_multiplied(__m512i codes) { return codes; }
INLINE void dot_multiplied(__m512i *sum, __m512i codes, __m512i weights) { dot(sum, codes, weights); }
INLINE void add_weights(__m512i *sum, __m512i weights) { (void)sum, (void)weights; }
INLINE __m512i with_weights(__m512i sum, __m512i weights) { return (void)weights, sum; }
#endif

/* Four bytes, repeated. */
INLINE __m512i broadcast(const uint8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Sixteen bytes of four rows, byte by byte in turn: x[0][0], x[1][0], x[2][0], x[3][0], x[0][1], ... */
INLINE void interleave_16(const uint8_t x[4][16], int8_t *to) {
#if defined(__aarch64__)
    const uint8x16x4_t rows = {{vld1q_u8(x[0]), vld1q_u8(x[1]), vld1q_u8(x[2]), vld1q_u8(x[3])}};
    vst4q_u8((uint8_t *)to, rows);
#else
    __m128i rows[4], *y = (__m128i *)to;
    for (int i = 0; i < 4; i++) rows[i] = _mm_loadu_si128((const __m128i *)x[i]);
    const __m128i low[2] = {_mm_unpacklo_epi8(rows[0], rows[1]), _mm_unpacklo_epi8(rows[2], rows[3])};
    const __m128i high[2] = {_mm_unpackhi_epi8(rows[0], rows[1]), _mm_unpackhi_epi8(rows[2], rows[3])};
    _mm_storeu_si128(y, _mm_unpacklo_epi16(low[0], low[1]));
    _mm_storeu_si128(y + 1, _mm_unpackhi_epi16(low[0], low[1]));
    _mm_storeu_si128(y + 2, _mm_unpacklo_epi16(high[0], high[1]));
    _mm_storeu_si128(y + 3, _mm_unpackhi_epi16(high[0], high[1]));
#endif
}
