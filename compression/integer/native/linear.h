/* Rows times weights of codes: real rows, and rows quantized one by one.

   Weights are packed in blocks of 64 outputs, the last of 1, 2 or 4 vectors of 16. Each of
   up to 4 rows x 64 outputs of sums stays in registers while a block is read once, in order. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include "step.h"
#include "tiles.h"

enum { TALL = 4 };    /* rows of a tile */
enum { NIBBLES = 8 }; /* codes of 4 bits in the 32 of a lane */
enum { MULTIPLICATIONS = 1 << 19 }; /* that pay for another thread */

struct linear {
    const float *x, *scale, *bias; /* bias NULL: none */
    const int8_t *weights;
    float *y;
    int64_t rows, inputs, outputs, group, block_bytes;
    const int32_t *sums; /* DYNAMIC: of each output's weights, whole blocks */
    uint8_t *codes;      /* DYNAMIC: of each row, so many inputs apart: */
    int64_t stride;
    float *steps;        /* DYNAMIC: the scale of each row */
    int32_t *zeros;      /* DYNAMIC: its zero point, of unsigned codes */
};

enum form { EIGHT, FOUR, DYNAMIC };

INLINE __mmask16 outputs_of(const struct linear *s, int64_t output) {
    const int64_t left = s->outputs - output;
    return left >= LANES ? 0xffff : left <= 0 ? 0 : (1u << left) - 1;
}

INLINE __m512 bias_of(const struct linear *s, int64_t output) {
    if (!s->bias) return _mm512_setzero_ps();
    return _mm512_maskz_loadu_ps(outputs_of(s, output), s->bias + output);
}

INLINE void multiply(float x, const __m512 *weights, __m512 *sums, const int V) {
    const __m512 number = _mm512_set1_ps(x);
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) sums[v] = _mm512_fmadd_ps(number, weights[v], sums[v]);
}

/* [input][output], a byte each: N vectors of the V that a block has. */
INLINE const int8_t *bytes(const float *const *x, int64_t from, int64_t to, const int8_t *w,
                           __m512 sums[TALL][VECTORS], const int R, const int N, const int V) {
    for (int64_t k = from; k < to; k++, w += LANES * V) {
        __m512 weights[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < N; v++) weights[v] = _mm512_cvtepi32_ps(widened_signed(w + LANES * v, 0xffff));
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) multiply(x[r][k], weights, sums[r], N);
    }
    return w;
}

/* [8 inputs][output], 4 bits each. */
INLINE const int8_t *nibbles(const float *const *x, int64_t from, int64_t to, const int8_t *w,
                             __m512 sums[TALL][VECTORS], const int R, const int N, const int V) {
    for (int64_t k = from; k < to; k += NIBBLES, w += 4 * LANES * V) {
        __m512i packed[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < N; v++) packed[v] = _mm512_loadu_si512(w + 4 * LANES * v);
        const int64_t count = to - k < NIBBLES ? to - k : NIBBLES;
        for (int64_t j = 0; j < count; j++) {
            __m512 weights[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < N; v++) {
                weights[v] = nibble_numbers(packed[v]);
                packed[v] = _mm512_srli_epi32(packed[v], 4);
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) multiply(x[r][k + j], weights, sums[r], N);
        }
    }
    return w;
}

/* Real rows times codes, group by group of inputs that share a scale per output. */
INLINE void real_tile(const struct linear *s, int64_t row, int64_t block, const int first, const int R,
                      const int N, const int V, const enum form form) {
    const float *x[TALL];
    __m512 totals[TALL][VECTORS];
    const int64_t output = block * BLOCK + LANES * first, groups = (s->inputs + s->group - 1) / s->group;
    const int8_t *w = s->weights + block * s->block_bytes + (form == FOUR ? 4 : 1) * LANES * first;
    const float *scale = s->scale + block * BLOCK * groups + LANES * first;
    for (int r = 0; r < R; r++) {
        x[r] = s->x + (row + r) * s->inputs;
        for (int v = 0; v < N; v++) totals[r][v] = bias_of(s, output + LANES * v);
    }
    for (int64_t from = 0; from < s->inputs; from += s->group, scale += BLOCK) {
        const int64_t to = from + s->group < s->inputs ? from + s->group : s->inputs;
        __m512 sums[TALL][VECTORS];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < N; v++) sums[r][v] = _mm512_setzero_ps();
        w = form == EIGHT ? bytes(x, from, to, w, sums, R, N, V) : nibbles(x, from, to, w, sums, R, N, V);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < N; v++)
                totals[r][v] = _mm512_fmadd_ps(sums[r][v], _mm512_loadu_ps(scale + LANES * v), totals[r][v]);
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < N; v++)
            _mm512_mask_storeu_ps(s->y + (row + r) * s->outputs + output + LANES * v,
                                  outputs_of(s, output + LANES * v), totals[r][v]);
}

