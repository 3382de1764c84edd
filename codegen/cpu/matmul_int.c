/* matmul_int.c - products of bytes with zero points, exact in i32, for many rows.
 *
 *     %y = matmul_int %x, %w, %zx, %zw : i32[M,N]      x: u8[M,K], w: i8[K,N]
 *
 * w is interleaved by fours of k into the panels of quant_tile.c, from either order: runs of a
 * row are joined, runs of a column are transposed in registers. Unsigned bytes of w become
 * signed ones and their zero point 128 smaller; signed bytes of x become unsigned ones and
 * their zero point 128 larger. Then, with sums over k,
 *
 *     sum (x - zx)(w - zw)  =  sum x w  -  zx sum w  -  zw sum x  +  k zx zw
 *
 * where the second and the last term belong to a column: sums begin there. The third, of a
 * row, is added by another micro-kernel, and only where zw can be other than 0. zx may be
 * known only when the kernel runs. All of it is arithmetic modulo 2^32, as the operation's.
 */
#include "codegen/cpu/matmul_int.h"

#include <stdio.h>

struct fg_int {
    fg_em *e;
    fg_tile tile;
    fg_strided x, w; /* [rows, k], [k, n] */
    bool flip_x, flip_w;
    bool lines;    /* w's columns are contiguous, not its rows */
    fg_reg zx, zw; /* zero points; 0: none */
    bool shifted;  /* w has one even when its bytes are signed */
    fg_expr k, quads, all;
    fg_v panel, start, rows, terms;
};

static bool
one_element(fg_em *e, fg_reg r)
{
    return !r || fg_e_is(e->m->ex, fg_type_count(e->m->ex, fg_rt(e->m, r)), 1);
}

static bool
is_bytes(const fg_type *t)
{
    return t->dtype == FG_u8 || t->dtype == FG_i8;
}

fg_int *
fg_int_of(fg_em *e, const fg_inst *i, fg_expr rows)
{
    fg_exprs *t = e->m->ex;
    const fg_type *x = fg_rt(e->m, i->in[0]), *w = fg_rt(e->m, i->in[1]);
    fg_int *q = FG_NEW(e->a, fg_int);
    int64_t z = 0;
    q->e = e;
    q->k = x->dim[x->rank - 1];
    q->all = rows;
    q->zx = i->nin > 2 ? i->in[2] : 0;
    q->zw = i->nin > 3 ? i->in[3] : 0;
    q->flip_x = x->dtype == FG_i8;
    q->flip_w = w->dtype == FG_u8;
    if (w->rank != 2 || !is_bytes(x) || !is_bytes(w) || !one_element(e, q->zx) ||
        !one_element(e, q->zw) || !fg_strided_of(e, i->in[0], &q->x) ||
        !fg_strided_of(e, i->in[1], &q->w) ||
        !fg_strided_reshape(t, &q->x, 2, (fg_expr[]){rows, q->k}) ||
        !fg_e_is(t, q->x.stride[1], 1))
        return NULL;
    q->lines = !fg_e_is(t, q->w.stride[1], 1);
    if (q->lines && !fg_e_is(t, q->w.stride[0], 1))
        return NULL;
    bool known = !q->zw || fg_const_i64(e->m, q->zw, 0, &z);
    q->shifted = !known || z != (q->flip_w ? 128 : 0);
    q->quads = fg_ediv(t, fg_eadd(t, q->k, fg_ec(t, 3)), fg_ec(t, 4));
    q->tile = fg_q_tile(e->g);
    q->tile.elem = e->g->i32;
    return q;
}

fg_tile
fg_int_take(fg_int *q)
{
    fg_exprs *t = q->e->m->ex;
    fg_expr line = fg_ec(t, q->tile.NR * 4), last = fg_ec(t, q->tile.W - 1);
    q->panel = fg_em_scratch(q->e, fg_emul(t, fg_eadd(t, q->quads, last), line));
    q->start = fg_em_scratch(q->e, line);
    if (q->flip_x || !fg_e_divides(t, 4, q->k)) {
        fg_expr row = fg_eadd(t, fg_emul(t, q->quads, fg_ec(t, 4)), fg_ec(t, 64));
        q->rows = fg_em_scratch(q->e, fg_emul(t, row, fg_ec(t, q->tile.MR)));
    }
    if (q->shifted)
        q->terms = fg_em_scratch(q->e, fg_emul(t, q->all, fg_ec(t, 4)));
    return q->tile;
}

