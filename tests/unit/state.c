/* state.c - models with caches, run both ways: pasts bound and presents read by the host,
 * and an attached state. `test-state [MODEL.onnx..]` prints `N passed, N failed`.
 *
 * One prefill of all tokens says what every step must give. Step by step both ways must
 * agree bit by bit, on one thread and on two; a state that was cut back goes on as if
 * nothing had been behind the cut; a fork and its origin do not see each other.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rt.h"
#include "tests/unit/expect.h"
#include "tests/unit/moved.h"

enum { TOKENS = 7, STEPS = 40, MAXPORT = 16, MAXDIM = 12 };

/* Counts allocations, and remembers the bytes of all. */
static size_t allocated;

static void *
host_alloc(void *user, size_t n)
{
    ++*(long *)user;
    allocated += n;
    return malloc(n);
}

static void
host_release(void *user, void *p)
{
    (void)user;
    free(p);
}

typedef struct past { /* what the host keeps of one cache */
    int64_t dim[MAXDIM];
    void *data;
} past;

typedef struct host {
    forge_ctx *cx;
    forge_model *m;
    forge_run *r;
    long allocs;
    past past[MAXPORT];
    int64_t ids[STEPS], ones[STEPS], position[STEPS];
} host;

static size_t
count(int rank, const int64_t *dims)
{
    size_t n = 1;

    for (int k = 0; k < rank; k++)
        n *= (size_t)dims[k];
    return n;
}

/* Inputs that are not pasts, for tokens [from, to). */
static bool
feed(host *h, int from, int to)
{
    int64_t now[] = {1, to - from}, all[] = {1, to};
    bool ok = true;

    for (int i = 0; i < forge_model_inputs(h->m); i++) {
        const char *name = forge_model_input(h->m, i, NULL, NULL);
        bool mask = strstr(name, "mask") != NULL;
        const int64_t *data = mask                       ? h->ones
                              : strstr(name, "position") ? h->position + from
                                                         : h->ids + from;
        if (!strstr(name, "past"))
            ok =
                ok && !forge_bind_input(h->r, name, FORGE_I64, 2, mask ? all : now, data);
    }
    return expect(ok, "bind", forge_message(h->cx));
}

/* Before the first token: length 0, batch 1, and zeros where the length is fixed. */
static void
empty_pasts(host *h)
{
    for (int k = 0; k < forge_model_states(h->m); k++) {
        const char *name = forge_model_state(h->m, k, NULL);
        int i = 0, rank;
        while (strcmp(forge_model_input(h->m, i, NULL, &rank), name))
            i++;
        for (int a = 0; a < rank; a++) {
            int64_t d = forge_model_input_dim(h->m, i, a, NULL);
            h->past[k].dim[a] = d >= 0 ? d : a == 0;
        }
        free(h->past[k].data);
        h->past[k].data = calloc(count(rank, h->past[k].dim) + 1, sizeof(float));
    }
}

static bool
bind_pasts(host *h)
{
    bool ok = true;

    for (int k = 0; k < forge_model_states(h->m); k++)
        ok = ok &&
             !forge_bind_input(h->r, forge_model_state(h->m, k, NULL), FORGE_F32,
                               strstr(forge_model_state(h->m, k, NULL), "conv") ? 3 : 4,
                               h->past[k].dim, h->past[k].data);
    return expect(ok, "bind pasts", forge_message(h->cx));
}

static void
keep_presents(host *h)
{
    for (int k = 0; k < forge_model_states(h->m); k++) {
        const char *name;
        const int64_t *dims;
        int rank;
        forge_model_state(h->m, k, &name);
        const void *data = forge_output(h->r, name, NULL, &rank, &dims);
        size_t bytes = count(rank, dims) * sizeof(float);
        void *copy = malloc(bytes + 1);
        memcpy(copy, data, bytes);
        free(h->past[k].data);
        h->past[k].data = copy;
        memcpy(h->past[k].dim, dims, (size_t)rank * sizeof *dims);
    }
}

/* Runs and copies the logits of the last token; how many there are. */
static size_t
step(host *h, float *logits)
{
    const int64_t *dims;
    forge_status e = forge_execute(h->r);

    if (!expect(!e, "execute", forge_message(h->cx)))
        return 0;
    const float *all = forge_output(h->r, "logits", NULL, NULL, &dims);
    memcpy(logits, all + (dims[1] - 1) * dims[2], (size_t)dims[2] * sizeof *logits);
    return (size_t)dims[2];
}

