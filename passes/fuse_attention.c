/* fuse_attention.c - raise scale, mask, softmax and the two products to one instruction.
 *
 *     %s = matmul %q, %k {trans_b=1}
 *     %t = mul %s, 0.125
 *     %u = add %t, %mask                    =>   %y = attention %q, %k, %v, %mask {scale=0.125}
 *     %p = softmax %u {axis=3}
 *     %y = matmul %p, %v
 *
 * Starting at each softmax the pass walks down to the product with V and up to the product
 * of Q and K, keeping the invariant
 *
 *     scores = outer * here + mask          (here: the register the walk stands at)
 *
 * Every step is checked: constants are scalars, the axis is the last, nothing on the way is
 * read by anyone else. A step that does not fit ends the candidate with the reason, which
 * the report keeps. Nothing is removed: dce collects what lost its reader.
 *
 * Finite fill values (finfo.min, -10000) are kept as what they are, a sum, so rows that
 * are masked throughout come out as they did: where(c, x, fill) becomes x + (c ? 0 : fill), the same number
 * as long as |fill| swallows x. Fills that do not are refused.
 */
#include "passes/pass.h"

#include <math.h>
#include <stdio.h>

enum { MASKS = 4, EXTRA = 16 };

/* A term of the mask: a tensor added, or where(cond, x, fill). */
typedef struct maskterm {
    fg_reg value, cond;
    double fill, outer;
} maskterm;

typedef struct uses {
    uint32_t n; /* registers known when the pass began */
    uint32_t *count;
    fg_inst **first; /* a reader; the isnan when there is one */
} uses;

/* One candidate. */
typedef struct walk {
    fg_module *m;
    const uses *u;
    fg_inst *softmax, *qk, *pv;
    fg_type shape; /* of the scores, with the most axes they had on the way */
    double outer;  /* factor between the final scores and where the walk stands */
    double softcap;
    bool guarded; /* rows of NaN become zero */
    int nmask;
    maskterm mask[MASKS + 1];
    int nextra;
    fg_inst *extra[EXTRA]; /* what lies between, for the node names */
    const char *reason;    /* why not */
} walk;

/* ---- walking ------------------------------------------------------------------------- */

static bool
miss(walk *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char text[256];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->reason = fg_strdup(w->m->a, text);
    return false;
}

static bool
sole_reader(const walk *w, fg_reg r)
{
    return r < w->u->n && w->u->count[r] == 1;
}

/* A floating-point scalar constant, whatever its shape. */
static bool
scalar(const walk *w, fg_reg r, double *v)
{
    fg_exprs *ex = w->m->ex;
    return fg_is_float(fg_rt(w->m, r)->dtype) && fg_const_splat(w->m, r, v) &&
           fg_e_is(ex, fg_type_count(ex, fg_rt(w->m, r)), 1);
}

/* x = in * c or in / c with a scalar c. */
static bool
scaled(const walk *w, const fg_inst *d, fg_reg *in, double *c)
{
    if (fg_is_op(d, FG_OP_mul))
        for (int k = 0; k < 2; k++)
            if (scalar(w, d->in[k], c)) {
                *in = d->in[1 - k];
                return true;
            }
    if (fg_is_op(d, FG_OP_div) && scalar(w, d->in[1], c) && *c != 0) {
        *in = d->in[0];
        *c = 1 / *c;
        return true;
    }
    return false;
}

static bool
is_weight(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    while (d && (fg_op_is(d->op, FG_T_VIEW) || d->op == FG_OP_cast ||
                 d->op == FG_OP_dequantize))
        d = fg_def(m, d->in[0]);
    return fg_is_op(d, FG_OP_const);
}

/* Does a product of two computed tensors lie above r? Looks through what the walk passes. */
static bool
leads_to_product(const walk *w, fg_reg r, int depth)
{
    const fg_inst *d = fg_def(w->m, r);
    if (!d || depth > 12)
        return false;
    switch (d->op) {
    case FG_OP_matmul:
        return !is_weight(w->m, d->in[0]) && !is_weight(w->m, d->in[1]);
    case FG_OP_cast:
    case FG_OP_reshape:
    case FG_OP_tanh:
    case FG_OP_div:
    case FG_OP_quantize:
    case FG_OP_dequantize:
        return leads_to_product(w, d->in[0], depth + 1);
    case FG_OP_add:
    case FG_OP_mul:
        return leads_to_product(w, d->in[0], depth + 1) ||
               leads_to_product(w, d->in[1], depth + 1);
    case FG_OP_where:
        return leads_to_product(w, d->in[1], depth + 1);
    default:
        return false;
    }
}

