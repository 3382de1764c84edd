/* nest.c - loops of the instructions that reduce, join, move and scatter. */
#include "codegen/c/c.h"

static fg_expr
dim(const cc *c, fg_reg r, int axis)
{
    return fg_rt(c->m, r)->dim[axis];
}

/* at as text of an array index, with one axis replaced. */
static void
with(cc_index to, const char *const *at, int rank, int axis, const char *i)
{
    for (int k = 0; k < rank; k++)
        to[k] = k == axis ? i : at[k];
}

/* ---- products ------------------------------------------------------------------------------ */

/* The zero point of operand k of a product for the element at[rank] of the result: one, one
 * for each place of an axis, or of a shape with size 1 along the other. */
static const char *
zero_point(cc *c, const fg_inst *i, int k, int rank, const char *const *at, int axis)
{
    const fg_type *t;
    cc_index from;

    if (k >= i->nin || !i->in[k])
        return NULL;
    t = fg_rt(c->m, i->in[k]);
    if (t->rank == 1)
        return cc_value(
            c, i->in[k],
            (const char *const[]){fg_e_is(c->m->ex, t->dim[0], 1) ? "0" : at[axis]});
    with(from, at, rank, rank * 2 - 3 - axis, "0");
    return cc_value_in(c, i->in[k], rank, from);
}

static bool
product(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *o = fg_rt(c->m, i->out[0]), *x = fg_rt(c->m, i->in[0]);
    bool flt = fg_is_float(x->dtype), ints = i->op == FG_OP_matmul_int;
    bool ta = !ints && FG_GET(i, matmul, trans_a).i,
         tb = !ints && FG_GET(i, matmul, trans_b).i;
    int n = o->rank;
    cc_index at, ax, ay;

    if (!ints && FG_GET(i, matmul, round).i)
        return cc_refuse(c, i, "rows that are rounded");
    int open = cc_for_all(c, o, 0, at);
    cc_line(c, "%s sum = 0;", flt ? "double" : "int64_t");
    cc_open(c, "for (int64_t r = 0; r < %s; r++)",
            cc_expr(c, x->dim[x->rank - (ta ? 2 : 1)]));
    with(ax, at, n, n - (ta ? 2 : 1), "r");
    with(ay, at, n, n - (tb ? 1 : 2), "r");
    if (ta)
        ax[n - 1] = at[n - 2];
    if (tb)
        ay[n - 2] = at[n - 1];
    const char *a = cc_value_in(c, i->in[0], n, ax), *b = cc_value_in(c, i->in[1], n, ay);
    const char *za = ints ? zero_point(c, i, 2, n, at, n - 2) : NULL,
               *zb = ints ? zero_point(c, i, 3, n, at, n - 1) : NULL;
    if (za)
        a = fg_format(c->a, "(%s - %s)", a, za);
    if (zb)
        b = fg_format(c->a, "(%s - %s)", b, zb);
    cc_line(c, "sum += (%s)%s * %s;", flt ? "double" : "int64_t", a, b);
    cc_close(c);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)sum", cc_type(o->dtype)));
    cc_close_all(c, open);
    return true;
}

/* ---- reductions ---------------------------------------------------------------------------- */

static const struct reduction {
    fg_op op;
    const char *start, *flt, *integer;
} reductions[] = {
    {FG_OP_reduce_sum, "0", "sum + %s", "sum + %s"},
    {FG_OP_reduce_mean, "0", "sum + %s", "sum + %s"},
    {FG_OP_reduce_prod, "1", "sum * %s", "sum * %s"},
    {FG_OP_reduce_max, NULL, "larger(sum, %s)", "most(sum, %s)"},
    {FG_OP_reduce_min, NULL, "smaller(sum, %s)", "least(sum, %s)"},
};