static bool
near(const float *a, const float *b, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (!(fabsf(a[k] - b[k]) <= 2e-4f * (1 + fabsf(b[k]))))
            return false;
    return true;
}

/* ---- what is tested -------------------------------------------------------------------- */

static float *
prefill(host *h, size_t *vocab)
{
    const int64_t *dims;

    empty_pasts(h);
    if (!feed(h, 0, TOKENS) || !bind_pasts(h) ||
        !expect(!forge_execute(h->r), "prefill", forge_message(h->cx)))
        return NULL;
    const float *all = forge_output(h->r, "logits", NULL, NULL, &dims);
    *vocab = (size_t)dims[2];
    float *copy = malloc(TOKENS * *vocab * sizeof *copy);
    memcpy(copy, all, TOKENS * *vocab * sizeof *copy);
    keep_presents(h);
    return copy;
}

/* The state holds what the host has as pasts. */
static void
compare_states(host *h, const forge_state *s)
{
    for (int k = 0; k < forge_model_states(h->m); k++) {
        const char *name = forge_model_state(h->m, k, NULL);
        const int64_t *dims;
        int rank = strstr(name, "conv") ? 3 : 4;
        forge_state_read(s, name, &dims, NULL, 0);
        size_t bytes = count(rank, dims) * sizeof(float);
        float *data = malloc(bytes + 1);
        expect(!memcmp(dims, h->past[k].dim, (size_t)rank * sizeof *dims), "dims", name);
        expect(!forge_state_read(s, name, NULL, data, bytes), "read",
               forge_message(h->cx));
        expect(near(data, h->past[k].data, bytes / sizeof(float)), "content", name);
        free(data);
    }
}

static void
both_ways(host *h, const float *want, size_t vocab)
{
    float *logits = malloc(TOKENS * vocab * sizeof *logits);
    float *now = malloc(vocab * sizeof *now);
    past full[MAXPORT];
    forge_state *s;

    memcpy(full, h->past, sizeof full);
    memset(h->past, 0, sizeof h->past);
    empty_pasts(h);
    for (int t = 0; t < TOKENS; t++) {
        if (!feed(h, t, t + 1) || !bind_pasts(h) || !step(h, logits + t * vocab))
            break;
        expect(near(logits + t * vocab, want + t * vocab, vocab), "step by step",
               "differs from the prefill");
        keep_presents(h);
    }
    for (int k = 0; k < MAXPORT; k++)
        free(h->past[k].data);
    memcpy(h->past, full, sizeof full);
    for (int threads = 1; threads <= 2; threads++) {
        forge_run_threads(h->r, threads);
        expect(!forge_state_new(h->cx, h->m, 1, 2, 64, &s), "new", forge_message(h->cx));
        expect(!forge_run_attach(h->r, s), "attach", forge_message(h->cx));
        for (int t = 0; t < TOKENS; t++) {
            if (!feed(h, t, t + 1) || !step(h, now))
                break;
            expect(!memcmp(now, logits + t * vocab, vocab * sizeof *now), "state",
                   "other bits than with bound pasts");
            expect(forge_state_length(s) == t + 1, "length", "wrong");
        }
        expect(forge_state_capacity(s) == 8, "capacity", "2, 4, 8");
        compare_states(h, s);
        forge_run_attach(h->r, NULL);
        forge_state_free(s);
    }
    forge_run_threads(h->r, 1);
    free(logits);
    free(now);
}

static bool
has_history(const forge_model *m)
{
    for (int k = 0; k < forge_model_states(m); k++)
        if (strstr(forge_model_state(m, k, NULL), "conv"))
            return false;
    return true;
}

