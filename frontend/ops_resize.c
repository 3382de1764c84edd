/* ops_resize.c - Resize and Upsample.
 *
 *     Resize x, sizes=[1,3,H,W] {mode="cubic"}  ->  resize x {mode=cubic} : f32[1,3,H,W]
 *
 * Factors (and the region of tf_crop_and_resize) that are constants, and factors that
 * follow from the sizes, are attributes of the operation. Computed ones, and the one
 * rule for positions that the operation lacks, take it apart: result place i of an
 * axis lies at x_i in the operand, a vector in f64, and the axis is read at the
 * nearest place, or multiplied by the matrix of weights
 *
 *     w[i,j] = filter((j - x_i) s) / sum over j,  s = antialias ? min(scale, 1) : 1
 *
 * where the operand is extended by its edges as far as the filter reaches. The axes are
 * independent, so they go one after the other.
 */
#include "frontend/ops.h"

#include <math.h>

typedef struct resize {
    int rank, naxes, axis[FG_MAXRANK];
    fg_expr out[FG_MAXRANK]; /* per axis of x */
    bool fixed;              /* the operation can express it */
    bool ratio;              /* factors are out / in */
    double scale[FG_MAXRANK], roi[2 * FG_MAXRANK];
    fg_reg scales, region; /* f64 per axis of x, when not fixed */
    const char *mode, *coord, *nearest;
    double cubic_a, extrapolate;
    bool crop, exclude, antialias;
    bool simple; /* opset 10: floor when growing, ceil when shrinking */
} resize;

/* ---- operands -------------------------------------------------------------------- */

static bool
one_of(fg_node *n, const char *what, const char *s, const char *const *words)
{
    while (*words && strcmp(*words, s))
        words++;
    return *words || fg_node_unsupported(n, "%s \"%s\"", what, s);
}

static bool
read_attributes(fg_node *n, resize *r)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", NULL};
    static const char *const coords[] = {
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",   "align_corners",
        "asymmetric", "tf_crop_and_resize",   "tf_half_pixel_for_nn", NULL};
    static const char *const roundings[] = {"round_prefer_floor", "round_prefer_ceil",
                                            "floor", "ceil", NULL};
    bool old = n->opset < 11 || !strcmp(n->op, "Upsample");
    const int64_t *axes;
    int count = fg_attr_ints(n, "axes", &axes), a;
    unsigned seen = 0;

    r->mode = fg_attr_str(n, "mode", "nearest");
    if (!strcmp(r->mode, "bilinear"))
        r->mode = "linear";
    r->coord = fg_attr_str(n, "coordinate_transformation_mode",
                           old ? "asymmetric" : "half_pixel");
    r->nearest = fg_attr_str(n, "nearest_mode", old ? "floor" : "round_prefer_floor");
    r->simple = n->opset == 10 && !strcmp(n->op, "Resize");
    r->cubic_a = fg_attr_float(n, "cubic_coeff_a", -0.75);
    r->extrapolate = fg_attr_float(n, "extrapolation_value", 0);
    r->exclude = fg_attr_int(n, "exclude_outside", 0) != 0;
    r->antialias = fg_attr_int(n, "antialias", 0) != 0;
    r->crop = !strcmp(r->coord, "tf_crop_and_resize");
    r->naxes = count < 0 ? r->rank : count;
    for (int i = 0; i < r->naxes; i++) {
        if (!fg_axis(n, count < 0 ? i : axes[i], r->rank, &a))
            return false;
        if (seen >> a & 1)
            return fg_node_error(n, "axis %d is given twice", a);
        seen |= 1u << a;
        r->axis[i] = a;
    }
    return one_of(n, "mode", r->mode, modes) &&
           one_of(n, "coordinate_transformation_mode", r->coord, coords) &&
           one_of(n, "nearest_mode", r->nearest, roundings);
}

