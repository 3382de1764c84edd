/* grid.c - numbers to whole steps of a scale, and back.
 *
 *     %q = quantize %x, s, z : u8        clamp(round(x / s) + z) of 0 .. 255
 *     %y = dequantize %q, s, z           (q - z) s
 *
 * Rounding keeps order and the ends of a grid are whole steps, so numbers may be clamped
 * before they are rounded. By a constant s, x / s costs three instructions that are faster
 * than a division: q = x r, r = 1 / s, is off by two units at most, and what x - q s, which
 * fma computes without error, adds to it leaves q within 2^-46 of its size of the quotient
 * before the last rounding. Nothing becomes infinite or gets lost on the way: x is clamped
 * before, and s neither huge nor tiny.
 */
#include "codegen/cpu/pull.h"

#include <math.h>

/* Scale or zero point that belongs to the element at ix. */
static fg_v
pull_group(fg_em *e, fg_reg s, const fg_index *ix, int64_t axis, int64_t block)
{
    const fg_type *t = fg_rt(e->m, s);
    fg_index at[FG_MAXRANK];
    int64_t one = 0;
    if (t->rank == 1 && !(fg_e_const(e->m->ex, t->dim[0], &one) && one == 1)) {
        at[0] = ix[axis];
    } else {
        for (int a = 0; a < t->rank; a++)
            at[a] = t->rank == 1 ? fg_ixc(e, 0) : ix[a];
        if (block && t->rank > 1)
            at[axis] = fg_ix_div(e, ix[axis], fg_ec(e->m->ex, block));
    }
    return fg_pull(e, s, at);
}

static void
match_lanes(fg_em *e, fg_v *a, fg_v *b)
{
    if (ll_lanes(*a) != ll_lanes(*b)) {
        *a = fg_lanes(e, *a);
        *b = fg_lanes(e, *b);
    }
}

/* x / s, for |x| from lo s to hi s. */
static fg_v
quotient(fg_ll *g, fg_v x, fg_v s, double step, fg_v lo, fg_v hi)
{
    fg_v r = ll_cf(LLVMTypeOf(x), (float)(1 / step));
    x = ll_min(g, ll_max(g, x, ll_mul(g, lo, s)), ll_mul(g, hi, s));
    fg_v q = ll_mul(g, x, r);
    return ll_fma(g, ll_fma(g, ll_neg(g, q), s, x), r, q);
}

fg_v
fg_grid_steps(fg_em *e, fg_v x, fg_reg scale, fg_v s, fg_v z, fg_dtype d)
{
    fg_ll *g = e->g;
    fg_t t = LLVMTypeOf(x);
    bool sign = fg_dtypes[d].cls == FG_CLASS_SINT;
    double n = ldexp(1, fg_dtypes[d].bits), step;
    bool plain = g->t->fma && ll_elem(t) == g->f32 &&
                 fg_const_splat(e->m, scale, &step) && step > 0x1p-60 && step < 0x1p60;
    fg_v lo = ll_sub(g, ll_cf(t, sign ? -n / 2 : 0), z);
    fg_v hi = ll_sub(g, ll_cf(t, (sign ? n / 2 : n) - 1), z);
    fg_v q = plain ? quotient(g, x, s, step, lo, hi) : ll_div(g, x, s);
    fg_v nan = sign ? ll_isnan(g, plain ? x : q) : NULL;
    if (!plain)
        q = ll_min(g, ll_max(g, q, lo), hi);
    q = ll_round(g, q);
    return sign ? ll_sel(g, nan, ll_neg(g, z), q) : q;
}

/* Steps of x along one grid, and the values that say which grid. */
typedef struct grid {
    fg_v steps, scale, zero;
} grid;

/* What instruction i, quantize, keeps of its operand at ix. */
static grid
on_grid(fg_em *e, const fg_inst *i, const fg_index *ix)
{
    int64_t axis = FG_GET(i, quantize, axis).i, block = FG_GET(i, quantize, block).i;
    fg_dtype to = fg_rt(e->m, i->out[0])->dtype, dx = fg_rt(e->m, i->in[0])->dtype;
    fg_v x = fg_pull(e, i->in[0], ix), s = pull_group(e, i->in[1], ix, axis, block);
    s = fg_em_cast(e, s, fg_rt(e->m, i->in[1])->dtype, dx);
    match_lanes(e, &x, &s);
    fg_v z = ll_zero(LLVMTypeOf(x));
    if (i->nin > 2 && i->in[2]) {
        z = pull_group(e, i->in[2], ix, axis, block);
        z = fg_em_cast(e, z, to, dx == FG_f64 ? FG_f64 : FG_f32);
        match_lanes(e, &x, &z);
        match_lanes(e, &x, &s);
    }
    return (grid){fg_grid_steps(e, x, i->in[1], s, z, to), s, z};
}

fg_v
fg_pull_quantize(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_dtype to = fg_rt(e->m, r)->dtype, dx = fg_rt(e->m, i->in[0])->dtype;
    grid q = on_grid(e, i, ix);
    return fg_em_cast(e, ll_add(e->g, q.steps, q.zero), dx == FG_f64 ? FG_f64 : FG_f32,
                      to);
}

/* What was put on the same grid just now need not become an integer on the way. */
static fg_inst *
same_grid(fg_em *e, const fg_inst *i)
{
    fg_inst *q = fg_em_param(e, i->in[0]) >= 0 ? NULL : fg_def(e->m, i->in[0]);
    bool zero = i->nin > 2 && i->in[2];
    return fg_is_op(q, FG_OP_quantize) && q->in[1] == i->in[1] &&
                   (q->nin > 2 ? q->in[2] : 0) == (zero ? i->in[2] : 0) &&
                   FG_GET(q, quantize, axis).i == FG_GET(i, dequantize, axis).i &&
                   FG_GET(q, quantize, block).i == FG_GET(i, dequantize, block).i &&
                   fg_dtypes[fg_rt(e->m, q->out[0])->dtype].bits <= 16 &&
                   fg_rt(e->m, q->in[0])->dtype == FG_f32 &&
                   fg_rt(e->m, q->in[1])->dtype == FG_f32
               ? q
               : NULL;
}

fg_v
fg_pull_dequantize(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_ll *g = e->g;
    int64_t axis = FG_GET(i, dequantize, axis).i, block = FG_GET(i, dequantize, block).i;
    fg_dtype dx = fg_rt(e->m, i->in[0])->dtype, ds = fg_rt(e->m, i->in[1])->dtype;
    fg_dtype wide = ds == FG_f64 ? FG_f64 : FG_f32;
    const fg_inst *same = same_grid(e, i);
    if (same) {
        grid q = on_grid(e, same, ix);
        return fg_em_cast(e, ll_mul(g, q.steps, q.scale), FG_f32, fg_rt(e->m, r)->dtype);
    }
    /* The difference of two integers of up to 16 bits is exact in i32. */
    fg_dtype mid = fg_dtypes[dx].bits <= 16 ? FG_i32 : FG_i64;
    fg_v x = fg_em_cast(e, fg_pull(e, i->in[0], ix), dx, mid);
    if (i->nin > 2 && i->in[2]) {
        fg_v z = fg_em_cast(e, pull_group(e, i->in[2], ix, axis, block), dx, mid);
        match_lanes(e, &x, &z);
        x = ll_sub(g, x, z);
    }
    fg_v y = fg_em_cast(e, x, mid, wide), s = pull_group(e, i->in[1], ix, axis, block);
    match_lanes(e, &y, &s);
    return fg_em_cast(e, ll_mul(g, y, s), wide, fg_rt(e->m, r)->dtype);
}
