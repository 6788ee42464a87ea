/* LSTM, GRU and RNN: at each step the hidden state, real or quantized, is multiplied with codes. */
#include "linear.h"
#include "gates.h"

enum cell { LSTM, GRU, RNN_TANH, RNN_RELU }; /* recurrent.py */

/* One direction of one layer. `products` are of the hidden states, `projections` of what the gates
   let out, where an LSTM has any: their x, then, is not the hidden states. */
struct recurrent {
    enum cell cell;
    const float *inputs; /* products of the inputs of all steps, with their bias */
    float *hidden, *cells, *outputs;
    int64_t units, width; /* of the cells; of the hidden states */
    enum form form;
    struct linear products, projections;
};

/* The sums of both products, 16 of them from `at` on. */
INLINE __m512 gate_of(const float *x, const float *h, int64_t at, __mmask16 mask) {
    return _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + at), _mm512_maskz_loadu_ps(mask, h + at));
}

INLINE __m512 lstm(const float *x, const float *h, float *cells, int64_t n, int64_t k, __mmask16 mask) {
    const __m512 in = sigmoid(gate_of(x, h, k, mask)), forget = sigmoid(gate_of(x, h, n + k, mask));
    const __m512 new = tangent(gate_of(x, h, 2 * n + k, mask));
    const __m512 out = sigmoid(gate_of(x, h, 3 * n + k, mask));
    const __m512 kept = _mm512_mul_ps(forget, _mm512_maskz_loadu_ps(mask, cells + k));
    const __m512 sum = _mm512_add_ps(kept, _mm512_mul_ps(in, new));
    _mm512_mask_storeu_ps(cells + k, mask, sum);
    return _mm512_mul_ps(out, tangent(sum));
}

INLINE __m512 gru(const float *x, const float *h, const float *hidden, int64_t n, int64_t k,
                  __mmask16 mask) {
    const __m512 reset = sigmoid(gate_of(x, h, k, mask)), update = sigmoid(gate_of(x, h, n + k, mask));
    const __m512 again = _mm512_mul_ps(reset, _mm512_maskz_loadu_ps(mask, h + 2 * n + k));
    const __m512 new = tangent(_mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + 2 * n + k), again));
    const __m512 change = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, hidden + k), new);
    return _mm512_add_ps(new, _mm512_mul_ps(update, change));
}

/* The gates of one row: `x` and `h` are its products, and `y` is what they let out. */
static void gates(const struct recurrent *s, const float *x, const float *h, int64_t row, float *y) {
    const int64_t n = s->units;
    for (int64_t k = 0; k < n; k += LANES) {
        const __mmask16 mask = lanes((int)n, (int)k);
        __m512 new;
        if (s->cell == LSTM) new = lstm(x, h, s->cells + row * n, n, k, mask);
        else if (s->cell == GRU) new = gru(x, h, s->hidden + row * n, n, k, mask);
        else if (s->cell == RNN_TANH) new = tangent(gate_of(x, h, k, mask));
        else new = _mm512_max_ps(_mm512_setzero_ps(), gate_of(x, h, k, mask));
        _mm512_mask_storeu_ps(y + k, mask, new);
    }
}

/* The share of one thread of a product of all its rows. */
static void multiply_all(const struct linear *s, enum form form) {
    if (form == DYNAMIC) multiply_rows(s);
    else share_weights(s, form);
}

/* The share of one thread of a step of `rows` rows, the first of which is row `first` of all. */
static void step_of(struct recurrent *s, int64_t first, int64_t rows) {
    const int64_t wide = s->products.outputs;
    s->products.rows = s->projections.rows = rows;
    multiply_all(&s->products, s->form);
#pragma omp barrier
#pragma omp for
    for (int64_t row = 0; row < rows; row++) {
        float *out = s->projections.weights ? (float *)s->projections.x : s->hidden;
        gates(s, s->inputs + (first + row) * wide, s->products.y + row * wide, row, out + row * s->units);
    }
    if (s->projections.weights) multiply_all(&s->projections, s->form);
#pragma omp barrier
#pragma omp for
    for (int64_t row = 0; row < rows; row++)
        memcpy(s->outputs + (first + row) * s->width, s->hidden + row * s->width, s->width * sizeof(float));
}

static void *with_memory(struct recurrent *s, int64_t rows) {
    const size_t floats = rows * (s->products.outputs + s->units) * sizeof(float);
    const size_t codes = dynamic_bytes(rows, s->width), more = dynamic_bytes(rows, s->units);
    char *memory = malloc(s->form == DYNAMIC ? floats + (codes + 3) / 4 * 4 + more : floats);
    if (!memory) return NULL;
    s->products.y = (float *)memory;
    s->projections.x = s->products.y + rows * s->products.outputs;
    if (s->form != DYNAMIC) return memory;
    lay(&s->products, memory + floats);
    lay(&s->projections, memory + floats + (codes + 3) / 4 * 4);
    return memory;
}

/* Run `steps` of sizes[0] >= sizes[1] >= ... rows each, the last one first where `backward`; the
   states (rows, channels) are replaced by the last ones. Weights of `bits` (4 or 8), `group` of which
   share a scale, are packed as for linear_weights; of 0 bits, and with sums, as for linear_dynamic.
   Those that project may be NULL. 0: no memory. */
int recurrent(int cell, int bits, int64_t group, const float *inputs, const int8_t *weights,
              const int32_t *sums, const float *scale, const float *bias, const int8_t *project,
              const int32_t *project_sums, const float *project_scale, const int64_t *sizes,
              int64_t steps, int backward, float *hidden, float *cells, float *outputs,
              int64_t units, int64_t width, int threads) {
    const int64_t rows = sizes[0], wide = units * (cell == LSTM ? 4 : cell == GRU ? 3 : 1);
    struct recurrent s = {.cell = cell, .inputs = inputs, .hidden = hidden, .cells = cells,
        .outputs = outputs, .units = units, .width = width, .form = form_of(bits),
        .products = {.x = hidden, .weights = weights, .sums = sums, .scale = scale, .bias = bias,
            .rows = rows, .inputs = width, .outputs = wide},
        .projections = {.weights = project, .sums = project_sums, .scale = project_scale, .y = hidden,
            .rows = rows, .inputs = units, .outputs = width}};
    set_group(&s.products, group, s.form);
    set_group(&s.projections, group, s.form);
    void *memory = with_memory(&s, rows);
    if (!memory) return 0;
    int64_t all = 0;
    for (int64_t i = 0; i < steps; i++) all += sizes[i];
#pragma omp parallel num_threads(useful(threads, rows, width, wide))
    {
        struct recurrent own = s; /* its numbers of rows are each thread's */
        int64_t first = backward ? all : 0;
        for (int64_t i = 0; i < steps; i++) {
            const int64_t size = sizes[backward ? steps - 1 - i : i];
            if (backward) first -= size;
            step_of(&own, first, size);
            if (!backward) first += size;
        }
    }
    free(memory);
    return 1;
}
