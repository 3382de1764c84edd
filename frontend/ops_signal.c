/* ops_signal.c - ONNX signal operators: windows, Fourier transforms, mel weights.
 *
 *     DFT x    ->  matmul with the matrices cos(2 pi j k / n) and -sin(2 pi j k / n)
 *     STFT x   ->  gather of the frames, times the window, then the same products
 *
 * All of it is computed in f64: angles grow with j k, and rounding them shows.
 */
#include "frontend/ops.h"

#include <math.h>

static fg_reg
f64(fg_node *n, double v)
{
    return fg_emit_f(n->b, FG_f64, v);
}

static fg_reg
sym64(fg_node *n, fg_expr e)
{
    return fg_sym_scalar(n, e, FG_f64);
}

static fg_reg
count64(fg_node *n, fg_expr len, int axis, int rank)
{
    fg_reg i = fg_iota_along(n, len, axis, rank, FG_i64);

    return i ? fg_emit_cast(n->b, i, FG_f64) : 0;
}

/* One number from operand k, as an expression. */
static bool
number(fg_node *n, int k, fg_expr *e)
{
    const fg_expr *v;
    int count;
    int64_t c;

    if (!fg_in_clamped(n, k, 0, INT32_MAX, &v, &count))
        return false;
    *e = v[0];
    return (count == 1 && !(fg_e_const(n->ex, *e, &c) && c < 0)) ||
           fg_node_error(n, "operand %d must be one number, not negative", k);
}

/* ---- windows --------------------------------------------------------------------- */

static const struct {
    const char *onnx;
    double c[3];
} windows[] = {
    {"HannWindow", {0.5, -0.5, 0}},
    {"HammingWindow", {25.0 / 46, -21.0 / 46, 0}},
    {"BlackmanWindow", {0.42, -0.5, 0.08}},
};

/* c0 + c1 cos(2 pi i / m) + c2 cos(4 pi i / m); m is the size, less 1 unless periodic. */
bool
fg_onnx_window(fg_node *n)
{
    fg_dtype to = fg_dtype_by_onnx((int)fg_attr_int(n, "output_datatype", 1));
    fg_expr size;
    int k = 0;

    if (!to)
        return fg_node_unsupported(n, "element type %lld",
                                   (long long)fg_attr_int(n, "output_datatype", 1));
    if (!number(n, 0, &size))
        return false;
    while (strcmp(windows[k].onnx, n->op))
        k++;
    fg_expr m = fg_attr_int(n, "periodic", 1) ? size : fg_esub(n->ex, size, fg_c(n, 1));
    fg_reg angle =
        E2(div, E2(mul, count64(n, size, 0, 1), f64(n, 2 * M_PI)), sym64(n, m));
    fg_reg y = E2(add, E2(mul, E1(cos, angle), f64(n, windows[k].c[1])),
                  f64(n, windows[k].c[0]));
    if (windows[k].c[2] != 0)
        y = E2(add, y,
               E2(mul, E1(cos, E2(mul, angle, f64(n, 2))), f64(n, windows[k].c[2])));
    return fg_yield(n, y ? fg_emit_cast(n->b, y, to) : 0);
}

/* ---- Fourier transforms ---------------------------------------------------------- */

/* cos and sin of 2 pi j k / size for j < rows, k < cols; j k is reduced by size first. */
static bool
twiddles(fg_node *n, fg_expr rows, fg_expr cols, fg_expr size, fg_reg *c, fg_reg *s)
{
    fg_reg jk = E2(mul, fg_iota_along(n, rows, 0, 2, FG_i64),
                   fg_iota_along(n, cols, 1, 2, FG_i64));

    jk = E2(mod, jk, fg_sym_scalar(n, size, FG_i64));
    fg_reg angle = jk ? fg_emit_cast(n->b, jk, FG_f64) : 0;
    angle = E2(div, E2(mul, angle, f64(n, 2 * M_PI)), sym64(n, size));
    *c = E1(cos, angle);
    *s = E1(sin, angle);
    return *c && *s;
}

