/* runtime.c - control flow, run-time sizes, aliases and ports of compiled programs
 * against the evaluator; shapes that change between the runs of one forge_run;
 * messages; threads. Prints `N passed, N failed`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "codegen/compile.h"
#include "ir/eval.h"
#include "runtime/rt.h"
#include "tests/unit/expect.h"

/* ---- programs
 * --------------------------------------------------------------------------- */

typedef struct input { /* elements: first, first + step, .. */
    int64_t dim[3];
    int rank;
    double first, step;
} input;

enum { INPUTS = 2, SETS = 4 };

typedef struct program {
    const char *name, *text;
    input in[SETS][INPUTS];
    int nset;
} program;

static const program programs[] = {
    {"swap: carried values trade places in every iteration",
     "func @main(%n: i64[], %x: f32[3]) -> f32[3], f32[3] {\n"
     "  %m = neg %x : f32[3]\n"
     "  %a, %b = loop %n, _, %x, %m {carried=2} : f32[3], f32[3]"
     " (%i: i64[], %c: bool[], %p: f32[3], %q: f32[3]) {\n"
     "    %s = add %p, %p : f32[3]\n"
     "    yield %c, %q, %s\n"
     "  }\n"
     "  ret %a, %b\n"
     "}\n",
     {{{{0}, 0, 0, 1}, {{3}, 1, 1, 1}},
      {{{0}, 0, 1, 1}, {{3}, 1, 1, 1}},
      {{{0}, 0, 6, 1}, {{3}, 1, 2, 1}}},
     3},
    {"rotation: a yield that is another parameter",
     "func @main(%n: i64[], %x: f32[2]) -> f32[2], f32[2], f32[2] {\n"
     "  %m = neg %x : f32[2]\n"
     "  %k = add %x, %x : f32[2]\n"
     "  %a, %b, %c = loop %n, _, %x, %m, %k {carried=3} : f32[2], f32[2], f32[2]"
     " (%i: i64[], %go: bool[], %p: f32[2], %q: f32[2], %r: f32[2]) {\n"
     "    yield %go, %q, %r, %p\n"
     "  }\n"
     "  ret %a, %b, %c\n"
     "}\n",
     {{{{0}, 0, 4, 1}, {{2}, 1, 1, 1}}, {{{0}, 0, 5, 1}, {{2}, 1, 1, 1}}},
     2},
    {"growth: a carried value whose size is new in every iteration, stacked ones beside "
     "it",
     "sym S in 1..\nsym p run in 0..\nsym q run in 0..\nsym t run in 0..\n"
     "func @main(%n: i64[], %x: f32[S]) -> f32[q], f32[t,S] {\n"
     "  %y, %h = loop %n, _, %x {syms=[p,q,t], carried=1} : f32[q], f32[t,S]"
     " (%k: i64[], %go: bool[], %v: f32[p]) {\n"
     "    %w = concat %v, %x : f32[p+S]\n"
     "    %z = exp %x : f32[S]\n"
     "    yield %go, %w, %z\n"
     "  }\n"
     "  ret %y, %h\n"
     "}\n",
     {{{{0}, 0, 3, 1}, {{2}, 1, 1, 1}},
      {{{0}, 0, 40, 1}, {{5}, 1, 1, 0.1}},
      {{{0}, 0, 0, 1}, {{5}, 1, 1, 0.1}}},
     3},
    {"condition: an if inside of a loop that reads from outside",
     "func @main(%x: i64[], %y: f32[4]) -> i64[], f32[4] {\n"
     "  %limit = symvec {v=[50], scalar=1} : i64[]\n"
     "  %half = symvec {v=[20], scalar=1} : i64[]\n"
     "  %start = lt %x, %limit : bool[]\n"
     "  %z = neg %y : f32[4]\n"
     "  %r, %s = loop _, %start, %x, %y {carried=2} : i64[], f32[4]"
     " (%k: i64[], %go: bool[], %v: i64[], %f: f32[4]) {\n"
     "    %w = add %v, %v : i64[]\n"
     "    %more = lt %w, %limit : bool[]\n"
     "    %small = lt %w, %half : bool[]\n"
     "    %g = if %small : f32[4] {\n"
     "      %e = add %f, %z : f32[4]\n"
     "      yield %e\n"
     "    } else {\n"
     "      %e2 = mul %f, %z : f32[4]\n"
     "      yield %e2\n"
     "    }\n"
     "    yield %more, %w, %g\n"
     "  }\n"
     "  ret %r, %s\n"
     "}\n",
     {{{{0}, 0, 3, 1}, {{4}, 1, 1, 1}}, {{{0}, 0, 60, 1}, {{4}, 1, 1, 1}}},
     2},
    {"sizes: what is found in the data, also in one branch only",
     "sym A in 1..\nsym n run in 0..\nsym m run in 0..\n"
     "func @main(%go: i64[], %x: f32[A,3]) -> i64[2,n], i64[2,m] {\n"
     "  %c = nonzero_count %x : i64[]\n"
     "  readsym %c {sym=n}\n"
     "  %y = nonzero %x : i64[2,n]\n"
     "  %zero = symvec {v=[0], scalar=1} : i64[]\n"
     "  %yes = lt %zero, %go : bool[]\n"
     "  %b = if %yes {syms=[m]} : i64[2,m] {\n"
     "    %d = add %y, %y : i64[2,n]\n"
     "    yield %d\n"
     "  } else {\n"
     "    %e = concat %y, %y {axis=1} : i64[2,2*n]\n"
     "    yield %e\n"
     "  }\n"
     "  ret %y, %b\n"
     "}\n",
     {{{{0}, 0, 1, 1}, {{2, 3}, 2, -2, 1}},
      {{{0}, 0, 0, 1}, {{5, 3}, 2, -4, 1}},
      {{{0}, 0, 1, 1}, {{1, 3}, 2, 0, 0}}},
     3},
    {"ports: inputs, constants, aliases and one value as several outputs",
     "sym S in 0..\n"
     "$0 = f32[2] {1.5, 2.5}\n"
     "func @main(%k: i64[], %x: f32[S,4]) -> f32[S,4], f32[2], f32[S,2,2], f32[4*S], "
     "f32[4*S], i64[] {\n"
     "  %w = const {w=$0} : f32[2]\n"
     "  %a = reshape %x : f32[S,2,2]\n"
     "  %b = neg %a : f32[S,2,2]\n"
     "  %c = reshape %b : f32[4*S]\n"
     "  ret %x, %w, %b, %c, %c, %k\n"
     "}\n",
     {{{{0}, 0, 7, 1}, {{3, 4}, 2, 0, 1}},
      {{{0}, 0, 8, 1}, {{0, 4}, 2, 0, 1}},
      {{{0}, 0, 9, 1}, {{9, 4}, 2, 0, 1}}},
     3}};

