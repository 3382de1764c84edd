/* scale_weights.c - scales and shifts by channel move into the product before them.
 *
 *     %y = conv %x, %w, %b                          $4 = each $w[m, ..] times $s[m]
 *     %p = mul %y, %s : s[M,1,1]              =>    $5 = $b[m] $s[m] + $t[m]
 *     %z = add %p, %t : t[M,1,1]                    %z = conv %x, %4, %5
 *
 * The law. A product is linear in its right side, and each of its results is made of the
 * weights of one channel alone: (sum x w + b) s + t = sum x (w s) + (b s + t). So a batch
 * norm with known statistics costs nothing. It holds behind a convolution, a transposed one
 * and a matrix product (whose channels are columns, and whose bias is an add that stays) when
 *
 *     nobody else reads the product, or what stands between,
 *     the weight, the bias and the channel's numbers are constants,
 *     nobody else reads the weight: else there would be two of it,
 *     no number that is made is infinite or none at all,
 *     all is f32: in halves, a rounded weight errs more than a rounded result.
 *
 * In front of a convolution the same is no law: its padding is 0, not the shift.
 */
#include <math.h>

#include "passes/pass.h"
#include "passes/rewrite.h"

typedef struct scaler {
    fg_module *m;
    fg_passctx *cx;
    fg_rewrite w;
    const uint32_t *uses; /* of the registers known at the start */
    uint32_t nuses;
} scaler;

/* A product and the channels of its result. */
typedef struct layer {
    fg_inst *product, *add; /* add: of its bias, behind a matrix product; or NULL */
    fg_reg bias;            /* 0: none */
    double sign;            /* that the bias comes with */
    int64_t n;              /* channels */
    int after;              /* axes behind theirs */
} layer;

/* What this pass makes is read once. */
static bool
sole_use(const scaler *s, fg_reg r)
{
    return r >= s->nuses || s->uses[r] == 1;
}

/* ---- finding ----------------------------------------------------------------------- */

static bool
is_shift(const fg_inst *i)
{
    return i->op == FG_OP_add || i->op == FG_OP_sub;
}

/* r is a constant with a number for each of n channels and `after` axes behind theirs, and no
 * more. */
static bool
by_channel(const scaler *s, fg_reg r, int64_t n, int after)
{
    const fg_weight *w = fg_reg_weight(s->m, r);
    int64_t count = 1;
    if (!w || !w->data || w->dtype != FG_f32)
        return false;
    for (int k = 0; k < w->rank; k++)
        if (__builtin_mul_overflow(count, w->dim[k], &count))
            return false;
    int at = w->rank - 1 - after;
    return count == n && (count == 1 || (at >= 0 && w->dim[at] == count));
}

/* Where the constant stands in an operation that scales or shifts; -1: nowhere. */
static int
constant_operand(const scaler *s, const fg_inst *i)
{
    if (i->nin != 2 || !(is_shift(i) || i->op == FG_OP_mul || i->op == FG_OP_div))
        return -1;
    if (fg_reg_weight(s->m, i->in[1]))
        return 1;
    return fg_op_is(i->op, FG_T_COMM) && fg_reg_weight(s->m, i->in[0]) ? 0 : -1;
}

static bool
is_product(const fg_inst *i)
{
    return i && (i->op == FG_OP_conv || i->op == FG_OP_conv_transpose ||
                 i->op == FG_OP_matmul);
}

