/* fuzz_make.c - random typed programs.
 *
 * Instructions are made by the ordinary builder from registers that exist: an operation is chosen,
 * operands that could fit, attributes in their range. What the shape rules refuse is no
 * instruction, and the next is tried. Operands of one operation agree in their sizes or have
 * 1 there, so that inference never has to solve for a symbol.
 */
#include "tests/fuzz.h"
#include "tests/lab.h"

typedef struct maker {
    fg_module *m;
    fg_build b;
    uint64_t state;
    fg_reg *reg; /* that may be read here */
    int nreg;
    size_t capreg;
    int depth; /* of regions */
} maker;

static uint64_t
below(maker *k, uint64_t n)
{
    return lab_below(&k->state, n);
}

static const fg_type *
type(const maker *k, fg_reg r)
{
    return fg_rt(k->m, r);
}

static bool
flt(const maker *k, fg_reg r)
{
    return fg_is_float((fg_dtype)type(k, r)->dtype);
}

/* ---- operands ---------------------------------------------------------------------- */

typedef bool want_fn(const maker *k, fg_reg r, fg_reg like);

/* One of those that `want`; later ones more often. 0: none. */
static fg_reg
pick(maker *k, want_fn *want, fg_reg like)
{
    fg_reg found = 0;
    int n = 0;
    for (int j = 0; j < k->nreg; j++)
        if (!want || want(k, k->reg[j], like)) {
            n++;
            if (below(k, (uint64_t)n) < 2)
                found = k->reg[j];
        }
    return found;
}

static bool
any_float(const maker *k, fg_reg r, fg_reg like)
{
    (void)like;
    return flt(k, r);
}

static bool
any_bool(const maker *k, fg_reg r, fg_reg like)
{
    (void)like;
    return type(k, r)->dtype == FG_bool;
}

static bool
has_axes(const maker *k, fg_reg r, fg_reg like)
{
    (void)like;
    return type(k, r)->rank > 0;
}

static bool
numbers_with_axes(const maker *k, fg_reg r, fg_reg like)
{
    return has_axes(k, r, like) && type(k, r)->dtype != FG_bool;
}

static bool
same_type(const maker *k, fg_reg r, fg_reg like)
{
    return fg_type_equal(type(k, r), type(k, like));
}

static bool
broadcasts(const maker *k, fg_reg r, fg_reg like)
{
    const fg_type *x = type(k, r), *y = type(k, like);
    for (int d = 1; d <= x->rank && d <= y->rank; d++) {
        fg_expr a = x->dim[x->rank - d], b = y->dim[y->rank - d];
        if (a != b && !fg_e_is(k->m->ex, a, 1) && !fg_e_is(k->m->ex, b, 1))
            return false;
    }
    return true;
}

static bool
partner(const maker *k, fg_reg r, fg_reg like)
{
    return type(k, r)->dtype == type(k, like)->dtype && broadcasts(k, r, like);
}

static bool
condition(const maker *k, fg_reg r, fg_reg like)
{
    return type(k, r)->dtype == FG_bool && broadcasts(k, r, like);
}

/* ---- making instructions ----------------------------------------------------------- */

static fg_reg
scalar(maker *k, fg_dtype d)
{
    static const double some[] = {0, 1, -1, 2, 0.5, 8, 3, 0.25, 1e-5, 0.7978845608028654,
                                  16};
    double v = some[below(k, sizeof some / sizeof *some)];
    if (!fg_is_float(d))
        v = d == FG_bool ? v != 0 : v < 1 && v != 0 ? 1 : v;
    return fg_emit_f(&k->b, d, v);
}

static fg_reg
weight(maker *k, fg_dtype d, int rank, const int64_t *dim)
{
    fg_tensor t;
    if (!fg_tensor_new(k->m->a, &t, d, rank, dim))
        return 0;
    lab_fill(&t, LAB_PLAIN, &k->state);
    return fg_emit_const(&k->b, d, rank, dim, t.data);
}

