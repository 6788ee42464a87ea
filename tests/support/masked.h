/* Masked loads and stores, byte by byte: AddressSanitizer does not look into the intrinsics. */
#include <immintrin.h>
#include <stdint.h>

/* Copy the elements, of `bytes` each, that `mask` names. */
static inline void copy_masked(void *to, const void *from, uint64_t mask, int count, int bytes) {
    for (int i = 0; i < count; i++)
        for (int b = 0; b < bytes && (mask >> i & 1); b++)
            ((uint8_t *)to)[i * bytes + b] = ((const uint8_t *)from)[i * bytes + b];
}

#define LOAD(NAME, VECTOR, ZERO, MASK, COUNT, BYTES)                        \
    static inline VECTOR checked##NAME(MASK mask, const void *from) {       \
        VECTOR loaded = ZERO();                                             \
        copy_masked(&loaded, from, mask, COUNT, BYTES);                     \
        return loaded;                                                      \
    }
#define STORE(NAME, VECTOR, MASK, COUNT, BYTES)                             \
    static inline void checked##NAME(void *to, MASK mask, VECTOR stored) {  \
        copy_masked(to, &stored, mask, COUNT, BYTES);                       \
    }
LOAD(_mm_maskz_loadu_epi8, __m128i, _mm_setzero_si128, __mmask16, 16, 1)
LOAD(_mm512_maskz_loadu_epi8, __m512i, _mm512_setzero_si512, __mmask64, 64, 1)
LOAD(_mm512_maskz_loadu_epi32, __m512i, _mm512_setzero_si512, __mmask16, 16, 4)
LOAD(_mm512_maskz_loadu_ps, __m512, _mm512_setzero_ps, __mmask16, 16, 4)
STORE(_mm_mask_storeu_epi8, __m128i, __mmask16, 16, 1)
STORE(_mm256_mask_storeu_epi8, __m256i, __mmask32, 32, 1)
STORE(_mm512_mask_storeu_epi8, __m512i, __mmask64, 64, 1)
STORE(_mm512_mask_storeu_ps, __m512, __mmask16, 16, 4)
static inline __m512i checked_merge(__m512i merged, __mmask64 mask, const void *from) {
    copy_masked(&merged, from, mask, 64, 1);
    return merged;
}
static inline void checked_scatter(void *to, __m512i places, __m512i stored) {
    int32_t numbers[16], at[16];
    _mm512_storeu_si512(numbers, stored);
    _mm512_storeu_si512(at, places);
    for (int i = 0; i < 16; i++) ((int32_t *)to)[at[i]] = numbers[i];
}
#define _mm512_i32scatter_epi32(to, places, stored, scale) checked_scatter(to, places, stored)
#define _mm512_mask_loadu_epi8 checked_merge
#define _mm_maskz_loadu_epi8 checked_mm_maskz_loadu_epi8
#define _mm512_maskz_loadu_epi8 checked_mm512_maskz_loadu_epi8
#define _mm512_maskz_loadu_epi32 checked_mm512_maskz_loadu_epi32
#define _mm512_maskz_loadu_ps checked_mm512_maskz_loadu_ps
#define _mm_mask_storeu_epi8 checked_mm_mask_storeu_epi8
#define _mm256_mask_storeu_epi8 checked_mm256_mask_storeu_epi8
#define _mm512_mask_storeu_epi8 checked_mm512_mask_storeu_epi8
#define _mm512_mask_storeu_ps checked_mm512_mask_storeu_ps
