/* Vectors of 64 bytes as 2 parts of 32 (avx2.h) or 4 of 16 (neon.h), under the names of AVX-512. Each
   operation gives what AVX-512 gives, bit for bit, for all that is asked here. A mask names the first
   lanes. */
#include <stddef.h>
#define KEPT_APART
#if defined(__aarch64__)
#include "neon.h"
#else
#include "avx2.h"
#endif

typedef struct { part of[PARTS]; } bytes_64;
typedef struct { real_part of[PARTS]; } reals_16;
#define __m512i bytes_64
#define __m512 reals_16

enum { PART_BYTES = (int)sizeof(part), PART_LANES = PART_BYTES / 4 };

#define EACH(type, value)                                         \
    type made;                                                    \
    _Pragma("GCC unroll 4")                                       \
    for (int i = 0; i < PARTS; i++) made.of[i] = (value);         \
    return made;
#define UNARY(type, to, name) INLINE to _mm512_##name(type a) { EACH(to, PART(name)(a.of[i])) }
#define BINARY(type, name) INLINE type _mm512_##name(type a, type b) { EACH(type, PART(name)(a.of[i], b.of[i])) }
#define TERNARY(type, name) \
    INLINE type _mm512_##name(type a, type b, type c) { EACH(type, PART(name)(a.of[i], b.of[i], c.of[i])) }

BINARY(bytes_64, add_epi8) BINARY(bytes_64, add_epi16) BINARY(bytes_64, add_epi32) BINARY(bytes_64, add_epi64)
BINARY(bytes_64, sub_epi8) BINARY(bytes_64, sub_epi16) BINARY(bytes_64, sub_epi32) BINARY(bytes_64, adds_epi16)
BINARY(bytes_64, mullo_epi32) BINARY(bytes_64, madd_epi16) BINARY(bytes_64, sad_epu8)
BINARY(bytes_64, max_epu8) BINARY(bytes_64, min_epi32) BINARY(bytes_64, max_epi32) BINARY(bytes_64, shuffle_epi8)
BINARY(bytes_64, packs_epi32) BINARY(bytes_64, packus_epi16) BINARY(bytes_64, srlv_epi32)
BINARY(bytes_64, unpacklo_epi8) BINARY(bytes_64, unpackhi_epi8) BINARY(bytes_64, unpacklo_epi16) BINARY(bytes_64, unpackhi_epi16)
BINARY(reals_16, add_ps) BINARY(reals_16, sub_ps) BINARY(reals_16, mul_ps) BINARY(reals_16, div_ps)
BINARY(reals_16, min_ps) BINARY(reals_16, max_ps)
TERNARY(reals_16, fmadd_ps) TERNARY(reals_16, fmsub_ps) TERNARY(reals_16, fnmadd_ps)
UNARY(bytes_64, reals_16, cvtepi32_ps) UNARY(reals_16, bytes_64, cvtps_epi32)
UNARY(bytes_64, reals_16, castsi512_ps) UNARY(reals_16, bytes_64, castps_si512)

INLINE bytes_64 _mm512_and_si512(bytes_64 a, bytes_64 b) { EACH(bytes_64, PART(and)(a.of[i], b.of[i])) }
INLINE bytes_64 _mm512_or_si512(bytes_64 a, bytes_64 b) { EACH(bytes_64, PART(or)(a.of[i], b.of[i])) }
INLINE bytes_64 _mm512_slli_epi32(bytes_64 a, int bits) { EACH(bytes_64, PART(slli_epi32)(a.of[i], bits)) }
INLINE bytes_64 _mm512_srli_epi32(bytes_64 a, int bits) { EACH(bytes_64, PART(srli_epi32)(a.of[i], bits)) }
INLINE bytes_64 _mm512_srli_epi64(bytes_64 a, int bits) { EACH(bytes_64, PART(srli_epi64)(a.of[i], bits)) }