static fg_reg
elementwise(maker *k)
{
    static fg_op ops[FG_NOPS];
    static int nops;
    for (int op = 1; nops == 0 && op < FG_NOPS; op++)
        for (int o = op; fg_op_is((fg_op)op, FG_T_ELEM) && o; o = 0)
            ops[nops++] = (fg_op)op;
    fg_op op = ops[below(k, (uint64_t)nops)];
    const fg_opinfo *info = fg_op_info(op);
    fg_reg in[3], x = pick(k,
                           info->operand[0].cls == FG_IN_bool  ? any_bool
                           : info->operand[0].cls == FG_IN_flt ? any_float
                                                               : NULL,
                           0);
    in[0] = x;
    if (op == FG_OP_where) {
        in[1] = pick(k, NULL, 0);
        in[0] = in[1] ? pick(k, condition, in[1]) : 0;
        in[2] = in[1] ? pick(k, partner, in[1]) : 0;
    } else if (info->noperand == 2 && x) {
        in[1] =
            below(k, 4) ? pick(k, partner, x) : scalar(k, (fg_dtype)type(k, x)->dtype);
        if (below(k, 8) == 0) {
            in[0] = in[1];
            in[1] = x;
        }
    }
    fg_inst *i = fg_inst_begin(&k->b, op, info->noperand, in);
    static const fg_dtype to[] = {FG_f32, FG_f32, FG_f64, FG_i64,
                                  FG_i32, FG_u8,  FG_i8,  FG_bool};
    if (op == FG_OP_cast)
        FG_SET(i, cast, to).i = to[below(k, sizeof to / sizeof *to)];
    if (op == FG_OP_bitcast)
        return 0;
    for (int j = 0; j < info->noperand; j++)
        if (!in[j])
            return 0;
    return fg_inst_finish(&k->b, i, NULL, 0) ? i->out[0] : 0;
}

/* Neighbours merged, or an axis of 1 put in or taken out, or a constant one split. */
static fg_reg
reshaped(maker *k)
{
    fg_reg x = pick(k, NULL, 0);
    fg_expr dim[FG_MAXRANK];
    fg_type t = *type(k, x);
    int rank = t.rank, at = (int)below(k, (uint64_t)rank + 1);
    int64_t v;
    memcpy(dim, t.dim, sizeof dim);
    if (at < rank - 1 && below(k, 2)) {
        dim[at] = fg_emul(k->m->ex, dim[at], dim[at + 1]);
        memmove(dim + at + 1, dim + at + 2, sizeof *dim * (size_t)(rank - at - 2));
        rank--;
    } else if (at < rank && fg_e_is(k->m->ex, dim[at], 1)) {
        memmove(dim + at, dim + at + 1, sizeof *dim * (size_t)(rank - at - 1));
        rank--;
    } else if (rank < 5) {
        memmove(dim + at + 1, dim + at, sizeof *dim * (size_t)(rank - at));
        dim[at] = fg_ec(k->m->ex, 1);
        if (at < rank && fg_e_const(k->m->ex, dim[at + 1], &v) && v > 2 && v % 2 == 0) {
            dim[at] = fg_ec(k->m->ex, 2);
            dim[at + 1] = fg_ec(k->m->ex, v / 2);
        }
        rank++;
    }
    return fg_emit_reshape(&k->b, x, rank, dim);
}

static fg_reg
transposed(maker *k)
{
    fg_reg x = pick(k, has_axes, 0);
    int64_t perm[FG_MAXRANK];
    int rank = x ? type(k, x)->rank : 0;
    for (int d = 0; d < rank; d++) {
        int at = (int)below(k, (uint64_t)d + 1);
        perm[d] = perm[at];
        perm[at] = d;
    }
    return x ? fg_emit_transpose(&k->b, x, perm) : 0;
}

