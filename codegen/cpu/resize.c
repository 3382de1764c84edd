/* resize.c - pull rule of resampling.
 *
 *     y[i, j] = sum over taps a, b of  w0[i, a] w1[j, b] x[p0[i] + a, p1[j] + b]
 *
 * The filters are separable: each resampled axis has a position in the operand per
 * element and a run of taps around it. Positions and weights are computed in f64 where
 * they are needed, one nest over all taps; taps beyond the border repeat the edge.
 */
#include "ir/text.h"
#include "codegen/cpu/pull.h"

#include <math.h>
#include <stdlib.h>

typedef struct sampling {
    fg_em *e;
    fg_inst *i;
    bool cubic, antialias, exclude, crop;
    double a; /* cubic coefficient */
} sampling;

typedef struct axis {
    int axis;
    fg_v in, out;     /* sizes, f64 */
    fg_v scale;       /* f64; out / in */
    fg_v x;           /* position of each lane's element, f64 */
    fg_v first, taps; /* first neighbour (f64), how many (i64) */
    fg_v shrink, sum; /* antialias: < 1; of the weights, NULL: 1 */
} axis;

static fg_v
c64(fg_v like, double v)
{
    return ll_cf(LLVMTypeOf(like), v);
}

/* Number k of a comma separated list of f32. */
static bool
listed(const char *s, int k, double *v)
{
    for (; k > 0 && s; k--)
        s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL;
    if (!s || !*s)
        return false;
    return fg_parse_double(&s, true, v);
}

static double
region(const sampling *s, int k, double other)
{
    double v = other;
    if (s->crop)
        listed(FG_GET(s->i, resize, roi).s, k, &v);
    return v;
}

static bool
is_identity(const sampling *s, int a)
{
    fg_module *m = s->e->m;
    const fg_type *tx = fg_rt(m, s->i->in[0]), *ty = fg_rt(m, s->i->out[0]);
    double scale = 1;
    listed(FG_GET(s->i, resize, scales).s, a, &scale);
    return tx->dim[a] == ty->dim[a] && fabs(scale - 1) < 1e-9 && region(s, a, 0) == 0 &&
           region(s, tx->rank + a, 1) == 1;
}

/* Position in the operand of element y; `width` is the result's exact size. */
static fg_v
place(sampling *s, const axis *p, fg_v y)
{
    fg_ll *g = s->e->g;
    const char *coord = FG_GET(s->i, resize, coord).s;
    int lanes = ll_lanes(y), rank = fg_rt(s->e->m, s->i->in[0])->rank;
    fg_v scale = ll_splat(g, p->scale, lanes), in = ll_splat(g, p->in, lanes);
    fg_v width = ll_mul(g, scale, in), last = ll_sub(g, in, c64(in, 1));
    fg_v single = ll_cmp(g, LL_EQ, width, c64(width, 1));
    fg_v spread = ll_sub(g, width, c64(width, 1));
    if (!strcmp(coord, "asymmetric"))
        return ll_div(g, y, scale);
    if (!strcmp(coord, "align_corners"))
        return ll_sel(g, single, c64(y, 0), ll_div(g, ll_mul(g, y, last), spread));
    if (s->crop) {
        double from = region(s, p->axis, 0), to = region(s, rank + p->axis, 1);
        fg_v span = ll_mul(g, last, c64(last, to - from));
        fg_v x = ll_sel(g, single, ll_mul(g, span, c64(span, 0.5)),
                        ll_div(g, ll_mul(g, y, span), spread));
        return ll_add(g, ll_mul(g, last, c64(last, from)), x);
    }
    fg_v x = ll_sub(g, ll_div(g, ll_add(g, y, c64(y, 0.5)), scale), c64(y, 0.5));
    if (!strcmp(coord, "pytorch_half_pixel"))
        return ll_sel(g, single, c64(y, -0.5), x);
    if (!strcmp(coord, "half_pixel_symmetric")) {
        fg_v part = ll_div(g, ll_splat(g, p->out, lanes), width);
        x = ll_add(g, x,
                   ll_mul(g, ll_mul(g, in, c64(in, 0.5)), ll_sub(g, c64(in, 1), part)));
    }
    return x;
}

/* As an index: clamped to the axis, NaN to 0. */
static fg_index
clamped(sampling *s, const axis *p, fg_v x)
{
    fg_ll *g = s->e->g;
    int lanes = ll_lanes(x);
    fg_v last = ll_sub(g, ll_splat(g, p->in, lanes), c64(x, 1));
    x = ll_min(g, x, last);
    x = ll_sel(g, ll_cmp(g, LL_GT, x, c64(x, 0)), x, c64(x, 0));
    return fg_ix_vec(s->e, ll_toint(g, x, g->i64));
}

