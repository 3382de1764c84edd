/* eval_reduce.c - operations along axes: reductions, orders, softmax, norms, quantisation.
 *
 * Floats accumulate in double and are rounded once at the end; integers accumulate
 * modulo 2^64 and wrap into the type, which is what wrapping at every step gives.
 */
#include "ir/eval_impl.h"

#include <math.h>
#include <stdlib.h>

/* ---- reductions -------------------------------------------------------------------- */

typedef void fold_fn(fg_dtype d, fg_num *acc, fg_num x);

static void
fold_sum(fg_dtype d, fg_num *acc, fg_num x)
{
    if (fg_is_float(d))
        acc->f += x.f;
    else
        acc->u += x.u;
}

static void
fold_prod(fg_dtype d, fg_num *acc, fg_num x)
{
    if (fg_is_float(d))
        acc->f *= x.f;
    else
        acc->u *= x.u;
}

/* NaN has the highest key, so it wins the maximum by itself. */
static void
fold_max(fg_dtype d, fg_num *acc, fg_num x)
{
    if (fg_num_key(d, x) > fg_num_key(d, *acc))
        *acc = x;
}

static void
fold_min(fg_dtype d, fg_num *acc, fg_num x)
{
    if (fg_num_is_nan(d, x) ||
        (!fg_num_is_nan(d, *acc) && fg_num_key(d, x) < fg_num_key(d, *acc)))
        *acc = x;
}

/* Folds every operand element into the accumulator of its result element: the walk goes
 * over the operand and stands still in the result along reduced axes. All reductions
 * have the same attributes, so those of one read any. *each: operands per result. */
static fg_num *
fold_axes(fg_evalcall *c, fg_num init, fold_fn *fold, int64_t *each)
{
    const fg_attr *axes = &FG_GET(c->i, reduce_sum, axes);
    const fg_tensor *x = &c->in[0];
    int64_t n = c->out[0].count, s = 1;
    fg_num *acc = FG_NEWN(c->scratch, fg_num, (size_t)n);
    fg_walk w = fg_walk_new(x->rank, x->dim);
    int64_t *stride = w.stride[w.n++];

    *each = 1;
    for (int k = x->rank - 1, left = axes->n; k >= 0; k--) {
        if (left && axes->is[left - 1] == k) {
            left--;
            *each *= x->dim[k];
        } else {
            stride[k] = s;
            s *= x->dim[k];
        }
    }
    for (int64_t k = 0; k < n; k++)
        acc[k] = init;
    for (int64_t k = 0; k < x->count; k++, fg_walk_next(&w))
        fold(x->dtype, &acc[w.off[0]], fg_num_get(x, k));
    return acc;
}

static bool
reduce(fg_evalcall *c, fg_num init, fold_fn *fold)
{
    int64_t each;

    fg_num_store(&c->out[0], 0, c->out[0].count, fold_axes(c, init, fold, &each));
    return true;
}

bool
fg_eval_reduce_sum(fg_evalcall *c)
{
    return reduce(c, (fg_num){.u = 0}, fold_sum); /* 0 and 0.0 are the same bits */
}

bool
fg_eval_reduce_prod(fg_evalcall *c)
{
    bool flt = fg_is_float(c->in[0].dtype);

    return reduce(c, flt ? (fg_num){.f = 1} : (fg_num){.u = 1}, fold_prod);
}

bool
fg_eval_reduce_max(fg_evalcall *c)
{
    return reduce(c, fg_num_least(c->in[0].dtype), fold_max);
}

bool
fg_eval_reduce_min(fg_evalcall *c)
{
    return reduce(c, fg_num_greatest(c->in[0].dtype), fold_min);
}

bool
fg_eval_reduce_mean(fg_evalcall *c)
{
    fg_class cls = fg_dtypes[c->in[0].dtype].cls;
    int64_t each;
    fg_num *acc = fold_axes(c, (fg_num){.u = 0}, fold_sum, &each);

    for (int64_t k = 0; k < c->out[0].count; k++) {
        if (cls == FG_CLASS_FLOAT)
            acc[k].f /= (double)each;
        else if (each == 0)
            acc[k].u = 0;
        else if (cls == FG_CLASS_SINT)
            acc[k].u = (uint64_t)((int64_t)acc[k].u / each);
        else
            acc[k].u /= (uint64_t)each;
    }
    fg_num_store(&c->out[0], 0, c->out[0].count, acc);
    return true;
}

/* ---- one axis ---------------------------------------------------------------------- */

/* A tensor as [outer, n, inner]: element j of line (a, b) is at (a n + j) inner + b. */
typedef struct lines {
    int64_t outer, n, inner;
} lines;

static lines
lines_of(const fg_tensor *x, int axis)
{
    return (lines){fg_span(x, 0, axis), x->dim[axis], fg_span(x, axis + 1, x->rank)};
}