static fg_reg
expanded(maker *k)
{
    fg_reg x = pick(k, NULL, 0), like = pick(k, broadcasts, x);
    if (!like || type(k, like)->rank < type(k, x)->rank)
        return 0;
    fg_type t = *type(k, like);
    for (int d = 1; d <= type(k, x)->rank; d++)
        if (fg_e_is(k->m->ex, t.dim[t.rank - d], 1))
            t.dim[t.rank - d] = type(k, x)->dim[type(k, x)->rank - d];
    return fg_emit_expand(&k->b, x, t.rank, t.dim);
}

static fg_reg
sliced(maker *k)
{
    fg_reg x = pick(k, has_axes, 0);
    fg_exprs *ex = k->m->ex;
    if (!x)
        return 0;
    fg_type t = *type(k, x);
    fg_expr start[FG_MAXRANK];
    int64_t step[FG_MAXRANK], v;
    int axis = (int)below(k, t.rank);
    for (int d = 0; d < t.rank; d++) {
        start[d] = fg_ec(ex, 0);
        step[d] = 1;
    }
    if (fg_e_const(ex, t.dim[axis], &v) && v > 1) {
        int64_t n = 1 + (int64_t)below(k, (uint64_t)v), s = 1;
        if (below(k, 3) == 0 && n > 1)
            s = (int64_t)below(k, (uint64_t)(v - 1) / (uint64_t)(n - 1)) + 1;
        int64_t room = v - (n - 1) * s - 1, from = (int64_t)below(k, (uint64_t)room + 1);
        bool back = below(k, 4) == 0;
        start[axis] = fg_ec(ex, back ? from + (n - 1) * s : from);
        step[axis] = back ? -s : s;
        t.dim[axis] = fg_ec(ex, n);
    } else if (fg_e_lo(ex, t.dim[axis]) > 1) {
        start[axis] = fg_ec(ex, (int64_t)below(k, 2));
        t.dim[axis] = fg_esub(ex, t.dim[axis], fg_ec(ex, 1));
    }
    return fg_emit_slice(&k->b, x, start, step, t.dim);
}

static fg_reg
joined(maker *k)
{
    fg_reg x = pick(k, has_axes, 0), in[3] = {x};
    if (!x)
        return 0;
    int n = 2 + (int)below(k, 2), axis = (int)below(k, type(k, x)->rank);
    for (int j = 1; j < n; j++)
        in[j] = pick(k, same_type, x);
    return fg_emit_concat(&k->b, n, in, axis);
}

static fg_reg
padded(maker *k)
{
    static const char *const modes[] = {"constant", "edge", "constant"};
    fg_reg x = pick(k, has_axes, 0);
    fg_expr before[FG_MAXRANK], after[FG_MAXRANK];
    for (int d = 0; x && d < type(k, x)->rank; d++) {
        before[d] = fg_ec(k->m->ex, (int64_t)below(k, 2));
        after[d] = fg_ec(k->m->ex, (int64_t)below(k, 3) / 2);
        if (fg_e_lo(k->m->ex, type(k, x)->dim[d]) < 1)
            return 0;
    }
    if (!x)
        return 0;
    fg_inst *i = fg_inst_begin(&k->b, FG_OP_pad, 1, &x);
    fg_set_exprs(k->m, &FG_SET(i, pad, before), type(k, x)->rank, before);
    fg_set_exprs(k->m, &FG_SET(i, pad, after), type(k, x)->rank, after);
    fg_set_word(k->m, &FG_SET(i, pad, mode), modes[below(k, 3)]);
    return fg_inst_finish(&k->b, i, NULL, 0) ? i->out[0] : 0;
}

/* Positions that every size of the axis has: others are a fault of the model, and passes take it
 * for granted that there are none. */
