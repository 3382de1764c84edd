/* eval_conv.c - convolutions and poolings.
 *
 *     %y = conv %x, %w, %b {stride=[2,2], before=[1,1], after=[1,1]} : f32[N,64,112,112]
 *
 * One to three spatial axes are treated as three, the missing ones of size 1 in front.
 * Place o of the result and k of the window meet place o stride + k dilation - before
 * of the operand; a row of the result along the last axis is the inner loop.
 */
#include "ir/eval_impl.h"

#include <math.h>

typedef struct window { /* per spatial axis */
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], before[3];
} window;

/* Far outside is outside: keeps places clear of overflow. */
static int64_t
step_of(int64_t v)
{
    const int64_t far = (int64_t)1 << 30;

    return v < -far ? -far : v > far ? far : v;
}

/* `size` is the window's own, per spatial axis. */
static window
window_new(const fg_tensor *in, const fg_tensor *out, const int64_t *size,
           const fg_attr *stride, const fg_attr *dilation, const fg_attr *before)
{
    window w;
    int n = in->rank - 2;

    for (int k = 0; k < 3; k++) {
        int a = k - (3 - n);

        w.in[k] = a < 0 ? 1 : in->dim[2 + a];
        w.out[k] = a < 0 ? 1 : out->dim[2 + a];
        w.kernel[k] = a < 0 ? 1 : step_of(size[a]);
        w.stride[k] = a < 0 ? 1 : step_of(stride->is[a]);
        w.dilation[k] = a < 0 ? 1 : step_of(dilation->is[a]);
        w.before[k] = a < 0 ? 0 : step_of(before->is[a]);
    }
    return w;
}

static int64_t
volume(const int64_t *n)
{
    return n[0] * n[1] * n[2];
}

/* The place on axis a where place o of the result and k of the window meet. */
static int64_t
meet(const window *w, int a, int64_t o, int64_t k)
{
    return o * w->stride[a] + k * w->dilation[a] - w->before[a];
}

static bool
inside(int64_t i, int64_t n)
{
    return i >= 0 && i < n;
}

/* The range [*lo, *hi) of o on axis a that meets the operand at k. */
static void
meeting(const window *w, int a, int64_t k, int64_t *lo, int64_t *hi)
{
    for (*lo = 0; *lo < w->out[a] && meet(w, a, *lo, k) < 0; ++*lo)
        ;
    for (*hi = w->out[a]; *hi > *lo && meet(w, a, *hi - 1, k) >= w->in[a]; --*hi)
        ;
}

/* ---- convolution ------------------------------------------------------------------- */

/* acc += one plane of x under one plane of the window's weights. Backwards, x has the
 * result's size and acc the operand's: that is the transposed convolution. */
static void
add_plane(const window *w, bool flt, const fg_num *weight, const fg_num *x, fg_num *acc,
          bool backwards)
{
    for (int64_t k = 0; k < volume(w->kernel); k++) {
        int64_t kd = k / (w->kernel[1] * w->kernel[2]),
                kh = k / w->kernel[2] % w->kernel[1];
        int64_t kw = k % w->kernel[2], lo, hi;

        meeting(w, 2, kw, &lo, &hi);
        for (int64_t o = 0; o < w->out[0] * w->out[1]; o++) {
            int64_t d = meet(w, 0, o / w->out[1], kd), h = meet(w, 1, o % w->out[1], kh);
            int64_t to = o * w->out[2] + lo;
            int64_t at = (d * w->in[1] + h) * w->in[2] + meet(w, 2, lo, kw);

            if (!inside(d, w->in[0]) || !inside(h, w->in[1]))
                continue;
            if (!backwards)
                fg_num_add_scaled(flt, acc + to, weight[k], x + at, w->stride[2],
                                  hi - lo);
            else
                for (int64_t j = 0; j < hi - lo; j++)
                    acc[at + j * w->stride[2]].f += weight[k].f * x[to + j].f;
        }
    }
}

static void
fill_bias(const fg_evalcall *c, int64_t channel, fg_num *acc, int64_t n)
{
    fg_num b = {.u = 0};

    if (c->i->nin > 2 && c->in[2].data)
        b = fg_num_get(&c->in[2], channel);
    for (int64_t k = 0; k < n; k++)
        acc[k] = b;
}

static fg_num *
load_all(const fg_evalcall *c, const fg_tensor *t)
{
    fg_num *v = FG_NEWN(c->scratch, fg_num, (size_t)t->count);

    fg_num_load(t, 0, 1, t->count, v);
    return v;
}

static bool
bias_fits(const fg_evalcall *c)
{
    return c->i->nin < 3 || !c->in[2].data || c->in[2].count == c->out[0].dim[1];
}

bool
fg_eval_conv(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *f = &c->in[1];
    fg_tensor *o = &c->out[0];
    window w = window_new(x, o, f->dim + 2, &FG_GET(c->i, conv, stride),
                          &FG_GET(c->i, conv, dilation), &FG_GET(c->i, conv, before));
    int64_t group = FG_GET(c->i, conv, group).i, m = o->dim[1], each = f->dim[1];
    int64_t size = volume(w.out);
    bool flt = fg_is_float(x->dtype);
    fg_num *xs = load_all(c, x), *fs = load_all(c, f);
    fg_num *acc = FG_NEWN(c->scratch, fg_num, (size_t)size);

    if (group < 1 || x->dim[1] != group * each || f->dim[0] != m || m % group != 0 ||
        !bias_fits(c))
        return fg_eval_error(c, "channels do not fit");
    for (int64_t k = 0; k < x->dim[0] * m; k++) {
        int64_t n = k / m, channel = k % m;
        int64_t first = n * x->dim[1] + channel / (m / group) * each;

        fill_bias(c, channel, acc, size);
        for (int64_t j = 0; j < each; j++)
            add_plane(&w, flt, fs + (channel * each + j) * volume(w.kernel),
                      xs + (first + j) * volume(w.in), acc, false);
        fg_num_store(o, k * size, size, acc);
    }
    return true;
}

