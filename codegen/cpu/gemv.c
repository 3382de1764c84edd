/* gemv.c - products with few rows: as fast as the weights come from memory.
 *
 *     w[k][n]   8 rows of w at a time:   y[m][j..] += sum of x[m][k + u] w[k + u][j..]
 *     w[n][k]   one row of w at a time:   acc[m] += x[m][k..] w[n][k..], then summed
 *               short rows, W at a time:  their sums become one vector of y
 *
 * Every element of w is read exactly once. Memory is fastest at one sequential read, so
 * while 8 rows advance side by side, the next 8 are fetched to the second-level cache one
 * after the other. (Columns strip by strip, which keeps y in registers, runs at half the
 * speed: every row of a strip is another page.) No more than 8 rows, because rows 4 KiB
 * apart compete for the 8 ways of one set, and where w is not aligned each line is needed
 * twice. y and x stay in the first-level cache, and their traffic is a small fraction of
 * that of w.
 */
#include <string.h>
#include "codegen/cpu/gemm.h"

enum { X, LDX, M, W, LDW, K, Y, LDY, N, NARG };
enum {
    LINE = 64,      /* bytes that memory delivers at a time */
    SHORT_ROWS = 16 /* most lanes of a vector */
};

static fg_v
at_bytes(fg_ll *g, fg_v p, fg_v bytes)
{
    return ll_at(g, p, g->i8, bytes);
}

static void
few_call(fg_ll *g, const fg_tile *t, const fg_few *f, const char *name,
         void (*body)(fg_ll *, const fg_tile *))
{
    fg_t param[NARG] = {g->ptr, g->i64, g->i64, g->ptr, g->i64,
                        g->i64, g->ptr, g->i64, g->i64};
    ll_place back;
    fg_v fn;
    if (fg_helper_begin(g, name, t, NARG, param, &back, &fn)) {
        body(g, t);
        fg_helper_end(g, back);
    }
    ll_call(g, fn, NARG,
            (fg_v[]){f->x, f->ldx, f->m, f->w, f->ldw, f->k, f->y, f->ldy, f->n});
}

/* Fetches `lines` lines of rows of w that are `width` bytes wide, row after row: memory sees
 * one sequential read, whatever the order of the steps. `at` is how far in its row the next
 * line is. */
static void
fetch_on(fg_ll *g, fg_v lines, fg_v width, fg_v *row, fg_v *at)
{
    ll_loop l;
    ll_for1(g, &l, ll_i(g, 0), lines, ll_i(g, 1), 2, (fg_v[]){*row, *at});
    ll_prefetch_second(g, at_bytes(g, l.phi[0], l.phi[1]));
    fg_v on = ll_add(g, l.phi[1], ll_i(g, LINE)), over = ll_cmp(g, LL_GE, on, width);
    fg_v next = at_bytes(g, l.phi[0], ll_param(g, LDW));
    ll_next(g, &l,
            (fg_v[]){ll_sel(g, over, next, l.phi[0]), ll_sel(g, over, ll_i(g, 0), on)});
    *row = l.phi[0];
    *at = l.phi[1];
}

/* Bytes from a row to the one that is fetched meanwhile: the next `deep`, or as many more as
 * make up what memory takes to answer. */
static fg_v
rows_ahead(fg_ll *g, int deep, fg_v width)
{
    fg_v bytes = ll_mul(g, width, ll_i(g, deep));
    fg_v steps =
        ll_udiv(g, ll_i(g, g->t->knob[FG_KNOB_few_ahead]), ll_max(g, bytes, ll_i(g, 1)));
    return ll_mul(g, ll_param(g, LDW),
                  ll_mul(g, ll_add(g, steps, ll_i(g, 1)), ll_i(g, deep)));
}

/* ---- rows of w contiguous ------------------------------------------------------- */

