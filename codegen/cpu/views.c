/* views.c - pull rules that only move elements: they turn the index of a result into an
 * index of an operand.
 *
 *     %y = transpose %x {perm=[1, 0]}      y[i, j] = x[j, i]
 *     %y = concat %a, %b {axis=0}          y[i] = i < |a| ? a[i] : b[i - |a|]
 */
#include "codegen/cpu/pull.h"

/* ---- choosing between sources
 * ------------------------------------------------------------ */

static fg_v
side(fg_em *e, fg_sidefn *fn, void *user, fg_v cond, fg_v outer)
{
    fg_scopemark s = fg_scope(e);
    e->mask = outer ? ll_and(e->g, outer, cond) : cond;
    ll_branch some;
    fg_v v, out;
    ll_if(e->g, &some, ll_any(e->g, e->mask));
    v = fg_lanes(e, fn(e, user));
    ll_else(e->g, &some, 1, &v);
    ll_end(e->g, &some, (fg_v[]){ll_zero(LLVMTypeOf(v))}, &out);
    e->mask = outer;
    fg_unscope(e, s);
    return out;
}

fg_v
fg_pull_either(fg_em *e, fg_v cond, fg_sidefn *yes, fg_sidefn *no, void *user)
{
    fg_ll *g = e->g;
    int64_t c;
    if (ll_const(cond, &c))
        return c ? yes(e, user) : no(e, user);
    if (ll_lanes(cond) > 1) {
        fg_v a = side(e, yes, user, cond, e->mask);
        return ll_sel(g, cond, a, side(e, no, user, ll_not(g, cond), e->mask));
    }
    fg_scopemark s = fg_scope(e);
    ll_branch b;
    fg_v out;
    ll_if(g, &b, cond);
    fg_v v = fg_lanes(e, yes(e, user));
    ll_else(g, &b, 1, &v);
    fg_unscope(e, s);
    v = fg_lanes(e, no(e, user));
    ll_end(g, &b, &v, &out);
    fg_unscope(e, s);
    return out;
}

typedef struct guarded {
    fg_reg r;
    const fg_index *ix;
} guarded;

static fg_v
pull_guarded(fg_em *e, void *user)
{
    guarded *s = user;
    return fg_pull(e, s->r, s->ix);
}

static fg_v
pull_nothing(fg_em *e, void *user)
{
    return ll_zero(fg_em_type(e, fg_rt(e->m, ((guarded *)user)->r)->dtype));
}

fg_v
fg_pull_nonempty(fg_em *e, fg_reg r, fg_expr n, const fg_index *ix)
{
    guarded s = {r, ix};
    if (n == FG_E_BAD || fg_e_lo(e->m->ex, n) > 0)
        return fg_pull(e, r, ix);
    fg_v some = ll_cmp(e->g, LL_GT, fg_em_expr(e, n), ll_i(e->g, 0));
    return fg_pull_either(e, some, pull_guarded, pull_nothing, &s);
}

/* i < limit, as a scalar whenever all lanes answer alike. */
static fg_v
index_below(fg_em *e, fg_index i, fg_expr limit)
{
    fg_ll *g = e->g;
    fg_v n = fg_em_expr(e, limit);
    if (!i.vec && i.step == 1 && i.align >= e->lanes &&
        fg_e_divides(e->m->ex, e->lanes, limit))
        return ll_cmp(g, LL_LT, i.base, n);
    fg_v v = fg_ix_value(e, i);
    return ll_cmp(g, LL_LT, v, ll_splat(g, n, ll_lanes(v)));
}

/* ---- constants and sequences
 * ----------------------------------------------------------------- */

static fg_v
const_element(fg_em *e, fg_reg r, int64_t k)
{
    fg_dtype d = fg_rt(e->m, r)->dtype;
    fg_t t = fg_em_type(e, d);
    double f = 0;
    int64_t i = 0;
    if (fg_is_float(d)) {
        if (!fg_const_f64(e->m, r, k, &f))
            FG_BUG(e->m->cx, "a constant without value in a kernel");
        return ll_cf(t, f);
    }
    if (!fg_const_i64(e->m, r, k, &i))
        FG_BUG(e->m->cx, "a constant without value in a kernel");
    return ll_ci(t, i);
}