/* The least value for a maximum, the greatest for a minimum. */
static const char *
start_of(const struct reduction *r, fg_dtype d)
{
    bool most = r->op == FG_OP_reduce_max;

    if (r->start)
        return r->start;
    if (fg_is_float(d))
        return most ? "-INFINITY" : "INFINITY";
    switch (d) {
    case FG_i64:
        return most ? "INT64_MIN" : "INT64_MAX";
    case FG_i32:
        return most ? "INT32_MIN" : "INT32_MAX";
    case FG_i8:
        return most ? "-128" : "127";
    case FG_u8:
        return most ? "0" : "255";
    case FG_bool:
        return most ? "0" : "1";
    default:
        return NULL;
    }
}

static bool
reduce(cc *c, const fg_inst *i, const struct reduction *r, const char *target)
{
    /* Attributes of all of them are axes and keep, in this order. */
    const fg_attr *axes = &i->attr[0];
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    bool flt = fg_is_float(x->dtype), keep = i->attr[1].i;
    const char *start = start_of(r, x->dtype), *count = "1";
    unsigned gone = 0;
    cc_index at, from;

    if (!start)
        return cc_refuse(c, i, "of this type");
    for (int k = 0; k < axes->n; k++)
        gone |= 1u << axes->is[k];
    int open = cc_for_all(c, o, 0, at), inner = 0;
    cc_line(c, "%s sum = %s;", flt ? "double" : "int64_t", start);
    for (int k = 0, j = 0; k < x->rank; k++) {
        if (gone >> k & 1) {
            int depth = c->depth;
            from[k] = cc_for(c, 'r', k, x->dim[k]);
            inner += c->depth - depth;
            count = cc_times(c, count, cc_expr(c, x->dim[k]));
            j += keep;
        } else {
            from[k] = at[j++];
        }
    }
    const char *v = cc_value(c, i->in[0], from);
    cc_line(c, "sum = %s;", fg_format(c->a, flt ? r->flt : r->integer, v));
    cc_close_all(c, inner);
    if (i->op == FG_OP_reduce_mean && flt)
        cc_line(c, "sum /= (double)(%s);", count);
    else if (i->op == FG_OP_reduce_mean)
        cc_line(c, "sum = int_div(sum, %s);", count);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)sum", cc_type(o->dtype)));
    cc_close_all(c, open);
    return true;
}

static bool
arg(cc *c, const fg_inst *i, const char *target)
{
    bool most = i->op == FG_OP_argmax;
    int axis = (int)(most ? FG_GET(i, argmax, axis).i : FG_GET(i, argmin, axis).i);
    bool last = most ? FG_GET(i, argmax, last).i : FG_GET(i, argmin, last).i,
         keep = most ? FG_GET(i, argmax, keep).i : FG_GET(i, argmin, keep).i;
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    cc_index at, from;
    int open = cc_for_all(c, o, 0, at);

    for (int k = 0; k < x->rank; k++)
        from[k] = k == axis ? "r" : at[keep || k < axis ? k : k - 1];
    cc_line(c, "%s best = 0;", cc_type(x->dtype));
    cc_line(c, "int64_t where = 0;");
    cc_open(c, "for (int64_t r = 0; r < %s; r++)", cc_expr(c, x->dim[axis]));
    const char *v = cc_value(c, i->in[0], from);
    cc_open(c, "if (r == 0 || %s %s%s best)", v, most ? ">" : "<", last ? "=" : "");
    cc_line(c, "best = %s;", v);
    cc_line(c, "where = r;");
    cc_close(c);
    cc_close(c);
    cc_store(c, target, o, at, "where");
    cc_close_all(c, open);
    return true;
}

static bool
cumsum(cc *c, const fg_inst *i, const char *target)
{
    int axis = (int)FG_GET(i, cumsum, axis).i;
    const fg_type *o = fg_rt(c->m, i->out[0]);
    const char *n = cc_expr(c, o->dim[axis]);
    bool before = FG_GET(i, cumsum, exclusive).i;
    cc_index at;
    int open = cc_for_all(c, o, 1u << axis, at);

    cc_line(c, "%s sum = 0;", fg_is_float(o->dtype) ? "double" : "int64_t");
    cc_open(c, "for (int64_t r = 0; r < %s; r++)", n);
    at[axis] = "r";
    if (FG_GET(i, cumsum, reverse).i) {
        cc_line(c, "const int64_t back = %s - 1 - r;", n);
        at[axis] = "back";
    }
    const char *v = cc_value(c, i->in[0], at);
    if (!before)
        cc_line(c, "sum += %s;", v);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)sum", cc_type(o->dtype)));
    if (before)
        cc_line(c, "sum += %s;", v);
    cc_close(c);
    cc_close_all(c, open);
    return true;
}

