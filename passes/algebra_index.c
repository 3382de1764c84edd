/* algebra_index.c - gathers and scatters whose index is a grid are views.
 *
 *     gather %table, (iota S)                   => slice %table {start=[0,0]}
 *     gather %x, 3                              => slice and reshape
 *     gather (reshape %m to [B T]), (T b + t)   => reshape and expand of %m
 *     gather_nd %m, (grid [B,1,S,T,2])          => reshape and expand of %m
 *     scatter_nd %x, (grid of all rows), %u     => reshape %u
 *
 * The index is shown to be linear in the position (affine.c). The positions must lie
 * inside: a model that indexes an axis with 0..S-1 promises that S fits, so an input
 * symbol is bounded by the size. A grid over several axes of an input (a mask, in
 * practice) covers them: sizes with names of their own are taken to be equal. Both renew
 * every type of the module, so rules look types up after the promise, not before.
 */
#include "passes/algebra.h"

/* ---- positions --------------------------------------------------------------------- */

typedef struct ramp { /* start + c[axis]; axis -1: start */
    int axis;
    fg_expr start;
} ramp;

static bool
as_ramp(fg_module *m, const fg_affine *f, ramp *r)
{
    if (f->n > 1 || (f->n == 1 && !fg_e_is(m->ex, f->term[0].coef, 1)))
        return false;
    *r = (ramp){f->n ? f->term[0].axis : -1, f->start};
    return true;
}

/* Does start + n <= size hold, or can it be promised? With `whole`, an input's size that
 * has a name of its own may be taken to be n. Nothing is promised for a region: what it would
 * need must not bind the runs that do not enter it. */
static bool
inside(fg_build *b, fg_expr start, fg_expr n, fg_expr size, bool whole)
{
    fg_module *m = b->m;
    fg_exprs *ex = m->ex;
    fg_expr end = fg_eadd(ex, start, n);
    fg_sym s;
    if (end == FG_E_BAD || fg_e_lo(ex, start) < 0)
        return false;
    if (b->block != m->body)
        return fg_e_le(ex, end, size);
    if (fg_assume_le(m, end, size))
        return true;
    return whole && fg_e_is(ex, start, 0) && fg_e_single(ex, size, &s) &&
           fg_sym_info(ex, s)->kind == FG_SYM_INPUT &&
           !fg_e_mentions(ex, n, FG_SYM_RUN) && fg_unify(m, size, n) &&
           fg_e_renew(ex, size) == fg_e_renew(ex, n);
}

/* A position below `size` that may count from the end. */
static fg_expr
from_front(fg_module *m, const ramp *r, fg_expr size)
{
    if (r->axis < 0 && fg_e_hi(m->ex, r->start) < 0)
        return fg_eadd(m->ex, r->start, size);
    return r->start;
}

static fg_expr
ramp_size(fg_module *m, const ramp *r, const fg_type *index)
{
    return r->axis < 0 ? fg_ec(m->ex, 1) : index->dim[r->axis];
}

/* ---- grids ------------------------------------------------------------------------- */

enum { MAXTUPLE = 4 };

typedef struct grid { /* positions along the first n axes of x */
    int n;
    ramp at[MAXTUPLE]; /* no two along the same axis of the index */
} grid;

static bool
axes_differ(const grid *g)
{
    for (int k = 0; k < g->n; k++)
        for (int j = 0; j < k; j++)
            if (g->at[k].axis >= 0 && g->at[k].axis == g->at[j].axis)
                return false;
    return true;
}

/* The index as tuples along its last axis. */
static bool
tuple_grid(fg_module *m, fg_reg index, const fg_type *x, grid *g)
{
    const fg_type *t = fg_rt(m, index);
    fg_inst *d = fg_def(m, index);
    int64_t n;
    int lead = t->rank - 1;
    if (!fg_e_const(m->ex, t->dim[lead], &n) || n < 1 || n > MAXTUPLE)
        return false;
    bool joined = n > 1 && fg_is_op(d, FG_OP_concat) &&
                  FG_GET(d, concat, axis).i == lead && d->nin == n;
    g->n = (int)n;
    for (int k = 0; k < n; k++) {
        fg_affine f;
        bool found = joined   ? fg_find_affine(m, d->in[k], &f)
                     : n == 1 ? fg_find_affine(m, index, &f)
                              : fg_find_affine_entry(m, index, k, &f);
        if (!found || !as_ramp(m, &f, &g->at[k]) || g->at[k].axis == lead)
            return false;
        g->at[k].start = from_front(m, &g->at[k], x->dim[k]);
    }
    return axes_differ(g);
}

