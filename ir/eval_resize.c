/* eval_resize.c - resampling: every mode, coordinate rule and filter of ONNX Resize.
 *
 *     %y = resize %x {mode=cubic, coord=half_pixel, antialias=1} : f32[1,3,H,W]
 *
 * The filters are separable, so one axis is resampled after the other. Each result place
 * has a position x in the operand and reads a run of neighbours around it: `ahead` on
 * each side, counted from the one left of x. Neighbours outside repeat the edge.
 */
#include "ir/eval_impl.h"
#include "ir/text.h"

#include <math.h>

typedef struct axis_plan {
    int64_t in, out;
    double scale;    /* out / in, or as the model gives it */
    double from, to; /* region of tf_crop_and_resize, as fractions */
    bool crop, identity;
} axis_plan;

/* Number k of a comma separated list, or other when there is none. */
static double
listed(const char *s, int k, double other, bool single)
{
    double v;

    for (; k > 0; k--) {
        s = strchr(s, ',');
        if (!s)
            return other;
        s++;
    }
    return fg_parse_double(&s, single, &v) ? v : other;
}

static bool
plan_axis(fg_evalcall *c, int axis, axis_plan *p)
{
    const char *roi = FG_GET(c->i, resize, roi).s;
    int rank = c->in[0].rank;

    p->in = c->in[0].dim[axis];
    p->out = c->out[0].dim[axis];
    /* The model's factors are f32; their text reads back to the same value only as f32. */
    p->scale = listed(FG_GET(c->i, resize, scales).s, axis,
                      (double)p->out / (double)p->in, true);
    p->crop = !strcmp(FG_GET(c->i, resize, coord).s, "tf_crop_and_resize");
    p->from = p->crop ? listed(roi, axis, 0, true) : 0;
    p->to = p->crop ? listed(roi, rank + axis, 1, true) : 1;
    p->identity =
        p->in == p->out && fabs(p->scale - 1) < 1e-9 && p->from == 0 && p->to == 1;
    if (p->out > 0 && p->in == 0)
        return fg_eval_error(c, "axis %d has no elements", axis);
    if (p->out > 0 && !(p->scale > 0 && p->scale < 1e9))
        return fg_eval_error(c, "axis %d: scale %g", axis, p->scale);
    return true;
}

/* Position in the operand of result place i. `width` is the result's exact size, which
 * need not be the integer that was made of it. */
static double
position(const axis_plan *p, const char *coord, int64_t i)
{
    double width = p->scale * (double)p->in, y = (double)i, last = (double)(p->in - 1);

    if (!strcmp(coord, "asymmetric"))
        return y / p->scale;
    if (!strcmp(coord, "align_corners"))
        return width == 1 ? 0 : y * last / (width - 1);
    if (p->crop) { /* fractions are f32 and stay so: 0.2 * 5 is 1 */
        double start = (float)(p->from * last), part = (float)(p->to - p->from);

        return start + (width == 1 ? part * last / 2 : y * part * last / (width - 1));
    }
    if (!strcmp(coord, "pytorch_half_pixel") && width == 1)
        return -0.5;
    y = (y + 0.5) / p->scale - 0.5;
    if (!strcmp(coord, "half_pixel_symmetric"))
        y += (double)p->in / 2 * (1 - (double)p->out / width);
    return y;
}

static int64_t
clamp_place(double x, int64_t n)
{
    return x > 0 ? x < (double)n ? (int64_t)x : n - 1 : 0;
}

/* ---- nearest ----------------------------------------------------------------------- */

static double
nearest_to(double x, const char *how)
{
    if (!strcmp(how, "floor"))
        return floor(x);
    if (!strcmp(how, "ceil"))
        return ceil(x);
    return strcmp(how, "round_prefer_ceil") ? ceil(x - 0.5) : floor(x + 0.5);
}

static void
extrapolate(fg_evalcall *c, int64_t k)
{
    fg_tensor_set_f64(&c->out[0], k, FG_GET(c->i, resize, extrapolate).f);
}

/* Elements move unchanged: from[axis][i] is where result place i comes from, -1: nowhere. */
static bool
resize_nearest(fg_evalcall *c, const axis_plan *plan)
{
    fg_tensor *o = &c->out[0];
    fg_walk w = fg_walk_new(o->rank, o->dim);
    int64_t *from[FG_MAXRANK], stride[FG_MAXRANK];

    fg_tensor_strides(&c->in[0], stride);
    for (int a = 0; a < o->rank; a++) {
        from[a] = FG_NEWN(c->scratch, int64_t, (size_t)plan[a].out);
        for (int64_t i = 0; i < plan[a].out; i++) {
            double x = position(&plan[a], FG_GET(c->i, resize, coord).s, i);

            if (plan[a].identity)
                from[a][i] = i;
            else if (plan[a].crop && !(x >= 0 && x <= (double)(plan[a].in - 1)))
                from[a][i] = -1;
            else
                from[a][i] = clamp_place(nearest_to(x, FG_GET(c->i, resize, nearest).s),
                                         plan[a].in);
        }
    }
    for (int64_t k = 0; k < o->count; k++, fg_walk_next(&w)) {
        int64_t at = 0;

        for (int a = 0; a < o->rank && at >= 0; a++) {
            int64_t i = from[a][w.at[a]];

            at = i < 0 ? -1 : at + i * stride[a];
        }
        if (at < 0)
            extrapolate(c, k);
        else
            fg_tensor_move(o, k, &c->in[0], at);
    }
    return true;
}

