/* matmul_int.c - products of bytes with zero points, exact in i32, for many rows.
 *
 *     %y = matmul_int %x, %w, %zx, %zy : i32[M,N]      x: u8[M,K], w: i8[K,N]
 *
 * Rows of w, contiguous along n, are interleaved by fours into the panels of quant_tile.c:
 * signed bytes, an unsigned one with zero point 128 being one, too. Likewise signed bytes of x
 * become unsigned, and their zero point 128 larger. The sum of (x - zx) w over k is that of
 * x w, begun at -zx times the sum of w's column: zx may be known only when the kernel runs.
 * All of it is arithmetic modulo 2^32, as the operation's.
 */
#include "codegen/cpu/matmul_int.h"

struct fg_int {
    fg_em *e;
    fg_tile tile;
    fg_strided x, w; /* [rows, k], [k, n] */
    bool flip_x, flip_w;
    fg_reg zero; /* of x; 0: none */
    fg_expr k, quads;
    fg_v panel, start, rows;
};

static bool
one_element(fg_em *e, fg_reg r)
{
    return fg_e_is(e->m->ex, fg_type_count(e->m->ex, fg_rt(e->m, r)), 1);
}

/* The one zero point of w as a constant; absent: 0. */
static bool
zero_of(fg_em *e, fg_reg r, int64_t *z)
{
    *z = 0;
    return !r || (one_element(e, r) && fg_const_i64(e->m, r, 0, z));
}

fg_int *
fg_int_of(fg_em *e, const fg_inst *i, fg_expr rows)
{
    fg_exprs *t = e->m->ex;
    const fg_type *x = fg_rt(e->m, i->in[0]), *w = fg_rt(e->m, i->in[1]);
    fg_int *q = FG_NEW(e->a, fg_int);
    int64_t z;
    q->e = e;
    q->k = x->dim[x->rank - 1];
    q->zero = i->nin > 2 ? i->in[2] : 0;
    q->flip_x = x->dtype == FG_i8;
    q->flip_w = w->dtype == FG_u8;
    if (w->rank != 2 || (x->dtype != FG_u8 && !q->flip_x) ||
        (w->dtype != FG_i8 && !q->flip_w) || (q->zero && !one_element(e, q->zero)) ||
        !zero_of(e, i->nin > 3 ? i->in[3] : 0, &z) || z != (q->flip_w ? 128 : 0) ||
        !fg_strided_of(e, i->in[0], &q->x) || !fg_strided_of(e, i->in[1], &q->w) ||
        !fg_strided_reshape(t, &q->x, 2, (fg_expr[]){rows, q->k}) ||
        !fg_e_is(t, q->x.stride[1], 1) || !fg_e_is(t, q->w.stride[1], 1))
        return NULL;
    q->quads = fg_ediv(t, fg_eadd(t, q->k, fg_ec(t, 3)), fg_ec(t, 4));
    q->tile = fg_q_tile(e->g);
    q->tile.elem = e->g->i32;
    return q;
}

fg_tile
fg_int_take(fg_int *q)
{
    fg_exprs *t = q->e->m->ex;
    fg_expr line = fg_ec(t, q->tile.NR * 4);
    q->panel = fg_em_scratch(q->e, fg_emul(t, q->quads, line));
    q->start = fg_em_scratch(q->e, line);
    if (q->flip_x || !fg_e_divides(t, 4, q->k)) {
        fg_expr row = fg_eadd(t, fg_emul(t, q->quads, fg_ec(t, 4)), fg_ec(t, 64));
        q->rows = fg_em_scratch(q->e, fg_emul(t, row, fg_ec(t, q->tile.MR)));
    }
    return q->tile;
}

/* Rows of x, or a copy that is unsigned and made of whole quads: what fills them up meets
 * weights that are 0. */
fg_v
fg_int_rows(fg_int *q, fg_v row, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    int wide = 4 * g->W;
    fg_v ld = fg_em_expr(e, q->x.stride[0]), k = fg_em_expr(e, q->k);
    fg_v at = ll_add(g, ll_mul(g, row, ld), fg_em_expr(e, q->x.offset));
    fg_v from = ll_at(g, fg_em_buf(e, q->x.param), g->i8, at);
    if (!q->rows)
        return from;
    fg_v to = ll_mul(g, fg_em_expr(e, q->quads), ll_i(g, 4));
    ll_loop r, l;
    ll_for(g, &r, ll_i(g, 0), n, ll_i(g, 1), 0, NULL);
    fg_v src = ll_at(g, from, g->i8, ll_mul(g, r.i, ld));
    fg_v dst = ll_at(g, q->rows, g->i8, ll_mul(g, r.i, to));
    ll_for(g, &l, ll_i(g, 0), k, ll_i(g, wide), 0, NULL);
    fg_v there = ll_first(g, ll_sub(g, k, l.i), wide);
    fg_v v = ll_mload(g, ll_vec(g->i8, wide), ll_at(g, src, g->i8, l.i), there);
    if (q->flip_x)
        v = ll_xor(g, v, ll_ci(LLVMTypeOf(v), 0x80));
    ll_mstore(g, v, ll_at(g, dst, g->i8, l.i), there);
    ll_next(g, &l, NULL);
    ll_next(g, &r, NULL);
    return q->rows;
}

