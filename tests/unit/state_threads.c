/* state_threads.c - forks of one state in several threads at once, and memory that runs out.
 *
 *     test-state_threads MODEL.forge..      prints `N passed, N failed`
 *
 * Only the runtime is linked, so that sanitizers see all of it (tests/sanitize.py). Threads fork
 * a state that has the beginning of a text, and each goes on in its own way: it forks again,
 * goes back, and frees what others share. Everything must come out as it does from a state that
 * never met another. Then a single thread does as much with an allocator that fails at its
 * n-th call, for each n: a call that failed has changed nothing, and nothing is lost.
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/forge.h"
#include "tests/unit/expect.h"

enum { THREADS = 8, ROUNDS = 12, CUT = 5, END = 12, WAYS = 4, MOST = 4096 };

/* An allocator that fails after `left` calls. */
typedef struct heap {
    long left, live;
} heap;

static void *
heap_alloc(void *user, size_t n)
{
    heap *h = user;

    if (h->left-- <= 0)
        return NULL;
    h->live++;
    return malloc(n);
}

static void
heap_release(void *user, void *p)
{
    heap *h = user;

    h->live -= p != NULL;
    free(p);
}

/* ---- one decoder ----------------------------------------------------------------------- */

typedef struct decoder {
    forge_ctx *cx;
    forge_run *r;
    const forge_model *m;
} decoder;

static forge_status
open_decoder(decoder *d, const forge_config *c, const forge_model *m)
{
    *d = (decoder){.m = m};
    forge_status e = forge_open(c, &d->cx);
    if (!e && !(e = forge_run_new(d->cx, m, &d->r)))
        e = forge_run_threads(d->r, 1);
    return e;
}

static void
close_decoder(decoder *d)
{
    forge_run_free(d->r);
    forge_close(d->cx);
}

/* Token t of a text that begins alike in every way. */
static int64_t
token(int way, int t)
{
    return 3 + (t * 7 + (t < CUT ? 0 : way * 11)) % 50;
}

static forge_status
run(decoder *d, forge_state *s, int way, int from, int to)
{
    int64_t ids[END], ones[END], position[END], now[] = {1, to - from}, all[] = {1, to};
    forge_status e = forge_run_attach(d->r, s);

    for (int t = 0; t < END; t++) {
        ones[t] = 1;
        ids[t] = token(way, t);
        position[t] = t;
    }
    for (int i = 0; !e && i < forge_model_inputs(d->m); i++) {
        const char *name = forge_model_input(d->m, i, NULL, NULL);
        bool mask = strstr(name, "mask") != NULL;
        const int64_t *data = mask                       ? ones
                              : strstr(name, "position") ? position + from
                                                         : ids + from;
        if (!strstr(name, "past"))
            e = forge_bind_input(d->r, name, FORGE_I64, 2, mask ? all : now, data);
    }
    return e ? e : forge_execute(d->r);
}

/* Logits of the last token; their number. */
static size_t
logits(decoder *d, float *to)
{
    const int64_t *dims;
    const float *all = forge_output(d->r, "logits", NULL, NULL, &dims);
    size_t n = (size_t)(dims[2] < MOST ? dims[2] : MOST);

    memcpy(to, all + (dims[1] - 1) * dims[2], n * sizeof *to);
    return n;
}

/* ---- threads --------------------------------------------------------------------------- */

static float want[WAYS][END][MOST]; /* after token t of a way */

typedef struct job {
    const forge_model *m;
    const forge_state *origin;
    pthread_barrier_t *start;
    int index, wrong;
    char error[200];
} job;

static bool
same(decoder *d, const float *expected)
{
    float now[MOST];
    size_t n = logits(d, now);

    return !memcmp(now, expected, n * sizeof *now);
}

/* Tokens from..END one by one, each compared. */
static forge_status
go_on(job *j, decoder *d, forge_state *s, int way, int from)
{
    forge_status e = FORGE_OK;

    for (int t = from; !e && t < END; t++)
        if (!(e = run(d, s, way, t, t + 1)))
            j->wrong += !same(d, want[way][t]) + sched_yield();
    return e;
}

static forge_status
one_round(job *j, decoder *d, int round)
{
    int way = (j->index + round) % WAYS, back = CUT + (j->index + round) % 3;
    forge_state *s = NULL, *f = NULL, *two = NULL;
    int64_t mask[2 * (END + 1)];
    forge_status e = forge_state_fork(j->origin, &s);

    if (!e)
        e = go_on(j, d, s, way, CUT);
    if (!e && !forge_state_truncate(s, back)) { /* a model without history says no */
        if (!(e = forge_state_fork(s, &f)) && !(e = go_on(j, d, s, way, back)))
            e = go_on(j, d, f, way, back);
        if (!e && !(e = forge_state_repeat(f, 2, &two)) &&
            !(e = forge_state_rewind(two, 1, 3))) {
            j->wrong += forge_state_mask(two, 1, mask, 2 * (END + 1)) != FORGE_OK;
            j->wrong += forge_state_sequence(two, 1) != 3 || mask[END + 1 + 3] != 0;
        }
    }
    if (e)
        snprintf(j->error, sizeof j->error, "%.190s", forge_message(d->cx));
    forge_run_attach(d->r, NULL);
    forge_state_free(round % 2 ? s : f);
    forge_state_free(two);
    forge_state_free(round % 2 ? f : s);
    return e;
}

static void *
work(void *arg)
{
    job *j = arg;
    decoder d;
    forge_status e = open_decoder(&d, NULL, j->m);

    pthread_barrier_wait(j->start);
    for (int round = 0; !e && round < ROUNDS; round++)
        e = one_round(j, &d, round);
    if (e && !*j->error)
        snprintf(j->error, sizeof j->error, "%s", forge_status_text(e));
    close_decoder(&d);
    return NULL;
}

