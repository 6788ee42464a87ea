/* Embeddings whose rows are codes: those that are looked up become real numbers. */
#include "step.h"

enum { NUMBERS = 1 << 15 }; /* that pay for another thread */

/* As embedding.py packs it, behind one pointer: each argument costs time. `group` columns of a row share
   a scale, [row][group]. After the scales lie codes [row][column], of 8 bits, or of 4 in whole vectors. */
struct table {
    int64_t rows, columns, group, bits;
    float scale[];
};

/* 16 codes of 8 bits as numbers. */
INLINE __m512 eight(const int8_t *codes, __mmask16 mask) {
    return _mm512_cvtepi32_ps(widened_signed(codes, mask));
}

/* 16 codes of 4 bits as numbers: those of even columns in the first 32 of 64 bits. A permutation looks up
   what a code is, by the lowest 4 bits of a lane. */
INLINE __m512 four(const int8_t *codes) {
    const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
    const __m512i all = broadcast_8(codes);
    return nibble_numbers(_mm512_srlv_epi32(all, shifts));
}

/* y = a row of codes of `bits` times its scales. */
static void look_up(const int8_t *codes, const float *scale, float *y, int64_t columns, int64_t group,
                    const int bits) {
    /* Columns whose vectors have the same scales. */
    const int64_t run = group % LANES && group < columns ? LANES : group;
    for (int64_t from = 0, next = group; from < columns; from += run) {
        const int64_t end = from + run < columns ? from + run : columns;
        __m512 scales = _mm512_set1_ps(*scale);
        for (; next < from + LANES && next < columns; next += group)
            scales = _mm512_mask_mov_ps(scales, 0xffff << (next - from), _mm512_set1_ps(*++scale));
        for (int64_t k = from; k < end; k += LANES, codes += bits * LANES / 8) {
            const __mmask16 mask = end - k < LANES ? (1u << (end - k)) - 1 : 0xffff;
            const __m512 numbers = bits == 4 ? four(codes) : eight(codes, mask);
            _mm512_mask_storeu_ps(y + k, mask, _mm512_mul_ps(numbers, scales));
        }
    }
}

INLINE void prefetch(const void *from, int64_t bytes) {
    for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch((const char *)from + b, 0, 3);
}

/* The rows of a table at the indices from `first` to `last`. 0: one of them lies outside of it. */
static int share(const struct table *t, const int64_t *indices, float *y, int64_t first, int64_t last) {
    const int64_t columns = t->columns, group = t->group, groups = (columns + group - 1) / group;
    const int64_t bytes = t->bits == 4 ? (columns + LANES - 1) / LANES * (LANES / 2) : columns;
    const int8_t *codes = (const int8_t *)(t->scale + t->rows * groups);
    for (int64_t i = first; i < last; i++) {
        const int64_t row = indices[i], next = i + 1 < last ? indices[i + 1] : row;
        if (row < 0 || row >= t->rows || next < 0 || next >= t->rows) return 0;
        prefetch(codes + next * bytes, bytes);
        prefetch(t->scale + next * groups, groups * sizeof(float));
        const int8_t *from = codes + row * bytes;
        if (t->bits == 4) look_up(from, t->scale + row * groups, y + i * columns, columns, group, 4);
        else look_up(from, t->scale + row * groups, y + i * columns, columns, group, 8);
    }
    return 1;
}

/* y (count, columns) = the rows of a table at `indices`. 0: one of them lies outside of it. */
int embedding(const struct table *t, const int64_t *indices, float *y, int64_t count, int64_t threads) {
    const int64_t most = count * t->columns / NUMBERS;
    if (most < 2 || threads < 2) return share(t, indices, y, 0, count); /* no team: it costs time */
    int inside = 1;
#pragma omp parallel num_threads(most < threads ? most : threads) reduction(& : inside)
    {
        const int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
        inside = share(t, indices, y, count * thread / all, count * (thread + 1) / all);
    }
    return inside;
}