/* One index into the first axes of x taken as one: each term steps along one of them. */
static bool
flat_grid(fg_module *m, fg_reg index, const fg_type *x, int merged, grid *g)
{
    fg_affine f;
    fg_expr stride = fg_ec(m->ex, 1), zero = fg_ec(m->ex, 0);
    if (!fg_find_affine(m, index, &f) || f.start != zero || merged > MAXTUPLE)
        return false;
    int used = 0;
    g->n = merged;
    for (int k = merged - 1; k >= 0; k--) {
        g->at[k] = (ramp){-1, zero};
        for (int j = 0; j < f.n; j++)
            if (f.term[j].coef == stride && g->at[k].axis < 0) {
                g->at[k].axis = f.term[j].axis;
                used++;
            }
        stride = fg_emul(m->ex, stride, x->dim[k]);
    }
    return used == f.n && axes_differ(g);
}

static bool
grid_inside(fg_build *b, fg_reg x, fg_reg index, const grid *g)
{
    fg_module *m = b->m;
    for (int k = 0; k < g->n; k++)
        if (!inside(b, fg_e_renew(m->ex, g->at[k].start),
                    ramp_size(m, &g->at[k], fg_rt(m, index)), fg_rt(m, x)->dim[k],
                    g->n > 1))
            return false;
    return true;
}

/* x at the grid's positions: result axes of the index, `lead` of them, then the rest. */
static fg_reg
emit_grid(fg_build *b, fg_reg x, fg_reg index, const grid *g, int lead, const fg_type *y)
{
    fg_module *m = b->m;
    const fg_type xt = *fg_rt(m, x), idx = *fg_rt(m, index);
    fg_expr start[FG_MAXRANK], size[FG_MAXRANK], dims[FG_MAXRANK];
    int64_t step[FG_MAXRANK], perm[FG_MAXRANK];
    int n = 0;
    for (int k = 0; k < xt.rank; k++) {
        start[k] = k < g->n ? fg_e_renew(m->ex, g->at[k].start) : fg_ec(m->ex, 0);
        size[k] = k < g->n ? ramp_size(m, &g->at[k], &idx) : xt.dim[k];
        step[k] = 1;
    }
    /* Axes of x in the order in which the grid runs along them; fixed ones first. */
    for (int axis = -1; axis < lead; axis++)
        for (int k = 0; k < g->n; k++)
            if (g->at[k].axis == axis)
                perm[n++] = k;
    for (int k = g->n; k < xt.rank; k++)
        perm[n++] = k;
    for (int k = 0; k < y->rank; k++)
        dims[k] = k < lead ? fg_ec(m->ex, 1) : y->dim[k];
    for (int k = 0; k < g->n; k++)
        if (g->at[k].axis >= 0)
            dims[g->at[k].axis] = size[k];
    fg_reg v = fg_emit_slice(b, x, start, step, size);
    v = fg_emit_reshape(b, fg_emit_transpose(b, v, perm), y->rank, dims);
    return fg_emit_expand(b, v, y->rank, y->dim);
}

/* ---- gather ------------------------------------------------------------------------ */

static fg_reg
gather_of_ramp(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    int axis = (int)FG_GET(i, gather, axis).i;
    fg_affine f;
    ramp r;
    if (!fg_find_affine(m, i->in[1], &f) || !as_ramp(m, &f, &r))
        return 0;
    fg_expr start = from_front(m, &r, fg_rt(m, i->in[0])->dim[axis]);
    if (!inside(b, start, ramp_size(m, &r, fg_rt(m, i->in[1])),
                fg_rt(m, i->in[0])->dim[axis], false))
        return 0;
    const fg_type idx = *fg_rt(m, i->in[1]), y = *fg_rt(m, i->out[0]);
    fg_expr n = ramp_size(m, &r, &idx), dims[FG_MAXRANK];
    memcpy(dims, y.dim, sizeof dims);
    for (int k = 0; k < idx.rank; k++)
        dims[axis + k] = k == r.axis ? n : fg_ec(m->ex, 1);
    fg_reg v = fg_emit_slice_axis(b, i->in[0], axis, fg_e_renew(m->ex, start), n);
    return fg_emit_expand(b, fg_emit_reshape(b, v, y.rank, dims), y.rank, y.dim);
}

