/* attention_blocks.c - attention for many queries.
 *
 *     Q^T  [D][NR]          a panel of queries of one head, scaled, packed once
 *     S^T  [keys][NR]       = K Q^T          rows of K are broadcast operands
 *     P    = exp(S^T - max) down the columns: max and sum are plain vector operations
 *     O^T  [E][NR]          = O^T exp(old max - max) + V^T P       columns of V broadcast
 *
 * Vectors run along queries, so softmax needs no sums across lanes, and neither
 * K nor V is packed: both are the operand that the tile kernels broadcast, which may have
 * any strides. A chunk is QUERIES queries, in as many panels as that takes, which share
 * what is read of K and V.
 *
 * Keys come in blocks. A block that no query of a panel sees is not computed: limits are
 * known by arithmetic, and what a mask says is read off the mask itself, block by block,
 * so that any mask counts: causal, padding, windows, documents side by side. A block that
 * all queries see is not adjusted either.
 */
#include <math.h>
#include "codegen/cpu/attention.h"

enum {
    ROOM_V = 8,    /* most vectors of a panel of queries */
    QUERIES = 128, /* of a chunk, at least */
    KEYS = 64,     /* of a block: with V it fits the first-level cache */
    LINE = 64      /* bytes that memory delivers at a time */
};

/* What a mask adds, as bits of f32. From FAR down it is meant to hide; nothing is between
 * that and -infinity but large negative numbers. */
#define BITS_HIDDEN ((int32_t)0xff800000) /* -infinity */
#define BITS_FAR ((int32_t)0xf1800000)    /* -2^100 */
static const double near = -0x1p99;       /* any score of a key that is seen */

typedef struct blocks {
    fg_att *a;
    int panels;                     /* of a chunk, at most */
    fg_v qs, os, ms, ls;            /* scratch, by panel: queries, results, max, sum */
    fg_v q, o, m, l;                /* of the panel under way */
    fg_v s, corr, out, mroom, mask; /* scratch: scores; mask by query, by key */
    fg_strided mview;
    bool mdirect;        /* the mask is an operand, its rows run along keys */
    fg_v mrows, mld;     /* rows of the mask in this block, bytes between them */
    fg_v chunk0, nchunk; /* first query of the chunk and how many */
    fg_v q0, nq;         /* of the panel */
    fg_v t0, nk;         /* first key of the block and how many */
    fg_v mixed;          /* the mask of this block is not 0 everywhere */
    fg_v kbase, vbase, kld, vld;
} blocks;

static fg_v
vec_at(blocks *k, fg_v base, fg_v row, int j)
{
    const fg_tile *t = &k->a->t;
    fg_ll *g = k->a->g;
    return ll_atc(g, ll_at(g, base, g->f32, ll_mul(g, row, ll_i(g, t->NR))), g->f32,
                  j * t->W);
}

static fg_v
get(blocks *k, fg_v base, fg_v row, int j)
{
    const fg_tile *t = &k->a->t;
    return ll_load_aligned(k->a->g, ll_vec(t->elem, t->W), vec_at(k, base, row, j),
                           t->W * 4);
}

static void
put(blocks *k, fg_v v, fg_v base, fg_v row, int j)
{
    ll_store_aligned(k->a->g, v, vec_at(k, base, row, j), k->a->t.W * 4);
}

/* ---- queries in ----------------------------------------------------------------- */

/* Bytes of a panel of n rows, with what packing may write beyond. */
static fg_expr
panel_bytes(fg_att *a, fg_expr n)
{
    fg_exprs *t = a->e->m->ex;
    return fg_emul(t, fg_eadd(t, n, fg_ec(t, a->t.W)), fg_ec(t, a->t.NR * 4));
}