/* W columns of four rows of w from k on as one vector of lanes. Rows past the last are 0. */
static fg_v
quad_of(fg_int *q, fg_v from, fg_v k, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    int W = q->tile.W;
    fg_t lanes = ll_vec(g->i32, W);
    fg_v all = ll_zero(lanes), last = fg_em_expr(e, q->k);
    for (int i = 0; i < 4; i++) {
        fg_v row = ll_add(g, k, ll_i(g, i)), there = ll_cmp(g, LL_LT, row, last);
        fg_v mask = ll_first(g, ll_sel(g, there, n, ll_i(g, 0)), W);
        fg_v at = ll_mul(g, row, fg_em_expr(e, q->w.stride[0]));
        fg_v v = ll_mload(g, ll_vec(g->i8, W), ll_at(g, from, g->i8, at), mask);
        if (q->flip_w)
            v = ll_sel(g, mask, ll_xor(g, v, ll_ci(LLVMTypeOf(v), 0x80)), v);
        v = ll_shl(g, ll_zext(g, v, g->i32), ll_ci(lanes, 8 * i));
        all = ll_or(g, all, v);
    }
    return all;
}

/* Columns [col, col + n), W of them after another, and what their sums begin with. */
static void
pack(fg_int *q, fg_v col, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    const fg_tile *t = &q->tile;
    fg_t lanes = ll_vec(g->i32, t->W);
    fg_index none[FG_MAXRANK];
    fg_v zero = ll_i32(g, 0), quads = fg_em_expr(e, q->quads);
    for (int k = 0; k < FG_MAXRANK; k++)
        none[k] = fg_ixc(e, 0);
    if (q->zero)
        zero =
            fg_em_cast(e, fg_pull(e, q->zero, none), fg_rt(e->m, q->zero)->dtype, FG_i32);
    if (q->flip_x)
        zero = ll_add(g, zero, ll_i32(g, 128));
    zero = ll_splat(g, ll_neg(g, zero), t->W);
    ll_loop j, l;
    ll_for1(g, &j, ll_i(g, 0), n, ll_i(g, t->W), 0, NULL);
    fg_v at = ll_add(g, ll_add(g, col, j.i), fg_em_expr(e, q->w.offset));
    fg_v from = ll_at(g, fg_em_buf(e, q->w.param), g->i8, at);
    ll_for(g, &l, ll_i(g, 0), quads, ll_i(g, 1), 1, (fg_v[]){ll_zero(lanes)});
    fg_v v = quad_of(q, from, ll_mul(g, l.i, ll_i(g, 4)), ll_sub(g, n, j.i));
    fg_v to = ll_add(g, ll_mul(g, l.i, ll_i(g, t->NR)), j.i);
    ll_store_aligned(g, v, ll_at(g, q->panel, g->i32, to), t->W * 4);
    ll_next(g, &l, (fg_v[]){ll_dot_u8s8(g, l.phi[0], ll_ci(lanes, 0x01010101), v, true)});
    ll_store_aligned(g, ll_mul(g, l.phi[0], zero), ll_at(g, q->start, g->i32, j.i),
                     t->W * 4);
    ll_next(g, &j, NULL);
}

void
fg_int_multiply(fg_int *q, fg_panel *p, fg_v col, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    pack(q, col, n);
    p->kernel = fg_q_exact_kernel;
    p->lda = q->rows ? ll_mul(g, fg_em_expr(e, q->quads), ll_i(g, 4))
                     : fg_em_expr(e, q->x.stride[0]);
    p->ska = fg_em_expr(e, q->quads);
    p->k = ll_i(g, 1);
    p->b = q->panel;
    p->beside = p->more[0] = p->more[1] = q->start;
    p->ldbeside = p->more[2] = ll_i(g, 0);
    p->nmore = 3;
    fg_panel_rows(g, p);
}
