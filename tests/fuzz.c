/* fuzz.c - random programs through the passes in random order, and through the code generator.
 *
 *     test-fuzz [--seconds=N] [--count=N] [--seed=N] [--code=N]
 *
 * Each program is evaluated before and after, at check level 2, and every --code'th one (8; 0:
 * none) compiled and run. How much results may differ is found by evaluating once more with
 * inputs that are off in their last bits. What differs more, or ends in a complaint, is
 * reduced and printed as a text test.
 */
#include "tests/fuzz.h"

#include "codegen/differ.h"
#include "passes/reduce.h"
#include "tests/lab.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { MAXPORTS = 64, MAXREASON = 300 };

typedef struct kase {
    uint64_t seed;
    const char *passes; /* NULL: compile instead */
    fg_ctx *cx;
    fg_arena *a;
    char reason[MAXREASON];
} kase;

/* What is tried now, for the handler of signals. */
static char now[1 << 16];

/* ---- inputs ------------------------------------------------------------------------ */

static double
rounding(fg_dtype d)
{
    return d == FG_f16 || d == FG_bf16 ? 1e-2 : d == FG_f64 ? 1e-9 : 5e-5;
}

/* The same for the same name and type, whatever else was taken away. With `off`, floats
 * differ as if they had been rounded once or twice. */
static void
fill(fg_tensor *t, const char *name, uint64_t seed, int off)
{
    uint64_t state = fg_hash(name, strlen(name), seed);
    lab_fill(t,
             fg_is_float(t->dtype) ? LAB_PLAIN
             : seed & 1            ? LAB_ODD
                                   : LAB_NATURAL,
             &state);
    for (int64_t k = 0; off && fg_is_float(t->dtype) && k < t->count; k++) {
        double sign = lab_below(&state, 2) ? 0.2 : -0.2;
        double v = fg_tensor_f64(t, k);
        fg_tensor_set_f64(t, k, v * (1 + off * sign * rounding(t->dtype)));
    }
}

static bool
make_inputs(const kase *c, fg_arena *a, fg_module *m, fg_tensor *in, int off)
{
    int64_t *sym = FG_NEWN(a, int64_t, fg_sym_count(m->ex) + 1);
    uint64_t state = c->seed;
    for (fg_sym s = 0; s < fg_sym_count(m->ex); s++) {
        const fg_syminfo *info = fg_sym_info(m->ex, s);
        sym[s] = (info->lo > 0 ? info->lo : 0) + (int64_t)lab_below(&state, 5);
        if (sym[s] > info->hi)
            sym[s] = info->hi;
    }
    for (int k = 0; k < m->ninput && k < MAXPORTS; k++) {
        const fg_type *t = fg_rt(m, m->input[k].reg);
        int64_t dim[FG_MAXRANK];
        for (int d = 0; d < t->rank; d++)
            if (!fg_e_eval(m->ex, t->dim[d], sym, &dim[d]) || dim[d] < 0)
                return false;
        if (!fg_tensor_new(a, &in[k], t->dtype, t->rank, dim))
            return false;
        fill(&in[k], m->input[k].name, c->seed, off);
    }
    return m->ninput <= MAXPORTS && m->noutput <= MAXPORTS;
}

/* ---- comparison -------------------------------------------------------------------- */

typedef struct results {
    fg_tensor want[MAXPORTS], less[MAXPORTS], more[MAXPORTS];
} results;

/* How far element k of output p moves when the inputs are off. */
static double
shaky(const results *r, int p, int64_t k)
{
    double w = fg_tensor_f64(&r->want[p], k), a = fg_tensor_f64(&r->less[p], k);
    double b = fg_tensor_f64(&r->more[p], k);
    if (!isfinite(w) || !isfinite(a) || !isfinite(b))
        return isfinite(w) || isfinite(a) || isfinite(b) ? INFINITY : 0;
    return fmax(fabs(w - a), fabs(w - b));
}

static bool
differs(const results *r, int p, const fg_tensor *got, int64_t *at)
{
    const fg_tensor *want = &r->want[p];
    bool flt = fg_is_float(want->dtype);
    double most = 0, move = 0;
    for (int64_t k = 0; k < want->count; k++) {
        double w = fg_tensor_f64(want, k);
        most = isfinite(w) ? fmax(most, fabs(w)) : most;
        move = fmax(move, shaky(r, p, k));
    }
    for (int64_t k = 0; k < want->count; k++) {
        double w = fg_tensor_f64(want, k), g = fg_tensor_f64(got, k);
        *at = k;
        if (!flt && fg_tensor_i64(want, k) != fg_tensor_i64(got, k) && move == 0)
            return true;
        /* What left the range on the way need not do so in another order. */
        if (!flt || g == w || !isfinite(w) || isinf(move))
            continue;
        if (!(fabs(g - w) <= rounding(want->dtype) * (1 + most) + 64 * move))
            return true;
    }
    return false;
}

