/* A statically quantized network, step by step, on AVX-512 with VNNI, and AMX: one call per
   prediction. */
#include "step.h"
#include "interleaved.h"
#include "tiles.h"
#include "grouped.h"
#include "convolution.h"
#include "registers.h"
#include "panels.h"
#include "amx.h"
#include "depthwise.h"
#include "pointwise.h"
#include "tables.h"
#include "sums.h"
#include "quantize.h"
#include "norm.h"
#include "lines.h"
#include "attention.h"

/* What interface.py compares: the fields of both structs, their bytes, and the numbers of names. */
struct entry { const char *type, *name; int64_t number; };
#define STEP_ENTRY(type, name) {#type, #name, offsetof(struct step, name)},
#define BAND_ENTRY(type, name) {#type, #name, offsetof(struct band, name)},
#define NUMBER(name) {"enum", #name, name},

const struct entry step_entries[] = {STEP_FIELDS(STEP_ENTRY) {"bytes", "step", sizeof(struct step)}, {0}};
const struct entry band_entries[] = {BAND_FIELDS(BAND_ENTRY) {"bytes", "band", sizeof(struct band)}, {0}};
const struct entry numbers[] = {
    KINDS(NUMBER) NUMBER(INPUT) NUMBER(OUTPUT) NUMBER(RESIDUAL) NUMBER(VALUE) NUMBER(REST) NUMBER(LANES) NUMBER(BLOCK)
    NUMBER(LAST) NUMBER(REST_BITS) {0},
};

/* The next convolution after step `index`, NULL where there is none. */
static const struct step *following(const struct step *steps, int64_t count, int64_t index) {
    while (++index < count)
        if (steps[index].kind == CONVOLUTION) return &steps[index];
    return NULL;
}

/* A step on the images from `first` of a chunk on. What is passed on while a few images go through some
   steps lies where the thread's images begin, at `own`, and stays in the core's cache. */
static struct step from_image(struct step s, int64_t first, int64_t own) {
    if (s.input) s.input += (s.passing & INPUT ? own : first) * s.input_stride;
    if (s.residual) s.residual += (s.passing & RESIDUAL ? own : first) * s.residual_stride;
    if (s.value) s.value += (s.passing & VALUE ? own : first) * s.value_stride;
    if (s.rest) s.rest = (uint8_t *)s.rest + (s.passing & REST ? own : first) * s.rest_stride;
    const int64_t output = (s.passing & OUTPUT ? own : first) * s.output_stride;
    s.output = s.real ? (void *)((float *)s.output + output) : (void *)((uint8_t *)s.output + output);
    return s;
}

/* A chunk's prediction as one thread sees it. */
struct prediction {
    const struct step *steps;
    int64_t count, input_numbers;
    const float *input;
    float *output;
    uint8_t *scratch;
};

/* Step `index` on `images` images of the chunk, of which the threads take parts. */
static void take(const struct prediction *of, int index, int first, int own, int images, int thread,
                 int threads) {
    struct step s = of->steps[index];
    if (!s.output) s.output = of->output;
    s = from_image(s, first, own);
    const struct step *next = following(of->steps, of->count, index);
    const float *input = of->input + first * of->input_numbers;
    switch (s.kind) {
        case QUANTIZE: quantize(&s, input, images, thread, threads); break;
        case CONVOLUTION: case GROUPED:
            if (on_amx(&s, images, threads)) convolution_amx(&s, next, images, thread, threads, of->scratch);
            else convolution(&s, next, images, thread, threads);
            break;
        case DEPTHWISE: depthwise(&s, images, thread, threads); break;
        case MAXIMUM: maximum(&s, images, thread, threads); break;
        case LOOKUP: look_up(&s, (const uint8_t *)s.weights, images, thread, threads); break;
        case SUM: add_up(&s, images, thread, threads); break;
        case MULTIPLICATION: pointwise(&s, images, thread, threads, MULTIPLICATION); break;
        case INTERPOLATION: interpolation(&s, images, thread, threads); break;
        case GATHER: gather(&s, images, thread, threads); break;
        case NORM: norm(&s, images, thread, threads); break;
        case ATTENTION: attention(&s, images, thread, threads, of->scratch); break;
        case MEAN: pointwise(&s, images, thread, threads, MEAN); break;
        default: map_codes(&s, images, thread, threads);
    }
}

/* All steps on the images from `first` to `last`, which are one thread's own: a few images go through
   all steps that take as many at once, before the next few do. */
static void take_images(const struct prediction *of, int first, int last) {
    for (int i = 0, end; i < of->count; i = end) {
        const int at_once = of->steps[i].at_once;
        for (end = i + 1; end < of->count && of->steps[end].at_once == at_once;) end++;
        for (int image = first; image < last; image += at_once)
            for (int k = i; k < end; k++)
                take(of, k, image, first, last - image < at_once ? last - image : at_once, 0, 1);
    }
}

/* Whether each thread takes images of its own, and waits for none: where none gets many more. */
static int takes_whole_images(int images, int threads) {
    return images % threads == 0 || images >= 4 * threads;
}

static int multiplies(const struct step *s) {
    return s->kind == CONVOLUTION || s->kind == GROUPED || s->kind == DEPTHWISE || s->kind == ATTENTION;
}

/* The bytes of scratch memory that each thread needs for these steps. */
int64_t scratch_bytes(const struct step *steps, int64_t count) {
    int64_t most = BLOCK;
    for (int64_t i = 0; i < count; i++) {
        const struct step *s = &steps[i];
        const int64_t bytes = s->kind == ATTENTION ? group_of(s, NULL).bytes : copied_bytes(s);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Predict `images` images, at most `chunk` at a time; return how many steps multiplied codes. Each thread has
   `scratch_each` bytes of `scratch`. */
int64_t run(const struct step *steps, int64_t count, const float *input, float *output, uint8_t *scratch,
            int64_t scratch_each, int64_t images, int64_t chunk, int64_t input_numbers,
            int64_t output_numbers, int most_threads) {
    int64_t kernels = 0;
#pragma omp parallel num_threads(most_threads) reduction(+ : kernels)
    for (int64_t first = 0; first < images; first += chunk) {
        const int some = (int)(images - first < chunk ? images - first : chunk);
        const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
        const struct prediction of = {
            steps, count, input_numbers, input + first * input_numbers, output + first * output_numbers,
            scratch + thread * scratch_each,
        };
        if (takes_whole_images(some, threads)) {
            take_images(&of, some * thread / threads, some * (thread + 1) / threads);
#pragma omp barrier
        } else {
            for (int i = 0; i < count; i++) {
                take(&of, i, 0, 0, some, thread, threads);
#pragma omp barrier
            }
        }
        for (int i = 0; i < count && thread == 0; i++) kernels += multiplies(&steps[i]);
    }
    return kernels;
}