/* Operand k, unless it is an empty vector, which stands for an absent one. */
static fg_reg
not_empty(fg_node *n, int k)
{
    fg_reg r = fg_in(n, k);

    return r && !(fg_rank(n, r) == 1 && fg_e_is(n->ex, fg_dim(n, r, 0), 0)) ? r : 0;
}

/* A vector with an entry per chosen axis, as f64 with one per axis of x, `other`
 * elsewhere. */
static fg_reg
per_axis(fg_node *n, const resize *r, fg_reg v, int from, double other)
{
    fg_reg part[FG_MAXRANK];

    for (int a = 0; a < r->rank; a++)
        part[a] = fg_emit_const(n->b, FG_f64, 1, (int64_t[]){1}, &other);
    for (int i = 0; i < r->naxes; i++)
        part[r->axis[i]] = fg_emit_cast(n->b, fg_part(n, v, 0, from + i, 1), FG_f64);
    return r->rank == 1 ? part[0] : fg_emit_concat(n->b, r->rank, part, 0);
}

static bool
constants(fg_node *n, fg_reg v, int count, double *out)
{
    for (int i = 0; i < count; i++)
        if (!fg_const_f64(n->m, v, i, &out[i]))
            return false;
    return true;
}

static bool
of_length(fg_node *n, fg_reg v, int count, const char *what)
{
    return (fg_rank(n, v) == 1 && fg_e_is(n->ex, fg_dim(n, v, 0), count)) ||
           fg_node_error(n, "%s %s for %d axes", what, fg_type_text(n->m, fg_rt(n->m, v)),
                         count);
}

/* floor(d scale) when the factor is a constant; a multiple of 1/1024 also for symbols. */
static bool
scaled_size(fg_node *n, fg_expr d, double scale, fg_expr *out)
{
    int64_t v;
    double part = scale * 1024;

    if (fg_e_const(n->ex, d, &v)) {
        double size = floor((double)v * scale);
        *out = fg_c(n, size >= 0 && size < (double)INT32_MAX ? (int64_t)size : -1);
        return fg_e_lo(n->ex, *out) >= 0 ||
               fg_node_error(n, "factor %g makes no size", scale);
    }
    if (part != floor(part) || !(part > 0 && part < 1e9))
        return fg_node_unsupported(n, "factor %g for an axis of unknown size", scale);
    *out = fg_ediv(n->ex, fg_emul(n->ex, d, fg_c(n, (int64_t)part)), fg_c(n, 1024));
    return true;
}

/* Sizes computed as f64, one per axis of x, become run-time symbols. */
static bool
read_rounded(fg_node *n, resize *r, fg_reg rounded)
{
    rounded = fg_emit_cast(n->b, rounded, FG_i64);
    for (int i = 0; rounded && i < r->naxes; i++)
        r->out[r->axis[i]] = fg_emit_readsym(n->b, rounded, r->axis[i], 0, INT32_MAX);
    return rounded != 0;
}

static fg_reg
dims_f64(fg_node *n, fg_reg x)
{
    const fg_type t = *fg_rt(n->m, x);

    return fg_emit_cast(n->b, fg_emit_symvec(n->b, t.rank, t.dim, FG_i64, false), FG_f64);
}

static bool
read_scales(fg_node *n, resize *r, fg_reg x, fg_reg scales)
{
    double v[FG_MAXRANK];

    if (!of_length(n, scales, r->naxes, "factors"))
        return false;
    if (constants(n, scales, r->naxes, v)) {
        for (int i = 0; i < r->naxes; i++) {
            int a = r->axis[i];
            if (!(v[i] > 0 && v[i] < 1e9))
                return fg_node_error(n, "factor %g", v[i]);
            r->scale[a] = v[i];
            if (!scaled_size(n, fg_dim(n, x, a), v[i], &r->out[a]))
                return false;
        }
        return true;
    }
    r->fixed = false;
    r->scales = per_axis(n, r, scales, 0, 1);
    return read_rounded(n, r, E1(floor, E2(mul, r->scales, dims_f64(n, x))));
}