/* The product behind r, perhaps with its bias, in i's block. */
static bool
find_layer(const scaler *s, const fg_inst *i, fg_reg r, layer *l)
{
    fg_inst *d = fg_def(s->m, r);
    *l = (layer){.sign = 1};
    if (d && is_shift(d)) {
        int k = constant_operand(s, d);
        l->add = d;
        l->bias = k < 0 ? 0 : d->in[k];
        l->sign = d->op == FG_OP_sub ? -1 : 1;
        d = k < 0 ? NULL : fg_def(s->m, d->in[1 - k]);
    }
    if (!is_product(d) || d->block != i->block || (l->add && d->op != FG_OP_matmul))
        return false;
    const fg_type *t = fg_rt(s->m, d->out[0]);
    l->product = d;
    l->after = d->op == FG_OP_matmul ? 0 : t->rank - 2;
    if (!l->add && d->nin > 2)
        l->bias = d->in[2];
    return t->dtype == FG_f32 && fg_type_equal(t, fg_rt(s->m, i->out[0])) &&
           (!l->add || fg_type_equal(t, fg_rt(s->m, l->add->out[0]))) &&
           fg_e_const(s->m->ex, t->dim[t->rank - 1 - l->after], &l->n);
}

/* Why i cannot move into the layer; NULL: it can. */
static const char *
obstacle(const scaler *s, const fg_inst *i, const layer *l)
{
    const fg_weight *w = fg_reg_weight(s->m, l->product->in[1]);
    if (!sole_use(s, l->product->out[0]) || (l->add && !sole_use(s, l->add->out[0])))
        return "the product is read elsewhere too";
    if (l->bias && !by_channel(s, l->bias, l->n, 0))
        return "the bias is no constant by channel";
    if (is_shift(i))
        return NULL;
    if (!w || !w->data || w->dtype != FG_f32)
        return "the weight is no f32 constant";
    if (!sole_use(s, l->product->in[1]))
        return "the weight is read elsewhere too";
    if ((double)w->bytes > s->cx->param[FG_PARAM_scale_weights_bytes])
        return "the weight has more than scale_weights{bytes}";
    return NULL;
}

/* ---- numbers ----------------------------------------------------------------------- */

static bool
all_finite(const float *v, int64_t n)
{
    bool ok = true;
    for (int64_t k = 0; k < n; k++)
        ok &= isfinite(v[k]) != 0;
    return ok;
}

/* The weight with each channel times by[channel]; NULL when a number leaves the range. */
static float *
scaled_weight(scaler *s, const layer *l, const double *by)
{
    const fg_inst *p = l->product;
    const fg_weight *w = fg_reg_weight(s->m, p->in[1]);
    int64_t count = (int64_t)(w->bytes / sizeof(float));
    /* Runs of `inner` elements belong to one channel; `width` channels stand side by side,
     * `rows` times, before those of the next group. */
    int64_t width = l->n, rows = count + 1, inner = 1;
    if (p->op == FG_OP_conv || (p->op == FG_OP_matmul && FG_GET(p, matmul, trans_b).i))
        for (int k = p->op == FG_OP_conv ? 1 : w->rank - 1; k < w->rank; k++)
            inner *= w->dim[k];
    if (p->op == FG_OP_conv_transpose) {
        width = w->dim[1];
        rows = w->dim[0] / FG_GET(p, conv_transpose, group).i;
        for (int k = 2; k < w->rank; k++)
            inner *= w->dim[k];
    }
    float *v = fg_dup(s->cx->scratch, w->data, w->bytes);
    for (int64_t run = 0; run * inner < count; run++) {
        double f = by[run % width + run / width / rows * width];
        for (int64_t k = run * inner; k < (run + 1) * inner; k++)
            v[k] = (float)(v[k] * f);
    }
    return all_finite(v, count) ? v : NULL;
}

/* Numbers of a constant by channel, as i applies them; without constant: `none`. */
static double *
channel_numbers(scaler *s, const layer *l, fg_reg r, double none)
{
    double *v = FG_NEWN(s->cx->scratch, double, (size_t)l->n);
    for (int64_t k = 0; k < l->n; k++)
        if (!r || !fg_const_f64(s->m, r, k, &v[k]))
            v[k] = none;
    return v;
}

