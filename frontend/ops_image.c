/* ops_image.c - ONNX operators that sample and unfold images.
 *
 *     GridSample x, g   ->  per neighbour: gather_elements of x[N,C,pixels] at flat
 *                           indices, times a weight; summed
 *     AffineGrid theta  ->  matmul of the pixel centres [H W, 3] with theta
 *     CenterCropPad x   ->  slice, pad
 */
#include "frontend/ops.h"

#include <math.h>

enum { MAXSPATIAL = 3 };

/* ---- GridSample ------------------------------------------------------------------ */

typedef enum { PAD_ZEROS, PAD_BORDER, PAD_REFLECTION } padding;

typedef struct grid {
    int ns, taps; /* spatial axes; neighbours per axis: 1, 2 or 4 */
    bool corners;
    padding pad;
    fg_reg pixels;            /* [N,C,P] */
    fg_reg at[MAXSPATIAL];    /* [N,1,L]: position per axis, in pixels */
    fg_reg floor[MAXSPATIAL]; /* the same rounded down */
    fg_expr size[MAXSPATIAL];
} grid;

/* Word k of a list; -1 when it is not there. */
static int
word(const char *s, const char *const *list)
{
    for (int k = 0; list[k]; k++)
        if (!strcmp(list[k], s))
            return k;
    return -1;
}

static bool
grid_attributes(fg_node *n, grid *g)
{
    static const char *const modes[] = {"nearest", "linear",  "bilinear",
                                        "cubic",   "bicubic", NULL};
    static const char *const pads[] = {"zeros", "border", "reflection", NULL};
    static const int taps[] = {1, 2, 2, 4, 4};
    const char *mode = fg_attr_str(n, "mode", "linear"),
               *pad = fg_attr_str(n, "padding_mode", "zeros");
    int m = word(mode, modes), p = word(pad, pads);

    if (m < 0 || p < 0)
        return fg_node_error(n, "mode \"%s\", padding_mode \"%s\"", mode, pad);
    g->taps = taps[m];
    g->pad = (padding)p;
    g->corners = fg_attr_int(n, "align_corners", 0) != 0;
    return true;
}

/* x folded back at both borders until it lies between them. */
static fg_reg
reflect(fg_node *n, const grid *g, int a, fg_reg x)
{
    double low = g->corners ? 0 : -0.5;
    fg_reg span =
        fg_sym_scalar(n, g->corners ? fg_esub(n->ex, g->size[a], fg_c(n, 1)) : g->size[a],
                      x ? fg_elem(n, x) : FG_f32);
    fg_reg least = fg_num(n, x, low), twice = E2(add, span, span), u;

    u = E2(mod, E2(sub, x, least), twice);
    u = E3(where, E2(gt, u, span), E2(sub, twice, u), u);
    u = E3(where, E2(gt, span, fg_num(n, x, 0)), u, fg_num(n, x, 0));
    return E2(add, u, least);
}

/* Positions in pixels of axis a from the normalised ones. */
static fg_reg
grid_position(fg_node *n, const grid *g, int a, fg_reg v)
{
    fg_dtype d = fg_elem(n, v);
    fg_reg one = fg_num(n, v, 1), two = fg_num(n, v, 2),
           size = fg_sym_scalar(n, g->size[a], d);
    fg_reg end = E2(sub, size, one), x;

    v = E2(add, v, one);
    x = g->corners ? E2(mul, E2(div, v, two), end)
                   : E2(div, E2(sub, E2(mul, v, size), one), two);
    if (g->taps == 1)
        x = E1(round, x);
    if (!x || g->pad == PAD_ZEROS)
        return x;
    double edge = g->corners ? 0 : 0.5;
    fg_reg outside = E2(or, E2(lt, x, fg_num(n, x, -edge)),
                        E2(gt, x, E2(add, end, fg_num(n, x, edge))));
    fg_reg in = g->pad == PAD_BORDER ? E2(min, E2(max, x, fg_num(n, x, 0)), end)
                                     : reflect(n, g, a, x);
    return E3(where, outside, in, x);
}

static fg_reg
cubic_weight(fg_node *n, fg_reg d)
{
    const double a = -0.75;
    fg_reg near, far;

    d = E1(abs, d);
    near = E2(sub, E2(mul, d, fg_num(n, d, a + 2)), fg_num(n, d, a + 3));
    near = E2(add, E2(mul, E2(mul, near, d), d), fg_num(n, d, 1));
    far = E2(sub, E2(mul, d, fg_num(n, d, a)), fg_num(n, d, 5 * a));
    far = E2(sub, E2(mul, E2(add, E2(mul, far, d), fg_num(n, d, 8 * a)), d),
             fg_num(n, d, 4 * a));
    return E3(where, E2(le, d, fg_num(n, d, 1)), near, far);
}