/* One factor for all axes: the smallest (or largest) that the sizes ask for. */
static bool
keep_aspect(fg_node *n, resize *r, fg_reg x, bool larger)
{
    int64_t first = 0, size, d;
    double best = larger ? 0 : INFINITY;
    bool known = true;

    for (int i = 0; i < r->naxes; i++) {
        int a = r->axis[i];
        known = known && fg_e_const(n->ex, r->out[a], &size) &&
                fg_e_const(n->ex, fg_dim(n, x, a), &d);
        if (known && d > 0)
            best = larger ? fmax(best, (double)size / (double)d)
                          : fmin(best, (double)size / (double)d);
    }
    r->ratio = false;
    if (known) {
        if (!(best > 0 && best < 1e9))
            return fg_node_error(n, "factor %g", best);
        for (int i = 0; i < r->naxes; i++) {
            fg_e_const(n->ex, fg_dim(n, x, r->axis[i]), &d);
            r->scale[r->axis[i]] = best;
            r->out[r->axis[i]] = fg_c(n, (int64_t)(best * (double)d + 0.5));
        }
        return true;
    }
    fg_reg want[FG_MAXRANK], have[FG_MAXRANK];
    for (int i = 0; i < r->naxes; i++) {
        want[i] = fg_insert1(n, fg_sym_scalar(n, r->out[r->axis[i]], FG_f64), 0, 1);
        have[i] = fg_insert1(n, fg_sym_scalar(n, fg_dim(n, x, r->axis[i]), FG_f64), 0, 1);
        want[i] = E2(div, want[i], have[i]);
        if (!want[i])
            return false;
    }
    fg_reg all = r->naxes == 1 ? want[0] : fg_emit_concat(n->b, r->naxes, want, 0);
    all = fg_emit_reduce(n->b, larger ? FG_OP_reduce_max : FG_OP_reduce_min, all, 1,
                         &first, true);
    all = all ? fg_emit_expand(n->b, all, 1, (fg_expr[]){fg_c(n, r->naxes)}) : 0;
    if (!all)
        return false;
    r->fixed = false;
    r->scales = per_axis(n, r, all, 0, 1);
    fg_reg half = fg_emit_f(n->b, FG_f64, 0.5);
    return read_rounded(n, r,
                        E1(floor, E2(add, E2(mul, r->scales, dims_f64(n, x)), half)));
}

static bool
read_sizes(fg_node *n, resize *r, fg_reg x, int k)
{
    const char *policy = fg_attr_str(n, "keep_aspect_ratio_policy", "stretch");
    bool larger = !strcmp(policy, "not_smaller");
    const fg_expr *e;
    int count;

    if (!fg_in_clamped(n, k, 0, INT32_MAX, &e, &count))
        return false;
    if (count != r->naxes)
        return fg_node_error(n, "%d sizes for %d axes", count, r->naxes);
    for (int i = 0; i < count; i++) {
        r->out[r->axis[i]] = e[i];
        if (fg_e_hi(n->ex, e[i]) < 0)
            return fg_node_error(n, "a size is negative");
    }
    r->ratio = true;
    if (!strcmp(policy, "stretch"))
        return true;
    if (!larger && strcmp(policy, "not_larger"))
        return fg_node_error(n, "keep_aspect_ratio_policy \"%s\"", policy);
    return keep_aspect(n, r, x, larger);
}

static bool
read_region(fg_node *n, resize *r)
{
    fg_reg roi = not_empty(n, 1);
    double v[2 * FG_MAXRANK];

    if (!r->crop)
        return true;
    if (!roi || !of_length(n, roi, 2 * r->naxes, "region"))
        return roi || fg_node_error(n, "tf_crop_and_resize needs a region");
    if (constants(n, roi, 2 * r->naxes, v)) {
        for (int i = 0; i < r->naxes; i++) {
            r->roi[r->axis[i]] = v[i];
            r->roi[r->rank + r->axis[i]] = v[r->naxes + i];
        }
        if (r->fixed)
            return true;
    }
    r->fixed = false;
    fg_reg both[2] = {per_axis(n, r, roi, 0, 0), per_axis(n, r, roi, r->naxes, 1)};
    r->region = both[0] && both[1] ? fg_emit_concat(n->b, 2, both, 0) : 0;
    return r->region != 0;
}

