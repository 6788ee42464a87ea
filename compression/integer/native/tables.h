/* Codes looked up or put elsewhere, as they are: 64 at a time where the CPU permutes bytes. */

/* Each code's entry of a table of 256. */
static void look_up_each(const struct step *s, const uint8_t *table, int images, struct portion portion) {
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        const uint8_t *x = s->input + at.input;
        uint8_t *y = (uint8_t *)s->output + at.output;
        for (int channel = 0; channel < s->channels; channel++) y[channel] = table[x[channel]];
    }
}

/* Some channels' codes put elsewhere, one by one. */
static void gather_each(const struct step *s, int first, int end, int images, struct portion portion) {
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        const int32_t *taps = s->run_offsets + on.pixel * s->width;
        const uint8_t *x = s->input + at.input;
        uint8_t *y = (uint8_t *)s->output + at.output;
        for (int channel = first; channel < end; channel++) y[channel] = x[taps[channel]];
    }
}

/* Up to 64 taps as places in two spans of 64 codes: shuffled halves, parts of a pixel. */
struct spans { int32_t first, second; __mmask64 of_first, of_second; uint8_t places[BLOCK]; };

static int in_two_spans(const int32_t *taps, int count, struct spans *spans) {
    int32_t first = taps[0], second = INT32_MAX;
    for (int c = 1; c < count; c++) first = taps[c] < first ? taps[c] : first;
    for (int c = 0; c < count; c++)
        if (taps[c] - first >= BLOCK && taps[c] < second) second = taps[c];
    *spans = (struct spans){.first = first, .second = second == INT32_MAX ? first : second};
    for (int c = 0; c < count; c++) {
        const int in_first = taps[c] - first < BLOCK;
        const int32_t place = taps[c] - (in_first ? first : second);
        if (place >= BLOCK) return 0;
        *(in_first ? &spans->of_first : &spans->of_second) |= 1ull << place;
        spans->places[c] = (uint8_t)(place + (in_first ? 0 : BLOCK));
    }
    return 1;
}

#if defined(PERMUTED)
/* The same, 64 codes at a time: the table lies in four vectors. */
PERMUTED static void look_up_64(const struct step *s, const uint8_t *from, int images, struct portion portion) {
    __m512i table[4];
    for (int part = 0; part < 4; part++) table[part] = _mm512_loadu_si512(from + 64 * part);
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        for (int channel = 0; channel < s->channels; channel += BLOCK) {
            const __mmask64 mask = block_lanes(s->channels, channel);
            const __m512i x = _mm512_maskz_loadu_epi8(mask, s->input + at.input + channel);
            const __m512i low = _mm512_permutex2var_epi8(table[0], x, table[1]);
            const __m512i high = _mm512_permutex2var_epi8(table[2], x, table[3]);
            store_block(s, at, channel, by_sign(x, low, high));
        }
    }
}

PERMUTED static void gather_64(const struct step *s, const struct spans *spans, int channel, int images,
                               struct portion portion) {
    const __m512i places = _mm512_loadu_si512(spans->places);
    for (struct share on = share_of(s, images, portion); on.left; advance(s, &on)) {
        const struct place at = place_of(s, on.image, on.pixel);
        const uint8_t *x = s->input + at.input;
        const __m512i a = _mm512_maskz_loadu_epi8(spans->of_first, x + spans->first);
        const __m512i b = _mm512_maskz_loadu_epi8(spans->of_second, x + spans->second);
        store_block(s, at, channel, _mm512_permutex2var_epi8(a, places, b));
    }
}

#else
static void look_up_64(const struct step *s, const uint8_t *from, int images, struct portion portion) {
    look_up_each(s, from, images, portion);
}
static void gather_64(const struct step *s, const struct spans *spans, int channel, int images,
                      struct portion portion) {}
#endif

static void look_up(const struct step *s, const uint8_t *table, int images, struct portion portion) {
    if (permutes_bytes()) look_up_64(s, table, images, portion);
    else look_up_each(s, table, images, portion);
}

/* What depends on one code alone is a table, too. */
static void map_codes(const struct step *s, int images, struct portion portion) {
    if (s->residual || s->real) {
        pointwise(s, images, portion, MAP);
        return;
    }
    uint8_t table[256];
    for (int code = 0; code < 256; code++) table[code] = (uint8_t)code;
    for (int first = 0; first < 256; first += BLOCK) {
        __m512 y[VECTORS];
        map(s, _mm512_loadu_si512(table + first), y);
        _mm512_storeu_si512(table + first, encode_block(s, y));
    }
    look_up(s, table, images, portion);
}

/* Codes put elsewhere: from the same taps of each pixel, or from others. */
static void gather(const struct step *s, int images, struct portion portion) {
    const int alike = s->width == 0 && permutes_bytes();
    for (int channel = 0, count; channel < s->channels; channel += count) {
        const int left = s->channels - channel;
        struct spans spans;
        count = !alike ? left : left < BLOCK ? left : BLOCK;
        if (alike && in_two_spans(s->run_offsets + channel, count, &spans))
            gather_64(s, &spans, channel, images, portion);
        else gather_each(s, channel, channel + count, images, portion);
    }
}