/* Cut back to `cut`, and in a fork from there, the rest comes again. */
static void
cut_and_fork(host *h, const float *want, size_t vocab)
{
    enum { CUT = 3 };
    float *now = malloc(vocab * sizeof *now), *other = malloc(vocab * sizeof *now);
    forge_state *s, *f = NULL;

    forge_state_new(h->cx, h->m, 1, TOKENS, 0, &s);
    forge_run_attach(h->r, s);
    if (feed(h, 0, CUT))
        step(h, now);
    expect(near(now, want + (CUT - 1) * vocab, vocab), "prefill into a state", "differs");
    expect(!forge_state_fork(s, &f), "fork", forge_message(h->cx));
    if (feed(h, CUT, TOKENS))
        step(h, now);
    expect(near(now, want + (TOKENS - 1) * vocab, vocab), "the rest at once", "differs");
    expect(forge_state_length(f) == CUT, "fork", "grew with its origin");
    forge_run_attach(h->r, f);
    if (feed(h, CUT, TOKENS))
        step(h, other);
    expect(!memcmp(now, other, vocab * sizeof *now), "fork", "goes on differently");
    forge_run_attach(h->r, s);
    forge_status e = forge_state_truncate(s, CUT);
    if (!has_history(h->m)) {
        expect(e == FORGE_UNSUPPORTED, "cut", forge_message(h->cx));
        expect(!forge_state_truncate(s, 0), "cut to 0", forge_message(h->cx));
        if (feed(h, 0, CUT))
            step(h, other);
    }
    if (feed(h, CUT, TOKENS))
        step(h, other);
    expect(!memcmp(now, other, vocab * sizeof *now), "cut", "goes on differently");
    expect(forge_state_truncate(s, TOKENS + 1) == FORGE_USAGE, "cut to more", "accepted");
    forge_run_attach(h->r, NULL);
    forge_state_free(f);
    forge_state_free(s);
    free(now);
    free(other);
}

/* Of all caches: what one more position takes. */
static int64_t
bytes_per_position(const forge_state *s)
{
    int64_t sum = 0;

    for (uint32_t k = 0; k < s->p->nstate; k++) {
        const fg_statedef *d = &s->p->state[k];
        const fg_tensordef *x = &s->p->tensor[s->p->input[d->input].tensor];
        int64_t n = 1;
        for (int a = 0; a < x->rank; a++)
            n *= a == d->axis ? 1 : s->buf[k].dim[a];
        sum += d->axis < 0 ? 0 : fg_packed_bytes(x->dtype, n);
    }
    return sum;
}

/* A fork copies nothing; neither does the first of the two that goes on. The other one then
 * has what it had, in memory of its own. */
static void
copy_on_write(host *h, const float *want, size_t vocab)
{
    enum { CUT = 3, ROOM = 512 };
    float *now = malloc(vocab * sizeof *now);
    forge_state *s, *f[3] = {0};
    bool anywhere = false;

    forge_state_new(h->cx, h->m, 1, ROOM, 0, &s);
    for (uint32_t k = 0; k < s->p->nstate; k++)
        anywhere |= s->p->state[k].anywhere;
    forge_run_attach(h->r, s);
    if (feed(h, 0, CUT))
        step(h, now);
    size_t cache = (size_t)bytes_per_position(s) * ROOM, before = allocated;
    for (int k = 0; k < 3; k++)
        expect(!forge_state_fork(s, &f[k]), "fork", forge_message(h->cx));
    expect(allocated - before < cache / 8, "fork", "copies");
    forge_state *first = f[1];
    forge_state *const order[] = {first, s, f[2], f[0], first};
    for (int k = 0; k < 5; k++) {
        int from = k == 4 ? CUT + 1 : CUT;
        forge_run_attach(h->r, order[k]);
        before = allocated;
        if (feed(h, from, from + 1))
            step(h, now);
        expect(near(now, want + (size_t)from * vocab, vocab), "after a fork", "differs");
        if ((k == 0 && !anywhere) || k == 4)
            expect(allocated - before < cache / 8, "the first to go on", "copies");
        if (k == 1)
            expect(allocated - before >= cache, "another one", "writes what is shared");
    }
    forge_run_attach(h->r, NULL);
    forge_state_free(s);
    for (int k = 2; k >= 0; k--)
        forge_state_free(f[k]);
    free(now);
}

