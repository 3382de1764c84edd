/* window.c - loops of convolution and pooling: a window slides over the spatial axes.
 *
 *     for (int64_t r2 = 0; r2 < 3; r2++) {
 *         const int64_t f2 = i2 * 2 + r2 - 1;
 *         if (f2 < 0 || f2 >= height)
 *             continue;
 *         sum += (double)a0[.. + f2] * w0[.. + r2];
 *     }
 */
#include "codegen/c/c.h"

/* Opens a loop over a window of n places and names where place r of it falls, o * stride + r *
 * dilation - before; `other` holds the stretch behind. */
static const char *
slide(cc *c, int k, const char *n, const char *at, int64_t stride, int64_t dilation,
      int64_t before)
{
    const char *f = fg_format(c->a, "f%d", k);

    cc_open(c, "for (int64_t r%d = 0; r%d < %s; r%d++)", k, k, n, k);
    cc_line(c, "const int64_t %s = %s * %lld + r%d * %lld - %lld;", f, at,
            (long long)stride, k, (long long)dilation, (long long)before);
    return f;
}

static void
skip_outside(cc *c, const char *f, const char *n)
{
    cc_line(c, "if (%s < 0 || %s >= %s)", f, f, n);
    cc_line(c, "    continue;");
}

/* sum, of channels `axis` of the operand: group * each + r1. */
static const char *
channel(cc *c, const char *at, fg_expr share, const char *each, const char *r,
        bool grouped)
{
    if (!grouped)
        return r;
    return cc_plus(c, fg_format(c->a, "%s / (%s) * (%s)", at, cc_expr(c, share), each),
                   r);
}

static const char *
bias(cc *c, const fg_inst *i, const char *const *at)
{
    return i->nin > 2 && i->in[2] ? cc_value(c, i->in[2], &at[1]) : "0";
}

static bool
conv(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *w = fg_rt(c->m, i->in[1]),
                  *o = fg_rt(c->m, i->out[0]);
    bool flt = fg_is_float(x->dtype);
    int64_t group = FG_GET(i, conv, group).i;
    const char *acc = flt ? "double" : "uint64_t";
    cc_index at, from, tap;
    int open = cc_for_all(c, o, 0, at), depth;

    cc_line(c, "%s sum = (%s)%s;", acc, acc, bias(c, i, at));
    depth = c->depth;
    tap[0] = at[1];
    tap[1] = cc_for(c, 'r', 1, w->dim[1]);
    from[0] = at[0];
    from[1] = channel(c, at[1], fg_ediv(c->m->ex, w->dim[0], fg_ec(c->m->ex, group)),
                      cc_expr(c, w->dim[1]), tap[1], group > 1);
    for (int k = 2; k < x->rank; k++) {
        tap[k] = fg_format(c->a, "r%d", k);
        from[k] =
            slide(c, k, cc_expr(c, w->dim[k]), at[k], FG_GET(i, conv, stride).is[k - 2],
                  FG_GET(i, conv, dilation).is[k - 2], FG_GET(i, conv, before).is[k - 2]);
        skip_outside(c, from[k], cc_expr(c, x->dim[k]));
    }
    const char *a = cc_value(c, i->in[0], from), *b = cc_value(c, i->in[1], tap);
    cc_line(c, "sum += (%s)%s * (%s)%s;", acc, a, acc, b);
    cc_close_all(c, c->depth - depth);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)sum", cc_type(o->dtype)));
    cc_close_all(c, open);
    return true;
}

/* The result's place o and the operand's place f meet where o + before = f stride + r dilation. */
static bool
conv_transpose(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *w = fg_rt(c->m, i->in[1]),
                  *o = fg_rt(c->m, i->out[0]);
    int64_t group = FG_GET(i, conv_transpose, group).i;
    fg_expr each = fg_ediv(c->m->ex, x->dim[1], fg_ec(c->m->ex, group));
    const char *mine = cc_expr(c, w->dim[1]);
    cc_index at, from, tap;
    int open = cc_for_all(c, o, 0, at), depth;

    cc_line(c, "double sum = (double)%s;", bias(c, i, at));
    depth = c->depth;
    const char *r = cc_for(c, 'r', 1, each);
    from[0] = at[0];
    from[1] = tap[0] =
        group > 1
            ? cc_plus(c,
                      fg_format(c->a, "%s / (%s) * (%s)", at[1], mine, cc_expr(c, each)),
                      r)
            : r;
    tap[1] = group > 1 ? fg_format(c->a, "%s %% (%s)", at[1], mine) : at[1];
    for (int k = 2; k < x->rank; k++) {
        long long stride = FG_GET(i, conv_transpose, stride).is[k - 2];
        tap[k] = fg_format(c->a, "r%d", k);
        const char *f = slide(c, k, cc_expr(c, w->dim[k]), at[k], 1,
                              -FG_GET(i, conv_transpose, dilation).is[k - 2],
                              -FG_GET(i, conv_transpose, before).is[k - 2]);
        cc_line(c, "if (%s < 0 || %s %% %lld != 0 || %s / %lld >= %s)", f, f, stride, f,
                stride, cc_expr(c, x->dim[k]));
        cc_line(c, "    continue;");
        from[k] = fg_format(c->a, "%s / %lld", f, stride);
    }
    const char *a = cc_value(c, i->in[0], from), *b = cc_value(c, i->in[1], tap);
    cc_line(c, "sum += (double)%s * %s;", a, b);
    cc_close_all(c, c->depth - depth);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)sum", cc_type(o->dtype)));
    cc_close_all(c, open);
    return true;
}

