/* ops_conv.c - ONNX convolution and pooling.
 *
 *     Conv x, w {auto_pad="SAME_UPPER"}  ->  conv x, w {before=[0,0] after=[1,1]}
 *     GlobalAveragePool x                ->  reduce_mean x {axes=[2,3] keep=1}
 *     MaxPool with indices, LpPool       ->  a strided slice per place in the window
 *
 * auto_pad makes ceil(in / stride) windows; their padding is an expression when the size
 * of the axis is, and then a pad instruction goes before the convolution.
 */
#include "frontend/ops.h"

#include <math.h>

#define MAXSPATIAL 3
#define MAXWINDOW 4096 /* places in a window that is unrolled into slices */

typedef struct window {
    int ns; /* spatial axes */
    int64_t kernel[MAXSPATIAL], stride[MAXSPATIAL], dilation[MAXSPATIAL];
    fg_expr before[MAXSPATIAL], after[MAXSPATIAL];
    bool fixed; /* all paddings are constants */
    bool same;  /* auto_pad: SAME_UPPER or SAME_LOWER */
    bool lower;
} window;

/* Attribute `name`: ns positive numbers, or all 1. */
static bool
per_axis(fg_node *n, const char *name, int ns, int64_t *out)
{
    const int64_t *v;
    int count = fg_attr_ints(n, name, &v);

    if (count >= 0 && count != ns)
        return fg_node_error(n, "%s has %d entries for %d spatial axes", name, count, ns);
    for (int a = 0; a < ns; a++) {
        out[a] = count < 0 ? 1 : v[a];
        if (out[a] < 1 || out[a] > INT32_MAX)
            return fg_node_error(n, "%s holds %lld", name, (long long)out[a]);
    }
    return true;
}

static int64_t
reach(const window *w, int a)
{
    return (w->kernel[a] - 1) * w->dilation[a] + 1;
}

/* Paddings of auto_pad SAME: what the last window lacks, the odd one at the end or the
 * start. */
static void
same_padding(fg_node *n, window *w, fg_reg x)
{
    fg_exprs *t = n->ex;

    for (int a = 0; a < w->ns; a++) {
        fg_expr d = fg_dim(n, x, 2 + a), s = fg_c(n, w->stride[a]), two = fg_c(n, 2),
                total;
        fg_expr steps = fg_ediv(t, fg_esub(t, d, fg_c(n, 1)), s);
        total = fg_esub(t, fg_eadd(t, fg_emul(t, steps, s), fg_c(n, reach(w, a))), d);
        total = fg_emax(t, total, fg_c(n, 0));
        fg_expr half = fg_ediv(t, total, two), rest = fg_esub(t, total, half);
        w->before[a] = w->lower ? rest : half;
        w->after[a] = w->lower ? half : rest;
    }
}

static bool
paddings(fg_node *n, window *w, fg_reg x)
{
    const char *mode = fg_attr_str(n, "auto_pad", "NOTSET");
    const int64_t *pads;
    int count = fg_attr_ints(n, "pads", &pads);
    bool notset = !strcmp(mode, "NOTSET"), valid = !strcmp(mode, "VALID");
    int64_t v;

    w->lower = !strcmp(mode, "SAME_LOWER");
    w->same = w->lower || !strcmp(mode, "SAME_UPPER");
    if (!w->same && !notset && !valid)
        return fg_node_error(n, "auto_pad \"%s\"", mode);
    if (notset && count >= 0 && count != 2 * w->ns)
        return fg_node_error(n, "%d pads for %d spatial axes", count, w->ns);
    for (int a = 0; a < w->ns; a++) {
        bool given = notset && count >= 0;
        w->before[a] = fg_c(n, given ? pads[a] : 0);
        w->after[a] = fg_c(n, given ? pads[w->ns + a] : 0);
        if (given && (pads[a] < 0 || pads[w->ns + a] < 0 || pads[a] > INT32_MAX ||
                      pads[w->ns + a] > INT32_MAX))
            return fg_node_error(n, "padding %lld, %lld", (long long)pads[a],
                                 (long long)pads[w->ns + a]);
    }
    if (w->same)
        same_padding(n, w, x);
    w->fixed = true;
    for (int a = 0; a < w->ns; a++)
        w->fixed = w->fixed && fg_e_const(n->ex, w->before[a], &v) &&
                   fg_e_const(n->ex, w->after[a], &v);
    return true;
}