/* Tokens [from, to) in two sequences that say the same: each is what one alone is. */
static void
run_two(host *h, int from, int to, const float *want, size_t vocab, const char *what)
{
    int64_t ids[2 * TOKENS], ones[2 * TOKENS], position[2 * TOKENS];
    int64_t now[] = {2, to - from}, all[] = {2, to};

    for (int k = 0; k < 2 * TOKENS; k++) {
        ones[k] = 1;
        ids[k] = h->ids[from + k % (to - from)];
        position[k] = from + k % (to - from);
    }
    for (int i = 0; i < forge_model_inputs(h->m); i++) {
        const char *name = forge_model_input(h->m, i, NULL, NULL);
        bool mask = strstr(name, "mask") != NULL;
        if (!strstr(name, "past"))
            forge_bind_input(h->r, name, FORGE_I64, 2, mask ? all : now,
                             mask                       ? ones
                             : strstr(name, "position") ? position
                                                        : ids);
    }
    if (!expect(!forge_execute(h->r), what, forge_message(h->cx)))
        return;
    const float *rows = forge_output(h->r, "logits", NULL, NULL, NULL);
    for (int b = 0; b < 2; b++)
        expect(near(rows + (b + 1) * (to - from) * (int)vocab - vocab,
                    want + (to - 1) * vocab, vocab),
               what, "differ from one");
}

static void
two_sequences(host *h, const float *want, size_t vocab)
{
    float *now = malloc(vocab * sizeof *now);
    forge_state *s, *two = NULL, *none = NULL;

    expect(!forge_state_new(h->cx, h->m, 2, 3, 0, &s), "new", forge_message(h->cx));
    forge_run_attach(h->r, s);
    run_two(h, 0, 4, want, vocab, "two sequences");
    run_two(h, 4, TOKENS, want, vocab, "two sequences");
    expect(forge_state_repeat(s, 2, &none) == FORGE_UNSUPPORTED, "repeat two",
           "accepted");
    forge_run_attach(h->r, NULL);
    forge_state_free(s);
    forge_state_new(h->cx, h->m, 1, 4, 0, &s);
    forge_run_attach(h->r, s);
    if (feed(h, 0, 4))
        step(h, now);
    expect(forge_state_repeat(s, 0, &none) == FORGE_USAGE, "repeat 0", "accepted");
    if (expect(!forge_state_repeat(s, 2, &two), "repeat", forge_message(h->cx))) {
        forge_run_attach(h->r, two);
        run_two(h, 4, TOKENS, want, vocab, "two that were one");
        expect(forge_state_length(s) == 4, "repeat", "grew with its origin");
    }
    forge_run_attach(h->r, NULL);
    forge_state_free(two);
    forge_state_free(s);
    free(now);
}

/* Binds what is not a past: `n` tokens of two sequences, the first of which are at from[b]. */
static void
feed_ragged(host *h, const int64_t *from, int n, const int64_t *mask, int64_t width)
{
    int64_t ids[2 * TOKENS], position[2 * TOKENS];
    const int64_t now[] = {2, n}, all[] = {2, width};

    for (int b = 0; b < 2; b++)
        for (int k = 0; k < n; k++) {
            ids[b * n + k] = h->ids[from[b] + k];
            position[b * n + k] = from[b] + k;
        }
    for (int i = 0; i < forge_model_inputs(h->m); i++) {
        const char *name = forge_model_input(h->m, i, NULL, NULL);
        bool is_mask = strstr(name, "mask") != NULL;
        if (!strstr(name, "past"))
            forge_bind_input(h->r, name, FORGE_I64, 2, is_mask ? all : now,
                             is_mask                    ? mask
                             : strstr(name, "position") ? position
                                                        : ids);
    }
    expect(!forge_execute(h->r), "different lengths", forge_message(h->cx));
}

/* Row `at` of sequence b in the logits of n tokens. */
static const float *
row(host *h, int b, int n, int at, size_t vocab)
{
    const float *all = forge_output(h->r, "logits", NULL, NULL, NULL);

    return all + (size_t)(b * n + at) * vocab;
}

/* Prompts of 2 and 4 tokens padded to 4, then a token each, and the longer one cut back: what a
 * sequence says is what it says alone. */
