/* algebra_index.c - gathers and scatters whose index is a grid are slices.
 *
 *     gather %table, (iota S)                   => slice %table {start=[0,0]}
 *     gather %x, 3                              => slice and reshape
 *     scatter_nd %x, (grid of all rows), %u     => reshape %u
 *     gather_nd %mask, (grid [B,1,S,T,2])       => reshape and expand of %mask
 *
 * Everything rests on one proof: a ramp is an integer register whose element at
 * [c0, c1, ..] is start + c[axis], or start everywhere (axis -1). Ramps begin at an iota or a
 * known value and survive reshapes, expansions and conversions, which is how exporters
 * spell index grids. The positions of a slice must lie inside; a model that indexes with
 * 0..S-1 promises that S fits, so an input symbol's upper bound is lowered to the size.
 */
#include "passes/algebra.h"

/* ---- ramps ----------------------------------------------------------------------------------- */

static bool
ramp_from_values(fg_module *m, const fg_reginfo *ri, fg_ramp *out)
{
    int64_t dim[FG_MAXRANK], n = 1;
    if (!ri->nsym || !fg_type_static(m->ex, &ri->type, dim))
        return false;
    int axes[FG_MAXRANK + 1], naxes = 0;
    axes[naxes++] = -1;
    for (int k = 0; k < ri->type.rank; k++)
        if (dim[k] > 1)
            axes[naxes++] = k;
    for (int j = 0; j < naxes; j++) {
        int64_t stride = 1;
        bool ok = true;
        n = ri->nsym;
        for (int k = ri->type.rank - 1; k > axes[j] && axes[j] >= 0; k--)
            stride *= dim[k];
        for (int64_t e = 0; e < n && ok; e++) {
            int64_t c = axes[j] < 0 ? 0 : e / stride % dim[axes[j]];
            ok = ri->sym[e] == fg_eadd(m->ex, ri->sym[0], fg_ec(m->ex, c));
        }
        if (ok) {
            *out = (fg_ramp){ axes[j], ri->sym[0] };
            return true;
        }
    }
    return false;
}

/* Where axis `a` of shape x ended up in shape y: same size, same count of elements before. */
static int
moved_axis(fg_exprs *ex, const fg_type *x, int a, const fg_type *y)
{
    fg_expr before = fg_ec(ex, 1), n = fg_ec(ex, 1);
    for (int k = 0; k < a; k++)
        before = fg_emul(ex, before, x->dim[k]);
    for (int k = 0; k < y->rank; k++) {
        if (n == before && n != FG_E_BAD && y->dim[k] == x->dim[a])
            return k;
        n = fg_emul(ex, n, y->dim[k]);
    }
    return -1;
}

static bool
ramp_of_view(fg_module *m, const fg_inst *d, fg_ramp *r)
{
    const fg_type *x = fg_rt(m, d->in[0]), *y = fg_rt(m, d->out[0]);
    if (r->axis < 0)
        return true;
    switch (d->op) {
    case FG_OP_reshape:
        if (fg_e_is(m->ex, x->dim[r->axis], 1)) {
            r->axis = -1;
            return true;
        }
        r->axis = moved_axis(m->ex, x, r->axis, y);
        return r->axis >= 0;
    case FG_OP_expand: {
        int to = r->axis + y->rank - x->rank;
        r->axis = x->dim[r->axis] == y->dim[to] ? to : -1;
        return r->axis >= 0 || fg_e_is(m->ex, x->dim[to - (y->rank - x->rank)], 1);
    }
    case FG_OP_transpose:
        for (int k = 0; k < y->rank; k++)
            if (FG_GET(d, transpose, perm).is[k] == r->axis) {
                r->axis = k;
                return true;
            }
        return false;
    default:
        return true;
    }
}

