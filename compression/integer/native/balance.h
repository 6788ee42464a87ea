/* Which portion of each step a thread takes. Cores are not alike: those of a laptop are of two kinds, and a
   virtual one shares its registers with a neighbour that comes and goes. A thread that others wait for at a
   step's end takes less of that step from then on. What is predicted stays the same to the bit.

   `edges` has a row of threads + 1 per step, in parts of WHOLE, and `busy` a row of nanoseconds per thread. */
enum {
    WATCHED = 4, /* predictions, of which the fastest time of each step counts: others are interrupted */
    ALIKE = 140, /* percent of the slowest thread's speed that the fastest may have: all take as much */
    LEAST = 32,  /* of an even portion: a thread that is fast again shows it */
    APART = 8,   /* numbers from one thread's to the next one's: no two write to one line of memory */
};
struct balance { int64_t *edges, *busy, *predictions; int64_t steps, apart; int threads; };

static struct balance balance_of(int64_t *memory, int64_t steps, int threads) {
    const int64_t apart = steps + APART;
    int64_t *busy = memory + steps * (threads + 1) + APART;
    return (struct balance){memory, busy, busy + apart * threads, steps, apart, threads};
}

/* The numbers of its memory. */
static int64_t balance_numbers(int64_t steps, int threads) {
    return steps * (threads + 1) + APART + (steps + APART) * threads + APART;
}

static int64_t even_edge(int64_t thread, int threads) { return WHOLE * thread / threads; }

/* Each thread takes as much of every step. */
void divide_evenly(int64_t *memory, int64_t steps, int threads) {
    const struct balance b = balance_of(memory, steps, threads);
    *b.predictions = 0;
    for (int64_t i = 0; i < b.apart * threads; i++) b.busy[i] = 0;
    for (int64_t i = 0; i < steps * (threads + 1); i++) b.edges[i] = even_edge(i % (threads + 1), threads);
}

/* A thread's portion of step `index`; an even one where fewer threads came than were asked for. */
static struct portion portion_of(const struct balance *b, int64_t index, int thread, int threads) {
    if (threads < b->threads)
        return (struct portion){even_edge(thread, threads), even_edge(thread + 1, threads), threads};
    const int64_t *edges = b->edges + index * (threads + 1) + thread;
    return (struct portion){edges[0], edges[1], threads};
}

static int64_t now(void) { return (int64_t)(1e9 * omp_get_wtime()); }

/* A thread was at step `index` since then. */
static void note_time(const struct balance *b, int64_t index, int thread, int64_t since) {
    int64_t *busy = b->busy + b->apart * thread + index, took = now() - since;
    took = took < 1 ? 1 : took;
    if (!*busy || took < *busy) *busy = took;
}

/* The threads' speeds: units per nanosecond of what their edges gave them. Return whether all have one. */
static int speeds_of(const int64_t *edges, const int64_t *busy, int64_t apart, int threads, int64_t units,
                     double *speeds) {
    for (int t = 0; t < threads; t++) {
        const int64_t taken = before(units, edges[t + 1]) - before(units, edges[t]);
        if (!busy[apart * t] || !taken) return 0;
        speeds[t] = (double)taken / (double)busy[apart * t];
    }
    return 1;
}

/* The edges of a step go halfway to where threads with these times, `apart` in memory, would have had the same;
   at once to even ones where the threads are alike. Each keeps one of the step's units, or more. */
void move_edges(int64_t *edges, const int64_t *busy, int64_t apart, int threads, int64_t units) {
    const double even = (double)WHOLE / threads, one = (double)WHOLE / (units > 0 ? units : 1);
    const double least = one > even / LEAST ? one : even / LEAST;
    double speeds[threads], sum = 0, slowest, fastest, above = 0, edge = 0;
    if (least >= even || !speeds_of(edges, busy, apart, threads, units, speeds)) return;
    slowest = fastest = speeds[0];
    for (int t = 0; t < threads; t++) {
        sum += speeds[t];
        slowest = speeds[t] < slowest ? speeds[t] : slowest;
        fastest = speeds[t] > fastest ? speeds[t] : fastest;
    }
    const int alike = 100 * fastest <= ALIKE * slowest;
    for (int t = 0; t < threads; t++) {
        const double wanted = alike ? even : (edges[t + 1] - edges[t] + WHOLE * speeds[t] / sum) / 2;
        speeds[t] = wanted > least ? wanted - least : 0; /* what it takes beyond the least */
        above += speeds[t];
    }
    for (int t = 1; t < threads; t++) {
        edge += least + speeds[t - 1] * (WHOLE - least * threads) / above;
        edges[t] = (int64_t)(edge + 0.5);
    }
}