/* A zero point in i32, `more` larger. */
static fg_v
zero_point(fg_int *q, fg_reg r, int more)
{
    fg_em *e = q->e;
    fg_index none[FG_MAXRANK];
    if (!r)
        return ll_i32(e->g, more);
    for (int k = 0; k < FG_MAXRANK; k++)
        none[k] = fg_ixc(e, 0);
    fg_v z = fg_em_cast(e, fg_pull(e, r, none), fg_rt(e->m, r)->dtype, FG_i32);
    return ll_add(e->g, z, ll_i32(e->g, more));
}

static fg_v
zero_of_w(fg_int *q)
{
    return zero_point(q, q->shifted ? q->zw : 0, q->shifted && q->flip_w ? -128 : 0);
}

/* ---- rows of x ------------------------------------------------------------------- */

/* Unsigned bytes of row `src` to dst, if there is one; returns their sum, in lanes. */
static fg_v
copy_row(fg_int *q, fg_v src, fg_v dst)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    int wide = 4 * g->W;
    fg_t bytes = ll_vec(g->i8, wide), lanes = ll_vec(g->i32, g->W);
    fg_v k = fg_em_expr(e, q->k), ones = ll_ci(lanes, 0x01010101);
    fg_v quads = ll_mul(g, fg_em_expr(e, q->quads), ll_i(g, 4));
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), k, ll_i(g, wide), 1, (fg_v[]){ll_zero(lanes)});
    fg_v there = ll_first(g, ll_sub(g, k, l.i), wide), sum = l.phi[0];
    fg_v v = ll_mload(g, bytes, ll_at(g, src, g->i8, l.i), there);
    if (q->flip_x)
        v = ll_sel(g, there, ll_xor(g, v, ll_ci(bytes, 0x80)), v);
    if (dst)
        ll_mstore(g, v, ll_at(g, dst, g->i8, l.i),
                  ll_first(g, ll_sub(g, quads, l.i), wide));
    if (q->shifted)
        sum = ll_dot_u8s8(g, sum, ll_bits(g, v, lanes), ones, true);
    ll_next(g, &l, &sum);
    return l.phi[0];
}

/* Rows of x, or a copy that is unsigned and made of whole quads: what fills them up is 0,
 * and meets weights that are 0. */
fg_v
fg_int_rows(fg_int *q, fg_v row, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_v ld = fg_em_expr(e, q->x.stride[0]);
    fg_v at = ll_add(g, ll_mul(g, row, ld), fg_em_expr(e, q->x.offset));
    fg_v from = ll_at(g, fg_em_buf(e, q->x.param), g->i8, at);
    if (!q->rows && !q->shifted)
        return from;
    fg_v to = ll_mul(g, fg_em_expr(e, q->quads), ll_i(g, 4));
    fg_v by = q->shifted ? ll_neg(g, zero_of_w(q)) : NULL;
    ll_loop r;
    ll_for(g, &r, ll_i(g, 0), n, ll_i(g, 1), 0, NULL);
    fg_v src = ll_at(g, from, g->i8, ll_mul(g, r.i, ld));
    fg_v sum =
        copy_row(q, src, q->rows ? ll_at(g, q->rows, g->i8, ll_mul(g, r.i, to)) : NULL);
    if (q->shifted)
        ll_store(g, ll_mul(g, ll_hsum(g, sum), by),
                 ll_at(g, q->terms, g->i32, ll_add(g, row, r.i)));
    ll_next(g, &r, NULL);
    return q->rows ? q->rows : from;
}

/* ---- panels of w ------------------------------------------------------------------ */

enum { P_W, P_LDW, P_K, P_N, P_PANEL, P_START, P_NARG };

static fg_v
panel_at(fg_ll *g, const fg_tile *t, fg_v quad, fg_v col)
{
    fg_v at = ll_add(g, ll_mul(g, quad, ll_i(g, t->NR)), col);
    return ll_at(g, ll_param(g, P_PANEL), g->i32, at);
}