bool
fg_find_ramp(fg_module *m, fg_reg r, fg_ramp *out)
{
    const fg_inst *d = fg_def(m, r);
    const fg_reginfo *ri = fg_ri(m, r);
    if (!fg_is_int((fg_dtype)ri->type.dtype))
        return false;
    if (ri->sym)
        return ramp_from_values(m, ri, out);
    if (!d)
        return false;
    switch (d->op) {
    case FG_OP_iota:
        *out = (fg_ramp){ 0, FG_GET(d, iota, start).e };
        if (out->start == FG_E_BAD)
            out->start = fg_ec(m->ex, 0);
        return FG_GET(d, iota, step).i == 1;
    case FG_OP_cast:
    case FG_OP_copy:
    case FG_OP_reshape:
    case FG_OP_expand:
    case FG_OP_transpose:
        return fg_find_ramp(m, d->in[0], out) && ramp_of_view(m, d, out);
    default:
        return false;
    }
}

/* start + n <= size holds, or can be promised by the bound of a symbol. */
static bool
inside(fg_module *m, fg_expr start, fg_expr n, fg_expr size)
{
    fg_exprs *ex = m->ex;
    fg_expr end = fg_eadd(ex, start, n);
    int64_t limit, offset = 0;
    if (end == FG_E_BAD || fg_e_lo(ex, start) < 0)
        return false;
    if (fg_e_le(ex, end, size))
        return true;
    if (!fg_e_const(ex, size, &limit))
        return false;
    const uint32_t *atoms;
    fg_sym s;
    int natoms, nterms = fg_e_nterms(ex, end);
    if (nterms == 2) {          /* s + offset: the constant is the last term */
        offset = fg_e_term(ex, end, 1, &atoms, &natoms);
        if (natoms)
            return false;
    }
    if (nterms > 2 || !fg_e_single(ex, fg_esub(ex, end, fg_ec(ex, offset)), &s))
        return false;
    fg_syminfo *info = fg_sym_info(ex, s);
    if (info->kind != FG_SYM_INPUT || info->lo > limit - offset)
        return false;
    if (info->hi > limit - offset)
        info->hi = limit - offset;
    return true;
}

/* A position below `size` that may count from the end. */
static fg_expr
from_front(fg_module *m, const fg_ramp *r, fg_expr size)
{
    if (r->axis < 0 && fg_e_hi(m->ex, r->start) < 0)
        return fg_eadd(m->ex, r->start, size);
    return r->start;
}

/* ---- gather ------------------------------------------------------------------------------------- */

static fg_reg
gather_of_ramp(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    int axis = (int)FG_GET(i, gather, axis).i;
    fg_ramp r;
    if (!fg_find_ramp(m, i->in[1], &r))
        return 0;
    const fg_type x = *fg_rt(m, i->in[0]), idx = *fg_rt(m, i->in[1]), y = *fg_rt(m, i->out[0]);
    fg_expr one = fg_ec(m->ex, 1), n = r.axis < 0 ? one : idx.dim[r.axis];
    fg_expr start = from_front(m, &r, x.dim[axis]);
    if (!inside(m, start, n, x.dim[axis]))
        return 0;
    fg_expr dims[FG_MAXRANK];
    memcpy(dims, y.dim, sizeof dims);
    for (int k = 0; k < idx.rank; k++)
        dims[axis + k] = k == r.axis ? n : one;
    fg_reg v = fg_emit_slice_axis(b, i->in[0], axis, start, n);
    return fg_emit_expand(b, fg_emit_reshape(b, v, y.rank, dims), y.rank, y.dim);
}

/* Rows are fetched once and repeated as a view. */
static fg_reg
gather_of_expand(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 1, FG_OP_expand);
    int axis = (int)FG_GET(i, gather, axis).i;
    if (!d)
        return 0;
    const fg_type x = *fg_rt(b->m, i->in[0]), y = *fg_rt(b->m, i->out[0]);
    const fg_type small = *fg_rt(b->m, d->in[0]), idx = *fg_rt(b->m, i->in[1]);
    fg_expr dims[FG_MAXRANK];
    memcpy(dims, y.dim, sizeof dims);
    for (int k = 0; k < idx.rank; k++) {
        int j = k - (idx.rank - small.rank);
        dims[axis + k] = j < 0 ? fg_ec(b->m->ex, 1) : small.dim[j];
    }
    if (x.rank - 1 + small.rank > FG_MAXRANK)
        return 0;
    fg_reg g = fg_emit_gather(b, i->in[0], d->in[0], axis);
    return fg_emit_expand(b, fg_emit_reshape(b, g, y.rank, dims), y.rank, y.dim);
}

