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
#include "balance.h"
#include "queue.h"

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
    const struct balance *balance; /* NULL: all of each step */
    int thread, threads;
};

static struct portion mine(const struct prediction *of, int64_t index) {
    return of->balance ? portion_of(of->balance, index, of->thread, of->threads) : (struct portion){0, WHOLE, 1};
}

static struct following following(const struct prediction *of, int64_t index) {
    while (++index < of->count)
        if (of->steps[index].kind == CONVOLUTION) return (struct following){&of->steps[index], mine(of, index)};
    return (struct following){0};
}

/* A portion of step `index` on `images` images of the chunk. */
static void take(const struct prediction *of, int index, int first, int own, int images) {
    struct step s = of->steps[index];
    if (!s.output) s.output = of->output;
    s = from_image(s, first, own);
    const struct portion portion = mine(of, index);
    const struct following next = following(of, index);
    const float *input = of->input + first * of->input_numbers;
    switch (s.kind) {
        case QUANTIZE: quantize(&s, input, images, portion); break;
        case CONVOLUTION: case GROUPED:
            if (on_amx(&s, images, portion.threads)) convolution_amx(&s, &next, images, portion, of->scratch);
            else convolution(&s, &next, images, portion);
            break;
        case DEPTHWISE: depthwise(&s, images, portion); break;
        case MAXIMUM: maximum(&s, images, portion); break;
        case LOOKUP: look_up(&s, (const uint8_t *)s.weights, images, portion); break;
        case SUM: add_up(&s, images, portion); break;
        case MULTIPLICATION: pointwise(&s, images, portion, MULTIPLICATION); break;
        case INTERPOLATION: interpolation(&s, images, portion); break;
        case GATHER: gather(&s, images, portion); break;
        case NORM: norm(&s, images, portion); break;
        case ATTENTION: attention(&s, images, portion, of->scratch); break;
        case MEAN: pointwise(&s, images, portion, MEAN); break;
        default: map_codes(&s, images, portion);
    }
}

/* All steps on a chunk's images: a few images go through all steps that take as many at once, before the next
   few do. What only these need lies where the thread's own images begin, and has room for `each`. */
static void take_images(const struct prediction *of, struct queue queue, struct queue later) {
    const int thread = of->thread, own = first_of(&queue, thread), each = queue.images / queue.threads;
    refill(&queue, thread);
    for (int i = 0, end; i < of->count; i = end) {
        const int at_once = of->steps[i].at_once, most = at_once < each ? at_once : each;
        for (end = i + 1; end < of->count && of->steps[end].at_once == at_once;) end++;
#pragma omp barrier
        for (int first, images; (images = take_next(&queue, thread, most, &first));)
            for (int k = i; k < end; k++) take(of, k, first, own, images);
        const struct queue taken = queue;
        refill(&later, thread);
        queue = later, later = taken;
    }
#pragma omp barrier
}

/* Whether threads take whole images, and wait for one another at few steps: where none has many more. */
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

/* In how many pieces threads take a step of so many images. */
static int64_t units_of(const struct step *s, int images, int threads) {
    if (s->kind == QUANTIZE || s->kind == ATTENTION) return (int64_t)images * (s->pixels / s->width);
    const int convolves = s->kind == CONVOLUTION || s->kind == GROUPED;
    return convolves && shares_slices(s, images, threads) ? slices_of(s) : (int64_t)images * s->pixels;
}

/* Move the edges of all steps by the times of what was watched; those are forgotten. */
static void rebalance(const struct balance *b, const struct step *steps, int images) {
    for (int64_t i = 0; i < b->steps; i++) {
        const int64_t units = units_of(&steps[i], images, b->threads);
        move_edges(b->edges + i * (b->threads + 1), b->busy + i, b->apart, b->threads, units);
        for (int t = 0; t < b->threads; t++) b->busy[b->apart * t + i] = 0;
    }
}

/* A thread's portion of each step, whose time is noted where it is watched. */
static void take_portions(const struct prediction *of, int images, int watched) {
    for (int i = 0; i < of->count; i++) {
        const int64_t since = watched ? now() : 0;
        take(of, i, 0, 0, images);
        if (watched) note_time(of->balance, i, of->thread, since);
#pragma omp barrier
    }
}

/* The numbers of the memory that so many threads share. */
int64_t team_numbers(int64_t steps, int threads) { return balance_numbers(steps, threads) + 2 * APART * threads; }

/* Predict `images` images, at most `chunk` at a time; return how many steps multiplied codes. Each thread has
   `scratch_each` bytes of `scratch`; `memory` is the team's. */
int64_t run(const struct step *steps, int64_t count, const float *input, float *output, uint8_t *scratch,
            int64_t scratch_each, int64_t images, int64_t chunk, int64_t input_numbers,
            int64_t output_numbers, int64_t *memory, int most_threads) {
    const struct balance balance = balance_of(memory, count, most_threads);
    int64_t *queues = memory + balance_numbers(count, most_threads);
    int64_t kernels = 0;
#pragma omp parallel num_threads(most_threads) reduction(+ : kernels)
    for (int64_t first = 0; first < images; first += chunk) {
        const int some = (int)(images - first < chunk ? images - first : chunk);
        const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
        struct prediction of = {
            steps, count, input_numbers, input + first * input_numbers, output + first * output_numbers,
            scratch + thread * scratch_each, NULL, thread, threads,
        };
        if (takes_whole_images(some, threads)) {
            const struct queue queue = {queues, some, threads}, later = {queues + APART * threads, some, threads};
            take_images(&of, queue, later);
        } else {
            of.balance = &balance;
            take_portions(&of, some, !first);
        }
        for (int i = 0; i < count && thread == 0; i++) kernels += multiplies(&steps[i]);
    }
    if (++*balance.predictions % WATCHED == 0) rebalance(&balance, steps, (int)(images < chunk ? images : chunk));
    return kernels;
}
