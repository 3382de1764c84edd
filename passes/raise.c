/* raise.c - exporters' spellings of norms, activations and rotations become one instruction.
 *
 *     %m = reduce_mean (mul %x, %x) {axes=[2], keep=1}
 *     %r = recip (sqrt (add %m, 1e-05))           =>   %y = rmsnorm %x, %w {axis=2}
 *     %y = mul %w, (mul %x, %r)
 *
 * Every constant, axis, operand and exponent is compared; a value inside the pattern that
 * somebody else reads is simply computed twice at worst. Products are flattened first, so
 * one matcher serves every order of factors. Part of fuse_ops: the raised forms are what
 * the code generators know. This file has what the rules share, and runs them.
 */
#include "passes/raise.h"

#include <math.h>
#include <stdio.h>

fg_inst *
fg_raise_part(fg_raiser *r, fg_reg x)
{
    fg_inst *d = fg_def(r->m, x);
    if (d && r->npart < FG_RAISE_PARTS)
        r->part[r->npart++] = d;
    return d;
}

/* ---- constants ------------------------------------------------------------------------- */

bool
fg_raise_scalar(const fg_raiser *r, fg_reg x, double *v)
{
    fg_exprs *ex = r->m->ex;
    return fg_const_splat(r->m, x, v) &&
           fg_e_is(ex, fg_type_count(ex, fg_rt(r->m, x)), 1);
}

/* A constant may be off by what rounding to its type can do. */
bool
fg_raise_close(const fg_raiser *r, fg_reg like, double v, double want)
{
    fg_dtype d = fg_rt(r->m, like)->dtype;
    double tolerance = d == FG_f16 ? 1e-3 : d == FG_bf16 ? 8e-3 : 1e-6;
    return fabs(v - want) <= tolerance * fabs(want);
}

bool
fg_raise_is(const fg_raiser *r, fg_reg x, double want)
{
    double v;
    return fg_raise_scalar(r, x, &v) && fg_raise_close(r, x, v, want);
}

/* ---- products as lists of factors ------------------------------------------------------ */

static bool
factor(fg_raiser *r, fg_reg x, fg_factors *p, int depth)
{
    double v;
    const fg_inst *d = fg_def(r->m, x);
    if (fg_raise_scalar(r, x, &v)) {
        p->c *= v;
        return true;
    }
    if (d && depth < 6 && d->op == FG_OP_mul) {
        fg_raise_part(r, x);
        return factor(r, d->in[0], p, depth + 1) && factor(r, d->in[1], p, depth + 1);
    }
    if (d && d->op == FG_OP_div && fg_raise_scalar(r, d->in[1], &v) && v != 0) {
        fg_raise_part(r, x);
        p->c /= v;
        return factor(r, d->in[0], p, depth + 1);
    }
    int times = 1;
    if (d && d->op == FG_OP_pow && fg_raise_scalar(r, d->in[1], &v) &&
        (v == 2 || v == 3)) {
        fg_raise_part(r, x);
        times = (int)v;
        x = d->in[0];
    }
    for (; times; times--) {
        if (p->n == FG_RAISE_FACTORS)
            return false;
        p->f[p->n++] = x;
    }
    return true;
}

bool
fg_raise_factor(fg_raiser *r, fg_reg x, fg_factors *p)
{
    *p = (fg_factors){.c = 1};
    return factor(r, x, p, 0);
}

static int
times_in(const fg_factors *p, fg_reg x)
{
    int n = 0;
    for (int k = 0; k < p->n; k++)
        n += p->f[k] == x;
    return n;
}

bool
fg_raise_is_power(fg_raiser *r, const fg_factors *p, fg_reg x, int n, double *c)
{
    fg_factors q;
    int parts = r->npart; /* x is not part of the idiom */
    bool all = fg_raise_factor(r, x, &q) && p->n == n * q.n;
    r->npart = parts;
    *c = p->c;
    for (int k = 0; all && k < q.n; k++)
        all = times_in(p, q.f[k]) == n * times_in(&q, q.f[k]);
    for (int k = 0; all && k < n; k++)
        *c /= q.c;
    return all;
}

/* ---- what came of it --------------------------------------------------------------------- */

fg_build
fg_raise_begin(fg_raiser *r, fg_inst *root)
{
    fg_build b = fg_build_before(root);
    for (int k = r->npart - 1; k >= 0; k--)
        fg_build_add_nodes(&b, r->part[k]);
    return b;
}

void
fg_raise_replace(fg_raiser *r, fg_inst *root, fg_reg with, const char *rule)
{
    fg_report_fusion(r->report, rule);
    fg_replace_uses(root->block, root->out[0], with);
    for (int k = 0; k < r->npart; k++)
        if (r->part[k]->out[0] < r->known)
            fg_bits_add(r->done, r->part[k]->out[0]);
    r->changed = true;
}

bool
fg_raise_miss(fg_raiser *r, const fg_inst *core, const char *idiom, int step,
              const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fg_report_spelled(r->report, r->row, false);
    fg_nearmiss **at = &r->near;
    while (*at && (*at)->core != core)
        at = &(*at)->next;
    if (!*at)
        *at = FG_NEW(r->scratch, fg_nearmiss);
    if ((*at)->core && (*at)->step > step)
        return false;
    (*at)->core = core;
    (*at)->idiom = idiom;
    (*at)->step = step;
    (*at)->reason = fg_strdup(r->scratch, text);
    return false;
}

static void
report_misses(fg_raiser *r)
{
    for (const fg_nearmiss *n = r->near; n; n = n->next)
        if (n->core->out[0] < r->known && !fg_bits_has(r->done, n->core->out[0]))
            fg_report_miss_at(r->report, "fuse_ops", fg_inst_where(r->m, n->core),
                              n->idiom, n->reason);
}

/* ---- the walk ------------------------------------------------------------------------------ */

static const struct {
    fg_op root;
    bool (*run)(fg_raiser *, fg_inst *);
} rules[] = {
#define IDIOM(op, rule, kind) {FG_OP_##op, fg_raise_##rule},
#include "passes/spellings.def"
};

static void
raise_block(fg_raiser *r, fg_block *b)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nregion; k++)
            raise_block(r, i->region[k]);
        if (i->nout != 1 || !fg_is_float(fg_rt(r->m, i->out[0])->dtype))
            continue;
        bool done = false;
        for (int k = 0; k < (int)(sizeof rules / sizeof *rules) && !done; k++) {
            r->npart = 0;
            r->row = FG_SPELL_idiom_mul_activation + k;
            done = rules[k].root == i->op && rules[k].run(r, i) &&
                   fg_report_spelled(r->report, r->row, true);
        }
    }
}

bool
fg_raise_idioms(fg_module *m, fg_passctx *cx)
{
    fg_raiser r = {.m = m,
                   .report = cx->report,
                   .scratch = cx->scratch,
                   .known = m->nreg,
                   .count = fg_count_uses(m, cx->scratch),
                   .done = fg_bits_new(cx->scratch, m->nreg)};
    raise_block(&r, m->body);
    report_misses(&r);
    return r.changed;
}