static fg_v
nearest(sampling *s, fg_v x)
{
    fg_ll *g = s->e->g;
    const char *how = FG_GET(s->i, resize, nearest).s;
    if (!strcmp(how, "floor"))
        return ll_floor(g, x);
    if (!strcmp(how, "ceil"))
        return ll_ceil(g, x);
    return strcmp(how, "round_prefer_ceil") ? ll_ceil(g, ll_sub(g, x, c64(x, 0.5)))
                                            : ll_floor(g, ll_add(g, x, c64(x, 0.5)));
}

static fg_v
filter(sampling *s, fg_v x)
{
    fg_ll *g = s->e->g;
    fg_v t = ll_abs(g, x), one = c64(t, 1), zero = c64(t, 0);
    double a = s->a;
    if (!s->cubic)
        return ll_sel(g, ll_cmp(g, LL_LT, t, one), ll_sub(g, one, t), zero);
    fg_v near = ll_sub(g, ll_mul(g, c64(t, a + 2), t), c64(t, a + 3));
    near = ll_add(g, ll_mul(g, ll_mul(g, near, t), t), one);
    fg_v far = ll_sub(g, ll_mul(g, c64(t, a), t), c64(t, 5 * a));
    far = ll_sub(g, ll_mul(g, ll_add(g, ll_mul(g, far, t), c64(t, 8 * a)), t),
                 c64(t, 4 * a));
    return ll_sel(g, ll_cmp(g, LL_LE, t, one), near,
                  ll_sel(g, ll_cmp(g, LL_LT, t, c64(t, 2)), far, zero));
}

/* Weight of the neighbour at position n (f64). */
static fg_v
weight(sampling *s, const axis *p, fg_v n)
{
    fg_ll *g = s->e->g;
    int lanes = ll_lanes(n);
    fg_v d = ll_sub(g, n, p->x);
    fg_v w = filter(s, ll_mul(g, d, ll_splat(g, p->shrink, lanes)));
    if (s->exclude) {
        fg_v in = ll_and(g, ll_cmp(g, LL_GE, n, c64(n, 0)),
                         ll_cmp(g, LL_LT, n, ll_splat(g, p->in, lanes)));
        w = ll_sel(g, in, w, c64(w, 0));
    }
    return w;
}

static fg_v
neighbour(sampling *s, const axis *p, fg_v tap)
{
    fg_ll *g = s->e->g;
    return ll_add(g, p->first,
                  ll_splat(g, ll_fromint(g, tap, g->f64, true), ll_lanes(p->first)));
}

static void
plan_taps(sampling *s, axis *p)
{
    fg_em *e = s->e;
    fg_ll *g = e->g;
    fg_v one = ll_cf(g->f64, 1), ahead = ll_cf(g->f64, s->cubic ? 2 : 1);
    p->shrink = s->antialias ? ll_min(g, p->scale, one) : one;
    if (s->antialias)
        ahead = ll_ceil(g, ll_div(g, ahead, p->shrink));
    p->taps = ll_toint(g, ll_add(g, ahead, ahead), g->i64);
    fg_v sane = ll_cmp(g, LL_LT, ll_abs(g, p->x), c64(p->x, 1e15));
    p->x = ll_sel(g, sane, p->x, c64(p->x, 0));
    p->first = ll_sub(g, ll_ceil(g, p->x), ll_splat(g, ahead, ll_lanes(p->x)));
    p->sum = NULL;
    if (!s->antialias && !s->exclude)
        return;
    fg_v sum = ll_zero(LLVMTypeOf(p->x));
    fg_nest n;
    fg_nest_open(e, &n, 1, &p->taps, 1, &sum);
    sum = ll_add(g, sum, weight(s, p, neighbour(s, p, n.l[0].i)));
    fg_nest_close(e, &n, 1, &sum);
    p->sum = ll_sel(g, ll_cmp(g, LL_EQ, sum, c64(sum, 0)), c64(sum, 1), sum);
}

static axis
plan_axis(sampling *s, int a, fg_index at)
{
    fg_em *e = s->e;
    fg_ll *g = e->g;
    const fg_type *tx = fg_rt(e->m, s->i->in[0]), *ty = fg_rt(e->m, s->i->out[0]);
    axis p = {.axis = a};
    double scale;
    p.in = ll_fromint(g, fg_em_expr(e, tx->dim[a]), g->f64, true);
    p.out = ll_fromint(g, fg_em_expr(e, ty->dim[a]), g->f64, true);
    p.scale = listed(FG_GET(s->i, resize, scales).s, a, &scale) ? ll_cf(g->f64, scale)
                                                                : ll_div(g, p.out, p.in);
    p.x = place(s, &p, ll_fromint(g, fg_ix_value(e, at), g->f64, true));
    return p;
}