static void
pass_by(walk *w, fg_inst *i)
{
    if (w->nextra < EXTRA)
        w->extra[w->nextra++] = i;
}

static void
add_mask(walk *w, fg_reg value, fg_reg cond, double fill)
{
    if (w->nmask == MASKS) {
        w->nmask++; /* the caller notices */
        return;
    }
    w->mask[w->nmask++] = (maskterm){value, cond, fill, w->outer};
}

/* add: one side goes on, the other is a mask. */
static bool
walk_add(walk *w, const fg_inst *d, fg_reg *r)
{
    for (int k = 0; k < 2; k++) {
        if (!leads_to_product(w, d->in[k], 0) || !sole_reader(w, d->in[k]))
            continue;
        const fg_type *inner = fg_rt(w->m, d->in[k]), *whole = fg_rt(w->m, d->out[0]);
        if (!fg_type_equal(inner, whole))
            return miss(w, "the mask is larger than the scores");
        if (w->softcap != 0)
            return miss(w, "a mask inside the softcap");
        add_mask(w, d->in[1 - k], 0, 0);
        *r = d->in[k];
        return true;
    }
    return miss(w, "neither side of an addition comes from a product of its own");
}

static bool
walk_where(walk *w, const fg_inst *d, fg_reg *r)
{
    double fill;
    int side = scalar(w, d->in[2], &fill) ? 1 : scalar(w, d->in[1], &fill) ? 2 : 0;
    if (side == 2)
        return miss(w, "where keeps the scores on its false side");
    if (!side)
        return miss(w, "where does not fill with a scalar");
    if (!(fill <= -1e4))
        return miss(w, "where fills with %g, which is not a mask", fill);
    if (!fg_type_equal(fg_rt(w->m, d->in[1]), fg_rt(w->m, d->out[0])))
        return miss(w, "the condition of where is larger than the scores");
    if (w->softcap != 0)
        return miss(w, "a mask inside the softcap");
    add_mask(w, 0, d->in[0], fill);
    *r = d->in[1];
    return true;
}

/* c * tanh(x / c): *r stands at x / c afterwards, softcap is c and the scale counts as 1 there. */
static bool
walk_tanh(walk *w, const fg_inst *d, fg_reg *r)
{
    double c = w->outer;
    if (w->softcap != 0 || !(c > 0))
        return miss(w, "tanh that is not a softcap");
    /* scores = c tanh(y): with y = (scale q k) / c, so the walk goes on with outer 1 and
     * multiplies by c at the end. */
    w->softcap = c;
    w->outer = 1;
    *r = d->in[0];
    return true;
}

static bool
walk_reshape(walk *w, const fg_inst *d, fg_reg *r)
{
    const fg_type *in = fg_rt(w->m, d->in[0]), *out = fg_rt(w->m, d->out[0]);
    if (in->rank < 2 || out->rank < 2 ||
        in->dim[in->rank - 1] != out->dim[out->rank - 1] ||
        in->dim[in->rank - 2] != out->dim[out->rank - 2])
        return miss(w, "a reshape mixes queries, keys and heads");
    *r = d->in[0];
    return true;
}

/* From the softmax's operand up to the product of Q and K. */
static bool
walk_up(walk *w, fg_reg r)
{
    w->shape = *fg_rt(w->m, r);
    w->outer = 1;
    for (;;) {
        fg_inst *d = fg_def(w->m, r);
        fg_reg in;
        double c;
        if (!d || d->block != w->softmax->block)
            return miss(w, "the scores come from outside");
        if (!sole_reader(w, r))
            return miss(w, "%%%s is also read elsewhere", w->m->reg[r].name);
        if (d->op == FG_OP_matmul) {
            w->qk = d;
            break;
        }
        pass_by(w, d);
        if (scaled(w, d, &in, &c)) {
            w->outer *= c;
            r = in;
            continue;
        }
        bool fits;
        switch (d->op) {
        case FG_OP_add:
            fits = walk_add(w, d, &r);
            break;
        case FG_OP_where:
            fits = walk_where(w, d, &r);
            break;
        case FG_OP_tanh:
            fits = walk_tanh(w, d, &r);
            break;
        case FG_OP_reshape:
            fits = walk_reshape(w, d, &r);
            break;
        case FG_OP_cast:
            fits = fg_is_float(fg_rt(w->m, d->in[0])->dtype) ||
                   miss(w, "scores cast from integers");
            r = d->in[0];
            break;
        default:
            return miss(w, "%s between the product and the softmax",
                        fg_op_info(d->op)->name);
        }
        if (!fits)
            return false;
        if (w->nmask > MASKS)
            return miss(w, "more than %d masks", MASKS);
        /* Masks name shapes of the widest scores seen: the 4-D ones of [B*H,S,T] chains. */
        if (fg_rt(w->m, r)->rank > w->shape.rank)
            w->shape = *fg_rt(w->m, r);
    }
    return true;
}