/* NaN wins both ways. */
static bool
arg(fg_evalcall *c, int axis, bool last, bool largest)
{
    const fg_tensor *x = &c->in[0];
    lines l = lines_of(x, axis);

    for (int64_t line = 0; line < l.outer * l.inner; line++) {
        int64_t at = line / l.inner * l.n * l.inner + line % l.inner, best = 0;
        uint64_t best_key = 0;

        for (int64_t j = 0; j < l.n; j++) {
            fg_num v = fg_num_get(x, at + j * l.inner);
            uint64_t key = fg_num_key(x->dtype, v);

            if (!largest && !fg_num_is_nan(x->dtype, v))
                key = ~key;
            if (j == 0 || key > best_key || (last && key == best_key)) {
                best_key = key;
                best = j;
            }
        }
        fg_tensor_set_i64(&c->out[0], line, best);
    }
    return true;
}

bool
fg_eval_argmax(fg_evalcall *c)
{
    return arg(c, (int)FG_GET(c->i, argmax, axis).i, FG_GET(c->i, argmax, last).i, true);
}

bool
fg_eval_argmin(fg_evalcall *c)
{
    return arg(c, (int)FG_GET(c->i, argmin, axis).i, FG_GET(c->i, argmin, last).i, false);
}

bool
fg_eval_cumsum(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    lines l = lines_of(x, (int)FG_GET(c->i, cumsum, axis).i);
    bool exclusive = FG_GET(c->i, cumsum, exclusive).i;
    bool reverse = FG_GET(c->i, cumsum, reverse).i;

    for (int64_t line = 0; line < l.outer * l.inner; line++) {
        int64_t at = line / l.inner * l.n * l.inner + line % l.inner;
        fg_num acc = {.u = 0};

        for (int64_t j = 0; j < l.n; j++) {
            int64_t k = at + (reverse ? l.n - 1 - j : j) * l.inner;

            if (exclusive)
                fg_num_put(&c->out[0], k, acc);
            fold_sum(x->dtype, &acc, fg_num_get(x, k));
            if (!exclusive)
                fg_num_put(&c->out[0], k, acc);
        }
    }
    return true;
}

typedef struct ranked {
    uint64_t key;
    int64_t index;
} ranked;

static int
by_key_then_index(const void *a, const void *b)
{
    const ranked *p = a, *q = b;

    if (p->key != q->key)
        return p->key > q->key ? -1 : 1;
    return p->index < q->index ? -1 : p->index > q->index;
}

/* NaN counts as the largest: first of the largest, last of the smallest. */
bool
fg_eval_topk(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    int axis = (int)FG_GET(c->i, topk, axis).i;
    bool largest = FG_GET(c->i, topk, largest).i;
    lines l = lines_of(x, axis);
    int64_t k = c->out[0].dim[axis];
    ranked *r = FG_NEWN(c->scratch, ranked, (size_t)l.n);

    if (k > l.n)
        return fg_eval_error(c, "%lld of %lld elements", (long long)k, (long long)l.n);
    for (int64_t line = 0; line < l.outer * l.inner; line++) {
        int64_t at = line / l.inner * l.n * l.inner + line % l.inner;
        int64_t to = line / l.inner * k * l.inner + line % l.inner;

        for (int64_t j = 0; j < l.n; j++) {
            uint64_t key = fg_num_key(x->dtype, fg_num_get(x, at + j * l.inner));

            r[j] = (ranked){largest ? key : ~key, j};
        }
        qsort(r, (size_t)l.n, sizeof *r, by_key_then_index);
        for (int64_t j = 0; j < k; j++) {
            fg_tensor_move(&c->out[0], to + j * l.inner, x, at + r[j].index * l.inner);
            fg_tensor_set_i64(&c->out[1], to + j * l.inner, r[j].index);
        }
    }
    return true;
}

bool
fg_eval_softmax(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    lines l = lines_of(x, (int)FG_GET(c->i, softmax, axis).i);
    fg_num *v = FG_NEWN(c->scratch, fg_num, (size_t)l.n);

    for (int64_t line = 0; line < l.outer * l.inner; line++) {
        int64_t at = line / l.inner * l.n * l.inner + line % l.inner;
        double top = -INFINITY, sum = 0;

        fg_num_load(x, at, l.inner, l.n, v);
        for (int64_t j = 0; j < l.n; j++)
            top = v[j].f > top ? v[j].f : top;
        for (int64_t j = 0; j < l.n; j++) {
            v[j].f = exp(v[j].f - top);
            sum += v[j].f;
        }
        for (int64_t j = 0; j < l.n; j++)
            fg_num_put(&c->out[0], at + j * l.inner, (fg_num){.f = v[j].f / sum});
    }
    return true;
}

/* ---- norms ------------------------------------------------------------------------- */

/* Rows are the elements of axes axis.. ; in[1] scales and in[2] shifts them when there,
 * broadcast to x. The mean is taken off first when `centred`. */
