/* manager.c - the table of passes, the pipelines, and what happens around each pass.
 *
 *     dce,cse,fold,layout   TENSOR part: again while something changes, at most `rounds` times
 *     fuse_ops              then the rest, once
 *
 * A pass that breaks the module is our fault, not the model's: the verifier's complaint
 * is recorded and the pass named. At check level 2 a pass must also be honest about having
 * changed nothing, and what it leaves must survive being printed and parsed.
 */
#include "passes/pass.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

const fg_passinfo fg_passes[] = {
#define PASS(name, from, to, again, meaning)                                             \
    {#name, meaning, fg_pass_##name, FG_STAGE_##from, FG_STAGE_##to, FG_##again},
#include "passes/passes.def"
};
const int fg_npasses = sizeof fg_passes / sizeof *fg_passes;

const fg_paraminfo fg_params[] = {
#define PARAM(pass, name, lo, hi, dflt, meaning) {#pass, #name, lo, hi, dflt, meaning},
#include "passes/passes.def"
};

const fg_spellinfo fg_spellings[] = {
#define UP(op, step, kind) {"up", #op, #step, FG_##kind},
#define DOWN(op, step, kind) {"down", #op, #step, FG_##kind},
#define RESPELL(op, rule, kind) {"respell", #op, #rule, FG_##kind},
#define IDIOM(op, rule, kind) {"idiom", #op, #rule, FG_##kind},
#define FORM(op, what, kind) {"form", #op, #what, FG_##kind},
#include "passes/spellings.def"
};

/* By -O level. Dead code goes first, so that nothing works on it, and last, because the
 * others leave some; layout runs on what attention has not taken. */
static const char *const pipelines[] = {
    "quantize,states,fuse_ops",
    "dce,cse,fold,fuse_attention,layout,scale_weights,quantize,dce,states,pack,fuse_ops",
};

enum { DEFAULT_ROUNDS = 2 };

const fg_passinfo *
fg_pass_by_name(const char *s, size_t n)
{
    for (int k = 0; k < fg_npasses; k++)
        if (strlen(fg_passes[k].name) == n && !memcmp(fg_passes[k].name, s, n))
            return &fg_passes[k];
    return NULL;
}

/* ---- report ------------------------------------------------------------------------- */

static double
clock_ms(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double
now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

/* For what takes microseconds: time in which something else ran does not count. */
static double
thread_ms(void)
{
    return clock_ms(CLOCK_THREAD_CPUTIME_ID);
}

fg_report
fg_report_new(fg_arena *a)
{
    return (fg_report){.a = a, .begin_ms = now_ms()};
}

void
fg_report_phase(fg_report *r, const char *name)
{
    const fg_phase *last = r->nphase ? &r->phase[r->nphase - 1] : NULL;
    double start = last ? last->start_ms + last->ms : 0;

    assert(r->nphase < (int)(sizeof r->phase / sizeof *r->phase));
    r->phase[r->nphase++] = (fg_phase){name, start, now_ms() - r->begin_ms - start};
}

void
fg_report_fusion(fg_report *r, const char *rule)
{
    fg_count **c = &r->fusions;
    while (*c && strcmp((*c)->rule, rule))
        c = &(*c)->next;
    if (!*c) {
        *c = FG_NEW(r->a, fg_count);
        (*c)->rule = fg_strdup(r->a, rule);
    }
    (*c)->count++;
}

bool
fg_report_spelled(fg_report *r, fg_spelling row, bool took)
{
    fg_spelled *s = &r->spelled[row];
    *(took ? &s->taken : &s->refused) += 1;
    return took;
}

/* Once per pass, node and reason: a second round meets the same obstacles again. */
void
fg_report_miss(fg_report *r, const char *pass, const char *node, const char *reason)
{
    double start = thread_ms();
    fg_miss new = {.pass = pass, .node = node, .reason = reason}, **m = &r->missed;
    new.hash = fg_hash(node, strlen(node), fg_hash(reason, strlen(reason), 0));
    while (*m && ((*m)->hash != new.hash || strcmp((*m)->pass, pass) ||
                  strcmp((*m)->node, node) || strcmp((*m)->reason, reason)))
        m = &(*m)->next;
    if (!*m) {
        new.pass = fg_strdup(r->a, pass);
        new.node = fg_strdup(r->a, node);
        new.reason = fg_strdup(r->a, reason);
        *m = FG_NEW(r->a, fg_miss);
        **m = new;
    }
    r->own_ms += thread_ms() - start;
}

void
fg_report_miss_at(fg_report *r, const char *pass, const char *node, const char *step,
                  const char *reason)
{
    fg_report_miss(r, pass, node,
                   step ? fg_format(r->a, "%s: %s", step, reason) : reason);
}

void
fg_report_forget_misses(fg_report *r, const char *pass)
{
    for (fg_miss **m = &r->missed; *m;)
        if (!strcmp((*m)->pass, pass))
            *m = (*m)->next;
        else
            m = &(*m)->next;
}

/* ---- measures ----------------------------------------------------------------------- */

/* Resident set, in a few microseconds; 0 where there is no /proc. */
static long
rss_kb(void)
{
    char text[64];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *second = strchr(text, ' ');
    return second ? strtol(second, NULL, 10) * (sysconf(_SC_PAGESIZE) / 1024) : 0;
}

/* ---- running one pass --------------------------------------------------------------- */

typedef struct item { /* of a list of passes */
    const fg_passinfo *pass;
    double param[FG_NPARAMS];
} item;

typedef struct manager {
    fg_module *m;
    const fg_pipeline *p;
    fg_report *report;
} manager;

static const char *
text_of(fg_module *m, fg_arena *a)
{
    fg_text t = fg_text_new(a);
    fg_print(&t, m);
    return t.s;
}

static bool
check_honesty(manager *g, const fg_passinfo *pass, const char *before, bool changed,
              fg_arena *scratch)
{
    fg_ctx *cx = g->m->cx;
    const char *after = text_of(g->m, scratch);
    if (!changed && strcmp(before, after))
        return fg_error(cx, "pass %s changed the module and says it did not", pass->name);
    fg_arena *a = fg_arena_new(cx);
    fg_module *again = fg_parse_again(g->m, a, pass->name, after);
    bool same = again && !strcmp(text_of(again, a), after);
    fg_arena_free(a);
    return same || fg_error(cx, "after pass %s, text and module differ", pass->name);
}

static bool
check_after(manager *g, const fg_passinfo *pass, const char *before, bool changed,
            fg_arena *scratch)
{
    if (g->m->stage != pass->to)
        return fg_error(g->m->cx, "pass %s left the wrong stage", pass->name);
    if (g->p->check >= 1 && !fg_verify(g->m))
        return fg_error(g->m->cx, "after pass %s, the module is not valid", pass->name);
    return g->p->check < 2 || check_honesty(g, pass, before, changed, scratch);
}

static fg_progress
run_pass(manager *g, const item *it, int round)
{
    const fg_passinfo *pass = it->pass;
    fg_module *m = g->m;
    int errors = m->cx->nerror;
    fg_arena *scratch = fg_arena_new(m->cx);
    const char *before = g->p->check >= 2 ? text_of(m, scratch) : NULL;
    if (g->p->observe)
        g->p->observe(g->p->user, pass, round, true, false, m);
    fg_passctx cx = {scratch, g->report, it->param, g->p->opt};
    double own = -thread_ms();
    fg_ledger_row row = {
        .pass = pass->name, .round = round, .nodes_before = fg_inst_count(m->body)};
    long rss = rss_kb();
    own += thread_ms();
    double start = now_ms();
    fg_progress did = pass->run(m, &cx);
    row.ms = now_ms() - start;
    own -= thread_ms();
    row.start_ms = start - g->report->begin_ms;
    row.rss_delta_kb = rss_kb() - rss;
    row.nodes_after = fg_inst_count(m->body);
    row.changed = did == FG_CHANGED;
    FG_PUSH(g->report->a, g->report->row, g->report->nrow, g->report->caprow) = row;
    g->report->own_ms += own + thread_ms();
    if (did != FG_FAILED && !check_after(g, pass, before, row.changed, scratch))
        did = FG_FAILED;
    fg_arena_free(scratch);
    if (did == FG_FAILED && m->cx->nerror == errors)
        fg_error(m->cx, "pass %s failed without saying why", pass->name);
    if (did != FG_FAILED && g->p->observe)
        g->p->observe(g->p->user, pass, round, false, row.changed, m);
    return did;
}

/* ---- lists ---------------------------------------------------------------------------- */

static const char separators[] = ", \t\n";
static const char *const stage_text[] = {"tensor", "fused", "placed"};

static bool
in_list(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = list; s && *s; s += strspn(s, separators)) {
        size_t len = strcspn(s, separators);
        if (len == n && !memcmp(s, name, n))
            return true;
        s += len;
    }
    return false;
}

typedef struct reader {
    fg_ctx *cx;
    const char *what, *list, *s; /* the text's name, it, and what is left of it */
} reader;

static reader
read_from(fg_ctx *cx, const char *what, const char *list)
{
    return (reader){cx, what, list, list + strspn(list, separators)};
}

/* What is wrong at r->s, and where that is. */
static bool
bad_list(const reader *r, const char *fmt, ...)
{
    va_list ap;
    fg_text t = fg_text_new(r->cx->arena);

    va_start(ap, fmt);
    fg_vputf(&t, fmt, ap);
    va_end(ap);
    return fg_error(r->cx, "%s:1:%d: %s", r->what, (int)(r->s - r->list) + 1, t.s);
}

static size_t
word(const char *s)
{
    size_t n = 0;

    while (s[n] == '_' || (s[n] >= 'a' && s[n] <= 'z') || (s[n] >= '0' && s[n] <= '9'))
        n++;
    return n;
}

/* `name=value`, a parameter of it->pass. */
static bool
read_param(reader *r, item *it)
{
    const char *s = r->s;
    size_t n = word(s);
    int k = 0;
    char *end;

    while (k < FG_NPARAMS &&
           (strcmp(fg_params[k].pass, it->pass->name) || strlen(fg_params[k].name) != n ||
            memcmp(fg_params[k].name, s, n)))
        k++;
    if (k == FG_NPARAMS)
        return bad_list(r, "%s has no parameter \"%s\"", it->pass->name,
                        fg_printable(r->cx->arena, s, n ? n : strcspn(s, "}"), 40));
    if (s[n] != '=')
        return bad_list(r, "expected %s=VALUE", fg_params[k].name);
    r->s += n + 1;
    it->param[k] = strtod(r->s, &end);
    if (end == r->s ||
        !(it->param[k] >= fg_params[k].lo && it->param[k] <= fg_params[k].hi))
        return bad_list(r, "%s is a number from %g to %g", fg_params[k].name,
                        fg_params[k].lo, fg_params[k].hi);
    r->s = end;
    return true;
}

/* `name` or `name{parameter=value,..}`; it->param holds the defaults. */
static bool
read_item(reader *r, item *it)
{
    size_t n = word(r->s), shown = n ? n : strcspn(r->s, separators);

    if (!(it->pass = fg_pass_by_name(r->s, n))) {
        const char *near =
            fg_closest(r->s, n, fg_passes, (size_t)fg_npasses, sizeof *fg_passes);
        return bad_list(r, "no pass is called \"%s\"%s%s%s",
                        fg_printable(r->cx->arena, r->s, shown, 80),
                        near ? "; did you mean \"" : "", near ? near : "",
                        near ? "\"?" : "");
    }
    r->s += n;
    if (*r->s != '{')
        return true;
    do {
        r->s++;
        if (!read_param(r, it))
            return false;
    } while (*r->s == ',');
    if (*r->s != '}')
        return bad_list(r, "expected , or }");
    r->s++;
    return true;
}

/* The passes of a list, without those skipped; `start`: the stage it begins with, -1 when the
 * list decides. */
static bool
read_list(reader r, fg_arena *a, const fg_pipeline *p, int start, item **out, int *n)
{
    size_t cap = 0;
    int stage = start;

    *n = 0;
    *out = NULL;
    while (*r.s) {
        item it = {NULL, {0}};
        for (int k = 0; k < FG_NPARAMS; k++)
            it.param[k] = fg_params[k].dflt;
        it.param[FG_PARAM_fuse_attention_alpha] = p->alpha;
        if (p->group) {
            it.param[FG_PARAM_quantize_bits] = p->bits;
            it.param[FG_PARAM_quantize_group] = p->group;
            it.param[FG_PARAM_quantize_round] = p->round;
        }
        reader before = r;
        if (!read_item(&r, &it))
            return false;
        if (*r.s && !strchr(separators, *r.s))
            return bad_list(&r, "expected a comma");
        r.s += strspn(r.s, separators);
        if (in_list(p->skip, it.pass->name))
            continue;
        if (stage >= 0 && (int)it.pass->from != stage)
            return bad_list(&before,
                            "pass %s needs stage %s, but the module is at stage %s",
                            it.pass->name, stage_text[it.pass->from], stage_text[stage]);
        stage = (int)it.pass->to;
        FG_PUSH(a, *out, *n, cap) = it;
    }
    return true;
}

bool
fg_check_passes(fg_ctx *cx, const char *what, const char *list)
{
    const fg_pipeline none = {.alpha = 0};
    item *it;
    int n;

    return !list || read_list(read_from(cx, what, list), cx->arena, &none, -1, &it, &n);
}

bool
fg_check_names(fg_ctx *cx, const char *what, const char *list)
{
    reader r = read_from(cx, what, list ? list : "");
    item it;

    for (; *r.s; r.s += strspn(r.s, separators))
        if (!read_item(&r, &it))
            return false;
    return true;
}

/* The list as text that runs it again, behind what ran already. */
static void
record_list(fg_report *r, const item *it, int n)
{
    fg_text t = fg_text_new(r->a);

    fg_puts(&t, r->passes ? r->passes : "");
    for (int k = 0; k < n; k++) {
        int shown = 0;
        fg_putf(&t, "%s%s", t.n ? "," : "", it[k].pass->name);
        for (int j = 0; j < FG_NPARAMS; j++) {
            if (strcmp(fg_params[j].pass, it[k].pass->name) ||
                it[k].param[j] == fg_params[j].dflt)
                continue;
            fg_putf(&t, "%s%s=%.17g", shown++ ? "," : "{", fg_params[j].name,
                    it[k].param[j]);
        }
        fg_puts(&t, shown ? "}" : "");
    }
    r->passes = t.s;
}

/* ---- running a list ----------------------------------------------------------------- */

static bool
run_list(manager *g, const item *it, int n)
{
    int loop = 0, rounds = g->p->rounds > 0 ? g->p->rounds : DEFAULT_ROUNDS;
    while (loop < n && it[loop].pass->again)
        loop++;
    bool changed = true;
    for (int round = 1; round <= rounds && changed; round++) {
        changed = false;
        for (int k = 0; k < loop; k++) {
            fg_progress did = run_pass(g, &it[k], round);
            if (did == FG_FAILED)
                return false;
            changed |= did == FG_CHANGED;
        }
    }
    for (int k = loop; k < n && !g->p->tensor_only; k++)
        if (run_pass(g, &it[k], 1) == FG_FAILED)
            return false;
    return true;
}

bool
fg_run_passes(fg_module *m, const fg_pipeline *p, fg_report *r)
{
    const int last = (int)(sizeof pipelines / sizeof *pipelines) - 1;
    manager g = {m, p, r};
    const char *list = p->passes;
    if (!list)
        list = pipelines[p->opt < 0 ? 0 : p->opt > last ? last : p->opt];
    item *it;
    int n;
    if (!read_list(read_from(m->cx, "passes", list), m->a, p, (int)m->stage, &it, &n) ||
        !fg_check_names(m->cx, "skip", p->skip))
        return false;
    if (p->check >= 1 && !fg_verify(m))
        return fg_error(m->cx, "before the first pass, the module is not valid");
    record_list(r, it, n);
    return run_list(&g, it, n);
}