static bool
window_axes(fg_node *n, window *w, fg_reg x)
{
    w->ns = fg_rank(n, x) - 2;
    if (w->ns < 1)
        return fg_node_error(n, "%s has no spatial axes",
                             fg_type_text(n->m, fg_rt(n->m, x)));
    if (w->ns > MAXSPATIAL)
        return fg_node_unsupported(n, "%d spatial axes", w->ns);
    return per_axis(n, "strides", w->ns, w->stride) &&
           per_axis(n, "dilations", w->ns, w->dilation);
}

/* Kernel size from the weights, which attribute kernel_shape must agree with. */
static bool
kernel_of(fg_node *n, window *w, fg_reg weights)
{
    const int64_t *v;
    int count = fg_attr_ints(n, "kernel_shape", &v);

    for (int a = 0; a < w->ns; a++) {
        if (!fg_e_const(n->ex, fg_dim(n, weights, 2 + a), &w->kernel[a]))
            return fg_node_unsupported(n, "a kernel of unknown size");
        if (w->kernel[a] < 1)
            return fg_node_error(n, "the kernel is empty");
        if (count >= 0 && (count != w->ns || v[a] != w->kernel[a]))
            return fg_node_error(n, "kernel_shape does not match %s",
                                 fg_type_text(n->m, fg_rt(n->m, weights)));
    }
    return true;
}

static void
constants(fg_node *n, int count, const fg_expr *e, int64_t *v)
{
    for (int a = 0; a < count; a++)
        if (!fg_e_const(n->ex, e[a], &v[a]))
            v[a] = 0;
}