/* Pixel floor + k of axis a: its weight, and its index made valid. */
static bool
tap(fg_node *n, const grid *g, int a, int k, fg_reg *weight, fg_reg *index)
{
    fg_reg i = E2(add, g->floor[a], fg_num(n, g->floor[a], k)), valid = 0;
    fg_reg d = E2(sub, g->at[a], i),
           last = fg_sym_scalar(n, fg_esub(n->ex, g->size[a], fg_c(n, 1)), FG_i64);
    fg_reg zero = fg_emit_f(n->b, FG_i64, 0);

    if (!d)
        return false;
    *weight = g->taps == 1   ? fg_num(n, d, 1)
              : g->taps == 4 ? cubic_weight(n, d)
                             : E2(sub, fg_num(n, d, 1), E1(abs, d));
    if (g->pad == PAD_REFLECTION)
        i = reflect(n, g, a, i);
    i = i ? fg_emit_cast(n->b, i, FG_i64) : 0;
    if (g->pad == PAD_ZEROS) {
        valid = E2(and, E2(ge, i, zero), E2(le, i, last));
        *weight = E3(where, valid, *weight, fg_num(n, d, 0));
    }
    *index = E2(min, E2(max, i, zero), last);
    return *weight && *index;
}

/* The pixels at flat indices at[N,1,L], of every channel. */
static fg_reg
pixels_at(fg_node *n, const grid *g, fg_reg at)
{
    if (!at)
        return 0;
    fg_expr dim[3] = {fg_dim(n, g->pixels, 0), fg_dim(n, g->pixels, 1), fg_dim(n, at, 2)};
    fg_reg in[2] = {g->pixels, fg_emit_expand(n->b, at, 3, dim)};
    if (!in[1])
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_gather_elements, 2, in);
    FG_SET(i, gather_elements, axis).i = 2;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

static fg_reg
grid_sum(fg_node *n, const grid *g)
{
    fg_reg weight[MAXSPATIAL][4], index[MAXSPATIAL][4], sum = 0;
    int total = 1, first = g->taps == 4 ? -1 : 0;

    for (int a = 0; a < g->ns; a++) {
        total *= g->taps;
        for (int k = 0; k < g->taps; k++)
            if (!tap(n, g, a, first + k, &weight[a][k], &index[a][k]))
                return 0;
    }
    for (int t = 0; t < total; t++) {
        fg_reg w = 0, at = 0;
        for (int a = 0, rest = t; a < g->ns; a++, rest /= g->taps) {
            int k = rest % g->taps;
            w = w ? E2(mul, w, weight[a][k]) : weight[a][k];
            at = at ? E2(add, E2(mul, at, fg_sym_scalar(n, g->size[a], FG_i64)),
                         index[a][k])
                    : index[a][k];
        }
        fg_reg v = E2(mul, pixels_at(n, g, at), w);
        sum = sum ? E2(add, sum, v) : v;
    }
    return sum;
}

bool
fg_onnx_grid_sample(fg_node *n)
{
    fg_reg x = fg_need(n, 0), v = fg_need(n, 1);
    grid g = {0};
    fg_expr out[MAXSPATIAL + 2];

    if (!x || !v || !grid_attributes(n, &g))
        return false;
    g.ns = fg_rank(n, x) - 2;
    if (g.ns < 1 || g.ns > MAXSPATIAL || fg_rank(n, v) != g.ns + 2 ||
        !fg_e_is(n->ex, fg_dim(n, v, g.ns + 1), g.ns))
        return fg_node_error(n, "grid %s for %s", fg_type_text(n->m, fg_rt(n->m, v)),
                             fg_type_text(n->m, fg_rt(n->m, x)));
    fg_expr flat[3] = {fg_dim(n, x, 0), fg_dim(n, x, 1),
                       fg_dims_product(n, x, 2, g.ns + 2)};
    fg_expr places[3] = {flat[0], fg_c(n, 1), fg_dims_product(n, v, 1, g.ns + 1)};
    fg_reg w = fg_widen(n, x), where_at = fg_widen(n, v);
    if (!fg_is_float(fg_elem(n, x)))
        w = fg_emit_cast(n->b, x, FG_f32);
    g.pixels = fg_emit_reshape(n->b, w, 3, flat);
    where_at = fg_emit_cast(n->b, where_at, fg_elem(n, w));
    out[0] = flat[0];
    out[1] = flat[1];
    for (int a = 0; g.pixels && a < g.ns; a++) {
        fg_reg one = fg_part(n, where_at, g.ns + 1, g.ns - 1 - a, 1);
        g.size[a] = fg_dim(n, x, 2 + a);
        out[2 + a] = fg_dim(n, v, 1 + a);
        one = one ? fg_emit_reshape(n->b, one, 3, places) : 0;
        g.at[a] = one ? grid_position(n, &g, a, one) : 0;
        g.floor[a] = E1(floor, g.at[a]);
        if (!g.floor[a])
            return false;
    }
    fg_reg y = grid_sum(n, &g);
    return fg_yield(n, y ? fg_narrow(n, fg_emit_reshape(n->b, y, g.ns + 2, out), x) : 0);
}

