/* tune_search.c - one knob after the other, each trial a duel with the best so far.
 *
 *     best      1.000 1.010 0.990 ..  ms     run in turn, the order of a pair swapped
 *     rows=5    0.960 0.970 0.950 ..  ms     each time: 21 of 21 pairs faster, 4 % saved
 *
 * A build is taken only if it wins more pairs than chance gives once in a hundred times, saves
 * more than a build measured against itself seems to, gives the same results, and does
 * all that again when it is compiled anew. At the end the best duels with the default; if it
 * does not win, nothing was found. Which knobs are worth a trial, and in which order, the
 * cost model says: by the time that the kernels they act on spend above the machine's
 * bound; builds that it finds dearer by a tenth are not run.
 */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>

#include "tools/compare.h"
#include "tools/progress.h"
#include "tools/tune.h"

enum { LEAST_PAIRS = 7, HOPELESS = 3, MOST_PAIRS = 300, WATCHED = 5, MOST_MOVES = 80 };

#define LEAST_GAIN 0.01 /* that counts as one */
#define DEAR 1.1        /* times the default's cost: not worth running */
#define FOR_RESULT 0.2  /* share of the time that is kept for the last duel */

static double
elapsed(const tune *t)
{
    return (tool_now_ms() - t->begin_ms) * 1e-3;
}

/* ---- builds ---------------------------------------------------------------------------- */

/* The default's list of passes, with the choice's. */
static const char *
passes_of(fg_arena *a, const char *list, const tune_choice *c)
{
    fg_text t = fg_text_new(a);

    for (const char *s = list; *s;) {
        size_t name = strcspn(s, "{,"), n = name;
        if (s[n] == '{')
            n += strcspn(s + n, "}") + 1;
        bool pack = name == 4 && !memcmp(s, "pack", 4);
        bool fuse = name == 8 && !memcmp(s, "fuse_ops", 8);
        if (!pack || c->pack) {
            fg_puts(&t, t.n ? "," : "");
            if (fuse)
                fg_putf(&t, "fuse_ops{size=%d}", c->size);
            else
                fg_putf(&t, "%.*s", (int)n, s);
        }
        s += n;
        s += *s == ',';
    }
    return t.s;
}

static void
read_report(const tune *t, tune_build *x)
{
    cJSON *o = cJSON_Parse(forge_model_report(x->b.m));
    const cJSON *cost = cJSON_GetObjectItem(o, "cost");
    const char *knobs = cJSON_GetStringValue(cJSON_GetObjectItem(o, "knobs"));

    x->cost = cost ? cost->valuedouble : 0;
    x->knobs =
        fg_format(t->b.a, "%s --threads=%d", knobs ? knobs : "", x->choice.threads);
    cJSON_Delete(o);
}

static void
drop(tune *t, tune_build *x)
{
    if (!x || x == t->start || x == t->best)
        return;
    bench_decode_end(&x->b);
    forge_run_free(x->b.r);
    forge_model_free(x->b.m);
    x->b.r = NULL;
    x->b.m = NULL;
}

static tune_build *
compile(tune *t, const tune_choice *c)
{
    fg_arena *a = t->b.a;
    tune_build *x = FG_NEW(a, tune_build);
    fg_text text = fg_text_new(a);

    x->b = t->b;
    x->b.iterations = MOST_PAIRS * 8;
    x->choice = *c;
    x->b.c.threads = c->threads;
    fg_knobs_write(&text, c->knob);
    x->b.c.o.codegen = text.n ? text.s : NULL;
    if (t->passes)
        x->b.c.o.passes = passes_of(a, t->passes, c);
    if (!bench_compile(&x->b)) {
        t->b.code = x->b.code;
        return NULL;
    }
    read_report(t, x);
    return x;
}

/* Its results are those of the default build, up to rounding. */
static bool
same_results(const tune *t, const tune_build *x)
{
    for (int k = 0; k < t->nwant; k++) {
        fg_tensor got;
        if (!t->want[k].data)
            continue;
        if (!tool_output(x->b.r, x->b.m, k, &got) || got.count != t->want[k].count ||
            tool_compare(&got, &t->want[k], (tool_tolerance){-1, -1}).wrong)
            return false;
    }
    return true;
}

/* Outputs that stay in a state are not to be had; what is made of them is. */
static void
keep_results(tune *t)
{
    const tune_build *x = t->start;

    t->nwant = forge_model_outputs(x->b.m);
    t->want = FG_NEWN(t->b.a, fg_tensor, (size_t)t->nwant + 1);
    for (int k = 0; k < t->nwant; k++) {
        fg_tensor *w = &t->want[k];
        bool had = tool_output(x->b.r, x->b.m, k, w);
        w->data = had ? fg_dup(t->b.a, w->data, (size_t)tool_bytes(w)) : NULL;
    }
}

