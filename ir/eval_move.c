/* eval_move.c - operations that create elements or carry them elsewhere.
 *
 * Most are one walk over the result with a second offset into the operand. Elements move
 * bit for bit, so no type needs a case of its own. Indices that come with the data are
 * the model's: negative ones count from the end and the rest clamps, so nothing is read
 * or written outside a tensor.
 */
#include "ir/eval_impl.h"

#include <math.h>

/* Index k of t as a place on an axis of n > 0 elements. */
static int64_t
place_on_axis(const fg_tensor *t, int64_t k, int64_t n)
{
    int64_t i = fg_tensor_i64(t, k);

    if (i < 0)
        i += n;
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* ---- values ------------------------------------------------------------------------ */

/* Borrows the weight: nothing writes to an operand. */
bool
fg_eval_const(fg_evalcall *c)
{
    const fg_weight *w = &c->m->weight[FG_GET(c->i, const, w).i];

    c->out[0].data = (void *)w->data;
    return true;
}

bool
fg_eval_symvec(fg_evalcall *c)
{
    const fg_attr *v = &FG_GET(c->i, symvec, v);

    for (int64_t k = 0; k < c->out[0].count; k++) {
        int64_t value;

        if (!fg_eval_expr(c, v->es[k], &value))
            return false;
        fg_tensor_set_i64(&c->out[0], k, value);
    }
    return true;
}

bool
fg_eval_require(fg_evalcall *c)
{
    int64_t a, b;

    if (!fg_eval_expr(c, FG_GET(c->i, require, a).e, &a) ||
        !fg_eval_expr(c, FG_GET(c->i, require, b).e, &b))
        return false;
    return a == b || fg_eval_error(c, "sizes %lld and %lld must be equal", (long long)a,
                                   (long long)b);
}

bool
fg_eval_iota(fg_evalcall *c)
{
    fg_expr e = FG_GET(c->i, iota, start).e;
    uint64_t step = (uint64_t)FG_GET(c->i, iota, step).i;
    int64_t start = 0;

    if (e != FG_E_BAD && !fg_eval_expr(c, e, &start))
        return false;
    for (int64_t k = 0; k < c->out[0].count; k++)
        fg_tensor_set_i64(&c->out[0], k, (int64_t)((uint64_t)start + (uint64_t)k * step));
    return true;
}

/* copy and reshape */
bool
fg_eval_copy(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    size_t bytes;

    if (x->count != c->out[0].count || !fg_dtype_bytes(x->dtype, x->count, &bytes))
        return fg_eval_error(c, "%lld elements do not fill a shape of %lld",
                             (long long)x->count, (long long)c->out[0].count);
    memcpy(c->out[0].data, x->data, bytes);
    return true;
}

/* ---- views ------------------------------------------------------------------------- */

/* Result element k is operand element off + what the walk's first tensor says. */
static bool
move_all(fg_evalcall *c, fg_walk *w, int64_t off)
{
    for (int64_t k = 0; k < c->out[0].count; k++, fg_walk_next(w))
        fg_tensor_move(&c->out[0], k, &c->in[0], off + w->off[0]);
    return true;
}

bool
fg_eval_transpose(fg_evalcall *c)
{
    const int64_t *perm = FG_GET(c->i, transpose, perm).is;
    fg_walk w = fg_walk_new(c->out[0].rank, c->out[0].dim);
    int64_t from[FG_MAXRANK], *stride = w.stride[w.n++];

    fg_tensor_strides(&c->in[0], from);
    for (int k = 0; k < w.rank; k++)
        stride[k] = from[perm[k]];
    return move_all(c, &w, 0);
}

bool
fg_eval_expand(fg_evalcall *c)
{
    fg_walk w = fg_walk_new(c->out[0].rank, c->out[0].dim);

    if (!fg_walk_broadcast(&w, &c->in[0]))
        return fg_eval_error(c, "shape does not broadcast to the result");
    return move_all(c, &w, 0);
}

bool
fg_eval_slice(fg_evalcall *c)
{
    const fg_attr *start = &FG_GET(c->i, slice, start),
                  *step = &FG_GET(c->i, slice, step);
    const fg_tensor *x = &c->in[0];
    fg_walk w = fg_walk_new(c->out[0].rank, c->out[0].dim);
    int64_t *stride = fg_walk_add(&w, x), off = 0;

    for (int k = 0; k < w.rank; k++) {
        int64_t at, last;

        if (!fg_eval_expr(c, start->es[k], &at))
            return false;
        if (__builtin_mul_overflow(w.dim[k] - 1, step->is[k], &last) ||
            __builtin_add_overflow(last, at, &last))
            return fg_eval_error(c, "axis %d: slice out of range", k);
        if (c->out[0].count == 0)
            continue;
        if (at < 0 || at >= x->dim[k] || last < 0 || last >= x->dim[k])
            return fg_eval_error(c, "axis %d: elements %lld to %lld of %lld", k,
                                 (long long)at, (long long)last, (long long)x->dim[k]);
        off += at * stride[k];
        stride[k] *= step->is[k];
    }
    return move_all(c, &w, off);
}

bool
fg_eval_concat(fg_evalcall *c)
{
    int axis = (int)FG_GET(c->i, concat, axis).i;
    fg_tensor *o = &c->out[0];
    int64_t to[FG_MAXRANK], done = 0;

    fg_tensor_strides(o, to);
    for (int j = 0; j < c->i->nin; j++) {
        const fg_tensor *x = &c->in[j];
        fg_walk w = fg_walk_new(x->rank, x->dim);

        for (int k = 0; k < o->rank; k++)
            if (k != axis && x->dim[k] != o->dim[k])
                return fg_eval_error(c, "operand %d has size %lld on axis %d, not %lld",
                                     j, (long long)x->dim[k], k, (long long)o->dim[k]);
        if (x->dim[axis] > o->dim[axis] - done)
            return fg_eval_error(c, "operands are longer than the result");
        memcpy(w.stride[w.n++], to, sizeof to);
        for (int64_t k = 0; k < x->count; k++, fg_walk_next(&w))
            fg_tensor_move(o, done * to[axis] + w.off[0], x, k);
        done += x->dim[axis];
    }
    return true;
}

static bool
append_rows(fg_evalcall *c, int axis)
{
    const fg_tensor *x = &c->in[0], *y = &c->in[1], *rows = &c->in[2];
    int64_t n = y->dim[axis], each = fg_span(y, axis + 1, y->rank);
    int64_t outer = fg_span(y, 0, axis), heads = y->rank ? fg_span(y, 1, axis) : 1;

    if (!fg_eval_copy(c))
        return false;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < n; k++) {
            int64_t b = rows->rank == 2 ? o / heads : 0;
            int64_t row = (int64_t)fg_num_get(rows, b * n + k).u;
            for (int64_t j = 0; row >= 0 && row < x->dim[axis] && j < each; j++)
                fg_tensor_move(&c->out[0], (o * x->dim[axis] + row) * each + j, y,
                               (o * n + k) * each + j);
        }
    return true;
}