/* ---- AffineGrid ------------------------------------------------------------------ */

/* Centres of the pixels along an axis of size d, as [1,..,d,..,1,1]. */
static fg_reg
centres(fg_node *n, fg_dtype type, fg_expr d, int axis, int ns, bool corners)
{
    fg_reg i = fg_iota_along(n, d, axis, ns + 1, FG_i64),
           size = fg_sym_scalar(n, d, type), one, two;

    if (!i || !size)
        return 0;
    i = fg_emit_cast(n->b, i, type);
    one = fg_num(n, size, 1);
    two = fg_num(n, size, 2);
    if (corners)
        return E2(sub, E2(div, E2(mul, i, two), E2(sub, size, one)), one);
    return E2(sub, E2(div, E2(add, E2(mul, i, two), one), size), one);
}

bool
fg_onnx_affine_grid(fg_node *n)
{
    fg_reg theta = fg_need(n, 0), part[MAXSPATIAL + 1], base;
    bool corners = fg_attr_int(n, "align_corners", 0) != 0;
    fg_expr dim[MAXSPATIAL + 2];
    const fg_expr *size;
    int count;

    if (!theta || !fg_in_clamped(n, 1, 1, INT32_MAX, &size, &count))
        return false;
    int ns = count - 2;
    if (ns < 2 || ns > 3 || fg_rank(n, theta) != 3 ||
        !fg_e_is(n->ex, fg_dim(n, theta, 1), ns) ||
        !fg_e_is(n->ex, fg_dim(n, theta, 2), ns + 1))
        return fg_node_error(n, "theta %s for %d sizes",
                             fg_type_text(n->m, fg_rt(n->m, theta)), count);
    fg_reg wide = fg_widen(n, theta);
    fg_expr all = fg_c(n, 1);
    for (int a = 0; a < ns; a++) {
        dim[a] = size[2 + a];
        all = fg_emul(n->ex, all, dim[a]);
    }
    dim[ns] = fg_c(n, 1);
    for (int a = 0; a <= ns; a++) { /* the last axis comes first: x, y, z, 1 */
        int axis = ns - 1 - a;
        part[a] = a == ns ? fg_num(n, wide, 1)
                          : centres(n, fg_elem(n, wide), dim[axis], axis, ns, corners);
        part[a] = part[a] ? fg_emit_expand(n->b, part[a], ns + 1, dim) : 0;
        if (!part[a])
            return false;
    }
    base = fg_emit_concat(n->b, ns + 1, part, ns);
    fg_expr rows[3] = {fg_c(n, 1), all, fg_c(n, ns + 1)};
    base = fg_emit_matmul(n->b, fg_emit_reshape(n->b, base, 3, rows), wide, false, true);
    fg_expr out[MAXSPATIAL + 2] = {fg_dim(n, theta, 0)};
    for (int a = 0; a < ns; a++)
        out[1 + a] = dim[a];
    out[ns + 1] = fg_c(n, ns);
    return fg_yield(
        n, base ? fg_narrow(n, fg_emit_reshape(n->b, base, ns + 2, out), theta) : 0);
}

/* ---- cropping and unpooling ------------------------------------------------------ */