static fg_reg
gathered(maker *k)
{
    fg_reg x = pick(k, has_axes, 0), index;
    if (!x)
        return 0;
    int axis = (int)below(k, type(k, x)->rank);
    int64_t n = fg_e_lo(k->m->ex, type(k, x)->dim[axis]), dim[2] = {1, 2};
    if (n < 1)
        return 0;
    n = n > 8 ? 8 : n;
    dim[0] += (int64_t)below(k, (uint64_t)n);
    fg_expr from = fg_ec(k->m->ex, (int64_t)below(k, (uint64_t)(n - dim[0]) + 1));
    if (below(k, 2)) {
        index = fg_emit_iota(&k->b, fg_ec(k->m->ex, dim[0]), from, 1, FG_i64);
    } else {
        fg_tensor t;
        if (!fg_tensor_new(k->m->a, &t, FG_i64, (int)below(k, 3), dim))
            return 0;
        lab_fill_range(&t, -n, n - 1, &k->state);
        index = fg_emit_const(&k->b, FG_i64, t.rank, dim, t.data);
    }
    return fg_emit_gather(&k->b, x, index, axis);
}

static fg_reg
reduced(maker *k)
{
    static const fg_op ops[] = {FG_OP_reduce_sum, FG_OP_reduce_mean, FG_OP_reduce_max,
                                FG_OP_reduce_min, FG_OP_reduce_prod};
    fg_reg x = pick(k, numbers_with_axes, 0);
    int64_t axes[FG_MAXRANK];
    int n = 0, rank = x ? type(k, x)->rank : 0;
    for (int d = 0; d < rank; d++)
        if (below(k, 2) || d == rank - 1)
            axes[n++] = d;
    return x ? fg_emit_reduce(&k->b, ops[below(k, 5)], x, n, axes, below(k, 2)) : 0;
}

static fg_reg
along_axis(maker *k)
{
    fg_reg x = pick(k, numbers_with_axes, 0);
    if (!x)
        return 0;
    int axis = (int)below(k, type(k, x)->rank);
    fg_inst *i;
    switch (below(k, 4)) {
    case 0:
        i = fg_inst_begin(&k->b, FG_OP_cumsum, 1, &x);
        FG_SET(i, cumsum, axis).i = axis;
        FG_SET(i, cumsum, reverse).i = (int64_t)below(k, 2);
        break;
    case 1:
        i = fg_inst_begin(&k->b, FG_OP_argmax, 1, &x);
        FG_SET(i, argmax, axis).i = axis;
        FG_SET(i, argmax, keep).i = (int64_t)below(k, 2);
        if (fg_e_lo(k->m->ex, type(k, x)->dim[axis]) < 1)
            return 0;
        break;
    default:
        return flt(k, x) ? fg_emit_softmax(&k->b, x, axis) : 0;
    }
    return fg_inst_finish(&k->b, i, NULL, 0) ? i->out[0] : 0;
}

static fg_reg
normed(maker *k)
{
    fg_reg x = pick(k, any_float, 0);
    if (!x || type(k, x)->rank < 1)
        return 0;
    int last = type(k, x)->rank - 1;
    bool layer = below(k, 2);
    fg_inst *i = fg_inst_begin(&k->b, layer ? FG_OP_layernorm : FG_OP_rmsnorm, 1, &x);
    (layer ? &FG_SET(i, layernorm, axis) : &FG_SET(i, rmsnorm, axis))->i = last;
    return fg_inst_finish(&k->b, i, NULL, 0) ? i->out[0] : 0;
}

/* With a register that fits, or a weight. */
static fg_reg
multiplied(maker *k)
{
    fg_reg x = pick(k, any_float, 0), y = pick(k, partner, x);
    int64_t v;
    if (!x || type(k, x)->rank < 2)
        return 0;
    fg_type t = *type(k, x);
    if (below(k, 2) && fg_e_const(k->m->ex, t.dim[t.rank - 1], &v)) {
        int64_t dim[2] = {v, 1 + (int64_t)below(k, 8)};
        bool turned = below(k, 2);
        if (turned) {
            dim[0] = dim[1];
            dim[1] = v;
        }
        return fg_emit_matmul(&k->b, x, weight(k, (fg_dtype)t.dtype, 2, dim), false,
                              turned);
    }
    if (!y || type(k, y)->rank < 2 ||
        type(k, y)->dim[type(k, y)->rank - 1] != t.dim[t.rank - 1])
        return 0;
    return fg_emit_matmul(&k->b, x, y, false, true);
}

