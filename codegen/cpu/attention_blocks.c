/* attention_blocks.c - attention for many queries.
 *
 *     Q^T  [D][NR]          a panel of queries of one head, scaled, packed once
 *     S^T  [keys][NR]       = K Q^T          rows of K are broadcast operands
 *     P    = 2^(S^T - max)  down the columns: max and sum are plain vector operations
 *     O^T  [E][NR]          += V^T P         columns of V are broadcast operands
 *
 * Vectors run along queries, so softmax needs no sums across lanes, and neither
 * K nor V is packed: both are the operand that the tile kernels broadcast, which may have
 * any strides. A chunk is a few panels of queries, which share what is read of K and V.
 * Scores are powers of two: log2 e is in what scales the queries.
 *
 * The maximum only keeps powers in range, so it follows the true one when that is SLACK
 * above: then O^T and the sums are rescaled, which seldom happens after the first block.
 *
 * Keys come in blocks. A block that no query of a panel sees is not computed: limits are
 * known by arithmetic, and what a mask says is read off the mask itself, block by block,
 * so that any mask counts: causal, padding, windows, documents side by side. A block that
 * all queries see is not adjusted either.
 *
 * Where a query that sees nothing is the mean of all values, what limits hide is passed over
 * only when all queries of the panel have seen a key. So blocks go round: from where
 * that is soon to the last key, and then those before.
 */
#include <math.h>
#include "codegen/cpu/attention.h"

enum {
    QUERIES = 128, /* of a chunk, at least */
    KEYS = 64,     /* of a block: with V it fits the first-level cache */
    SLACK = 16,    /* what weights may be above 1, as a power of two */
    LINE = 64      /* bytes that memory delivers at a time */
};

/* What a mask adds, as bits of f32. From FAR down it is meant to hide; nothing is between
 * that and -infinity but large negative numbers. */
#define BITS_HIDDEN ((int32_t)0xff800000) /* -infinity */
#define BITS_FAR ((int32_t)0xf1800000)    /* -2^100 */
static const double near = -0x1p99;       /* any score of a key that is seen */

/* Rows that will be read soon. */
typedef struct source {
    fg_v base, ld;
    fg_expr width;
} source;

typedef struct blocks {
    fg_att *a;
    int panels;               /* of a chunk, at most */
    fg_v qs, os, ms, ls;      /* scratch, by panel: queries, results, max, sum */
    fg_v q, o, m, l;          /* of the panel under way */
    fg_v s, out, mroom, mask; /* scratch: scores; mask by query, by key */
    fg_strided mview;
    bool mdirect;        /* the mask is an operand, its rows run along keys */
    fg_v mrows, mld;     /* rows of the mask in this block, bytes between them */
    fg_v chunk0, nchunk; /* first query of the chunk and how many */
    fg_v q0, nq;         /* of the panel */
    fg_v t0, nk;         /* first key of the block and how many */
    fg_v mixed;          /* the mask of this block is not 0 everywhere */
    fg_v seen; /* all queries of the panel have seen a key; NULL: not asked yet */
    fg_v kbase, vbase, kld, vld;
    source next[3]; /* what the next chunk reads of q, k and v */
} blocks;

/* Columns [col, col + W) of a row of a panel. */
static fg_v
vec_at(blocks *k, fg_v base, fg_v row, fg_v col)
{
    fg_ll *g = k->a->g;
    fg_v at = ll_add(g, ll_mul(g, row, ll_i(g, k->a->t.NR)), col);
    return ll_at(g, base, g->f32, at);
}

static fg_v
get(blocks *k, fg_v base, fg_v row, fg_v col)
{
    const fg_tile *t = &k->a->t;
    return ll_load_aligned(k->a->g, ll_vec(t->elem, t->W), vec_at(k, base, row, col),
                           t->W * 4);
}

static void
put(blocks *k, fg_v v, fg_v base, fg_v row, fg_v col)
{
    ll_store_aligned(k->a->g, v, vec_at(k, base, row, col), k->a->t.W * 4);
}

/* for each vector of columns of the panel that has queries; ends with ll_next. Queries have
 * nothing to do with each other, and one vector at a time is a quarter of the code. */
static fg_v
each_vector(blocks *k, ll_loop *j)
{
    fg_ll *g = k->a->g;
    ll_for1(g, j, ll_i(g, 0), k->nq, ll_i(g, k->a->t.W), 0, NULL);
    return j->i;
}