/* Stands at panel p of the chunk. */
static void
panel_at(blocks *k, fg_v p)
{
    fg_att *a = k->a;
    fg_em *e = a->e;
    fg_ll *g = a->g;
    fg_v nr = ll_i(g, a->t.NR), first = ll_mul(g, p, nr),
         row = ll_mul(g, first, ll_i(g, 4));
    k->q0 = ll_add(g, k->chunk0, first);
    k->nq = ll_min(g, ll_sub(g, k->nchunk, first), nr);
    k->q = ll_at(g, k->qs, g->i8, ll_mul(g, p, fg_em_expr(e, panel_bytes(a, a->D))));
    k->o = ll_at(g, k->os, g->i8, ll_mul(g, p, fg_em_expr(e, panel_bytes(a, a->E))));
    k->m = ll_at(g, k->ms, g->i8, row);
    k->l = ll_at(g, k->ls, g->i8, row);
}

/* for each panel of the chunk; ends with ll_next */
static void
each_panel(blocks *k, ll_loop *p)
{
    fg_ll *g = k->a->g;
    int nr = k->a->t.NR;
    fg_v n = ll_udiv(g, ll_add(g, k->nchunk, ll_i(g, nr - 1)), ll_i(g, nr));
    ll_for1(g, p, ll_i(g, 0), k->panels == 1 ? ll_i(g, 1) : n, ll_i(g, 1), 0, NULL);
    panel_at(k, k->panels == 1 ? ll_i(g, 0) : p->i);
}

static void
load_panel(blocks *k, fg_v src, fg_v ld)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    const fg_tile *t = &a->t;
    fg_v zero = ll_i(g, 0), D = fg_em_expr(a->e, a->D), E = fg_em_expr(a->e, a->E);
    src = ll_at(g, src, g->i8, ll_mul(g, ll_sub(g, k->q0, k->chunk0), ld));
    fg_pack_columns(g, t, src, ld, D, k->nq, k->q);
    fg_t vec = ll_vec(g->f32, t->W);
    fg_v scale = ll_cf(vec, FG_GET(a->anchor, attention, scale).f);
    ll_loop d;
    ll_for(g, &d, zero, D, ll_i(g, 1), 0, NULL);
    for (int j = 0; j < t->NV; j++)
        put(k, ll_mul(g, get(k, k->q, d.i, j), scale), k->q, d.i, j);
    ll_next(g, &d, NULL);
    ll_for(g, &d, zero, E, ll_i(g, 1), 0, NULL);
    for (int j = 0; j < t->NV; j++)
        put(k, ll_zero(vec), k->o, d.i, j);
    ll_next(g, &d, NULL);
    fg_v sink = fg_att_sink(a, a->h);
    for (int j = 0; j < t->NV; j++) {
        put(k, sink ? ll_splat(g, sink, t->W) : ll_cf(vec, -INFINITY), k->m, zero, j);
        put(k, ll_cf(vec, sink ? 1 : 0), k->l, zero, j);
    }
}

static void
load_queries(blocks *k)
{
    fg_att *a = k->a;
    fg_v ld, src = fg_att_rows(a, &a->q, k->chunk0, k->nchunk, &ld);
    ll_loop p;
    each_panel(k, &p);
    fg_scopemark s = fg_scope(a->e);
    load_panel(k, src, ld);
    fg_unscope(a->e, s);
    ll_next(a->g, &p, NULL);
}

/* ---- scores --------------------------------------------------------------------- */

/* The next block of K and V, while the scores of this one are computed: rows lie so far
 * apart that the machine does not see them coming. In D turns a tile fetches the same
 * line of D rows. */
