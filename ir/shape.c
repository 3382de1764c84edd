/* shape.c - result types of the structural, elementwise, view and reduction operations.
 *
 *     %y = add %a, %b : f32[B,12,S,64]      ; from f32[B,12,S,64] and f32[12,1,64]
 *
 * One function per rule of ops.def. A rule reads operand types and attributes, complains
 * in the user's words, and fills the result types. Sizes that an operation needs equal
 * are unified: `S1 + S2` against `T` makes T an alias of the sum for the whole module, so
 * later rules compare ids. Sizes that cannot be decided are taken as equal; the program's
 * input checks decide at run time.
 */
#include "ir/shape.h"

/* ---- shared helpers ---------------------------------------------------------------- */

const char *
fg_type_text(fg_module *m, const fg_type *t)
{
    fg_text o = fg_text_new(m->a);
    fg_put_type(&o, m->ex, t);
    return o.s;
}

const char *
fg_dim_text(fg_module *m, fg_expr e)
{
    fg_text o = fg_text_new(m->a);
    fg_put_expr(&o, m->ex, e);
    return o.s;
}

bool
fg_bcast_dim(fg_module *m, fg_expr a, fg_expr b, fg_expr *out)
{
    if (a == b || fg_e_is(m->ex, b, 1)) {
        *out = a;
        return true;
    }
    if (fg_e_is(m->ex, a, 1)) {
        *out = b;
        return true;
    }
    /* Neither is 1 for sure. Taking them as equal refuses, at run time, a symbol that
     * turns out to be 1 beside a larger size; no compiled shape could serve both. */
    if (!fg_unify(m, a, b))
        return false;
    int64_t v;
    *out = fg_e_renew(m->ex, fg_e_const(m->ex, b, &v) ? b : a);
    return true;
}

bool
fg_bcast_type(fg_module *m, const fg_type *a, const fg_type *b, fg_type *out)
{
    fg_type x = *a, y = *b, r = *a;
    r.rank = x.rank > y.rank ? x.rank : y.rank;
    fg_expr one = fg_ec(m->ex, 1);
    for (int k = 0; k < r.rank; k++) {
        int i = k - (r.rank - x.rank), j = k - (r.rank - y.rank);
        if (!fg_bcast_dim(m, i < 0 ? one : fg_e_renew(m->ex, x.dim[i]),
                          j < 0 ? one : fg_e_renew(m->ex, y.dim[j]), &r.dim[k]))
            return false;
    }
    *out = r;
    return true;
}

bool
fg_infer_axis(fg_infer *s, int64_t axis, int rank, const char *what)
{
    if (axis >= 0 && axis < rank)
        return true;
    return fg_infer_error(s, "%s %lld is outside the %d axes of %s", what,
                          (long long)axis, rank, fg_type_text(s->m, &s->in[0]));
}

bool
fg_infer_equal(fg_infer *s, fg_expr a, fg_expr b, const char *what)
{
    if (fg_unify(s->m, a, b))
        return true;
    return fg_infer_error(s, "%s %s and %s differ", what, fg_dim_text(s->m, a),
                          fg_dim_text(s->m, b));
}

bool
fg_infer_length(fg_infer *s, int have, int want, const char *what)
{
    if (have == want)
        return true;
    return fg_infer_error(s, "%s has %d entries, %d are needed for %s", what, have, want,
                          fg_type_text(s->m, &s->in[0]));
}

bool
fg_infer_rank(fg_infer *s, int k, int lo, int hi)
{
    if (s->in[k].rank >= lo && s->in[k].rank <= hi)
        return true;
    if (lo == hi)
        return fg_infer_error(s, "operand %d must have rank %d but is %s", k, lo,
                              fg_type_text(s->m, &s->in[k]));
    return fg_infer_error(s, "operand %d must have rank %d to %d but is %s", k, lo, hi,
                          fg_type_text(s->m, &s->in[k]));
}

static bool
same_dtype(fg_infer *s, int a, int b)
{
    if (s->in[a].dtype == s->in[b].dtype)
        return true;
    return fg_infer_error(s, "operands %s and %s have different element types",
                          fg_type_text(s->m, &s->in[a]), fg_type_text(s->m, &s->in[b]));
}