static bool
prepare(tune *t, tune_build *x)
{
    if (!bench_first_run(&x->b)) {
        t->b.code = x->b.code;
        return false;
    }
    return true;
}

static bool
warm_up(tune *t, tune_build *x)
{
    bool ok = bench_warm_up(&x->b);

    t->b.code = ok ? t->b.code : x->b.code;
    return ok;
}

/* ---- duels ----------------------------------------------------------------------------- */

static bool
shot(tune *t, tune_build *x, double *ms)
{
    if (x->b.nlat == x->b.iterations)
        x->b.nlat = 0;
    bool ok = bench_step(&x->b);
    t->b.code = ok ? t->b.code : x->b.code;
    *ms = ok ? x->b.lat[x->b.nlat - 1] : 0;
    return ok;
}

static int
ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

static double
median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n ? v[n / 2] : 0;
}

/* stop: when the second has lost some pairs more than it won. */
static bool
duel(tune *t, tune_build *x, tune_build *y, double seconds, bool stop, tune_duel *d)
{
    static const double sure = 2.33; /* standard deviations: once in a hundred times */
    double a[MOST_PAIRS], b[MOST_PAIRS], end = tool_now_ms() + seconds * 1e3;
    int n = 0;

    *d = (tune_duel){0};
    while (n < MOST_PAIRS && (n < LEAST_PAIRS || tool_now_ms() < end)) {
        bool swapped = n % 2;
        if (!shot(t, swapped ? y : x, swapped ? &b[n] : &a[n]) ||
            !shot(t, swapped ? x : y, swapped ? &a[n] : &b[n]))
            return false;
        d->wins += b[n] < a[n];
        n++;
        if (stop && n - 2 * d->wins >= HOPELESS)
            break;
    }
    d->pairs = n;
    d->first = median(a, n);
    d->second = median(b, n);
    d->gain = d->first > 0 ? 1 - d->second / d->first : 0;
    d->sure = d->wins > n / 2.0 + sure * sqrt(n) / 2;
    return true;
}

/* y is compiled again for it: where its memory happens to lie can make a build a percent
 * faster each time it runs, but not the next build. */
static bool
duel_anew(tune *t, tune_build *x, tune_build *y, double seconds, tune_duel *d)
{
    tune_build *fresh = compile(t, &y->choice);
    bool ok = fresh && prepare(t, fresh) && warm_up(t, fresh) &&
              duel(t, x, fresh, seconds, false, d);

    drop(t, fresh);
    return ok;
}

static bool
won(const tune *t, const tune_duel *d)
{
    return d->sure && d->gain > fmax(LEAST_GAIN, 2 * t->noise);
}

/* ---- moves ----------------------------------------------------------------------------- */

typedef struct move {
    const char *name;
    size_t at; /* in tune_choice: which int */
    int value;
    double headroom;
} move;

static int
most_headroom(const void *x, const void *y)
{
    double a = ((const move *)x)->headroom, b = ((const move *)y)->headroom;

    return (a < b) - (a > b);
}

/* The most promising first: by time above the bound, or, for fewer threads, by what starting
 * kernels takes; those that cannot gain what counts are left out. */
static int
list_moves(const tune *t, move *m)
{
    static const int sizes[] = {4, 12, 24};
    int n = 0;

    for (int k = 0; k < FG_NKNOBS; k++)
        for (int j = 0; j < FG_KNOB_TRIES && fg_knobs[k].tries[j]; j++)
            m[n++] = (move){fg_knobs[k].name,
                            offsetof(tune_choice, knob) + (size_t)k * sizeof(int),
                            fg_knobs[k].tries[j], t->fit.headroom[fg_knobs[k].on]};
    if (t->start->choice.pack)
        m[n++] =
            (move){"pack", offsetof(tune_choice, pack), 0, t->fit.headroom[FG_KNOB_BOTH]};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        m[n++] = (move){"fuse_ops.size", offsetof(tune_choice, size), sizes[k],
                        t->fit.headroom[0] / 2};
    for (int k = 1; t->b.c.threads < 0 && k < t->start->choice.threads && k < 4; k++)
        m[n++] = (move){"threads", offsetof(tune_choice, threads),
                        t->start->choice.threads >> k,
                        t->fit.kernels * t->fit.rates.start_us / 2};
    qsort(m, (size_t)n, sizeof *m, most_headroom);
    while (n && (m[n - 1].headroom < LEAST_GAIN * t->fit.total || !m[n - 1].name))
        n--;
    return n;
}

static int *
field(tune_choice *c, const move *m)
{
    return (int *)((char *)c + m->at);
}

/* ---- the search -------------------------------------------------------------------------- */