bool
fg_eval_append(fg_evalcall *c)
{
    int axis = (int)FG_GET(c->i, append, axis).i;
    const fg_tensor *x = &c->in[0], *y = &c->in[1];
    fg_walk w = fg_walk_new(y->rank, y->dim);
    int64_t at, to[FG_MAXRANK];

    if (c->i->nin > 2 && c->i->in[2])
        return append_rows(c, axis);
    if (!fg_eval_expr(c, FG_GET(c->i, append, at).e, &at))
        return false;
    if (at < 0 || at > x->dim[axis] - y->dim[axis])
        return fg_eval_error(c, "axis %d: elements from %lld on do not fit into %lld",
                             axis, (long long)at, (long long)x->dim[axis]);
    for (int64_t k = 0; k < x->count; k++)
        fg_tensor_move(&c->out[0], k, x, k);
    fg_tensor_strides(x, to);
    memcpy(w.stride[w.n++], to, sizeof to);
    for (int64_t k = 0; k < y->count; k++, fg_walk_next(&w))
        fg_tensor_move(&c->out[0], at * to[axis] + w.off[0], y, k);
    return true;
}

/* ---- pad --------------------------------------------------------------------------- */

/* Negative padding crops first; `kept` elements from `lo` on remain, and the modes see
 * only those. */
typedef struct pad_axis {
    int64_t before, lo, kept;
} pad_axis;

static int64_t
floor_mod(int64_t i, int64_t n)
{
    return (i % n + n) % n;
}

/* Where result place i of an axis comes from; -1: from outside. */
static int64_t
pad_source(const pad_axis *p, const char *mode, int64_t i)
{
    int64_t n = p->kept;

    i -= p->before;
    if (i >= 0 && i < n)
        return p->lo + i;
    if (n == 0 || !strcmp(mode, "constant"))
        return -1;
    if (!strcmp(mode, "edge"))
        i = i < 0 ? 0 : n - 1;
    else if (!strcmp(mode, "wrap") || n == 1)
        i = floor_mod(i, n);
    else { /* reflect: the edge itself is not repeated */
        i = floor_mod(i, 2 * (n - 1));
        i = i < n ? i : 2 * (n - 1) - i;
    }
    return p->lo + i;
}