/* From the softmax's result down to the product with V. */
static bool
walk_down(walk *w)
{
    fg_reg r = w->softmax->out[0];
    for (;;) {
        fg_inst *u = w->u->first[r];
        if (w->u->count[r] == 0)
            return miss(w, "nobody reads the probabilities");
        if (w->u->count[r] == 2 && fg_is_op(u, FG_OP_isnan)) {
            /* where(isnan(p), 0, p): rows without keys become zero. */
            fg_inst *g = w->u->first[u->out[0]];
            double zero;
            if (!fg_is_op(g, FG_OP_where) || g->in[0] != u->out[0] || g->in[2] != r ||
                !scalar(w, g->in[1], &zero) || zero != 0 || !sole_reader(w, u->out[0]))
                return miss(w, "the probabilities are tested for NaN but not guarded");
            w->guarded = true;
            r = g->out[0];
            continue;
        }
        if (w->u->count[r] != 1)
            return miss(w, "the probabilities are also read elsewhere");
        if (u->block != w->softmax->block)
            return miss(w, "the probabilities are read in another region");
        if (u->op == FG_OP_matmul) {
            if (u->in[0] != r || FG_GET(u, matmul, trans_a).i)
                return miss(w, "the probabilities are not the left side of the product");
            w->pv = u;
            return true;
        }
        if (u->op == FG_OP_cast && fg_is_float(fg_rt(w->m, u->out[0])->dtype)) {
            r = u->out[0];
        } else if (u->op == FG_OP_reshape) {
            const fg_type *in = fg_rt(w->m, r), *out = fg_rt(w->m, u->out[0]);
            if (out->rank < 2 || in->dim[in->rank - 1] != out->dim[out->rank - 1] ||
                in->dim[in->rank - 2] != out->dim[out->rank - 2])
                return miss(w, "a reshape mixes queries, keys and heads");
            if (out->rank > w->shape.rank)
                w->shape = *out;
            r = u->out[0];
        } else {
            return miss(w, "%s between the softmax and the product",
                        fg_op_info(u->op)->name);
        }
    }
}

/* ---- emitting ------------------------------------------------------------------------- */

/* A scalar factor of an operand moves into the scale: through views, it is the same number. */
static fg_reg
peel_scale(walk *w, fg_reg r)
{
    fg_reg in;
    double c;
    while (scaled(w, fg_def(w->m, r), &in, &c) &&
           fg_type_equal(fg_rt(w->m, in), fg_rt(w->m, r))) {
        w->outer *= c;
        r = in;
    }
    return r;
}

/* reshape, but an ancestor that has the shape already is taken instead. */
static fg_reg
reshaped(fg_build *b, fg_reg x, int rank, const fg_expr *dims)
{
    fg_module *m = b->m;
    fg_type want = fg_type_make(fg_rt(m, x)->dtype, rank, dims);
    for (;;) {
        if (fg_type_equal(fg_rt(m, x), &want))
            return x;
        const fg_inst *d = fg_def(m, x);
        if (!fg_is_op(d, FG_OP_reshape))
            return fg_emit_reshape(b, x, rank, dims);
        x = d->in[0];
    }
}