/* An index into merged axes, made from one position for each of them. */
static fg_reg
gather_of_flat_grid(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    fg_inst *d = fg_operand_def(m, i, 0, FG_OP_reshape);
    grid g;
    if (!d || FG_GET(i, gather, axis).i != 0)
        return 0;
    const fg_type x = *fg_rt(m, d->in[0]), flat = *fg_rt(m, i->in[0]);
    fg_expr n = fg_ec(m->ex, 1);
    int merged = 0;
    while (merged < x.rank && (merged < 2 || n != flat.dim[0]))
        n = fg_emul(m->ex, n, x.dim[merged++]);
    if (merged < 2 || n != flat.dim[0] || n == FG_E_BAD ||
        !flat_grid(m, i->in[1], &x, merged, &g) ||
        !grid_inside(b, d->in[0], i->in[1], &g))
        return 0;
    return emit_grid(b, d->in[0], i->in[1], &g, fg_rt(m, i->in[1])->rank,
                     fg_rt(m, i->out[0]));
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

static fg_reg
gather_nd_of_grid(fg_build *b, fg_inst *i)
{
    grid g;
    if (FG_GET(i, gather_nd, batch).i != 0 ||
        !tuple_grid(b->m, i->in[1], fg_rt(b->m, i->in[0]), &g) ||
        !grid_inside(b, i->in[0], i->in[1], &g))
        return 0;
    return emit_grid(b, i->in[0], i->in[1], &g, fg_rt(b->m, i->in[1])->rank - 1,
                     fg_rt(b->m, i->out[0]));
}

/* ---- scatter ----------------------------------------------------------------------- */

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
    if (strcmp(FG_GET(i, scatter_nd, how).s, "none") || !tuple_grid(m, i->in[1], &x, &g))
        return 0;
    memcpy(dims, x.dim, sizeof dims);
    unsigned run = 0;
    for (int k = 0; k < g.n; k++) {
        const ramp *r = &g.at[k];
        if (r->axis >= 0 && r->axis <= last)
            return 0; /* the updates would need a transpose */
        if (r->axis >= 0) {
            last = r->axis;
            run |= 1u << r->axis;
        }
        dims[k] = ramp_size(m, r, &idx);
        if (r->start == zero && dims[k] == x.dim[k])
            continue;
        if (part >= 0 || fg_e_lo(m->ex, r->start) < 0 ||
            !fg_e_le(m->ex, fg_eadd(m->ex, r->start, dims[k]), x.dim[k]))
            return 0;
        part = k;
    }
    for (int a = 0; a < lead; a++)
        if (!(run >> a & 1) && !fg_e_is(m->ex, idx.dim[a], 1))
            return 0; /* several updates for one place */
    fg_reg u = fg_emit_reshape(b, i->in[2], x.rank, dims);
    if (part < 0)
        return u;
    fg_expr end = fg_eadd(m->ex, g.at[part].start, dims[part]);
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

/* ---- comparisons of positions ------------------------------------------------------ */

/* Least and greatest element, for terms that do not fall. */
static bool
extremes(fg_module *m, fg_reg r, fg_expr *least, fg_expr *greatest)
{
    fg_affine f;
    if (!fg_find_affine(m, r, &f))
        return false;
    *least = *greatest = f.start;
    for (int j = 0; j < f.n; j++) {
        fg_expr n = fg_esub(m->ex, fg_rt(m, r)->dim[f.term[j].axis], fg_ec(m->ex, 1));
        if (fg_e_lo(m->ex, f.term[j].coef) < 0)
            return false;
        *greatest = fg_eadd(m->ex, *greatest, fg_emul(m->ex, f.term[j].coef, n));
    }
    return *greatest != FG_E_BAD;
}

static bool
below(fg_module *m, fg_expr a, fg_expr b)
{
    return fg_e_le(m->ex, fg_eadd(m->ex, a, fg_ec(m->ex, 1)), b);
}

static fg_reg
positions_compared(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    fg_expr lo[2], hi[2];
    if (!extremes(m, i->in[0], &lo[0], &hi[0]) || !extremes(m, i->in[1], &lo[1], &hi[1]))
        return 0;
    bool strict = i->op == FG_OP_lt || i->op == FG_OP_gt;
    int x = i->op == FG_OP_lt || i->op == FG_OP_le ? 0 : 1,
        y = 1 - x; /* asks x < y or x <= y */
    bool yes = strict ? below(m, hi[x], lo[y]) : fg_e_le(m->ex, hi[x], lo[y]);
    bool no = strict ? fg_e_le(m->ex, hi[y], lo[x]) : below(m, hi[y], lo[x]);
    if (!yes && !no)
        return 0;
    const fg_type *t = fg_rt(m, i->out[0]);
    return fg_emit_expand(b, fg_emit_f(b, FG_bool, yes), t->rank, t->dim);
}

/* clang-format off */
const fg_rule fg_rules_index[] = {
    FG_RULE(gather,     gather_of_ramp,      NOWHERE, "x[s..s+n] by index")
    FG_RULE(gather,     gather_of_flat_grid, NOWHERE, "by an index into merged axes")
    FG_RULE(gather,     gather_of_expand,    NOWHERE, "of repeated rows, repeats rows")
    FG_RULE(gather_nd,  gather_nd_of_grid,   NOWHERE, "x[s..s+n, t..t+m] by tuples")
    FG_RULE(scatter_nd, scatter_nd_of_grid,  NOWHERE, "to whole axes, a range of one")
    FG_RULE(lt,         positions_compared,  NOWHERE, "positions on one side of a bound")
    FG_RULE(le,         positions_compared,  NOWHERE, "positions on one side of a bound")
    FG_RULE(gt,         positions_compared,  NOWHERE, "positions on one side of a bound")
    FG_RULE(ge,         positions_compared,  NOWHERE, "positions on one side of a bound")
    { FG_OP_NONE, NULL, FG_DIFFERS_NOWHERE, NULL },
};
/* clang-format on */
