/* One step of a quantized network, and what every step does with its results.

   Codes are uint8, NHWC, in buffers with a border that holds the code of the real number 0, so that
   no step looks for an image's edge. `struct step` and the numbers stand in step.py and packing.py
   too: run.c exports tables of them, which interface.py compares when the library is loaded. */
#include <immintrin.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16, ROWS = 6, VECTORS = 4, BLOCK = LANES * VECTORS };

#define KINDS(X) X(QUANTIZE) X(CONVOLUTION) X(DEPTHWISE) X(MAXIMUM) X(MEAN) X(MAP) \
                 X(LOOKUP) X(MULTIPLICATION) X(INTERPOLATION) X(GATHER)
#define ENUMERATOR(name) name,
enum kind { KINDS(ENUMERATOR) };

#define MEMBER(type, name) type name;

/* Pixels that read the same part of their window: at the edges of an image, less than all of it. */
#define BAND_FIELDS(X)                                                              \
    X(int32_t, first_pixel)                                                         \
    X(int32_t, pixels)                                                              \
    X(int32_t, first_run)                                                           \
    X(int32_t, runs)                                                                \
    X(int32_t, first_group)                                                         \
    X(int32_t, groups)
struct band { BAND_FIELDS(MEMBER) };

#define STEP_FIELDS(X)                                                              \
    X(const uint8_t *, input)            /* NULL: the network's real input, NCHW */ \
    X(void *, output)                    /* NULL: the network's real output */      \
    X(const uint8_t *, residual)         /* NULL: none */                           \
    X(const int8_t *, weights)           /* packed, see convolution.h */            \
    X(const int32_t *, bias)                                                        \
    X(const float *, multiplier)         /* per channel: sums -> output steps */    \
    X(const int32_t *, input_offsets)    /* of each pixel, in bytes; so below */    \
    X(const int32_t *, output_offsets)                                              \
    X(const int32_t *, residual_offsets)                                            \
    X(const int32_t *, run_offsets)      /* of each contiguous run of a window */   \
    X(const struct band *, bands)                                                   \
    X(int64_t, input_stride)             /* from image to image; so below */        \
    X(int64_t, output_stride)                                                       \
    X(int64_t, residual_stride)                                                     \
    X(int64_t, width)                    /* QUANTIZE: of a row; MEAN: of a pixel;   \
                                            GATHER: taps from pixel to pixel;       \
                                            INTERPOLATION: columns */               \
    X(int64_t, plane)                    /* QUANTIZE: numbers per channel */        \
    X(int32_t, kind)                                                                \
    X(int32_t, pixels)                                                              \
    X(int32_t, channels)                                                            \
    X(int32_t, runs)                                                                \
    X(int32_t, groups)                                                              \
    X(int32_t, band_count)                                                          \
    X(int32_t, input_zero)                                                          \
    X(int32_t, residual_zero)                                                       \
    X(int32_t, output_zero)                                                         \
    X(int32_t, low)                                                                 \
    X(int32_t, high)                                                                \
    X(int32_t, real)                                                                \
    X(float, input_scale)                                                           \
    X(float, residual_ratio)
struct step { STEP_FIELDS(MEMBER) };

#define INLINE static inline __attribute__((always_inline))

/* Where pixel `index` of several images lies. */
struct place { int64_t input, output, residual; };

INLINE struct place place_of(const struct step *s, int64_t image, int64_t pixel) {
    return (struct place){
        image * s->input_stride + s->input_offsets[pixel],
        image * s->output_stride + s->output_offsets[pixel],
        s->residual ? image * s->residual_stride + s->residual_offsets[pixel] : 0,
    };
}

INLINE __mmask16 lanes(const struct step *s, int channel) {
    const int left = s->channels - channel;
    return left >= LANES ? 0xffff : (1u << left) - 1;
}

INLINE __m512i widened(const uint8_t *codes, __mmask16 mask) {
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, codes));
}

/* Add the residual's codes (int32), where there is one, to `y` in units of the output. */
INLINE __m512 with_residual(const struct step *s, __m512i codes, __m512 y) {
    const __m512i left = _mm512_sub_epi32(codes, _mm512_set1_epi32(s->residual_zero));
    const __m512 ratio = _mm512_set1_ps(s->residual_ratio);
    return _mm512_add_ps(y, _mm512_mul_ps(_mm512_cvtepi32_ps(left), ratio));
}

/* The bounds are whole numbers, so that to clamp and then to round is to round and then to clamp. */
INLINE __m512i encode(const struct step *s, __m512 y) {
    y = _mm512_min_ps(y, _mm512_set1_ps((float)(s->high - s->output_zero)));
    y = _mm512_max_ps(y, _mm512_set1_ps((float)(s->low - s->output_zero)));
    return _mm512_add_epi32(_mm512_cvtps_epi32(y), _mm512_set1_epi32(s->output_zero));
}

/* Store the codes of 16 channels, or of as many as there are. */
INLINE void store(const struct step *s, struct place at, int channel, __mmask16 mask, __m512 y) {
    _mm_mask_storeu_epi8((uint8_t *)s->output + at.output + channel, mask,
                         _mm512_cvtepi32_epi8(encode(s, y)));
}

/* Add the residual, and store codes or real numbers. */
INLINE void finish(const struct step *s, struct place at, int channel, __m512 y) {
    const __mmask16 mask = lanes(s, channel);
    if (s->residual) y = with_residual(s, widened(s->residual + at.residual + channel, mask), y);
    if (s->real)
        _mm512_mask_storeu_ps((float *)s->output + at.output + channel, mask, y);
    else
        store(s, at, channel, mask, y);
}

/* Store a whole block of 64 channels of codes at once. */
INLINE void finish_block(const struct step *s, struct place at, int channel, const __m512 *y) {
    __m512i codes[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
        __m512 sum = y[v];
        if (s->residual) {
            const __m128i *z = (const __m128i *)(s->residual + at.residual + channel) + v;
            sum = with_residual(s, _mm512_cvtepu8_epi32(_mm_loadu_si128(z)), sum);
        }
        codes[v] = encode(s, sum);
    }
    /* Packing interleaves 128-bit lanes: the permutation puts the channels back in order. */
    const __m512i packed = _mm512_packus_epi16(_mm512_packs_epi32(codes[0], codes[1]),
                                               _mm512_packs_epi32(codes[2], codes[3]));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512((uint8_t *)s->output + at.output + channel,
                        _mm512_permutexvar_epi32(order, packed));
}