/* Columns col.. of `rows` rows become times `by`, or all zero. */
static void
scale(blocks *k, fg_v base, fg_v rows, fg_v col, fg_v by)
{
    fg_ll *g = k->a->g;
    ll_loop r;
    ll_for(g, &r, ll_i(g, 0), rows, ll_i(g, 1), 0, NULL);
    put(k,
        by ? ll_mul(g, get(k, base, r.i, col), by) : ll_zero(ll_vec(g->f32, k->a->t.W)),
        base, r.i, col);
    ll_next(g, &r, NULL);
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
    fg_v zero = ll_i(g, 0), D = fg_em_expr(a->e, a->D), sink = fg_att_sink(a, a->h);
    fg_t vec = ll_vec(g->f32, t->W);
    if (sink)
        sink = ll_splat(g, ll_mul(g, sink, ll_cf(g->f32, FG_LOG2_E)), t->W);
    src = ll_at(g, src, g->i8, ll_mul(g, ll_sub(g, k->q0, k->chunk0), ld));
    fg_pack_columns(g, t, src, ld, D, k->nq, k->q);
    ll_loop j;
    fg_v col = each_vector(k, &j);
    scale(k, k->q, D, col, ll_cf(vec, FG_GET(a->anchor, attention, scale).f * FG_LOG2_E));
    scale(k, k->o, fg_em_expr(a->e, a->E), col, NULL);
    put(k, sink ? sink : ll_cf(vec, -INFINITY), k->m, zero, col);
    put(k, ll_cf(vec, sink ? 1 : 0), k->l, zero, col);
    ll_next(g, &j, NULL);
    /* Vectors without queries take part in products only: zeros, as anything could be slow. */
    fg_v end = ll_and(g, ll_add(g, k->nq, ll_i(g, t->W - 1)), ll_i(g, -t->W));
    ll_for(g, &j, end, ll_i(g, t->NR), ll_i(g, t->W), 0, NULL);
    scale(k, k->q, D, j.i, NULL);
    scale(k, k->o, fg_em_expr(a->e, a->E), j.i, NULL);
    ll_next(g, &j, NULL);
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

/* Rows from `row` on of a side whose head is at `base`. */
static source
source_of(fg_att *a, const fg_att_side *s, fg_v base, fg_v row)
{
    fg_ll *g = a->g;
    return (source){ll_at(g, base, g->i8, ll_mul(g, row, s->ld)), s->ld, s->width};
}

/* What a tile fetches in its turns: a row each, or a piece of it that is as wide as the
 * panel. Tiles take the pieces of all n sources in turn, then rows further on. Rows lie so
 * far apart that the machine does not see them coming. */
static void
fetch(blocks *k, int n, const source *s, fg_v turns, fg_v tile, fg_v *p, fg_v *ld)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    fg_exprs *t = a->e->m->ex;
    fg_expr all = fg_ec(t, 0), first[3];
    for (int i = 0; i < n; i++) {
        first[i] = all;
        all = fg_eadd(
            t, all,
            fg_ediv(t, fg_eadd(t, s[i].width, fg_ec(t, a->t.NR - 1)), fg_ec(t, a->t.NR)));
    }
    fg_v pieces = fg_em_expr(a->e, all), at = ll_urem(g, tile, pieces), piece = at;
    fg_v row = ll_mul(g, ll_udiv(g, tile, pieces), turns), base = s[0].base;
    *ld = s[0].ld;
    for (int i = 1; i < n; i++) {
        fg_v from = fg_em_expr(a->e, first[i]), mine = ll_cmp(g, LL_GE, at, from);
        piece = ll_sel(g, mine, ll_sub(g, at, from), piece);
        base = ll_sel(g, mine, s[i].base, base);
        *ld = ll_sel(g, mine, s[i].ld, *ld);
    }
    *p = ll_at(g, ll_at(g, base, g->i8, ll_mul(g, row, *ld)), g->f32,
               ll_mul(g, piece, ll_i(g, a->t.NR)));
}

/* The next block of K and V, while the scores of this one are computed. */
static void
fetch_block(void *user, fg_v tile, fg_v *p, fg_v *ld)
{
    blocks *k = user;
    fg_att *a = k->a;
    fg_v row = ll_add(a->g, k->t0, ll_i(a->g, KEYS));
    source s[] = {source_of(a, &a->k, a->k.base, row),
                  source_of(a, &a->v, a->v.base, row)};
    fetch(k, 2, s, fg_em_expr(a->e, a->D), tile, p, ld);
}

