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

/* A row of x in memory, each `run` elements rounded to multiples of 1/127 of their largest
 * magnitude. */
static const char *
rounded_row(cc *c, const fg_inst *i, const char *const *ax, int64_t run, const char *n)
{
    const fg_type *x = fg_rt(c->m, i->in[0]);
    fg_type row = fg_type_make(FG_f32, 1, &x->dim[x->rank - 1]);
    const char *t = cc_temp(c, &row);

    cc_open(c, "for (int64_t lo = 0; lo < %s; lo += %lld)", n, (long long)run);
    cc_line(c, "const int64_t hi = least(lo + %lld, %s);", (long long)run, n);
    cc_line(c, "float peak = 0;");
    cc_open(c, "for (int64_t r = lo; r < hi; r++)");
    cc_line(c, "%s[r] = (float)%s;", t, cc_value_in(c, i->in[0], x->rank, ax));
    cc_line(c, "peak = fmaxf(peak, fabsf(%s[r]));", t);
    cc_close(c);
    cc_line(c, "const float steps = peak > 0 ? 127 / peak : 0, step = peak / 127;");
    cc_line(c, "for (int64_t r = lo; r < hi; r++)");
    cc_line(c, "    %s[r] = nearbyintf(%s[r] * steps) * step;", t, t);
    cc_close(c);
    return t;
}

static bool
product(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *o = fg_rt(c->m, i->out[0]), *x = fg_rt(c->m, i->in[0]);
    bool flt = fg_is_float(x->dtype), ints = i->op == FG_OP_matmul_int;
    bool ta = !ints && FG_GET(i, matmul, trans_a).i,
         tb = !ints && FG_GET(i, matmul, trans_b).i;
    int64_t round = ints ? 0 : FG_GET(i, matmul, round).i;
    int n = o->rank, open = 0;
    const char *sum = flt ? "double" : "uint64_t", *row = NULL;
    const char *depth = cc_expr(c, x->dim[x->rank - (ta ? 2 : 1)]);
    cc_index at, ax, ay;

    open = cc_for_all(c, o, round ? 1u << (n - 1) : 0, at);
    with(ax, at, n, n - (ta ? 2 : 1), "r");
    if (ta)
        ax[n - 1] = at[n - 2];
    if (round) {
        row = rounded_row(c, i, &ax[n - x->rank], round, depth);
        int outer = c->depth;
        at[n - 1] = cc_for(c, 'i', n - 1, o->dim[n - 1]);
        open += c->depth - outer;
    }
    cc_line(c, "%s sum = 0;", sum);
    cc_open(c, "for (int64_t r = 0; r < %s; r++)", depth);
    with(ay, at, n, n - (tb ? 1 : 2), "r");
    if (tb)
        ay[n - 2] = at[n - 1];
    const char *a = row ? fg_format(c->a, "%s[r]", row) : cc_value_in(c, i->in[0], n, ax),
               *b = cc_value_in(c, i->in[1], n, ay);
    const char *za = ints ? zero_point(c, i, 2, n, at, n - 2) : NULL,
               *zb = ints ? zero_point(c, i, 3, n, at, n - 1) : NULL;
    if (za)
        a = fg_format(c->a, "(%s - %s)", a, za);
    if (zb)
        b = fg_format(c->a, "(%s - %s)", b, zb);
    cc_line(c, "sum += (%s)%s * (%s)%s;", sum, a, sum, b);
    cc_close(c);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)sum", cc_type(o->dtype)));
    cc_close_all(c, open);
    return true;
}

/* ---- panels -------------------------------------------------------------------------------- */

static bool
panels(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    bool trans = FG_GET(i, panels, trans).i;
    cc_index at;
    int open = cc_for_all(c, o, 0, at);

    cc_line(c, "const int64_t column = %s;",
            cc_plus(c, cc_times(c, at[0], cc_expr(c, o->dim[2])), at[2]));
    cc_line(c, "%s v = 0;", cc_type(o->dtype));
    cc_open(c, "if (column < %s)", cc_expr(c, x->dim[trans ? 0 : 1]));
    cc_line(c, "v = %s;",
            cc_value(c, i->in[0],
                     (const char *const[]){trans ? "column" : at[1],
                                           trans ? at[1] : "column"}));
    cc_close(c);
    cc_store(c, target, o, at, "v");
    cc_close_all(c, open);
    return true;
}

