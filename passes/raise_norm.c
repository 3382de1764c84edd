/* raise_norm.c - layer norms and root mean square norms in small steps.
 *
 *     %d = sub %x, (reduce_mean %x {axes=[2], keep=1})
 *     %v = reduce_mean (mul %d, %d) {axes=[2], keep=1}         =>  %y = layernorm %x {axis=2}
 *     %y = div %d, (sqrt (add %v, 1e-05))
 *
 * Without the first line it is rmsnorm. A mean may also be a sum over the number of
 * elements. Scale and bias join in a second step, wherever they are multiplied and added.
 */
#include "passes/raise.h"

/* root = x / sqrt(v), in any spelling; the instruction that takes the root. */
static fg_inst *
over_root(fg_raiser *r, fg_reg root, fg_reg *x, fg_reg *v)
{
    const fg_inst *d = fg_raise_part(r, root);
    if (fg_is_op(d, FG_OP_div)) {
        fg_inst *s = fg_raise_part(r, d->in[1]);
        *x = d->in[0];
        *v = fg_is_op(s, FG_OP_sqrt) ? s->in[0] : 0;
        r->form = FG_SPELL_form_sqrt_divided_by;
        return *v ? s : NULL;
    }
    for (int k = 0; fg_is_op(d, FG_OP_mul) && k < 2; k++) {
        fg_inst *s = fg_def(r->m, d->in[k]), *q = s;
        *x = d->in[1 - k];
        if (fg_is_op(s, FG_OP_recip)) {
            q = fg_def(r->m, s->in[0]);
            r->form = FG_SPELL_form_recip_times_root;
        } else if (fg_is_op(s, FG_OP_div) && fg_raise_is(r, s->in[0], 1)) {
            q = fg_def(r->m, s->in[1]);
            r->form = FG_SPELL_form_div_times_root;
        } else if (fg_is_op(s, FG_OP_rsqrt)) {
            r->form = FG_SPELL_form_rsqrt_times_root;
        } else if (fg_is_op(s, FG_OP_pow) && fg_raise_is(r, s->in[1], -0.5)) {
            r->form = FG_SPELL_form_pow_times_root;
        } else {
            continue;
        }
        if (!q || (q != s && q->op != FG_OP_sqrt))
            continue;
        fg_raise_part(r, d->in[k]);
        fg_raise_part(r, q->out[0]);
        *v = q->in[0];
        return q;
    }
    return NULL;
}

/* m is the mean of *x over its last axes, kept: the first of them; -1: it is none. A sum
 * divided by the number of what it summed is one. */
static int
mean_over_last(fg_raiser *r, fg_reg m, fg_reg *x)
{
    fg_exprs *ex = r->m->ex;
    fg_inst *d = fg_raise_part(r, m);
    fg_factors p = {.c = 1};
    if (!fg_is_op(d, FG_OP_reduce_mean)) {
        if (!fg_raise_factor(r, m, &p) || p.n != 1)
            return -1;
        d = fg_raise_part(r, p.f[0]);
        if (!fg_is_op(d, FG_OP_reduce_sum))
            return -1;
    }
    /* Both begin with the attributes axes, keep. */
    const fg_attr *axes = &d->attr[0];
    const fg_type *t = fg_rt(r->m, d->in[0]);
    int axis = t->rank - axes->n;
    fg_expr n = fg_ec(ex, 1);
    int64_t number;
    if (!d->attr[1].i || axes->n == 0)
        return -1;
    for (int k = 0; k < axes->n; k++) {
        if (axes->is[k] != axis + k)
            return -1;
        n = fg_emul(ex, n, t->dim[axis + k]);
    }
    if (d->op == FG_OP_reduce_sum &&
        (!fg_e_const(ex, n, &number) || !fg_raise_close(r, m, p.c * (double)number, 1)))
        return -1;
    *x = d->in[0];
    fg_report_spelled(r->report,
                      d->op == FG_OP_reduce_sum ? FG_SPELL_form_reduce_sum_mean
                                                : FG_SPELL_form_reduce_mean_mean,
                      true);
    return axis;
}

/* v = mean(y * y over the last axes) + eps: the first axis; -1: not so. */
static int
mean_square(fg_raiser *r, const fg_inst *core, fg_reg v, fg_reg y, double *eps)
{
    const fg_inst *d = fg_raise_part(r, v);
    int axis = -1;
    fg_reg square = 0;
    for (int k = 0; fg_is_op(d, FG_OP_add) && k < 2 && axis < 0; k++)
        if (fg_raise_scalar(r, d->in[k], eps))
            axis = mean_over_last(r, d->in[1 - k], &square);
    if (axis < 0) {
        for (int k = 0; fg_is_op(d, FG_OP_add) && k < 2; k++)
            if (fg_is_op(fg_def(r->m, d->in[k]), FG_OP_reduce_mean))
                fg_raise_miss(r, core, "norm", 1,
                              "%s + %s is not a mean over last axes, kept, and a number",
                              fg_type_text(r->m, fg_rt(r->m, d->in[0])),
                              fg_type_text(r->m, fg_rt(r->m, d->in[1])));
        return -1;
    }
    fg_factors p;
    if (!fg_raise_factor(r, square, &p) || p.n < 1)
        return -1;
    double c;
    if (fg_raise_is_power(r, &p, y, 2, &c) && c == 1 &&
        fg_rt(r->m, y)->rank == fg_rt(r->m, square)->rank)
        return axis;
    fg_raise_miss(r, core, "norm", 2,
                  "the mean is of %.9g times %d factors, not of the square of %%%s", p.c,
                  p.n, fg_ri(r->m, y)->name);
    return -1;
}

