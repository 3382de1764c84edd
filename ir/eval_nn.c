/* eval_nn.c - matrix products, attention and rotary embedding.
 *
 *     %y = attention %q, %k, %v, %mask {scale=0.125, causal=1} : f32[B,12,S,64]
 *
 * Products run over k outermost, so that every inner loop is a row of the second operand
 * added to a row of the result; attention is one query at a time: all its scores, their
 * softmax, the weighted sum of the values.
 */
#include "ir/eval_impl.h"

#include <float.h>
#include <math.h>

/* ---- matrix products --------------------------------------------------------------- */

/* A tensor as a batch of matrices. A vector counts as one matrix, whichever way. */
static fg_tensor
batch_of(const fg_tensor *t)
{
    fg_tensor lead = *t;

    lead.rank = t->rank > 2 ? t->rank - 2 : 0;
    lead.count = fg_span(t, 0, lead.rank);
    return lead;
}

static int64_t
matrix_size(const fg_tensor *t)
{
    return fg_span(t, t->rank > 2 ? t->rank - 2 : 0, t->rank);
}

/* v[k] -= zero point k of one matrix of z, from `off` on; one zero point serves all. */
static void
subtract_zeros(const fg_tensor *z, int64_t off, int64_t k, int64_t n, fg_num *v)
{
    bool one = matrix_size(z) == 1;

    for (int64_t j = 0; j < n; j++)
        v[j].u -= fg_num_get(z, one ? off : off + k + j).u;
}

static bool
zeros_fit(const fg_tensor *z, int64_t n)
{
    return matrix_size(z) == 1 || matrix_size(z) == n;
}

/* n elements as whole steps, which are 1/127 of their largest magnitude. */
static float
in_steps(fg_num *a, int64_t n)
{
    float most = 0;

    for (int64_t k = 0; k < n; k++)
        most = fmaxf(most, fabsf((float)a[k].f));
    float steps = most > 0 ? 127 / most : 0;
    for (int64_t k = 0; k < n; k++)
        a[k].f = (double)nearbyintf((float)a[k].f * steps);
    return most / 127;
}

static void
round_row(fg_num *a, int64_t n, int64_t run)
{
    for (int64_t lo = 0; lo < n; lo += run) {
        int64_t hi = n - lo < run ? n : lo + run;
        double step = in_steps(a + lo, hi - lo);

        for (int64_t k = lo; k < hi; k++)
            a[k].f *= step;
    }
}

bool
fg_eval_quantize_rows(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    int64_t run = FG_GET(c->i, quantize_rows, run).i, n = x->dim[x->rank - 1], at = 0;
    fg_num *a = FG_NEWN(c->scratch, fg_num, (size_t)(run < n ? run : n) + 1);

    for (int64_t row = 0; row < x->count; row += n)
        for (int64_t lo = 0; lo < n; lo += run) {
            int64_t size = n - lo < run ? n - lo : run;

            fg_num_load(x, row + lo, 1, size, a);
            fg_tensor_set_f64(&c->out[1], at++, in_steps(a, size));
            for (int64_t k = 0; k < size; k++)
                fg_tensor_set_f64(&c->out[0], row + lo + k,
                                  (isnan(a[k].f) ? 0 : a[k].f) + 128);
        }
    return true;
}

/* zx and zy may be NULL. Rows of x have one zero point each, columns of y likewise. */
static bool
product(fg_evalcall *c, bool trans_a, bool trans_b, int64_t round, const fg_tensor *zx,
        const fg_tensor *zy)
{
    const fg_tensor *x = &c->in[0], *y = &c->in[1];
    fg_tensor *o = &c->out[0];
    int64_t m = o->dim[o->rank - 2], n = o->dim[o->rank - 1];
    int64_t depth = x->dim[x->rank - (trans_a ? 2 : 1)];
    bool flt = fg_is_float(x->dtype);
    const fg_tensor *part[FG_WALK_MAX] = {x, y, zx ? zx : x, zy ? zy : y};
    fg_walk w = fg_walk_new(o->rank - 2, o->dim);
    fg_num *a = FG_NEWN(c->scratch, fg_num, (size_t)depth);
    fg_num *all = FG_NEWN(c->scratch, fg_num, (size_t)(m * depth));
    fg_num *row = FG_NEWN(c->scratch, fg_num, (size_t)n);
    fg_num *acc = FG_NEWN(c->scratch, fg_num, (size_t)(m * n));

    for (int k = 0; k < FG_WALK_MAX; k++) {
        fg_tensor lead = batch_of(part[k]);

        if (!fg_walk_broadcast(&w, &lead))
            return fg_eval_error(c, "leading axes do not broadcast");
    }
    if (x->dim[x->rank - (trans_a ? 1 : 2)] != m ||
        y->dim[y->rank - (trans_b ? 2 : 1)] != n ||
        y->dim[y->rank - (trans_b ? 1 : 2)] != depth || (zx && !zeros_fit(zx, m)) ||
        (zy && !zeros_fit(zy, n)))
        return fg_eval_error(c, "sizes do not fit");
    if (o->count == 0)
        return true;
    for (int64_t b = 0; b < o->count / (m * n); b++, fg_walk_next(&w)) {
        int64_t at_x = w.off[0] * m * depth, at_y = w.off[1] * depth * n;

        for (int64_t i = 0; i < m; i++) {
            fg_num_load(x, at_x + i * (trans_a ? 1 : depth), trans_a ? m : 1, depth, a);
            if (round)
                round_row(a, depth, round);
            for (int64_t k = 0; zx && k < depth; k++)
                subtract_zeros(zx, w.off[2] * matrix_size(zx), i, 1, &a[k]);
            memcpy(all + i * depth, a, (size_t)depth * sizeof *a);
        }
        memset(acc, 0, (size_t)(m * n) * sizeof *acc);
        for (int64_t k = 0; k < depth; k++) {
            fg_num_load(y, at_y + k * (trans_b ? 1 : n), trans_b ? depth : 1, n, row);
            if (zy)
                subtract_zeros(zy, w.off[3] * matrix_size(zy), 0, n, row);
            for (int64_t i = 0; i < m; i++)
                fg_num_add_scaled(flt, acc + i * n, all[i * depth + k], row, 1, n);
        }
        fg_num_store(o, b * m * n, m * n, acc);
    }
    return true;
}