/* Larger ones lie in the object's read-only data. */
fg_v
fg_pull_const(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)i;
    fg_ll *g = e->g;
    const fg_weight *w = fg_reg_weight(e->m, r);
    const fg_type *t = fg_rt(e->m, r);
    double v;
    int64_t count = 1;
    for (int a = 0; a < w->rank; a++)
        count *= w->dim[a];
    if (count == 1 || (count > 0 && fg_is_float(t->dtype) && fg_const_splat(e->m, r, &v)))
        return const_element(e, r, 0);
    fg_v bytes = LLVMConstStringInContext(g->cx, w->data, (unsigned)w->bytes, 1);
    fg_v data = LLVMAddGlobal(g->m, LLVMTypeOf(bytes), "");
    LLVMSetInitializer(data, bytes);
    LLVMSetGlobalConstant(data, 1);
    LLVMSetLinkage(data, LLVMPrivateLinkage);
    LLVMSetAlignment(data, 64);
    return fg_em_load(e, t->dtype, data, fg_ix_linear(e, t->rank, t->dim, ix));
}

fg_v
fg_pull_symvec(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    fg_ll *g = e->g;
    const fg_attr *v = &FG_GET(i, symvec, v);
    fg_dtype to = (fg_dtype)FG_GET(i, symvec, to).i;
    bool scalar = FG_GET(i, symvec, scalar).i;
    fg_v at = scalar ? ll_i(g, 0) : fg_ix_value(e, ix[0]), x = NULL;
    for (int k = v->n - 1; k >= 0; k--) {
        fg_v s = fg_em_expr(e, v->es[k]);
        if (!x)
            x = s;
        else
            x = ll_sel(g, ll_cmp(g, LL_EQ, at, ll_ci(LLVMTypeOf(at), k)),
                       ll_splat(g, s, ll_lanes(at)), ll_splat(g, x, ll_lanes(at)));
    }
    return fg_em_cast(e, x ? x : ll_i(g, 0), FG_i64, to);
}

fg_v
fg_pull_iota(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    fg_expr start = FG_GET(i, iota, start).e;
    fg_expr step = fg_ec(e->m->ex, FG_GET(i, iota, step).i);
    fg_index at = fg_ix_mul(e, ix[0], step);
    if (start != FG_E_BAD)
        at = fg_ix_addc(e, at, start);
    return fg_em_cast(e, fg_ix_value(e, at), FG_i64, (fg_dtype)FG_GET(i, iota, to).i);
}

/* ---- views -------------------------------------------------------------------------
 * -------------- */

fg_v
fg_pull_copy(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    return fg_pull(e, i->in[0], ix);
}

/* The shortest runs of axes, one on each side, that hold equally many elements. */
static void
match_group(fg_exprs *x, const fg_type *a, const fg_type *b, int *na, int *nb)
{
    int restA = a->rank - *na, restB = b->rank - *nb;
    for (int total = 2; total <= restA + restB; total++)
        for (int p = 1; p < total; p++) {
            int q = total - p;
            if (p > restA || q > restB)
                continue;
            fg_expr ca = fg_ec(x, 1), cb = fg_ec(x, 1);
            for (int k = 0; k < p; k++)
                ca = fg_emul(x, ca, a->dim[*na + k]);
            for (int k = 0; k < q; k++)
                cb = fg_emul(x, cb, b->dim[*nb + k]);
            if (ca == cb && ca != FG_E_BAD) {
                *na += p;
                *nb += q;
                return;
            }
        }
    *na = a->rank;
    *nb = b->rank;
}

fg_v
fg_pull_reshape(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_exprs *x = e->m->ex;
    const fg_type *to = fg_rt(e->m, r), *from = fg_rt(e->m, i->in[0]);
    fg_index at[FG_MAXRANK];
    int a = 0, b = 0;
    while (a < to->rank || b < from->rank) {
        if (b < from->rank && fg_e_is(x, from->dim[b], 1)) {
            at[b++] = fg_ixc(e, 0);
            continue;
        }
        if (a < to->rank && fg_e_is(x, to->dim[a], 1)) {
            a++;
            continue;
        }
        int a0 = a, b0 = b;
        match_group(x, to, from, &a, &b);
        if (b == b0)
            break;
        if (a - a0 == 1 && b - b0 == 1) {
            at[b0] = ix[a0];
            continue;
        }
        fg_index linear = fg_ix_linear(e, a - a0, to->dim + a0, ix + a0);
        fg_ix_unlinear(e, b - b0, from->dim + b0, linear, at + b0);
    }
    return fg_pull(e, i->in[0], at);
}