/* What the next chunk starts with, while the values of a block are summed. */
static void
fetch_chunk(void *user, fg_v tile, fg_v *p, fg_v *ld)
{
    blocks *k = user;
    fetch(k, 3, k->next, k->nk, tile, p, ld);
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
                  .down = ll_i(g, a->t.ld),
                  .at = k->kbase,
                  .ahead = a->k.direct && a->v.direct ? fetch_block : NULL,
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

/* Whether all queries of the panel have seen a key (i1). */
static fg_v
all_have_seen(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_v seen = ll_cf(ll_vec(g->f32, W), INFINITY);
    ll_loop l;
    ll_for1(g, &l, ll_i(g, 0), k->nq, ll_i(g, W), 1, &seen);
    seen = ll_min(g, get(k, k->m, ll_i(g, 0), l.i), l.phi[0]);
    ll_next(g, &l, &seen);
    return ll_cmp(g, LL_GT, ll_hreduce(g, l.phi[0], ll_min), ll_cf(g->f32, near));
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
    fg_v far = ll_cmp(g, LL_GE, least, ll_i32(g, BITS_FAR));
    far = ll_and(g, far, k->seen ? k->seen : all_have_seen(k));
    far = ll_or(g, far, ll_cmp(g, LL_EQ, least, hidden));
    return ll_and(g, far, ll_cmp(g, LL_LE, most, hidden));
}

/* Lanes of the query vector at `col` that see `key`. */
static fg_v
visible(blocks *k, fg_v key, fg_v col)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_v lane = ll_iota(g->i32, W), ok = NULL;
    fg_v i = ll_add(g, ll_add(g, k->q0, col), a->shift);
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

/* What a mask adds, as a power of two; what only hides stays as it is. */
static fg_v
mask_power(fg_ll *g, fg_v m)
{
    fg_t t = LLVMTypeOf(m);
    fg_v adds = ll_cmp(g, LL_LT, ll_abs(g, m), ll_cf(t, -near));
    return ll_sel(g, adds, ll_mul(g, m, ll_cf(t, FG_LOG2_E)), m);
}

static void
adjust_rows(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    const fg_tile *t = &a->t;
    ll_loop j, r;
    if (a->mask && !a->same_mask)
        fg_pack_columns(g, t, k->mrows, k->mld, k->nk, k->nq, k->mask);
    fg_v col = each_vector(k, &j);
    ll_for1(g, &r, ll_i(g, 0), k->nk, ll_i(g, 1), 0, NULL);
    fg_v s = fg_att_cap(a, get(k, k->s, r.i, col), FG_LOG2_E);
    if (a->mask) {
        fg_v m = a->same_mask ? ll_load(g, g->f32, ll_at(g, k->mrows, g->f32, r.i))
                              : get(k, k->mask, r.i, col);
        s = ll_add(g, s, ll_splat(g, mask_power(g, m), t->W));
    }
    if (fg_att_limited(a))
        s = ll_sel(g, visible(k, ll_add(g, k->t0, r.i), col), s,
                   ll_cf(LLVMTypeOf(s), a->hidden));
    put(k, s, k->s, r.i, col);
    ll_next(g, &r, NULL);
    ll_next(g, &j, NULL);
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

/* `top` is the maximum of these columns from now on: what was summed is rescaled. */
static void
rescale(blocks *k, fg_v col, fg_v top)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    fg_v zero = ll_i(g, 0);
    fg_v by = vm_exp2(g, ll_sub(g, get(k, k->m, zero, col), fg_att_floor(a, top)));
    put(k, top, k->m, zero, col);
    scale(k, k->l, ll_i(g, 1), col, by);
    scale(k, k->o, fg_em_expr(a->e, a->E), col, by);
}

static void
softmax(blocks *k)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    fg_v zero = ll_i(g, 0), one = ll_i(g, 1);
    ll_loop j, r;
    ll_branch s;
    fg_v col = each_vector(k, &j), max = get(k, k->m, zero, col);
    ll_for1(g, &r, zero, k->nk, one, 1, &max);
    fg_v top = ll_max(g, get(k, k->s, r.i, col), r.phi[0]);
    ll_next(g, &r, &top);
    /* Each query by itself. Those of this vector beyond the last one are copies of it. */
    fg_v above = ll_add(g, max, ll_cf(LLVMTypeOf(max), SLACK));
    above = ll_cmp(g, LL_GT, r.phi[0], above);
    top = ll_sel(g, above, r.phi[0], max);
    ll_if(g, &s, ll_any(g, above));
    rescale(k, col, top);
    ll_end(g, &s, NULL, NULL);
    max = fg_att_floor(a, top);
    fg_v sum = get(k, k->l, zero, col);
    ll_for1(g, &r, zero, k->nk, one, 1, &sum);
    fg_v p = vm_exp2(g, ll_sub(g, get(k, k->s, r.i, col), max));
    put(k, p, k->s, r.i, col);
    ll_next(g, &r, (fg_v[]){ll_add(g, r.phi[0], p)});
    put(k, r.phi[0], k->l, zero, col);
    ll_next(g, &j, NULL);
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
                  .start = ll_i(a->g, 0),
                  .down = ll_i(a->g, a->t.ld),
                  .at = k->vbase,
                  .ahead = k->next[0].base ? fetch_chunk : NULL,
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
    fg_v zero = ll_i(g, 0), E = fg_em_expr(a->e, a->E), nr = ll_i(g, t->NR);
    ll_loop l;
    fg_v col = each_vector(k, &l);
    scale(k, k->o, E, col, fg_att_inverse(a, get(k, k->l, zero, col)));
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
        fg_v end = fg_att_end(a, last), first = fg_att_first(a, k->q0);
        if (fg_att_all_count(a)) {
            k->seen = all_have_seen(k);
            end = ll_sel(g, k->seen, end, a->keys);
            first = ll_sel(g, k->seen, first, ll_i(g, 0));
        }
        k->nk = ll_min(g, n, ll_sub(g, end, k->t0));
        fg_v after = ll_cmp(g, LL_GT, ll_add(g, k->t0, n), first);
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

/* for each block of keys, of n: those that a query of the chunk sees, or all of them from
 * there on and round; ends with ll_next */
static fg_v
each_block(blocks *k, ll_loop *kv)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    bool all = fg_att_all_count(a);
    bool shared = all && a->left > k->panels * a->t.NR; /* all of a chunk see some keys */
    fg_v keys = ll_i(g, KEYS);
    fg_v last = ll_sub(g, ll_add(g, k->chunk0, k->nchunk), ll_i(g, 1));
    fg_v first = fg_att_first(a, shared ? last : k->chunk0);
    fg_v end = all ? a->keys : fg_att_end(a, last);
    if (!all || a->left < 0) {
        ll_for(g, kv, first, end, keys, 0, NULL);
        k->t0 = kv->i;
        return ll_min(g, ll_sub(g, end, kv->i), keys);
    }
    first = ll_min(g, first, end);
    fg_v after = ll_add(g, ll_sub(g, end, first), ll_i(g, KEYS - 1));
    fg_v turn = ll_and(g, after, ll_i(g, -KEYS));
    ll_for(g, kv, ll_i(g, 0), ll_add(g, turn, first), keys, 0, NULL);
    fg_v before = ll_cmp(g, LL_GE, kv->i, turn), back = ll_sub(g, ll_i(g, 0), turn);
    k->t0 = ll_add(g, kv->i, ll_sel(g, before, back, first));
    return ll_min(g, ll_sub(g, ll_sel(g, before, first, end), k->t0), keys);
}