INLINE bytes_64 _mm512_set1_epi8(char x) { EACH(bytes_64, PART(set1_epi8)(x)) }
INLINE bytes_64 _mm512_set1_epi16(short x) { EACH(bytes_64, PART(set1_epi16)(x)) }
INLINE bytes_64 _mm512_set1_epi32(int x) { EACH(bytes_64, PART(set1_epi32)(x)) }
INLINE bytes_64 _mm512_set1_epi64(long long x) { EACH(bytes_64, PART(set1_epi64)(x)) }
INLINE reals_16 _mm512_set1_ps(float x) { EACH(reals_16, PART(set1_ps)(x)) }
INLINE bytes_64 _mm512_setzero_si512(void) { return _mm512_set1_epi32(0); }
INLINE reals_16 _mm512_setzero_ps(void) { return _mm512_set1_ps(0); }

INLINE bytes_64 _mm512_loadu_si512(const void *from) {
    EACH(bytes_64, PART(loadu)((const uint8_t *)from + PART_BYTES * i))
}
INLINE bytes_64 _mm512_load_si512(const void *from) { return _mm512_loadu_si512(from); }
INLINE reals_16 _mm512_loadu_ps(const float *from) { EACH(reals_16, PART(loadu_ps)(from + PART_LANES * i)) }
INLINE void _mm512_storeu_si512(void *to, bytes_64 x) {
#pragma GCC unroll 4
    for (int i = 0; i < PARTS; i++) PART(storeu)((uint8_t *)to + PART_BYTES * i, x.of[i]);
}
INLINE void _mm512_store_si512(void *to, bytes_64 x) { _mm512_storeu_si512(to, x); }
INLINE void _mm512_storeu_ps(float *to, reals_16 x) {
#pragma GCC unroll 4
    for (int i = 0; i < PARTS; i++) PART(storeu_ps)(to + PART_LANES * i, x.of[i]);
}
INLINE bytes_64 _mm512_setr_epi32(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, int k, int l,
                              int m, int n, int o, int p) {
    const int32_t all[] = {a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p};
    return _mm512_loadu_si512(all);
}

/* How many lanes a mask names. */
INLINE int count_of(uint64_t mask) { return mask ? 64 - __builtin_clzll(mask) : 0; }

/* Of any bytes. */
INLINE bytes_64 _mm512_mask_loadu_epi8(bytes_64 x, __mmask64 mask, const void *from) {
    uint8_t bytes[64];
    _mm512_storeu_si512(bytes, x);
    for (int i = 0; i < 64; i++)
        if (mask >> i & 1) bytes[i] = ((const uint8_t *)from)[i];
    return _mm512_loadu_si512(bytes);
}
INLINE bytes_64 _mm512_maskz_loadu_epi8(__mmask64 mask, const void *from) {
    if (mask == ~0ull) return _mm512_loadu_si512(from);
    if (mask & (mask + 1)) return _mm512_mask_loadu_epi8(_mm512_setzero_si512(), mask, from);
    uint8_t bytes[64] = {0};
    memcpy(bytes, from, count_of(mask));
    return _mm512_loadu_si512(bytes);
}
INLINE void _mm512_mask_storeu_epi8(void *to, __mmask64 mask, bytes_64 x) {
    if (mask == ~0ull) _mm512_storeu_si512(to, x);
    else memcpy(to, &x, count_of(mask));
}
INLINE bytes_64 _mm512_maskz_loadu_epi32(__mmask16 mask, const void *from) {
    if (mask == 0xffff) return _mm512_loadu_si512(from);
    int32_t lanes[16] = {0};
    memcpy(lanes, from, 4 * count_of(mask));
    return _mm512_loadu_si512(lanes);
}
INLINE reals_16 _mm512_maskz_loadu_ps(__mmask16 mask, const float *from) {
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi32(mask, from));
}
INLINE void _mm512_mask_storeu_ps(float *to, __mmask16 mask, reals_16 x) {
    if (mask == 0xffff) _mm512_storeu_ps(to, x);
    else memcpy(to, &x, 4 * count_of(mask));
}