fg_v
fg_pull_transpose(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    const int64_t *perm = FG_GET(i, transpose, perm).is;
    fg_index at[FG_MAXRANK];
    for (int a = 0; a < fg_rt(e->m, r)->rank; a++)
        at[perm[a]] = ix[a];
    return fg_pull(e, i->in[0], at);
}

fg_v
fg_pull_expand(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_index at[FG_MAXRANK];
    fg_ix_broadcast(e, fg_rt(e->m, r), ix, fg_rt(e->m, i->in[0]), at);
    return fg_pull(e, i->in[0], at);
}

fg_v
fg_pull_slice(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    const fg_attr *start = &FG_GET(i, slice, start), *step = &FG_GET(i, slice, step);
    fg_index at[FG_MAXRANK];
    for (int a = 0; a < fg_rt(e->m, r)->rank; a++) {
        at[a] = fg_ix_mul(e, ix[a], fg_ec(e->m->ex, step->is[a]));
        at[a] = fg_ix_addc(e, at[a], start->es[a]);
    }
    return fg_pull(e, i->in[0], at);
}

/* ---- concat ------------------------------------------------------------------------
 * ------------------ */

typedef struct pieces {
    fg_inst *i;
    const fg_index *ix;
    int k;
    fg_expr start;
} pieces;

static fg_v
pull_piece(fg_em *e, void *user)
{
    pieces *p = user;
    int axis = (int)FG_GET(p->i, concat, axis).i;
    fg_index at[FG_MAXRANK];
    memcpy(at, p->ix, sizeof *at * fg_rt(e->m, p->i->in[p->k])->rank);
    at[axis] = fg_ix_addc(e, at[axis], fg_esub(e->m->ex, fg_ec(e->m->ex, 0), p->start));
    return fg_pull(e, p->i->in[p->k], at);
}

static fg_sidefn pull_from_piece;

static fg_v
pull_next_piece(fg_em *e, void *user)
{
    pieces next = *(pieces *)user;
    int axis = (int)FG_GET(next.i, concat, axis).i;
    next.start =
        fg_eadd(e->m->ex, next.start, fg_rt(e->m, next.i->in[next.k])->dim[axis]);
    next.k++;
    return pull_from_piece(e, &next);
}

static fg_v
pull_from_piece(fg_em *e, void *user)
{
    pieces *p = user;
    if (p->k == p->i->nin - 1)
        return pull_piece(e, p);
    int axis = (int)FG_GET(p->i, concat, axis).i;
    fg_expr end = fg_eadd(e->m->ex, p->start, fg_rt(e->m, p->i->in[p->k])->dim[axis]);
    return fg_pull_either(e, index_below(e, p->ix[axis], end), pull_piece,
                          pull_next_piece, p);
}

fg_v
fg_pull_concat(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    pieces p = {.i = i, .ix = ix, .start = fg_ec(e->m->ex, 0)};
    return pull_from_piece(e, &p);
}

/* ---- append ------------------------------------------------------------------------
 * ------------------ */

typedef struct appended {
    fg_inst *i;
    const fg_index *ix;
    fg_index at[FG_MAXRANK]; /* in what is appended */
} appended;

static fg_v
pull_new(fg_em *e, void *user)
{
    appended *p = user;
    return fg_pull(e, p->i->in[1], p->at);
}

static fg_v
pull_old(fg_em *e, void *user)
{
    appended *p = user;
    return fg_pull(e, p->i->in[0], p->ix);
}

fg_v
fg_pull_append(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    const fg_type *t = fg_rt(e->m, i->in[1]);
    int axis = (int)FG_GET(i, append, axis).i;
    fg_exprs *x = e->m->ex;
    appended p = {.i = i, .ix = ix};
    (void)r;
    memcpy(p.at, ix, sizeof *ix * t->rank);
    p.at[axis] =
        fg_ix_addc(e, ix[axis], fg_esub(x, fg_ec(x, 0), FG_GET(i, append, at).e));
    fg_v at = fg_ix_value(e, p.at[axis]);
    fg_v n = ll_splat(e->g, fg_em_expr(e, t->dim[axis]), ll_lanes(at));
    return fg_pull_either(e, ll_ucmp(e->g, LL_LT, at, n), pull_new, pull_old, &p);
}

