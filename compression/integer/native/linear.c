/* Linear layers whose weights are codes. */
#include "linear.h"

/* y (rows, outputs) = x (rows, inputs) times weights of `bits` (4 or 8) each, plus the bias.

   `scale` is [block][group][64]; `group` inputs share one. */
void linear_weights(const float *x, const int8_t *weights, const float *scale, const float *bias,
                    float *y, int64_t rows, int64_t inputs, int64_t outputs, int64_t group, int bits,
                    int threads) {
    struct linear s = {.x = x, .weights = weights, .scale = scale, .bias = bias, .y = y, .rows = rows,
        .inputs = inputs, .outputs = outputs};
    set_group(&s, group, form_of(bits));
#pragma omp parallel num_threads(useful(threads, rows, inputs, outputs))
    share_weights(&s, form_of(bits));
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