static void
chunk(blocks *k)
{
    fg_att *a = k->a;
    fg_em *e = a->e;
    fg_ll *g = a->g;
    ll_loop kv, p;
    load_queries(k);
    fg_v n = each_block(k, &kv);
    fg_scopemark s = fg_scope(e);
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

/* Batch, head and first query of chunk i. */
static fg_v
chunk_at(blocks *k, fg_v i, fg_v *b, fg_v *h)
{
    fg_att *a = k->a;
    fg_ll *g = a->g;
    fg_v H = fg_em_expr(a->e, a->H), n = fg_em_expr(a->e, query_blocks(a));
    fg_v head = ll_udiv(g, i, n);
    *b = ll_udiv(g, head, H);
    *h = ll_urem(g, head, H);
    return ll_mul(g, ll_urem(g, i, n), ll_i(g, k->panels * a->t.NR));
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
    ll_loop l;
    ll_for(g, &l, e->begin, e->end, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    fg_v batch, h, next = chunk_at(k, ll_add(g, l.i, ll_i(g, 1)), &batch, &h);
    if (a->q.direct && a->k.direct && a->v.direct) {
        fg_v kvh = fg_att_key_head(a, h);
        k->next[0] = source_of(a, &a->q, fg_att_head(a, &a->q, batch, h), next);
        k->next[1] = source_of(a, &a->k, fg_att_head(a, &a->k, batch, kvh), ll_i(g, 0));
        k->next[2] = source_of(a, &a->v, fg_att_head(a, &a->v, batch, kvh), ll_i(g, 0));
    }
    k->chunk0 = chunk_at(k, l.i, &batch, &h);
    k->nchunk = ll_min(g, ll_sub(g, fg_em_expr(e, a->S), k->chunk0),
                       ll_i(g, k->panels * a->t.NR));
    fg_att_begin(a, batch, h);
    chunk(k);
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
}
