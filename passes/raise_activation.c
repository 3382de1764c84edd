/* raise_activation.c - gelu and silu in elementary functions.
 *
 *     %e = erf (div %x, 1.4142135)             %t = tanh (mul 0.79788456, (add %x, (mul 0.044715, (pow %x, 3))))
 *     %y = mul (mul %x, 0.5), (add %e, 1)      %y = mul (mul %x, (add %t, 1)), 0.5
 *  => %y = gelu %x                          => %y = gelu_tanh %x
 */
#include "passes/raise.h"

static const double sqrt_2_pi = 0.7978845608028654, sqrt_half = 0.7071067811865476,
                    cubic = 0.044715;

/* z = c * x with a number c: that x. */
static fg_reg
without_scale(fg_raiser *r, fg_reg z, double *c)
{
    double v;
    *c = 1;
    for (;;) {
        const fg_inst *d = fg_def(r->m, z);
        int k = 0;
        if (fg_is_op(d, FG_OP_mul) && fg_raise_scalar(r, d->in[0], &v))
            k = 1;
        else if ((!fg_is_op(d, FG_OP_mul) && !fg_is_op(d, FG_OP_div)) ||
                 !fg_raise_scalar(r, d->in[1], &v) || v == 0)
            return z;
        *c = d->op == FG_OP_div ? *c / v : *c * v;
        fg_raise_part(r, z);
        z = d->in[k];
    }
}

/* z = a (x + b x^3), also written a x (1 + b x^2): that x; 0: neither. */
static fg_reg
cubic_in(fg_raiser *r, fg_reg z, double *a, double *b)
{
    fg_factors p, q, rest;
    if (!fg_raise_factor(r, z, &p))
        return 0;
    for (int j = 0; j < p.n; j++) {
        const fg_inst *d = fg_def(r->m, p.f[j]);
        rest = p;
        rest.f[j] = rest.f[--rest.n];
        for (int k = 0; fg_is_op(d, FG_OP_add) && k < 2; k++) {
            fg_reg x = d->in[k];
            if (!fg_raise_factor(r, d->in[1 - k], &q))
                continue;
            if (p.n > 1 && fg_raise_is(r, x, 1) && q.n > 0)
                x = q.f[0];
            else if (p.n > 1)
                continue;
            if (!fg_raise_is_power(r, &q, x, p.n > 1 ? 2 : 3, b) ||
                !fg_raise_is_power(r, &rest, x, p.n > 1, a))
                continue;
            fg_report_spelled(r->report,
                              p.n > 1 ? FG_SPELL_form_add_cubic_times_one
                                      : FG_SPELL_form_add_cubic_sum,
                              true);
            fg_raise_part(r, p.f[j]);
            return x;
        }
    }
    return 0;
}

/* What a function is of, when it is of what its idiom wants; else 0. A sigmoid may be of
 * anything: *scale is what it has of it. */
static fg_reg
argument(fg_raiser *r, const fg_inst *f, double *scale)
{
    double b;
    fg_reg z = f->in[0], x;
    if (f->op != FG_OP_tanh) {
        x = without_scale(r, z, scale);
        if (f->op == FG_OP_sigmoid || fg_raise_close(r, z, *scale, sqrt_half))
            return x;
        fg_raise_miss(r, f, "gelu", 3, "erf of %.9g x, not of x / sqrt 2", *scale);
        return 0;
    }
    x = cubic_in(r, z, scale, &b);
    if (!x)
        fg_raise_miss(r, f, "gelu_tanh", 2, "tanh is not of a (x + b x^3)");
    else if (fg_raise_close(r, z, *scale, sqrt_2_pi) && fg_raise_close(r, z, b, cubic))
        return x;
    else
        fg_raise_miss(r, f, "gelu_tanh", 3, "tanh of %.9g (x + %.9g x^3)", *scale, b);
    return 0;
}

/* Factor f is sigmoid(..), 1 + erf(..) or 1 + tanh(..): that function, else NULL. */
static fg_inst *
function_in(fg_raiser *r, fg_reg factor, double *plus)
{
    fg_inst *d = fg_def(r->m, factor);
    if (fg_is_op(d, FG_OP_sigmoid)) {
        *plus = 0;
        return fg_raise_part(r, factor);
    }
    for (int k = 0; fg_is_op(d, FG_OP_add) && k < 2; k++) {
        fg_inst *f = fg_def(r->m, d->in[k]);
        if ((fg_is_op(f, FG_OP_erf) || fg_is_op(f, FG_OP_tanh)) &&
            fg_raise_scalar(r, d->in[1 - k], plus)) {
            fg_raise_part(r, factor);
            return fg_raise_part(r, d->in[k]);
        }
    }
    return NULL;
}

/* The activation that root = p is, with factor k as its function; *x: of what. */
static fg_op
recognise(fg_raiser *r, fg_reg root, const fg_factors *p, int k, fg_reg *x)
{
    static const struct {
        fg_op function, idiom;
        double plus, times;
        fg_spelling row;
    } forms[] = {{FG_OP_sigmoid, FG_OP_silu, 0, 1, FG_SPELL_form_sigmoid_activation_of},
                 {FG_OP_erf, FG_OP_gelu, 1, 0.5, FG_SPELL_form_erf_activation_of},
                 {FG_OP_tanh, FG_OP_gelu_tanh, 1, 0.5, FG_SPELL_form_tanh_activation_of}};
    fg_factors rest = *p;
    double plus, scale, c;
    int n = 0;
    const fg_inst *f = function_in(r, p->f[k], &plus);
    if (!f)
        return FG_OP_NONE;
    while (forms[n].function != f->op)
        n++;
    const char *name = fg_op_info(forms[n].idiom)->name;
    rest.f[k] = rest.f[--rest.n];
    if (!fg_raise_close(r, root, plus, forms[n].plus))
        fg_raise_miss(r, f, name, 1, "%.9g + %s", plus, fg_op_info(f->op)->name);
    else if ((*x = argument(r, f, &scale)) == 0)
        ; /* it said why */
    else if (!fg_raise_is_power(r, &rest, *x, 1, &c)) {
        /* A sigmoid times something else is a gate, not a silu that failed. */
        if (f->op != FG_OP_sigmoid)
            fg_raise_miss(r, f, name, 2, "not times its own argument");
    } else if (f->op == FG_OP_sigmoid && scale != 1) {
        fg_raise_miss(r, f, name, 3, "sigmoid of %.9g x", scale);
    } else if (!fg_raise_close(r, root, c, forms[n].times))
        fg_raise_miss(r, f, name, 4, "times %.9g x, not %g x", c, forms[n].times);
    else {
        fg_report_spelled(r->report, forms[n].row, true);
        return forms[n].idiom;
    }
    fg_report_spelled(r->report, forms[n].row, false);
    return FG_OP_NONE;
}

bool
fg_raise_activation(fg_raiser *r, fg_inst *root)
{
    fg_factors p;
    fg_op op = FG_OP_NONE;
    fg_reg x = 0;
    if (!fg_raise_factor(r, root->out[0], &p) || p.n < 2)
        return false;
    for (int k = 0; k < p.n && op == FG_OP_NONE; k++)
        op = recognise(r, root->out[0], &p, k, &x);
    if (op == FG_OP_NONE || !fg_type_equal(fg_rt(r->m, x), fg_rt(r->m, root->out[0])))
        return false;
    fg_build b = fg_raise_begin(r, root);
    fg_reg y = fg_emit1(&b, op, x);
    if (y)
        fg_raise_replace(r, root, y, fg_op_info(op)->name);
    return y != 0;
}