/* ---- linear and cubic -------------------------------------------------------------- */

typedef struct filter {
    bool cubic, antialias, exclude;
    double a; /* cubic coefficient */
} filter;

static double
filter_at(const filter *f, double x)
{
    double t = fabs(x), a = f->a;

    if (!f->cubic)
        return t < 1 ? 1 - t : 0;
    if (t <= 1)
        return ((a + 2) * t - (a + 3)) * t * t + 1;
    return t < 2 ? ((a * t - 5 * a) * t + 8 * a) * t - 4 * a : 0;
}

/* Weights of the 2 * ahead neighbours of x, the first at *first. When shrinking, an
 * antialiasing filter is as many times wider. */
static void
weigh(const filter *f, const axis_plan *p, int64_t ahead, double x, int64_t *first,
      double *w)
{
    double shrink = f->antialias && p->scale < 1 ? p->scale : 1;
    double left = ceil(x) - 1, sum = 0;

    *first = (int64_t)left + 1 - ahead;
    for (int64_t k = 0; k < 2 * ahead; k++) {
        w[k] = filter_at(f, shrink * ((double)(*first + k) - x));
        if (f->exclude && (*first + k < 0 || *first + k >= p->in))
            w[k] = 0;
        sum += w[k];
    }
    if ((f->antialias || f->exclude) && sum != 0)
        for (int64_t k = 0; k < 2 * ahead; k++)
            w[k] /= sum;
}

/* v[outer, in, inner] resampled along its middle axis. */
static double *
resample(fg_evalcall *c, const filter *f, const axis_plan *p, const double *v,
         int64_t outer, int64_t inner)
{
    const char *coord = FG_GET(c->i, resize, coord).s;
    double shrink = f->antialias && p->scale < 1 ? p->scale : 1;
    int64_t ahead = (int64_t)ceil((f->cubic ? 2 : 1) / shrink), first;
    double *w = FG_NEWN(c->scratch, double, (size_t)(2 * ahead));
    double *o = FG_NEWN(c->scratch, double, (size_t)(outer * p->out * inner));

    for (int64_t i = 0; i < p->out; i++) {
        double x = position(p, coord, i);

        if (!(fabs(x) < 1e15))
            x = 0;
        weigh(f, p, ahead, x, &first, w);
        for (int64_t k = 0; k < 2 * ahead; k++) {
            int64_t from = clamp_place((double)(first + k), p->in);

            for (int64_t a = 0; w[k] != 0 && a < outer; a++)
                for (int64_t b = 0; b < inner; b++)
                    o[(a * p->out + i) * inner + b] +=
                        w[k] * v[(a * p->in + from) * inner + b];
        }
    }
    return o;
}

static bool
resize_filtered(fg_evalcall *c, const axis_plan *plan, const filter *f)
{
    const fg_tensor *x = &c->in[0];
    fg_tensor *o = &c->out[0];
    fg_walk w = fg_walk_new(o->rank, o->dim);
    double *v = FG_NEWN(c->scratch, double, (size_t)x->count);

    for (int64_t k = 0; k < x->count; k++)
        v[k] = fg_tensor_f64(x, k);
    for (int a = 0; a < x->rank; a++) {
        int64_t outer = fg_span(o, 0, a), inner = fg_span(x, a + 1, x->rank);

        if (plan[a].identity)
            continue;
        if (f->antialias && plan[a].scale < 1e-6)
            return fg_eval_error(c, "axis %d: scale %g", a, plan[a].scale);
        v = resample(c, f, &plan[a], v, outer, inner);
    }
    for (int64_t k = 0; k < o->count; k++, fg_walk_next(&w)) {
        fg_tensor_set_f64(o, k, v[k]);
        for (int a = 0; a < o->rank; a++) {
            double at = position(&plan[a], FG_GET(c->i, resize, coord).s, w.at[a]);

            if (plan[a].crop && !plan[a].identity &&
                !(at >= 0 && at <= (double)(plan[a].in - 1)))
                extrapolate(c, k);
        }
    }
    return true;
}

bool
fg_eval_resize(fg_evalcall *c)
{
    const char *mode = FG_GET(c->i, resize, mode).s;
    filter f = {.cubic = !strcmp(mode, "cubic"),
                .antialias = FG_GET(c->i, resize, antialias).i,
                .exclude = FG_GET(c->i, resize, exclude).i,
                .a = FG_GET(c->i, resize, cubic_a).f};
    axis_plan plan[FG_MAXRANK];

    for (int a = 0; a < c->in[0].rank; a++)
        if (!plan_axis(c, a, &plan[a]))
            return false;
    if (c->out[0].count == 0)
        return true;
    return strcmp(mode, "nearest") ? resize_filtered(c, plan, &f)
                                   : resize_nearest(c, plan);
}