/* Transform of re + i im (im 0: none), [.., L], to [.., cols, 2]; L <= size. */
static fg_reg
transform(fg_node *n, fg_reg re, fg_reg im, fg_expr size, fg_expr cols, bool inverse)
{
    fg_reg c, s, out[2];
    int rank = fg_rank(n, re);

    if (!twiddles(n, fg_dim(n, re, rank - 1), cols, size, &c, &s))
        return 0;
    if (!inverse)
        s = E1(neg, s);
    out[0] = fg_emit_matmul(n->b, re, c, false, false);
    out[1] = fg_emit_matmul(n->b, re, s, false, false);
    if (im) {
        out[0] = E2(sub, out[0], fg_emit_matmul(n->b, im, s, false, false));
        out[1] = E2(add, out[1], fg_emit_matmul(n->b, im, c, false, false));
    }
    for (int k = 0; k < 2; k++) {
        if (inverse)
            out[k] = E2(div, out[k], sym64(n, size));
        if (!(out[k] = fg_insert1(n, out[k], rank, 1)))
            return 0;
    }
    return fg_emit_concat(n->b, 2, out, rank);
}

/* Component k of the last axis, dropped. */
static fg_reg
component(fg_node *n, fg_reg x, int k)
{
    fg_expr dim[FG_MAXRANK];
    int last = fg_rank(n, x) - 1;

    for (int a = 0; a < last; a++)
        dim[a] = fg_dim(n, x, a);
    x = fg_part(n, x, last, k, 1);
    return x ? fg_emit_reshape(n->b, x, last, dim) : 0;
}

/* The last axis cut or continued by zeros to `size`. */
static fg_reg
fit(fg_node *n, fg_reg x, fg_expr size)
{
    fg_expr before[FG_MAXRANK], after[FG_MAXRANK];
    int last = fg_rank(n, x) - 1;

    for (int a = 0; a <= last; a++)
        before[a] = after[a] = fg_c(n, 0);
    after[last] = fg_esub(n->ex, size, fg_dim(n, x, last));
    return fg_e_is(n->ex, after[last], 0) ? x : fg_pad_zero(n, x, before, after);
}

/* Real signal from the first half of its spectrum [.., m]: the rest is the conjugate,
 * read backwards, so every entry but those of frequency 0 and size/2 counts twice. */
static fg_reg
real_inverse(fg_node *n, fg_reg re, fg_reg im, fg_expr size)
{
    fg_exprs *t = n->ex;
    fg_expr half = fg_eadd(t, fg_ediv(t, size, fg_c(n, 2)), fg_c(n, 1));
    fg_reg c, s, y;

    re = fit(n, re, half);
    im = im ? fit(n, im, half) : 0;
    if (!re || !twiddles(n, half, size, size, &c, &s))
        return 0;
    fg_reg k = fg_iota_along(n, half, 0, 2, FG_i64), two = fg_emit_f(n->b, FG_i64, 2);
    fg_reg own = E2(eq, E2(mod, E2(mul, k, two), fg_sym_scalar(n, size, FG_i64)),
                    fg_emit_f(n->b, FG_i64, 0));
    fg_reg weight = E3(where, own, f64(n, 1), f64(n, 2));
    y = fg_emit_matmul(n->b, re, E2(mul, c, weight), false, false);
    if (im)
        y = E2(sub, y, fg_emit_matmul(n->b, im, E2(mul, s, weight), false, false));
    y = E2(div, y, sym64(n, size));
    return y ? fg_insert1(n, y, fg_rank(n, y), 1) : 0;
}

