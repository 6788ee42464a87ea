/* Images that threads take for some steps: each its own ones, and then what is left of the others'. A core that
   is slower, or busy otherwise, leaves more of them. */
/* Of thread t its own are those from t * images / threads on; `next` says for each which is not taken yet. */
struct queue { int64_t *next; int images, threads; };

static int first_of(const struct queue *q, int thread) { return (int)((int64_t)q->images * thread / q->threads); }

static void refill(const struct queue *q, int thread) { q->next[APART * thread] = first_of(q, thread); }

/* Take at most so many images, from `first` on, of the thread's own or of the next one's that has any; return
   how many. */
static int take_next(const struct queue *q, int thread, int most, int *first) {
    for (int i = 0; i < q->threads; i++) {
        const int of = (thread + i) % q->threads, end = first_of(q, of + 1);
        int64_t *next = &q->next[APART * of], at;
#pragma omp atomic read
        at = *next;
        if (at >= end) continue;
#pragma omp atomic capture
        { at = *next; *next += most; }
        if (at >= end) continue;
        *first = (int)at;
        return end - at < most ? (int)(end - at) : most;
    }
    return 0;
}
