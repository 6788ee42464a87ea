/* What multiplies no matrices: one pixel's channels at a time. */

/* One filter per channel; weights are packed as [run][channel]. */
INLINE __m512 depthwise(const struct step *s, const uint8_t *x, int channel, __mmask16 mask) {
    __m512i sums = _mm512_loadu_si512(s->bias + channel);
    const int8_t *w = s->weights + channel;
    for (int run = 0; run < s->runs; run++, w += s->channels) {
        const __m512i weights = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, w));
        const __m512i codes = widened(x + s->run_offsets[run], mask);
        sums = _mm512_add_epi32(sums, _mm512_mullo_epi32(codes, weights));
    }
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(s->multiplier + channel));
}

/* The largest code of a window, 64 channels at a time. */
static void maximum(const struct step *s, int images, int thread, int threads) {
    const int64_t total = (int64_t)images * s->pixels;
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const struct place at = place_of(s, i / s->pixels, i % s->pixels);
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            const int left = s->channels - channel;
            const __mmask64 mask = left >= BLOCK ? ~0ull : (1ull << left) - 1;
            const uint8_t *x = s->input + at.input + channel;
            __m512i largest = _mm512_setzero_si512();
            for (int run = 0; run < s->runs; run++)
                largest = _mm512_max_epu8(largest, _mm512_maskz_loadu_epi8(mask, x + s->run_offsets[run]));
            _mm512_mask_storeu_epi8((uint8_t *)s->output + at.output + channel, mask, largest);
        }
    }
}

/* The mean over runs of `groups` pixels; the sum is exact. */
INLINE __m512 mean(const struct step *s, const uint8_t *x, __mmask16 mask) {
    __m512i sums = _mm512_setzero_si512();
    for (int run = 0; run < s->runs; run++)
        for (int i = 0; i < s->groups; i++)
            sums = _mm512_add_epi32(sums, widened(x + s->run_offsets[run] + i * s->width, mask));
    const int32_t count = s->runs * s->groups;
    const __m512i left = _mm512_sub_epi32(sums, _mm512_set1_epi32(count * s->input_zero));
    const __m512 means = _mm512_div_ps(_mm512_cvtepi32_ps(left), _mm512_set1_ps((float)count));
    return _mm512_mul_ps(means, _mm512_set1_ps(s->input_scale));
}

INLINE __m512 map(const struct step *s, const uint8_t *x, __mmask16 mask) {
    const __m512i left = _mm512_sub_epi32(widened(x, mask), _mm512_set1_epi32(s->input_zero));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(left), _mm512_set1_ps(s->input_scale));
}

INLINE void pointwise(const struct step *s, int images, int thread, int threads, const int kind) {
    const int64_t total = (int64_t)images * s->pixels;
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const struct place at = place_of(s, i / s->pixels, i % s->pixels);
        for (int channel = 0; channel < s->channels; channel += LANES) {
            const uint8_t *x = s->input + at.input + channel;
            const __mmask16 mask = lanes(s, channel);
            const __m512 y = kind == DEPTHWISE ? depthwise(s, x, channel, mask)
                           : kind == MEAN      ? mean(s, x, mask)
                                               : map(s, x, mask);
            finish(s, at, channel, y);
        }
    }
}

/* The product of two codes, each as far from its zero: exact before it is scaled. */
static void multiplication(const struct step *s, int images, int thread, int threads) {
    const int64_t total = (int64_t)images * s->pixels;
    const __m512i zero = _mm512_set1_epi32(s->input_zero), other_zero = _mm512_set1_epi32(s->residual_zero);
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const struct place at = place_of(s, i / s->pixels, i % s->pixels);
        for (int channel = 0; channel < s->channels; channel += LANES) {
            const __mmask16 mask = lanes(s, channel);
            const __m512i x = _mm512_sub_epi32(widened(s->input + at.input + channel, mask), zero);
            const __m512i y = _mm512_sub_epi32(widened(s->residual + at.residual + channel, mask), other_zero);
            const __m512 product = _mm512_cvtepi32_ps(_mm512_mullo_epi32(x, y));
            store(s, at, channel, mask, _mm512_mul_ps(product, _mm512_set1_ps(s->input_scale)));
        }
    }
}

/* Four neighbours, times weights in units of 2^-11 by column and by row: exact before it is scaled.
   `bias` holds those of each column, left and right, and then those of each row, above and below. */