/* What attention is made of, unfused. */
static fg_reg
attended(maker *k)
{
    fg_reg q = pick(k, any_float, 0), kk = q ? pick(k, same_type, q) : 0;
    fg_reg v = q ? pick(k, same_type, q) : 0;
    if (!q || type(k, q)->rank < 3)
        return 0;
    fg_reg s = fg_emit_matmul(&k->b, q, kk, false, true);
    s = fg_emit2(&k->b, FG_OP_mul, s, scalar(k, (fg_dtype)type(k, q)->dtype));
    return fg_emit_matmul(&k->b, fg_emit_softmax(&k->b, s, type(k, q)->rank - 1), v,
                          false, false);
}

/* The same as one instruction. */
static fg_reg
attention(maker *k)
{
    fg_reg q = pick(k, any_float, 0);
    if (!q || type(k, q)->rank != 4)
        return 0;
    fg_reg in[3] = {q, pick(k, same_type, q), pick(k, same_type, q)};
    fg_inst *i = fg_inst_begin(&k->b, FG_OP_attention, 3, in);
    FG_SET(i, attention, scale).f = 0.5;
    FG_SET(i, attention, causal).i = (int64_t)below(k, 2);
    FG_SET(i, attention, left).i = below(k, 4) ? -1 : 1;
    return fg_inst_finish(&k->b, i, NULL, 0) ? i->out[0] : 0;
}

static fg_reg
rotated(maker *k)
{
    fg_reg x = pick(k, any_float, 0);
    int64_t v;
    if (!x || type(k, x)->rank < 2 ||
        !fg_e_const(k->m->ex, type(k, x)->dim[type(k, x)->rank - 1], &v) || v % 2 ||
        v == 0)
        return 0;
    v /= 2;
    fg_dtype d = (fg_dtype)type(k, x)->dtype;
    fg_reg cos = weight(k, d, 1, &v), sin = weight(k, d, 1, &v);
    return fg_emit3(&k->b, FG_OP_rope, x, cos, sin);
}

static fg_reg
convolved(maker *k)
{
    fg_reg x = pick(k, any_float, 0);
    int64_t dim[3] = {1 + (int64_t)below(k, 4), 0, 3}, one = 1;
    if (!x || type(k, x)->rank != 3 ||
        !fg_e_const(k->m->ex, type(k, x)->dim[1], &dim[1]) || dim[1] < 1)
        return 0;
    fg_reg in[2] = {x, weight(k, (fg_dtype)type(k, x)->dtype, 3, dim)};
    fg_inst *i = fg_inst_begin(&k->b, FG_OP_conv, 2, in);
    fg_set_ints(k->m, &FG_SET(i, conv, stride), 1, &one);
    fg_set_ints(k->m, &FG_SET(i, conv, dilation), 1, &one);
    fg_set_ints(k->m, &FG_SET(i, conv, before), 1, &one);
    fg_set_ints(k->m, &FG_SET(i, conv, after), 1, &one);
    return fg_inst_finish(&k->b, i, NULL, 0) ? i->out[0] : 0;
}

/* Values through 8 bits and back, or bytes taken for values. */
static fg_reg
quantised(maker *k)
{
    fg_reg x = pick(k, NULL, 0), s = fg_emit_f(&k->b, FG_f32, below(k, 2) ? 0.0625 : 0.3);
    fg_reg in[3] = {x, s, fg_emit_f(&k->b, FG_u8, (double)below(k, 9))};
    if (x && type(k, x)->dtype == FG_f32) {
        fg_inst *i = fg_inst_begin(&k->b, FG_OP_quantize, 3, in);
        return fg_inst_finish(&k->b, i, NULL, 0) ? i->out[0] : 0;
    }
    fg_inst *i = fg_inst_begin(&k->b, FG_OP_dequantize, 3, in);
    return x && type(k, x)->dtype == FG_u8 && fg_inst_finish(&k->b, i, NULL, 0)
               ? i->out[0]
               : 0;
}

