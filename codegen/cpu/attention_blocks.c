/* attention_blocks.c - attention for many queries.
 *
 *     Q^T  [D][64]          64 queries of one head, scaled, packed once
 *     S^T  [keys][64]       = K Q^T          rows of K are broadcast operands
 *     P    = exp(S^T - max) down the columns: max and sum are plain vector operations
 *     O^T  [E][64]          = O^T exp(old max - max) + V^T P       columns of V broadcast
 *
 * Vectors run along queries, so softmax needs no sums across lanes, and neither
 * K nor V is packed: both are the operand that the tile kernels broadcast, which may have
 * any strides. Blocks of keys that no query of the block sees are never touched.
 */
#include <math.h>
#include "codegen/cpu/attention.h"

enum { ROOM_V = 8 }; /* most vectors of a block of queries */

typedef struct blocks {
    fg_att *a;
    fg_v q, s, o, c, m, l, corr, out; /* scratch */
    fg_v mrows, mask;                 /* scratch: mask by query, mask by key */
    int bc;                           /* keys per block */
    fg_v q0, nq;                      /* first query and how many */
    fg_v t0, nk;                      /* first key and how many */
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

static void
load_queries(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    const fg_tile *t = &a->t;
    fg_v ld, zero = ll_i(g, 0);
    fg_v src = fg_att_rows(a, &a->q, k->q0, k->nq, &ld);
    fg_v D = fg_em_expr(a->e, a->D), E = fg_em_expr(a->e, a->E);
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

/* ---- scores --------------------------------------------------------------------- */

static fg_v
row_of_k(void *user, fg_v row, fg_v n)
{
    blocks *k = user;
    (void)n;
    return ll_at(k->a->g, k->kbase, k->a->g->i8, ll_mul(k->a->g, row, k->kld));
}

static void
scores(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    int64_t T = fg_e_hi(a->e->m->ex, a->T);
    bool even = fg_e_divides(a->e->m->ex, k->bc, a->T) && !fg_att_limited(a) &&
                !a->lengths && !a->mask;
    k->kbase = fg_att_rows(a, &a->k, k->t0, k->nk, &k->kld);
    fg_panel p = {.t = a->t,
                  .rows = k->nk,
                  .k = fg_em_expr(a->e, a->D),
                  .min_rows = even ? k->bc : 1,
                  .max_rows = T < k->bc ? T : k->bc,
                  .lda = k->kld,
                  .ska = ll_i(g, 4),
                  .b = k->q,
                  .c = k->s,
                  .stack = true,
                  .a = row_of_k,
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

/* The mask of this block to scratch: by key and query, as the scores are, or one row. */
static void
load_mask(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    fg_v rows = a->same_mask ? ll_i(g, 1) : k->nq;
    ll_loop l;
    ll_for1(g, &l, ll_i(g, 0), rows, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(a->e);
    a->row = ll_add(g, k->q0, l.i);
    a->to = ll_at(g, k->mrows, g->f32, ll_mul(g, l.i, ll_i(g, k->bc)));
    a->e->lanes = a->t.W;
    fg_em_run(a->e, ll_i(g, 0), k->nk, false, mask_run, k);
    fg_unscope(a->e, s);
    ll_next(g, &l, NULL);
    if (!a->same_mask)
        fg_pack_columns(g, &a->t, k->mrows, ll_i(g, k->bc * 4), k->nk, k->nq, k->mask);
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
    ll_for(g, &r, ll_i(g, 0), k->nk, ll_i(g, 1), 0, NULL);
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

/* Softcap, mask and limits. Limits matter only where the block lies across one. */
static void
adjust(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    if (a->mask)
        load_mask(k);
    if (a->mask || a->cap != 0) {
        adjust_rows(k);
    } else if (fg_att_limited(a)) {
        fg_v last = ll_sub(g, ll_add(g, k->q0, k->nq), ll_i(g, 1));
        fg_v over = ll_cmp(g, LL_GT, ll_add(g, k->t0, k->nk), fg_att_end(a, k->q0));
        fg_v under = ll_cmp(g, LL_LT, k->t0, fg_att_first(a, last));
        ll_branch edge;
        ll_if(g, &edge, ll_or(g, over, under));
        adjust_rows(k);
        ll_end(g, &edge, NULL, NULL);
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
        fg_v corr = vm_exp_neg(g, ll_sub(g, old[j], floor[j]));
        put(k, corr, k->corr, zero, j);
        next[j] = ll_mul(g, get(k, k->l, zero, j), corr);
    }
    ll_for(g, &r, zero, k->nk, one, t->NV, next);
    for (int j = 0; j < t->NV; j++) {
        fg_v p = vm_exp_neg(g, ll_sub(g, get(k, k->s, r.i, j), floor[j]));
        put(k, p, k->s, r.i, j);
        next[j] = ll_add(g, r.phi[j], p);
    }
    ll_next(g, &r, next);
    for (int j = 0; j < t->NV; j++)
        put(k, r.phi[j], k->l, zero, j);
}

/* ---- values --------------------------------------------------------------------- */

static fg_v
column_of_v(void *user, fg_v row, fg_v n)
{
    blocks *k = user;
    (void)n;
    return ll_at(k->a->g, k->vbase, k->a->g->f32, row);
}

static void
accumulate(void *user, fg_v row, fg_v n)
{
    blocks *k = user;
    fg_ll *g = k->a->g;
    int nv = k->a->t.NV;
    fg_v zero = ll_i(g, 0), corr[ROOM_V];
    for (int j = 0; j < nv; j++)
        corr[j] = get(k, k->corr, zero, j);
    ll_loop l;
    ll_for1(g, &l, zero, n, ll_i(g, 1), 0, NULL);
    fg_v at = ll_add(g, row, l.i);
    for (int j = 0; j < nv; j++)
        put(k, ll_fma(g, get(k, k->o, at, j), corr[j], get(k, k->c, l.i, j)), k->o, at,
            j);
    ll_next(g, &l, NULL);
}

static void
values(blocks *k)
{
    fg_att *a = k->a;
    fg_exprs *t = a->e->m->ex;
    k->vbase = fg_att_rows(a, &a->v, k->t0, k->nk, &k->vld);
    fg_panel p = {.t = a->t,
                  .rows = fg_em_expr(a->e, a->E),
                  .k = k->nk,
                  .min_rows = fg_e_lo(t, a->E),
                  .max_rows = fg_e_hi(t, a->E),
                  .lda = ll_i(a->g, 4),
                  .ska = k->vld,
                  .b = k->s,
                  .c = k->c,
                  .a = column_of_v,
                  .done = accumulate,
                  .user = k};
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

static fg_expr
query_blocks(fg_att *a)
{
    fg_exprs *t = a->e->m->ex;
    return fg_ediv(t, fg_eadd(t, a->S, fg_ec(t, a->t.NR - 1)), fg_ec(t, a->t.NR));
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
    fg_expr per = fg_ec(t, row);
    /* Causal: smaller blocks of keys waste less across the diagonal. */
    k->bc = a->right >= 0 || a->left >= 0 ? 64 : 128;
    k->q = fg_em_scratch(e, fg_emul(t, fg_eadd(t, a->D, fg_ec(t, W)), per));
    k->s = fg_em_scratch(e, fg_ec(t, k->bc * row));
    k->o = fg_em_scratch(e, fg_emul(t, a->E, per));
    k->c = fg_em_scratch(e, fg_ec(t, a->t.MR * row));
    k->m = fg_em_scratch(e, per);
    k->l = fg_em_scratch(e, per);
    k->corr = fg_em_scratch(e, per);
    k->out = fg_em_scratch(e, fg_ec(t, (a->t.NR + W) * row));
    if (a->mask)
        k->mrows = fg_em_scratch(e, fg_ec(t, (a->same_mask ? 1 : a->t.NR) * k->bc * 4));
    if (a->mask && !a->same_mask)
        k->mask = fg_em_scratch(e, fg_ec(t, (k->bc + W) * row));
    fg_att_room(a, &a->q, a->t.NR);
    fg_att_room(a, &a->k, k->bc);
    fg_att_room(a, &a->v, k->bc);
}

void
fg_att_blocks(fg_att *a)
{
    fg_em *e = a->e;
    fg_ll *g = a->g;
    blocks b = {.a = a}, *k = &b;
    reserve(k);
    fg_v H = fg_em_expr(e, a->H), nb = fg_em_expr(e, query_blocks(a)),
         nr = ll_i(g, a->t.NR);
    ll_loop l, kv;
    ll_for(g, &l, e->begin, e->end, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    fg_v head = ll_udiv(g, l.i, nb);
    fg_att_begin(a, ll_udiv(g, head, H), ll_urem(g, head, H));
    k->q0 = ll_mul(g, ll_urem(g, l.i, nb), nr);
    k->nq = ll_min(g, ll_sub(g, fg_em_expr(e, a->S), k->q0), nr);
    load_queries(k);
    fg_v last = ll_sub(g, ll_add(g, k->q0, k->nq), ll_i(g, 1));
    fg_v end = fg_att_end(a, last);
    ll_for(g, &kv, fg_att_first(a, k->q0), end, ll_i(g, k->bc), 0, NULL);
    k->t0 = kv.i;
    k->nk = ll_min(g, ll_sub(g, end, kv.i), ll_i(g, k->bc));
    fg_scopemark inner = fg_scope(e);
    scores(k);
    adjust(k);
    softmax(k);
    values(k);
    fg_unscope(e, inner);
    ll_next(g, &kv, NULL);
    store(k);
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
}