/* y = x - mean(x) over the axes from `axis`. */
static bool
centred(fg_raiser *r, fg_reg y, int axis, fg_reg *x)
{
    const fg_inst *d = fg_def(r->m, y);
    fg_reg of;
    int parts = r->npart;
    if (fg_is_op(d, FG_OP_sub) && mean_over_last(r, d->in[1], &of) == axis &&
        of == d->in[0]) {
        fg_raise_part(r, y);
        *x = of;
        return true;
    }
    r->npart = parts;
    return false;
}

/* A scale or bias: at most the normalised axes, apart from leading ones. */
static bool
fits_axes(const fg_raiser *r, fg_reg w, fg_reg x, int axis)
{
    const fg_type *tw = fg_rt(r->m, w), *tx = fg_rt(r->m, x);
    if (tw->rank > tx->rank || tw->dtype != tx->dtype)
        return false;
    for (int k = 0; k < tw->rank; k++) {
        int at = tx->rank - tw->rank + k;
        if (at < axis ? !fg_e_is(r->m->ex, tw->dim[k], 1) : tw->dim[k] != tx->dim[at])
            return false;
    }
    return true;
}

/* The norm as an instruction, in place of root. */
static fg_reg
emit_norm(fg_raiser *r, fg_inst *root, fg_op op, int axis, double eps, int nin,
          const fg_reg *in)
{
    fg_build b = fg_raise_begin(r, root);
    fg_reg got[3];
    for (int k = 0; k < nin; k++) {
        /* Scale and bias without leading ones: the shape of the normalised axes. */
        const fg_type *t = fg_rt(r->m, in[k]);
        int want = fg_rt(r->m, in[0])->rank - axis;
        got[k] = k && t->rank > want
                     ? fg_emit_reshape(&b, in[k], want, t->dim + t->rank - want)
                     : in[k];
    }
    fg_inst *i = fg_inst_begin(&b, op, nin, got);
    bool layer = op == FG_OP_layernorm;
    (layer ? &FG_SET(i, layernorm, axis) : &FG_SET(i, rmsnorm, axis))->i = axis;
    (layer ? &FG_SET(i, layernorm, eps) : &FG_SET(i, rmsnorm, eps))->f = eps;
    i = fg_inst_finish(&b, i, NULL, 0);
    return i ? i->out[0] : 0;
}

bool
fg_raise_norm(fg_raiser *r, fg_inst *root)
{
    fg_reg x, v = 0, y;
    double eps;
    const fg_inst *core = over_root(r, root->out[0], &y, &v);
    int axis = core ? mean_square(r, core, v, y, &eps) : -1;
    if (axis < 0)
        return false;
    bool layer = centred(r, y, axis, &x);
    fg_reg n = emit_norm(r, root, layer ? FG_OP_layernorm : FG_OP_rmsnorm, axis, eps, 1,
                         layer ? &x : &y);
    if (!n)
        return false;
    fg_raise_replace(r, root, n, layer ? "layernorm" : "rmsnorm");
    return fg_report_spelled(r->report, r->form, true);
}

/* mul(norm(x), w) and add(layernorm(x, w), b): the operand joins its norm. */
bool
fg_raise_norm_affine(fg_raiser *r, fg_inst *root)
{
    for (int k = 0; k < 2; k++) {
        fg_inst *n = fg_def(r->m, root->in[k]);
        bool layer = fg_is_op(n, FG_OP_layernorm);
        if (!n || (!layer && n->op != FG_OP_rmsnorm) ||
            (n->out[0] < r->known && r->count[n->out[0]] > 1))
            continue;
        bool scale = root->op == FG_OP_mul && n->nin == 1;
        bool bias = root->op == FG_OP_add && layer && n->nin == 2;
        int axis =
            (int)(layer ? FG_GET(n, layernorm, axis).i : FG_GET(n, rmsnorm, axis).i);
        if (!scale && !bias)
            continue;
        if (!fits_axes(r, root->in[1 - k], n->in[0], axis)) {
            fg_raise_miss(r, n, scale ? "scale" : "bias", 5,
                          "%s is not for each element of axes %d.. of %s",
                          fg_type_text(r->m, fg_rt(r->m, root->in[1 - k])), axis,
                          fg_type_text(r->m, fg_rt(r->m, n->in[0])));
            continue;
        }
        double eps = layer ? FG_GET(n, layernorm, eps).f : FG_GET(n, rmsnorm, eps).f;
        fg_reg in[3] = {n->in[0], scale ? root->in[1 - k] : n->in[1], root->in[1 - k]};
        fg_raise_part(r, n->out[0]);
        fg_reg y = emit_norm(r, root, n->op, axis, eps, n->nin + 1, in);
        if (y)
            fg_raise_replace(r, root, y, layer ? "layernorm-affine" : "rmsnorm-scale");
        return y != 0;
    }
    return false;
}