typedef struct attempt {
    const program *p;
    fg_compiled c;
    forge_ctx *host;
    forge_model model;
    forge_run *r;
    int opt, threads, set;
    fg_tensor in[INPUTS], want[8];
    bool ok;
} attempt;

static void
build(void *arg)
{
    attempt *t = arg;
    forge_options o;

    t->c.a = fg_arena_new(t->c.cx);
    t->c.m = fg_parse(t->c.cx, t->c.a, "test", t->p->text, NULL);
    forge_options_init(&o);
    o.opt = t->opt;
    o.check = 2;
    t->ok = t->c.m && fg_verify(t->c.m) && fg_compile_module(&t->c, &o);
}

/* Of the module before any pass: the reference has to be independent of them. */
static void
evaluate(void *arg)
{
    attempt *t = arg;
    fg_module *m = fg_parse(t->c.cx, t->c.a, "test", t->p->text, NULL);

    t->ok = m != NULL;
    for (int k = 0; t->ok && k < INPUTS; k++) {
        const input *i = &t->p->in[t->set][k];
        t->ok = fg_tensor_new(t->c.a, &t->in[k], fg_rt(m, m->input[k].reg)->dtype,
                              i->rank, i->dim);
        for (int64_t n = 0; t->ok && n < t->in[k].count; n++)
            fg_tensor_set_f64(&t->in[k], n, i->first + i->step * (double)n);
    }
    t->ok = t->ok && fg_eval(m, t->c.a, t->in, t->want, NULL);
}