/* x with its last two axes swapped, looking through reshapes of the leading axes. */
static fg_reg
swap_last2(fg_build *b, fg_reg x)
{
    fg_module *m = b->m;
    const fg_type *t = fg_rt(m, x);
    int n = t->rank;
    const fg_inst *d = fg_def(m, x);
    if (fg_is_op(d, FG_OP_reshape)) {
        const fg_inst *tr = fg_def(m, d->in[0]);
        const fg_type *ti = fg_rt(m, d->in[0]);
        int ni = ti->rank;
        bool leading = ni >= 2 && ti->dim[ni - 1] == t->dim[n - 1] &&
                       ti->dim[ni - 2] == t->dim[n - 2];
        if (leading && fg_is_op(tr, FG_OP_transpose)) {
            const int64_t *perm = FG_GET(tr, transpose, perm).is;
            bool swap = perm[ni - 1] == ni - 2 && perm[ni - 2] == ni - 1;
            for (int k = 0; k < ni - 2; k++)
                swap &= perm[k] == k;
            if (swap) {
                fg_type s = *t;
                s.dim[n - 1] = t->dim[n - 2];
                s.dim[n - 2] = t->dim[n - 1];
                return reshaped(b, tr->in[0], n, s.dim);
            }
        }
    }
    int64_t perm[FG_MAXRANK];
    for (int k = 0; k < n; k++)
        perm[k] = k < n - 2 ? k : 2 * n - 3 - k;
    if (fg_is_op(d, FG_OP_transpose)) { /* compose, so that what is below shows */
        const int64_t *inner = FG_GET(d, transpose, perm).is;
        int64_t both[FG_MAXRANK];
        for (int k = 0; k < n; k++)
            both[k] = inner[perm[k]];
        return fg_emit_transpose(b, d->in[0], both);
    }
    return fg_emit_transpose(b, x, perm);
}

/* [B,G,T,D] below reshape(expand([B,G,1,T,D] -> [B,G,R,T,D])) -> [B,G*R,T,D]; else x. */
static fg_reg
peel_groups(fg_build *b, fg_reg x)
{
    fg_module *m = b->m;
    const fg_inst *d = fg_def(m, x), *e = d ? fg_def(m, d->nin ? d->in[0] : 0) : NULL;
    if (!fg_is_op(d, FG_OP_reshape) || !fg_is_op(e, FG_OP_expand))
        return x;
    const fg_type *t = fg_rt(m, x), *wide = fg_rt(m, e->out[0]),
                  *thin = fg_rt(m, e->in[0]);
    if (t->rank != 4 || wide->rank != 5 || thin->rank != 5 ||
        !fg_e_is(m->ex, thin->dim[2], 1))
        return x;
    for (int k = 0; k < 5; k++)
        if (k != 2 && thin->dim[k] != wide->dim[k])
            return x;
    if (t->dim[0] != wide->dim[0] || t->dim[2] != wide->dim[3] ||
        t->dim[3] != wide->dim[4])
        return x;
    fg_expr dims[4] = {thin->dim[0], thin->dim[1], thin->dim[3], thin->dim[4]};
    return reshaped(b, e->in[0], 4, dims);
}

/* An operand of rank 2..4 as [B,H,rows,cols], with the leading shape of the scores. */
static fg_reg
to_rank4(walk *w, fg_build *b, fg_reg x)
{
    fg_exprs *ex = w->m->ex;
    const fg_type *t = fg_rt(w->m, x);
    fg_expr dims[4];
    if (t->rank == 4)
        return x;
    dims[2] = t->dim[t->rank - 2];
    dims[3] = t->dim[t->rank - 1];
    dims[0] = dims[1] = fg_ec(ex, 1);
    if (t->rank == 3 && w->shape.rank == 4 && !fg_e_is(ex, t->dim[0], 1)) {
        dims[0] = w->shape.dim[0];
        dims[1] = w->shape.dim[1];
        if (fg_emul(ex, dims[0], dims[1]) != t->dim[0])
            return 0;
    } else if (t->rank == 3) {
        dims[0] = t->dim[0];
    }
    return reshaped(b, x, 4, dims);
}

static fg_reg
mask_term(fg_build *b, const maskterm *k, fg_dtype d)
{
    if (k->cond)
        return fg_emit3(b, FG_OP_where, k->cond, fg_emit_f(b, d, 0),
                        fg_emit_f(b, d, k->fill * k->outer));
    fg_reg v = fg_emit_cast(b, k->value, d);
    return k->outer == 1 ? v : fg_emit2(b, FG_OP_mul, v, fg_emit_f(b, d, k->outer));
}

/* One mask operand: a lone where(c, x, -inf) is the condition itself, else the sum. 0 and
 * *ok: none. */