/* Codes times codes; the zero point times the weights' sums is taken off. */
INLINE void code_tile(const struct linear *s, int64_t row, int64_t block, const int first, const int R,
                      const int N, const int V) {
    __m512i sums[TALL][VECTORS];
    const uint8_t *x = s->codes + row * s->stride;
    const int64_t output = block * BLOCK + LANES * first;
    const int8_t *w = s->weights + block * s->block_bytes + 4 * LANES * first;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < N; v++)
            sums[r][v] = _mm512_mullo_epi32(_mm512_set1_epi32(TAKEN_OFF - s->zeros[row + r]),
                                            _mm512_loadu_si512(s->sums + output + LANES * v));
    for (int64_t k = 0; k < s->stride; k += 4, w += 4 * LANES * V) {
        __m512i weights[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < N; v++) weights[v] = _mm512_loadu_si512(w + 4 * LANES * v);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const __m512i codes = as_multiplied(broadcast(x + r * s->stride + k));
#pragma GCC unroll 4
            for (int v = 0; v < N; v++) dot_multiplied(&sums[r][v], codes, weights[v]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < N; v++) {
            const __m512 scale = _mm512_loadu_ps(s->scale + output + LANES * v);
            const __m512 step = _mm512_mul_ps(_mm512_set1_ps(s->steps[row + r]), scale);
            __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), step);
            if (s->bias) y = _mm512_add_ps(y, bias_of(s, output + LANES * v));
            _mm512_mask_storeu_ps(s->y + (row + r) * s->outputs + output + LANES * v,
                                  outputs_of(s, output + LANES * v), y);
        }
}

INLINE void any_tile(const struct linear *s, int64_t row, int64_t block, const int R, const int V,
                     const enum form form) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v += KEPT_VECTORS) {
        const int N = V - v < KEPT_VECTORS ? V - v : KEPT_VECTORS;
        if (form == DYNAMIC) code_tile(s, row, block, v, R, N, V);
        else real_tile(s, row, block, v, R, N, V, form);
    }
}

#define LINEAR_CASE(R, V) case 8 * R + V: any_tile(s, row, block, R, V, form); break;
#define LINEAR_CASES(R) LINEAR_CASE(R, 1) LINEAR_CASE(R, 2) LINEAR_CASE(R, 4)
INLINE void tile_of(const struct linear *s, int64_t row, int64_t block, int R, int V,
                    const enum form form) {
    switch (8 * R + V) { LINEAR_CASES(1) LINEAR_CASES(2) LINEAR_CASES(3) LINEAR_CASES(4) }
}

/* The share of one thread: tiles of rows in turn, so that a block's weights stay in the cache. */
INLINE void share(const struct linear *s, int thread, int threads, const enum form form) {
    const int64_t blocks = (s->outputs + BLOCK - 1) / BLOCK, tiles = (s->rows + TALL - 1) / TALL;
    const int64_t all = blocks * tiles, last = all * (thread + 1) / threads;
    for (int64_t i = all * thread / threads; i < last; i++) {
        const int64_t block = i / tiles, t = i % tiles, left = s->outputs - block * BLOCK;
        const int64_t row = s->rows * t / tiles, end = s->rows * (t + 1) / tiles;
        const int V = left > 2 * LANES ? VECTORS : left > LANES ? 2 : 1;
        tile_of(s, row, block, (int)(end - row), V, form);
    }
}

/* The share of one thread of a parallel region, of weights of 4 or 8 bits. */
static void share_weights(const struct linear *s, enum form form) {
    if (form == FOUR) share(s, omp_get_thread_num(), omp_get_num_threads(), FOUR);
    else share(s, omp_get_thread_num(), omp_get_num_threads(), EIGHT);
}