/* ---- pad ---------------------------------------------------------------------------
 * -------------------- */

typedef struct padded {
    fg_inst *i;
    fg_v lanes_inside; /* NULL: all */
    fg_index at[FG_MAXRANK];
} padded;

static fg_v
pull_fill(fg_em *e, void *user)
{
    fg_inst *i = ((padded *)user)->i;
    fg_index zero[FG_MAXRANK];
    if (i->nin < 2 || !i->in[1])
        return ll_zero(fg_em_type(e, fg_rt(e->m, i->in[0])->dtype));
    for (int a = 0; a < FG_MAXRANK; a++)
        zero[a] = fg_ixc(e, 0);
    return fg_pull(e, i->in[1], zero);
}

static fg_v
pull_inside(fg_em *e, void *user)
{
    padded *p = user;
    fg_reg x = p->i->in[0];
    return fg_pull_nonempty(e, x, fg_type_count(e->m->ex, fg_rt(e->m, x)), p->at);
}

static fg_v
pull_some_inside(fg_em *e, void *user)
{
    padded *p = user;
    return p->lanes_inside ? fg_pull_either(e, p->lanes_inside, pull_inside, pull_fill, p)
                           : pull_inside(e, p);
}

/* Where an index beyond the borders 0 and n-1 comes back in. */
static fg_v
fold_back(fg_em *e, const char *mode, fg_v v, fg_expr n)
{
    fg_ll *g = e->g;
    fg_t t = LLVMTypeOf(v);
    fg_v zero = ll_zero(t), size = ll_splat(g, fg_em_expr(e, n), ll_lanes(v));
    fg_v last = ll_sub(g, size, ll_ci(t, 1));
    if (mode[0] == 'e')
        return ll_max(g, ll_min(g, v, last), zero);
    fg_v period = mode[0] == 'w' ? size : ll_max(g, ll_add(g, last, last), ll_ci(t, 1));
    v = ll_rem(g, v, period);
    v = ll_sel(g, ll_cmp(g, LL_LT, v, zero), ll_add(g, v, period), v);
    return mode[0] == 'w' ? v : ll_min(g, v, ll_sub(g, period, v));
}

fg_v
fg_pull_pad(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    const fg_type *t = fg_rt(e->m, i->in[0]);
    const fg_attr *before = &FG_GET(i, pad, before), *after = &FG_GET(i, pad, after);
    const char *mode = FG_GET(i, pad, mode).s;
    padded p = {.i = i};
    fg_v inside = ll_ci(g->i1, 1);
    for (int a = 0; a < t->rank; a++) {
        fg_expr crop = fg_esub(x, fg_ec(x, 0), before->es[a]);
        p.at[a] = fg_ix_addc(e, ix[a], crop);
        if (fg_e_is(x, before->es[a], 0) && fg_e_hi(x, after->es[a]) <= 0)
            continue;
        if (mode[0] != 'c') { /* what is cropped away does not come back in */
            fg_expr zero = fg_ec(x, 0), lo = fg_emax(x, crop, zero);
            fg_expr hi = fg_eadd(x, t->dim[a], fg_emin(x, after->es[a], zero));
            fg_v kept = fg_ix_value(e, fg_ix_addc(e, p.at[a], fg_esub(x, zero, lo)));
            kept = fold_back(e, mode, kept, fg_esub(x, hi, lo));
            p.at[a] = fg_ix_addc(e, fg_ix_vec(e, kept), lo);
            continue;
        }
        fg_v v = fg_ix_value(e, p.at[a]);
        fg_v in =
            ll_ucmp(g, LL_LT, v, ll_splat(g, fg_em_expr(e, t->dim[a]), ll_lanes(v)));
        if (ll_lanes(in) == 1)
            inside = ll_and(g, inside, in);
        else
            p.lanes_inside = p.lanes_inside ? ll_and(g, p.lanes_inside, in) : in;
    }
    return fg_pull_either(e, inside, pull_some_inside, pull_fill, &p);
}