static bool
same(const fg_tensor *want, forge_dtype d, int rank, const int64_t *dims,
     const void *data)
{
    fg_tensor got = {.dtype = (fg_dtype)d, .rank = rank, .data = (void *)(uintptr_t)data};

    if (got.dtype != want->dtype || rank != want->rank ||
        memcmp(dims, want->dim, (size_t)rank * sizeof *dims))
        return false;
    for (int64_t i = 0; i < want->count; i++) {
        double g = fg_tensor_f64(&got, i), w = fg_tensor_f64(want, i),
               e = g > w ? g - w : w - g;
        if (!(e <= 1e-5 * (w < 0 ? -w : w)))
            return false;
    }
    return true;
}

static bool
run_set(attempt *t)
{
    const fg_module *m = t->c.m;

    for (int k = 0; k < INPUTS; k++)
        if (forge_bind_input(t->r, m->input[k].name, (forge_dtype)t->in[k].dtype,
                             t->in[k].rank, t->in[k].dim, t->in[k].data))
            return false;
    if (forge_execute(t->r))
        return false;
    for (int k = 0; k < m->noutput; k++) {
        forge_dtype d;
        int rank;
        const int64_t *dims;
        const void *data = forge_output(t->r, m->output[k].name, &d, &rank, &dims);
        if (!same(&t->want[k], d, rank, dims, data)) {
            snprintf(t->host->message, sizeof t->host->message, "output %d differs", k);
            return false;
        }
    }
    return true;
}

static void
try(const program *p, int opt, int threads)
{
    attempt t = {.p = p, .opt = opt, .threads = threads};
    char what[200];

    t.c.cx = fg_ctx_new(NULL);
    forge_open(NULL, &t.host);
    snprintf(what, sizeof what, "%s (-O%d, %d threads)", p->name, opt, threads);
    bool made = fg_protect(t.c.cx, build, &t) == FG_RAISE_NONE && t.ok;
    expect(made, what, fg_first_error(t.c.cx));
    fg_model_init(&t.model, t.host);
    t.model.program = t.c.program;
    if (made && !forge_run_new(t.host, &t.model, &t.r) &&
        !forge_run_threads(t.r, threads))
        for (int round = 0; round < 2 * p->nset; round++) {
            t.set = round % p->nset;
            bool known = fg_protect(t.c.cx, evaluate, &t) == FG_RAISE_NONE && t.ok;
            expect(known, what, fg_first_error(t.c.cx));
            expect(known && run_set(&t), what, forge_message(t.host));
        }
    forge_run_free(t.r);
    fg_model_done(&t.model);
    forge_close(t.host);
    fg_compiled_free(&t.c);
}

/* ---- messages
 * ------------------------------------------------------------------------------- */

static const char shapes[] =
    "sym B in 1..4\nsym S in 1..\nsym P in 0..\n"
    "func @main(%ids: i64[B,S], %past: f32[B,2*P+1]) -> f32[B,2*P+1] {\n"
    "  %y = neg %past : f32[B,2*P+1]\n"
    "  ret %y\n"
    "}\n";

static void
expect_message(attempt *t, const char *name, forge_dtype d, int64_t a, int64_t b,
               const char *want)
{
    static int64_t data[256];
    const int64_t dims[] = {a, b}, good_ids[] = {2, 3}, good_past[] = {2, 5};
    char what[300];

    forge_bind_input(t->r, "ids", FORGE_I64, 2, good_ids, data);
    forge_bind_input(t->r, "past", FORGE_F32, 2, good_past, data);
    forge_status s = forge_bind_input(t->r, name, d, 2, dims, data);
    if (!s)
        s = forge_execute(t->r);
    snprintf(what, sizeof what, "message \"%s\"", want);
    expect(want ? s != FORGE_OK && !strcmp(forge_message(t->host), want) : s == FORGE_OK,
           what, forge_message(t->host));
}

