/* resize.c - loops of resampling.
 *
 *     const double x2 = ((double)i2 + 0.5) / s2 - 0.5;       where it comes from
 *     for (int64_t r2 = 0; r2 < 2; r2++) {
 *         const double p2 = ceil(x2) - 1 + (double)r2;       a neighbour
 *         const double g2 = tent(p2 - x2);                   and its weight
 *         const int64_t f2 = inside(p2, height);
 *         ..
 *         sum += g2 * g3 * a0[.. + f2 * width + f3];
 *
 * Filters are separable: the weight of a neighbour is the product of its weights by axis. The rules are
 * those of eval_resize.c.
 */
#include "codegen/c/c.h"
#include "ir/text.h"

typedef struct resize {
    cc *c;
    const fg_inst *i;
    const fg_type *in, *out;
    const char *coord, *mode;
    bool crop, cubic, antialias, exclude;
    bool same[FG_MAXRANK]; /* the axis stays as it is */
} resize;

/* Number k of a comma separated list, or other when there is none. */
static double
listed(const char *s, int k, double other)
{
    double v;

    for (; k > 0; k--) {
        s = strchr(s, ',');
        if (!s)
            return other;
        s++;
    }
    return fg_parse_double(&s, true, &v) ? v : other;
}

static const char *
number(cc *c, double v)
{
    fg_text s = fg_text_new(c->a);

    fg_put_double(&s, v, false);
    return v < 0 ? fg_format(c->a, "(%s)", s.s) : s.s;
}

static double
given_scale(const resize *r, int axis)
{
    return listed(FG_GET(r->i, resize, scales).s, axis, 0);
}

static double
crop_at(const resize *r, int k, double other)
{
    return r->crop ? listed(FG_GET(r->i, resize, roi).s, k, other) : other;
}

/* Axes without a scale of their own that keep their size are not resampled. */
static bool
is_same(const resize *r, int axis)
{
    double scale = given_scale(r, axis);

    return r->in->dim[axis] == r->out->dim[axis] && (scale == 0 || scale == 1) &&
           crop_at(r, axis, 0) == 0 && crop_at(r, r->in->rank + axis, 1) == 1;
}

/* Names s, the factor, and x, the position in the operand of place `at`. */
static void
put_position(const resize *r, int k, const char *at)
{
    cc *c = r->c;
    const char *n = cc_expr(c, r->in->dim[k]), *m = cc_expr(c, r->out->dim[k]);
    double scale = given_scale(r, k);
    const char *half = fg_format(c->a, "((double)%s + 0.5) / s%d - 0.5", at, k);

    cc_line(c, "const double s%d = %s;", k,
            scale != 0 ? number(c, scale)
                       : fg_format(c->a, "(double)(%s) / (double)(%s)", m, n));
    cc_line(c, "const double last%d = (double)(%s) - 1, wide%d = s%d * (double)(%s);", k,
            n, k, k, n);
    cc_line(c, "(void)last%d, (void)wide%d;", k, k);
    if (!strcmp(r->coord, "asymmetric"))
        half = fg_format(c->a, "(double)%s / s%d", at, k);
    else if (!strcmp(r->coord, "align_corners"))
        half = fg_format(c->a, "wide%d == 1 ? 0 : (double)%s * last%d / (wide%d - 1)", k,
                         at, k, k);
    else if (r->crop) {
        double from = crop_at(r, k, 0), to = crop_at(r, r->in->rank + k, 1);
        const char *part = number(c, (double)(float)(to - from));
        half =
            fg_format(c->a,
                      "(double)(float)(%s * last%d) + (wide%d == 1 ? %s * last%d / 2 : "
                      "(double)%s * %s * last%d / (wide%d - 1))",
                      number(c, from), k, k, part, k, at, part, k, k);
    } else if (!strcmp(r->coord, "pytorch_half_pixel"))
        half = fg_format(c->a, "wide%d == 1 ? -0.5 : %s", k, half);
    else if (!strcmp(r->coord, "half_pixel_symmetric"))
        half = fg_format(c->a, "%s + (double)(%s) / 2 * (1 - (double)(%s) / wide%d)",
                         half, n, m, k);
    cc_line(c, "const double x%d = %s;", k, half);
}

/* What stands where the cropped region leaves the operand. */
static const char *
extrapolated(const resize *r)
{
    cc *c = r->c;

    return cc_from_double(c, r->out->dtype,
                          number(c, FG_GET(r->i, resize, extrapolate).f));
}

static const char *
outside(const resize *r)
{
    fg_text s = fg_text_new(r->c->a);

    for (int k = 0; k < r->in->rank && r->crop; k++)
        if (!r->same[k])
            fg_putf(&s, "%s!(x%d >= 0 && x%d <= last%d)", s.n ? " || " : "", k, k, k);
    return s.n ? s.s : NULL;
}

static const char *
nearest_to(const resize *r, int k)
{
    const char *how = FG_GET(r->i, resize, nearest).s;

    return fg_format(r->c->a,
                     !strcmp(how, "floor")              ? "floor(x%d)"
                     : !strcmp(how, "ceil")             ? "ceil(x%d)"
                     : strcmp(how, "round_prefer_ceil") ? "ceil(x%d - 0.5)"
                                                        : "floor(x%d + 0.5)",
                     k);
}