static bool
matmul_panels(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *o = fg_rt(c->m, i->out[0]), *y = fg_rt(c->m, i->in[1]);
    const char *width = cc_expr(c, y->dim[2]);
    int n = o->rank;
    cc_index at, ax;
    int open = cc_for_all(c, o, 0, at);

    cc_line(c, "double sum = 0;");
    cc_open(c, "for (int64_t r = 0; r < %s; r++)", cc_expr(c, y->dim[1]));
    with(ax, at, n, n - 1, "r");
    const char *a = cc_value_in(c, i->in[0], n, ax);
    const char *b = cc_value(
        c, i->in[1],
        (const char *const[]){fg_format(c->a, "%s / (%s)", at[n - 1], width), "r",
                              fg_format(c->a, "%s %% (%s)", at[n - 1], width)});
    cc_line(c, "sum += (double)%s * %s;", a, b);
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
    {FG_OP_reduce_sum, "0", "sum + %s", "sum + (uint64_t)%s"},
    {FG_OP_reduce_mean, "0", "sum + %s", "sum + (uint64_t)%s"},
    {FG_OP_reduce_prod, "1", "sum * %s", "sum * (uint64_t)%s"},
    {FG_OP_reduce_max, NULL, "larger(sum, %s)", "%s > sum ? %s : sum"},
    {FG_OP_reduce_min, NULL, "smaller(sum, %s)", "%s < sum ? %s : sum"},
};

static bool
reduce(cc *c, const fg_inst *i, const struct reduction *r, const char *target)
{
    /* Attributes of all of them are axes and keep, in this order. */
    const fg_attr *axes = &i->attr[0];
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    bool flt = fg_is_float(x->dtype), keep = i->attr[1].i;
    /* Sums and products of integers wrap. */
    const char *type = !flt && r->start ? "uint64_t" : cc_sum_type(x->dtype);
    const char *start =
        r->start ? r->start : cc_bound(x->dtype, r->op == FG_OP_reduce_min);
    const char *count = "1";
    unsigned gone = 0;
    cc_index at, from;

    for (int k = 0; k < axes->n; k++)
        gone |= 1u << axes->is[k];
    int open = cc_for_all(c, o, 0, at), inner = 0;
    cc_line(c, "%s sum = %s;", type, start);
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
    cc_line(c, "sum = %s;", fg_format(c->a, flt ? r->flt : r->integer, v, v));
    cc_close_all(c, inner);
    if (i->op == FG_OP_reduce_mean && flt)
        cc_line(c, "sum /= (double)(%s);", count);
    else if (i->op == FG_OP_reduce_mean)
        cc_line(c,
                fg_dtypes[x->dtype].cls == FG_CLASS_SINT
                    ? "sum = (uint64_t)int_div((int64_t)sum, %s);"
                    : "sum = uint_div(sum, (uint64_t)(%s));",
                count);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)sum", cc_type(o->dtype)));
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

    const char *type = fg_is_float(o->dtype) ? "double" : "uint64_t";
    cc_line(c, "%s sum = 0;", type);
    cc_open(c, "for (int64_t r = 0; r < %s; r++)", n);
    at[axis] = "r";
    if (FG_GET(i, cumsum, reverse).i) {
        cc_line(c, "const int64_t back = %s - 1 - r;", n);
        at[axis] = "back";
    }
    const char *v = cc_value(c, i->in[0], at);
    if (!before)
        cc_line(c, "sum += (%s)%s;", type, v);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)sum", cc_type(o->dtype)));
    if (before)
        cc_line(c, "sum += (%s)%s;", type, v);
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
append_rows(cc *c, const fg_inst *i, const char *target)
{
    int axis = (int)FG_GET(i, append, axis).i;
    const fg_type *o = fg_rt(c->m, i->out[0]);
    cc_index at, to;

    int open = cc_for_all(c, fg_rt(c->m, i->in[1]), 0, at);
    const char *row[] = {at[0], at[axis]};
    bool each = fg_rt(c->m, i->in[2])->rank == 2;
    cc_line(c, "const int64_t p = %s;", cc_value(c, i->in[2], each ? row : row + 1));
    cc_open(c, "if (p >= 0 && p < %s)", cc_expr(c, o->dim[axis]));
    with(to, at, o->rank, axis, "p");
    cc_store(c, target, o, to, cc_value(c, i->in[1], at));
    cc_close(c);
    cc_close_all(c, open);
    return true;
}