/* One vector of columns times `deep` rows of w, for every row of x. */
static void
rows_step(fg_ll *g, const fg_tile *t, int deep, fg_v x, fg_v w, fg_v y, fg_v mask)
{
    fg_t vec = ll_vec(t->elem, t->W);
    fg_v row[FG_FEW_DEEP];
    for (int u = 0; u < deep; u++) {
        row[u] = ll_mload(g, vec, w, mask);
        w = at_bytes(g, w, ll_param(g, LDW));
    }
    ll_loop m;
    ll_for1(g, &m, ll_i(g, 0), ll_param(g, M), ll_i(g, 1), 2, (fg_v[]){x, y});
    fg_v acc = ll_load(g, vec, m.phi[1]);
    for (int u = 0; u < deep; u++) {
        fg_v s = ll_load(g, t->elem, ll_atc(g, m.phi[0], t->elem, u));
        acc = ll_fma(g, ll_splat(g, s, t->W), row[u], acc);
    }
    ll_store(g, acc, m.phi[1]);
    ll_next(g, &m,
            (fg_v[]){at_bytes(g, m.phi[0], ll_param(g, LDX)),
                     at_bytes(g, m.phi[1], ll_param(g, LDY))});
}

/* Rows [lo, hi) of w, `deep` at a time. */
static void
rows_sweep(fg_ll *g, const fg_tile *t, int deep, fg_v lo, fg_v hi)
{
    fg_v n = ll_param(g, N), width = ll_i(g, t->W);
    fg_v whole = ll_and(g, n, ll_i(g, -t->W)), bytes = ll_mul(g, n, ll_i(g, t->size));
    fg_v far = rows_ahead(g, deep, bytes);
    fg_v lines = ll_i(g, (deep * t->W * t->size + LINE - 1) / LINE);
    ll_loop k, j;
    ll_for(g, &k, lo, hi, ll_i(g, deep), 0, NULL);
    fg_v x = ll_at(g, ll_param(g, X), t->elem, k.i);
    fg_v w = at_bytes(g, ll_param(g, W), ll_mul(g, k.i, ll_param(g, LDW)));
    fg_v next = at_bytes(g, w, far);
    ll_for(g, &j, ll_i(g, 0), whole, width, 2, (fg_v[]){next, ll_i(g, 0)});
    fg_v ahead[2] = {j.phi[0], j.phi[1]};
    fetch_on(g, lines, bytes, &ahead[0], &ahead[1]);
    rows_step(g, t, deep, x, ll_at(g, w, t->elem, j.i),
              ll_at(g, ll_param(g, Y), t->elem, j.i), NULL);
    ll_next(g, &j, ahead);
    ll_branch ragged;
    ll_if(g, &ragged, ll_cmp(g, LL_LT, whole, n));
    rows_step(g, t, deep, x, ll_at(g, w, t->elem, whole),
              ll_at(g, ll_param(g, Y), t->elem, whole),
              ll_first(g, ll_sub(g, n, whole), t->W));
    ll_end(g, &ragged, NULL, NULL);
    ll_next(g, &k, NULL);
}

static void
rows_body(fg_ll *g, const fg_tile *t)
{
    fg_v k = ll_param(g, K), whole = ll_and(g, k, ll_i(g, -FG_FEW_DEEP));
    rows_sweep(g, t, FG_FEW_DEEP, ll_i(g, 0), whole);
    rows_sweep(g, t, 1, whole, k);
}

void
fg_few_rows(fg_ll *g, const fg_tile *t, const fg_few *f)
{
    few_call(g, t, f, "few_rows", rows_body);
}

/* ---- columns of w contiguous ---------------------------------------------------- */

enum { CHAINS = 4 }; /* sums side by side: one would wait for its own latency */