static void
different_lengths(host *h, const float *want, size_t vocab)
{
    const int64_t zero[] = {0, 0}, prompt[] = {1, 1, 0, 0, 1, 1, 1, 1}, length[] = {2, 4};
    int64_t mask[4 * TOKENS], at[2];
    forge_state *s, *f = NULL;
    bool masked = false;

    for (int i = 0; i < forge_model_inputs(h->m); i++)
        masked |= strstr(forge_model_input(h->m, i, NULL, NULL), "mask") != NULL;
    if (!masked || !has_history(h->m) ||
        !expect(!forge_state_new(h->cx, h->m, 2, 5, 0, &s), "new", forge_message(h->cx)))
        return;
    forge_run_attach(h->r, s);
    feed_ragged(h, zero, 4, prompt, 4);
    for (int b = 0; b < 2; b++) {
        expect(near(row(h, b, 4, (int)length[b] - 1, vocab),
                    want + (size_t)(length[b] - 1) * vocab, vocab),
               "prompts", "differ");
        expect(!forge_state_rewind(s, b, length[b]), "rewind", forge_message(h->cx));
    }
    for (int t = 0; t < 3; t++) {
        if (t == 1) { /* the longer one goes back beyond the padding, and on in a fork */
            expect(!forge_state_rewind(s, 1, 2), "rewind", forge_message(h->cx));
            expect(!forge_state_fork(s, &f), "fork", forge_message(h->cx));
            forge_run_attach(h->r, f);
        }
        forge_state *now = f ? f : s;
        int64_t n = forge_state_length(now) + 1;
        for (int b = 0; b < 2; b++)
            at[b] = forge_state_sequence(now, b);
        expect(!forge_state_mask(now, 1, mask, 4 * TOKENS), "mask", forge_message(h->cx));
        feed_ragged(h, at, 1, mask, n);
        for (int b = 0; b < 2; b++)
            expect(near(row(h, b, 1, 0, vocab), want + (size_t)at[b] * vocab, vocab),
                   "a token", "differs");
    }
    expect(at[0] == 4 && at[1] == 3, "lengths", "2 + 3 and 2 + 2");
    expect(forge_state_sequence(s, 1) == 2, "lengths", "a fork changed its origin's");
    forge_run_attach(h->r, NULL);
    expect(forge_state_rewind(s, 0, 4) == FORGE_USAGE, "rewind", "to more");
    expect(forge_state_rewind(s, 2, 0) == FORGE_USAGE, "rewind", "of no sequence");
    expect(forge_state_mask(s, 1, mask, 3) == FORGE_USAGE, "mask", "into too little");
    expect(forge_state_sequence(s, 2) == -1, "length", "of no sequence");
    forge_state_rewind(s, 0, 0);
    forge_state_rewind(s, 1, 1);
    expect(forge_state_length(s) == 1, "rewind", "nobody's positions stay");
    forge_state_free(s);
    forge_state_free(f);
}

/* The host may say where presents go; a byte too few is refused. */
static void
bound_presents(host *h)
{
    void *data[MAXPORT];
    int n = forge_model_states(h->m);

    empty_pasts(h);
    if (!feed(h, 0, TOKENS) || !bind_pasts(h) || forge_execute(h->r))
        return;
    keep_presents(h);
    for (int round = 0; round < 2; round++) {
        size_t less = round == 1;
        for (int k = 0; k < n; k++) {
            const char *name, *input = forge_model_state(h->m, k, &name);
            size_t bytes =
                count(strstr(input, "conv") ? 3 : 4, h->past[k].dim) * sizeof(float);
            data[k] = malloc(bytes);
            forge_bind_output(h->r, name, data[k], bytes - less);
        }
        past now[MAXPORT];
        memcpy(now, h->past, sizeof now);
        memset(h->past, 0, sizeof h->past);
        empty_pasts(h);
        bind_pasts(h);
        forge_status e = forge_execute(h->r);
        expect(e == (less ? FORGE_USAGE : FORGE_OK), "bound presents",
               forge_message(h->cx));
        for (int k = 0; k < n; k++) {
            const char *name, *input = forge_model_state(h->m, k, &name);
            size_t bytes =
                count(strstr(input, "conv") ? 3 : 4, now[k].dim) * sizeof(float);
            if (!less)
                expect(forge_output(h->r, name, NULL, NULL, NULL) == data[k] &&
                           !memcmp(data[k], now[k].data, bytes),
                       "bound presents", name);
            forge_bind_output(h->r, name, NULL, 0);
            free(data[k]);
            free(h->past[k].data);
        }
        memcpy(h->past, now, sizeof now);
    }
}

/* Steps inside the capacity allocate nothing, and each moves more than the one before it by what
 * attention reads of one position more, and a few bytes of mask: no cache is copied. */