static void interpolation(const struct step *s, int images, int thread, int threads) {
    const int64_t total = (int64_t)images * s->pixels;
    const __m512i start = _mm512_set1_epi32(-s->input_zero * (1 << 22));
    const __m512 unit = _mm512_set1_ps(1.0f / (1 << 22)), scale = _mm512_set1_ps(s->input_scale);
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const int64_t pixel = i % s->pixels;
        const struct place at = place_of(s, i / s->pixels, pixel);
        const int32_t *column = s->bias + 2 * (pixel % s->width);
        const int32_t *row = s->bias + 2 * (s->width + pixel / s->width);
        for (int channel = 0; channel < s->channels; channel += LANES) {
            const __mmask16 mask = lanes(s, channel);
            __m512i sums = start;
            for (int tap = 0; tap < s->runs; tap++) {
                const __m512i x = widened(s->input + at.input + channel + s->run_offsets[tap], mask);
                const __m512i weight = _mm512_set1_epi32(row[tap / 2] * column[tap % 2]);
                sums = _mm512_add_epi32(sums, _mm512_mullo_epi32(x, weight));
            }
            const __m512 codes = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), unit);
            finish(s, at, channel, _mm512_mul_ps(codes, scale));
        }
    }
}

/* Each code's entry of a table of 256; weights hold the table. */
static void look_up_each(const struct step *s, int images, int thread, int threads) {
    const int64_t total = (int64_t)images * s->pixels;
    const uint8_t *table = (const uint8_t *)s->weights;
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const struct place at = place_of(s, i / s->pixels, i % s->pixels);
        const uint8_t *x = s->input + at.input;
        uint8_t *y = (uint8_t *)s->output + at.output;
        for (int channel = 0; channel < s->channels; channel++) y[channel] = table[x[channel]];
    }
}

/* The same, 64 codes at a time: the table lies in four vectors. */
__attribute__((target("avx512vbmi")))
static void look_up_64(const struct step *s, int images, int thread, int threads) {
    const int64_t total = (int64_t)images * s->pixels;
    __m512i table[4];
    for (int part = 0; part < 4; part++) table[part] = _mm512_loadu_si512(s->weights + 64 * part);
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const struct place at = place_of(s, i / s->pixels, i % s->pixels);
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            const int left = s->channels - channel;
            const __mmask64 mask = left >= BLOCK ? ~0ull : (1ull << left) - 1;
            const __m512i x = _mm512_maskz_loadu_epi8(mask, s->input + at.input + channel);
            const __m512i low = _mm512_permutex2var_epi8(table[0], x, table[1]);
            const __m512i high = _mm512_permutex2var_epi8(table[2], x, table[3]);
            const __m512i found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
            _mm512_mask_storeu_epi8((uint8_t *)s->output + at.output + channel, mask, found);
        }
    }
}

static void lookup(const struct step *s, int images, int thread, int threads) {
    if (__builtin_cpu_supports("avx512vbmi")) look_up_64(s, images, thread, threads);
    else look_up_each(s, images, thread, threads);
}

/* Codes put elsewhere, one by one. */
static void gather(const struct step *s, int images, int thread, int threads) {
    const int64_t total = (int64_t)images * s->pixels;
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const int64_t pixel = i % s->pixels;
        const struct place at = place_of(s, i / s->pixels, pixel);
        const int32_t *taps = s->run_offsets + pixel * s->width;
        const uint8_t *x = s->input + at.input;
        uint8_t *y = (uint8_t *)s->output + at.output;
        for (int channel = 0; channel < s->channels; channel++) y[channel] = x[taps[channel]];
    }
}

/* Rows of the real input (NCHW) -> codes (NHWC); what is not a number counts as 0. */
static void quantize(const struct step *s, const float *input, int images, int thread, int threads) {
    const int64_t height = s->pixels / s->width, total = images * height;
    const __m512 scale = _mm512_set1_ps(s->input_scale);
    for (int64_t i = total * thread / threads; i < total * (thread + 1) / threads; i++) {
        const int64_t image = i / height, first = i % height * s->width;
        for (int c = 0; c < s->channels; c++) {
            const float *x = input + (image * s->channels + c) * s->plane + first;
            uint8_t *y = (uint8_t *)s->output + image * s->output_stride
                       + s->output_offsets[first] + c;
            for (int64_t at = 0; at < s->width; at += LANES) {
                const int left = s->width - at < LANES ? (int)(s->width - at) : LANES;
                const __mmask16 mask = left == LANES ? 0xffff : (1u << left) - 1;
                const __m512 reals = _mm512_maskz_loadu_ps(mask, x + at);
                const __mmask16 numbers = _mm512_cmp_ps_mask(reals, reals, _CMP_ORD_Q);
                __m512 steps = _mm512_maskz_div_ps(numbers, reals, scale);
                steps = _mm512_max_ps(_mm512_min_ps(steps, _mm512_set1_ps(1e6f)), _mm512_set1_ps(-1e6f));
                __m512i codes = _mm512_cvtps_epi32(steps);
                codes = _mm512_add_epi32(codes, _mm512_set1_epi32(s->output_zero));
                codes = _mm512_max_epi32(codes, _mm512_setzero_si512());
                uint8_t found[LANES];
                _mm_storeu_si128((__m128i *)found, _mm512_cvtusepi32_epi8(codes));
                for (int j = 0; j < left; j++) y[(at + j) * s->channels] = found[j];
            }
        }
    }
}
