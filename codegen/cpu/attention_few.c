/* attention_few.c - attention for few queries: decoding.
 *
 *     rows      query heads that share a key head, times queries; up to 8 at a time
 *     scores    x[row][D] times K[T][D] transposed    K is read once, front to back
 *     softmax   along each row; here scores and weights are rounded to a grid, if they are
 *     result    p[row][T] times V[T][E]               V is read once
 *
 * The products are those of gemv.c and run at the speed of memory.
 */
#include <math.h>
#include "codegen/cpu/attention.h"

enum { ROOM_ROWS = 64 }; /* keys pulled at a time */

typedef struct few {
    fg_att *a;
    fg_v x, ldx, y, ldy, z,
        ldz;     /* scratch: queries, scores, results; bytes between rows */
    fg_v group0; /* first query head of the key head */
    fg_v r0, n;  /* rows of this chunk */
    fg_v lo, hi; /* keys that any of them sees */
    fg_v S;
} few;

/* Query head and query of row r; sets the head of the chunk. */
static fg_v
row_begin(few *f, fg_v r)
{
    fg_att *a = f->a;
    fg_ll *g = a->g;
    fg_v at = ll_add(g, f->r0, r);
    bool one = fg_e_is(a->e->m->ex, a->S, 1);
    a->h = ll_add(g, f->group0, one ? at : ll_udiv(g, at, f->S));
    return one ? ll_i(g, 0) : ll_urem(g, at, f->S);
}

static fg_v
row_at(fg_ll *g, fg_v base, fg_v ld, fg_v r)
{
    return ll_at(g, base, g->i8, ll_mul(g, r, ld));
}

static void
clear(few *f, fg_v p, fg_v elements)
{
    fg_ll *g = f->a->g;
    int W = f->a->t.W;
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), elements, ll_i(g, W), 0, NULL);
    ll_store(g, ll_zero(ll_vec(g->f32, W)), ll_at(g, p, g->f32, l.i));
    ll_next(g, &l, NULL);
}

/* Queries to scratch, scaled; and what they see. */
static void
load_queries(few *f)
{
    fg_att *a = f->a;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_t vec = ll_vec(g->f32, W);
    fg_v scale = ll_cf(vec, FG_GET(a->anchor, attention, scale).f);
    ll_loop r, d;
    ll_for1(g, &r, ll_i(g, 0), f->n, ll_i(g, 1), 2, (fg_v[]){a->keys, ll_i(g, 0)});
    fg_v i = row_begin(f, r.i), x = row_at(g, f->x, f->ldx, r.i);
    a->q.head = a->h;
    fg_att_copy_row(a, &a->q, i, x);
    ll_for(g, &d, ll_i(g, 0), fg_em_expr(a->e, a->D), ll_i(g, W), 0, NULL);
    fg_v p = ll_at(g, x, g->f32, d.i);
    ll_store(g, ll_mul(g, ll_load(g, vec, p), scale), p);
    ll_next(g, &d, NULL);
    ll_next(g, &r,
            (fg_v[]){ll_min(g, r.phi[0], fg_att_first(a, i)),
                     ll_max(g, r.phi[1], fg_att_end(a, i))});
    f->lo = fg_att_all_count(a) ? ll_i(g, 0) : r.phi[0];
    f->hi = fg_att_all_count(a) ? a->keys : ll_max(g, r.phi[1], r.phi[0]);
}

/* One product with rows of K or V: in place, or block by block. */
static void
product(few *f, fg_att_side *s, fg_few q,
        void (*emit)(fg_ll *, const fg_tile *, const fg_few *))
{
    fg_att *a = f->a;
    fg_ll *g = a->g;
    fg_v all = ll_sub(g, f->hi, f->lo), step = s->direct ? all : ll_i(g, ROOM_ROWS);
    bool keys = s == &a->k;
    fg_v out = q.y, in = q.x;
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), all, step, 0, NULL);
    fg_v n = ll_min(g, ll_sub(g, all, l.i), step);
    fg_scopemark m = fg_scope(a->e);
    q.w = fg_att_rows(a, s, ll_add(g, f->lo, l.i), n, &q.ldw);
    if (keys) {
        q.n = n;
        q.y = ll_at(g, out, g->f32, l.i);
    } else {
        q.k = n;
        q.x = ll_at(g, in, g->f32, l.i);
    }
    emit(g, &a->t, &q);
    fg_unscope(a->e, m);
    ll_next(g, &l, NULL);
}