static fg_v
sample(sampling *s, const fg_index *at)
{
    fg_module *m = s->e->m;
    fg_reg x = s->i->in[0];
    return fg_pull_nonempty(s->e, x, fg_type_count(m->ex, fg_rt(m, x)), at);
}

/* Lanes whose position lies outside of the operand. */
static fg_v
outside(sampling *s, const axis *p)
{
    fg_ll *g = s->e->g;
    fg_v last = ll_sub(g, ll_splat(g, p->in, ll_lanes(p->x)), c64(p->x, 1));
    return ll_not(
        g, ll_and(g, ll_cmp(g, LL_GE, p->x, c64(p->x, 0)), ll_cmp(g, LL_LE, p->x, last)));
}

static fg_v
either(fg_ll *g, fg_v a, fg_v b)
{
    int n = ll_lanes(a) > ll_lanes(b) ? ll_lanes(a) : ll_lanes(b);
    return ll_or(g, ll_splat(g, a, n), ll_splat(g, b, n));
}

/* Sum over the taps of all axes. */
static fg_v
filtered(sampling *s, axis *p, int n, fg_index *at, fg_dtype d)
{
    fg_em *e = s->e;
    fg_ll *g = e->g;
    fg_v acc = ll_zero(ll_vec(g->f64, e->lanes)), size[FG_MAXRANK], w = ll_cf(g->f64, 1);
    fg_nest nest;
    for (int k = 0; k < n; k++) {
        plan_taps(s, &p[k]);
        size[k] = p[k].taps;
    }
    fg_nest_open(e, &nest, n, size, 1, &acc);
    w = fg_lanes(e, w);
    for (int k = 0; k < n; k++) {
        fg_v where = neighbour(s, &p[k], nest.l[k].i), own = weight(s, &p[k], where);
        if (p[k].sum)
            own = ll_div(g, own, p[k].sum);
        w = ll_mul(g, w, fg_lanes(e, own));
        at[p[k].axis] = clamped(s, &p[k], where);
    }
    fg_v x = fg_lanes(e, fg_em_cast(e, sample(s, at), d, FG_f64));
    /* A tap without weight does not spread the infinities it may stand on. */
    fg_v more = ll_add(g, acc, ll_mul(g, w, x));
    acc = ll_sel(g, ll_cmp(g, LL_EQ, w, c64(w, 0)), acc, more);
    fg_nest_close(e, &nest, 1, &acc);
    return fg_em_cast(e, acc, FG_f64, d);
}

fg_v
fg_pull_resize(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_ll *g = e->g;
    fg_dtype d = fg_rt(e->m, r)->dtype;
    const char *mode = FG_GET(i, resize, mode).s;
    sampling s = {.e = e,
                  .i = i,
                  .cubic = !strcmp(mode, "cubic"),
                  .antialias = FG_GET(i, resize, antialias).i,
                  .exclude = FG_GET(i, resize, exclude).i,
                  .crop = !strcmp(FG_GET(i, resize, coord).s, "tf_crop_and_resize"),
                  .a = FG_GET(i, resize, cubic_a).f};
    axis p[FG_MAXRANK];
    fg_index at[FG_MAXRANK];
    int n = 0;
    fg_v out = ll_ci(g->i1, 0), v;
    for (int a = 0; a < fg_rt(e->m, r)->rank; a++) {
        at[a] = ix[a];
        if (is_identity(&s, a))
            continue;
        p[n] = plan_axis(&s, a, ix[a]);
        if (s.crop)
            out = either(g, out, outside(&s, &p[n]));
        n++;
    }
    if (strcmp(mode, "nearest")) {
        v = filtered(&s, p, n, at, d);
    } else {
        for (int k = 0; k < n; k++)
            at[p[k].axis] = clamped(&s, &p[k], nearest(&s, p[k].x));
        v = sample(&s, at);
    }
    if (!s.crop)
        return v;
    v = fg_lanes(e, v);
    fg_v fill = fg_em_cast(e, ll_cf(g->f64, FG_GET(i, resize, extrapolate).f), FG_f64, d);
    return ll_sel(g, fg_lanes(e, out), fg_lanes(e, fill), v);
}