/* All bits of the lanes that a mask names, any. */
INLINE bytes_64 lanes_of(__mmask16 mask) {
    const bytes_64 bits = _mm512_setr_epi32(1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9,
                                        1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15);
    const bytes_64 named = _mm512_and_si512(bits, _mm512_set1_epi32(mask));
    EACH(bytes_64, PART(cmpeq_epi32)(named.of[i], bits.of[i]))
}
INLINE bytes_64 _mm512_maskz_mov_epi32(__mmask16 mask, bytes_64 x) { return _mm512_and_si512(lanes_of(mask), x); }
INLINE reals_16 _mm512_mask_blend_ps(__mmask16 mask, reals_16 a, reals_16 b) {
    const bytes_64 chosen = lanes_of(mask);
    EACH(reals_16, PART(choose_ps)(chosen.of[i], b.of[i], a.of[i]))
}
INLINE reals_16 _mm512_mask_mov_ps(reals_16 a, __mmask16 mask, reals_16 b) {
    return _mm512_mask_blend_ps(mask, a, b);
}
INLINE reals_16 _mm512_maskz_div_ps(__mmask16 mask, reals_16 a, reals_16 b) {
    return _mm512_mask_blend_ps(mask, _mm512_setzero_ps(), _mm512_div_ps(a, b));
}
INLINE bytes_64 _mm512_mask_max_epi32(bytes_64 from, __mmask16 mask, bytes_64 a, bytes_64 b) {
    return _mm512_castps_si512(_mm512_mask_blend_ps(mask, _mm512_castsi512_ps(from),
                                                    _mm512_castsi512_ps(_mm512_max_epi32(a, b))));
}
INLINE bytes_64 _mm512_maskz_sub_epi8(__mmask64 mask, bytes_64 a, bytes_64 b) {
    const bytes_64 left = _mm512_sub_epi8(a, b);
    return _mm512_maskz_loadu_epi8(mask, &left);
}

INLINE __mmask16 _mm512_cmp_ps_mask(reals_16 a, reals_16 b, const int compare) {
    unsigned mask = 0;
#pragma GCC unroll 4
    for (int i = 0; i < PARTS; i++)
        mask |= PART(bits_of)(compare == _CMP_LT_OQ ? PART(less_ps)(a.of[i], b.of[i])
                                                        : PART(ordered_ps)(a.of[i], b.of[i])) << PART_LANES * i;
    return (__mmask16)mask;
}

INLINE reals_16 _mm512_abs_ps(reals_16 x) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MAX)));
}
/* x times 2^power, both far from the ends of what floats are. */
INLINE reals_16 _mm512_scalef_ps(reals_16 x, reals_16 power) {
    const bytes_64 bits = _mm512_add_epi32(_mm512_cvtps_epi32(power), _mm512_set1_epi32(127));
    return _mm512_mul_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23)));
}

#if defined(PERMUTED)
INLINE bytes_64 _mm512_permutex2var_epi8(bytes_64 a, bytes_64 places, bytes_64 b) {
    EACH(bytes_64, PART(of_two)(a.of, b.of, places.of[i]))
}
INLINE bytes_64 by_sign(bytes_64 x, bytes_64 low, bytes_64 high) {
    EACH(bytes_64, PART(by_sign)(x.of[i], low.of[i], high.of[i]))
}
#endif

INLINE bytes_64 _mm512_permutexvar_epi32(bytes_64 places, bytes_64 x) {
    int32_t at[16], from[16], to[16];
    _mm512_storeu_si512(at, places);
    _mm512_storeu_si512(from, x);
    for (int i = 0; i < 16; i++) to[i] = from[at[i] & 15];
    return _mm512_loadu_si512(to);
}
INLINE bytes_64 _mm512_permutex2var_epi32(bytes_64 a, bytes_64 places, bytes_64 b) {
    int32_t at[16], from[32], to[16];
    _mm512_storeu_si512(at, places);
    _mm512_storeu_si512(from, a);
    _mm512_storeu_si512(from + 16, b);
    for (int i = 0; i < 16; i++) to[i] = from[at[i] & 31];
    return _mm512_loadu_si512(to);
}
INLINE void _mm512_i32scatter_epi32(void *to, bytes_64 places, bytes_64 x, const int scale) {
    int32_t at[16], from[16];
    _mm512_storeu_si512(at, places);
    _mm512_storeu_si512(from, x);
    for (int i = 0; i < 16; i++) memcpy((uint8_t *)to + (int64_t)at[i] * scale, &from[i], 4);
}

