/* emit.c - the pull emitter's frame: one kernel's function, its arguments, the memory of
 * what was pulled, and the walk from a register to the rule that makes its value.
 *
 *     pull(%r, index)  =  what was pulled before at the same index, or else
 *                         a load, when %r is an operand of the kernel
 *                         the kernel emitter's own value, when it took %r over
 *                         the rule of the instruction that defines %r
 */
#include "codegen/cpu/pull.h"

struct fg_source {
    int param;         /* 1 + operand */
    uint32_t question; /* the last one asked, and about which axes */
    int8_t p, q;
    fg_pullfn *fn;
    void *user;
};

struct fg_memo {
    fg_reg r;
    int rank, lanes;
    fg_v mask, value;
    fg_index ix[FG_MAXRANK];
};

struct fg_source *
fg_em_sources(fg_arena *a, const fg_module *m)
{
    return FG_NEWN(a, struct fg_source, m->nreg);
}

void
fg_em_begin(fg_em *e, fg_inst *kernel, const char *name)
{
    fg_ll *g = e->g;
    fg_block *r = kernel->region[0];
    fg_t param[5] = {g->ptr, g->ptr, g->i64, g->i64, g->ptr};
    ll_function(g, name, g->none, 5, param, false);
    e->kernel = kernel;
    e->region = r;
    e->begin = ll_param(g, 2);
    e->end = ll_param(g, 3);
    e->scratch = ll_param(g, 4);
    e->bytes = FG_E_BAD;
    e->arg = NULL;
    e->argv = NULL;
    e->narg = e->nmemo = 0;
    e->caparg = e->capargv = e->capmemo = 0;
    e->memo = NULL;
    e->failed = false;
    e->buf = FG_NEWN(e->a, fg_v, (size_t)kernel->nin + (size_t)kernel->nout + 1);
    for (int i = 0; i < r->nparam; i++)
        e->source[r->param[i]] = (struct fg_source){.param = i + 1};
    fg_each_inst(r, i)
        for (int k = 0; k < i->nout; k++)
            e->source[i->out[k]] = (struct fg_source){0};
}

void
fg_em_part(fg_em *e, const fg_part *part, int k)
{
    e->part = part;
    e->label = (uint32_t)k + 1;
    e->lanes = 1;
    e->mask = NULL;
    e->chunks = fg_ec(e->m->ex, 1);
    e->scratch_bytes = fg_ec(e->m->ex, 0);
    e->flops = FG_E_BAD;
}

void
fg_em_end(fg_em *e)
{
    ll_ret(e->g, NULL);
}

/* ---- the kernel's operands and results
 * ------------------------------------------------- */

fg_v
fg_em_buf(fg_em *e, int i)
{
    fg_ll *g = e->g;
    if (!e->buf[i]) {
        fg_bb at = ll_entry(g);
        e->buf[i] = ll_load_aligned(g, g->ptr, ll_atc(g, ll_param(g, 0), g->ptr, i), 8);
        ll_back(g, at);
    }
    return e->buf[i];
}

fg_v
fg_em_result_buf(fg_em *e, int k)
{
    return fg_em_buf(e, e->kernel->nin + e->part->result[k]);
}

int
fg_em_param(const fg_em *e, fg_reg r)
{
    return e->source[r].param - 1;
}

bool
fg_em_asked(fg_em *e, fg_reg r, int p, int q)
{
    struct fg_source *s = &e->source[r];
    if (s->question == e->question && s->p == p && s->q == q)
        return true;
    s->question = e->question;
    s->p = (int8_t)p;
    s->q = (int8_t)q;
    return false;
}

fg_reg
fg_em_result(const fg_em *e, int k)
{
    return e->region->last->in[e->part->result[k]];
}

int
fg_em_nresult(const fg_em *e)
{
    return e->part->nresult;
}

fg_v
fg_em_expr(fg_em *e, fg_expr x)
{
    fg_ll *g = e->g;
    int64_t c;
    if (x == FG_E_BAD) {
        e->failed = true;
        fg_error(e->m->cx, "%s: a size overflows or cannot be expressed",
                 fg_inst_where(e->m, e->kernel));
        return ll_i(g, 0);
    }
    if (fg_e_const(e->m->ex, x, &c))
        return ll_i(g, c);
    for (int i = 0; i < e->narg; i++)
        if (e->arg[i] == x)
            return e->argv[i];
    int slot;
    fg_v v = fg_em_later(e, &slot);
    fg_em_settle(e, slot, x);
    return v;
}

fg_v
fg_em_later(fg_em *e, int *slot)
{
    fg_ll *g = e->g;
    fg_bb at = ll_entry(g);
    fg_v v = ll_load_aligned(g, g->i64, ll_atc(g, ll_param(g, 1), g->i64, e->narg), 8);
    ll_back(g, at);
    int n = e->narg;
    FG_PUSH(e->a, e->argv, n, e->capargv) = v;
    *slot = e->narg;
    FG_PUSH(e->a, e->arg, e->narg, e->caparg) = FG_E_BAD;
    return v;
}

void
fg_em_settle(fg_em *e, int slot, fg_expr x)
{
    e->arg[slot] = x;
}

fg_v
fg_em_dim(fg_em *e, fg_reg r, int axis)
{
    return fg_em_expr(e, fg_rt(e->m, r)->dim[axis]);
}