/* where(i < 0, i + n, i) is i when i cannot be negative. */
static fg_reg
wrapped_index(fg_build *b, fg_inst *i)
{
    fg_inst *c = fg_operand_def(b->m, i, 0, FG_OP_lt);
    double v;
    fg_ramp r;
    if (!c || c->in[0] != i->in[2] || !fg_const_splat(b->m, c->in[1], &v) || v != 0 ||
        !fg_find_ramp(b->m, i->in[2], &r) || fg_e_lo(b->m->ex, r.start) < 0)
        return 0;
    return fg_same_type(b->m, i, i->in[2]);
}

/* ---- index tuples --------------------------------------------------------------------------------- */

enum { MAXTUPLE = 4 };

typedef struct grid {
    int     n;                  /* entries of a tuple */
    fg_ramp at[MAXTUPLE];       /* axes count in the index without its last axis */
    fg_expr size[MAXTUPLE];     /* positions along it */
} grid;

/* Entry c of tuples held in a constant. */
static bool
ramp_of_constant(fg_module *m, fg_reg index, int64_t c, fg_ramp *out)
{
    enum { LARGEST = 1 << 17 };
    int64_t dim[FG_MAXRANK], count = 1, first, v;
    const fg_type *t = fg_rt(m, index);
    if (!fg_reg_weight(m, index) || !fg_type_static(m->ex, t, dim))
        return false;
    int lead = t->rank - 1;
    for (int k = 0; k < lead; k++)
        if (__builtin_mul_overflow(count, dim[k], &count) || count > LARGEST)
            return false;
    if (!fg_const_i64(m, index, c, &first))
        return false;
    for (int axis = -1; axis < lead; axis++) {
        int64_t stride = 1, e = 0;
        for (int k = lead - 1; k > axis && axis >= 0; k--)
            stride *= dim[k];
        for (; e < count; e++) {
            int64_t at = axis < 0 ? 0 : e / stride % dim[axis];
            if (!fg_const_i64(m, index, e * dim[lead] + c, &v) || v != first + at)
                break;
        }
        if (e == count && (axis < 0 || dim[axis] > 1)) {
            *out = (fg_ramp){ axis, fg_ec(m->ex, first) };
            return true;
        }
    }
    return false;
}

/* The index as a grid: every entry of its tuples a ramp, no two along the same axis. */
static bool
find_grid(fg_module *m, fg_reg index, const fg_type *x, int batch, grid *g)
{
    const fg_type *t = fg_rt(m, index);
    fg_inst *d = fg_def(m, index);
    int64_t n;
    int lead = t->rank - 1;
    if (!fg_e_const(m->ex, t->dim[lead], &n) || n < 1 || n > MAXTUPLE)
        return false;
    bool joined = n > 1 && fg_is_op(d, FG_OP_concat) && FG_GET(d, concat, axis).i == lead &&
                  d->nin == n;
    g->n = (int)n;
    for (int k = 0; k < n; k++) {
        fg_ramp *r = &g->at[k];
        if (!(joined ? fg_find_ramp(m, d->in[k], r)
                     : n == 1 && fg_find_ramp(m, index, r)) &&
            !ramp_of_constant(m, index, k, r))
            return false;
        if (r->axis == lead)    /* the tuple's own axis, of size 1 */
            r->axis = -1;
        r->start = from_front(m, r, x->dim[batch + k]);
        g->size[k] = r->axis < 0 ? fg_ec(m->ex, 1) : t->dim[r->axis];
        for (int j = 0; j < k; j++)
            if (r->axis >= 0 && g->at[j].axis == r->axis)
                return false;
    }
    return true;
}

