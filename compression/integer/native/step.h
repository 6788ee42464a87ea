/* One step of a quantized network, and what every step does with its results.

   Codes are uint8, NHWC, in buffers with a border that holds the code of the real number 0, so that
   no step looks for an image's edge. `struct step` and the numbers stand in step.py and packing.py
   too: run.c exports tables of them, which interface.py compares when the library is loaded. */
#include "vectors.h"
#include <omp.h>
#include <stddef.h>

enum { LANES = 16, ROWS = 6, VECTORS = 4, BLOCK = LANES * VECTORS, LAST = 1023, REST_BITS = 8 };

#define KINDS(X) X(QUANTIZE) X(CONVOLUTION) X(GROUPED) X(DEPTHWISE) X(MAXIMUM) X(MEAN) X(MAP) \
                 X(SUM) X(LOOKUP) X(MULTIPLICATION) X(INTERPOLATION) X(GATHER) X(NORM) X(ATTENTION)
#define ENUMERATOR(name) name,
enum kind { KINDS(ENUMERATOR) };
enum role { INPUT = 1, OUTPUT = 2, RESIDUAL = 4, VALUE = 8, REST = 16 };

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
    X(const float *, shift)              /* NORM: per channel, in output steps */   \
    X(const uint8_t *, value)            /* ATTENTION: values; keys: residual;      \
                                            SUM: what is added last; NULL: none */  \
    X(const int32_t *, value_offsets)                                               \
    X(const int32_t *, mask)             /* ATTENTION: NULL for none */             \
    X(void *, rest)                      /* SUM: what its rounding leaves; NULL: none */ \
    X(const int32_t *, rest_offsets)                                                \
    X(int64_t, rest_stride)                                                         \
    X(int64_t, value_stride)                                                        \
    X(int64_t, masks)                    /* ATTENTION: of how many groups */        \
    X(int64_t, input_stride)             /* from image to image; so below */        \
    X(int64_t, output_stride)                                                       \
    X(int64_t, residual_stride)                                                     \
    X(int64_t, width)                    /* QUANTIZE: of a row; MEAN, DEPTHWISE:    \
                                            bytes from column to column;            \
                                            CONVOLUTION: bytes of a window's column;\
                                            GATHER: taps from pixel to pixel;       \
                                            INTERPOLATION: columns;                 \
                                            ATTENTION: queries of a group */        \
    X(int64_t, plane)                    /* QUANTIZE: numbers per channel;          \
                                            DEPTHWISE: pixels of a row;             \
                                            ATTENTION: keys of a group */           \
    X(int32_t, kind)                                                                \
    X(int32_t, pixels)                                                              \
    X(int32_t, channels)                                                            \
    X(int32_t, runs)                                                                \
    X(int32_t, groups)                   /* of 4 bytes; GROUPED: parts; ATTENTION: channels */ \
    X(int32_t, band_count)                                                          \
    X(int32_t, slice)                    /* output channels that read the same */   \
    X(int32_t, slice_input)              /* ... and bytes to the next ones' input */\
    X(int32_t, input_zero)                                                          \
    X(int32_t, residual_zero)                                                       \
    X(int32_t, value_zero)                                                          \
    X(int32_t, rest_zero)                                                           \
    X(int32_t, output_zero)                                                         \
    X(int32_t, low)                                                                 \
    X(int32_t, high)                                                                \
    X(int32_t, real)                                                                \
    X(int32_t, at_once)                  /* images that a thread takes on to the next step */ \
    X(int32_t, passing)                  /* which memory only these need: bits by role */ \
    X(float, input_scale)                /* NORM: epsilon; ATTENTION: of scores */  \
    X(float, residual_ratio)             /* ATTENTION: of values */                 \
    X(float, value_ratio)
struct step { STEP_FIELDS(MEMBER) };

/* Where pixel `index` of several images lies. */
struct place { int64_t input, output, residual; };

INLINE struct place place_of(const struct step *s, int64_t image, int64_t pixel) {
    return (struct place){
        image * s->input_stride + s->input_offsets[pixel],
        image * s->output_stride + s->output_offsets[pixel],
        s->residual ? image * s->residual_stride + s->residual_offsets[pixel] : 0,
    };
}

/* What a thread takes of a step that so many threads share: of WHOLE parts, those from `from` to `to`. */
enum { WHOLE = 1 << 20 };
struct portion { int64_t from, to; int threads; };

/* How many of `total` lie before so many parts. */
INLINE int64_t before(int64_t total, int64_t parts) { return (total * parts + WHOLE / 2) / WHOLE; }

/* A thread's share of several images' pixels, and where it is: a division per pixel would take longer
   than what many steps do with one. */
struct share { int64_t left, image, pixel; };

INLINE struct share share_of(const struct step *s, int images, struct portion portion) {
    const int64_t total = (int64_t)images * s->pixels, first = before(total, portion.from);
    if (!total) return (struct share){0, 0, 0};
    return (struct share){before(total, portion.to) - first, first / s->pixels, first % s->pixels};
}

INLINE void advance(const struct step *s, struct share *on) {
    on->left--;
    if (++on->pixel == s->pixels) on->pixel = 0, on->image++;
}

/* Which of 16 channels, or of 64, come before `end`. */
INLINE __mmask16 lanes(int end, int channel) {
    const int left = end - channel;
    return left >= LANES ? 0xffff : (1u << left) - 1;
}

INLINE __mmask64 block_lanes(int end, int channel) {
    const int left = end - channel;
    return left >= BLOCK ? ~0ull : (1ull << left) - 1;
}

/* What the residual's codes are in units of the output: (code - zero) * ratio. */
struct addend { __m512 ratio; __m512i zero; };

INLINE struct addend addend_of(const struct step *s) {
    return (struct addend){_mm512_set1_ps(s->residual_ratio), _mm512_set1_epi32(s->residual_zero)};
}

/* Add the residual's codes (int32) to `y` in units of the output. */
INLINE __m512 with_residual(const struct addend *addend, __m512i codes, __m512 y) {
    const __m512 left = _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, addend->zero));
    return _mm512_add_ps(y, _mm512_mul_ps(left, addend->ratio));
}

/* The bounds of a step's codes, and their zero. */
struct bounds { __m512 most; __m512i zero, low; };

INLINE struct bounds bounds_about(const struct step *s, int32_t zero) {
    return (struct bounds){
        _mm512_set1_ps((float)(s->high - zero)), /* else int32 may overflow */
        _mm512_set1_epi16((int16_t)zero),
        _mm512_set1_epi8((int8_t)s->low),
    };
}

INLINE struct bounds bounds_of(const struct step *s) { return bounds_about(s, s->output_zero); }

/* The codes of V vectors of channels, zeros after them. Packing interleaves 128-bit lanes: lane l of
   vector v holds channel 16 (l / 4) + 4 v + l % 4 of what comes out. The bounds are whole numbers, so
   that to clamp and then to round is to round and then to clamp; what saturates in 16 bits lies
   beyond them. */
INLINE __m512i encode(const struct bounds *bounds, const __m512 *y, const int V) {
    __m512i codes[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++)
        codes[v] = v < V ? _mm512_cvtps_epi32(_mm512_min_ps(y[v], bounds->most)) : _mm512_setzero_si512();
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(codes[0], codes[1]), bounds->zero);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(codes[2], codes[3]), bounds->zero);
    return _mm512_max_epu8(_mm512_packus_epi16(low, high), bounds->low);
}

INLINE __m512i encode_block(const struct step *s, const __m512 *y) {
    const struct bounds bounds = bounds_of(s);
    return encode(&bounds, y, VECTORS);
}