/* Transform along one axis; the last axis holds the parts of a number. */
static fg_reg
dft_along(fg_node *n, fg_reg x, int axis)
{
    bool inverse = fg_attr_int(n, "inverse", 0) != 0,
         onesided = fg_attr_int(n, "onesided", 0) != 0;
    int64_t perm[FG_MAXRANK];
    int rank = fg_rank(n, x), last = rank - 1;
    fg_expr have = fg_dim(n, x, axis), one = fg_c(n, 1), two = fg_c(n, 2), size = have;
    bool complex = fg_e_is(n->ex, fg_dim(n, x, last), 2);
    fg_reg re, im, y;

    if (inverse && onesided)
        size = fg_emul(n->ex, two, fg_esub(n->ex, have, one));
    if (fg_in(n, 1) && !number(n, 1, &size))
        return 0;
    for (int a = 0; a < rank; a++)
        perm[a] = a == axis ? last - 1 : a == last - 1 ? axis : a;
    fg_reg w = fg_emit_transpose(n->b, fg_emit_cast(n->b, x, FG_f64), perm);
    re = w ? component(n, w, 0) : 0;
    im = w && complex ? component(n, w, 1) : 0;
    if (!re || (complex && !im))
        return 0;
    if (inverse && onesided) {
        y = real_inverse(n, re, im, size);
    } else {
        fg_expr cols = onesided ? fg_eadd(n->ex, fg_ediv(n->ex, size, two), one) : size;
        re = fit(n, re, size);
        im = im ? fit(n, im, size) : 0;
        y = re ? transform(n, re, im, size, cols, inverse) : 0;
    }
    return y ? fg_narrow(n, fg_emit_transpose(n->b, y, perm), x) : 0;
}

/* The axis is computed: all transforms, of which one is chosen. They must have one
 * shape. */
static bool
dft_any_axis(fg_node *n, fg_reg x, fg_expr axis)
{
    int rank = fg_rank(n, x);
    fg_expr which = fg_emod(n->ex, axis, fg_c(n, rank));
    fg_reg y = 0;

    if (fg_in(n, 1) || fg_attr_int(n, "onesided", 0))
        return fg_node_unsupported(n, "a result whose shape depends on a computed axis");
    for (int a = 0; a < rank - 1; a++) {
        fg_reg z = dft_along(n, x, a);
        fg_reg here = fg_sym_scalar(n, fg_eeq(n->ex, which, fg_c(n, a)), FG_bool);
        y = y ? E3(where, here, z, y) : z;
    }
    return fg_yield(n, y);
}

bool
fg_onnx_dft(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    int64_t at = n->opset < 20 ? fg_attr_int(n, "axis", 1) : -2, parts;
    const fg_expr *e;
    int axis, count;

    if (!x)
        return false;
    int rank = fg_rank(n, x);
    if (rank < 2 || !fg_e_const(n->ex, fg_dim(n, x, rank - 1), &parts) || parts < 1 ||
        parts > 2)
        return fg_node_error(n, "%s has not 1 or 2 numbers per element",
                             fg_type_text(n->m, fg_rt(n->m, x)));
    if (n->opset >= 20 && fg_in(n, 2)) {
        if (!fg_in_clamped(n, 2, -rank, rank - 1, &e, &count))
            return false;
        if (count != 1)
            return fg_node_error(n, "axis has %d elements", count);
        if (!fg_e_const(n->ex, e[0], &at))
            return dft_any_axis(n, x, e[0]);
    }
    if (!fg_axis(n, at, rank, &axis))
        return false;
    if (axis == rank - 1)
        return fg_node_error(n, "the last axis holds the parts of a number");
    return fg_yield(n, dft_along(n, x, axis));
}

/* Frames [B, F, L] of a signal [B, N, c], their first component or second. */
static fg_reg
frames(fg_node *n, fg_reg signal, int part, fg_reg at, fg_reg window)
{
    fg_reg x = component(n, signal, part);

    x = x ? fg_emit_gather(n->b, fg_emit_cast(n->b, x, FG_f64), at, 1) : 0;
    return x && window ? E2(mul, x, fg_emit_cast(n->b, window, FG_f64)) : x;
}

