/* quant_tile.c - products of many rows of bytes with packed weights.
 *
 *     panel    k 0..3 of column 0 | of column 1 | .. ; k 4..7 of column 0 | ..
 *     run      32 of k: MR x NV vectors of i32, four products a lane and instruction
 *     c       += sums  scale of x (a row's)  scale of w (a column's), once per run
 *
 * Weights are cut into such panels as they are needed, each for all rows of a chunk: a
 * transpose of lanes of 32 bits, which costs little beside the products, and nothing that is
 * kept. They are signed there, with their zero points taken off. Bytes of x are unsigned,
 * 128 too large: what that adds to a sum is 128 times the sum of the weights, which is
 * where the sum starts. Nothing saturates: sums of a run are exact.
 */
#include "codegen/cpu/quant.h"

#include <stdio.h>

enum { LINE = 64 };

fg_tile
fg_q_tile(fg_ll *g)
{
    fg_tile t = fg_tile_of(g, g->f32);
    /* Where bytes are multiplied by way of 16 bits, that takes registers. */
    if (!g->t->vnni && t.MR > 4)
        t.MR = 4;
    return t;
}

static fg_v
at_bytes(fg_ll *g, fg_v p, fg_v bytes)
{
    return ll_at(g, p, g->i8, bytes);
}

/* ---- micro-kernel --------------------------------------------------------------- */

enum { A, LDA, QUADS, RUNS, B, C, NEXT, LDNEXT, S, LDS, START, SCALE, LDSCALE, NARG };

/* The sums of one run, from p[0]: bytes of x and p[1]: the panel, which move on. */
static void
run_sums(fg_ll *g, const fg_tile *t, int n, bool small, const fg_v *row, fg_v *p,
         fg_v *acc)
{
    fg_t lanes = ll_vec(g->i32, t->W);
    int count = n * t->NV;
    fg_v init[LL_MAXPHI], b[8];
    ll_loop l;
    memcpy(init, acc, (size_t)count * sizeof *acc);
    init[count] = p[0];
    init[count + 1] = p[1];
    ll_for1(g, &l, ll_i(g, 0), ll_param(g, QUADS), ll_i(g, 1), count + 2, init);
    for (int j = 0; j < t->NV; j++)
        b[j] = ll_load_aligned(g, lanes, ll_atc(g, l.phi[count + 1], g->i32, j * t->W),
                               t->W * 4);
    for (int i = 0; i < n; i++) {
        fg_v x = i ? at_bytes(g, l.phi[count], row[i]) : l.phi[count];
        x = ll_splat(g, ll_load(g, g->i32, x), t->W);
        for (int j = 0; j < t->NV; j++)
            init[i * t->NV + j] = ll_dot_u8s8(g, l.phi[i * t->NV + j], x, b[j], small);
    }
    init[count] = ll_atc(g, l.phi[count], g->i8, 4);
    init[count + 1] = ll_atc(g, l.phi[count + 1], g->i32, t->NR);
    ll_next(g, &l, init);
    memcpy(acc, l.phi, (size_t)count * sizeof *acc);
    memcpy(p, l.phi + count, 2 * sizeof *p);
}

/* c += the sums of a run, scaled. */
static void
add_scaled(fg_ll *g, const fg_tile *t, int n, const fg_v *acc, fg_v s, fg_v scale)
{
    fg_t vec = ll_vec(g->f32, t->W);
    int bytes = t->W * 4;
    fg_v w[8];
    for (int j = 0; j < t->NV; j++)
        w[j] = ll_load_aligned(g, vec, ll_atc(g, scale, g->f32, j * t->W), bytes);
    for (int i = 0; i < n; i++) {
        fg_v x = at_bytes(g, s, ll_mul(g, ll_param(g, LDS), ll_i(g, i)));
        x = ll_splat(g, ll_load(g, g->f32, x), t->W);
        for (int j = 0; j < t->NV; j++) {
            int at = i * t->NV + j;
            fg_v p = ll_atc(g, ll_param(g, C), g->f32, at * t->W);
            fg_v sum = ll_mul(g, ll_fromint(g, acc[at], g->f32, true), w[j]);
            ll_store_aligned(g, ll_fma(g, sum, x, ll_load_aligned(g, vec, p, bytes)), p,
                             bytes);
        }
    }
}