/* The bias behind i: NULL when a number leaves the range. */
static float *
moved_bias(scaler *s, const layer *l, const fg_inst *i, const double *c)
{
    double *old = channel_numbers(s, l, l->bias, 0);
    float *v = FG_NEWN(s->cx->scratch, float, (size_t)l->n);
    for (int64_t k = 0; k < l->n; k++) {
        double b = l->sign * old[k];
        v[k] = (float)(!is_shift(i)         ? b * c[k]
                       : i->op == FG_OP_sub ? b - c[k]
                                            : b + c[k]);
    }
    return all_finite(v, l->n) ? v : NULL;
}

/* ---- rewriting --------------------------------------------------------------------- */

/* The product once more with these operands, and the add behind it. */
static fg_reg
emit_layer(fg_build *b, const layer *l, fg_reg w, fg_reg bias)
{
    const fg_inst *p = l->product;
    bool separate = p->op == FG_OP_matmul;
    fg_reg in[3] = {p->in[0], w, bias};
    fg_inst *c = fg_inst_begin(b, p->op, separate || !bias ? 2 : 3, in);
    memcpy(c->attr, p->attr, sizeof *c->attr * (size_t)fg_op_info(p->op)->nattr);
    const fg_type given = *fg_rt(b->m, p->out[0]);
    if (!fg_inst_finish(b, c, &given, 1))
        return 0;
    return separate && bias ? fg_emit2(b, FG_OP_add, c->out[0], bias) : c->out[0];
}

/* The register to read instead of i's result; 0: i stays. */
static fg_reg
moved(scaler *s, fg_inst *i)
{
    layer l;
    int k = constant_operand(s, i);
    if (k < 0 || !find_layer(s, i, i->in[1 - k], &l) ||
        !by_channel(s, i->in[k], l.n, l.after) ||
        (l.product->op == FG_OP_matmul && !l.add && is_shift(i)))
        return 0;
    const char *why = obstacle(s, i, &l);
    double *c = channel_numbers(s, &l, i->in[k], 1);
    for (int64_t j = 0; i->op == FG_OP_div && j < l.n; j++)
        c[j] = 1 / c[j];
    bool biased = l.bias || is_shift(i);
    float *bias = !why && biased ? moved_bias(s, &l, i, c) : NULL;
    float *weight = !why && !is_shift(i) ? scaled_weight(s, &l, c) : NULL;
    if (!why && ((biased && !bias) || (!is_shift(i) && !weight)))
        why = "a number would leave the range of f32";
    if (why) {
        fg_report_miss(s->cx->report, "scale_weights", fg_inst_where(s->m, i), why);
        return 0;
    }
    fg_build b = fg_build_before2(i, l.product, i);
    fg_reg w = l.product->in[1], r = 0;
    if (l.add)
        fg_build_add_nodes(&b, l.add);
    if (weight) {
        const fg_weight old = *fg_reg_weight(s->m, w);
        w = fg_emit_const(&b, FG_f32, old.rank, old.dim, weight);
    }
    if (bias)
        r = fg_emit_const(&b, FG_f32, 1, &l.n, bias);
    fg_report_fusion(s->cx->report, weight ? "scale into weights" : "shift into bias");
    return w && (r || !bias) ? emit_layer(&b, &l, w, r) : 0;
}

static void
walk(scaler *s, fg_block *b)
{
    fg_each_inst(b, i) {
        fg_reg fresh = s->m->nreg;
        fg_rewrite_operands(&s->w, i);
        for (int k = 0; k < i->nregion; k++)
            walk(s, i->region[k]);
        fg_reg x = i->nout == 1 ? moved(s, i) : 0;
        if (x)
            fg_rewrite_replace(&s->w, i, x, fresh);
    }
}

fg_progress
fg_pass_scale_weights(fg_module *m, fg_passctx *cx)
{
    scaler s = {m, cx, fg_rewrite_new(m, cx->scratch), fg_count_uses(m, cx->scratch),
                m->nreg};
    int errors = m->cx->nerror;
    fg_report_forget_misses(cx->report, "scale_weights");
    walk(&s, m->body);
    fg_rewrite_done(&s.w);
    if (m->cx->nerror > errors)
        return FG_FAILED;
    return s.w.changed ? FG_CHANGED : FG_SAME;
}
