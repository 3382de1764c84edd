/* shape_given.c - the rules `same` and `given`: the result type is the operand's, or
 * comes with the instruction, and what can be checked about it depends on the operation.
 *
 *     %y = reshape %x : f32[B,S,12,64]      ; from f32[B,S,768]: counts must agree
 *     %y = slice %x {start=[0,P]} : f32[B,S]
 *
 * A check refuses only what is provably wrong, and turns what must be equal into
 * equal symbols.
 */
#include "ir/shape.h"

typedef bool check_fn(fg_infer *s);

/* Removes from n dims whatever also stands in the other list; what is left multiplies to
 * the same count, if the removed dims are not 0: those that are known to be stay. */
static void
cancel(const fg_exprs *t, fg_expr *a, int *na, fg_expr *b, int *nb)
{
    for (int i = 0; i < *na; i++)
        for (int j = 0; j < *nb; j++)
            if (a[i] == b[j] && !fg_e_is(t, a[i], 0)) {
                a[i--] = a[--*na];
                b[j] = b[--*nb];
                break;
            }
}

/* Product of the symbolic dims; the constant ones multiply into *c. */
static fg_expr
product(fg_exprs *t, const fg_expr *d, int n, int64_t *c)
{
    fg_expr e = fg_ec(t, 1);
    int64_t v;
    *c = 1;
    for (int k = 0; k < n; k++) {
        if (!fg_e_const(t, d[k], &v))
            e = fg_emul(t, e, d[k]);
        else if (__builtin_mul_overflow(*c, v, c))
            return FG_E_BAD;
    }
    return e;
}

static int64_t
gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* One axis of y is "what is left" of x's count after dividing by the others, and the
 * division does not come out: [n,s] viewed as [b, n s / b]. A view that splits whole rows
 * means n = b; nothing else gives the elements their places. */
static void
match_leading(fg_infer *s, const fg_type *x, const fg_type *y)
{
    fg_exprs *ex = s->m->ex;
    fg_sym a, b;
    for (int k = 0; k < y->rank; k++) {
        fg_expr rest = fg_ec(ex, 1);
        for (int j = 0; j < y->rank; j++)
            rest = j == k ? rest : fg_emul(ex, rest, y->dim[j]);
        fg_expr left = fg_ediv(ex, fg_type_count(ex, x), rest);
        if (left == FG_E_BAD || left != y->dim[k] || k == 0 ||
            fg_emul(ex, left, rest) == fg_type_count(ex, x))
            continue;
        if (x->rank && fg_e_single(ex, x->dim[0], &a) && fg_e_single(ex, y->dim[0], &b) &&
            fg_sym_info(ex, a)->kind == FG_SYM_INPUT &&
            fg_sym_info(ex, b)->kind == FG_SYM_INPUT)
            fg_unify(s->m, x->dim[0], y->dim[0]);
        return;
    }
}

static void
renew_type(fg_module *m, fg_type *t)
{
    for (int k = 0; k < t->rank; k++)
        t->dim[k] = fg_e_renew(m->ex, t->dim[k]);
}

static bool
check_reshape(fg_infer *s)
{
    fg_type xt = s->in[0], yt = s->given[0], *x = &xt, *y = &yt;
    match_leading(s, x, y);
    renew_type(s->m, x);
    renew_type(s->m, y);
    fg_expr a[FG_MAXRANK], b[FG_MAXRANK];
    int na = x->rank, nb = y->rank;
    int64_t ca, cb;
    memcpy(a, x->dim, sizeof a);
    memcpy(b, y->dim, sizeof b);
    cancel(s->m->ex, a, &na, b, &nb);
    fg_expr pa = product(s->m->ex, a, na, &ca), pb = product(s->m->ex, b, nb, &cb);
    if (pa == FG_E_BAD || pb == FG_E_BAD)
        return fg_infer_error(s, "cannot reshape %s to %s: sizes overflow",
                              fg_type_text(s->m, x), fg_type_text(s->m, y));
    int64_t g = gcd(ca, cb);
    if (g > 1) {
        ca /= g;
        cb /= g;
    }
    pa = fg_emul(s->m->ex, pa, fg_ec(s->m->ex, ca));
    pb = fg_emul(s->m->ex, pb, fg_ec(s->m->ex, cb));
    if (pa == FG_E_BAD || pb == FG_E_BAD || fg_unify(s->m, pa, pb))
        return true;
    return fg_infer_error(s, "cannot reshape %s to %s: element counts differ",
                          fg_type_text(s->m, x), fg_type_text(s->m, y));
}