static void
fetch_next(void *user, fg_v tile, fg_v *p, fg_v *ld)
{
    blocks *k = user;
    fg_att *a = k->a;
    fg_ll *g = a->g;
    fg_exprs *t = a->e->m->ex;
    int line = LINE / 4;
    fg_v nk = fg_em_expr(
        a->e, fg_ediv(t, fg_eadd(t, a->D, fg_ec(t, line - 1)), fg_ec(t, line)));
    fg_v nv = fg_em_expr(
        a->e, fg_ediv(t, fg_eadd(t, a->E, fg_ec(t, line - 1)), fg_ec(t, line)));
    fg_v both = ll_add(g, nk, nv), at = ll_urem(g, tile, both);
    fg_v is_k = ll_cmp(g, LL_LT, at, nk), which = ll_sel(g, is_k, at, ll_sub(g, at, nk));
    fg_v rows = ll_mul(g, ll_udiv(g, tile, both), fg_em_expr(a->e, a->D));
    fg_v row = ll_add(g, ll_add(g, k->t0, ll_i(g, KEYS)), rows);
    *ld = ll_sel(g, is_k, a->k.ld, a->v.ld);
    *p = ll_at(g, ll_sel(g, is_k, a->k.base, a->v.base), g->i8,
               ll_add(g, ll_mul(g, row, *ld), ll_mul(g, which, ll_i(g, LINE))));
}

static void
scores(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    int64_t T = fg_e_hi(a->e->m->ex, a->T);
    bool even = fg_e_divides(a->e->m->ex, KEYS, a->T) && !fg_att_limited(a) &&
                !a->lengths && !a->mask;
    fg_panel p = {.t = a->t,
                  .rows = k->nk,
                  .k = fg_em_expr(a->e, a->D),
                  .min_rows = even ? KEYS : 1,
                  .max_rows = T < KEYS ? T : KEYS,
                  .lda = k->kld,
                  .ska = ll_i(g, 4),
                  .b = k->q,
                  .c = k->s,
                  .stack = true,
                  .at = k->kbase,
                  .ahead = a->k.direct && a->v.direct ? fetch_next : NULL,
                  .user = k};
    fg_panel_rows(g, &p);
}

static void
mask_run(fg_em *e, void *user, fg_v i)
{
    blocks *k = user;
    fg_att *a = k->a;
    fg_v m = fg_att_mask(a, a->row, ll_add(a->g, k->t0, i));
    (void)e;
    ll_store(a->g, m, ll_at(a->g, a->to, a->g->f32, i));
}

/* Where the mask has query k->q0 and key k->t0; bytes between queries. */
static fg_v
mask_at(blocks *k, fg_v *ld)
{
    fg_att *a = k->a;
    fg_em *e = a->e;
    fg_ll *g = a->g;
    const fg_strided *v = &k->mview;
    fg_v full[4] = {a->b, a->h, k->q0, k->t0}, at = fg_em_expr(e, v->offset);
    int bytes = fg_dtypes[v->dtype].bits / 8;
    for (int i = 0; i < v->rank; i++)
        if (!fg_e_is(e->m->ex, v->dim[i], 1))
            at = ll_add(g, at,
                        ll_mul(g, full[4 - v->rank + i], fg_em_expr(e, v->stride[i])));
    *ld = v->rank > 1 ? ll_mul(g, fg_em_expr(e, v->stride[v->rank - 2]), ll_i(g, bytes))
                      : ll_i(g, 0);
    return ll_at(g, fg_em_buf(e, v->param), g->i8, ll_mul(g, at, ll_i(g, bytes)));
}

/* The rows of this block of the mask: where they are, if they are vectors of f32, or
 * pulled to scratch. Fetches those of the next block. */
static void
mask_rows(blocks *k, fg_v rows)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    ll_loop l;
    fg_v there = NULL, ld;
    int bytes = fg_dtypes[k->mview.dtype].bits / 8;
    k->mrows = k->mroom;
    k->mld = ll_i(g, KEYS * 4);
    if (k->mdirect)
        there = mask_at(k, &ld);
    if (there && k->mview.dtype == FG_f32) {
        k->mrows = there;
        k->mld = ld;
    } else {
        ll_for1(g, &l, ll_i(g, 0), rows, ll_i(g, 1), 0, NULL);
        fg_scopemark s = fg_scope(a->e);
        a->row = ll_add(g, k->q0, l.i);
        a->to = ll_at(g, k->mrows, g->i8, ll_mul(g, l.i, k->mld));
        a->e->lanes = a->t.W;
        fg_em_run(a->e, ll_i(g, 0), k->nk, false, mask_run, k);
        fg_unscope(a->e, s);
        ll_next(g, &l, NULL);
    }
    if (!there)
        return;
    ll_for1(g, &l, ll_i(g, 0), rows, ll_i(g, 1), 0, NULL);
    for (int at = KEYS * bytes; at < 2 * KEYS * bytes; at += LINE)
        ll_prefetch(g, ll_atc(g, ll_at(g, there, g->i8, ll_mul(g, l.i, ld)), g->i8, at));
    ll_next(g, &l, NULL);
}