bool
fg_eval_matmul(fg_evalcall *c)
{
    return product(c, FG_GET(c->i, matmul, trans_a).i, FG_GET(c->i, matmul, trans_b).i,
                   FG_GET(c->i, matmul, round).i, NULL, NULL);
}

bool
fg_eval_matmul_int(fg_evalcall *c)
{
    const fg_tensor *zx = c->i->nin > 2 && c->in[2].data ? &c->in[2] : NULL;
    const fg_tensor *zy = c->i->nin > 3 && c->in[3].data ? &c->in[3] : NULL;

    return product(c, false, false, 0, zx, zy);
}

/* ---- panels ------------------------------------------------------------------------ */

bool
fg_eval_panels(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    fg_tensor *o = &c->out[0];
    bool trans = FG_GET(c->i, panels, trans).i;
    int64_t depth = o->dim[1], width = o->dim[2], n = x->dim[trans ? 0 : 1];

    for (int64_t i = 0; i < o->count; i++) {
        int64_t col = i / (depth * width) * width + i % width, k = i / width % depth;
        if (col < n)
            fg_tensor_move(o, i, x, trans ? col * depth + k : k * n + col);
        else
            fg_num_put(o, i, (fg_num){0});
    }
    return true;
}

bool
fg_eval_matmul_panels(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *y = &c->in[1];
    fg_tensor *o = &c->out[0];
    int64_t depth = y->dim[1], width = y->dim[2], n = o->dim[o->rank - 1];

    for (int64_t i = 0; i < o->count; i++) {
        int64_t row = i / n, col = i % n;
        int64_t at = col / width * depth * width + col % width;
        fg_num acc = {0};
        for (int64_t k = 0; k < depth; k++) {
            fg_num v = fg_num_get(y, at + k * width);
            fg_num_add_scaled(true, &acc, fg_num_get(x, row * depth + k), &v, 1, 1);
        }
        fg_num_put(o, i, acc);
    }
    return true;
}

/* ---- attention --------------------------------------------------------------------- */

/* Where scores or weights may be: (integer - zero) scale. */
typedef struct grid {
    fg_roundat at;
    double scale, zero, lo, hi;
    bool wide; /* computed in f64 */
} grid;

typedef struct attention {
    int64_t s, t, d, e; /* queries, keys, columns of q and k, columns of v */
    double scale, cap;
    double hidden; /* score of a key that limits or a bool hide */
    int64_t causal, left, right;
    const fg_tensor *mask; /* NULL: none */
    int64_t mask_stride[4], mask_keys;
    fg_num *q, *k, *v, *w; /* one query; keys and values of one head; weights */
    int ngrid;
    grid grid[FG_MAXROUND];
} attention;

static const fg_tensor *
operand(const fg_evalcall *c, int k)
{
    return k < c->i->nin && c->in[k].data ? &c->in[k] : NULL;
}

/* Broadcast from the right to [B,H,S,T]; a last axis shorter than T leaves the rest
 * masked, except that a single element serves every key. */