/* Bytes of a and b in turn. */
static fg_v
in_turn(fg_ll *g, fg_v a, fg_v b)
{
    int n = ll_lanes(a), mask[128];
    for (int i = 0; i < 2 * n; i++)
        mask[i] = i / 2 + i % 2 * n;
    return ll_shuffle(g, a, b, 2 * n, mask);
}

/* Signed bytes of W columns in four rows of w, from row k on, as one vector of lanes; with
 * `last`, rows from there on are 0. */
static fg_v
quad_of(fg_ll *g, const fg_tile *t, bool flip, fg_v from, fg_v k, fg_v mask, fg_v last)
{
    int W = t->W;
    fg_t lanes = ll_vec(g->i32, W), half = ll_vec(g->i16, 2 * W);
    fg_v r[4];
    for (int i = 0; i < 4; i++) {
        fg_v row = ll_add(g, k, ll_i(g, i)), m = mask;
        if (last)
            m = ll_and(g, m, ll_splat(g, ll_cmp(g, LL_LT, row, last), W));
        fg_v at = ll_mul(g, row, ll_param(g, P_LDW));
        r[i] = ll_mload(g, ll_vec(g->i8, W), ll_at(g, from, g->i8, at), m);
        if (flip && last)
            r[i] = ll_sel(g, m, ll_xor(g, r[i], ll_ci(LLVMTypeOf(r[i]), 0x80)), r[i]);
    }
    fg_v low = ll_bits(g, in_turn(g, r[0], r[1]), ll_vec(g->i16, W));
    fg_v high = ll_bits(g, in_turn(g, r[2], r[3]), ll_vec(g->i16, W));
    fg_v v = ll_bits(g, ll_bits(g, in_turn(g, low, high), half), lanes);
    return flip && !last ? ll_xor(g, v, ll_ci(lanes, (int32_t)0x80808080)) : v;
}

/* W columns from rows of w; the sums of the columns. */
static fg_v
pack_across(fg_ll *g, const fg_tile *t, bool flip, fg_v col)
{
    fg_t lanes = ll_vec(g->i32, t->W);
    fg_v ones = ll_ci(lanes, 0x01010101), k = ll_param(g, P_K), four = ll_i(g, 4);
    fg_v from = ll_at(g, ll_param(g, P_W), g->i8, col), sum = ll_zero(lanes);
    fg_v mask = ll_first(g, ll_sub(g, ll_param(g, P_N), col), t->W);
    fg_v whole = ll_udiv(g, k, four), end = ll_udiv(g, ll_add(g, k, ll_i(g, 3)), four);
    for (int rest = 0; rest < 2; rest++) {
        ll_loop l;
        ll_for(g, &l, rest ? whole : ll_i(g, 0), rest ? end : whole, ll_i(g, 1), 1, &sum);
        fg_v v = quad_of(g, t, flip, from, ll_mul(g, l.i, four), mask, rest ? k : NULL);
        ll_store_aligned(g, v, panel_at(g, t, l.i, col), t->W * 4);
        ll_next(g, &l, (fg_v[]){ll_dot_u8s8(g, l.phi[0], ones, v, true)});
        sum = l.phi[0];
    }
    return sum;
}

/* The same from lines along k: squares of W lanes, transposed. */
static fg_v
pack_along(fg_ll *g, const fg_tile *t, bool flip, fg_v col)
{
    int W = t->W;
    fg_t lanes = ll_vec(g->i32, W), bytes = ll_vec(g->i8, 4 * W);
    fg_v ones = ll_ci(lanes, 0x01010101), k = ll_param(g, P_K), ld = ll_param(g, P_LDW);
    fg_v left = ll_sub(g, ll_param(g, P_N), col), r[64], sum;
    fg_v from = ll_at(g, ll_param(g, P_W), g->i8, ll_mul(g, col, ld));
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), k, ll_i(g, 4 * W), 1, (fg_v[]){ll_zero(lanes)});
    fg_v mask = ll_first(g, ll_sub(g, k, l.i), 4 * W), p = ll_at(g, from, g->i8, l.i);
    for (int i = 0; i < W; i++) {
        r[i] = ll_mload(g, bytes, p, mask);
        if (flip)
            r[i] = ll_sel(g, mask, ll_xor(g, r[i], ll_ci(bytes, 0x80)), r[i]);
        r[i] = ll_bits(g, r[i], lanes);
        /* Past the last column: read that one again. */
        p = ll_sel(g, ll_cmp(g, LL_GT, left, ll_i(g, i + 1)), ll_at(g, p, g->i8, ld), p);
    }
    fg_transpose_regs(g, r, W, 4);
    sum = l.phi[0];
    fg_v quad = ll_udiv(g, l.i, ll_i(g, 4));
    for (int i = 0; i < W; i++) {
        fg_v to = panel_at(g, t, ll_add(g, quad, ll_i(g, i)), col);
        ll_store_aligned(g, r[i], to, W * 4);
        sum = ll_dot_u8s8(g, sum, ones, r[i], true);
    }
    ll_next(g, &l, &sum);
    return l.phi[0];
}

