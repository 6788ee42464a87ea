/* A statically quantized network, step by step, on AVX-512 with VNNI: one call per prediction. */
#include "step.h"
#include "interleaved.h"
#include "convolution.h"
#include "depthwise.h"
#include "pointwise.h"
#include "tables.h"
#include "quantize.h"
#include "rows.h"

/* Whether this CPU runs what this file was compiled for. */
int supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* What interface.py compares: the fields of both structs, their bytes, and the numbers of names. */
struct entry { const char *type, *name; int64_t number; };
#define STEP_ENTRY(type, name) {#type, #name, offsetof(struct step, name)},
#define BAND_ENTRY(type, name) {#type, #name, offsetof(struct band, name)},
#define NUMBER(name) {"enum", #name, name},

const struct entry step_entries[] = {STEP_FIELDS(STEP_ENTRY) {"bytes", "step", sizeof(struct step)}, {0}};
const struct entry band_entries[] = {BAND_FIELDS(BAND_ENTRY) {"bytes", "band", sizeof(struct band)}, {0}};
const struct entry numbers[] = {KINDS(NUMBER) NUMBER(LANES) NUMBER(BLOCK) NUMBER(LAST) {0}};

static void take(const struct step *s, const float *input, int images, int thread, int threads,
                 uint8_t *scratch) {
    switch (s->kind) {
        case QUANTIZE: quantize(s, input, images, thread, threads); break;
        case CONVOLUTION: convolution(s, images, thread, threads); break;
        case DEPTHWISE: depthwise(s, images, thread, threads); break;
        case MAXIMUM: maximum(s, images, thread, threads); break;
        case LOOKUP: look_up(s, (const uint8_t *)s->weights, images, thread, threads); break;
        case MULTIPLICATION: pointwise(s, images, thread, threads, MULTIPLICATION); break;
        case INTERPOLATION: interpolation(s, images, thread, threads); break;
        case GATHER: gather(s, images, thread, threads); break;
        case NORM: norm(s, images, thread, threads); break;
        case ATTENTION: attention(s, images, thread, threads, scratch); break;
        case MEAN: pointwise(s, images, thread, threads, MEAN); break;
        default: map_codes(s, images, thread, threads);
    }
}

/* Predict `images` images, at most `chunk` at a time; return how many steps ran on VNNI. Each thread has
   `scratch_each` bytes of `scratch`. */
int64_t run(const struct step *steps, int64_t count, const float *input, float *output, uint8_t *scratch,
            int64_t scratch_each, int64_t images, int64_t chunk, int64_t input_numbers,
            int64_t output_numbers, int threads) {
    int64_t kernels = 0;
#pragma omp parallel num_threads(threads) reduction(+ : kernels)
    for (int64_t first = 0; first < images; first += chunk) {
        const int some = (int)(images - first < chunk ? images - first : chunk);
        for (int i = 0; i < count; i++) {
            struct step s = steps[i];
            if (!s.output) s.output = output + first * output_numbers;
            const int thread = omp_get_thread_num();
            take(&s, input + first * input_numbers, some, thread, omp_get_num_threads(),
                 scratch + thread * scratch_each);
            if (thread == 0)
                kernels += s.kind == CONVOLUTION || s.kind == DEPTHWISE || s.kind == ATTENTION;
#pragma omp barrier
        }
    }
    return kernels;
}