static bool
append(cc *c, const fg_inst *i, const char *target)
{
    copy_to(c, i, i->in[0], -1, "0", target);
    if (i->nin > 2 && i->in[2])
        return append_rows(c, i, target);
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
        fg_exprs *ex = c->m->ex;
        fg_expr zero = fg_ec(ex, 0), before = FG_GET(i, pad, before).es[k],
                after = FG_GET(i, pad, after).es[k];
        if (before == zero && after == zero) {
            from[k] = at[k];
            continue;
        }
        /* What is cropped is gone before anything is repeated. */
        fg_expr first = fg_emax(ex, fg_esub(ex, zero, before), zero),
                lost = fg_emax(ex, fg_esub(ex, zero, after), zero);
        const char *n = cc_expr(c, fg_esub(ex, fg_esub(ex, x->dim[k], first), lost)),
                   *f = fg_format(c->a, "f%d", k);
        const char *place =
            fg_format(c->a, "%s - (%s)", at[k], cc_expr(c, fg_emax(ex, before, zero)));
        if (!strcmp(mode, "edge"))
            place = fg_format(c->a, "most(0, least(%s, %s - 1))", place, n);
        else if (!strcmp(mode, "reflect"))
            place = fg_format(c->a, "mirror(%s, %s)", place, n);
        else if (!strcmp(mode, "wrap"))
            place = fg_format(c->a, "floor_mod(%s, %s)", place, n);
        else
            fg_putf(&inside, "%s%s >= 0 && %s < %s", inside.n ? " && " : "", f, f, n);
        cc_line(c, "const int64_t %s = %s;", f, place);
        from[k] = cc_plus(c, f, cc_expr(c, first));
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
static void
combine(cc *c, const fg_inst *i, const char *how, const char *target,
        const char *const *to, const char *v)
{
    const fg_type *o = fg_rt(c->m, i->out[0]);
    const char *old = cc_load(c, target, o, to);
    bool flt = fg_is_float(o->dtype);
    const char *sum = flt ? "" : "(uint64_t)";

    if (!strcmp(how, "add") || !strcmp(how, "mul"))
        v = fg_format(c->a, "%s%s %c %s%s", sum, old, *how == 'a' ? '+' : '*', sum, v);
    else if (strcmp(how, "none") && flt)
        v = fg_format(c->a, "%s(%s, %s)", strcmp(how, "max") ? "smaller" : "larger", old,
                      v);
    else if (strcmp(how, "none"))
        v = fg_format(c->a, "%s %c %s ? %s : %s", v, strcmp(how, "max") ? '<' : '>', old,
                      v, old);
    cc_store(c, target, o, to, v);
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
    combine(c, i, FG_GET(i, scatter_elements, how).s, target, to,
            cc_value(c, i->in[2], at));
    cc_close_all(c, open);
    return true;
}

static bool
scatter_nd(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *n = fg_rt(c->m, i->in[1]), *o = fg_rt(c->m, i->out[0]),
                  *u = fg_rt(c->m, i->in[2]);
    int lead = n->rank - 1;
    int64_t depth = 0;
    cc_index at, tuple, to;

    fg_e_const(c->m->ex, n->dim[lead], &depth);
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
    combine(c, i, FG_GET(i, scatter_nd, how).s, target, to, cc_value(c, i->in[2], at));
    cc_close_all(c, open);
    return true;
}

/* ---- rounding ------------------------------------------------------------------------------- */

/* Both results of a run at once: its steps need its largest magnitude first. */
static bool
quantize_rows(cc *c, const fg_inst *i, const char *const *target)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *steps = fg_rt(c->m, i->out[1]);
    int last = x->rank - 1;
    long long run = (long long)FG_GET(i, quantize_rows, run).i;
    cc_index at;
    int open = cc_for_all(c, steps, 0, at);
    const char *n = cc_expr(c, x->dim[last]);

    cc_line(c, "const int64_t lo = %s * %lld, hi = %s - lo < %lld ? %s : lo + %lld;",
            at[last], run, n, run, n, run);
    cc_line(c, "float most = 0;");
    const char *block = at[last];
    at[last] = "r";
    cc_open(c, "for (int64_t r = lo; r < hi; r++)");
    cc_line(c, "most = fmaxf(most, fabsf(%s));", cc_value(c, i->in[0], at));
    cc_close(c);
    cc_line(c, "const float scale = most > 0 ? 127 / most : 0;");
    cc_open(c, "for (int64_t r = lo; r < hi; r++)");
    cc_line(c, "const float v = nearbyintf(%s * scale);", cc_value(c, i->in[0], at));
    cc_store(c, target[0], fg_rt(c->m, i->out[0]), at,
             "(uint8_t)(v == v ? v + 128 : 128)");
    cc_close(c);
    at[last] = block;
    cc_store(c, target[1], steps, at, "most / 127");
    cc_close_all(c, open);
    return true;
}

/* ---- which --------------------------------------------------------------------------------- */

bool
cc_nest(cc *c, const fg_inst *i, const char *const *target)
{
    for (size_t k = 0; k < sizeof reductions / sizeof *reductions; k++)
        if (reductions[k].op == i->op)
            return reduce(c, i, &reductions[k], *target);
    switch (i->op) {
    case FG_OP_matmul:
    case FG_OP_matmul_int:
        return product(c, i, *target);
    case FG_OP_panels:
        return panels(c, i, *target);
    case FG_OP_matmul_panels:
        return matmul_panels(c, i, *target);
    case FG_OP_cumsum:
        return cumsum(c, i, *target);
    case FG_OP_quantize_rows:
        return quantize_rows(c, i, target);
    case FG_OP_concat:
        return concat(c, i, *target);
    case FG_OP_append:
        return append(c, i, *target);
    case FG_OP_pad:
        return pad(c, i, *target);
    case FG_OP_scatter_elements:
        return scatter_elements(c, i, *target);
    case FG_OP_scatter_nd:
        return scatter_nd(c, i, *target);
    default:
        return cc_nest_find(c, i, target);
    }
}