static void
steady(host *h, size_t vocab)
{
    float *now = malloc(vocab * sizeof *now);
    forge_state *s;
    long before = 0;
    int64_t few = 0, many = 0;

    for (int threads = 1; threads <= 2; threads++) {
        forge_run_threads(h->r, threads);
        forge_state_new(h->cx, h->m, 1, 4096, 0, &s);
        forge_run_attach(h->r, s);
        for (int t = 0; t < STEPS; t++) {
            if (feed(h, t, t + 1))
                step(h, now);
            before = t ? before : h->allocs;
            *(t < STEPS / 2 ? &few : &many) = bytes_moved(h->r);
        }
        expect(h->allocs == before, "steps", "allocated");
        int64_t most = bytes_per_position(s) * 3 / 2 + 64;
        expect((many - few) / (STEPS / 2) <= most, "steps", "copy caches");
        forge_run_attach(h->r, NULL);
        forge_state_free(s);
    }
    forge_run_threads(h->r, 1);
    free(now);
}

static void
limits(host *h, size_t vocab)
{
    float *now = malloc(vocab * sizeof *now);
    forge_state *s = NULL;
    const char *present;

    expect(forge_state_new(h->cx, h->m, 0, 4, 0, &s) == FORGE_USAGE, "batch 0",
           "accepted");
    expect(forge_state_new(h->cx, h->m, 1, 4, 3, &s) == FORGE_USAGE, "limit", "accepted");
    expect(!forge_state_new(h->cx, h->m, 1, 2, 3, &s), "new", forge_message(h->cx));
    forge_run_attach(h->r, s);
    for (int t = 0; t < 3; t++)
        if (feed(h, t, t + 1))
            step(h, now);
    feed(h, 3, 4);
    expect(forge_execute(h->r) == FORGE_USAGE, "beyond the limit", "accepted");
    expect(forge_state_length(s) == 3, "a run that failed", "grew the state");
    forge_state_truncate(s, 0);
    feed(h, 0, 1);
    step(h, now);
    forge_model_state(h->m, 0, &present);
    expect(!forge_output(h->r, present, NULL, NULL, NULL), "present", "is the state's");
    expect(forge_state_read(s, "no", NULL, NULL, 0) == FORGE_USAGE, "read", "accepted");
    expect(forge_state_read(s, present, NULL, now, 1) == FORGE_USAGE, "room", "accepted");
    forge_run_attach(h->r, NULL);
    forge_state_free(s);
    forge_state_free(NULL);
    free(now);
}

static void
test_model(const char *path)
{
    host h = {0};
    forge_config c = {sizeof c, host_alloc, host_release, &h.allocs};
    size_t vocab;

    subject = path;
    for (int t = 0; t < STEPS; t++) {
        h.ids[t] = 3 + t * 7 % 50;
        h.ones[t] = 1;
        h.position[t] = t;
    }
    forge_open(&c, &h.cx);
    if (expect(!forge_compile_file(h.cx, path, NULL, &h.m), "compile",
               forge_message(h.cx)) &&
        expect(forge_model_states(h.m) > 0, "states", "none found")) {
        forge_run_new(h.cx, h.m, &h.r);
        forge_run_threads(h.r, 1);
        float *want = prefill(&h, &vocab);
        if (want) {
            both_ways(&h, want, vocab);
            cut_and_fork(&h, want, vocab);
            copy_on_write(&h, want, vocab);
            different_lengths(&h, want, vocab);
            two_sequences(&h, want, vocab);
            bound_presents(&h);
            steady(&h, vocab);
            limits(&h, vocab);
        }
        free(want);
    }
    for (int j = 0; j < MAXPORT; j++)
        free(h.past[j].data);
    forge_run_free(h.r);
    forge_model_free(h.m);
    forge_close(h.cx);
}

int
main(int argc, char **argv)
{
    static const char *const all[] = {
        "gpt2-kv-ts17",       "gpt2-optimum-kv", "lfm2-kv-ts17",  "llama-genai-gqa",
        "llama-genai-rotary", "llama-op23",      "llama-op24-4d", "llama-optimum-kv",
        "llama32-kv-ts17",    "qwen2-kv-dy18"};

    for (int k = 1; k < argc; k++)
        test_model(argv[k]);
    for (size_t k = 0; argc == 1 && k < sizeof all / sizeof *all; k++) {
        char path[100];
        snprintf(path, sizeof path, "tests/models/%s/model.onnx", all[k]);
        test_model(path);
    }
    return verdict();
}