static bool
normalise(fg_evalcall *c, int axis, double eps, bool centred)
{
    const fg_tensor *x = &c->in[0];
    int64_t n = fg_span(x, axis, x->rank), k = 0;
    fg_num *v = FG_NEWN(c->scratch, fg_num, (size_t)n);
    fg_walk w = fg_walk_new(x->rank, x->dim);
    bool scaled = c->i->nin > 1 && c->in[1].data;
    bool shifted = c->i->nin > 2 && c->in[2].data;

    if ((scaled && !fg_walk_broadcast(&w, &c->in[1])) ||
        (shifted && !fg_walk_broadcast(&w, &c->in[2])))
        return fg_eval_error(c, "scale or bias does not broadcast");
    while (k < x->count) {
        double mean = 0, square = 0;

        fg_num_load(x, k, 1, n, v);
        for (int64_t j = 0; centred && j < n; j++)
            mean += v[j].f;
        mean /= (double)n;
        for (int64_t j = 0; j < n; j++)
            square += (v[j].f - mean) * (v[j].f - mean);
        for (int64_t j = 0; j < n; j++, k++, fg_walk_next(&w)) {
            double y = (v[j].f - mean) / sqrt(square / (double)n + eps);

            if (scaled)
                y *= fg_tensor_f64(&c->in[1], w.off[0]);
            if (shifted)
                y += fg_tensor_f64(&c->in[2], w.off[scaled]);
            fg_num_put(&c->out[0], k, (fg_num){.f = y});
        }
    }
    return true;
}

bool
fg_eval_layernorm(fg_evalcall *c)
{
    return normalise(c, (int)FG_GET(c->i, layernorm, axis).i,
                     FG_GET(c->i, layernorm, eps).f, true);
}

bool
fg_eval_rmsnorm(fg_evalcall *c)
{
    return normalise(c, (int)FG_GET(c->i, rmsnorm, axis).i, FG_GET(c->i, rmsnorm, eps).f,
                     false);
}

/* ---- quantisation ------------------------------------------------------------------ */

/* Which scale belongs to an element: one for all, one per place on the axis, or one per
 * `block` places with a scale of x's rank. */
typedef struct scales {
    fg_walk walk; /* over x; its offset leaves the axis out */
    int axis;
    int64_t block, stride; /* along the axis */
} scales;

static bool
scales_new(fg_evalcall *c, int axis, int64_t block, scales *s)
{
    const fg_tensor *x = &c->in[0], *scale = &c->in[1];

    *s = (scales){fg_walk_new(x->rank, x->dim), 0, block ? block : 1, 0};
    s->walk.n = 1;
    if (scale->count == 1 && !block)
        return true;
    s->axis = axis;
    if (block) {
        for (int k = 0; k < x->rank; k++)
            if (scale->dim[k] !=
                (k == axis ? (x->dim[k] + block - 1) / block : x->dim[k]))
                return fg_eval_error(c, "scales do not fit the blocks");
        fg_tensor_strides(scale, s->walk.stride[0]);
    } else {
        if (scale->rank != 1 || scale->dim[0] != x->dim[axis])
            return fg_eval_error(c, "scales do not fit the axis");
        s->walk.stride[0][axis] = 1;
    }
    s->stride = s->walk.stride[0][axis];
    s->walk.stride[0][axis] = 0;
    return true;
}

static int64_t
scales_at(const scales *s)
{
    return s->walk.off[0] + s->walk.at[s->axis] / s->block * s->stride;
}

static double
zero_at(const fg_evalcall *c, int64_t k)
{
    if (c->i->nin < 3 || !c->in[2].data)
        return 0;
    return fg_tensor_f64(&c->in[2], c->in[2].count == 1 ? 0 : k);
}

/* The quotient is rounded to f32 before it is rounded to an integer, as code that divides
 * in f32 does: else x / scale just beside a half would go the other way. */
bool
fg_eval_quantize(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *scale = &c->in[1];
    bool wide = x->dtype == FG_f64 || scale->dtype == FG_f64;
    scales s;

    if (!scales_new(c, (int)FG_GET(c->i, quantize, axis).i,
                    FG_GET(c->i, quantize, block).i, &s))
        return false;
    for (int64_t k = 0; k < x->count; k++, fg_walk_next(&s.walk)) {
        int64_t at = scales_at(&s);
        double q = fg_tensor_f64(x, k) / fg_tensor_f64(scale, at);

        if (!wide)
            q = (float)q;
        fg_tensor_set_f64(&c->out[0], k, nearbyint(q) + zero_at(c, at));
    }
    return true;
}

bool
fg_eval_dequantize(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    scales s;

    if (!scales_new(c, (int)FG_GET(c->i, dequantize, axis).i,
                    FG_GET(c->i, dequantize, block).i, &s))
        return false;
    for (int64_t k = 0; k < x->count; k++, fg_walk_next(&s.walk)) {
        int64_t at = scales_at(&s);
        double y = (fg_tensor_f64(x, k) - zero_at(c, at)) * fg_tensor_f64(&c->in[1], at);

        fg_tensor_set_f64(&c->out[0], k, y);
    }
    return true;
}