#define REDUCE(name, type, lane, store, combine)          \
    INLINE lane _mm512_reduce_##name(type x) {            \
        lane all[64 / sizeof(lane)];                      \
        store(all, x);                                    \
        lane made = all[0];                               \
        for (size_t i = 1; i < 64 / sizeof(lane); i++) made = combine; \
        return made;                                      \
    }
REDUCE(add_epi32, bytes_64, int32_t, _mm512_storeu_si512, (int32_t)((uint32_t)made + (uint32_t)all[i]))
REDUCE(add_epi64, bytes_64, int64_t, _mm512_storeu_si512, made + all[i])
REDUCE(max_epi32, bytes_64, int32_t, _mm512_storeu_si512, made > all[i] ? made : all[i])
REDUCE(max_ps, reals_16, float, _mm512_storeu_ps, made > all[i] ? made : all[i])
REDUCE(min_ps, reals_16, float, _mm512_storeu_ps, made < all[i] ? made : all[i])
REDUCE(add_ps, reals_16, float, _mm512_storeu_ps, made + all[i]) /* of zeros and NaN: in any order */

/* What vectors.h says of these. */
INLINE void dot(bytes_64 *sum, bytes_64 codes, bytes_64 weights) {
#pragma GCC unroll 4
    for (int i = 0; i < PARTS; i++) sum->of[i] = PART(dot)(sum->of[i], codes.of[i], weights.of[i]);
}
#if defined(SIGNED_PRODUCTS)
INLINE void dot_signed(bytes_64 *sum, bytes_64 codes, bytes_64 weights) {
#pragma GCC unroll 4
    for (int i = 0; i < PARTS; i++) sum->of[i] = PART(dot_signed)(sum->of[i], codes.of[i], weights.of[i]);
}
#endif
INLINE reals_16 nearest(reals_16 x) { EACH(reals_16, PART(nearest)(x.of[i])) }
INLINE reals_16 nibble_numbers(bytes_64 lanes) {
    EACH(reals_16, PART(cvtepi32_ps)(PART(srai_epi32)(PART(slli_epi32)(lanes.of[i], 28), 28)))
}
INLINE bytes_64 fourths_in_order(bytes_64 lanes) {
    bytes_64 made;
    PART(fourths_in_order)(lanes.of, made.of);
    return made;
}
INLINE bytes_64 broadcast_16(const void *from) { EACH(bytes_64, PART(broadcast_16)(from)) }
INLINE bytes_64 broadcast_8(const void *from) {
    int64_t bytes;
    memcpy(&bytes, from, sizeof bytes);
    return _mm512_set1_epi64(bytes);
}
INLINE bytes_64 widened(const uint8_t *codes, __mmask16 mask) {
    uint8_t bytes[16] = {0};
    memcpy(bytes, codes, mask == 0xffff ? 16 : count_of(mask));
    EACH(bytes_64, PART(widened)(bytes + PART_LANES * i))
}
INLINE bytes_64 widened_signed(const int8_t *codes, __mmask16 mask) {
    int8_t bytes[16] = {0};
    memcpy(bytes, codes, mask == 0xffff ? 16 : count_of(mask));
    EACH(bytes_64, PART(widened_signed)(bytes + PART_LANES * i))
}
INLINE void store_lowest_bytes(uint8_t *to, __mmask16 mask, bytes_64 lanes) {
    uint32_t from[16];
    uint8_t bytes[16];
    _mm512_storeu_si512(from, lanes);
    for (int i = 0; i < 16; i++) bytes[i] = (uint8_t)from[i];
    memcpy(to, bytes, mask == 0xffff ? 16 : count_of(mask));
}
INLINE void store_part(uint8_t *to, bytes_64 codes, int index, __mmask64 mask, const int V) {
    const int most = 16 * (V > 2 ? 4 : V), count = count_of(mask);
    const uint8_t *from = (const uint8_t *)&codes + most * index;
    if (count >= most) memcpy(to, from, most);
    else memcpy(to, from, count);
}