/* By constant positions along one axis of x, whose sizes are known. */
static fg_reg
picked(maker *k)
{
    fg_reg x = pick(k, numbers_with_axes, 0);
    int64_t dim[FG_MAXRANK];
    fg_tensor at;
    if (!x || !fg_type_static(k->m->ex, type(k, x), dim))
        return 0;
    int rank = type(k, x)->rank, axis = (int)below(k, (uint64_t)rank);
    int64_t n = dim[axis];
    dim[axis] = 1 + (int64_t)below(k, 3);
    if (n < 1 || dim[axis] > n || !fg_tensor_new(k->m->a, &at, FG_i64, rank, dim))
        return 0;
    bool scatter = below(k, 2);
    for (int64_t j = 0, inner = 1; j < at.count; j++) { /* no place is written twice */
        for (int d = axis + 1; j == 0 && d < rank; d++)
            inner *= dim[d];
        fg_tensor_set_i64(&at, j, n - 1 - j / inner % dim[axis]);
    }
    fg_reg index = fg_emit_const(&k->b, FG_i64, rank, dim, at.data);
    fg_dtype d = (fg_dtype)type(k, x)->dtype;
    fg_reg in[3] = {x, index, scatter ? weight(k, d, rank, dim) : 0};
    fg_inst *i = fg_inst_begin(
        &k->b, scatter ? FG_OP_scatter_elements : FG_OP_gather_elements, 2 + scatter, in);
    (scatter ? &FG_SET(i, scatter_elements, axis) : &FG_SET(i, gather_elements, axis))
        ->i = axis;
    return fg_inst_finish(&k->b, i, NULL, 0) ? i->out[0] : 0;
}

static fg_reg
ranked(maker *k)
{
    fg_reg x = pick(k, numbers_with_axes, 0);
    if (!x)
        return 0;
    int axis = (int)below(k, type(k, x)->rank);
    int64_t n = fg_e_lo(k->m->ex, type(k, x)->dim[axis]);
    fg_inst *i = fg_inst_begin(&k->b, FG_OP_topk, 1, &x);
    FG_SET(i, topk, axis).i = axis;
    FG_SET(i, topk, k).e =
        fg_ec(k->m->ex, 1 + (int64_t)below(k, n > 3 ? 3 : (uint64_t)n));
    FG_SET(i, topk, largest).i = (int64_t)below(k, 2);
    return n > 0 && fg_inst_finish(&k->b, i, NULL, 0) ? i->out[below(k, 2)] : 0;
}

static fg_reg
started(maker *k)
{
    int64_t dim[3] = {1 + (int64_t)below(k, 4), 3, 4};
    static const fg_dtype d[] = {FG_f32, FG_f32, FG_i64, FG_i32, FG_bool, FG_u8};
    fg_expr v[2] = {fg_ec(k->m->ex, 3), fg_es(k->m->ex, 0)};
    switch (below(k, 4)) {
    case 0:
        return fg_emit_iota(&k->b, fg_es(k->m->ex, 0), fg_ec(k->m->ex, 0), 1, FG_i64);
    case 1:
        return fg_emit_symvec(&k->b, 1 + (int)below(k, 2), v, FG_i64, false);
    case 2:
        return scalar(k, d[below(k, 6)]);
    default:
        return weight(k, d[below(k, 6)], (int)below(k, 4), dim);
    }
}

/* ---- regions ----------------------------------------------------------------------- */

static void add_instructions(maker *k, int n);