static bool
pad_axes(fg_evalcall *c, pad_axis *p)
{
    const fg_attr *before = &FG_GET(c->i, pad, before),
                  *after = &FG_GET(c->i, pad, after);

    for (int k = 0; k < c->in[0].rank; k++) {
        int64_t b, a, n = c->in[0].dim[k];

        if (!fg_eval_expr(c, before->es[k], &b) || !fg_eval_expr(c, after->es[k], &a))
            return false;
        p[k] = (pad_axis){.before = b > 0 ? b : 0, .lo = b < 0 ? -b : 0};
        p[k].kept = n - p[k].lo - (a < 0 ? -a : 0);
        if (p[k].kept < 0)
            p[k].kept = 0;
    }
    return true;
}

bool
fg_eval_pad(fg_evalcall *c)
{
    const char *mode = FG_GET(c->i, pad, mode).s;
    const fg_tensor *x = &c->in[0];
    fg_tensor *o = &c->out[0];
    fg_walk w = fg_walk_new(o->rank, o->dim);
    int64_t stride[FG_MAXRANK];
    pad_axis axis[FG_MAXRANK];
    bool filled = c->i->nin > 1 && c->in[1].data;

    if (!pad_axes(c, axis))
        return false;
    fg_tensor_strides(x, stride);
    for (int64_t k = 0; k < o->count; k++, fg_walk_next(&w)) {
        int64_t from = 0;

        for (int a = 0; a < w.rank && from >= 0; a++) {
            int64_t at = pad_source(&axis[a], mode, w.at[a]);

            from = at < 0 ? -1 : from + at * stride[a];
        }
        if (from >= 0)
            fg_tensor_move(o, k, x, from);
        else if (filled)
            fg_tensor_move(o, k, &c->in[1], 0);
    }
    return true;
}

/* ---- gather ------------------------------------------------------------------------ */

/* x[outer, axis, inner] and index[n] give out[outer, n, inner]. */
bool
fg_eval_gather(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *index = &c->in[1];
    int axis = (int)FG_GET(c->i, gather, axis).i;
    int64_t outer = fg_span(x, 0, axis), n = x->dim[axis];
    int64_t inner = fg_span(x, axis + 1, x->rank), to = 0;

    if (n == 0)
        return true; /* nothing to read: zeros */
    for (int64_t a = 0; a < outer; a++)
        for (int64_t k = 0; k < index->count; k++) {
            int64_t from = (a * n + place_on_axis(index, k, n)) * inner;

            for (int64_t b = 0; b < inner; b++)
                fg_tensor_move(&c->out[0], to++, x, from + b);
        }
    return true;
}

/* The walk sees x through the shape of index, without the axis itself. */
static bool
walk_index(fg_evalcall *c, int axis, fg_walk *w, int64_t *stride)
{
    const fg_tensor *x = &c->in[0], *index = &c->in[1];

    *w = fg_walk_new(index->rank, index->dim);
    for (int k = 0; k < x->rank; k++)
        if (k != axis && index->dim[k] > x->dim[k])
            return fg_eval_error(c, "axis %d: the index has %lld places, the data %lld",
                                 k, (long long)index->dim[k], (long long)x->dim[k]);
    fg_tensor_strides(x, w->stride[w->n++]);
    *stride = w->stride[0][axis];
    w->stride[0][axis] = 0;
    return true;
}

bool
fg_eval_gather_elements(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *index = &c->in[1];
    int axis = (int)FG_GET(c->i, gather_elements, axis).i;
    int64_t stride;
    fg_walk w;

    if (!walk_index(c, axis, &w, &stride))
        return false;
    if (x->dim[axis] == 0)
        return true;
    for (int64_t k = 0; k < index->count; k++, fg_walk_next(&w)) {
        int64_t i = place_on_axis(index, k, x->dim[axis]);

        fg_tensor_move(&c->out[0], k, x, w.off[0] + i * stride);
    }
    return true;
}

/* Tuple k of the index, as an offset into x below its first `batch` axes. */
static int64_t
tuple_offset(const fg_tensor *x, int batch, const fg_tensor *index, int64_t k)
{
    int64_t stride[FG_MAXRANK], n = index->dim[index->rank - 1], off = 0;

    fg_tensor_strides(x, stride);
    for (int64_t j = 0; j < n; j++)
        off += place_on_axis(index, k * n + j, x->dim[batch + j]) * stride[batch + j];
    return off;
}