/* acc[m] += products over `deep` vectors of the row of w at `w`, from element `at` on. */
static void
columns_step(fg_ll *g, const fg_tile *t, int deep, fg_v w, fg_v at, fg_v acc, fg_v mask)
{
    fg_t vec = ll_vec(t->elem, t->W);
    fg_v v[16], p = ll_at(g, w, t->elem, at);
    for (int u = 0; u < deep; u++)
        v[u] = ll_mload(g, vec, ll_atc(g, p, t->elem, u * t->W), mask);
    /* Far enough for many lines under way, near enough to be in the cache still. */
    int ahead = g->t->knob[FG_KNOB_few_ahead];
    for (int b = 0; b < deep * t->W * t->size; b += LINE)
        ll_prefetch_second(g, ll_atc(g, p, g->i8, ahead + b));
    ll_loop m;
    ll_for1(g, &m, ll_i(g, 0), ll_param(g, M), ll_i(g, 1), 2,
            (fg_v[]){ll_at(g, ll_param(g, X), t->elem, at), acc});
    fg_v sum[CHAINS] = {ll_load(g, vec, m.phi[1])};
    for (int u = 0; u < deep; u++) {
        fg_v x = ll_mload(g, vec, ll_atc(g, m.phi[0], t->elem, u * t->W), mask);
        fg_v *s = &sum[u % CHAINS];
        *s = *s ? ll_fma(g, x, v[u], *s) : ll_mul(g, x, v[u]);
    }
    for (int step = 1; step < CHAINS && step < deep; step *= 2)
        for (int c = 0; c < CHAINS; c += 2 * step)
            sum[c] = ll_add(g, sum[c], sum[c + step]);
    ll_store(g, sum[0], m.phi[1]);
    ll_next(g, &m,
            (fg_v[]){at_bytes(g, m.phi[0], ll_param(g, LDX)),
                     ll_atc(g, m.phi[1], t->elem, t->W)});
}

/* y[m] += the sum across lanes of acc[m], which becomes zero again. */
static void
columns_sum(fg_ll *g, const fg_tile *t, fg_v acc, fg_v y)
{
    fg_t vec = ll_vec(t->elem, t->W);
    ll_loop m;
    ll_for1(g, &m, ll_i(g, 0), ll_param(g, M), ll_i(g, 1), 2, (fg_v[]){acc, y});
    fg_v sum = ll_hsum(g, ll_load(g, vec, m.phi[0]));
    ll_store(g, ll_add(g, ll_load(g, t->elem, m.phi[1]), sum), m.phi[1]);
    ll_store(g, ll_zero(vec), m.phi[0]);
    ll_next(g, &m,
            (fg_v[]){ll_atc(g, m.phi[0], t->elem, t->W),
                     at_bytes(g, m.phi[1], ll_param(g, LDY))});
}

/* x[0..k) times each of the rows. */
static fg_v
dot_rows(fg_ll *g, const fg_tile *t, fg_v x, const fg_v *row)
{
    fg_t vec = ll_vec(t->elem, t->W);
    fg_v k = ll_param(g, K), whole = ll_and(g, k, ll_i(g, -t->W)), acc[SHORT_ROWS];
    for (int i = 0; i < t->W; i++)
        acc[i] = ll_zero(vec);
    for (int tail = 0; tail < 2; tail++) {
        ll_loop l;
        ll_for(g, &l, tail ? whole : ll_i(g, 0), tail ? k : whole, ll_i(g, t->W), t->W,
               acc);
        fg_v mask = tail ? ll_first(g, ll_sub(g, k, l.i), t->W) : NULL;
        fg_v v = ll_mload(g, vec, ll_at(g, x, t->elem, l.i), mask);
        for (int i = 0; i < t->W; i++)
            acc[i] = ll_fma(g, v, ll_mload(g, vec, ll_at(g, row[i], t->elem, l.i), mask),
                            l.phi[i]);
        ll_next(g, &l, acc);
        memcpy(acc, l.phi, sizeof *acc * (size_t)t->W);
    }
    return ll_hsums(g, t->W, acc);
}

/* As many rows of w as a vector has lanes; they stay in the first-level cache while every
 * row of x meets them. Each time `lines` lines are fetched, from `next` on. */