static void
test_messages(void)
{
    const program p = {.text = shapes};
    attempt t = {.p = &p, .opt = 1, .threads = 1};

    t.c.cx = fg_ctx_new(NULL);
    forge_open(NULL, &t.host);
    fg_protect(t.c.cx, build, &t);
    expect(t.ok, "messages", fg_first_error(t.c.cx));
    fg_model_init(&t.model, t.host);
    t.model.program = t.c.program;
    if (t.ok && !forge_run_new(t.host, &t.model, &t.r)) {
        expect(forge_execute(t.r) == FORGE_USAGE &&
                   !strcmp(forge_message(t.host), "input \"ids\" is not bound"),
               "nothing bound", forge_message(t.host));
        expect_message(&t, "ids", FORGE_I64, 2, 9, NULL);
        expect_message(&t, "ids", FORGE_I64, 5, 3,
                       "input \"ids\": dimension 0 (\"B\") is 5, expected 1..4");
        expect_message(&t, "ids", FORGE_I64, 2, 0,
                       "input \"ids\": dimension 1 (\"S\") is 0, expected at least 1");
        expect_message(&t, "past", FORGE_F32, 3, 5,
                       "input \"past\": dimension 0 (\"B\") is 3, expected 2");
        expect_message(
            &t, "past", FORGE_F32, 2, 4,
            "input \"past\": dimension 1 is 4, expected 1 more than a multiple of 2");
        expect_message(&t, "past", FORGE_F64, 2, 5,
                       "input \"past\": the type is f64, expected f32");
        expect_message(&t, "other", FORGE_F32, 2, 5, "the model has no input \"other\"");
        expect_message(&t, "past", FORGE_F32, 2, 7, NULL);
    }
    forge_run_free(t.r);
    fg_model_done(&t.model);
    forge_close(t.host);
    fg_compiled_free(&t.c);
}

/* ---- threads
 * -------------------------------------------------------------------------------- */

static void
count_chunks(void *const *buf, const int64_t *arg, int64_t begin, int64_t end,
             void *scratch)
{
    int *seen = buf[0];

    (void)arg;
    for (int64_t i = begin; i < end; i++)
        __atomic_fetch_add(&seen[i], 1, __ATOMIC_RELAXED);
    *(char *)scratch = 1;
}

static void *
host_alloc(void *user, size_t n)
{
    (void)user;
    return malloc(n);
}

static void
host_free(void *user, void *p)
{
    (void)user;
    free(p);
}

/* Every chunk runs exactly once, whatever the number of chunks, threads, shares and pauses. */
static void
test_pool(void)
{
    enum { MOST = 500 };
    static int seen[MOST];
    static char scratch[8 * 64];
    void *buf[] = {seen};
    bool once = true;

    for (int threads = 1; threads <= 4; threads++) {
        fg_pool *pool = fg_pool_new(threads, host_alloc, host_free, NULL);
        for (int run = 0; run < 300; run++) {
            fg_pool_wake(pool);
            fg_pool_shares(pool, (uint32_t)(run % (FG_MAXSHARES + 1)));
            for (int chunks = 1 + run; chunks < MOST; chunks += 97) {
                memset(seen, 0, sizeof seen);
                fg_pool_kernel(pool, count_chunks, buf, NULL, 0, chunks, scratch, 64);
                for (int i = 0; i < MOST; i++)
                    once = once && seen[i] == (i < chunks);
            }
        }
        fg_pool_free(pool);
    }
    expect(once, "pool", "a chunk did not run exactly once");
}

static double
cpu_ms(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-3;
}

static void
stuck_chunk(void *const *buf, const int64_t *arg, int64_t begin, int64_t end,
            void *scratch)
{
    (void)buf, (void)arg, (void)end, (void)scratch;
    if (!begin)
        usleep(100000);
}

/* A pool takes no CPU time worth the name while nothing is to be done, nor while one thread
 * is held up. What else the machine does changes nothing of that. */
static void
test_idle_pool(void)
{
    static int seen[64];
    static char scratch[4 * 64];
    void *buf[] = {seen};
    fg_pool *pool = fg_pool_new(4, host_alloc, host_free, NULL);

    fg_pool_kernel(pool, count_chunks, buf, NULL, 0, 64, scratch, 64);
    double before = cpu_ms();
    usleep(200000);
    expect(cpu_ms() - before < 50, "pool", "it spins while nothing runs");
    before = cpu_ms();
    for (int k = 0; k < 3; k++)
        fg_pool_kernel(pool, stuck_chunk, NULL, NULL, 0, 64, scratch, 64);
    expect(cpu_ms() - before < 75, "pool", "it spins while one thread is held up");
    fg_pool_free(pool);
}

int
main(void)
{
    for (size_t k = 0; k < sizeof programs / sizeof *programs; k++)
        for (int opt = 0; opt < 2; opt++) {
            try(&programs[k], opt, 1);
            try(&programs[k], opt, 3);
        }
    test_messages();
    test_pool();
    test_idle_pool();
    return verdict();
}
