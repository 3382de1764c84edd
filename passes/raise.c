/* raise.c - exporters' spellings of norms and activations become one instruction.
 *
 *     %m = reduce_mean (mul %x, %x) {axes=[2], keep=1}
 *     %r = recip (sqrt (add %m, 1e-05))           =>   %y = rmsnorm %x, %w {axis=2}
 *     %y = mul %w, (mul %x, %r)
 *
 * Every constant, axis, operand and exponent is compared; a value inside the pattern that
 * somebody else reads is simply computed twice at worst, because only the root is replaced and dce
 * removes what lost its last reader. Products are flattened first, so one matcher serves every
 * order of factors. Part of fuse_ops: the raised forms are what the code generators know.
 */
#include "passes/pass.h"
#include "passes/raise.h"

#include <math.h>

enum { FACTORS = 8, PARTS = 16 };

typedef struct raiser {
    fg_module *m;
    fg_report *report;
    int npart;
    fg_inst *part[PARTS]; /* matched so far, for the node names */
    bool changed;
} raiser;

static fg_inst *
def(raiser *r, fg_reg x)
{
    fg_inst *d = fg_def(r->m, x);
    if (d && r->npart < PARTS)
        r->part[r->npart++] = d;
    return d;
}

/* How far a constant may be off: what rounding to its type can do. */
static double
tolerance(fg_dtype d)
{
    return d == FG_f16 ? 1e-3 : d == FG_bf16 ? 8e-3 : 1e-6;
}

static bool
scalar(const raiser *r, fg_reg x, double *v)
{
    fg_exprs *ex = r->m->ex;
    return fg_const_splat(r->m, x, v) &&
           fg_e_is(ex, fg_type_count(ex, fg_rt(r->m, x)), 1);
}

static bool
near(const raiser *r, fg_reg like, double v, double want)
{
    return fabs(v - want) <= tolerance(fg_rt(r->m, like)->dtype) * fabs(want);
}

static bool
is_scalar(const raiser *r, fg_reg x, double want)
{
    double v;
    return scalar(r, x, &v) && near(r, x, v, want);
}

/* ---- products as lists of factors ------------------------------------------------------ */

typedef struct product {
    double c; /* scalar factors together */
    int n;
    fg_reg f[FACTORS];
} product;

/* x as c * f0 * f1 ..; small integer powers are repeated factors. False: too many. */
static bool
factor(raiser *r, fg_reg x, product *p, int depth)
{
    double v;
    const fg_inst *d = fg_def(r->m, x);
    if (scalar(r, x, &v)) {
        p->c *= v;
        return true;
    }
    if (d && depth < 6 && d->op == FG_OP_mul) {
        def(r, x);
        return factor(r, d->in[0], p, depth + 1) && factor(r, d->in[1], p, depth + 1);
    }
    if (d && d->op == FG_OP_div && scalar(r, d->in[1], &v) && v != 0) {
        def(r, x);
        p->c /= v;
        return factor(r, d->in[0], p, depth + 1);
    }
    int times = 1;
    if (d && d->op == FG_OP_pow && scalar(r, d->in[1], &v) && (v == 2 || v == 3)) {
        def(r, x);
        times = (int)v;
        x = d->in[0];
    }
    for (; times; times--) {
        if (p->n == FACTORS)
            return false;
        p->f[p->n++] = x;
    }
    return true;
}

static bool
factors(raiser *r, fg_reg x, product *p)
{
    *p = (product){.c = 1};
    return factor(r, x, p, 0);
}

static bool
power_of(const product *p, fg_reg x, int n)
{
    bool all = p->n == n;
    for (int k = 0; k < p->n; k++)
        all &= p->f[k] == x;
    return all;
}

/* x = other + want. */
static bool
plus_scalar(raiser *r, fg_reg x, double want, fg_reg *other)
{
    const fg_inst *d = def(r, x);
    for (int k = 0; fg_is_op(d, FG_OP_add) && k < 2; k++)
        if (is_scalar(r, d->in[k], want)) {
            *other = d->in[1 - k];
            return true;
        }
    return false;
}

/* ---- activations -------------------------------------------------------------------------- */

/* z = sqrt(2/pi) (x + 0.044715 x^3), also written x sqrt(2/pi) (1 + 0.044715 x^2). */
static bool
gelu_argument(raiser *r, fg_reg z, fg_reg x)
{
    product p, q;
    if (!factors(r, z, &p) || !near(r, z, p.c, 0.7978845608028654))
        return false;
    bool outer_x = p.n == 2 && (p.f[0] == x || p.f[1] == x);
    fg_reg sum = outer_x ? (p.f[0] == x ? p.f[1] : p.f[0]) : p.n == 1 ? p.f[0] : 0;
    fg_inst *d = sum ? def(r, sum) : NULL;
    for (int k = 0; fg_is_op(d, FG_OP_add) && k < 2; k++) {
        bool first = outer_x ? is_scalar(r, d->in[k], 1) : d->in[k] == x;
        if (first && factors(r, d->in[1 - k], &q) && near(r, z, q.c, 0.044715) &&
            power_of(&q, x, outer_x ? 2 : 3))
            return true;
    }
    return false;
}