/* ---- moving -------------------------------------------------------------------------------- */

/* r to target, shaped as the result of i, `by` places further along an axis. */
static void
copy_to(cc *c, const fg_inst *i, fg_reg r, int axis, const char *by, const char *target)
{
    cc_index at, to;
    int open = cc_for_all(c, fg_rt(c->m, r), 0, at);
    const char *v = cc_value(c, r, at);

    with(to, at, fg_rt(c->m, r)->rank, axis, axis < 0 ? "" : cc_plus(c, at[axis], by));
    cc_store(c, target, fg_rt(c->m, i->out[0]), to, v);
    cc_close_all(c, open);
}

static bool
concat(cc *c, const fg_inst *i, const char *target)
{
    int axis = (int)FG_GET(i, concat, axis).i;
    fg_expr by = fg_ec(c->m->ex, 0);

    for (int k = 0; k < i->nin; k++) {
        copy_to(c, i, i->in[k], axis, cc_expr(c, by), target);
        by = fg_eadd(c->m->ex, by, dim(c, i->in[k], axis));
    }
    return true;
}

static bool
append(cc *c, const fg_inst *i, const char *target)
{
    copy_to(c, i, i->in[0], -1, "0", target);
    copy_to(c, i, i->in[1], (int)FG_GET(i, append, axis).i,
            cc_expr(c, FG_GET(i, append, at).e), target);
    return true;
}

static bool
pad(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *o = fg_rt(c->m, i->out[0]), *x = fg_rt(c->m, i->in[0]);
    const char *mode = FG_GET(i, pad, mode).s, *fill = "0";
    fg_text inside = fg_text_new(c->a);
    cc_index at, from;
    int open = cc_for_all(c, o, 0, at);

    for (int k = 0; k < o->rank; k++) {
        fg_expr before = FG_GET(i, pad, before).es[k];
        const char *n = cc_expr(c, x->dim[k]);
        if (fg_e_is(c->m->ex, before, 0) &&
            fg_e_is(c->m->ex, FG_GET(i, pad, after).es[k], 0)) {
            from[k] = at[k];
            continue;
        }
        const char *f = fg_format(c->a, "f%d", k);
        const char *place = fg_format(c->a, "%s - (%s)", at[k], cc_expr(c, before));
        if (!strcmp(mode, "edge"))
            place = fg_format(c->a, "most(0, least(%s, %s - 1))", place, n);
        else if (!strcmp(mode, "reflect"))
            place = fg_format(c->a, "mirror(%s, %s)", place, n);
        else if (!strcmp(mode, "wrap"))
            place = fg_format(c->a, "floor_mod(%s, %s)", place, n);
        else
            fg_putf(&inside, "%s%s >= 0 && %s < %s", inside.n ? " && " : "", f, f, n);
        cc_line(c, "const int64_t %s = %s;", f, place);
        from[k] = f;
    }
    if (i->nin > 1 && i->in[1])
        fill = cc_value_in(c, i->in[1], 0, NULL);
    cc_line(c, "%s v = %s;", cc_type(o->dtype), fill);
    cc_open(c, inside.n ? "if (%s)" : "%s", inside.n ? inside.s : "");
    cc_line(c, "v = %s;", cc_value(c, i->in[0], from));
    cc_close(c);
    cc_store(c, target, o, at, "v");
    cc_close_all(c, open);
    return true;
}