static bool
fail(kase *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->reason, sizeof c->reason, fmt, ap);
    va_end(ap);
    return false;
}

static bool
compare(kase *c, const fg_module *m, const results *r, const fg_tensor *got)
{
    for (int p = 0; p < m->noutput; p++) {
        int64_t at;
        const fg_tensor *w = &r->want[p];
        if (got[p].dtype != w->dtype || got[p].rank != w->rank ||
            memcmp(got[p].dim, w->dim, sizeof *w->dim * (size_t)w->rank))
            return fail(c, "output %s has another type", m->output[p].name);
        if (differs(r, p, &got[p], &at))
            return fail(c, "output %s: element %lld is %.9g, not %.9g", m->output[p].name,
                        (long long)at, fg_tensor_f64(&got[p], at), fg_tensor_f64(w, at));
    }
    return true;
}

/* ---- one program ------------------------------------------------------------------- */

static bool
compiled(kase *c, fg_module *m, const fg_tensor *in, fg_tensor *out)
{
    fg_compiled made = {.cx = c->cx, .a = c->a, .m = m};
    forge_options o;
    forge_options_init(&o);
    o.check = 1;
    o.opt = (int)(c->seed & 1);
    bool ok = fg_compile_module(&made, &o);
    if (!ok)
        fail(c, "compile: %s", fg_last_text(c->cx));
    if (ok && !(ok = fg_differ_execute(NULL, &made, c->a, in, out)))
        fail(c, "run: %s", fg_last_text(c->cx));
    fg_cpu_free(made.code);
    return ok;
}

static bool
passed_through(kase *c, fg_module *m, const fg_tensor *in, fg_tensor *out)
{
    fg_report report = {.a = m->a};
    fg_pipeline p = {.passes = c->passes, .check = 2, .opt = 1, .rounds = 1, .alpha = 1};
    if (!fg_run_passes(m, &p, &report))
        return fail(c, "%s", fg_last_text(c->cx));
    return fg_eval(m, m->a, in, out, NULL) || fail(c, "after: %s", fg_last_text(c->cx));
}

typedef struct trial {
    kase *c;
    const char *text;
} trial;

/* Leaves the reason in the case when something is wrong; a program that cannot be evaluated
 * to begin with is not. */
static void
perform(void *arg)
{
    trial *t = arg;
    kase *c = t->c;
    results *r = FG_NEW(c->a, results);
    fg_tensor in[MAXPORTS], in2[MAXPORTS], got[MAXPORTS];
    fg_module *before = fg_parse(c->cx, c->a, "fuzz", t->text, NULL);
    fg_module *m = fg_parse(c->cx, c->a, "fuzz", t->text, NULL);
    if (!m || !fg_verify(before) || !make_inputs(c, c->a, before, in, 0) ||
        !fg_eval(before, c->a, in, r->want, NULL) ||
        !make_inputs(c, c->a, before, in2, -1) ||
        !fg_eval(before, c->a, in2, r->less, NULL) ||
        !make_inputs(c, c->a, before, in2, 1) ||
        !fg_eval(before, c->a, in2, r->more, NULL))
        return;
    for (int p = 0; p < before->noutput; p++)
        if (r->less[p].count != r->want[p].count || r->more[p].count != r->want[p].count)
            return;
    if (c->passes ? passed_through(c, m, in, got) : compiled(c, m, in, got))
        compare(c, before, r, got);
}

/* Whether something is wrong with the program, in an arena of its own. */
static bool
wrong(kase *c, const char *text)
{
    fg_ctx *outer = c->cx;
    fg_arena *a = c->a;
    trial t = {c, text};
    snprintf(now, sizeof now, "; seed %llu, %s\n%s", (unsigned long long)c->seed,
             c->passes ? c->passes : "compiled", text);
    *c->reason = 0;
    c->cx = fg_ctx_new(NULL);
    c->a = fg_arena_new(c->cx);
    if (fg_protect(c->cx, perform, &t))
        fail(c, "unwound: %s", fg_last_text(c->cx));
    fg_arena_free(c->a);
    fg_ctx_free(c->cx);
    c->cx = outer;
    c->a = a;
    return *c->reason != 0;
}

/* A fault of the same kind: what is reduced must not become another one. */
static bool
still_wrong(void *user, fg_module *m)
{
    kase *c = user;
    char kind = *c->reason, old[MAXREASON];
    strcpy(old, c->reason);
    fg_text t = fg_text_new(m->a);
    fg_print(&t, m);
    bool is = wrong(c, t.s) && *c->reason == kind;
    if (!is)
        strcpy(c->reason, old);
    return is;
}

/* Length of the first pass of a list, parameters included. */
static size_t
first_pass(const char *s)
{
    size_t n = strcspn(s, ",{");
    return s[n] == '{' ? n + strcspn(s + n, "}") + 1 : n;
}