/* A branch: some instructions, then something of the type of `like`. */
static bool
branch(maker *k, fg_inst *owner, int which, fg_reg like)
{
    fg_build outer = k->b;
    int n = k->nreg;
    owner->region[which] = fg_block_new(k->m, owner, outer.block);
    k->b = fg_build_end(owner->region[which]);
    k->depth++;
    add_instructions(k, 1 + (int)below(k, 4));
    fg_reg y = pick(k, same_type, like);
    fg_inst *yield = fg_inst_begin(&k->b, FG_OP_yield, 1, &y);
    bool ok = y && fg_inst_finish(&k->b, yield, NULL, 0);
    k->depth--;
    k->nreg = n;
    k->b = outer;
    return ok;
}

static fg_reg
branched(maker *k)
{
    fg_reg x = pick(k, NULL, 0), c = pick(k, any_bool, 0);
    if (!c || k->depth > 1)
        return 0;
    int64_t axes[FG_MAXRANK];
    for (int d = 0; d < type(k, c)->rank; d++)
        axes[d] = d;
    if (type(k, c)->rank)
        c = fg_emit_reduce(&k->b, FG_OP_reduce_max, c, type(k, c)->rank, axes, false);
    fg_inst *i = fg_inst_begin(&k->b, FG_OP_if, 1, &c);
    i->nregion = 2;
    i->region = FG_NEWN(k->m->a, fg_block *, 2);
    i->block = k->b.block;
    fg_type t = *type(k, x);
    return c && branch(k, i, 0, x) && branch(k, i, 1, x) &&
                   fg_inst_finish(&k->b, i, &t, 1)
               ? i->out[0]
               : 0;
}

/* A value carried through a few iterations, of one type all the way. */
static fg_reg
looped(maker *k)
{
    fg_reg x = pick(k, NULL, 0);
    fg_build outer = k->b;
    if (k->depth > 1)
        return 0;
    fg_reg in[3] = {fg_emit_f(&k->b, FG_i64, (double)below(k, 4)),
                    fg_emit_f(&k->b, FG_bool, 1), x};
    fg_inst *i = fg_inst_begin(&k->b, FG_OP_loop, 3, in);
    fg_type t = *type(k, x);
    int n = k->nreg;
    FG_SET(i, loop, carried).i = 1;
    i->nregion = 1;
    i->region = FG_NEWN(k->m->a, fg_block *, 1);
    i->block = outer.block;
    fg_block *b = i->region[0] = fg_block_new(k->m, i, outer.block);
    fg_reg step = fg_param(k->m, b, fg_type_scalar(FG_i64), NULL);
    fg_reg on = fg_param(k->m, b, fg_type_scalar(FG_bool), NULL);
    fg_reg carried = fg_param(k->m, b, t, NULL);
    FG_PUSH(k->m->a, k->reg, k->nreg, k->capreg) = step;
    FG_PUSH(k->m->a, k->reg, k->nreg, k->capreg) = carried;
    k->b = fg_build_end(b);
    k->depth++;
    add_instructions(k, 1 + (int)below(k, 4));
    fg_reg out[2] = {on, pick(k, same_type, carried)};
    fg_inst *yield = fg_inst_begin(&k->b, FG_OP_yield, 2, out);
    bool ok = out[1] && fg_inst_finish(&k->b, yield, NULL, 0);
    k->depth--;
    k->nreg = n;
    k->b = outer;
    return ok && fg_inst_finish(&k->b, i, &t, 1) ? i->out[0] : 0;
}

/* ---- the program ------------------------------------------------------------------- */

/* Tensors that stay small, so that the evaluator is quick. */
static bool
small(const maker *k, fg_reg r)
{
    const fg_type *t = type(k, r);
    int64_t n = 1, v;
    if (t->rank > 6)
        return false;
    for (int d = 0; d < t->rank; d++) {
        fg_expr e = t->dim[d];
        bool fixed = fg_e_const(k->m->ex, e, &v);
        n *= fixed ? v : 6;
        if (n > 20000 || (!fixed && fg_e_nterms(k->m->ex, e) > 3))
            return false;
    }
    return true;
}