static fg_reg
combined_mask(walk *w, fg_build *b, bool *ok)
{
    fg_reg sum = 0;
    *ok = true;
    if (w->nmask == 0)
        return 0;
    if (w->nmask == 1 && w->mask[0].cond && isinf(w->mask[0].fill)) {
        sum = w->mask[0].cond;
    } else {
        for (int k = 0; k < w->nmask; k++) {
            fg_reg t = mask_term(b, &w->mask[k], FG_f32);
            sum = k ? fg_emit2(b, FG_OP_add, sum, t) : t;
        }
    }
    *ok = sum != 0;
    if (sum && fg_rt(w->m, sum)->rank > 4) {
        /* [1,B,H,S,T] and the like: leading ones may go. */
        const fg_type *t = fg_rt(w->m, sum);
        int lead = t->rank - 4;
        for (int k = 0; k < lead; k++)
            if (!fg_e_is(w->m->ex, t->dim[k], 1))
                return *ok = false, 0;
        sum = fg_emit_reshape(b, sum, 4, t->dim + lead);
    }
    return sum;
}

/* The mask's axes must be those of [B,H,S,T] (from the right), each equal or 1. */
static bool
mask_fits(walk *w, fg_reg mask, fg_reg q, fg_reg k)
{
    const fg_type *t = fg_rt(w->m, mask), *tq = fg_rt(w->m, q), *tk = fg_rt(w->m, k);
    fg_expr want[4] = {tq->dim[0], tq->dim[1], tq->dim[2], tk->dim[2]};
    for (int a = 0; a < t->rank; a++)
        if (!fg_e_is(w->m->ex, t->dim[a], 1) && t->dim[a] != want[4 - t->rank + a])
            return miss(w, "the mask %s does not line up with the scores",
                        fg_type_text(w->m, t));
    return true;
}

static bool
operands(walk *w, fg_build *b, fg_reg *q, fg_reg *k, fg_reg *v)
{
    *q = peel_scale(w, w->qk->in[0]);
    *k = peel_scale(w, w->qk->in[1]);
    *v = w->pv->in[1];
    if (FG_GET(w->qk, matmul, trans_a).i)
        *q = swap_last2(b, *q);
    if (!FG_GET(w->qk, matmul, trans_b).i)
        *k = peel_scale(w, swap_last2(b, *k));
    if (FG_GET(w->pv, matmul, trans_b).i)
        *v = swap_last2(b, *v);
    if (fg_rt(w->m, *q)->rank > 4 || fg_rt(w->m, *k)->rank > 4 ||
        fg_rt(w->m, *v)->rank > 4)
        return miss(w, "more than four axes");
    *q = to_rank4(w, b, *q);
    *k = to_rank4(w, b, *k);
    *v = to_rank4(w, b, *v);
    if (!*q || !*k || !*v)
        return miss(w, "batch and heads cannot be told apart");
    fg_reg gk = peel_groups(b, *k), gv = peel_groups(b, *v);
    if (fg_rt(w->m, gk)->dim[1] == fg_rt(w->m, gv)->dim[1]) {
        *k = gk;
        *v = gv;
    }
    return true;
}

/* Keys and values must have the queries' batch, and a head count that divides theirs. */
static bool
heads_fit(walk *w, fg_build *b, fg_reg q, fg_reg *kv)
{
    fg_exprs *ex = w->m->ex;
    const fg_type *tq = fg_rt(w->m, q);
    fg_type t = *fg_rt(w->m, *kv);
    int64_t h, g;
    if (t.dim[0] != tq->dim[0]) {
        if (!fg_e_is(ex, t.dim[0], 1))
            return miss(w, "batches differ");
        t.dim[0] = tq->dim[0];
        *kv = fg_emit_expand(b, *kv, 4, t.dim);
    }
    if (t.dim[1] == tq->dim[1] || fg_e_is(ex, t.dim[1], 1))
        return true;
    if (!fg_e_const(ex, tq->dim[1], &h) || !fg_e_const(ex, t.dim[1], &g) || g == 0 ||
        h % g)
        return miss(w, "%s heads of keys for those of the queries",
                    fg_type_text(w->m, &t));
    return true;
}