static void
short_step(fg_ll *g, const fg_tile *t, fg_v w, fg_v left, fg_v y, fg_v next, fg_v lines)
{
    fg_v row[SHORT_ROWS], mine = ll_first(g, left, t->W), ld = ll_param(g, LDW);
    for (int i = 0; i < t->W; i++) { /* past the last: that one again */
        row[i] = w;
        w = ll_sel(g, ll_cmp(g, LL_GT, left, ll_i(g, i + 1)), at_bytes(g, w, ld), w);
    }
    ll_loop m;
    ll_for1(g, &m, ll_i(g, 0), ll_param(g, M), ll_i(g, 1), 4,
            (fg_v[]){ll_param(g, X), y, next, ll_i(g, 0)});
    fg_v ahead[2] = {m.phi[2], m.phi[3]};
    fetch_on(g, lines, ll_mul(g, ll_param(g, K), ll_i(g, t->size)), &ahead[0], &ahead[1]);
    fg_v was = ll_mload(g, ll_vec(t->elem, t->W), m.phi[1], mine);
    ll_mstore(g, ll_add(g, was, dot_rows(g, t, m.phi[0], row)), m.phi[1], mine);
    ll_next(g, &m,
            (fg_v[]){at_bytes(g, m.phi[0], ll_param(g, LDX)),
                     at_bytes(g, m.phi[1], ll_param(g, LDY)), ahead[0], ahead[1]});
}

static void
short_body(fg_ll *g, const fg_tile *t)
{
    fg_v n = ll_param(g, N), ld = ll_param(g, LDW), m = ll_param(g, M);
    fg_v bytes = ll_mul(g, ll_param(g, K), ll_i(g, t->size));
    fg_v far = rows_ahead(g, t->W, bytes);
    fg_v lines = ll_udiv(g, ll_mul(g, bytes, ll_i(g, t->W)), ll_i(g, LINE));
    lines = ll_udiv(g, ll_add(g, lines, m), m); /* evenly over the rows of x */
    ll_loop j;
    ll_for(g, &j, ll_i(g, 0), n, ll_i(g, t->W), 0, NULL);
    fg_v w = at_bytes(g, ll_param(g, W), ll_mul(g, j.i, ld));
    short_step(g, t, w, ll_sub(g, n, j.i), ll_at(g, ll_param(g, Y), t->elem, j.i),
               at_bytes(g, w, far), lines);
    ll_next(g, &j, NULL);
}

void
fg_few_short_columns(fg_ll *g, const fg_tile *t, const fg_few *f)
{
    few_call(g, t, f, "few_short_columns", short_body);
}

static void
columns_body(fg_ll *g, const fg_tile *t)
{
    fg_t vec = ll_vec(t->elem, t->W);
    int deep = g->t->nvec >= 32 ? 16 : 8;
    fg_v k = ll_param(g, K), ld = ll_param(g, LDW);
    fg_v whole = ll_and(g, k, ll_i(g, -deep * t->W));
    fg_v acc = ll_slot(g, vec, FG_FEW_ROWS);
    for (int i = 0; i < FG_FEW_ROWS; i++)
        ll_store(g, ll_zero(vec), ll_atc(g, acc, t->elem, i * t->W));
    ll_loop j, l;
    ll_for(g, &j, ll_i(g, 0), ll_param(g, N), ll_i(g, 1), 0, NULL);
    fg_v w = at_bytes(g, ll_param(g, W), ll_mul(g, j.i, ld));
    ll_for(g, &l, ll_i(g, 0), whole, ll_i(g, deep * t->W), 0, NULL);
    columns_step(g, t, deep, w, l.i, acc, NULL);
    ll_next(g, &l, NULL);
    ll_for(g, &l, whole, k, ll_i(g, t->W), 0, NULL);
    columns_step(g, t, 1, w, l.i, acc, ll_first(g, ll_sub(g, k, l.i), t->W));
    ll_next(g, &l, NULL);
    columns_sum(g, t, acc, ll_at(g, ll_param(g, Y), t->elem, j.i));
    ll_next(g, &j, NULL);
}

void
fg_few_columns(fg_ll *g, const fg_tile *t, const fg_few *f)
{
    few_call(g, t, f, "few_columns", columns_body);
}