static void
add_instructions(maker *k, int n)
{
    typedef fg_reg make_fn(maker *);
    static make_fn *const makers[] = {
        elementwise, elementwise, elementwise, elementwise, elementwise, elementwise,
        reshaped,    reshaped,    transposed,  transposed,  expanded,    sliced,
        joined,      padded,      gathered,    reduced,     reduced,     along_axis,
        normed,      multiplied,  multiplied,  attended,    started,     branched,
        attention,   rotated,     convolved,   quantised,   picked,      ranked,
        looped};
    for (int tries = 0; n > 0 && tries < 200; tries++) {
        fg_diagmark mark = fg_diag_mark(k->m->cx);
        fg_reg r = makers[below(k, sizeof makers / sizeof *makers)](k);
        fg_diag_forget(k->m->cx, mark);
        if (!r || !small(k, r))
            continue;
        FG_PUSH(k->m->a, k->reg, k->nreg, k->capreg) = r;
        n--;
    }
}

static void
add_inputs(maker *k)
{
    static const fg_dtype some[] = {FG_f32, FG_f32,  FG_f32, FG_f64, FG_i64,
                                    FG_i32, FG_bool, FG_u8,  FG_f16};
    fg_exprs *ex = k->m->ex;
    fg_expr size[] = {fg_es(ex, 0),
                      fg_es(ex, 1),
                      fg_ec(ex, 1),
                      fg_ec(ex, 4),
                      fg_ec(ex, 3),
                      fg_ec(ex, 8),
                      fg_eadd(ex, fg_es(ex, 0), fg_es(ex, 1))};
    fg_module *m = k->m;
    m->ninput = 3 + (int)below(k, 3);
    m->input = FG_NEWN(m->a, fg_port, (size_t)m->ninput);
    for (int p = 0; p < m->ninput; p++) {
        fg_type t = {.dtype = (uint8_t)some[below(k, 9)], .rank = (uint8_t)below(k, 4)};
        if (p == 0) /* gives both symbols their values */
            t = (fg_type){.dtype = FG_f32, .rank = 2, .dim = {size[0], size[1]}};
        for (int d = 0; p && d < t.rank; d++)
            t.dim[d] = size[below(k, 7)];
        fg_reg r = fg_param(m, m->body, t, NULL);
        m->input[p] = (fg_port){fg_ri(m, r)->name, r, -1};
        FG_PUSH(m->a, k->reg, k->nreg, k->capreg) = r;
    }
}

/* What nobody reads, and sometimes what somebody does. */
static bool
add_outputs(maker *k)
{
    enum { MAXOUT = 12 };
    fg_module *m = k->m;
    uint32_t *uses = fg_count_uses(m, m->a);
    fg_reg out[MAXOUT];
    int n = 0;
    for (int j = 0; j < k->nreg && n < MAXOUT; j++)
        if (fg_ri(m, k->reg[j])->def && (uses[k->reg[j]] == 0 || below(k, 12) == 0))
            out[n++] = k->reg[j];
    fg_inst *ret = fg_inst_begin(&k->b, FG_OP_ret, n, out);
    m->noutput = n;
    m->output = FG_NEWN(m->a, fg_port, (size_t)n + 1);
    for (int j = 0; j < n; j++)
        m->output[j] = (fg_port){fg_ri(m, out[j])->name, out[j], -1};
    return n && fg_inst_finish(&k->b, ret, NULL, 0);
}

fg_module *
fuzz_module(fg_ctx *cx, fg_arena *a, uint64_t seed, int size)
{
    maker k = {.m = fg_module_new(cx, a, ""), .state = seed};
    k.b = fg_build_end(k.m->body);
    int64_t lo = (int64_t)below(&k, 3);
    fg_sym_new(k.m->ex, "S", FG_SYM_INPUT, lo, INT64_MAX);
    fg_sym_new(k.m->ex, "P", FG_SYM_INPUT, (int64_t)below(&k, 2), INT64_MAX);
    add_inputs(&k);
    add_instructions(&k, size);
    return add_outputs(&k) ? k.m : NULL;
}