/* The weight of the neighbour at p, a text. */
static const char *
weight_at(const resize *r, int k, const char *p)
{
    cc *c = r->c;
    const char *d = fg_format(
        c->a, r->antialias ? "fmin(s%d, 1) * (%s - x%d)" : "%2$s - x%1$d", k, p, k);
    const char *w = r->cubic ? fg_format(c->a, "cubic(%s, %s)", d,
                                         number(c, FG_GET(r->i, resize, cubic_a).f))
                             : fg_format(c->a, "tent(%s)", d);

    return r->exclude ? fg_format(c->a, "%s < 0 || %s > last%d ? 0 : %s", p, p, k, w) : w;
}

/* Opens the loop over the neighbours along axis k: their weight is g, their place f. */
static const char *
open_neighbours(const resize *r, int k)
{
    cc *c = r->c;
    const char *ahead = r->cubic ? "2" : "1";
    const char *n = fg_format(
        c->a, r->antialias ? "2 * (int64_t)ceil(%s / fmin(s%d, 1))" : "2 * %s", ahead, k);
    const char *first = fg_format(
        c->a, r->antialias ? "ceil(x%d) - ceil(%s / fmin(s%d, 1))" : "ceil(x%d) - %s", k,
        ahead, k);

    cc_line(c, "const double b%d = %s;", k, first);
    if (r->antialias || r->exclude) {
        cc_line(c, "double t%d = 0;", k);
        cc_open(c, "for (int64_t r%d = 0; r%d < %s; r%d++)", k, k, n, k);
        cc_line(c, "const double p%d = b%d + (double)r%d;", k, k, k);
        cc_line(c, "t%d += %s;", k, weight_at(r, k, fg_format(c->a, "p%d", k)));
        cc_close(c);
        cc_line(c, "t%d = t%d != 0 ? t%d : 1;", k, k, k);
    }
    cc_open(c, "for (int64_t r%d = 0; r%d < %s; r%d++)", k, k, n, k);
    cc_line(c, "const double p%d = b%d + (double)r%d;", k, k, k);
    const char *w = weight_at(r, k, fg_format(c->a, "p%d", k));
    if (r->antialias || r->exclude)
        w = fg_format(c->a, "(%s) / t%d", w, k);
    cc_line(c, "const double g%d = %s;", k, w);
    cc_line(c, "if (g%d == 0)", k);
    cc_line(c, "    continue;");
    cc_line(c, "const int64_t f%d = inside(p%d, %s);", k, k, cc_expr(c, r->in->dim[k]));
    return fg_format(c->a, "f%d", k);
}

static const char *
nearest(const resize *r, const char *const *at)
{
    cc *c = r->c;
    cc_index from;

    for (int k = 0; k < r->in->rank; k++) {
        from[k] = r->same[k] ? at[k] : fg_format(c->a, "f%d", k);
        if (!r->same[k])
            cc_line(c, "const int64_t f%d = inside(%s, %s);", k, nearest_to(r, k),
                    cc_expr(c, r->in->dim[k]));
    }
    return cc_value(c, r->i->in[0], from);
}

static const char *
filtered(const resize *r, const char *const *at)
{
    cc *c = r->c;
    int depth = c->depth;
    const char *weight = "1";
    cc_index from;

    cc_line(c, "double sum = 0;");
    for (int k = 0; k < r->in->rank; k++) {
        from[k] = r->same[k] ? at[k] : open_neighbours(r, k);
        if (!r->same[k])
            weight = cc_times(c, weight, fg_format(c->a, "g%d", k));
    }
    const char *v = cc_value(c, r->i->in[0], from);
    cc_line(c, "sum += %s * (double)%s;", weight, v);
    cc_close_all(c, c->depth - depth);
    return cc_from_double(c, r->out->dtype, "sum");
}

bool
cc_resize(cc *c, const fg_inst *i, const char *target)
{
    resize r = {.c = c,
                .i = i,
                .in = fg_rt(c->m, i->in[0]),
                .out = fg_rt(c->m, i->out[0]),
                .coord = FG_GET(i, resize, coord).s,
                .mode = FG_GET(i, resize, mode).s,
                .antialias = FG_GET(i, resize, antialias).i,
                .exclude = FG_GET(i, resize, exclude).i};
    cc_index at;

    r.crop = !strcmp(r.coord, "tf_crop_and_resize");
    r.cubic = !strcmp(r.mode, "cubic");
    int open = cc_for_all(c, r.out, 0, at);
    if (!open)
        cc_open(c, "%s", "");
    for (int k = 0; k < r.in->rank; k++) {
        r.same[k] = is_same(&r, k);
        if (!r.same[k])
            put_position(&r, k, at[k]);
    }
    const char *gone = outside(&r);
    if (gone) {
        cc_open(c, "if (%s)", gone);
        cc_store(c, target, r.out, at, extrapolated(&r));
        cc_line(c, "continue;");
        cc_close(c);
    }
    const char *v = strcmp(r.mode, "nearest") ? filtered(&r, at) : nearest(&r, at);
    cc_store(c, target, r.out, at, v);
    cc_close_all(c, open ? open : 1);
    return true;
}