/* Upsample 7 and 8 have their factors in an attribute. */
static fg_reg
attribute_scales(fg_node *n)
{
    const float *v;
    int count = fg_attr_floats(n, "scales", &v);

    if (count >= 0)
        return fg_emit_const(n->b, FG_f32, 1, (int64_t[]){count}, v);
    fg_node_error(n, "neither factors nor sizes are given");
    return 0;
}

static bool
read_operands(fg_node *n, resize *r, fg_reg x)
{
    bool old = n->opset < 11 || !strcmp(n->op, "Upsample");
    fg_reg scales = not_empty(n, old ? 1 : 2);

    for (int a = 0; a < r->rank; a++) {
        r->out[a] = fg_dim(n, x, a);
        r->scale[a] = 1;
        r->roi[a] = 0;
        r->roi[r->rank + a] = 1;
    }
    r->fixed = true;
    if (!scales && not_empty(n, 3)) {
        if (!read_sizes(n, r, x, 3))
            return false;
    } else {
        if (!scales && !(scales = attribute_scales(n)))
            return false;
        if (!read_scales(n, r, x, scales))
            return false;
    }
    for (int a = 0; a < r->rank; a++)
        if (!strcmp(r->coord, "tf_half_pixel_for_nn") || (r->simple && r->scale[a] < 1))
            r->fixed = false;
    return read_region(n, r);
}

/* ---- as one operation ------------------------------------------------------------ */

static const char *
number_list(fg_node *n, int count, const double *v)
{
    fg_text t = fg_text_new(n->m->a);

    for (int i = 0; i < count; i++) {
        fg_puts(&t, i ? "," : "");
        fg_put_double(&t, v[i], true);
    }
    return t.s;
}

static fg_reg
emit(fg_node *n, const resize *r, fg_reg x)
{
    fg_type type = fg_type_make(fg_elem(n, x), r->rank, r->out);
    fg_inst *i = fg_inst_begin(n->b, FG_OP_resize, 1, &x);

    fg_set_word(n->m, &FG_SET(i, resize, mode), r->mode);
    fg_set_word(n->m, &FG_SET(i, resize, coord), r->coord);
    fg_set_word(n->m, &FG_SET(i, resize, nearest), r->nearest);
    fg_set_word(n->m, &FG_SET(i, resize, scales),
                r->ratio ? "" : number_list(n, r->rank, r->scale));
    fg_set_word(n->m, &FG_SET(i, resize, roi),
                r->crop ? number_list(n, 2 * r->rank, r->roi) : "");
    FG_SET(i, resize, cubic_a).f = r->cubic_a;
    FG_SET(i, resize, exclude).i = r->exclude;
    FG_SET(i, resize, extrapolate).f = r->extrapolate;
    FG_SET(i, resize, antialias).i = r->antialias;
    return fg_inst_finish(n->b, i, &type, 1) ? i->out[0] : 0;
}

/* ---- from primitives ------------------------------------------------------------- */

static fg_reg
f64(fg_node *n, double v)
{
    return fg_emit_f(n->b, FG_f64, v);
}

static fg_reg
element(fg_node *n, fg_reg v, int i)
{
    fg_reg e = fg_part(n, v, 0, i, 1);

    return e ? fg_emit_reshape(n->b, e, 0, NULL) : 0;
}

/* scale of one axis as a f64 scalar; in and out are its sizes. */
static fg_reg
axis_scale(fg_node *n, const resize *r, int a, fg_reg in)
{
    if (r->scales)
        return element(n, r->scales, a);
    return r->ratio ? E2(div, fg_sym_scalar(n, r->out[a], FG_f64), in)
                    : f64(n, r->scale[a]);
}