/* The mask of this block, a row for each query or one for all; whether all of it hides
 * (i1), so that the panel has no need of this block. */
static fg_v
load_mask(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_v rows = a->same_mask ? ll_i(g, 1) : k->nq;
    ll_loop l, x;
    mask_rows(k, rows);

    /* Numbers below 0 are the larger as integers the nearer to -infinity, where NaN is
     * beyond: so two bounds tell what all are. */
    fg_t vec = ll_vec(g->i32, W);
    fg_v least = ll_ci(vec, INT32_MAX), most = ll_ci(vec, INT32_MIN);
    ll_for1(g, &l, ll_i(g, 0), rows, ll_i(g, 1), 2, (fg_v[]){least, most});
    ll_for1(g, &x, ll_i(g, 0), k->nk, ll_i(g, W), 2, l.phi);
    fg_v p = ll_at(g, ll_at(g, k->mrows, g->i8, ll_mul(g, l.i, k->mld)), g->i32, x.i);
    fg_v bits = ll_mload(g, vec, p, ll_first(g, ll_sub(g, k->nk, x.i), W));
    ll_next(g, &x, (fg_v[]){ll_min(g, bits, x.phi[0]), ll_max(g, bits, x.phi[1])});
    ll_next(g, &l, x.phi);
    least = ll_hreduce(g, l.phi[0], ll_min);
    most = ll_hmax(g, l.phi[1]);
    fg_v hidden = ll_i32(g, BITS_HIDDEN), none = ll_i32(g, 0);
    k->mixed = ll_or(g, ll_cmp(g, LL_NE, least, none), ll_cmp(g, LL_NE, most, none));

    /* What is far below the scores seen so far adds exactly 0 as well. */
    fg_v seen = ll_cf(ll_vec(g->f32, W), INFINITY);
    for (int j = 0; j < a->t.NV; j++)
        seen = ll_min(g, get(k, k->m, ll_i(g, 0), j), seen);
    seen = ll_hreduce(g, seen, ll_min);
    fg_v far = ll_cmp(g, LL_GE, least, ll_i32(g, BITS_FAR));
    far = ll_and(g, far, ll_cmp(g, LL_GT, seen, ll_cf(g->f32, near)));
    far = ll_or(g, far, ll_cmp(g, LL_EQ, least, hidden));
    return ll_and(g, far, ll_cmp(g, LL_LE, most, hidden));
}

/* Lanes of query vector j that see `key`. */
static fg_v
visible(blocks *k, fg_v key, int j)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_v lane = ll_add(g, ll_iota(g->i32, W), ll_ci(ll_vec(g->i32, W), j * W));
    fg_v i = ll_add(g, k->q0, a->shift), ok = NULL;
    if (a->right >= 0) {
        fg_v last = ll_sub(g, key, ll_add(g, i, ll_i(g, a->right)));
        ok = ll_cmp(g, LL_GE, lane, ll_splat(g, ll_sext(g, last, g->i32), W));
    }
    if (a->left >= 0) {
        fg_v first = ll_sub(g, ll_add(g, key, ll_i(g, a->left)), i);
        fg_v in = ll_cmp(g, LL_LE, lane, ll_splat(g, ll_sext(g, first, g->i32), W));
        ok = ok ? ll_and(g, ok, in) : in;
    }
    return ok;
}