/* What every way says when it is alone. */
static void
alone(const forge_model *m)
{
    decoder d;

    if (!expect(!open_decoder(&d, NULL, m), "open", ""))
        return;
    for (int way = 0; way < WAYS; way++) {
        forge_state *s = NULL;
        forge_status e = forge_state_new(d.cx, m, 1, 4, 0, &s);
        if (!e)
            e = run(&d, s, way, 0, CUT);
        for (int t = CUT; !e && t < END; t++)
            if (!(e = run(&d, s, way, t, t + 1)))
                logits(&d, want[way][t]);
        expect(!e, "alone", forge_message(d.cx));
        forge_run_attach(d.r, NULL);
        forge_state_free(s);
    }
    close_decoder(&d);
}

static void
together(const forge_model *m, int64_t capacity)
{
    pthread_barrier_t start;
    pthread_t thread[THREADS];
    job jobs[THREADS];
    forge_state *s = NULL;
    decoder d;

    if (!expect(!open_decoder(&d, NULL, m), "open", ""))
        return;
    bool begun = !forge_state_new(d.cx, m, 1, capacity, 0, &s) && !run(&d, s, 0, 0, CUT);
    expect(begun, "the beginning", forge_message(d.cx));
    forge_run_attach(d.r, NULL);
    pthread_barrier_init(&start, NULL, THREADS);
    memset(jobs, 0, sizeof jobs);
    for (int k = 0; k < THREADS && begun; k++) {
        jobs[k] = (job){.m = m, .origin = s, .start = &start, .index = k};
        pthread_create(&thread[k], NULL, work, &jobs[k]);
    }
    for (int k = 0; k < THREADS && begun; k++) {
        pthread_join(thread[k], NULL);
        expect(!*jobs[k].error, "in a thread", jobs[k].error);
        expect(!jobs[k].wrong, "in a thread", "other bits than alone");
    }
    if (begun)
        expect(forge_state_length(s) == CUT, "the origin", "grew with its forks");
    if (begun)
        expect(!run(&d, s, 1, CUT, CUT + 1) && same(&d, want[1][CUT]), "the origin",
               "goes on differently");
    forge_state_free(s); /* while it is attached */
    pthread_barrier_destroy(&start);
    close_decoder(&d);
}

/* ---- memory that runs out -------------------------------------------------------------- */

/* A call that failed is made again when there is memory: as if it had not been. */
#define AGAIN(h, call)                                                                   \
    do {                                                                                 \
        forge_status again = call;                                                       \
        if (again == FORGE_OUT_OF_MEMORY) {                                              \
            (h)->left = MOST;                                                            \
            again = call;                                                                \
        }                                                                                \
        if (!expect(!again, #call, forge_message(d.cx)))                                 \
            goto out;                                                                    \
    } while (0)

/* True when the allocator did not fail any more. */
static bool
run_out(const forge_model *m, long n)
{
    heap h = {MOST, 0};
    const forge_config c = {
        .size = sizeof c, .alloc = heap_alloc, .release = heap_release, .user = &h};
    forge_state *s = NULL, *f = NULL, *two = NULL;
    decoder d;
    forge_status e = open_decoder(&d, &c, m);

    if (!expect(!e, "open", forge_status_text(e)))
        goto out;
    h.left = n;
    AGAIN(&h, forge_state_new(d.cx, m, 1, 4, 0, &s));
    AGAIN(&h, run(&d, s, 2, 0, CUT)); /* grows */
    AGAIN(&h, forge_state_fork(s, &f));
    AGAIN(&h, run(&d, f, 1, CUT, CUT + 1));
    expect(same(&d, want[1][CUT]), "a fork", "differs");
    AGAIN(&h, run(&d, s, 2, CUT, CUT + 1)); /* copies */
    expect(same(&d, want[2][CUT]), "the other", "differs");
    AGAIN(&h, forge_state_truncate(f, 0));
    AGAIN(&h, run(&d, f, 3, 0, CUT + 1)); /* of another kernel, so only near */
    AGAIN(&h, run(&d, s, 2, CUT + 1, CUT + 2));
    expect(same(&d, want[2][CUT + 1]), "and on", "differs");
    AGAIN(&h, forge_state_repeat(s, 2, &two));
    if (!(e = forge_state_rewind(two, 0, 3)) || e == FORGE_OUT_OF_MEMORY) {
        AGAIN(&h, forge_state_rewind(two, 0, 3));
        expect(forge_state_sequence(two, 0) == 3 && forge_state_length(two) == CUT + 2,
               "rewind", "wrong lengths");
    }
out:;
    bool enough = h.left > 0 && h.left < n;
    forge_run_free(d.r);
    forge_state_free(two);
    forge_state_free(f);
    forge_state_free(s);
    forge_close(d.cx);
    expect(h.live == 0, "out of memory", "not everything was given back");
    return enough || failed;
}

int
main(int argc, char **argv)
{
    for (int k = 1; k < argc; k++) {
        forge_ctx *cx;
        forge_model *m;
        int before = failed;
        forge_open(NULL, &cx);
        if (expect(!forge_load_file(cx, argv[k], NULL, &m), "load", forge_message(cx))) {
            alone(m);
            together(m, 8); /* forks grow */
            together(m, END);
            for (long n = 0; !run_out(m, n); n++)
                ;
            forge_model_free(m);
        }
        if (failed != before)
            printf("with %s\n", argv[k]);
        forge_close(cx);
    }
    return verdict();
}