/* Positions x_i of all result places of an axis, f64[out]. */
static fg_reg
positions(fg_node *n, const resize *r, int a, fg_reg in, fg_reg scale)
{
    fg_reg i =
        fg_emit_cast(n->b, fg_emit_iota(n->b, r->out[a], fg_c(n, 0), 1, FG_i64), FG_f64);
    fg_reg one = f64(n, 1), half = f64(n, 0.5), width = E2(mul, scale, in),
           end = E2(sub, in, one);
    fg_reg single = E2(eq, width, one), span = E2(sub, width, one), from, to, x;

    if (!strcmp(r->coord, "asymmetric"))
        return E2(div, i, scale);
    if (!strcmp(r->coord, "tf_half_pixel_for_nn"))
        return E2(div, E2(add, i, half), scale);
    if (!strcmp(r->coord, "align_corners"))
        return E3(where, single, f64(n, 0), E2(div, E2(mul, i, end), span));
    if (r->crop) {
        from = element(n, r->region, a);
        to = element(n, r->region, r->rank + a);
        x = E2(mul, E2(sub, to, from), end);
        x = E3(where, single, E2(div, x, f64(n, 2)), E2(div, E2(mul, i, x), span));
        return E2(add, x, E2(mul, from, end));
    }
    x = E2(sub, E2(div, E2(add, i, half), scale), half);
    if (!strcmp(r->coord, "pytorch_half_pixel"))
        return E3(where, single, f64(n, -0.5), x);
    if (!strcmp(r->coord, "half_pixel_symmetric")) {
        fg_reg adjust = E2(div, fg_sym_scalar(n, r->out[a], FG_f64), width);
        fg_reg centre = E2(div, in, f64(n, 2));
        x = E2(add, x, E2(mul, centre, E2(sub, one, adjust)));
    }
    return x;
}

static fg_reg
clamp_index(fg_node *n, fg_reg at, fg_expr size)
{
    fg_reg last = fg_sym_scalar(n, fg_esub(n->ex, size, fg_c(n, 1)), FG_i64);

    return E2(max, E2(min, at, last), fg_emit_f(n->b, FG_i64, 0));
}

static fg_reg
nearest(fg_node *n, const resize *r, int a, fg_reg x, fg_reg at, fg_reg scale)
{
    fg_reg half = f64(n, 0.5);

    if (r->simple)
        at = E3(where, E2(lt, scale, f64(n, 1)), E1(ceil, at), E1(floor, at));
    else if (!strcmp(r->nearest, "floor"))
        at = E1(floor, at);
    else if (!strcmp(r->nearest, "ceil"))
        at = E1(ceil, at);
    else if (!strcmp(r->nearest, "round_prefer_floor"))
        at = E1(ceil, E2(sub, at, half));
    else
        at = E1(floor, E2(add, at, half));
    at = at ? fg_emit_cast(n->b, at, FG_i64) : 0;
    return at ? fg_emit_gather(n->b, x, clamp_index(n, at, fg_dim(n, x, a)), a) : 0;
}

/* Linear: 1 - |d| where positive. Cubic: the two pieces of the kernel. */
static fg_reg
filter(fg_node *n, const resize *r, fg_reg d)
{
    fg_reg one = f64(n, 1), zero = f64(n, 0), near, far;
    double a = r->cubic_a;

    d = E1(abs, d);
    if (!strcmp(r->mode, "linear"))
        return E2(max, E2(sub, one, d), zero);
    near = E2(sub, E2(mul, d, f64(n, a + 2)), f64(n, a + 3));
    near = E2(add, E2(mul, E2(mul, near, d), d), one);
    far = E2(sub, E2(mul, d, f64(n, a)), f64(n, 5 * a));
    far = E2(sub, E2(mul, E2(add, E2(mul, far, d), f64(n, 8 * a)), d), f64(n, 4 * a));
    far = E3(where, E2(lt, d, f64(n, 2)), far, zero);
    return E3(where, E2(le, d, one), near, far);
}

