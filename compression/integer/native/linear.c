/* Linear layers whose weights are codes. */
#include "linear.h"

/* y (rows, outputs) = x (rows, inputs) times weights of `bits` (4 or 8) each, plus the bias.

   `scale` is [block][group][64]; `group` inputs share one, and those of 4 bits fill whole lanes. */
void linear_weights(const float *x, const int8_t *weights, const float *scale, const float *bias,
                    float *y, int64_t rows, int64_t inputs, int64_t outputs, int64_t group,
                    int64_t block_bytes, int bits, int threads) {
    const struct linear s = {.x = x, .weights = weights, .scale = scale, .bias = bias, .y = y, .rows = rows,
        .inputs = inputs, .outputs = outputs, .group = group, .block_bytes = block_bytes};
#pragma omp parallel num_threads(useful(threads, rows, inputs, outputs))
    if (bits == 4) share(&s, omp_get_thread_num(), omp_get_num_threads(), FOUR);
    else share(&s, omp_get_thread_num(), omp_get_num_threads(), EIGHT);
}

/* y = the product of rows quantized to 8 bits with weights [block][4 inputs][output][4]; 0: no memory. */
int linear_dynamic(const float *x, const int8_t *weights, const int32_t *sums, const float *scale,
                   const float *bias, float *y, int64_t rows, int64_t inputs, int64_t outputs,
                   int threads) {
    struct linear s = {.x = x, .weights = weights, .scale = scale, .bias = bias, .y = y, .rows = rows,
        .inputs = inputs, .outputs = outputs, .sums = sums};
    void *memory = malloc(dynamic_bytes(rows, inputs));
    if (!memory) return 0;
    lay(&s, memory);
#pragma omp parallel num_threads(useful(threads, rows, inputs, outputs))
    multiply_rows(&s);
    free(memory);
    return 1;
}
