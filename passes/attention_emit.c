/* attention_emit.c - the operands of an attention instruction from a finished walk.
 *
 *     %q: f32[B,W,H,S,D]        =>   %1 = reshape %q : f32[B*W,H,S,D]
 *     %mask: f32[W,1,S,S]            %2 = expand, reshape %mask : f32[B*W,1,S,S]
 *
 * The instruction has one batch axis and one of heads. Leading axes of the scores are
 * cut in two so that they multiply to those; what broadcasts along a whole part stays
 * broadcast, what does so along a piece of it is expanded.
 */
#include "passes/attention.h"

#include <math.h>

/* How small a part may stay: whole, whole but for heads that are shared, or 1 as well. */
typedef enum { LEAD_WHOLE, LEAD_SHARED, LEAD_LEAN } lean;

typedef struct emitter {
    fg_attwalk *w;
    fg_build b;
    fg_expr batch, heads;
    fg_dtype number; /* of masks and grids */
    fg_reg q, k, v, mask, sink;
} emitter;

/* ---- shapes --------------------------------------------------------------------------- */

/* reshape, but an ancestor that has the shape already is taken instead. */
static fg_reg
reshaped(fg_build *b, fg_reg x, int rank, const fg_expr *dims)
{
    fg_module *m = b->m;
    if (!x)
        return 0;
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

/* Where leading axes are cut into those of the batch and those of the heads; -1: no
 * place. */
static int
cut(const emitter *e, int n, const fg_expr *lead)
{
    fg_exprs *ex = e->w->m->ex;
    for (int at = n; at >= 0; at--) {
        fg_expr batch = fg_ec(ex, 1), heads = batch;
        for (int k = 0; k < n; k++)
            *(k < at ? &batch : &heads) = fg_emul(ex, k < at ? batch : heads, lead[k]);
        if (batch == e->batch && heads == e->heads)
            return at;
    }
    return -1;
}

/* The product of x's axes [from, to), once those that must not stay 1 are as large as
 * lead; writes their sizes to `wide`. */
static fg_expr
part(const emitter *e, const fg_type *x, const fg_expr *lead, int from, int to, lean how,
     fg_expr *wide)
{
    fg_exprs *ex = e->w->m->ex;
    int whole = from; /* axes from here on are 1 in x */
    for (int k = from; k < to; k++)
        if (!fg_e_is(ex, x->dim[k], 1))
            whole = k + 1;
    bool prefix = how == LEAD_SHARED || whole == from;
    for (int k = from; k < whole; k++)
        prefix &= x->dim[k] == lead[k];
    fg_expr n = fg_ec(ex, 1);
    for (int k = from; k < to; k++) {
        wide[k] = how != LEAD_WHOLE && prefix ? x->dim[k] : lead[k];
        n = fg_emul(ex, n, wide[k]);
    }
    return n;
}

/* x[lead.., rows, cols] as [batch, heads, rows, cols]. */
static fg_reg
to_rank4(emitter *e, fg_reg x, int n, const fg_expr *lead, lean how)
{
    fg_module *m = e->w->m;
    if (!x)
        return 0;
    fg_type t = *fg_rt(m, x);
    fg_expr wide[FG_MAXRANK], dims[4], ones[FG_MAXRANK];
    for (; t.rank < n + 2; t.rank++) {
        memmove(t.dim + 1, t.dim, sizeof *t.dim * t.rank);
        t.dim[0] = fg_ec(m->ex, 1);
    }
    memcpy(ones, t.dim, sizeof ones);
    memcpy(wide, t.dim, sizeof wide);
    dims[2] = t.dim[n];
    dims[3] = t.dim[n + 1];
    int at = cut(e, n, lead);
    if (at >= 0) {
        dims[0] = part(e, &t, lead, 0, at, how == LEAD_SHARED ? LEAD_WHOLE : how, wide);
        dims[1] = part(e, &t, lead, at, n, how, wide);
    } else {
        dims[0] = part(e, &t, lead, 0, n, how == LEAD_SHARED ? LEAD_WHOLE : how, wide);
        dims[1] = fg_ec(m->ex, 1);
        if (!fg_e_is(m->ex, dims[0], 1) || how != LEAD_LEAN) {
            if (dims[0] != fg_emul(m->ex, e->batch, e->heads))
                return 0;
            dims[0] = e->batch;
            dims[1] = e->heads;
        }
    }
    bool same = true;
    for (int k = 0; k < n; k++)
        same &= wide[k] == t.dim[k];
    if (!same)
        x = fg_emit_expand(&e->b, reshaped(&e->b, x, n + 2, ones), n + 2, wide);
    return reshaped(&e->b, x, 4, dims);
}

/* x before its leading axes were expanded. */
static fg_reg
unexpanded(const fg_module *m, fg_reg x)
{
    const fg_inst *d = fg_def(m, x);
    const fg_type *t = fg_rt(m, x), *in = d && d->nin ? fg_rt(m, d->in[0]) : t;
    int n = t->rank;
    bool lead = fg_is_op(d, FG_OP_expand) && in->rank == n && n >= 2 &&
                in->dim[n - 1] == t->dim[n - 1] && in->dim[n - 2] == t->dim[n - 2];
    return lead ? d->in[0] : x;
}

/* One batch axis, one of heads: from the scores. Where the product has batch times heads
 * in one, a reshape on the way tells them apart; where keys and values leave out the last
 * axis, it counts queries that share a head. */
static void
choose_axes(emitter *e)
{
    fg_attwalk *w = e->w;
    fg_exprs *ex = w->m->ex;
    const fg_type *t = &w->qk_at.type, *wide = &w->wide.type;
    int n = t->rank - 2;
    fg_expr one = fg_ec(ex, 1);
    e->batch = n > 0 ? t->dim[0] : one;
    e->heads = n > 1 ? t->dim[n - 1] : one;
    if (n == 1 && wide->rank == 4 &&
        fg_emul(ex, wide->dim[0], wide->dim[1]) == e->batch) {
        e->batch = wide->dim[0];
        e->heads = wide->dim[1];
    }
    if (n < 3)
        return;
    const fg_type *k = fg_rt(w->m, unexpanded(w->m, w->qk->in[!w->flip]));
    const fg_type *v = fg_rt(w->m, unexpanded(w->m, w->pv->in[!w->right]));
    bool shared = (k->rank < 3 || fg_e_is(ex, k->dim[k->rank - 3], 1)) &&
                  (v->rank < 3 || fg_e_is(ex, v->dim[v->rank - 3], 1)) && k->rank > 3 &&
                  v->rank > 3;
    if (shared)
        e->heads = fg_emul(ex, e->heads, t->dim[n - 2]);
    for (int a = 1; a < n - 1 - shared; a++)
        e->batch = fg_emul(ex, e->batch, t->dim[a]);
}

/* ---- what is broadcast to the scores ---------------------------------------------------- */

/* Axis k of the scores as [lead.., queries, keys] is axis perm[k] of a place. */
static bool
canonical_axes(emitter *e, const fg_attplace *p, int64_t *perm)
{
    fg_attwalk *w = e->w;
    const fg_attplace *qk = &w->qk_at;
    int n = p->type.rank, nq = qk->type.rank;
    int8_t want[FG_MAXRANK];
    for (int k = 0; k < n; k++)
        want[k] = n == nq ? qk->label[k] : (int8_t)(n - 1 - k);
    if (w->flip && n >= 2) {
        int8_t keys = want[n - 2];
        want[n - 2] = want[n - 1];
        want[n - 1] = keys;
    }
    for (int k = 0; k < n; k++) {
        perm[k] = -1;
        for (int j = 0; j < n; j++)
            if (p->label[j] == want[k])
                perm[k] = j;
        if (perm[k] < 0 || (n != nq && k < n - 2 && perm[k] != k))
            return fg_att_miss(w, "scores are reshaped and transposed");
    }
    return true;
}

/* x, which broadcasts to the scores at p, so that it does to [batch, heads, S, T]. */
static fg_reg
canonical(emitter *e, fg_reg x, const fg_attplace *p)
{
    fg_module *m = e->w->m;
    int n = p->type.rank;
    int64_t perm[FG_MAXRANK];
    if (!canonical_axes(e, p, perm))
        return 0;
    fg_type t = *fg_rt(m, x);
    fg_expr lead[FG_MAXRANK], dims[FG_MAXRANK];
    bool plain = true;
    for (int k = 0; k < n; k++) {
        plain &= perm[k] == k;
        lead[k] = p->type.dim[perm[k]];
        int at = k - (n - t.rank);
        dims[k] = at < 0 ? fg_ec(m->ex, 1) : t.dim[at];
    }
    if (plain && (t.rank <= 2 || (n == 4 && lead[0] == e->batch && lead[1] == e->heads)))
        return x;
    if (!plain)
        x = fg_emit_transpose(&e->b, reshaped(&e->b, x, n, dims), perm);
    x = to_rank4(e, x, n - 2, lead, LEAD_LEAN);
    if (!x)
        fg_att_miss(e->w, "%s does not line up with batch and heads",
                    fg_type_text(m, &t));
    return x;
}

/* A fill must swallow the score, as where does: then a row of fills alone is what it was.
 * Numbers this size swallow scores, and other masks still count beside them. */
static double
swallowing(double fill)
{
    return fill > -4e9 ? -4e9 : fill;
}

static fg_reg
mask_term(emitter *e, const fg_attterm *k)
{
    fg_build *b = &e->b;
    fg_reg x = canonical(e, k->cond ? k->cond : k->value, &k->place);
    if (!x)
        return 0;
    if (k->cond) {
        fg_reg none = fg_emit_f(b, e->number, 0);
        fg_reg fill = fg_emit_f(b, e->number, swallowing(k->fill * k->outer));
        return k->hides ? fg_emit3(b, FG_OP_where, x, fill, none)
                        : fg_emit3(b, FG_OP_where, x, none, fill);
    }
    x = fg_emit_cast(b, x, e->number);
    return k->outer == 1 ? x
                         : fg_emit2(b, FG_OP_mul, x, fg_emit_f(b, e->number, k->outer));
}

/* The mask's axes must be those of [B,H,S,T] (from the right), each equal or 1. */
static bool
mask_fits(emitter *e)
{
    fg_module *m = e->w->m;
    const fg_type *t = fg_rt(m, e->mask), *tq = fg_rt(m, e->q), *tk = fg_rt(m, e->k);
    fg_expr want[4] = {tq->dim[0], tq->dim[1], tq->dim[2], tk->dim[2]};
    for (int a = 0; a < t->rank; a++)
        if (!fg_e_is(m->ex, t->dim[a], 1) && t->dim[a] != want[4 - t->rank + a])
            return fg_att_miss(e->w, "the mask %s does not line up with queries %s",
                               fg_type_text(m, t), fg_type_text(m, tq));
    return true;
}

/* One mask operand: a lone where(c, x, -inf) is the condition itself, else the sum. */
static bool
combine_masks(emitter *e)
{
    fg_attwalk *w = e->w;
    bool masked = false;
    for (int k = 0; k < w->nround; k++)
        masked |= w->round[k].at == FG_ROUND_MASKED;
    if (w->nterm == 0)
        return w->floor == -INFINITY || fg_att_miss(w, "a bound without a mask");
    if (w->nterm == 1 && w->term[0].cond && isinf(w->term[0].fill) && !masked &&
        w->floor == -INFINITY) {
        e->mask = canonical(e, w->term[0].cond, &w->term[0].place);
        if (e->mask && w->term[0].hides)
            e->mask = fg_emit1(&e->b, FG_OP_not, e->mask);
    } else {
        for (int k = 0; k < w->nterm; k++) {
            fg_reg t = mask_term(e, &w->term[k]);
            e->mask = k ? fg_emit2(&e->b, FG_OP_add, e->mask, t) : t;
        }
        if (w->floor > -INFINITY)
            e->mask = fg_emit2(&e->b, FG_OP_max, e->mask,
                               fg_emit_f(&e->b, e->number, w->floor));
    }
    return e->mask && mask_fits(e);
}

static fg_reg
times(emitter *e, fg_reg x, const fg_attfactor *f)
{
    fg_module *m = e->w->m;
    fg_reg by = fg_e_is(m->ex, fg_type_count(m->ex, fg_rt(m, f->value)), 1)
                    ? reshaped(&e->b, f->value, 0, (fg_expr[]){0})
                    : canonical(e, f->value, &f->place);
    if (!by)
        return 0;
    by = fg_emit_cast(&e->b, by, fg_rt(m, x)->dtype);
    return fg_emit2(&e->b, f->divides ? FG_OP_div : FG_OP_mul, x, by);
}

/* The register of one logit per head that was expanded to a column beside the scores. */
static fg_reg
sink_of_heads(emitter *e)
{
    fg_attwalk *w = e->w;
    fg_module *m = w->m;
    const fg_type *place = &w->sink_at.type;
    bool fits =
        place->rank == 4 && place->dim[0] == e->batch && place->dim[1] == e->heads;
    for (fg_reg r = w->sink; fits && r;) {
        const fg_type *t = fg_rt(m, r);
        const fg_inst *d = fg_def(m, r);
        int many = 0, at = -1;
        for (int k = 0; k < t->rank; k++)
            if (!fg_e_is(m->ex, t->dim[k], 1)) {
                many++;
                at = k;
            }
        if (many == 1 && t->dim[at] == e->heads && at == 1 - (4 - t->rank))
            return reshaped(&e->b, r, 1, &e->heads);
        if (fg_is_op(d, FG_OP_expand) || fg_is_op(d, FG_OP_cast))
            r = d->in[0];
        else
            fits = false;
    }
    fg_att_miss(w, "the sink %s is not one number per head",
                fg_type_text(m, fg_rt(m, w->sink)));
    return 0;
}

/* ---- q, k and v ------------------------------------------------------------------------- */

/* A scalar factor of an operand moves into the scale: through views, it is the same number. */
static fg_reg
peel_scale(fg_attwalk *w, fg_reg r)
{
    fg_reg in;
    double c;
    while (fg_att_scaled(w, fg_def(w->m, r), &in, &c) &&
           fg_type_equal(fg_rt(w->m, in), fg_rt(w->m, r))) {
        w->outer *= c;
        r = in;
    }
    return r;
}

/* [B,G,..] below reshape(expand([B,G,1,..] -> [B,G,R,..])) -> [B,G*R,..], or below a gather
 * of each head R times; else x. */
static fg_reg
peel_groups(emitter *e, fg_reg x)
{
    fg_module *m = e->w->m;
    const fg_inst *d = fg_def(m, x), *wider = d && d->nin ? fg_def(m, d->in[0]) : NULL;
    const fg_type *t = fg_rt(m, x);
    int64_t heads, groups, at;
    if (t->rank != 4)
        return x;
    if (fg_is_op(d, FG_OP_gather) && FG_GET(d, gather, axis).i == 1 &&
        fg_rt(m, d->in[1])->rank == 1 && fg_e_const(m->ex, t->dim[1], &heads) &&
        fg_e_const(m->ex, fg_rt(m, d->in[0])->dim[1], &groups) && groups &&
        heads % groups == 0) {
        for (int64_t h = 0; h < heads; h++)
            if (!fg_const_i64(m, d->in[1], h, &at) || at != h / (heads / groups))
                return x;
        return d->in[0];
    }
    if (!fg_is_op(d, FG_OP_reshape) || !fg_is_op(wider, FG_OP_expand))
        return x;
    const fg_type *wide = fg_rt(m, wider->out[0]), *thin = fg_rt(m, wider->in[0]);
    if (wide->rank != 5 || thin->rank != 5 || !fg_e_is(m->ex, thin->dim[2], 1))
        return x;
    for (int k = 0; k < 5; k++)
        if (k != 2 && thin->dim[k] != wide->dim[k])
            return x;
    if (t->dim[0] != wide->dim[0] || t->dim[2] != wide->dim[3] ||
        t->dim[3] != wide->dim[4])
        return x;
    fg_expr dims[4] = {thin->dim[0], thin->dim[1], thin->dim[3], thin->dim[4]};
    return reshaped(&e->b, wider->in[0], 4, dims);
}

/* An operand of a product as [rows, cols] with whole leading axes `of` that product. */
static fg_reg
operand(emitter *e, const fg_inst *product, int k, bool swap, lean how)
{
    fg_attwalk *w = e->w;
    const fg_type *of = fg_rt(w->m, product->out[0]);
    fg_reg x = product->in[k];
    if (product == w->qk)
        x = peel_scale(w, x);
    if (how == LEAD_SHARED)
        x = unexpanded(w->m, x);
    fg_reg thin = how == LEAD_SHARED ? peel_groups(e, x) : x;
    bool peeled = thin != x;
    x = swap ? swap_last2(&e->b, thin) : thin;
    if (x && product == w->qk)
        x = peel_scale(w, x);
    if (!peeled)
        x = to_rank4(e, x, of->rank - 2, of->dim, how);
    if (x && how == LEAD_SHARED && !peeled)
        x = peel_groups(e, x);
    if (!x)
        fg_att_miss(w, "batch and heads cannot be told apart in %s",
                    fg_type_text(w->m, fg_rt(w->m, product->in[k])));
    return x;
}

/* Heads that several query heads share, repeated until there are `want`. */
static fg_reg
repeat_heads(emitter *e, fg_reg x, fg_expr want)
{
    fg_exprs *ex = e->w->m->ex;
    fg_type t = *fg_rt(e->w->m, x);
    fg_expr each = fg_ediv(ex, want, t.dim[1]);
    fg_expr thin[5] = {t.dim[0], t.dim[1], fg_ec(ex, 1), t.dim[2], t.dim[3]};
    fg_expr wide[5] = {t.dim[0], t.dim[1], each, t.dim[2], t.dim[3]};
    x = fg_emit_expand(&e->b, fg_emit_reshape(&e->b, x, 5, thin), 5, wide);
    fg_expr out[4] = {t.dim[0], want, t.dim[2], t.dim[3]};
    return fg_emit_reshape(&e->b, x, 4, out);
}

/* The instruction has one head count for keys and values, a divisor of the queries'. */
static bool
match_heads(emitter *e)
{
    fg_module *m = e->w->m;
    fg_expr k = fg_rt(m, e->k)->dim[1], v = fg_rt(m, e->v)->dim[1];
    int64_t h, nk, nv;
    if (k == v && (k == e->heads || fg_e_is(m->ex, k, 1)))
        return true;
    if (!fg_e_const(m->ex, e->heads, &h) || !fg_e_const(m->ex, k, &nk) ||
        !fg_e_const(m->ex, v, &nv) || nk <= 0 || nv <= 0 || h % nk || h % nv)
        return fg_att_miss(e->w, "heads of keys %s and values %s for queries %s",
                           fg_type_text(m, fg_rt(m, e->k)),
                           fg_type_text(m, fg_rt(m, e->v)),
                           fg_type_text(m, fg_rt(m, e->q)));
    if (nk == nv)
        return true;
    int64_t both = nk > nv && nk % nv == 0 ? nk : nv % nk == 0 ? nv : h;
    if (nk != both)
        e->k = repeat_heads(e, e->k, fg_ec(m->ex, both));
    if (nv != both)
        e->v = repeat_heads(e, e->v, fg_ec(m->ex, both));
    return e->k && e->v;
}

static fg_dtype
wider(fg_dtype a, fg_dtype b)
{
    return a == b                                               ? a
           : fg_dtypes[a].bits == 64 || fg_dtypes[b].bits == 64 ? FG_f64
                                                                : FG_f32;
}

static bool
operands(emitter *e)
{
    fg_attwalk *w = e->w;
    fg_module *m = w->m;
    bool ta = FG_GET(w->qk, matmul, trans_a).i, tb = !FG_GET(w->qk, matmul, trans_b).i;
    bool tv =
        w->right ? !FG_GET(w->pv, matmul, trans_a).i : FG_GET(w->pv, matmul, trans_b).i;
    choose_axes(e);
    e->q = operand(e, w->qk, w->flip, w->flip ? tb : ta, LEAD_WHOLE);
    e->k = e->q ? operand(e, w->qk, !w->flip, w->flip ? ta : tb, LEAD_SHARED) : 0;
    e->v = e->k ? operand(e, w->pv, !w->right, tv, LEAD_SHARED) : 0;
    if (!e->v || !match_heads(e))
        return false;
    for (int k = 0; k < w->npre && e->q; k++)
        e->q = times(e, e->q, &w->pre[k]);
    if (!e->q)
        return false;
    fg_dtype d = wider(fg_rt(m, e->q)->dtype, fg_rt(m, e->v)->dtype);
    e->number = d == FG_f64 ? FG_f64 : FG_f32;
    e->q = fg_emit_cast(&e->b, e->q, d);
    e->k = fg_emit_cast(&e->b, e->k, d);
    e->v = fg_emit_cast(&e->b, e->v, d);
    return true;
}

/* ---- the instruction ---------------------------------------------------------------------- */

/* What is on a grid already stays there. */
static bool
same_round(const fg_attwalk *w, int a, int b)
{
    return w->round[a].scale == w->round[b].scale &&
           w->round[a].zero == w->round[b].zero && w->round[a].type == w->round[b].type;
}

/* In the order they happen; those above the softmax were found from its end. */
static const char *
push_rounds(emitter *e, fg_reg *in, int *nin)
{
    fg_attwalk *w = e->w;
    fg_text t = fg_text_new(w->m->a);
    for (int kind = FG_ROUND_SCORES; kind <= FG_ROUND_WEIGHTS; kind++)
        for (int n = 0, last = -1; n < w->nround; n++) {
            int k = kind == FG_ROUND_WEIGHTS ? n : w->nround - 1 - n;
            if ((int)w->round[k].at != kind || (last >= 0 && same_round(w, k, last)))
                continue;
            last = k;
            *nin = *nin < 6 ? 6 : *nin;
            in[(*nin)++] = fg_emit_f(&e->b, e->number, w->round[k].scale);
            in[(*nin)++] = fg_emit_f(&e->b, w->round[k].type, w->round[k].zero);
            fg_putf(&t, "%s%s", *nin > 8 ? "," : "", fg_round_text[kind]);
        }
    return t.s;
}

static fg_inst *
instruction(emitter *e)
{
    fg_attwalk *w = e->w;
    fg_module *m = w->m;
    fg_reg in[6 + 2 * FG_MAXROUND] = {e->q, e->k, e->v, e->mask, e->sink};
    int nin = e->sink ? 5 : e->mask ? 4 : 3;
    const char *round = push_rounds(e, in, &nin);
    fg_inst *i = fg_inst_begin(&e->b, FG_OP_attention, nin, in);
    FG_SET(i, attention, scale).f = w->outer * (w->softcap != 0 ? w->softcap : 1);
    FG_SET(i, attention, softcap).f = w->softcap;
    fg_set_word(m, &FG_SET(i, attention, empty), w->guarded ? "zero" : "nan");
    if (w->nround)
        fg_set_word(m, &FG_SET(i, attention, round), round);
    fg_diagmark mark = fg_diag_mark(m->cx);
    if (fg_inst_finish(&e->b, i, NULL, 0))
        return i;
    fg_att_miss(w, "%s", fg_last_text(m->cx));
    fg_diag_forget(m->cx, mark);
    return NULL;
}

static bool
emit(emitter *e)
{
    fg_attwalk *w = e->w;
    if (!operands(e) || !combine_masks(e) || (w->sink && !(e->sink = sink_of_heads(e))))
        return false;
    fg_inst *i = instruction(e);
    if (!i)
        return false;
    fg_type out = *fg_rt(w->m, w->pv->out[0]);
    fg_reg y = i->out[0];
    for (int k = 0; k < w->npost && y; k++)
        y = times(e, y, &w->post[k]);
    if (!y)
        return false;
    if (w->right)
        y = swap_last2(&e->b, y);
    y = fg_emit_reshape(&e->b, fg_emit_cast(&e->b, y, out.dtype), out.rank, out.dim);
    if (y)
        fg_replace_uses(w->pv->block, w->pv->out[0], y);
    return y != 0;
}

bool
fg_att_emit(fg_attwalk *w)
{
    emitter e = {.w = w, .b = fg_build_before2(w->pv, w->qk, w->softmax)};
    fg_inst *before = w->pv->prev;
    fg_build_add_nodes(&e.b, w->pv);
    for (int k = 0; k < w->nextra; k++)
        fg_build_add_nodes(&e.b, w->extra[k]);
    if (emit(&e))
        return true;
    for (fg_inst *i = w->pv->prev; i != before; i = w->pv->prev)
        fg_inst_remove(i);
    return false;
}