/* x (f64) with axis a multiplied by the matrix of weights. */
static fg_reg
weighted(fg_node *n, const resize *r, int a, fg_reg x, fg_reg at, fg_reg scale)
{
    int64_t perm[FG_MAXRANK], last = 1;
    fg_expr reach = fg_c(n, 3), in = fg_dim(n, x, a), whole;
    fg_reg s = f64(n, 1);

    if (r->antialias) {
        s = E2(min, scale, s);
        fg_reg far = s ? fg_emit_cast(n->b, E1(ceil, E2(div, f64(n, 3), s)), FG_i64) : 0;
        if (!far)
            return 0;
        reach = fg_emit_readsym(n->b, far, 0, 0, INT32_MAX);
    }
    whole = fg_eadd(n->ex, in, fg_emul(n->ex, reach, fg_c(n, 2)));
    fg_reg j = fg_emit_iota(n->b, whole, fg_esub(n->ex, fg_c(n, 0), reach), 1, FG_i64);
    fg_reg wide = fg_emit_gather(n->b, x, clamp_index(n, j, in), a);
    fg_reg column = fg_along(n, j ? fg_emit_cast(n->b, j, FG_f64) : 0, 1, 2);
    fg_reg w = filter(n, r, E2(mul, E2(sub, column, fg_along(n, at, 0, 2)), s));
    if (r->exclude) {
        fg_reg inside = E2(and, E2(ge, column, f64(n, 0)),
                           E2(lt, column, fg_sym_scalar(n, in, FG_f64)));
        w = E3(where, inside, w, f64(n, 0));
    }
    w = E2(div, w, fg_emit_reduce(n->b, FG_OP_reduce_sum, w, 1, &last, true));
    int rank = r->rank;
    for (int k = 0; k < rank; k++)
        perm[k] = k == a ? rank - 1 : k == rank - 1 ? a : k;
    wide = wide && rank > 1 ? fg_emit_transpose(n->b, wide, perm)
                            : fg_insert1(n, wide, 0, 1);
    fg_reg y = fg_emit_matmul(n->b, wide, w, false, true);
    if (!y)
        return 0;
    return rank > 1 ? fg_emit_transpose(n->b, y, perm)
                    : fg_emit_reshape(n->b, y, 1, (fg_expr[]){fg_dim(n, y, 1)});
}

static fg_reg
open_coded(fg_node *n, const resize *r, fg_reg x)
{
    bool pick = !strcmp(r->mode, "nearest");
    fg_reg y = pick && !r->crop ? x : fg_emit_cast(n->b, x, FG_f64);

    for (int i = 0; y && i < r->naxes; i++) {
        int a = r->axis[i];
        fg_reg in = fg_sym_scalar(n, fg_dim(n, x, a), FG_f64);
        fg_reg scale = axis_scale(n, r, a, in), at = positions(n, r, a, in, scale);
        y = pick ? nearest(n, r, a, y, at, scale) : weighted(n, r, a, y, at, scale);
        if (r->crop && y) {
            fg_reg out =
                E2(or, E2(lt, at, f64(n, 0)), E2(gt, at, E2(sub, in, f64(n, 1))));
            y = E3(where, fg_along(n, out, a, r->rank), f64(n, r->extrapolate), y);
        }
    }
    if (y && !fg_is_float(fg_elem(n, x)) && !pick)
        y = E1(round, y);
    return fg_narrow(n, y, x);
}

bool
fg_onnx_resize(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    resize r = {0};

    if (!x)
        return false;
    r.rank = fg_rank(n, x);
    if (r.rank < 1)
        return fg_node_error(n, "a scalar has no axes");
    if (!read_attributes(n, &r) || !read_operands(n, &r, x))
        return false;
    return fg_yield(n, r.fixed ? emit(n, &r, x) : open_coded(n, &r, x));
}