static bool
check_expand(fg_infer *s)
{
    const fg_type *x = &s->in[0], *y = &s->given[0];
    int lead = y->rank - x->rank;
    bool ok = lead >= 0;
    for (int k = 0; ok && k < x->rank; k++)
        ok = fg_e_is(s->m->ex, x->dim[k], 1) ||
             fg_unify(s->m, x->dim[k], y->dim[lead + k]);
    return ok || fg_infer_error(s, "cannot expand %s to %s", fg_type_text(s->m, x),
                                fg_type_text(s->m, y));
}

static bool
check_slice(fg_infer *s)
{
    const fg_type *x = &s->in[0], *y = &s->given[0];
    const fg_attr *start = &FG_GET(s->i, slice, start),
                  *step = &FG_GET(s->i, slice, step);
    fg_exprs *ex = s->m->ex;
    if (!fg_infer_length(s, start->n, x->rank, "start") ||
        !fg_infer_length(s, step->n, x->rank, "step") ||
        !fg_infer_length(s, y->rank, x->rank, "the result shape"))
        return false;
    for (int k = 0; k < x->rank; k++) {
        fg_expr last = fg_eadd(
            ex, start->es[k],
            fg_emul(ex, fg_ec(ex, step->is[k]), fg_esub(ex, y->dim[k], fg_ec(ex, 1))));
        int64_t n, from, to, dim;
        if (fg_e_const(ex, y->dim[k], &n) && n == 0)
            continue;
        bool in = step->is[k] != 0 && start->es[k] != FG_E_BAD;
        if (in && fg_e_const(ex, start->es[k], &from))
            in = from >= 0;
        if (in && fg_e_const(ex, last, &to))
            in = to >= 0 && (!fg_e_const(ex, x->dim[k], &dim) || to < dim);
        if (!in)
            return fg_infer_error(s, "slice from %s of size %s leaves axis %d of %s",
                                  fg_dim_text(s->m, start->es[k]),
                                  fg_dim_text(s->m, y->dim[k]), k, fg_type_text(s->m, x));
    }
    return true;
}

static bool
check_nonzero(fg_infer *s)
{
    const fg_type *y = &s->given[0];
    if (y->dtype == FG_i64 && y->rank == 2 &&
        fg_unify(s->m, y->dim[0], fg_ec(s->m->ex, s->in[0].rank)))
        return true;
    return fg_infer_error(s, "%s is not the type of indices into %s",
                          fg_type_text(s->m, y), fg_type_text(s->m, &s->in[0]));
}

/* ---- control flow ------------------------------------------------------------------ */

static bool
compatible(fg_infer *s, const fg_type *a, const fg_type *b, const char *what)
{
    if (a->dtype == b->dtype && a->rank == b->rank)
        return true;
    return fg_infer_error(s, "%s changes from %s to %s", what, fg_type_text(s->m, a),
                          fg_type_text(s->m, b));
}

/* The values a region yields; NULL while it is being built. */
static const fg_inst *
yielded(const fg_inst *i, int region)
{
    const fg_inst *last = region < i->nregion ? i->region[region]->last : NULL;
    return last && last->op == FG_OP_yield ? last : NULL;
}

static bool
check_if(fg_infer *s)
{
    for (int r = 0; r < s->i->nregion; r++) {
        const fg_inst *y = yielded(s->i, r);
        if (y && y->nin != s->i->nout)
            return fg_infer_error(s, "branch %d yields %d values, %d are needed", r,
                                  y->nin, s->i->nout);
        for (int k = 0; y && k < y->nin; k++)
            if (!compatible(s, &s->given[k], fg_rt(s->m, y->in[k]), "a branch's result"))
                return false;
    }
    return true;
}