/* x (1 + erf(x / sqrt 2)) / 2 and x (1 + tanh(..)) / 2 and x sigmoid(x). */
static fg_op
activation(raiser *r, fg_reg root, fg_reg *x)
{
    product p, z;
    fg_reg inner;
    if (!factors(r, root, &p) || p.n != 2)
        return FG_OP_NONE;
    for (int k = 0; k < 2; k++) {
        *x = p.f[1 - k];
        const fg_inst *d = fg_def(r->m, p.f[k]);
        if (p.c == 1 && fg_is_op(d, FG_OP_sigmoid) && d->in[0] == *x) {
            def(r, p.f[k]);
            return FG_OP_silu;
        }
        if (!near(r, root, p.c, 0.5) || !fg_is_op(d, FG_OP_add) ||
            !plus_scalar(r, p.f[k], 1, &inner))
            continue;
        const fg_inst *f = def(r, inner);
        if (fg_is_op(f, FG_OP_erf) && factors(r, f->in[0], &z) && power_of(&z, *x, 1) &&
            near(r, inner, z.c, 0.7071067811865476))
            return FG_OP_gelu;
        if (fg_is_op(f, FG_OP_tanh) && gelu_argument(r, f->in[0], *x))
            return FG_OP_gelu_tanh;
    }
    return FG_OP_NONE;
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* root = x / sqrt(v), in any spelling. */
static bool
over_root(raiser *r, fg_reg root, fg_reg *x, fg_reg *v)
{
    const fg_inst *d = def(r, root);
    if (fg_is_op(d, FG_OP_div)) {
        const fg_inst *s = def(r, d->in[1]);
        *x = d->in[0];
        *v = fg_is_op(s, FG_OP_sqrt) ? s->in[0] : 0;
        return *v != 0;
    }
    for (int k = 0; fg_is_op(d, FG_OP_mul) && k < 2; k++) {
        const fg_inst *s = fg_def(r->m, d->in[k]), *q = NULL;
        *x = d->in[1 - k];
        if (fg_is_op(s, FG_OP_rsqrt)) {
            *v = s->in[0];
        } else if (fg_is_op(s, FG_OP_recip)) {
            q = fg_def(r->m, s->in[0]);
        } else if (fg_is_op(s, FG_OP_div) && is_scalar(r, s->in[0], 1)) {
            q = fg_def(r->m, s->in[1]);
        } else if (fg_is_op(s, FG_OP_pow) && is_scalar(r, s->in[1], -0.5)) {
            *v = s->in[0];
        } else {
            continue;
        }
        if (q && q->op != FG_OP_sqrt)
            continue;
        def(r, d->in[k]);
        if (q) {
            def(r, q->out[0]);
            *v = q->in[0];
        }
        return true;
    }
    return false;
}

/* v = mean(y * y over the last axes) + eps; *axis the first of them. */
static bool
mean_square(raiser *r, fg_reg v, fg_reg y, int *axis, double *eps)
{
    const fg_inst *d = def(r, v), *mean = NULL;
    for (int k = 0; fg_is_op(d, FG_OP_add) && k < 2 && !mean; k++)
        if (scalar(r, d->in[k], eps))
            mean = def(r, d->in[1 - k]);
    if (!fg_is_op(mean, FG_OP_reduce_mean) || !FG_GET(mean, reduce_mean, keep).i)
        return false;
    const fg_attr *axes = &FG_GET(mean, reduce_mean, axes);
    int rank = fg_rt(r->m, mean->in[0])->rank;
    *axis = rank - axes->n;
    for (int k = 0; k < axes->n; k++)
        if (axes->is[k] != *axis + k)
            return false;
    product p;
    return axes->n > 0 && factors(r, mean->in[0], &p) && p.c == 1 && power_of(&p, y, 2) &&
           fg_rt(r->m, y)->rank == rank;
}

/* y = x - mean(x) over the axes from `axis`. */
static bool
centred(raiser *r, fg_reg y, int axis, fg_reg *x)
{
    const fg_inst *d = fg_def(r->m, y);
    if (!fg_is_op(d, FG_OP_sub))
        return false;
    const fg_inst *mean = fg_def(r->m, d->in[1]);
    if (!fg_is_op(mean, FG_OP_reduce_mean) || mean->in[0] != d->in[0] ||
        !FG_GET(mean, reduce_mean, keep).i)
        return false;
    const fg_attr *axes = &FG_GET(mean, reduce_mean, axes);
    if (axes->n != fg_rt(r->m, y)->rank - axis)
        return false;
    for (int k = 0; k < axes->n; k++)
        if (axes->is[k] != axis + k)
            return false;
    def(r, y);
    def(r, d->in[1]);
    *x = d->in[0];
    return true;
}

/* A scale or bias: at most the normalised axes, apart from leading ones. */
static bool
fits_axes(const raiser *r, fg_reg w, fg_reg x, int axis)
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
emit_norm(raiser *r, fg_inst *root, fg_op op, int axis, double eps, int nin,
          const fg_reg *in)
{
    fg_build b = fg_build_before(root);
    fg_reg got[3];
    for (int k = r->npart - 1; k >= 0; k--)
        fg_build_add_nodes(&b, r->part[k]);
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

static void
replace(raiser *r, fg_inst *root, fg_reg with, const char *rule)
{
    fg_report_fusion(r->report, rule);
    fg_replace_uses(root->block, root->out[0], with);
    r->changed = true;
}

static bool
raise_norm(raiser *r, fg_inst *root)
{
    fg_reg x, v = 0, y;
    int axis;
    double eps;
    if (!over_root(r, root->out[0], &y, &v) || !mean_square(r, v, y, &axis, &eps))
        return false;
    bool layer = centred(r, y, axis, &x);
    fg_reg n = emit_norm(r, root, layer ? FG_OP_layernorm : FG_OP_rmsnorm, axis, eps, 1,
                         layer ? &x : &y);
    if (n)
        replace(r, root, n, layer ? "layernorm" : "rmsnorm");
    return n != 0;
}

/* mul(norm(x), w) and add(layernorm(x, w), b): the operand joins its norm. */
static bool
raise_affine(raiser *r, fg_inst *root, const uint32_t *count, uint32_t known)
{
    for (int k = 0; k < 2; k++) {
        fg_inst *n = fg_def(r->m, root->in[k]);
        bool layer = fg_is_op(n, FG_OP_layernorm);
        if (!n || (!layer && n->op != FG_OP_rmsnorm) ||
            (n->out[0] < known && count[n->out[0]] > 1))
            continue;
        bool scale = root->op == FG_OP_mul && n->nin == 1;
        bool bias = root->op == FG_OP_add && layer && n->nin == 2;
        int axis =
            (int)(layer ? FG_GET(n, layernorm, axis).i : FG_GET(n, rmsnorm, axis).i);
        if ((!scale && !bias) || !fits_axes(r, root->in[1 - k], n->in[0], axis))
            continue;
        double eps = layer ? FG_GET(n, layernorm, eps).f : FG_GET(n, rmsnorm, eps).f;
        fg_reg in[3] = {n->in[0], scale ? root->in[1 - k] : n->in[1], root->in[1 - k]};
        r->part[r->npart++] = n;
        fg_reg y = emit_norm(r, root, n->op, axis, eps, n->nin + 1, in);
        if (y)
            replace(r, root, y, layer ? "layernorm-affine" : "rmsnorm-scale");
        return y != 0;
    }
    return false;
}

static bool
raise_activation(raiser *r, fg_inst *root)
{
    fg_reg x;
    fg_op op = activation(r, root->out[0], &x);
    if (op == FG_OP_NONE || !fg_type_equal(fg_rt(r->m, x), fg_rt(r->m, root->out[0])))
        return false;
    fg_build b = fg_build_before(root);
    for (int k = r->npart - 1; k >= 0; k--)
        fg_build_add_nodes(&b, r->part[k]);
    fg_reg y = fg_emit1(&b, op, x);
    if (y)
        replace(r, root, y, fg_op_info(op)->name);
    return y != 0;
}

static void
raise_block(raiser *r, fg_block *b, const uint32_t *count, uint32_t known)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nregion; k++)
            raise_block(r, i->region[k], count, known);
        if (i->op != FG_OP_mul && i->op != FG_OP_div && i->op != FG_OP_add)
            continue;
        if (!fg_is_float(fg_rt(r->m, i->out[0])->dtype))
            continue;
        bool (*const rules[])(raiser *, fg_inst *) = {raise_activation, raise_norm};
        bool done = false;
        for (size_t k = 0; k < 2 && !done && i->op != FG_OP_add; k++) {
            r->npart = 0;
            done = rules[k](r, i);
        }
        r->npart = 0;
        if (!done && i->op == FG_OP_add)
            done = fg_raise_rope(r->m, i, r->report);
        r->changed |= done;
        if (!done && i->op != FG_OP_div)
            raise_affine(r, i, count, known);
    }
}

bool
fg_raise_idioms(fg_module *m, fg_passctx *cx)
{
    raiser r = {.m = m, .report = cx->report};
    uint32_t known = m->nreg, *count = fg_count_uses(m, cx->scratch);
    raise_block(&r, m->body, count, known);
    return r.changed;
}