/* Scores of W keys from lo + at on, with cap, mask and limits. */
static fg_v
score(few *f, fg_v y, fg_v i, fg_v at, fg_v first, fg_v end)
{
    fg_att *a = f->a;
    fg_em *e = a->e;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_t vec = ll_vec(g->f32, W);
    fg_v key = ll_add(g, f->lo, at), none = ll_cf(vec, -INFINITY);
    fg_v in = ll_first(g, ll_sub(g, end, key), W);
    if (a->left >= 0)
        in = ll_and(g, in, ll_not(g, ll_first(g, ll_sub(g, first, key), W)));
    fg_v s = fg_att_round(a, FG_ROUND_SCORES, ll_load(g, vec, ll_at(g, y, g->f32, at)));
    s = fg_att_cap(a, s, 1);
    if (a->mask) {
        e->lanes = W;
        e->mask = in;
        s = ll_add(g, s, fg_att_mask(a, i, key));
        e->mask = NULL;
    }
    s = fg_att_round(a, FG_ROUND_MASKED, s);
    if (fg_att_all_count(a))
        none = ll_sel(g, ll_first(g, ll_sub(g, a->keys, key), W), ll_cf(vec, a->hidden),
                      none);
    return ll_sel(g, in, s, none);
}

/* The weights of a row on their grid; times inv, they are what is to be rounded. */
static void
round_weights(few *f, fg_v y, fg_v all, fg_v inv)
{
    fg_att *a = f->a;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_v by = ll_splat(g, inv, W);
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), all, ll_i(g, W), 0, NULL);
    fg_v p = ll_at(g, y, g->f32, l.i);
    fg_v w = ll_mul(g, ll_load(g, ll_vec(g->f32, W), p), by);
    ll_store(g, fg_att_round(a, FG_ROUND_WEIGHTS, w), p);
    ll_next(g, &l, NULL);
}

static fg_v
weight(fg_ll *g, fg_v score, fg_v max)
{
    fg_t t = LLVMTypeOf(score);
    return vm_exp2(g, ll_mul(g, ll_sub(g, score, max), ll_cf(t, FG_LOG2_E)));
}

/* Row r of the scores becomes weights; returns what the results are multiplied with. */
static fg_v
softmax(few *f, fg_v r)
{
    fg_att *a = f->a;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_t vec = ll_vec(g->f32, W);
    fg_v i = row_begin(f, r), y = row_at(g, f->y, f->ldy, r), zero = ll_i(g, 0);
    fg_v first = fg_att_first(a, i), end = fg_att_end(a, i),
         all = ll_sub(g, f->hi, f->lo);
    fg_v sink = fg_att_sink(a, a->h), none = ll_cf(vec, -INFINITY), sum = ll_zero(vec);
    ll_loop l;
    ll_for(g, &l, zero, all, ll_i(g, W), 1, &none);
    fg_scopemark m = fg_scope(a->e);
    fg_v s = score(f, y, i, l.i, first, end);
    fg_unscope(a->e, m);
    ll_store(g, s, ll_at(g, y, g->f32, l.i));
    ll_next(g, &l, (fg_v[]){ll_max(g, s, l.phi[0])});
    fg_v top = ll_hmax(g, l.phi[0]);
    if (sink)
        top = ll_max(g, top, sink);
    fg_v floor = fg_att_floor(a, top);
    ll_for(g, &l, zero, all, ll_i(g, W), 1, &sum);
    fg_v p = ll_at(g, y, g->f32, l.i);
    fg_v w = weight(g, ll_load(g, vec, p), ll_splat(g, floor, W));
    ll_store(g, w, p);
    ll_next(g, &l, (fg_v[]){ll_add(g, l.phi[0], w)});
    fg_v total = ll_hsum(g, l.phi[0]);
    if (sink)
        total = ll_add(g, total, weight(g, sink, floor));
    fg_v inv = fg_att_inverse(a, total);
    if (!fg_att_rounds(a, FG_ROUND_WEIGHTS))
        return inv;
    round_weights(f, y, all, inv);
    return ll_cf(g->f32, 1);
}

static void
index_of(fg_product *p, fg_v row, fg_index col, fg_index *ix)
{
    few *f = p->user;
    fg_v i = row_begin(f, row);
    ix[0] = fg_ix(p->e, f->a->b);
    ix[1] = fg_ix(p->e, f->a->h);
    ix[2] = fg_ix(p->e, i);
    ix[3] = col;
}