static void
adjust_rows(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    const fg_tile *t = &a->t;
    fg_t vec = ll_vec(g->f32, t->W);
    ll_loop r;
    if (a->mask && !a->same_mask)
        fg_pack_columns(g, t, k->mrows, k->mld, k->nk, k->nq, k->mask);
    ll_for1(g, &r, ll_i(g, 0), k->nk, ll_i(g, 1), 0, NULL);
    for (int j = 0; j < t->NV; j++) {
        fg_v s = fg_att_cap(a, get(k, k->s, r.i, j));
        if (a->mask && a->same_mask)
            s = ll_add(
                g, s,
                ll_splat(g, ll_load(g, g->f32, ll_at(g, k->mrows, g->f32, r.i)), t->W));
        else if (a->mask)
            s = ll_add(g, s, get(k, k->mask, r.i, j));
        if (fg_att_limited(a))
            s = ll_sel(g, visible(k, ll_add(g, k->t0, r.i), j), s, ll_cf(vec, -INFINITY));
        put(k, s, k->s, r.i, j);
    }
    ll_next(g, &r, NULL);
}

/* Softcap, mask and limits, where they matter: limits do when the block lies across one. */
static void
adjust(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    fg_v any = a->mask ? k->mixed : NULL;
    if (fg_att_limited(a)) {
        fg_v last = ll_sub(g, ll_add(g, k->q0, k->nq), ll_i(g, 1));
        fg_v over = ll_cmp(g, LL_GT, ll_add(g, k->t0, k->nk), fg_att_end(a, k->q0));
        fg_v under = ll_cmp(g, LL_LT, k->t0, fg_att_first(a, last));
        fg_v edge = ll_or(g, over, under);
        any = any ? ll_or(g, any, edge) : edge;
    }
    if (a->cap != 0) {
        adjust_rows(k);
    } else if (any) {
        ll_branch s;
        ll_if(g, &s, any);
        adjust_rows(k);
        ll_end(g, &s, NULL, NULL);
    }
}

/* ---- softmax -------------------------------------------------------------------- */

static void
softmax(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    const fg_tile *t = &a->t;
    fg_v zero = ll_i(g, 0), one = ll_i(g, 1), old[ROOM_V], next[ROOM_V], floor[ROOM_V];
    ll_loop r;
    for (int j = 0; j < t->NV; j++)
        old[j] = get(k, k->m, zero, j);
    ll_for(g, &r, zero, k->nk, one, t->NV, old);
    for (int j = 0; j < t->NV; j++)
        next[j] = ll_max(g, get(k, k->s, r.i, j), r.phi[j]);
    ll_next(g, &r, next);
    for (int j = 0; j < t->NV; j++) {
        floor[j] = fg_att_floor(a, r.phi[j]);
        put(k, r.phi[j], k->m, zero, j);
        fg_v corr = vm_weight(g, ll_sub(g, old[j], floor[j]));
        put(k, corr, k->corr, zero, j);
        next[j] = ll_mul(g, get(k, k->l, zero, j), corr);
    }
    ll_for(g, &r, zero, k->nk, one, t->NV, next);
    for (int j = 0; j < t->NV; j++) {
        fg_v p = vm_weight(g, ll_sub(g, get(k, k->s, r.i, j), floor[j]));
        put(k, p, k->s, r.i, j);
        next[j] = ll_add(g, r.phi[j], p);
    }
    ll_next(g, &r, next);
    for (int j = 0; j < t->NV; j++)
        put(k, r.phi[j], k->l, zero, j);
}

/* ---- values --------------------------------------------------------------------- */