/* The convolution that would lead from the result back to the operand, run backwards. */
bool
fg_eval_conv_transpose(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *f = &c->in[1];
    fg_tensor *o = &c->out[0];
    window w = window_new(o, x, f->dim + 2, &FG_GET(c->i, conv_transpose, stride),
                          &FG_GET(c->i, conv_transpose, dilation),
                          &FG_GET(c->i, conv_transpose, before));
    int64_t group = FG_GET(c->i, conv_transpose, group).i, m = o->dim[1];
    int64_t each = f->dim[1], size = volume(w.in);
    fg_num *xs = load_all(c, x), *fs = load_all(c, f);
    fg_num *acc = FG_NEWN(c->scratch, fg_num, (size_t)size);

    if (group < 1 || x->dim[1] % group != 0 || f->dim[0] != x->dim[1] ||
        m != group * each || !bias_fits(c))
        return fg_eval_error(c, "channels do not fit");
    for (int64_t k = 0; k < x->dim[0] * m; k++) {
        int64_t n = k / m, channel = k % m, from = x->dim[1] / group;
        int64_t first = channel / each * from;

        fill_bias(c, channel, acc, size);
        for (int64_t j = first; j < first + from; j++)
            add_plane(&w, true, fs + (j * each + channel % each) * volume(w.kernel),
                      xs + (n * x->dim[1] + j) * volume(w.out), acc, true);
        fg_num_store(o, k * size, size, acc);
    }
    return true;
}

/* ---- pooling ----------------------------------------------------------------------- */

/* Calls `see` for each place of the window at result place o of one plane: its index in
 * the plane, or -1 when it lies outside; `where` are its coordinates. */
typedef void see_fn(void *user, int64_t index, const int64_t *where);

static void
each_place(const window *w, int64_t o, see_fn *see, void *user)
{
    int64_t od = o / (w->out[1] * w->out[2]), oh = o / w->out[2] % w->out[1];
    int64_t ow = o % w->out[2];

    for (int64_t k = 0; k < volume(w->kernel); k++) {
        int64_t at[3] = {meet(w, 0, od, k / (w->kernel[1] * w->kernel[2])),
                         meet(w, 1, oh, k / w->kernel[2] % w->kernel[1]),
                         meet(w, 2, ow, k % w->kernel[2])};
        bool in =
            inside(at[0], w->in[0]) && inside(at[1], w->in[1]) && inside(at[2], w->in[2]);

        see(user, in ? (at[0] * w->in[1] + at[1]) * w->in[2] + at[2] : -1, at);
    }
}

/* Both poolings begin with the attributes kernel, stride, dilation, before. */
static window
pool_window(const fg_evalcall *c)
{
    const fg_inst *i = c->i;

    return window_new(&c->in[0], &c->out[0], FG_GET(i, max_pool, kernel).is,
                      &FG_GET(i, max_pool, stride), &FG_GET(i, max_pool, dilation),
                      &FG_GET(i, max_pool, before));
}

typedef struct pool {
    const fg_tensor *x;
    int64_t plane; /* offset of the plane in x */
    fg_num best;
    double sum;
    int64_t count;
    int64_t lo[3], hi[3]; /* what counts in the divisor, per axis */
} pool;

static void
see_max(void *user, int64_t index, const int64_t *where)
{
    pool *p = user;
    fg_num v;

    (void)where;
    if (index < 0)
        return;
    v = fg_num_get(p->x, p->plane + index);
    if (fg_num_key(p->x->dtype, v) > fg_num_key(p->x->dtype, p->best))
        p->best = v;
}

bool
fg_eval_max_pool(fg_evalcall *c)
{
    window w = pool_window(c);
    pool p = {.x = &c->in[0]};
    int64_t size = volume(w.out);

    for (int64_t k = 0; k < c->out[0].count; k++) {
        p.plane = k / size * volume(w.in);
        p.best = fg_num_least(p.x->dtype);
        each_place(&w, k % size, see_max, &p);
        fg_num_put(&c->out[0], k, p.best);
    }
    return true;
}

static void
see_mean(void *user, int64_t index, const int64_t *where)
{
    pool *p = user;
    bool counts = true;

    if (index >= 0)
        p->sum += fg_tensor_f64(p->x, p->plane + index);
    for (int a = 0; a < 3; a++)
        counts &= where[a] >= p->lo[a] && where[a] < p->hi[a];
    p->count += counts;
}

bool
fg_eval_avg_pool(fg_evalcall *c)
{
    const fg_attr *after = &FG_GET(c->i, avg_pool, after);
    window w = pool_window(c);
    pool p = {.x = &c->in[0]};
    int64_t size = volume(w.out);
    int n = p.x->rank - 2;

    for (int a = 0; a < 3; a++) {
        int axis = a - (3 - n);

        p.hi[a] = w.in[a];
        if (FG_GET(c->i, avg_pool, count_pad).i && axis >= 0) {
            p.lo[a] = -w.before[a];
            p.hi[a] += axis < after->n ? after->is[axis] : 0;
        }
    }
    for (int64_t k = 0; k < c->out[0].count; k++) {
        p.plane = k / size * volume(w.in);
        p.sum = 0;
        p.count = 0;
        each_place(&w, k % size, see_mean, &p);
        fg_num_put(&c->out[0], k, (fg_num){.f = p.sum / (double)p.count});
    }
    return true;
}