static fg_reg
gather_nd_of_grid(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    const fg_type x = *fg_rt(m, i->in[0]), idx = *fg_rt(m, i->in[1]), y = *fg_rt(m, i->out[0]);
    grid g;
    if (FG_GET(i, gather_nd, batch).i != 0 || !find_grid(m, i->in[1], &x, 0, &g))
        return 0;
    fg_expr start[FG_MAXRANK], size[FG_MAXRANK], dims[FG_MAXRANK], one = fg_ec(m->ex, 1);
    int64_t step[FG_MAXRANK], perm[FG_MAXRANK];
    int lead = idx.rank - 1, n = 0;
    for (int k = 0; k < x.rank; k++) {
        start[k] = k < g.n ? g.at[k].start : fg_ec(m->ex, 0);
        size[k] = k < g.n ? g.size[k] : x.dim[k];
        step[k] = 1;
        if (k < g.n && !inside(m, start[k], size[k], x.dim[k]))
            return 0;
    }
    /* Axes of x in the order in which the grid runs along them; fixed ones first. */
    for (int axis = -1; axis < lead; axis++)
        for (int k = 0; k < g.n; k++)
            if (g.at[k].axis == axis)
                perm[n++] = k;
    for (int k = g.n; k < x.rank; k++)
        perm[n++] = k;
    for (int k = 0; k < y.rank; k++)
        dims[k] = k < lead ? one : y.dim[k];
    for (int k = 0; k < g.n; k++)
        if (g.at[k].axis >= 0)
            dims[g.at[k].axis] = g.size[k];
    fg_reg v = fg_emit_slice(b, i->in[0], start, step, size);
    v = fg_emit_reshape(b, fg_emit_transpose(b, v, perm), y.rank, dims);
    return fg_emit_expand(b, v, y.rank, y.dim);
}

/* Updates that cover whole axes replace x; along at most one axis they may cover a range,
 * and what lies before and after it stays. */
static fg_reg
scatter_nd_of_grid(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    const fg_type x = *fg_rt(m, i->in[0]), idx = *fg_rt(m, i->in[1]);
    fg_expr zero = fg_ec(m->ex, 0), dims[FG_MAXRANK];
    int lead = idx.rank - 1, part = -1, last = -1;
    grid g;
    if (strcmp(FG_GET(i, scatter_nd, how).s, "none") || !find_grid(m, i->in[1], &x, 0, &g))
        return 0;
    memcpy(dims, x.dim, sizeof dims);
    for (int k = 0; k < g.n; k++) {
        if (g.at[k].axis >= 0 && g.at[k].axis <= last)
            return 0;           /* the updates would need a transpose */
        last = g.at[k].axis >= 0 ? g.at[k].axis : last;
        dims[k] = g.size[k];
        if (g.at[k].start == zero && g.size[k] == x.dim[k])
            continue;
        if (part >= 0 || fg_e_lo(m->ex, g.at[k].start) < 0 ||
            !fg_e_le(m->ex, fg_eadd(m->ex, g.at[k].start, g.size[k]), x.dim[k]))
            return 0;
        part = k;
    }
    for (int a = 0; a < lead; a++) {
        bool run = fg_e_is(m->ex, idx.dim[a], 1);
        for (int k = 0; k < g.n; k++)
            run |= g.at[k].axis == a;
        if (!run)
            return 0;           /* several updates for one place */
    }
    fg_reg u = fg_emit_reshape(b, i->in[2], x.rank, dims);
    if (part < 0)
        return u;
    fg_expr end = fg_eadd(m->ex, g.at[part].start, g.size[part]);
    fg_expr rest = fg_esub(m->ex, x.dim[part], end);
    fg_reg piece[3];
    int n = 0;
    if (g.at[part].start != zero)
        piece[n++] = fg_emit_slice_axis(b, i->in[0], part, zero, g.at[part].start);
    piece[n++] = u;
    if (rest != zero)
        piece[n++] = fg_emit_slice_axis(b, i->in[0], part, end, rest);
    return fg_emit_concat(b, n, piece, part);
}

/* clang-format off */
const fg_rule fg_rules_index[] = {
    { FG_OP_gather,     gather_of_ramp,     0, "x[s..s+n] by index" },
    { FG_OP_gather,     gather_of_expand,   0, "gather(x, expand i) = expand(gather(x, i))" },
    { FG_OP_where,      wrapped_index,      0, "i < 0 ? i + n : i = i for i >= 0" },
    { FG_OP_gather_nd,  gather_nd_of_grid,  0, "x[s..s+n, t..t+m] by tuples" },
    { FG_OP_scatter_nd, scatter_nd_of_grid, 0, "assignment to whole axes, or to a range of one" },
    { 0, NULL, 0, NULL },
};
/* clang-format on */