/* index[batch.., tuples.., n]: each tuple names the block x[batch.., tuple.., *]. */
bool
fg_eval_gather_nd(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *index = &c->in[1];
    int batch = (int)FG_GET(c->i, gather_nd, batch).i;
    int64_t n = index->dim[index->rank - 1];
    int64_t block = fg_span(x, batch + (int)n, x->rank);
    int64_t each = fg_span(x, batch, x->rank);
    int64_t tuples = fg_span(index, batch, index->rank - 1);

    if (x->count == 0)
        return true;
    for (int64_t k = 0; k < fg_span(index, 0, index->rank - 1); k++) {
        int64_t from = k / tuples * each + tuple_offset(x, batch, index, k);

        for (int64_t b = 0; b < block; b++)
            fg_tensor_move(&c->out[0], k * block + b, x, from + b);
    }
    return true;
}

/* ---- scatter ----------------------------------------------------------------------- */

/* Element i of o becomes o[i] `how` u[k], rounded to the type each time. */
static void
combine(fg_tensor *o, int64_t i, const fg_tensor *u, int64_t k, const char *how)
{
    fg_dtype d = o->dtype;
    fg_num x = fg_num_get(o, i), y = fg_num_get(u, k);
    bool flt = fg_is_float(d);

    if (!strcmp(how, "add")) {
        if (flt)
            x.f += y.f;
        else
            x.u += y.u;
    } else if (!strcmp(how, "mul")) {
        if (flt)
            x.f *= y.f;
        else
            x.u *= y.u;
    } else if (fg_num_is_nan(d, x) || fg_num_is_nan(d, y)) {
        x.f = NAN;
    } else if ((fg_num_key(d, y) < fg_num_key(d, x)) == !strcmp(how, "min")) {
        x = y;
    }
    fg_num_put(o, i, x);
}

static void
scatter_one(fg_tensor *o, int64_t i, const fg_tensor *u, int64_t k, const char *how)
{
    if (!strcmp(how, "none"))
        fg_tensor_move(o, i, u, k);
    else
        combine(o, i, u, k, how);
}

/* Updates run in row-major order: of equal indices the last wins. */
bool
fg_eval_scatter_elements(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *index = &c->in[1];
    int axis = (int)FG_GET(c->i, scatter_elements, axis).i;
    const char *how = FG_GET(c->i, scatter_elements, how).s;
    int64_t stride;
    fg_walk w;

    if (!fg_eval_copy(c) || !walk_index(c, axis, &w, &stride))
        return false;
    if (c->in[2].count != index->count)
        return fg_eval_error(c, "indices and updates differ in shape");
    if (x->dim[axis] == 0)
        return true;
    for (int64_t k = 0; k < index->count; k++, fg_walk_next(&w)) {
        int64_t i = place_on_axis(index, k, x->dim[axis]);

        scatter_one(&c->out[0], w.off[0] + i * stride, &c->in[2], k, how);
    }
    return true;
}

bool
fg_eval_scatter_nd(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *index = &c->in[1];
    const char *how = FG_GET(c->i, scatter_nd, how).s;
    int64_t n = index->dim[index->rank - 1], block = fg_span(x, (int)n, x->rank);
    int64_t tuples = fg_span(index, 0, index->rank - 1);

    if (!fg_eval_copy(c))
        return false;
    if (c->in[2].count != tuples * block)
        return fg_eval_error(c, "indices and updates differ in shape");
    if (x->count == 0)
        return true;
    for (int64_t k = 0; k < tuples; k++) {
        int64_t to = tuple_offset(x, 0, index, k);

        for (int64_t b = 0; b < block; b++)
            scatter_one(&c->out[0], to + b, &c->in[2], k * block + b, how);
    }
    return true;
}

/* ---- nonzero ----------------------------------------------------------------------- */

static bool
is_nonzero(const fg_tensor *x, int64_t k)
{
    fg_num v = fg_num_get(x, k);

    return fg_is_float(x->dtype) ? v.f != 0 : v.u != 0;
}

bool
fg_eval_nonzero_count(fg_evalcall *c)
{
    int64_t n = 0;

    for (int64_t k = 0; k < c->in[0].count; k++)
        n += is_nonzero(&c->in[0], k);
    fg_tensor_set_i64(&c->out[0], 0, n);
    return true;
}

bool
fg_eval_nonzero(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    fg_tensor *o = &c->out[0];
    fg_walk w = fg_walk_new(x->rank, x->dim);
    int64_t found = 0;

    for (int64_t k = 0; k < x->count; k++, fg_walk_next(&w)) {
        if (!is_nonzero(x, k))
            continue;
        for (int a = 0; a < x->rank && a < o->dim[0] && found < o->dim[1]; a++)
            fg_tensor_set_i64(o, a * o->dim[1] + found, w.at[a]);
        found++;
    }
    return found == o->dim[1] ||
           fg_eval_error(c, "%lld elements are not 0, the result has room for %lld",
                         (long long)found, (long long)o->dim[1]);
}