static void
values(blocks *k)
{
    fg_att *a = k->a;
    fg_exprs *t = a->e->m->ex;
    fg_panel p = {.t = a->t,
                  .rows = fg_em_expr(a->e, a->E),
                  .k = k->nk,
                  .min_rows = fg_e_lo(t, a->E),
                  .max_rows = fg_e_hi(t, a->E),
                  .lda = ll_i(a->g, 4),
                  .ska = k->vld,
                  .b = k->s,
                  .c = k->o,
                  .stack = true,
                  .rescale = k->corr,
                  .at = k->vbase};
    fg_panel_rows(a->g, &p);
}

/* ---- out ------------------------------------------------------------------------ */

static void
index_of(fg_product *p, fg_v row, fg_index col, fg_index *ix)
{
    fg_att *a = p->user;
    ix[0] = fg_ix(p->e, a->b);
    ix[1] = fg_ix(p->e, a->h);
    ix[2] = fg_ix(p->e, row);
    ix[3] = col;
}

/* O^T / sum, NR columns at a time transposed back. */
static void
store(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    const fg_tile *t = &a->t;
    fg_v zero = ll_i(g, 0), inv[ROOM_V], E = fg_em_expr(a->e, a->E), nr = ll_i(g, t->NR);
    for (int j = 0; j < t->NV; j++)
        inv[j] = fg_att_inverse(a, get(k, k->l, zero, j));
    ll_loop l;
    ll_for(g, &l, zero, E, ll_i(g, 1), 0, NULL);
    for (int j = 0; j < t->NV; j++)
        put(k, ll_mul(g, get(k, k->o, l.i, j), inv[j]), k->o, l.i, j);
    ll_next(g, &l, NULL);
    ll_for(g, &l, zero, E, nr, 0, NULL);
    fg_scopemark s = fg_scope(a->e);
    fg_v cols = ll_min(g, ll_sub(g, E, l.i), nr);
    fg_pack_columns(g, t, ll_at(g, k->o, g->f32, ll_mul(g, l.i, nr)), ll_i(g, t->NR * 4),
                    nr, cols, k->out);
    a->p.index = index_of;
    a->p.done = (struct fg_done){k->q0, l.i, cols, k->out, nr};
    fg_product_store(&a->p, k->nq, cols, fg_e_divides(a->e->m->ex, t->W, a->E));
    fg_unscope(a->e, s);
    ll_next(g, &l, NULL);
}

/* ---- chunks --------------------------------------------------------------------- */

static int
panels_of(const fg_att *a)
{
    return a->t.NR < QUERIES ? QUERIES / a->t.NR : 1;
}

static fg_expr
query_blocks(fg_att *a)
{
    fg_exprs *t = a->e->m->ex;
    int n = panels_of(a) * a->t.NR;
    return fg_ediv(t, fg_eadd(t, a->S, fg_ec(t, n - 1)), fg_ec(t, n));
}

fg_expr
fg_att_blocks_chunks(fg_att *a)
{
    fg_exprs *t = a->e->m->ex;
    return fg_emul(t, fg_emul(t, a->B, a->H), query_blocks(a));
}

static void
reserve(blocks *k)
{
    fg_att *a = k->a;
    fg_em *e = a->e;
    fg_exprs *t = e->m->ex;
    int W = a->t.W, row = a->t.NR * 4;
    fg_expr all = fg_ec(t, k->panels), per = fg_ec(t, row);
    k->qs = fg_em_scratch(e, fg_emul(t, panel_bytes(a, a->D), all));
    k->os = fg_em_scratch(e, fg_emul(t, panel_bytes(a, a->E), all));
    k->ms = fg_em_scratch(e, fg_emul(t, per, all));
    k->ls = fg_em_scratch(e, fg_emul(t, per, all));
    k->s = fg_em_scratch(e, fg_ec(t, KEYS * row));
    k->corr = fg_em_scratch(e, per);
    k->out = fg_em_scratch(e, fg_ec(t, (a->t.NR + W) * row));
    if (a->mask)
        k->mroom = fg_em_scratch(e, fg_ec(t, (a->same_mask ? 1 : a->t.NR) * KEYS * 4));
    if (a->mask && !a->same_mask)
        k->mask = fg_em_scratch(e, fg_ec(t, (KEYS + W) * row));
    fg_att_room(a, &a->q, k->panels * a->t.NR);
    fg_att_room(a, &a->k, KEYS);
    fg_att_room(a, &a->v, KEYS);
}