static void
tile_body(fg_ll *g, const fg_tile *t, int n, bool small)
{
    enum { STEPS = 6 };
    int count = n * t->NV;
    fg_v row[8], acc[LL_MAXPHI];
    for (int i = 1; i < n; i++)
        row[i] = ll_mul(g, ll_param(g, LDA), ll_i(g, i));
    for (int i = 0; i < count; i++)
        ll_store_aligned(g, ll_zero(ll_vec(g->f32, t->W)),
                         ll_atc(g, ll_param(g, C), g->f32, i * t->W), t->W * 4);
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), ll_param(g, RUNS), ll_i(g, 1), STEPS,
           (fg_v[]){ll_param(g, A), ll_param(g, B), ll_param(g, START),
                    ll_param(g, SCALE), ll_param(g, S), ll_param(g, NEXT)});
    fg_v p[2] = {l.phi[0], l.phi[1]}, start = l.phi[2], next = l.phi[5];
    for (int j = 0; j < t->NV; j++)
        acc[j] = ll_load_aligned(g, ll_vec(g->i32, t->W),
                                 ll_atc(g, start, g->i32, j * t->W), t->W * 4);
    for (int i = t->NV; i < count; i++)
        acc[i] = acc[i - t->NV];
    run_sums(g, t, n, small, row, p, acc);
    ll_prefetch_second(g, next);
    ll_prefetch_second(g, ll_atc(g, next, g->i8, LINE));
    add_scaled(g, t, n, acc, l.phi[4], l.phi[3]);
    ll_next(g, &l,
            (fg_v[]){p[0], p[1], ll_atc(g, start, g->i32, t->NR),
                     at_bytes(g, l.phi[3], ll_param(g, LDSCALE)),
                     ll_atc(g, l.phi[4], g->f32, 1),
                     at_bytes(g, next, ll_param(g, LDNEXT))});
}

/* One run, whose sums are the result. */
static void
exact_body(fg_ll *g, const fg_tile *t, int n, bool shifted)
{
    fg_t lanes = ll_vec(g->i32, t->W);
    fg_v row[8], acc[LL_MAXPHI], p[2] = {ll_param(g, A), ll_param(g, B)};
    for (int i = 1; i < n; i++)
        row[i] = ll_mul(g, ll_param(g, LDA), ll_i(g, i));
    for (int i = 0; i < n * t->NV; i++)
        acc[i] = i < t->NV
                     ? ll_load_aligned(g, lanes,
                                       ll_atc(g, ll_param(g, START), g->i32, i * t->W),
                                       t->W * 4)
                     : acc[i - t->NV];
    for (int i = n - 1; i >= 0 && shifted; i--) {
        fg_v by = at_bytes(g, ll_param(g, S), ll_mul(g, ll_param(g, LDS), ll_i(g, i)));
        by = ll_splat(g, ll_load(g, g->i32, by), t->W);
        for (int j = 0; j < t->NV; j++)
            acc[i * t->NV + j] = ll_add(g, acc[j], by);
    }
    run_sums(g, t, n, false, row, p, acc);
    for (int i = 0; i < n * t->NV; i++)
        ll_store_aligned(g, acc[i], ll_atc(g, ll_param(g, C), g->i32, i * t->W),
                         t->W * 4);
}

static fg_v
bytes_kernel(fg_ll *g, const fg_tile *t, int n, const char *what,
             void (*body)(fg_ll *, const fg_tile *, int, bool), bool form)
{
    fg_t param[NARG] = {g->ptr, g->i64, g->i64, g->i64, g->ptr, g->ptr, g->ptr,
                        g->i64, g->ptr, g->i64, g->ptr, g->ptr, g->i64};
    char name[40];
    ll_place back;
    fg_v fn;
    snprintf(name, sizeof name, "tile%dx%d_%s", n, t->NR, what);
    if (fg_helper_begin(g, name, t, NARG, param, &back, &fn)) {
        body(g, t, n, form);
        fg_helper_end(g, back);
    }
    return fn;
}

/* Weights of 4 bits, without their zero points, are of -15 .. 15. */
fg_v
fg_q_tile_kernel(fg_ll *g, void *maker, const fg_tile *t, int n)
{
    bool small = !g->t->vnni && ((fg_quant *)maker)->form.bits == 4;
    return bytes_kernel(g, t, n, small ? "small" : "bytes", tile_body, small);
}

fg_v
fg_q_exact_kernel(fg_ll *g, void *maker, const fg_tile *t, int n)
{
    bool shifted = maker != NULL;
    return bytes_kernel(g, t, n, shifted ? "shifted" : "exact", exact_body, shifted);
}