/* x padded by the window on its spatial axes with `value` (0: zero). */
static fg_reg
pad_spatial(fg_node *n, fg_reg x, const window *w, const fg_expr *extra, fg_reg value)
{
    fg_expr before[FG_MAXRANK], after[FG_MAXRANK];
    int rank = fg_rank(n, x);

    for (int a = 0; a < rank; a++) {
        before[a] = a < 2 ? fg_c(n, 0) : w->before[a - 2];
        after[a] = a < 2 ? fg_c(n, 0) : extra ? extra[a - 2] : w->after[a - 2];
    }
    if (!value)
        return fg_pad_zero(n, x, before, after);
    fg_inst *i = fg_inst_begin(n->b, FG_OP_pad, 2, (fg_reg[]){x, value});
    fg_set_exprs(n->m, &FG_SET(i, pad, before), rank, before);
    fg_set_exprs(n->m, &FG_SET(i, pad, after), rank, after);
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* ---- convolution ----------------------------------------------------------------- */

fg_reg
fg_conv(fg_node *n, fg_reg x, fg_reg w, fg_reg bias)
{
    int64_t before[MAXSPATIAL] = {0}, after[MAXSPATIAL] = {0},
            group = fg_attr_int(n, "group", 1);
    window win;

    if (!x || !w)
        return 0;
    if (fg_rank(n, w) != fg_rank(n, x) || group < 1) {
        fg_node_error(n, "kernel %s, group %lld for %s",
                      fg_type_text(n->m, fg_rt(n->m, w)), (long long)group,
                      fg_type_text(n->m, fg_rt(n->m, x)));
        return 0;
    }
    if (!window_axes(n, &win, x) || !kernel_of(n, &win, w) || !paddings(n, &win, x))
        return 0;
    if (win.fixed) {
        constants(n, win.ns, win.before, before);
        constants(n, win.ns, win.after, after);
    } else {
        x = pad_spatial(n, x, &win, NULL, 0);
    }
    if (!x)
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_conv, bias ? 3 : 2, (fg_reg[]){x, w, bias});
    fg_set_ints(n->m, &FG_SET(i, conv, stride), win.ns, win.stride);
    fg_set_ints(n->m, &FG_SET(i, conv, dilation), win.ns, win.dilation);
    fg_set_ints(n->m, &FG_SET(i, conv, before), win.ns, before);
    fg_set_ints(n->m, &FG_SET(i, conv, after), win.ns, after);
    FG_SET(i, conv, group).i = group;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

bool
fg_onnx_conv(fg_node *n)
{
    return fg_yield(n, fg_conv(n, fg_need(n, 0), fg_need(n, 1), fg_in(n, 2)));
}

/* Sizes of a transposed convolution: out = stride (in - 1) + output_padding + reach -
 * pads, where output_shape, or auto_pad's in * stride, settles the pads instead. */
static bool
transposed_size(fg_node *n, window *w, fg_reg x, int64_t *before, fg_expr *out)
{
    const int64_t *shape, *extra;
    int nshape = fg_attr_ints(n, "output_shape", &shape);
    int nextra = fg_attr_ints(n, "output_padding", &extra);
    fg_exprs *t = n->ex;

    if ((nshape >= 0 && nshape != w->ns && nshape != w->ns + 2) ||
        (nextra >= 0 && nextra != w->ns))
        return fg_node_error(n, "output_shape or output_padding has the wrong length");
    for (int a = 0; a < w->ns; a++) {
        if (nextra >= 0 && (extra[a] < 0 || extra[a] > INT32_MAX))
            return fg_node_error(n, "output_padding %lld", (long long)extra[a]);
        fg_expr d = fg_dim(n, x, 2 + a), s = fg_c(n, w->stride[a]);
        fg_expr full = fg_eadd(t, fg_emul(t, fg_esub(t, d, fg_c(n, 1)), s),
                               fg_c(n, reach(w, a) + (nextra < 0 ? 0 : extra[a])));
        if (nshape < 0 && !w->same) {
            out[a] = fg_esub(t, full, fg_eadd(t, w->before[a], w->after[a]));
            if (!fg_e_const(t, w->before[a], &before[a]))
                return false;
        } else {
            int64_t total;
            out[a] = nshape < 0 ? fg_emul(t, d, s) : fg_c(n, shape[nshape - w->ns + a]);
            if (!fg_e_const(t, fg_esub(t, full, out[a]), &total))
                return fg_node_unsupported(n, "output_shape for an axis of unknown size");
            total = total < 0 ? 0 : total;
            before[a] = w->lower || !w->same ? total - total / 2 : total / 2;
        }
        if (fg_e_hi(t, out[a]) < 0)
            return fg_node_error(n, "the result has a negative size");
    }
    return true;
}

bool
fg_onnx_conv_transpose(fg_node *n)
{
    fg_reg x = fg_need(n, 0), w = fg_need(n, 1), bias = fg_in(n, 2);
    int64_t group = fg_attr_int(n, "group", 1), before[MAXSPATIAL];
    fg_expr dim[MAXSPATIAL + 2];
    window win;

    if (!x || !w)
        return false;
    if (fg_rank(n, w) != fg_rank(n, x) || group < 1)
        return fg_node_error(n, "kernel %s, group %lld for %s",
                             fg_type_text(n->m, fg_rt(n->m, w)), (long long)group,
                             fg_type_text(n->m, fg_rt(n->m, x)));
    if (!window_axes(n, &win, x) || !kernel_of(n, &win, w) || !paddings(n, &win, x) ||
        !transposed_size(n, &win, x, before, dim + 2))
        return false;
    dim[0] = fg_dim(n, x, 0);
    dim[1] = fg_emul(n->ex, fg_dim(n, w, 1), fg_c(n, group));
    fg_type type = fg_type_make(fg_elem(n, x), win.ns + 2, dim);
    fg_inst *i =
        fg_inst_begin(n->b, FG_OP_conv_transpose, bias ? 3 : 2, (fg_reg[]){x, w, bias});
    fg_set_ints(n->m, &FG_SET(i, conv_transpose, stride), win.ns, win.stride);
    fg_set_ints(n->m, &FG_SET(i, conv_transpose, dilation), win.ns, win.dilation);
    fg_set_ints(n->m, &FG_SET(i, conv_transpose, before), win.ns, before);
    FG_SET(i, conv_transpose, group).i = group;
    return fg_inst_finish(n->b, i, &type, 1) && fg_yield(n, i->out[0]);
}

/* ---- pooling --------------------------------------------------------------------- */

/* Number of windows per axis. With ceil_mode a last window that would begin in the
 * padding behind the data does not count. */
static bool
pooled_size(fg_node *n, const window *w, fg_reg x, fg_expr *dim)
{
    bool ceiling = fg_attr_int(n, "ceil_mode", 0) != 0;
    fg_exprs *t = n->ex;

    dim[0] = fg_dim(n, x, 0);
    dim[1] = fg_dim(n, x, 1);
    for (int a = 0; a < w->ns; a++) {
        fg_expr d = fg_dim(n, x, 2 + a), s = fg_c(n, w->stride[a]), one = fg_c(n, 1),
                room, count;
        if (w->same) {
            dim[2 + a] = fg_eadd(t, fg_ediv(t, fg_esub(t, d, one), s), one);
            continue;
        }
        room = fg_eadd(t, fg_eadd(t, d, w->before[a]),
                       fg_esub(t, w->after[a], fg_c(n, reach(w, a))));
        if (ceiling)
            room = fg_eadd(t, room, fg_c(n, w->stride[a] - 1));
        count = fg_eadd(t, fg_ediv(t, room, s), one);
        if (ceiling) {
            fg_expr starts = fg_ediv(t, fg_esub(t, fg_eadd(t, d, w->before[a]), one), s);
            count = fg_emin(t, count, fg_eadd(t, starts, one));
        }
        if (fg_e_hi(t, count) < 0)
            return fg_node_error(n, "the window is larger than the data");
        dim[2 + a] = count;
    }
    return true;
}

static bool
pool_window(fg_node *n, fg_reg x, window *w, fg_expr *dim)
{
    if (!window_axes(n, w, x))
        return false;
    if (!fg_attr_has(n, "kernel_shape"))
        return fg_node_error(n, "attribute kernel_shape is missing");
    if (!per_axis(n, "kernel_shape", w->ns, w->kernel) || !paddings(n, w, x))
        return false;
    if (!w->fixed)
        return fg_node_unsupported(n, "auto_pad on an axis of unknown size");
    return pooled_size(n, w, x, dim);
}

/* The elements that all windows hold at one place: a strided slice of the padded data. */
static fg_reg
window_place(fg_node *n, const window *w, fg_reg padded, const fg_expr *dim,
             int64_t place)
{
    fg_expr start[MAXSPATIAL + 2];
    int64_t step[MAXSPATIAL + 2];

    for (int a = w->ns - 1; a >= 0; a--) {
        start[2 + a] = fg_c(n, place % w->kernel[a] * w->dilation[a]);
        step[2 + a] = w->stride[a];
        place /= w->kernel[a];
    }
    start[0] = start[1] = fg_c(n, 0);
    step[0] = step[1] = 1;
    return fg_emit_slice(n->b, padded, start, step, dim);
}

/* Padding after the data so that every place of every window exists. */
static void
window_ends(fg_node *n, const window *w, fg_reg x, const fg_expr *dim, fg_expr *after)
{
    fg_exprs *t = n->ex;

    for (int a = 0; a < w->ns; a++) {
        fg_expr last =
            fg_emul(t, fg_esub(t, dim[2 + a], fg_c(n, 1)), fg_c(n, w->stride[a]));
        fg_expr need = fg_eadd(t, last, fg_c(n, reach(w, a)));
        after[a] = fg_esub(t, need, fg_eadd(t, w->before[a], fg_dim(n, x, 2 + a)));
        after[a] = fg_emax(t, after[a], fg_c(n, 0));
    }
}

static int64_t
window_places(fg_node *n, const window *w)
{
    int64_t count = 1;

    for (int a = 0; a < w->ns; a++)
        if (__builtin_mul_overflow(count, w->kernel[a], &count) || count > MAXWINDOW) {
            fg_node_unsupported(n, "a window of more than %d elements", MAXWINDOW);
            return 0;
        }
    return count;
}

/* Row-major position of every element within x; storage_order 1 swaps the last two axes'
 * roles, as columns first. */
static fg_reg
flat_positions(fg_node *n, fg_reg x, bool columns)
{
    int rank = fg_rank(n, x), order[FG_MAXRANK];
    fg_reg sum = 0;
    fg_expr stride = fg_c(n, 1);

    for (int a = 0; a < rank; a++)
        order[a] = a < 2 || !columns ? a : rank + 1 - a;
    for (int k = rank - 1; k >= 0; k--) {
        int a = order[k];
        fg_reg at = E2(mul, fg_iota_along(n, fg_dim(n, x, a), a, rank, FG_i64),
                       fg_sym_scalar(n, stride, FG_i64));
        sum = sum ? E2(add, sum, at) : at;
        stride = fg_emul(n->ex, stride, fg_dim(n, x, a));
    }
    return sum;
}

static bool
max_pool_indices(fg_node *n, fg_reg x, const window *w, const fg_expr *dim)
{
    int64_t places = window_places(n, w);
    fg_expr after[MAXSPATIAL];

    if (!places)
        return false;
    window_ends(n, w, x, dim, after);
    fg_reg data = pad_spatial(n, x, w, after, 0), best = 0, index = 0;
    fg_reg at =
        pad_spatial(n, flat_positions(n, x, fg_attr_int(n, "storage_order", 0) != 0), w,
                    after, fg_emit_f(n->b, FG_i64, -1));
    for (int64_t k = 0; data && at && k < places; k++) {
        fg_reg v = window_place(n, w, data, dim, k), i = window_place(n, w, at, dim, k);
        if (!best) {
            best = v;
            index = i;
            continue;
        }
        fg_reg outside = E2(lt, index, fg_emit_f(n->b, FG_i64, 0));
        fg_reg inside = E2(ge, i, fg_emit_f(n->b, FG_i64, 0));
        fg_reg take = E2(and, inside, E2(or, outside, E2(gt, v, best)));
        best = E3(where, take, v, best);
        index = E3(where, take, i, index);
    }
    return fg_yield(n, best) && fg_yield_at(n, 1, index);
}

bool
fg_onnx_max_pool(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    fg_expr dim[MAXSPATIAL + 2];
    int64_t before[MAXSPATIAL];
    window w;

    if (!x || !pool_window(n, x, &w, dim))
        return false;
    if (fg_wants(n, 1))
        return max_pool_indices(n, x, &w, dim);
    constants(n, w.ns, w.before, before);
    fg_type type = fg_type_make(fg_elem(n, x), w.ns + 2, dim);
    fg_inst *i = fg_inst_begin(n->b, FG_OP_max_pool, 1, &x);
    fg_set_ints(n->m, &FG_SET(i, max_pool, kernel), w.ns, w.kernel);
    fg_set_ints(n->m, &FG_SET(i, max_pool, stride), w.ns, w.stride);
    fg_set_ints(n->m, &FG_SET(i, max_pool, dilation), w.ns, w.dilation);
    fg_set_ints(n->m, &FG_SET(i, max_pool, before), w.ns, before);
    return fg_inst_finish(n->b, i, &type, 1) && fg_yield(n, i->out[0]);
}

bool
fg_onnx_average_pool(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    fg_expr dim[MAXSPATIAL + 2];
    int64_t before[MAXSPATIAL], after[MAXSPATIAL];
    window w;

    if (!x || !pool_window(n, x, &w, dim))
        return false;
    constants(n, w.ns, w.before, before);
    constants(n, w.ns, w.after, after);
    fg_type type = fg_type_make(fg_elem(n, x), w.ns + 2, dim);
    fg_inst *i = fg_inst_begin(n->b, FG_OP_avg_pool, 1, &x);
    fg_set_ints(n->m, &FG_SET(i, avg_pool, kernel), w.ns, w.kernel);
    fg_set_ints(n->m, &FG_SET(i, avg_pool, stride), w.ns, w.stride);
    fg_set_ints(n->m, &FG_SET(i, avg_pool, dilation), w.ns, w.dilation);
    fg_set_ints(n->m, &FG_SET(i, avg_pool, before), w.ns, before);
    fg_set_ints(n->m, &FG_SET(i, avg_pool, after), w.ns, after);
    FG_SET(i, avg_pool, count_pad).i = fg_attr_int(n, "count_include_pad", 0) != 0;
    return fg_inst_finish(n->b, i, &type, 1) && fg_yield(n, i->out[0]);
}

/* (sum of |x|^p)^(1/p) over each window; zero padding adds nothing. */
bool
fg_onnx_lp_pool(fg_node *n)
{
    fg_reg x = fg_need(n, 0), sum = 0, p;
    fg_expr dim[MAXSPATIAL + 2], after[MAXSPATIAL];
    int64_t places, power = fg_attr_int(n, "p", 2);
    window w;

    if (!x || !pool_window(n, x, &w, dim) || !(places = window_places(n, &w)))
        return false;
    if (power < 1)
        return fg_node_error(n, "p = %lld", (long long)power);
    fg_reg wide = fg_widen(n, x);
    p = fg_num(n, wide, (double)power);
    window_ends(n, &w, x, dim, after);
    wide = pad_spatial(n, E2(pow, E1(abs, wide), p), &w, after, 0);
    for (int64_t k = 0; wide && k < places; k++) {
        fg_reg v = window_place(n, &w, wide, dim, k);
        sum = sum ? E2(add, sum, v) : v;
    }
    return fg_yield(n, fg_narrow(n, sum ? E2(pow, sum, E1(recip, p)) : 0, x));
}

/* Every spatial axis at once. */
bool
fg_onnx_global_pool(fg_node *n)
{
    fg_reg x = fg_need(n, 0), y;
    bool max = !strcmp(n->op, "GlobalMaxPool"),
         mean = !strcmp(n->op, "GlobalAveragePool");
    int64_t axes[FG_MAXRANK], power = fg_attr_int(n, "p", 2);

    if (!x)
        return false;
    int count = fg_rank(n, x) - 2;
    if (count < 1)
        return fg_node_error(n, "%s has no spatial axes",
                             fg_type_text(n->m, fg_rt(n->m, x)));
    for (int a = 0; a < count; a++)
        axes[a] = 2 + a;
    if (max || mean)
        return fg_yield(n,
                        fg_emit_reduce(n->b, max ? FG_OP_reduce_max : FG_OP_reduce_mean,
                                       x, count, axes, true));
    if (power < 1)
        return fg_node_error(n, "p = %lld", (long long)power);
    fg_reg w = fg_widen(n, x), p = fg_num(n, w, (double)power);
    y = fg_emit_reduce(n->b, FG_OP_reduce_sum, E2(pow, E1(abs, w), p), count, axes, true);
    return fg_yield(n, fg_narrow(n, y ? E2(pow, y, E1(recip, p)) : 0, x));
}