static bool
push_dim(fg_infer *s, fg_type *t, fg_expr e)
{
    if (t->rank >= FG_MAXRANK)
        return fg_infer_error(s, "the result has more than %d axes", FG_MAXRANK);
    t->dim[t->rank++] = e;
    return true;
}

/* ---- values and elementwise -------------------------------------------------------- */

bool
fg_shape_none(fg_infer *s)
{
    (void)s;
    return true;
}

bool
fg_shape_const(fg_infer *s)
{
    int64_t k = FG_GET(s->i, const, w).i;
    if (k < 0 || k >= s->m->nweight)
        return fg_infer_error(s, "there is no weight %lld", (long long)k);
    const fg_weight *w = &s->m->weight[k];
    s->out[0] = fg_type_scalar(w->dtype);
    for (int d = 0; d < w->rank; d++)
        s->out[0].dim[s->out[0].rank++] = fg_ec(s->m->ex, w->dim[d]);
    return true;
}

bool
fg_shape_symvec(fg_infer *s)
{
    const fg_attr *v = &FG_GET(s->i, symvec, v);
    fg_dtype to = (fg_dtype)FG_GET(s->i, symvec, to).i;
    s->out[0] = fg_type_scalar(to);
    for (int k = 0; k < v->n; k++)
        if (v->es[k] == FG_E_BAD)
            return fg_infer_error(s, "element %d has no value", k);
    if (!FG_GET(s->i, symvec, scalar).i)
        return push_dim(s, &s->out[0], fg_ec(s->m->ex, v->n));
    if (v->n != 1)
        return fg_infer_error(s, "a scalar has one element, not %d", v->n);
    return true;
}

bool
fg_shape_iota(fg_infer *s)
{
    fg_expr n = FG_GET(s->i, iota, n).e;
    if (n == FG_E_BAD || fg_e_hi(s->m->ex, n) < 0)
        return fg_infer_error(s, "the length is negative or unknown");
    s->out[0] = fg_type_make((fg_dtype)FG_GET(s->i, iota, to).i, 1, &n);
    return true;
}

bool
fg_shape_tobool(fg_infer *s)
{
    s->out[0] = s->in[0];
    s->out[0].dtype = FG_bool;
    return true;
}

bool
fg_shape_cast(fg_infer *s)
{
    /* `to` is the first attribute of both cast and bitcast. */
    fg_dtype to = (fg_dtype)s->i->attr[0].i, from = (fg_dtype)s->in[0].dtype;
    if (to == FG_NODTYPE || to >= FG_NDTYPES)
        return fg_infer_error(s, "no element type to convert to");
    if (s->i->op == FG_OP_bitcast && fg_dtypes[to].bits != fg_dtypes[from].bits)
        return fg_infer_error(s, "%s and %s differ in width", fg_dtypes[from].name,
                              fg_dtypes[to].name);
    s->out[0] = s->in[0];
    s->out[0].dtype = (uint8_t)to;
    return true;
}

static bool
broadcast(fg_infer *s, int a, int b, fg_type *out)
{
    if (fg_bcast_type(s->m, &s->in[a], &s->in[b], out))
        return true;
    return fg_infer_error(s, "%s and %s do not broadcast", fg_type_text(s->m, &s->in[a]),
                          fg_type_text(s->m, &s->in[b]));
}

bool
fg_shape_bcast(fg_infer *s)
{
    if (s->i->op != FG_OP_pow && !same_dtype(s, 0, 1))
        return false;
    return broadcast(s, 0, 1, &s->out[0]);
}

bool
fg_shape_compare(fg_infer *s)
{
    if (!same_dtype(s, 0, 1) || !broadcast(s, 0, 1, &s->out[0]))
        return false;
    s->out[0].dtype = FG_bool;
    return true;
}

bool
fg_shape_where(fg_infer *s)
{
    fg_type xy;
    if (!same_dtype(s, 1, 2) || !broadcast(s, 1, 2, &xy))
        return false;
    if (!fg_bcast_type(s->m, &xy, &s->in[0], &s->out[0]))
        return fg_infer_error(s, "condition %s and values %s do not broadcast",
                              fg_type_text(s->m, &s->in[0]), fg_type_text(s->m, &xy));
    return true;
}