/* ---- panels --------------------------------------------------------------------- */

fg_expr
fg_q_panel_quads(fg_ll *g, fg_exprs *t, const fg_qform *f, fg_expr k)
{
    int64_t unit = g->W * fg_q_each(f), run = f->round;
    fg_expr units = fg_ediv(t, fg_eadd(t, k, fg_ec(t, unit - 1)), fg_ec(t, unit));
    fg_expr runs = fg_ediv(t, fg_eadd(t, k, fg_ec(t, run - 1)), fg_ec(t, run));
    return fg_emax(t, fg_emul(t, units, fg_ec(t, unit / 4)),
                   fg_emul(t, runs, fg_ec(t, run / 4)));
}

/* Nibbles 0..7 of each lane as 0 4 1 5 2 6 3 7: the low ones of bytes are the first four. */
static fg_v
interleave_nibbles(fg_ll *g, fg_v v)
{
    fg_t t = LLVMTypeOf(v);
    static const struct {
        uint32_t keep, up, down;
        int by;
    } step[2] = {{0xff0000ff, 0x00ff0000, 0x0000ff00, 8},
                 {0xf00ff00f, 0x0f000f00, 0x00f000f0, 4}};
    for (int k = 0; k < 2; k++) {
        fg_v by = ll_ci(t, step[k].by);
        fg_v up = ll_and(g, ll_shl(g, v, by), ll_ci(t, (int32_t)step[k].up));
        fg_v down = ll_and(g, ll_shr(g, v, by), ll_ci(t, (int32_t)step[k].down));
        v = ll_and(g, v, ll_ci(t, (int32_t)step[k].keep));
        v = ll_or(g, v, ll_or(g, up, down));
    }
    return v;
}

/* A lane's weights as signed bytes, zero points (bytes) taken off: one vector or two. */
static void
signed_bytes(fg_ll *g, const fg_qform *f, fg_v v, fg_v zero, fg_v *out)
{
    fg_t lanes = LLVMTypeOf(v), bytes = ll_vec(g->i8, 4 * ll_lanes(v));
    if (f->sign)
        v = ll_xor(
            g, v, ll_ci(lanes, f->bits == 4 ? (int32_t)0x88888888 : (int32_t)0x80808080));
    if (f->bits == 4) {
        fg_v low = ll_ci(lanes, 0x0f0f0f0f);
        v = interleave_nibbles(g, v);
        out[0] = ll_and(g, v, low);
        out[1] = ll_and(g, ll_shr(g, v, ll_ci(lanes, 4)), low);
    } else {
        out[0] = v;
    }
    for (int h = 0; h < 8 / f->bits; h++)
        out[h] = ll_bits(g, ll_sub(g, ll_bits(g, out[h], bytes), ll_bits(g, zero, bytes)),
                         lanes);
}

enum { P_W, P_LDW, P_LANES, P_N, P_RUNS, P_PANEL, P_START, P_ZEROS, P_ZERO, P_NARG };

/* The zero points of W columns from col on, in all bytes of their lanes; they stand under
 * weight k. */
static fg_v
zero_bytes(fg_ll *g, const fg_tile *t, const fg_qform *f, fg_v col, fg_v k)
{
    fg_t lanes = ll_vec(g->i32, t->W);
    fg_v all = ll_ci(lanes, 0x01010101);
    if (!f->zeros)
        return ll_mul(g, all, ll_splat(g, ll_sext(g, ll_param(g, P_ZERO), g->i32), t->W));
    fg_v run = f->block ? ll_udiv(g, k, ll_i(g, f->block)) : ll_i(g, 0);
    fg_v at = ll_add(g, ll_mul(g, run, ll_i(g, t->NR)), col);
    fg_v z = ll_load(g, ll_vec(g->f32, t->W), ll_at(g, ll_param(g, P_ZEROS), g->f32, at));
    z = ll_toint(g, z, g->i32);
    if (f->sign)
        z = ll_add(g, z, ll_ci(lanes, 1 << (f->bits - 1)));
    return ll_mul(g, ll_and(g, z, ll_ci(lanes, 0xff)), all);
}