fg_v
fg_em_scratch(fg_em *e, fg_expr bytes)
{
    fg_exprs *x = e->m->ex;
    fg_v at = fg_em_expr(e, e->scratch_bytes);
    fg_expr line = fg_ec(x, 64), up = fg_eadd(x, bytes, fg_ec(x, 63));
    e->scratch_bytes =
        fg_eadd(x, e->scratch_bytes, fg_emul(x, fg_ediv(x, up, line), line));
    return ll_at(e->g, e->scratch, e->g->i8, at);
}

/* ---- pulling
 * ------------------------------------------------------------------------------ */

fg_scopemark
fg_scope(fg_em *e)
{
    return (fg_scopemark){e->nmemo};
}

void
fg_unscope(fg_em *e, fg_scopemark s)
{
    e->nmemo = s.nmemo;
}

static bool
same_index(const fg_index *a, const fg_index *b, int n)
{
    for (int i = 0; i < n; i++)
        if (a[i].vec != b[i].vec ||
            (!a[i].vec && (a[i].base != b[i].base || a[i].step != b[i].step)))
            return false;
    return true;
}

static fg_v
load_operand(fg_em *e, int param, const fg_type *t, const fg_index *ix)
{
    fg_index at = fg_ix_linear(e, t->rank, t->dim, ix);
    return fg_em_load(e, t->dtype, fg_em_buf(e, param), at);
}

fg_v
fg_pull(fg_em *e, fg_reg r, const fg_index *ix)
{
    const fg_type *t = fg_rt(e->m, r);
    for (int k = e->nmemo - 1; k >= 0; k--) {
        const struct fg_memo *o = &e->memo[k];
        if (o->r == r && o->mask == e->mask && o->lanes == e->lanes &&
            same_index(o->ix, ix, t->rank))
            return o->value;
    }
    const struct fg_source *s = &e->source[r];
    fg_v v;
    if (s->fn)
        v = s->fn(e, s->user, r, ix);
    else if (s->param)
        v = load_operand(e, s->param - 1, t, ix);
    else
        v = fg_pull_inst(e, fg_def(e->m, r), r, ix);
    struct fg_memo o = {
        .r = r, .rank = t->rank, .lanes = e->lanes, .mask = e->mask, .value = v};
    for (int i = 0; i < t->rank; i++)
        o.ix[i] = ix[i];
    FG_PUSH(e->a, e->memo, e->nmemo, e->capmemo) = o;
    return v;
}

void
fg_em_override(fg_em *e, fg_reg r, fg_pullfn *fn, void *user)
{
    e->source[r].fn = fn;
    e->source[r].user = user;
}

void
fg_em_store(fg_em *e, int k, const fg_index *ix, fg_v v)
{
    const fg_type *t = fg_rt(e->m, fg_em_result(e, k));
    fg_index at = fg_ix_linear(e, t->rank, t->dim, ix);
    fg_em_store_to(e, t->dtype, fg_em_result_buf(e, k), at, v);
}

void
fg_em_put(fg_em *e, int k, const fg_index *ix)
{
    fg_em_store(e, k, ix, fg_pull(e, fg_em_result(e, k), ix));
}

/* ---- loops
 * ------------------------------------------------------------------------------------ */

fg_v
fg_em_count(fg_em *e, int n, const fg_expr *dim)
{
    fg_exprs *x = e->m->ex;
    fg_expr count = fg_ec(x, 1);
    for (int k = 0; k < n; k++)
        count = fg_emul(x, count, dim[k]);
    if (count != FG_E_BAD)
        return fg_em_expr(e, count);
    fg_v v = fg_em_expr(e, dim[0]);
    for (int k = 1; k < n; k++)
        v = ll_mul(e->g, v, fg_em_expr(e, dim[k]));
    return v;
}

void
fg_em_items(fg_em *e, ll_loop *l, int n, const fg_expr *dim, fg_expr per)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    fg_expr total = fg_ec(x, 1);
    fg_v lo = ll_i(g, 0), hi = fg_em_count(e, n, dim);
    for (int k = 0; k < n; k++)
        total = fg_emul(x, total, dim[k]);
    fg_expr chunks = fg_ediv(x, fg_eadd(x, total, fg_esub(x, per, fg_ec(x, 1))), per);
    if (chunks != FG_E_BAD) {
        fg_v size = fg_em_expr(e, per);
        e->chunks = chunks;
        lo = ll_mul(g, e->begin, size);
        hi = ll_min(g, ll_mul(g, e->end, size), hi);
    }
    ll_for(g, l, lo, hi, ll_i(g, 1), 0, NULL);
}

void
fg_em_run(fg_em *e, fg_v lo, fg_v hi, bool whole, fg_runfn *body, void *user)
{
    fg_ll *g = e->g;
    int lanes = e->lanes;
    fg_scopemark s = fg_scope(e);
    ll_loop l;
    /* With cheap masks one loop serves the rest too; else full vectors first. */
    bool one = whole || lanes == 1 || g->t->masks;
    fg_v full = one ? hi : ll_add(g, lo, ll_and(g, ll_sub(g, hi, lo), ll_i(g, -lanes)));
    ll_for(g, &l, lo, full, ll_i(g, lanes), 0, NULL);
    if (!whole && one && lanes > 1)
        e->mask = ll_first(g, ll_sub(g, hi, l.i), lanes);
    body(e, user, l.i);
    ll_next(g, &l, NULL);
    fg_unscope(e, s);
    if (!one) {
        ll_branch rest;
        ll_if(g, &rest, ll_cmp(g, LL_LT, full, hi));
        e->mask = ll_first(g, ll_sub(g, hi, full), lanes);
        body(e, user, full);
        ll_end(g, &rest, NULL, NULL);
        fg_unscope(e, s);
    }
    e->mask = NULL;
}