static void
chunk(few *f)
{
    fg_att *a = f->a;
    fg_em *e = a->e;
    fg_ll *g = a->g;
    int W = a->t.W;
    fg_t vec = ll_vec(g->f32, W);
    fg_v four = ll_i(g, 4), E = fg_em_expr(e, a->E), zero = ll_i(g, 0);
    load_queries(f);
    clear(f, f->y, ll_udiv(g, ll_mul(g, f->n, f->ldy), four));
    clear(f, f->z, ll_udiv(g, ll_mul(g, f->n, f->ldz), four));
    fg_few q = {.x = f->x,
                .ldx = f->ldx,
                .m = f->n,
                .k = fg_em_expr(e, a->D),
                .y = f->y,
                .ldy = f->ldy};
    bool wide = fg_e_lo(e->m->ex, a->D) >= 16 * W;
    product(f, &a->k, q, wide ? fg_few_columns : fg_few_short_columns);
    ll_loop r, d;
    fg_v inv = f->x; /* queries are done with: row r's factor goes to x[r][0] */
    ll_for1(g, &r, zero, f->n, ll_i(g, 1), 0, NULL);
    fg_scopemark m = fg_scope(e);
    ll_store(g, softmax(f, r.i), row_at(g, inv, f->ldx, r.i));
    fg_unscope(e, m);
    ll_next(g, &r, NULL);
    fg_few o = {.x = f->y, .ldx = f->ldy, .m = f->n, .n = E, .y = f->z, .ldy = f->ldz};
    product(f, &a->v, o, fg_few_rows);
    ll_for1(g, &r, zero, f->n, ll_i(g, 1), 0, NULL);
    fg_v by = ll_splat(g, ll_load(g, g->f32, row_at(g, inv, f->ldx, r.i)), W);
    ll_for(g, &d, zero, E, ll_i(g, W), 0, NULL);
    fg_v p = ll_at(g, row_at(g, f->z, f->ldz, r.i), g->f32, d.i);
    ll_store(g, ll_mul(g, ll_load(g, vec, p), by), p);
    ll_next(g, &d, NULL);
    ll_next(g, &r, NULL);
    a->p.index = index_of;
    a->p.user = f;
    a->p.done = (struct fg_done){zero, zero, E, f->z, ll_udiv(g, f->ldz, four)};
    fg_product_store(&a->p, f->n, E, fg_e_divides(e->m->ex, W, a->E));
    a->p.user = a;
}

static fg_expr
row_blocks(fg_att *a)
{
    fg_exprs *t = a->e->m->ex;
    fg_expr rows = fg_emul(t, a->group, a->S);
    return fg_ediv(t, fg_eadd(t, rows, fg_ec(t, FG_FEW_ROWS - 1)), fg_ec(t, FG_FEW_ROWS));
}

fg_expr
fg_att_few_chunks(fg_att *a)
{
    fg_exprs *t = a->e->m->ex;
    return fg_emul(t, fg_emul(t, a->B, a->G), row_blocks(a));
}

/* Scratch for FG_FEW_ROWS rows of n floats and a vector more; bytes between rows. */
static fg_v
reserve(fg_att *a, fg_expr n, fg_v *ld)
{
    fg_exprs *t = a->e->m->ex;
    int W = a->t.W;
    fg_expr up = fg_ediv(t, fg_eadd(t, n, fg_ec(t, 2 * W - 1)), fg_ec(t, W));
    fg_expr bytes = fg_emul(t, up, fg_ec(t, W * 4));
    *ld = fg_em_expr(a->e, bytes);
    return fg_em_scratch(a->e, fg_emul(t, bytes, fg_ec(t, FG_FEW_ROWS)));
}

void
fg_att_few(fg_att *a)
{
    fg_em *e = a->e;
    fg_ll *g = a->g;
    fg_exprs *t = e->m->ex;
    few b = {.a = a, .S = fg_em_expr(e, a->S)}, *f = &b;
    f->x = reserve(a, a->D, &f->ldx);
    f->y = reserve(a, a->T, &f->ldy);
    f->z = reserve(a, a->E, &f->ldz);
    fg_att_room(a, &a->k, ROOM_ROWS);
    fg_att_room(a, &a->v, ROOM_ROWS);
    fg_v nb = fg_em_expr(e, row_blocks(a)), G = fg_em_expr(e, a->G);
    fg_v group = fg_em_expr(e, a->group);
    fg_v rows = fg_em_expr(e, fg_emul(t, a->group, a->S)), most = ll_i(g, FG_FEW_ROWS);
    ll_loop l;
    ll_for(g, &l, e->begin, e->end, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    fg_v head = ll_udiv(g, l.i, nb);
    f->group0 = ll_mul(g, ll_urem(g, head, G), group);
    fg_att_begin(a, ll_udiv(g, head, G), f->group0);
    f->r0 = ll_mul(g, ll_urem(g, l.i, nb), most);
    f->n = ll_min(g, ll_sub(g, rows, f->r0), most);
    chunk(f);
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
}