/* W lanes of W columns. */
static void
pack_square(fg_ll *g, const fg_tile *t, const fg_qform *f, fg_v src, fg_v left, fg_v col,
            fg_v lane)
{
    int W = t->W, each = fg_q_each(f), per = f->block ? (int)f->block / each : W;
    fg_v mask = ll_first(g, ll_sub(g, ll_param(g, P_LANES), lane), W), r[64];
    fg_v p = ll_at(g, src, g->i32, lane), zero = NULL;
    for (int i = 0; i < W; i++) {
        r[i] = ll_mload(g, ll_vec(g->i32, W), p, mask);
        /* Past the last column: read that one again. */
        p = ll_sel(g, ll_cmp(g, LL_GT, left, ll_i(g, i + 1)),
                   at_bytes(g, p, ll_param(g, P_LDW)), p);
    }
    fg_transpose_regs(g, r, W, 4);
    for (int i = 0; i < W; i++) {
        fg_v at = ll_add(g, lane, ll_i(g, i)), out[2];
        if (i == 0 || (f->zeros && i % per == 0))
            zero = zero_bytes(g, t, f, col, ll_mul(g, at, ll_i(g, each)));
        signed_bytes(g, f, r[i], zero, out);
        for (int h = 0; h < each / 4; h++) {
            fg_v quad = ll_add(g, ll_mul(g, at, ll_i(g, each / 4)), ll_i(g, h));
            fg_v to = ll_add(g, ll_mul(g, quad, ll_i(g, t->NR)), col);
            ll_store_aligned(g, out[h], ll_at(g, ll_param(g, P_PANEL), g->i32, to),
                             W * 4);
        }
    }
}

/* -128 times the sum of the weights of each run. */
static void
write_starts(fg_ll *g, const fg_tile *t, const fg_qform *f)
{
    fg_t lanes = ll_vec(g->i32, t->W);
    fg_v init[8], ones = ll_ci(lanes, 0x01010101);
    ll_loop r, q;
    ll_for(g, &r, ll_i(g, 0), ll_param(g, P_RUNS), ll_i(g, 1), 0, NULL);
    fg_v first = ll_mul(g, r.i, ll_i(g, fg_q_quads(f) * t->NR));
    for (int j = 0; j < t->NV; j++)
        init[j] = ll_zero(lanes);
    ll_for1(g, &q, ll_i(g, 0), ll_i(g, fg_q_quads(f)), ll_i(g, 1), t->NV, init);
    fg_v at = ll_add(g, first, ll_mul(g, q.i, ll_i(g, t->NR)));
    fg_v p = ll_at(g, ll_param(g, P_PANEL), g->i32, at);
    for (int j = 0; j < t->NV; j++) {
        fg_v v = ll_load_aligned(g, lanes, ll_atc(g, p, g->i32, j * t->W), t->W * 4);
        init[j] = ll_dot_u8s8(g, q.phi[j], ones, v, true);
    }
    ll_next(g, &q, init);
    p = ll_at(g, ll_param(g, P_START), g->i32, ll_mul(g, r.i, ll_i(g, t->NR)));
    for (int j = 0; j < t->NV; j++)
        ll_store_aligned(g, ll_neg(g, ll_shl(g, q.phi[j], ll_ci(lanes, 7))),
                         ll_atc(g, p, g->i32, j * t->W), t->W * 4);
    ll_next(g, &r, NULL);
}

static void
pack_body(fg_ll *g, const fg_tile *t, const fg_qform *f)
{
    fg_v n = ll_param(g, P_N), width = ll_i(g, t->W);
    ll_loop col, l;
    ll_for1(g, &col, ll_i(g, 0), n, width, 0, NULL);
    fg_v src = at_bytes(g, ll_param(g, P_W), ll_mul(g, col.i, ll_param(g, P_LDW)));
    ll_for(g, &l, ll_i(g, 0), ll_param(g, P_LANES), width, 0, NULL);
    pack_square(g, t, f, src, ll_sub(g, n, col.i), col.i, l.i);
    ll_next(g, &l, NULL);
    ll_next(g, &col, NULL);
    write_starts(g, t, f);
}

void
fg_q_pack_panel(fg_ll *g, const fg_tile *t, const fg_qform *f, const fg_q_pack *p)
{
    fg_t param[P_NARG] = {g->ptr, g->i64, g->i64, g->i64, g->i64,
                          g->ptr, g->ptr, g->ptr, g->i64};
    ll_place back;
    fg_v fn;
    if (fg_q_helper(g, f, "pack", P_NARG, param, &back, &fn)) {
        pack_body(g, t, f);
        fg_helper_end(g, back);
    }
    ll_call(g, fn, P_NARG,
            (fg_v[]){p->w, p->ldw, p->lanes, p->n, p->runs, p->panel, p->start, p->zeros,
                     p->zero});
}