static bool
judge(tune *t, tune_build *x, double seconds, tune_trial *r)
{
    if (x->cost > DEAR * t->start->cost) {
        r->verdict = TUNE_COSTLY;
        return true;
    }
    if (!prepare(t, x))
        return false;
    r->verdict = TUNE_WRONG;
    if (!same_results(t, x))
        return true;
    if (!warm_up(t, x) || !duel(t, t->best, x, seconds, true, &r->duel))
        return false;
    r->verdict = r->duel.gain <= 0 ? TUNE_SLOWER : TUNE_UNSURE;
    if (!won(t, &r->duel))
        return true;
    tune_duel again;
    if (!duel_anew(t, t->best, x, seconds, &again))
        return false;
    if (won(t, &again))
        r->verdict = TUNE_TAKEN;
    return true;
}

static bool
try_move(tune *t, const move *m, double seconds)
{
    tune_choice c = t->best->choice;
    tune_trial r = {.change = fg_format(t->b.a, "%s=%d", m->name, m->value)};

    if (*field(&c, m) == m->value)
        return true;
    *field(&c, m) = m->value;
    tune_build *x = compile(t, &c);
    bool ok = x && judge(t, x, seconds, &r);
    if (ok && r.verdict == TUNE_TAKEN) {
        tune_build *old = t->best;
        t->best = x;
        x = old;
    }
    drop(t, x);
    if (!ok)
        return false;
    FG_PUSH(t->b.a, t->trial, t->ntrial, t->captrial) = r;
    tool_progress_end();
    tune_print_trial(t, &r);
    tool_progress_begin("tuning", t->b.c.model);
    return true;
}

static bool
search(tune *t)
{
    move m[MOST_MOVES];
    int n = list_moves(t, m);
    double until = t->duration * (1 - FOR_RESULT), each = t->duration / (t->trials + 4);

    for (int before = -1; before != t->ntrial;) {
        const tune_build *best = t->best;
        before = t->ntrial;
        for (int k = 0; k < n && t->ntrial < t->trials && elapsed(t) < until; k++)
            if (!try_move(t, &m[k], each))
                return false;
        if (best == t->best)
            break;
    }
    return true;
}

/* The default build: its results, its kernels' times, and how much it seems to gain over
 * itself. */
static bool
begin(tune *t)
{
    tune_choice c = {.size = 63, .pack = 1, .threads = t->b.c.threads};

    for (int k = 0; k < FG_NKNOBS; k++)
        c.knob[k] = fg_knobs[k].dflt;
    if (t->b.c.o.codegen &&
        !fg_knobs_read(t->b.cx, "--codegen", t->b.c.o.codegen, c.knob))
        return bench_fail(&t->b, "%s", fg_first_error(t->b.cx));
    if (!(t->start = t->best = compile(t, &c)) || !prepare(t, t->start))
        return false;
    keep_results(t);
    if (!warm_up(t, t->start))
        return false;
    bench *b = &t->start->b;
    t->start->choice.threads = b->r->threads;
    read_report(t, t->start);
    const char *list = strstr(t->start->knobs, "--passes=");
    list = list ? list + strlen("--passes=") : "";
    t->passes = fg_format(t->b.a, "%.*s", (int)strcspn(list, " "), list);
    const char *size = strstr(t->passes, "fuse_ops{size=");
    if (size)
        t->start->choice.size = atoi(size + strlen("fuse_ops{size="));
    t->start->choice.pack = strstr(t->passes, "pack") != NULL;
    bench_watch(b);
    double ms;
    for (int k = 0; k < WATCHED; k++)
        if (!shot(t, t->start, &ms))
            return false;
    b->r->hook = NULL;
    b->threads = b->r->threads;
    tune_fit_model(t->b.a, b, &t->fit);
    for (int k = 0; k < 2 && (!k || elapsed(t) < t->duration / 8); k++) {
        tune_duel d;
        if (!duel_anew(t, t->start, t->start, t->duration / (t->trials + 4), &d))
            return false;
        t->noise = fmax(t->noise, fabs(d.gain));
    }
    return true;
}

bool
tune_run(tune *t)
{
    t->begin_ms = tool_now_ms();
    tool_progress_begin("tuning", t->b.c.model);
    bool ok = begin(t) && search(t);
    if (ok && t->best != t->start) {
        double left = t->duration - elapsed(t);
        ok = duel_anew(t, t->start, t->best, fmax(left, t->duration * FOR_RESULT / 2),
                       &t->result);
        if (ok && !won(t, &t->result)) {
            tune_build *lost = t->best;
            t->best = t->start;
            drop(t, lost);
        }
    }
    tool_progress_end();
    t->seconds = elapsed(t);
    return ok;
}