static bool
mask_fits(fg_evalcall *c, attention *at)
{
    int64_t shape[4] = {c->in[0].dim[0], c->in[0].dim[1], at->s, at->t}, s = 1;

    at->mask = operand(c, 3);
    at->mask_keys = at->t;
    if (!at->mask)
        return true;
    if (at->mask->rank > 4)
        return false;
    for (int k = at->mask->rank - 1, to = 3; k >= 0; k--, to--) {
        int64_t n = at->mask->dim[k];

        if (n != 1 && n != shape[to] && (to != 3 || n > at->t))
            return false;
        at->mask_stride[to] = n == 1 ? 0 : s;
        if (to == 3 && n != 1)
            at->mask_keys = n;
        s *= n;
    }
    return true;
}

static void
grids_new(fg_evalcall *c, attention *at)
{
    fg_rounding round[FG_MAXROUND];

    at->ngrid = fg_attention_rounds(c->i, round);
    for (int k = 0; k < at->ngrid; k++) {
        const fg_tensor *scale = &c->in[6 + 2 * k], *zero = &c->in[7 + 2 * k];
        int bits = fg_dtypes[zero->dtype].bits;
        double n = ldexp(1, bits);
        bool sign = fg_dtypes[zero->dtype].cls == FG_CLASS_SINT;

        at->grid[k] =
            (grid){round[k].at,       fg_tensor_f64(scale, 0), fg_tensor_f64(zero, 0),
                   sign ? -n / 2 : 0, (sign ? n / 2 : n) - 1,  scale->dtype == FG_f64};
    }
}

/* x through quantize and dequantize, wherever `where` asks for it. The quotient is
 * rounded to f32 first, as in quantize. */
static double
rounded(const attention *at, fg_roundat where, double x)
{
    for (int k = 0; k < at->ngrid; k++) {
        const grid *g = &at->grid[k];

        if (g->at != where)
            continue;
        x /= g->scale;
        x = nearbyint(g->wide ? x : (float)x) + g->zero;
        x = x < g->lo ? g->lo : x > g->hi ? g->hi : x;
        x = (x - g->zero) * g->scale;
    }
    return x;
}

static bool
attention_new(fg_evalcall *c, attention *at)
{
    const fg_tensor *q = &c->in[0], *k = &c->in[1], *v = &c->in[2], *sink = operand(c, 4);
    const fg_tensor *lengths = operand(c, 5);
    const fg_inst *i = c->i;
    bool mean = !strcmp(FG_GET(i, attention, empty).s, "mean");

    *at = (attention){.s = q->dim[2],
                      .t = k->dim[2],
                      .d = q->dim[3],
                      .e = v->dim[3],
                      .scale = FG_GET(i, attention, scale).f,
                      .cap = FG_GET(i, attention, softcap).f,
                      .hidden = mean ? -FLT_MAX : -INFINITY,
                      .causal = FG_GET(i, attention, causal).i,
                      .left = FG_GET(i, attention, left).i,
                      .right = FG_GET(i, attention, right).i};
    if (k->dim[3] != at->d || v->dim[2] != at->t || k->dim[0] != q->dim[0] ||
        v->dim[0] != q->dim[0] || k->dim[1] != v->dim[1] ||
        (k->dim[1] ? q->dim[1] % k->dim[1] : q->dim[1]) != 0)
        return fg_eval_error(c, "sizes of query, key and value do not fit");
    if (!mask_fits(c, at))
        return fg_eval_error(c, "mask does not broadcast");
    if ((sink && sink->count != q->dim[1]) || (lengths && lengths->count != q->dim[0]))
        return fg_eval_error(c, "sinks or lengths do not fit");
    grids_new(c, at);
    at->q = FG_NEWN(c->scratch, fg_num, (size_t)at->d);
    at->k = FG_NEWN(c->scratch, fg_num, (size_t)(at->t * at->d));
    at->v = FG_NEWN(c->scratch, fg_num, (size_t)(at->t * at->e));
    at->w = FG_NEWN(c->scratch, fg_num, (size_t)at->t);
    return true;
}

/* Far outside is outside: keeps positions clear of overflow. */
static int64_t
position(int64_t p)
{
    const int64_t far = (int64_t)1 << 60;

    return p < -far ? -far : p > far ? far : p;
}

/* Score of key j for the query in at->q, which stands at key position p. */
static double
score(const attention *at, int64_t j, int64_t p, int64_t length, int64_t mask_row)
{
    double x = 0;

    if (j >= length || (at->causal && j > p) || (at->left >= 0 && j < p - at->left) ||
        (at->right >= 0 && j > p + at->right) || j >= at->mask_keys)
        return at->hidden;
    for (int64_t k = 0; k < at->d; k++)
        x += at->q[k].f * at->k[j * at->d + k].f;
    x = rounded(at, FG_ROUND_SCORES, x * at->scale);
    if (at->cap != 0)
        x = at->cap * tanh(x / at->cap);
    if (at->mask) {
        int64_t m = mask_row + j * at->mask_stride[3];

        if (at->mask->dtype != FG_bool)
            x += fg_tensor_f64(at->mask, m);
        else if (!fg_tensor_i64(at->mask, m))
            return at->hidden;
    }
    return rounded(at, FG_ROUND_MASKED, x);
}

