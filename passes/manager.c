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

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

const fg_passinfo fg_passes[] = {
#define PASS(name, from, to, meaning)                                                    \
    {#name, meaning, fg_pass_##name, FG_STAGE_##from, FG_STAGE_##to},
#include "passes/passes.def"
};
const int fg_npasses = sizeof fg_passes / sizeof *fg_passes;

/* By -O level. Dead code goes first, so that nothing works on it, and last, because the
 * others leave some; layout runs on what attention has not taken. */
static const char *const pipelines[] = {
    "fuse_ops",
    "dce,cse,fold,fuse_attention,layout,dce,fuse_ops",
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

/* Once per pass, node and reason: a second round meets the same obstacles again. */
void
fg_report_miss(fg_report *r, const char *pass, const char *node, const char *reason)
{
    fg_miss **m = &r->missed;
    for (; *m; m = &(*m)->next)
        if (!strcmp((*m)->pass, pass) && !strcmp((*m)->node, node) &&
            !strcmp((*m)->reason, reason))
            return;
    *m = FG_NEW(r->a, fg_miss);
    **m = (fg_miss){.pass = fg_strdup(r->a, pass),
                    .node = fg_strdup(r->a, node),
                    .reason = fg_strdup(r->a, reason)};
}

/* ---- measures ----------------------------------------------------------------------- */

static double
now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

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
run_pass(manager *g, const fg_passinfo *pass, int round)
{
    fg_module *m = g->m;
    int errors = m->cx->nerror;
    if (m->stage != pass->from) {
        static const char *const stage[] = {"tensor", "fused", "placed"};
        fg_error(m->cx, "pass %s needs stage %s, but the module is at stage %s",
                 pass->name, stage[pass->from], stage[m->stage]);
        return FG_FAILED;
    }
    fg_arena *scratch = fg_arena_new(m->cx);
    const char *before = g->p->check >= 2 ? text_of(m, scratch) : NULL;
    if (g->p->observe)
        g->p->observe(g->p->user, pass, round, true, false, m);
    fg_passctx cx = {scratch, g->report, g->p->alpha, g->p->opt};
    fg_ledger_row row = {
        .pass = pass->name, .round = round, .nodes_before = fg_inst_count(m->body)};
    long rss = rss_kb();
    double start = now_ms();
    fg_progress did = pass->run(m, &cx);
    row.ms = now_ms() - start;
    row.rss_delta_kb = rss_kb() - rss;
    row.nodes_after = fg_inst_count(m->body);
    row.changed = did == FG_CHANGED;
    FG_PUSH(g->report->a, g->report->row, g->report->nrow, g->report->caprow) = row;
    if (did != FG_FAILED && !check_after(g, pass, before, row.changed, scratch))
        did = FG_FAILED;
    fg_arena_free(scratch);
    if (did == FG_FAILED && m->cx->nerror == errors)
        fg_error(m->cx, "pass %s failed without saying why", pass->name);
    if (did != FG_FAILED && g->p->observe)
        g->p->observe(g->p->user, pass, round, false, row.changed, m);
    return did;
}

/* ---- running a list ----------------------------------------------------------------- */

static bool
in_list(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = list; s && *s; s += strspn(s, ", ")) {
        size_t len = strcspn(s, ", ");
        if (len == n && !memcmp(s, name, n))
            return true;
        s += len;
    }
    return false;
}

/* The passes of a list, without those skipped; false with a diagnostic for a name that
 * is not one. */
static bool
parse_list(manager *g, const char *list, bool skip, const fg_passinfo ***out, int *n)
{
    const fg_passinfo **v = NULL;
    size_t cap = 0;
    *n = 0;
    for (const char *s = list + strspn(list, ", "); *s; s += strspn(s, ", ")) {
        size_t len = strcspn(s, ", ");
        const fg_passinfo *pass = fg_pass_by_name(s, len);
        if (!pass)
            return fg_error(g->m->cx, "no pass is called \"%s\"",
                            fg_printable(g->m->a, s, len, 80));
        s += len;
        if (!skip || !in_list(g->p->skip, pass->name))
            FG_PUSH(g->m->a, v, *n, cap) = pass;
    }
    *out = v;
    return true;
}

static bool
run_list(manager *g, const fg_passinfo **pass, int n)
{
    int loop = 0, rounds = g->p->rounds > 0 ? g->p->rounds : DEFAULT_ROUNDS;
    while (loop < n && pass[loop]->to == FG_STAGE_TENSOR)
        loop++;
    bool changed = true;
    for (int round = 1; round <= rounds && changed; round++) {
        changed = false;
        for (int k = 0; k < loop; k++) {
            fg_progress did = run_pass(g, pass[k], round);
            if (did == FG_FAILED)
                return false;
            changed |= did == FG_CHANGED;
        }
    }
    for (int k = loop; k < n && !g->p->tensor_only; k++)
        if (run_pass(g, pass[k], 1) == FG_FAILED)
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
    const fg_passinfo **pass, **skipped;
    int n, nskipped;
    if (!parse_list(&g, list, true, &pass, &n) ||
        !parse_list(&g, p->skip ? p->skip : "", false, &skipped, &nskipped))
        return false;
    if (p->check >= 1 && !fg_verify(m))
        return fg_error(m->cx, "before the first pass, the module is not valid");
    return run_list(&g, pass, n);
}