static bool
emit(walk *w)
{
    fg_module *m = w->m;
    fg_build b = fg_build_before2(w->pv, w->qk, w->softmax);
    fg_build_add_nodes(&b, w->pv);
    for (int k = 0; k < w->nextra; k++)
        fg_build_add_nodes(&b, w->extra[k]);
    fg_reg q, k, v;
    bool ok;
    if (!operands(w, &b, &q, &k, &v) || !heads_fit(w, &b, q, &k) ||
        !heads_fit(w, &b, q, &v))
        return false;
    if (fg_rt(m, k)->dim[1] != fg_rt(m, v)->dim[1])
        return miss(w, "keys and values have different head counts");
    fg_reg mask = combined_mask(w, &b, &ok);
    if (!ok)
        return miss(w, "the mask has more than four axes");
    if (mask && !mask_fits(w, mask, q, k))
        return false;
    fg_dtype d = fg_rt(m, q)->dtype;
    k = fg_emit_cast(&b, k, d);
    v = fg_emit_cast(&b, v, d);
    fg_inst *i =
        fg_inst_begin(&b, FG_OP_attention, mask ? 4 : 3, (fg_reg[]){q, k, v, mask});
    FG_SET(i, attention, scale).f = w->outer * (w->softcap != 0 ? w->softcap : 1);
    FG_SET(i, attention, softcap).f = w->softcap;
    fg_set_word(m, &FG_SET(i, attention, empty), w->guarded ? "zero" : "nan");
    fg_diagmark mark = fg_diag_mark(m->cx);
    if (!fg_inst_finish(&b, i, NULL, 0)) {
        miss(w, "%s", fg_last_text(m->cx));
        fg_diag_forget(m->cx, mark);
        return false;
    }
    fg_type out = *fg_rt(m, w->pv->out[0]);
    fg_reg y = fg_emit_cast(&b, i->out[0], out.dtype);
    y = fg_emit_reshape(&b, y, out.rank, out.dim);
    fg_replace_uses(w->pv->block, w->pv->out[0], y);
    return true;
}

/* ---- the pass -------------------------------------------------------------------------- */

static void
note_uses(uses *u, fg_block *b)
{
    for (fg_inst *i = b->first; i; i = i->next) {
        for (int k = 0; k < i->nin; k++)
            if (u->count[i->in[k]]++ == 0 || i->op == FG_OP_isnan)
                u->first[i->in[k]] = i;
        for (int k = 0; k < i->nregion; k++)
            note_uses(u, i->region[k]);
    }
}

static int
count_fused(const fg_block *b)
{
    int n = 0;
    for (const fg_inst *i = b->first; i; i = i->next) {
        n += i->op == FG_OP_attention;
        for (int k = 0; k < i->nregion; k++)
            n += count_fused(i->region[k]);
    }
    return n;
}

static bool
try_fuse(walk *w, const fg_passctx *cx)
{
    int rank = fg_rt(w->m, w->softmax->out[0])->rank;
    if (FG_GET(w->softmax, softmax, axis).i != rank - 1)
        return miss(w, "the softmax is not over the last axis");
    if (cx->param[FG_PARAM_fuse_attention_alpha] <= 0)
        return miss(w, "alpha is 0");
    return walk_down(w) && walk_up(w, w->softmax->in[0]) && emit(w);
}

/* Fuses what it can in b and below; how many it did, and *missed. */
static int
fuse_block(fg_block *b, const uses *u, fg_passctx *cx, int *missed)
{
    fg_module *m = b->m;
    int fused = 0;
    for (fg_inst *i = b->first; i; i = i->next) {
        for (int k = 0; k < i->nregion; k++)
            fused += fuse_block(i->region[k], u, cx, missed);
        if (i->op != FG_OP_softmax || u->count[i->out[0]] == 0 ||
            !fg_rt(m, i->out[0])->rank)
            continue;
        walk w = {.m = m, .softmax = i, .u = u};
        if (!leads_to_product(&w, i->in[0], 0))
            continue;
        if (try_fuse(&w, cx)) {
            fg_report_fusion(cx->report, "attention");
            fg_inst_remove(w.pv); /* lies behind i; the rest is dce's */
            fused++;
        } else {
            fg_report_miss(cx->report, "fuse_attention", fg_inst_where(m, i), w.reason);
            ++*missed;
        }
    }
    return fused;
}

fg_progress
fg_pass_fuse_attention(fg_module *m, fg_passctx *cx)
{
    uses u = {m->nreg, FG_NEWN(cx->scratch, uint32_t, m->nreg),
              FG_NEWN(cx->scratch, fg_inst *, m->nreg)};
    int missed = 0;
    note_uses(&u, m->body);
    int fused = fuse_block(m->body, &u, cx, &missed);
    cx->report->attention_fused = count_fused(m->body);
    cx->report->attention_candidates = cx->report->attention_fused + missed;
    return fused ? FG_CHANGED : FG_SAME;
}