/* ---- views and data movement ------------------------------------------------------- */

bool
fg_shape_transpose(fg_infer *s)
{
    const fg_attr *p = &FG_GET(s->i, transpose, perm);
    const fg_type *x = &s->in[0];
    if (!fg_infer_length(s, p->n, x->rank, "perm"))
        return false;
    unsigned seen = 0;
    s->out[0] = *x;
    for (int k = 0; k < p->n; k++) {
        if (!fg_infer_axis(s, p->is[k], x->rank, "perm entry"))
            return false;
        if (seen >> p->is[k] & 1)
            return fg_infer_error(s, "perm names axis %lld twice", (long long)p->is[k]);
        seen |= 1u << p->is[k];
        s->out[0].dim[k] = x->dim[p->is[k]];
    }
    return true;
}

bool
fg_shape_concat(fg_infer *s)
{
    int64_t axis = FG_GET(s->i, concat, axis).i;
    fg_type r = s->in[0];
    if (!fg_infer_axis(s, axis, r.rank, "axis"))
        return false;
    for (int k = 1; k < s->i->nin; k++) {
        const fg_type *x = &s->in[k];
        if (!same_dtype(s, 0, k))
            return false;
        if (x->rank != r.rank)
            return fg_infer_error(s, "%s and %s have different ranks",
                                  fg_type_text(s->m, &s->in[0]), fg_type_text(s->m, x));
        for (int d = 0; d < r.rank; d++) {
            if (d == axis)
                r.dim[d] = fg_eadd(s->m->ex, r.dim[d], x->dim[d]);
            else if (!fg_unify(s->m, r.dim[d], x->dim[d]))
                return fg_infer_error(
                    s, "sizes %s and %s differ on axis %d of %s and %s",
                    fg_dim_text(s->m, r.dim[d]), fg_dim_text(s->m, x->dim[d]), d,
                    fg_type_text(s->m, &s->in[0]), fg_type_text(s->m, x));
        }
    }
    s->out[0] = r;
    return true;
}

/* One row number for each element of y along the axis, for all alike or for each of axis 0. */
static bool
append_rows(fg_infer *s, int axis)
{
    const fg_type *y = &s->in[1], *rows = &s->in[2];
    if (FG_GET(s->i, append, at).e != FG_E_BAD)
        return fg_infer_error(s, "both rows and `at` say where");
    if (rows->rank < 1 || rows->rank > 2 || (rows->rank == 2 && axis == 0) ||
        !fg_unify(s->m, rows->dim[rows->rank - 1], y->dim[axis]) ||
        (rows->rank == 2 && !fg_unify(s->m, rows->dim[0], y->dim[0])))
        return fg_infer_error(s, "rows %s for %s on axis %d", fg_type_text(s->m, rows),
                              fg_type_text(s->m, y), axis);
    return true;
}

bool
fg_shape_append(fg_infer *s)
{
    int64_t axis = FG_GET(s->i, append, axis).i;
    fg_expr at = FG_GET(s->i, append, at).e;
    const fg_type *x = &s->in[0], *y = &s->in[1];
    fg_exprs *e = s->m->ex;
    if (!fg_infer_axis(s, axis, x->rank, "axis") || !same_dtype(s, 0, 1))
        return false;
    if (x->rank != y->rank)
        return fg_infer_error(s, "%s and %s have different ranks", fg_type_text(s->m, x),
                              fg_type_text(s->m, y));
    for (int d = 0; d < x->rank; d++)
        if (d != axis && !fg_unify(s->m, x->dim[d], y->dim[d]))
            return fg_infer_error(s, "sizes %s and %s differ on axis %d of %s and %s",
                                  fg_dim_text(s->m, x->dim[d]),
                                  fg_dim_text(s->m, y->dim[d]), d, fg_type_text(s->m, x),
                                  fg_type_text(s->m, y));
    s->out[0] = *x;
    if (s->i->nin > 2 && s->i->in[2])
        return append_rows(s, (int)axis);
    if (at == FG_E_BAD || fg_e_lo(e, at) < 0 ||
        fg_e_lo(e, fg_eadd(e, at, y->dim[axis])) > fg_e_hi(e, x->dim[axis]))
        return fg_infer_error(s, "%s does not fit into %s from %s on",
                              fg_type_text(s->m, y), fg_type_text(s->m, x),
                              fg_dim_text(s->m, at));
    return true;
}