/* What keys [t0, t0 + n) add to the panel. */
static void
panel_block(blocks *k, fg_v n)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    ll_branch limits, mask;
    k->nk = n;
    if (fg_att_limited(a)) {
        fg_v last = ll_sub(g, ll_add(g, k->q0, k->nq), ll_i(g, 1));
        k->nk = ll_min(g, n, ll_sub(g, fg_att_end(a, last), k->t0));
        fg_v after = ll_cmp(g, LL_GT, ll_add(g, k->t0, n), fg_att_first(a, k->q0));
        ll_if(g, &limits, ll_and(g, after, ll_cmp(g, LL_GT, k->nk, ll_i(g, 0))));
    }
    if (a->mask)
        ll_if(g, &mask, ll_not(g, load_mask(k)));
    scores(k);
    adjust(k);
    softmax(k);
    values(k);
    if (a->mask)
        ll_end(g, &mask, NULL, NULL);
    if (fg_att_limited(a))
        ll_end(g, &limits, NULL, NULL);
}

static void
chunk(blocks *k)
{
    fg_att *a = k->a;
    fg_em *e = a->e;
    fg_ll *g = a->g;
    ll_loop kv, p;
    load_queries(k);
    fg_v last = ll_sub(g, ll_add(g, k->chunk0, k->nchunk), ll_i(g, 1));
    fg_v end = fg_att_end(a, last);
    ll_for(g, &kv, fg_att_first(a, k->chunk0), end, ll_i(g, KEYS), 0, NULL);
    fg_scopemark s = fg_scope(e);
    k->t0 = kv.i;
    fg_v n = ll_min(g, ll_sub(g, end, kv.i), ll_i(g, KEYS));
    k->kbase = fg_att_rows(a, &a->k, k->t0, n, &k->kld);
    k->vbase = fg_att_rows(a, &a->v, k->t0, n, &k->vld);
    each_panel(k, &p);
    fg_scopemark inner = fg_scope(e);
    panel_block(k, n);
    fg_unscope(e, inner);
    ll_next(g, &p, NULL);
    fg_unscope(e, s);
    ll_next(g, &kv, NULL);
    each_panel(k, &p);
    s = fg_scope(e);
    store(k);
    fg_unscope(e, s);
    ll_next(g, &p, NULL);
}

void
fg_att_blocks(fg_att *a)
{
    fg_em *e = a->e;
    fg_ll *g = a->g;
    blocks b = {.a = a, .panels = panels_of(a)}, *k = &b;
    a->v.copy = a->v.view.stride[2] != a->v.width;
    if (a->mask && fg_strided_of(e, a->mask, &k->mview) && k->mview.rank) {
        int last = k->mview.rank - 1;
        k->mdirect = fg_e_is(e->m->ex, k->mview.stride[last], 1) &&
                     !fg_e_is(e->m->ex, k->mview.dim[last], 1) &&
                     fg_dtypes[k->mview.dtype].bits >= 8;
    }
    reserve(k);
    fg_v H = fg_em_expr(e, a->H), nb = fg_em_expr(e, query_blocks(a)),
         n = ll_i(g, k->panels * a->t.NR);
    ll_loop l;
    ll_for(g, &l, e->begin, e->end, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    fg_v head = ll_udiv(g, l.i, nb);
    fg_att_begin(a, ll_udiv(g, head, H), ll_urem(g, head, H));
    k->chunk0 = ll_mul(g, ll_urem(g, l.i, nb), n);
    k->nchunk = ll_min(g, ll_sub(g, fg_em_expr(e, a->S), k->chunk0), n);
    chunk(k);
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
}
