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

static void take(const struct step *s, const struct step *next, const float *input, int images, int thread,
                 int threads, uint8_t *scratch) {
    switch (s->kind) {
        case QUANTIZE: quantize(s, input, images, thread, threads); break;
        case CONVOLUTION: convolution(s, next, images, thread, threads); break;
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

/* The next convolution after step `index`, NULL where there is none. */
static const struct step *following(const struct step *steps, int64_t count, int64_t index) {
    while (++index < count)
        if (steps[index].kind == CONVOLUTION) return &steps[index];
    return NULL;
}

/* A step on the images from `first` of a chunk on. */
static struct step from_image(struct step s, int64_t first) {
    if (s.input) s.input += first * s.input_stride;
    if (s.residual) s.residual += first * s.residual_stride;
    if (s.value) s.value += first * s.value_stride;
    s.output = s.real ? (void *)((float *)s.output + first * s.output_stride)
                      : (void *)((uint8_t *)s.output + first * s.output_stride);
    return s;
}

/* Whether each thread takes images of its own, and waits for none: where none gets many more. */
static int takes_whole_images(int images, int threads) {
    return images % threads == 0 || images >= 4 * threads;
}

/* Predict `images` images, at most `chunk` at a time; return how many steps ran on VNNI. Each thread has
   `scratch_each` bytes of `scratch`. */
int64_t run(const struct step *steps, int64_t count, const float *input, float *output, uint8_t *scratch,
            int64_t scratch_each, int64_t images, int64_t chunk, int64_t input_numbers,
            int64_t output_numbers, int most_threads) {
    int64_t kernels = 0;
#pragma omp parallel num_threads(most_threads) reduction(+ : kernels)
    for (int64_t first = 0; first < images; first += chunk) {
        const int some = (int)(images - first < chunk ? images - first : chunk);
        const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
        const int whole = takes_whole_images(some, threads);
        const int mine = whole ? some * thread / threads : 0;
        const int count_mine = whole ? some * (thread + 1) / threads - mine : some;
        for (int i = 0; i < count; i++) {
            struct step s = steps[i];
            if (!s.output) s.output = output + first * output_numbers;
            s = from_image(s, mine);
            take(&s, following(steps, count, i), input + (first + mine) * input_numbers, count_mine,
                 whole ? 0 : thread, whole ? 1 : threads, scratch + thread * scratch_each);
            if (thread == 0)
                kernels += s.kind == CONVOLUTION || s.kind == DEPTHWISE || s.kind == ATTENTION;
            if (!whole || i == count - 1) {
#pragma omp barrier
            }
        }
    }
    return kernels;
}