static bool
check_loop(fg_infer *s)
{
    int carried = (int)FG_GET(s->i, loop, carried).i;
    if (carried != s->i->nin - 2 || carried > s->i->nout)
        return fg_infer_error(s, "%d carried values, but %d operands and %d results",
                              carried, s->i->nin - 2, s->i->nout);
    for (int k = 0; k < carried; k++)
        if (!compatible(s, &s->in[2 + k], &s->given[k], "a carried value"))
            return false;
    const fg_inst *y = yielded(s->i, 0);
    if (!y)
        return true;
    if (y->nin != 1 + s->i->nout)
        return fg_infer_error(s, "the body yields %d values, %d are needed", y->nin,
                              1 + s->i->nout);
    for (int k = 0; k < s->i->nout; k++) {
        fg_type t = *fg_rt(s->m, y->in[1 + k]);
        t.rank = (uint8_t)(t.rank + (k >= carried));
        if (!compatible(s, &s->given[k], &t, "a result of the body"))
            return false;
    }
    return true;
}

static bool
check_kernel(fg_infer *s)
{
    const fg_inst *y = yielded(s->i, 0);
    if (y && y->nin != s->i->nout)
        return fg_infer_error(s, "the region yields %d values, %d are needed", y->nin,
                              s->i->nout);
    for (int k = 0; y && k < y->nin; k++)
        if (!compatible(s, &s->given[k], fg_rt(s->m, y->in[k]), "a kernel's result"))
            return false;
    return true;
}

/* ---- the two rules ----------------------------------------------------------------- */

static check_fn *const given_check[FG_NOPS] = {
    [FG_OP_reshape] = check_reshape,
    [FG_OP_expand] = check_expand,
    [FG_OP_slice] = check_slice,
    [FG_OP_nonzero] = check_nonzero,
    [FG_OP_conv_transpose] = fg_check_conv_transpose,
    [FG_OP_max_pool] = fg_check_window,
    [FG_OP_avg_pool] = fg_check_window,
    [FG_OP_resize] = fg_check_resize,
    [FG_OP_if] = check_if,
    [FG_OP_loop] = check_loop,
    [FG_OP_kernel] = check_kernel,
};

static check_fn *const same_check[FG_NOPS] = {
    [FG_OP_scatter_elements] = fg_check_scatter_elements,
    [FG_OP_scatter_nd] = fg_check_scatter_nd,
    [FG_OP_softmax] = fg_check_softmax,
    [FG_OP_cumsum] = fg_check_softmax,
    [FG_OP_layernorm] = fg_check_norm,
    [FG_OP_rmsnorm] = fg_check_norm,
    [FG_OP_rope] = fg_check_rope,
};

bool
fg_shape_given(fg_infer *s)
{
    fg_op op = s->i->op;
    if (!s->given && s->i->nout)
        return fg_infer_error(s, "the result type is missing");
    for (int k = 0; k < s->i->nout; k++) {
        for (int d = 0; d < s->given[k].rank; d++)
            if (s->given[k].dim[d] == FG_E_BAD ||
                fg_e_hi(s->m->ex, s->given[k].dim[d]) < 0)
                return fg_infer_error(s,
                                      "size of axis %d of the result is negative or "
                                      "unknown",
                                      d);
        s->out[k] = s->given[k];
    }
    if (s->i->nin == 1 && s->i->nregion == 0 && op != FG_OP_nonzero &&
        s->given[0].dtype != s->in[0].dtype)
        return fg_infer_error(s, "%s cannot become %s", fg_type_text(s->m, &s->in[0]),
                              fg_type_text(s->m, &s->given[0]));
    return !given_check[op] || given_check[op](s);
}

bool
fg_shape_same(fg_infer *s)
{
    s->out[0] = s->in[0];
    check_fn *check = same_check[s->i->op];
    return !check || check(s);
}