/* ---- pooling ------------------------------------------------------------------------------- */

/* Both begin with the attributes kernel, stride, dilation, before. */
static const char *
slide_pool(cc *c, const fg_inst *i, int k, const char *at)
{
    return slide(
        c, k, fg_format(c->a, "%lld", (long long)FG_GET(i, max_pool, kernel).is[k - 2]),
        at, FG_GET(i, max_pool, stride).is[k - 2],
        FG_GET(i, max_pool, dilation).is[k - 2], FG_GET(i, max_pool, before).is[k - 2]);
}

static bool
max_pool(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    cc_index at, from;
    int open = cc_for_all(c, o, 0, at), depth;

    cc_line(c, "%s best = %s;", cc_sum_type(x->dtype), cc_bound(x->dtype, false));
    depth = c->depth;
    memcpy(from, at, sizeof from);
    for (int k = 2; k < x->rank; k++) {
        from[k] = slide_pool(c, i, k, at[k]);
        skip_outside(c, from[k], cc_expr(c, x->dim[k]));
    }
    const char *v = cc_value(c, i->in[0], from);
    cc_line(c,
            fg_is_float(x->dtype) ? "best = larger(best, %s);"
                                  : "best = %s > best ? %s : best;",
            v, v);
    cc_close_all(c, c->depth - depth);
    cc_store(c, target, o, at, fg_format(c->a, "(%s)best", cc_type(o->dtype)));
    cc_close_all(c, open);
    return true;
}

/* Padding may count in the divisor; what lies beyond it never does. */
static bool
avg_pool(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    bool padding = FG_GET(i, avg_pool, count_pad).i;
    cc_index at, from;
    int open = cc_for_all(c, o, 0, at), depth;

    cc_line(c, "double sum = 0;");
    cc_line(c, "int64_t count = 0;");
    depth = c->depth;
    memcpy(from, at, sizeof from);
    fg_text outside = fg_text_new(c->a);
    for (int k = 2; k < x->rank; k++) {
        const char *n = cc_expr(c, x->dim[k]);
        const char *f = from[k] = slide_pool(c, i, k, at[k]);
        fg_putf(&outside, "%s%s < 0 || %s >= %s", outside.n ? " || " : "", f, f, n);
        if (padding)
            cc_line(c, "if (%s < -%lld || %s >= %s + %lld)", f,
                    (long long)FG_GET(i, avg_pool, before).is[k - 2], f, n,
                    (long long)FG_GET(i, avg_pool, after).is[k - 2]);
        else
            cc_line(c, "if (%s < 0 || %s >= %s)", f, f, n);
        cc_line(c, "    continue;");
    }
    cc_line(c, "count++;");
    if (padding && outside.n) {
        cc_line(c, "if (%s)", outside.s);
        cc_line(c, "    continue;");
    }
    cc_line(c, "sum += %s;", cc_value(c, i->in[0], from));
    cc_close_all(c, c->depth - depth);
    cc_store(c, target, o, at,
             fg_format(c->a, "(%s)(sum / (double)count)", cc_type(o->dtype)));
    cc_close_all(c, open);
    return true;
}

bool
cc_nest_window(cc *c, const fg_inst *i, const char *target)
{
    switch (i->op) {
    case FG_OP_conv:
        return conv(c, i, target);
    case FG_OP_conv_transpose:
        return conv_transpose(c, i, target);
    case FG_OP_max_pool:
        return max_pool(c, i, target);
    case FG_OP_avg_pool:
        return avg_pool(c, i, target);
    case FG_OP_resize:
        return cc_resize(c, i, target);
    default:
        return cc_refuse(c, i, "");
    }
}