/* Columns [0, n) at w, and their sums. */
static fg_v
packer(fg_int *q)
{
    fg_ll *g = q->e->g;
    const fg_tile *t = &q->tile;
    fg_t param[P_NARG] = {g->ptr, g->i64, g->i64, g->i64, g->ptr, g->ptr};
    char name[40];
    ll_place back;
    fg_v fn;
    snprintf(name, sizeof name, "pack_bytes_%s%s", q->lines ? "lines" : "rows",
             q->flip_w ? "_u" : "");
    if (!fg_helper_begin(g, name, t, P_NARG, param, &back, &fn))
        return fn;
    ll_loop j;
    ll_for1(g, &j, ll_i(g, 0), ll_param(g, P_N), ll_i(g, t->W), 0, NULL);
    fg_v sum = (q->lines ? pack_along : pack_across)(g, t, q->flip_w, j.i);
    ll_store_aligned(g, sum, ll_at(g, ll_param(g, P_START), g->i32, j.i), t->W * 4);
    ll_next(g, &j, NULL);
    fg_helper_end(g, back);
    return fn;
}

/* Columns [col, col + n), and what their sums begin with: (k zw - the sum of w) zx. */
static void
pack(fg_int *q, fg_v col, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    int W = q->tile.W;
    fg_v k = fg_em_expr(e, q->k);
    fg_v ld = fg_em_expr(e, q->w.stride[q->lines ? 1 : 0]);
    fg_v at = ll_mul(g, col, fg_em_expr(e, q->w.stride[1]));
    at = ll_add(g, at, fg_em_expr(e, q->w.offset));
    fg_v w = ll_at(g, fg_em_buf(e, q->w.param), g->i8, at);
    ll_call(g, packer(q), P_NARG, (fg_v[]){w, ld, k, n, q->panel, q->start});
    fg_v zx = ll_splat(g, zero_point(q, q->zx, q->flip_x ? 128 : 0), W);
    fg_v all = ll_splat(g, ll_mul(g, ll_sext(g, k, g->i32), zero_of_w(q)), W);
    ll_loop j;
    ll_for1(g, &j, ll_i(g, 0), n, ll_i(g, W), 0, NULL);
    fg_v p = ll_at(g, q->start, g->i32, j.i);
    fg_v sum = ll_load_aligned(g, ll_vec(g->i32, W), p, W * 4);
    ll_store_aligned(g, ll_mul(g, ll_sub(g, all, sum), zx), p, W * 4);
    ll_next(g, &j, NULL);
}

void
fg_int_multiply(fg_int *q, fg_panel *p, fg_v first, fg_v col, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    pack(q, col, n);
    p->kernel = fg_q_exact_kernel;
    p->maker = q->shifted ? q : NULL;
    p->lda = q->rows ? ll_mul(g, fg_em_expr(e, q->quads), ll_i(g, 4))
                     : fg_em_expr(e, q->x.stride[0]);
    p->ska = fg_em_expr(e, q->quads);
    p->k = ll_i(g, 1);
    p->b = q->panel;
    p->beside = q->shifted ? ll_at(g, q->terms, g->i32, first) : q->start;
    p->ldbeside = ll_i(g, q->shifted ? 4 : 0);
    p->more[0] = p->more[1] = q->start;
    p->more[2] = ll_i(g, 0);
    p->nmore = 3;
    fg_panel_rows(g, p);
}