/* Of weights of 4 or 8 bits; 0: rows are quantized, too. */
INLINE enum form form_of(int bits) { return bits == 0 ? DYNAMIC : bits == 4 ? FOUR : EIGHT; }

/* So many inputs of a row share a scale, all of them at most; those of 4 bits fill whole lanes. */
INLINE void set_group(struct linear *s, int64_t group, enum form form) {
    s->group = group < s->inputs ? group : s->inputs;
    const int64_t groups = (s->inputs + s->group - 1) / s->group;
    const int64_t lanes = groups * ((s->group + NIBBLES - 1) / NIBBLES);
    s->block_bytes = BLOCK * (form == FOUR ? lanes * (NIBBLES / 2) : s->inputs);
}

static int useful(int threads, int64_t rows, int64_t inputs, int64_t outputs) {
    const int64_t most = rows * inputs * outputs / MULTIPLICATIONS;
    return most < 1 ? 1 : most < threads ? (int)most : threads;
}

/* Quantize a row as affine.py does: 8 bits that contain 0. A row that is not finite gives NaN. */
static void quantize_row(const struct linear *s, int64_t row) {
    const float *x = s->x + row * s->inputs;
    uint8_t *codes = s->codes + row * s->stride;
    __m512 low = _mm512_setzero_ps(), high = low, odd = low;
    for (int64_t k = 0; k < s->inputs; k += LANES) {
        const int64_t left = s->inputs - k;
        const __m512 v = _mm512_maskz_loadu_ps(left >= LANES ? 0xffff : (1u << left) - 1, x + k);
        low = _mm512_min_ps(low, v);
        high = _mm512_max_ps(high, v);
        odd = _mm512_fmadd_ps(v, _mm512_setzero_ps(), odd); /* NaN where v is not finite */
    }
    const float least = _mm512_reduce_min_ps(low), most = _mm512_reduce_max_ps(high);
    const float range = most / 255 - least / 255, step = range > FLT_MIN ? range : FLT_MIN;
    float zero = -128 - rintf(least / step);
    zero = zero < -128 ? -128 : zero > 127 ? 127 : zero;
    s->steps[row] = step + _mm512_reduce_add_ps(odd);
    s->zeros[row] = (int32_t)zero + 128;
    const __m512 steps = _mm512_set1_ps(step), zeros = _mm512_set1_ps(zero);
    for (int64_t k = 0; k < s->stride; k += LANES) {
        const int64_t left = s->inputs - k, room = s->stride - k;
        const __mmask16 read = left >= LANES ? 0xffff : left <= 0 ? 0 : (1u << left) - 1;
        const __m512 v = _mm512_div_ps(_mm512_maskz_loadu_ps(read, x + k), steps);
        __m512 code = _mm512_add_ps(nearest(v), zeros);
        code = _mm512_max_ps(_mm512_min_ps(code, _mm512_set1_ps(127)), _mm512_set1_ps(-128));
        const __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(code), _mm512_set1_epi32(128));
        store_lowest_bytes(codes + k, room >= LANES ? 0xffff : (1u << room) - 1, whole);
    }
}

/* The share of one thread of a parallel region: rows are quantized, then multiplied. */
static void multiply_rows(const struct linear *s) {
#pragma omp for
    for (int64_t row = 0; row < s->rows; row++) quantize_row(s, row);
    share(s, omp_get_thread_num(), omp_get_num_threads(), DYNAMIC);
}

/* Bytes from one row's codes to the next one's. */
INLINE int64_t stride_of(int64_t inputs) { return (inputs + 3) / 4 * 4; }

/* Bytes of what `lay` lays out for rows of so many inputs. */
INLINE size_t dynamic_bytes(int64_t rows, int64_t inputs) {
    return rows * (stride_of(inputs) + sizeof(float) + sizeof(int32_t)) + 1;
}

/* Put a layer's codes, and the scales and zero points of its rows, into so much memory. */
INLINE void lay(struct linear *s, void *memory) {
    s->stride = stride_of(s->inputs);
    s->block_bytes = s->stride * BLOCK;
    s->steps = memory;
    s->zeros = (int32_t *)(s->steps + s->rows);
    s->codes = (uint8_t *)(s->zeros + s->rows);
}