/* The shortest list that still goes wrong. */
static void
reduce_passes(kase *c, const char *text)
{
    for (const char *s = c->passes; s && *s;) {
        size_t n = first_pass(s) + (s[first_pass(s)] == ',');
        const char *old = c->passes;
        char reason[MAXREASON];
        strcpy(reason, c->reason);
        char *less = fg_format(c->a, "%.*s%s", (int)(s - old), old, s + n);
        if (*less && less[strlen(less) - 1] == ',')
            less[strlen(less) - 1] = 0;
        c->passes = less;
        if (*less && wrong(c, text) && *c->reason == *reason) {
            s = less + (s - old);
            continue;
        }
        strcpy(c->reason, reason);
        c->passes = old;
        s += n;
    }
}

static void
show(kase *c, fg_module *m, const char *text)
{
    reduce_passes(c, text);
    const char *less = fg_reduce(m, c->a, text, NULL, still_wrong, c);
    reduce_passes(c, less);
    wrong(c, less);
    if (c->passes)
        printf("; RUN: --pass=%s\n", c->passes);
    else
        printf("; RUN: -O=%d\n", (int)(c->seed & 1));
    printf("; Seed %llu: %s\n%s----\n", (unsigned long long)c->seed, c->reason, less);
    fflush(stdout);
}

/* ---- many -------------------------------------------------------------------------- */

static const char *
random_passes(fg_arena *a, uint64_t *state)
{
    static const char *const tensor[] = {
        "dce",    "cse",    "fold",          "fuse_attention",
        "layout", "states", "scale_weights", "pack{least=1,waste=0}"};
    fg_text o = fg_text_new(a);
    for (uint64_t n = 1 + lab_below(state, 7); n; n--)
        fg_putf(&o, "%s%s", o.n ? "," : "",
                tensor[lab_below(state, sizeof tensor / sizeof *tensor)]);
    if (lab_below(state, 2)) {
        fg_puts(&o, ",fuse_ops");
        fg_puts(&o, lab_below(state, 2) ? ",place" : "");
    }
    return o.s;
}

typedef struct making {
    kase *c;
    fg_module *m;
    const char *text;
} making;

static void
make(void *arg)
{
    making *k = arg;
    uint64_t state = k->c->seed;
    k->m = fuzz_module(k->c->cx, k->c->a, lab_random(&state),
                       4 + (int)lab_below(&state, 24));
    fg_text t = fg_text_new(k->c->a);
    if (k->m)
        fg_print(&t, k->m);
    k->text = t.s;
}

/* False when the program of this seed goes wrong. */
static bool
try_seed(uint64_t seed, bool code)
{
    kase c = {.seed = seed, .cx = fg_ctx_new(NULL)};
    uint64_t state = seed ^ 0x5555;
    making k = {&c, NULL, NULL};
    c.a = fg_arena_new(c.cx);
    bool ok = fg_protect(c.cx, make, &k) == FG_RAISE_NONE;
    if (!ok)
        printf("seed %llu: cannot be made: %s\n", (unsigned long long)seed,
               fg_last_text(c.cx));
    c.passes = code ? NULL : random_passes(c.a, &state);
    if (ok && k.m && wrong(&c, k.text)) {
        ok = false;
        show(&c, k.m, k.text);
    }
    fg_arena_free(c.a);
    fg_ctx_free(c.cx);
    return ok;
}

static void
crashed(int number)
{
    static const char head[] = "; a signal ended this:\n";
    if (write(1, head, sizeof head - 1) < 0 || write(1, now, strlen(now)) < 0)
        _exit(2);
    signal(number, SIG_DFL);
    raise(number);
}

static double
seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int
main(int argc, char **argv)
{
    long limit = 10, count = 0, seed = 1, code = 8, passed = 0, failed = 0;
    const struct {
        const char *name;
        long *at;
    } options[] = {{"--seconds=", &limit},
                   {"--count=", &count},
                   {"--seed=", &seed},
                   {"--code=", &code}};
    for (int k = 1; k < argc; k++) {
        size_t o = 0;
        while (o < 4 && strncmp(argv[k], options[o].name, strlen(options[o].name)))
            o++;
        if (o == 4) {
            fprintf(stderr,
                    "usage: test-fuzz [--seconds=N] [--count=N] [--seed=N] [--code=N]\n");
            return 2;
        }
        *options[o].at = atol(argv[k] + strlen(options[o].name));
    }
    signal(SIGSEGV, crashed);
    signal(SIGABRT, crashed);
    signal(SIGFPE, crashed);
    signal(SIGPROF, crashed);
    for (double end = seconds() + (double)limit;
         count ? passed + failed < count : seconds() < end; seed++) {
        /* Of processor time: a machine that is busy elsewhere is no endless loop. */
        setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = 60}, NULL);
        bool ok = try_seed((uint64_t)seed, code && seed % code == 0);
        passed += ok;
        failed += !ok;
    }
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