bool
fg_onnx_stft(fg_node *n)
{
    fg_reg x = fg_need(n, 0), window = fg_in(n, 2), re, im = 0;
    fg_exprs *t = n->ex;
    fg_expr step, length, one = fg_c(n, 1);
    int64_t parts;

    if (!x || !number(n, 1, &step))
        return false;
    if (fg_rank(n, x) != 3 || !fg_e_const(t, fg_dim(n, x, 2), &parts) || parts < 1 ||
        parts > 2)
        return fg_node_error(n, "signal %s", fg_type_text(n->m, fg_rt(n->m, x)));
    if (fg_in(n, 3)) {
        if (!number(n, 3, &length))
            return false;
    } else if (window && fg_rank(n, window) == 1) {
        length = fg_dim(n, window, 0);
    } else {
        return fg_node_error(n, "neither a window nor a frame length is given");
    }
    fg_expr count =
        fg_eadd(t, fg_ediv(t, fg_esub(t, fg_dim(n, x, 1), length), step), one);
    fg_reg at =
        E2(add,
           E2(mul, fg_iota_along(n, count, 0, 2, FG_i64), fg_sym_scalar(n, step, FG_i64)),
           fg_iota_along(n, length, 1, 2, FG_i64));
    re = frames(n, x, 0, at, window);
    if (parts == 2 && !(im = frames(n, x, 1, at, window)))
        return false;
    bool onesided = fg_attr_int(n, "onesided", 1) && parts == 1;
    fg_expr cols = onesided ? fg_eadd(t, fg_ediv(t, length, fg_c(n, 2)), one) : length;
    return fg_yield(n,
                    re ? fg_narrow(n, transform(n, re, im, length, cols, false), x) : 0);
}

/* ---- mel weights ----------------------------------------------------------------- */

/* Triangles between neighbouring mel frequencies, over the bins of a spectrum.
 * Constants. */
bool
fg_onnx_mel_weights(fg_node *n)
{
    fg_dtype to = fg_dtype_by_onnx((int)fg_attr_int(n, "output_datatype", 1));
    double v[5];

    for (int k = 0; k < 5; k++)
        if (!fg_in_scalar_f(n, k, &v[k]))
            return false;
    if (!to || !fg_is_float(to))
        return fg_node_unsupported(n, "element type %lld",
                                   (long long)fg_attr_int(n, "output_datatype", 1));
    if (!(v[0] >= 1 && v[0] <= 4096 && v[1] >= 1 && v[1] <= 1 << 20 && v[2] > 0))
        return fg_node_error(n, "%g bins, %g samples at %g", v[0], v[1], v[2]);
    int64_t bins = (int64_t)v[0], rows = (int64_t)v[1] / 2 + 1, edge[4098];
    double low = 2595 * log10(1 + v[3] / 700), high = 2595 * log10(1 + v[4] / 700);
    double step = (high - low) / (double)(bins + 2);
    for (int64_t i = 0; i < bins + 2; i++) {
        double hertz = 700 * (pow(10, (low + step * (double)i) / 2595) - 1);
        double at = floor((v[1] + 1) * hertz / v[2]);
        edge[i] = at > 0 && at < 1e9 ? (int64_t)at : 0;
    }
    float *w = FG_NEWN(n->m->a, float, (size_t)(rows * bins));
    for (int64_t i = 0; i < bins; i++) {
        int64_t l = edge[i], c = edge[i + 1], h = edge[i + 2];
        for (int64_t j = l; l < c && j <= c && j < rows; j++)
            w[j * bins + i] = (float)((double)(j - l) / (double)(c - l));
        if (l == c && c < rows)
            w[c * bins + i] = 1;
        for (int64_t j = c; c < h && j < h && j < rows; j++)
            w[j * bins + i] = (float)((double)(h - j) / (double)(h - c));
    }
    return fg_yield(
        n, fg_emit_cast(n->b, fg_emit_const(n->b, FG_f32, 2, (int64_t[]){rows, bins}, w),
                        to));
}