bool
fg_shape_pad(fg_infer *s)
{
    const fg_attr *b = &FG_GET(s->i, pad, before), *a = &FG_GET(s->i, pad, after);
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    const char *mode = FG_GET(s->i, pad, mode).s;
    fg_type r = s->in[0];
    if (!fg_infer_length(s, b->n, r.rank, "before") ||
        !fg_infer_length(s, a->n, r.rank, "after") ||
        !fg_infer_word(s, mode, modes, 4, "mode"))
        return false;
    for (int k = 0; k < r.rank; k++) {
        r.dim[k] = fg_eadd(s->m->ex, r.dim[k], fg_eadd(s->m->ex, b->es[k], a->es[k]));
        if (r.dim[k] == FG_E_BAD || fg_e_hi(s->m->ex, r.dim[k]) < 0)
            return fg_infer_error(s, "padding leaves axis %d with a negative size", k);
    }
    s->out[0] = r;
    return true;
}

bool
fg_shape_gather(fg_infer *s)
{
    const fg_type *x = &s->in[0], *idx = &s->in[1];
    int64_t axis = FG_GET(s->i, gather, axis).i;
    if (!fg_infer_axis(s, axis, x->rank, "axis"))
        return false;
    fg_type r = fg_type_scalar((fg_dtype)x->dtype);
    for (int k = 0; k < x->rank; k++) {
        if (k != axis) {
            if (!push_dim(s, &r, x->dim[k]))
                return false;
            continue;
        }
        for (int j = 0; j < idx->rank; j++)
            if (!push_dim(s, &r, idx->dim[j]))
                return false;
    }
    s->out[0] = r;
    return true;
}

bool
fg_shape_likeindex(fg_infer *s)
{
    if (!fg_infer_axis(s, FG_GET(s->i, gather_elements, axis).i, s->in[0].rank, "axis") ||
        !fg_infer_rank(s, 1, s->in[0].rank, s->in[0].rank))
        return false;
    s->out[0] = s->in[1];
    s->out[0].dtype = s->in[0].dtype;
    return true;
}

/* The number of axes that the tuples of a gather_nd or scatter_nd index name. */
static bool
tuple_length(fg_infer *s, int batch, int64_t *k)
{
    const fg_type *x = &s->in[0], *idx = &s->in[1];
    if (idx->rank < 1 || !fg_e_const(s->m->ex, idx->dim[idx->rank - 1], k))
        return fg_infer_error(s, "the index %s has no constant last axis",
                              fg_type_text(s->m, idx));
    if (*k < 0 || *k > x->rank - batch)
        return fg_infer_error(s, "index tuples of %lld entries do not fit %s",
                              (long long)*k, fg_type_text(s->m, x));
    return true;
}

bool
fg_shape_gather_nd(fg_infer *s)
{
    const fg_type *x = &s->in[0], *idx = &s->in[1];
    int64_t batch = FG_GET(s->i, gather_nd, batch).i, k;
    if (batch < 0 || batch >= x->rank || batch >= idx->rank)
        return fg_infer_error(s, "%lld batch axes do not fit %s and %s", (long long)batch,
                              fg_type_text(s->m, x), fg_type_text(s->m, idx));
    if (!tuple_length(s, (int)batch, &k))
        return false;
    for (int d = 0; d < batch; d++)
        if (!fg_infer_equal(s, x->dim[d], idx->dim[d], "batch sizes"))
            return false;
    fg_type r = fg_type_scalar((fg_dtype)x->dtype);
    for (int d = 0; d < idx->rank - 1; d++)
        if (!push_dim(s, &r, idx->dim[d]))
            return false;
    for (int d = (int)(batch + k); d < x->rank; d++)
        if (!push_dim(s, &r, x->dim[d]))
            return false;
    s->out[0] = r;
    return true;
}

static const char *const scatter_how[] = {"none", "add", "mul", "min", "max"};