/* What goes to a place where there is something already. */
static bool
combine(cc *c, const fg_inst *i, const char *how, const char *target,
        const char *const *to, const char *v)
{
    const fg_type *o = fg_rt(c->m, i->out[0]);
    const char *old = fg_format(c->a, "%s[%s]", target, cc_offset(c, o, to));
    bool flt = fg_is_float(o->dtype);

    if (strcmp(how, "none") && (o->dtype == FG_f16 || o->dtype == FG_bf16))
        return cc_refuse(c, i, "of this type");
    if (!strcmp(how, "add") || !strcmp(how, "mul"))
        v = fg_format(c->a, "%s %c %s", old, *how == 'a' ? '+' : '*', v);
    else if (!strcmp(how, "max"))
        v = fg_format(c->a, "%s(%s, %s)", flt ? "larger" : "most", old, v);
    else if (!strcmp(how, "min"))
        v = fg_format(c->a, "%s(%s, %s)", flt ? "smaller" : "least", old, v);
    cc_store(c, target, o, to, v);
    return true;
}

static bool
scatter_elements(cc *c, const fg_inst *i, const char *target)
{
    int axis = (int)FG_GET(i, scatter_elements, axis).i;
    const fg_type *n = fg_rt(c->m, i->in[1]), *o = fg_rt(c->m, i->out[0]);
    cc_index at, to;

    copy_to(c, i, i->in[0], -1, "0", target);
    int open = cc_for_all(c, n, 0, at);
    cc_line(c, "const int64_t p = place(%s, %s);", cc_value(c, i->in[1], at),
            cc_expr(c, o->dim[axis]));
    with(to, at, o->rank, axis, "p");
    bool ok = combine(c, i, FG_GET(i, scatter_elements, how).s, target, to,
                      cc_value(c, i->in[2], at));
    cc_close_all(c, open);
    return ok;
}

static bool
scatter_nd(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *n = fg_rt(c->m, i->in[1]), *o = fg_rt(c->m, i->out[0]),
                  *u = fg_rt(c->m, i->in[2]);
    int lead = n->rank - 1;
    int64_t depth;
    cc_index at, tuple, to;

    if (!fg_e_const(c->m->ex, n->dim[lead], &depth))
        return cc_refuse(c, i, "tuples of an open length");
    copy_to(c, i, i->in[0], -1, "0", target);
    int open = cc_for_all(c, u, 0, at);
    for (int k = 0; k < (int)depth; k++) {
        with(tuple, at, lead, -1, "");
        tuple[lead] = fg_format(c->a, "%d", k);
        to[k] = fg_format(c->a, "p%d", k);
        cc_line(c, "const int64_t %s = place(%s, %s);", to[k],
                cc_value(c, i->in[1], tuple), cc_expr(c, o->dim[k]));
    }
    for (int k = (int)depth; k < o->rank; k++)
        to[k] = at[lead + k - (int)depth];
    bool ok = combine(c, i, FG_GET(i, scatter_nd, how).s, target, to,
                      cc_value(c, i->in[2], at));
    cc_close_all(c, open);
    return ok;
}

/* ---- which --------------------------------------------------------------------------------- */

bool
cc_nest(cc *c, const fg_inst *i, const char *target)
{
    for (size_t k = 0; k < sizeof reductions / sizeof *reductions; k++)
        if (reductions[k].op == i->op)
            return reduce(c, i, &reductions[k], target);
    switch (i->op) {
    case FG_OP_matmul:
    case FG_OP_matmul_int:
        return product(c, i, target);
    case FG_OP_argmax:
    case FG_OP_argmin:
        return arg(c, i, target);
    case FG_OP_cumsum:
        return cumsum(c, i, target);
    case FG_OP_concat:
        return concat(c, i, target);
    case FG_OP_append:
        return append(c, i, target);
    case FG_OP_pad:
        return pad(c, i, target);
    case FG_OP_scatter_elements:
        return scatter_elements(c, i, target);
    case FG_OP_scatter_nd:
        return scatter_nd(c, i, target);
    default:
        return cc_nest_nn(c, i, target);
    }
}
