/* Parts of 16 bytes: ARM's NEON with dot products, of signed bytes by unsigned ones where the CPU has them. */
#include <arm_neon.h>

#define PART(name) neon_##name
enum { PARTS = 4 };
typedef int32x4_t part;
typedef float32x4_t real_part;
typedef uint16_t __mmask16;
typedef uint64_t __mmask64;
enum { _CMP_ORD_Q = 7, _CMP_LT_OQ = 17 };

#define S8(x) vreinterpretq_s8_s32(x)
#define U8(x) vreinterpretq_u8_s32(x)
#define S16(x) vreinterpretq_s16_s32(x)
#define U32(x) vreinterpretq_u32_s32(x)
#define S64(x) vreinterpretq_s64_s32(x)
#define OF_S8(x) vreinterpretq_s32_s8(x)
#define OF_U8(x) vreinterpretq_s32_u8(x)
#define OF_S16(x) vreinterpretq_s32_s16(x)
#define OF_U16(x) vreinterpretq_s32_u16(x)
#define OF_U32(x) vreinterpretq_s32_u32(x)
#define OF_S64(x) vreinterpretq_s32_s64(x)
#define OF_U64(x) vreinterpretq_s32_u64(x)

INLINE part neon_set1_epi8(int8_t x) { return OF_S8(vdupq_n_s8(x)); }
INLINE part neon_set1_epi16(int16_t x) { return OF_S16(vdupq_n_s16(x)); }
INLINE part neon_set1_epi32(int32_t x) { return vdupq_n_s32(x); }
INLINE part neon_set1_epi64(int64_t x) { return OF_S64(vdupq_n_s64(x)); }
INLINE real_part neon_set1_ps(float x) { return vdupq_n_f32(x); }
INLINE part neon_loadu(const void *from) { return OF_U8(vld1q_u8(from)); }
INLINE void neon_storeu(void *to, part x) { vst1q_u8(to, U8(x)); }
INLINE real_part neon_loadu_ps(const float *from) { return vld1q_f32(from); }
INLINE void neon_storeu_ps(float *to, real_part x) { vst1q_f32(to, x); }

INLINE part neon_add_epi8(part a, part b) { return OF_S8(vaddq_s8(S8(a), S8(b))); }
INLINE part neon_sub_epi8(part a, part b) { return OF_S8(vsubq_s8(S8(a), S8(b))); }
INLINE part neon_max_epu8(part a, part b) { return OF_U8(vmaxq_u8(U8(a), U8(b))); }
INLINE part neon_add_epi16(part a, part b) { return OF_S16(vaddq_s16(S16(a), S16(b))); }
INLINE part neon_sub_epi16(part a, part b) { return OF_S16(vsubq_s16(S16(a), S16(b))); }
INLINE part neon_adds_epi16(part a, part b) { return OF_S16(vqaddq_s16(S16(a), S16(b))); }
INLINE part neon_add_epi32(part a, part b) { return vaddq_s32(a, b); }
INLINE part neon_sub_epi32(part a, part b) { return vsubq_s32(a, b); }
INLINE part neon_mullo_epi32(part a, part b) { return vmulq_s32(a, b); }
INLINE part neon_min_epi32(part a, part b) { return vminq_s32(a, b); }
INLINE part neon_max_epi32(part a, part b) { return vmaxq_s32(a, b); }
INLINE part neon_add_epi64(part a, part b) { return OF_S64(vaddq_s64(S64(a), S64(b))); }
INLINE part neon_and(part a, part b) { return vandq_s32(a, b); }
INLINE part neon_or(part a, part b) { return vorrq_s32(a, b); }
INLINE part neon_cmpeq_epi32(part a, part b) { return OF_U32(vceqq_s32(a, b)); }
INLINE part neon_slli_epi32(part a, int bits) { return vshlq_s32(a, vdupq_n_s32(bits)); }
INLINE part neon_srai_epi32(part a, int bits) { return vshlq_s32(a, vdupq_n_s32(-bits)); }
INLINE part neon_srlv_epi32(part a, part bits) { return OF_U32(vshlq_u32(U32(a), vnegq_s32(bits))); }
INLINE part neon_srli_epi32(part a, int bits) { return neon_srlv_epi32(a, vdupq_n_s32(bits)); }
INLINE part neon_srli_epi64(part a, int bits) {
    return OF_U64(vshlq_u64(vreinterpretq_u64_s32(a), vdupq_n_s64(-bits)));
}