bool
fg_check_scatter_elements(fg_infer *s)
{
    int rank = s->in[0].rank;
    if (!fg_infer_axis(s, FG_GET(s->i, scatter_elements, axis).i, rank, "axis") ||
        !fg_infer_word(s, FG_GET(s->i, scatter_elements, how).s, scatter_how, 5, "how") ||
        !fg_infer_rank(s, 1, rank, rank) || !fg_infer_rank(s, 2, rank, rank))
        return false;
    for (int k = 0; k < rank; k++)
        if (!fg_infer_equal(s, s->in[1].dim[k], s->in[2].dim[k],
                            "index and update sizes"))
            return false;
    return true;
}

bool
fg_check_scatter_nd(fg_infer *s)
{
    const fg_type *x = &s->in[0], *idx = &s->in[1], *u = &s->in[2];
    int64_t k;
    if (!fg_infer_word(s, FG_GET(s->i, scatter_nd, how).s, scatter_how, 5, "how") ||
        !tuple_length(s, 0, &k))
        return false;
    int lead = idx->rank - 1, want = lead + x->rank - (int)k;
    if (u->rank != want)
        return fg_infer_error(s, "updates %s must have rank %d", fg_type_text(s->m, u),
                              want);
    for (int d = 0; d < want; d++) {
        fg_expr e = d < lead ? idx->dim[d] : x->dim[d - lead + k];
        if (!fg_infer_equal(s, u->dim[d], e, "update sizes"))
            return false;
    }
    return true;
}

bool
fg_shape_scalar_i64(fg_infer *s)
{
    s->out[0] = fg_type_scalar(FG_i64);
    return true;
}

/* ---- reductions -------------------------------------------------------------------- */

bool
fg_shape_reduce(fg_infer *s)
{
    /* Every reduction begins with the attributes axes, keep. */
    const fg_attr *axes = &s->i->attr[0];
    bool keep = s->i->attr[1].i != 0;
    const fg_type *x = &s->in[0];
    unsigned over = 0;
    for (int k = 0; k < axes->n; k++) {
        if (!fg_infer_axis(s, axes->is[k], x->rank, "axis"))
            return false;
        if (k && axes->is[k] <= axes->is[k - 1])
            return fg_infer_error(s, "the axes are not ascending");
        over |= 1u << axes->is[k];
    }
    fg_type r = fg_type_scalar((fg_dtype)x->dtype);
    for (int k = 0; k < x->rank; k++) {
        if (!(over >> k & 1))
            r.dim[r.rank++] = x->dim[k];
        else if (keep)
            r.dim[r.rank++] = fg_ec(s->m->ex, 1);
    }
    s->out[0] = r;
    return true;
}

bool
fg_shape_arg(fg_infer *s)
{
    /* argmax and argmin begin with the attributes axis, keep. */
    int64_t axis = s->i->attr[0].i;
    bool keep = s->i->attr[1].i != 0;
    const fg_type *x = &s->in[0];
    if (!fg_infer_axis(s, axis, x->rank, "axis"))
        return false;
    fg_type r = fg_type_scalar(FG_i64);
    for (int k = 0; k < x->rank; k++) {
        if (k != axis)
            r.dim[r.rank++] = x->dim[k];
        else if (keep)
            r.dim[r.rank++] = fg_ec(s->m->ex, 1);
    }
    s->out[0] = r;
    return true;
}

bool
fg_shape_topk(fg_infer *s)
{
    int64_t axis = FG_GET(s->i, topk, axis).i, n, have;
    fg_expr k = FG_GET(s->i, topk, k).e;
    if (!fg_infer_axis(s, axis, s->in[0].rank, "axis"))
        return false;
    fg_expr dim = s->in[0].dim[axis];
    if (k == FG_E_BAD || fg_e_hi(s->m->ex, k) < 0 ||
        (fg_e_const(s->m->ex, k, &n) && fg_e_const(s->m->ex, dim, &have) && n > have))
        return fg_infer_error(s, "cannot take %s elements of axis %lld in %s",
                              fg_dim_text(s->m, k), (long long)axis,
                              fg_type_text(s->m, &s->in[0]));
    s->out[0] = s->in[0];
    s->out[0].dim[axis] = k;
    s->out[1] = s->out[0];
    s->out[1].dtype = FG_i64;
    return true;
}