/* One query's result from the scores in at->w: softmax with the sink, then the sum of the
 * values. A key at -inf has no weight, whatever its value holds. */
static void
weigh(const attention *at, const fg_tensor *sink, int64_t head, bool zero, fg_num *out)
{
    double top = sink ? fg_tensor_f64(sink, head) : -INFINITY, sum = 0;
    bool empty = true;

    for (int64_t j = 0; j < at->t; j++) {
        top = at->w[j].f > top ? at->w[j].f : top;
        empty &= at->w[j].f == -INFINITY;
    }
    for (int64_t e = 0; e < at->e; e++)
        out[e].f = empty && !zero && !sink && at->t ? NAN : 0;
    if (empty)
        return;
    if (sink)
        sum = exp(fg_tensor_f64(sink, head) - top);
    for (int64_t j = 0; j < at->t; j++)
        sum += exp(at->w[j].f - top);
    for (int64_t j = 0; j < at->t; j++)
        if (at->w[j].f != -INFINITY)
            fg_num_add_scaled(
                true, out,
                (fg_num){.f = rounded(at, FG_ROUND_WEIGHTS, exp(at->w[j].f - top) / sum)},
                at->v + j * at->e, 1, at->e);
}

bool
fg_eval_attention(fg_evalcall *c)
{
    const fg_tensor *q = &c->in[0], *k = &c->in[1], *lengths = operand(c, 5);
    int64_t heads = q->dim[1], groups = k->dim[1], offset;
    fg_expr given = FG_GET(c->i, attention, offset).e;
    bool zero = strcmp(FG_GET(c->i, attention, empty).s, "nan") != 0;
    attention at;
    fg_num *out;

    if (!attention_new(c, &at))
        return false;
    out = FG_NEWN(c->scratch, fg_num, (size_t)at.e);
    for (int64_t bh = 0; bh < q->dim[0] * heads; bh++) {
        int64_t b = bh / heads, h = bh % heads;
        int64_t from = b * groups + h / (heads / groups);
        int64_t length = lengths ? position(fg_tensor_i64(lengths, b)) : at.t;

        offset = length - at.s;
        if (given != FG_E_BAD && !fg_eval_expr(c, given, &offset))
            return false;
        fg_num_load(k, from * at.t * at.d, 1, at.t * at.d, at.k);
        fg_num_load(&c->in[2], from * at.t * at.e, 1, at.t * at.e, at.v);
        for (int64_t i = 0; i < at.s; i++) {
            int64_t row =
                b * at.mask_stride[0] + h * at.mask_stride[1] + i * at.mask_stride[2];

            fg_num_load(q, (bh * at.s + i) * at.d, 1, at.d, at.q);
            for (int64_t j = 0; j < at.t; j++)
                at.w[j].f = score(&at, j, i + position(offset), length, row);
            weigh(&at, operand(c, 4), h, zero, out);
            fg_num_store(&c->out[0], (bh * at.s + i) * at.e, at.e, out);
        }
    }
    return true;
}

/* ---- rotary embedding -------------------------------------------------------------- */

bool
fg_eval_rope(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    bool pairs = FG_GET(c->i, rope, interleaved).i;
    int64_t n = x->dim[x->rank - 1], d = FG_GET(c->i, rope, dim).i;
    int64_t half = (d ? d : n) / 2;
    fg_walk w = fg_walk_new(x->rank - 1, x->dim);

    if (2 * half > n)
        return fg_eval_error(c, "%lld columns of %lld", (long long)(2 * half),
                             (long long)n);
    for (int k = 1; k <= 2; k++) {
        fg_tensor lead = c->in[k];

        lead.rank--;
        if (c->in[k].dim[lead.rank] != half || !fg_walk_broadcast(&w, &lead))
            return fg_eval_error(c, "angles do not broadcast");
    }
    for (int64_t row = 0; row < x->count; row += n, fg_walk_next(&w)) {
        for (int64_t k = 2 * half; k < n; k++)
            fg_tensor_move(&c->out[0], row + k, x, row + k);
        for (int64_t k = 0; k < half; k++) {
            int64_t i = row + (pairs ? 2 * k : k),
                    j = row + (pairs ? 2 * k + 1 : k + half);
            double p = fg_tensor_f64(x, i), q = fg_tensor_f64(x, j);
            double cs = fg_tensor_f64(&c->in[1], w.off[0] * half + k);
            double sn = fg_tensor_f64(&c->in[2], w.off[1] * half + k);

            fg_tensor_set_f64(&c->out[0], i, p * cs - q * sn);
            fg_tensor_set_f64(&c->out[0], j, q * cs + p * sn);
        }
    }
    return true;
}