INLINE part neon_unpacklo_epi8(part a, part b) { return OF_S8(vzip1q_s8(S8(a), S8(b))); }
INLINE part neon_unpackhi_epi8(part a, part b) { return OF_S8(vzip2q_s8(S8(a), S8(b))); }
INLINE part neon_unpacklo_epi16(part a, part b) { return OF_S16(vzip1q_s16(S16(a), S16(b))); }
INLINE part neon_unpackhi_epi16(part a, part b) { return OF_S16(vzip2q_s16(S16(a), S16(b))); }
INLINE part neon_packs_epi32(part a, part b) { return OF_S16(vqmovn_high_s32(vqmovn_s32(a), b)); }
INLINE part neon_packus_epi16(part a, part b) { return OF_U8(vqmovun_high_s16(vqmovun_s16(S16(a)), S16(b))); }
/* A place from 128 on gives 0, as on x86; those that are asked for are below 16 else. */
INLINE part neon_shuffle_epi8(part x, part places) { return OF_U8(vqtbl1q_u8(U8(x), U8(places))); }
INLINE part neon_madd_epi16(part a, part b) {
    return vpaddq_s32(vmull_s16(vget_low_s16(S16(a)), vget_low_s16(S16(b))), vmull_high_s16(S16(a), S16(b)));
}
INLINE part neon_sad_epu8(part a, part b) {
    return OF_U64(vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(vabdq_u8(U8(a), U8(b))))));
}
INLINE part neon_broadcast_16(const void *from) { return neon_loadu(from); }
INLINE part neon_widened(const uint8_t *from) {
    uint32_t four;
    memcpy(&four, from, sizeof four);
    return OF_U32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
INLINE part neon_widened_signed(const int8_t *from) {
    uint32_t four;
    memcpy(&four, from, sizeof four);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}
INLINE void neon_fourths_in_order(const part *from, part *to) {
    const part a = vzip1q_s32(from[0], from[2]), b = vzip1q_s32(from[1], from[3]);
    const part c = vzip2q_s32(from[0], from[2]), d = vzip2q_s32(from[1], from[3]);
    to[0] = vzip1q_s32(a, b), to[1] = vzip2q_s32(a, b), to[2] = vzip1q_s32(c, d), to[3] = vzip2q_s32(c, d);
}

INLINE real_part neon_add_ps(real_part a, real_part b) { return vaddq_f32(a, b); }
INLINE real_part neon_sub_ps(real_part a, real_part b) { return vsubq_f32(a, b); }
INLINE real_part neon_mul_ps(real_part a, real_part b) { return vmulq_f32(a, b); }
INLINE real_part neon_div_ps(real_part a, real_part b) { return vdivq_f32(a, b); }
INLINE real_part neon_fmadd_ps(real_part a, real_part b, real_part c) { return vfmaq_f32(c, a, b); }
INLINE real_part neon_fnmadd_ps(real_part a, real_part b, real_part c) { return vfmsq_f32(c, a, b); }
INLINE real_part neon_fmsub_ps(real_part a, real_part b, real_part c) { return vfmaq_f32(vnegq_f32(c), a, b); }
/* As on x86 the second operand comes out where one of both is NaN. */
INLINE real_part neon_min_ps(real_part a, real_part b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE real_part neon_max_ps(real_part a, real_part b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
INLINE real_part neon_nearest(real_part x) { return vrndnq_f32(x); }
INLINE real_part neon_cvtepi32_ps(part x) { return vcvtq_f32_s32(x); }
INLINE part neon_cvtps_epi32(real_part x) { return vcvtnq_s32_f32(x); }
INLINE part neon_castps_si512(real_part x) { return vreinterpretq_s32_f32(x); }
INLINE real_part neon_castsi512_ps(part x) { return vreinterpretq_f32_s32(x); }
INLINE real_part neon_choose_ps(part chosen, real_part a, real_part b) { return vbslq_f32(U32(chosen), a, b); }
INLINE real_part neon_less_ps(real_part a, real_part b) { return vreinterpretq_f32_u32(vcltq_f32(a, b)); }
INLINE real_part neon_ordered_ps(real_part a, real_part b) {
    return vreinterpretq_f32_u32(vandq_u32(vceqq_f32(a, a), vceqq_f32(b, b)));
}
INLINE unsigned neon_bits_of(real_part x) {
    const uint32_t bits[] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vreinterpretq_u32_f32(x), vld1q_u32(bits)));
}

#define PERMUTED
static inline int permutes_bytes(void) { return 1; }
/* 16 bytes of 64 and 64 others, those at `places`. */
INLINE part neon_of_two(const part *a, const part *b, part places) {
    const uint8x16x4_t first = {{U8(a[0]), U8(a[1]), U8(a[2]), U8(a[3])}};
    const uint8x16x4_t second = {{U8(b[0]), U8(b[1]), U8(b[2]), U8(b[3])}};
    const uint8x16_t at = vandq_u8(U8(places), vdupq_n_u8(127));
    return OF_U8(vqtbx4q_u8(vqtbl4q_u8(first, at), second, vsubq_u8(at, vdupq_n_u8(64))));
}
INLINE part neon_by_sign(part x, part low, part high) {
    return OF_S8(vbslq_s8(vreinterpretq_u8_s8(vshrq_n_s8(S8(x), 7)), S8(high), S8(low)));
}

enum { KEPT_PIXELS = 6, KEPT_VECTORS = 1, FEW_SUMS = 2 };
#if defined(__ARM_FEATURE_MATMUL_INT8)
INLINE part neon_dot(part sum, part codes, part weights) { return vusdotq_s32(sum, U8(codes), S8(weights)); }
#else
#define SIGNED_PRODUCTS
INLINE part neon_dot_signed(part sum, part codes, part weights) { return vdotq_s32(sum, S8(codes), S8(weights)); }
/* 64 is the most that is half of 128 and a signed byte. */
INLINE part neon_dot(part sum, part codes, part weights) {
    const part half = neon_set1_epi8(64), less = neon_sub_epi8(codes, neon_set1_epi8(-128));
    return neon_dot_signed(neon_dot_signed(neon_dot_signed(sum, less, weights), half, weights), half, weights);
}
#endif