bool
fg_onnx_center_crop_pad(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    fg_exprs *t = n->ex;
    const fg_expr *size;
    const int64_t *axes;
    fg_expr before[FG_MAXRANK], after[FG_MAXRANK], two = fg_c(n, 2), zero = fg_c(n, 0);
    int count, naxes = fg_attr_ints(n, "axes", &axes), a;

    if (!x || !fg_in_clamped(n, 1, 0, INT32_MAX, &size, &count))
        return false;
    if (count != (naxes < 0 ? fg_rank(n, x) : naxes))
        return fg_node_error(n, "%d sizes for %d axes", count,
                             naxes < 0 ? fg_rank(n, x) : naxes);
    for (a = 0; a < fg_rank(n, x); a++)
        before[a] = after[a] = zero;
    for (int i = 0; x && i < count; i++) {
        if (!fg_axis(n, naxes < 0 ? i : axes[i], fg_rank(n, x), &a))
            return false;
        fg_expr d = fg_dim(n, x, a), cut = fg_emax(t, fg_esub(t, d, size[i]), zero);
        fg_expr more = fg_emax(t, fg_esub(t, size[i], d), zero);
        before[a] = fg_ediv(t, more, two);
        after[a] = fg_esub(t, more, before[a]);
        if (!fg_e_is(t, cut, 0))
            x = fg_emit_slice_axis(n->b, x, a, fg_ediv(t, cut, two), fg_esub(t, d, cut));
    }
    return fg_yield(n, fg_pad_zero(n, x, before, after));
}

static bool
ints_or(fg_node *n, const char *name, int count, int64_t dflt, int64_t *out)
{
    const int64_t *v;
    int have = fg_attr_ints(n, name, &v);

    if (have >= 0 && have != count)
        return fg_node_error(n, "%s has %d entries instead of %d", name, have, count);
    for (int i = 0; i < count; i++) {
        out[i] = have < 0 ? dflt : v[i];
        if (out[i] < 0 || out[i] > INT32_MAX)
            return fg_node_error(n, "%s holds %lld", name, (long long)out[i]);
    }
    return true;
}

/* Every value goes back to the flat index it came from; the rest is 0. */
bool
fg_onnx_max_unpool(fg_node *n)
{
    fg_reg x = fg_need(n, 0), index = fg_need(n, 1);
    fg_exprs *t = n->ex;
    int64_t kernel[MAXSPATIAL], stride[MAXSPATIAL], pads[2 * MAXSPATIAL];
    fg_expr dim[MAXSPATIAL + 2], before[MAXSPATIAL + 2], after[MAXSPATIAL + 2];
    const fg_expr *want = NULL;
    int count;

    if (!x || !index)
        return false;
    int rank = fg_rank(n, x), ns = rank - 2;
    if (ns < 1 || ns > MAXSPATIAL || fg_rank(n, index) != rank)
        return fg_node_error(n, "indices %s for %s",
                             fg_type_text(n->m, fg_rt(n->m, index)),
                             fg_type_text(n->m, fg_rt(n->m, x)));
    if (!ints_or(n, "kernel_shape", ns, 1, kernel) ||
        !ints_or(n, "strides", ns, 1, stride) || !ints_or(n, "pads", 2 * ns, 0, pads))
        return false;
    if (fg_in(n, 2) && !fg_in_clamped(n, 2, 0, INT32_MAX, &want, &count))
        return false;
    if (want && count != rank)
        return fg_node_error(n, "output_shape has %d entries", count);
    fg_expr all = fg_c(n, 1);
    for (int a = 0; a < rank; a++) {
        fg_expr d = fg_dim(n, x, a);
        if (a >= 2) {
            d = fg_emul(t, fg_esub(t, d, fg_c(n, 1)), fg_c(n, stride[a - 2]));
            d = fg_eadd(t, d, fg_c(n, kernel[a - 2] - pads[a - 2] - pads[ns + a - 2]));
        }
        dim[a] = d;
        all = fg_emul(t, all, d);
        before[a] = fg_c(n, 0);
        after[a] = want ? fg_esub(t, want[a], d) : before[a];
    }
    fg_expr values = fg_dims_product(n, x, 0, rank);
    fg_reg in[3] = {fg_emit_expand(n->b, fg_num(n, x, 0), 1, &all),
                    fg_emit_reshape(n->b, index, 1, &values),
                    fg_emit_reshape(n->b, x, 1, &values)};
    if (!in[0] || !in[1] || !in[2])
        return false;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_scatter_elements, 3, in);
    if (!fg_inst_finish(n->b, i, NULL, 0))
        return false;
    fg_reg y = fg_emit_reshape(n->b, i->out[0], rank, dim);
    return fg_yield(n, want ? fg_pad_zero(n, y, before, after) : y);
}
