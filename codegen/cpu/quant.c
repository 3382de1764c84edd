/* quant.c - products of few rows with weights of 4, 8 or 16 bits, at the speed of memory.
 *
 *     weights        w0 w1 w2 w3 | w4 ..            a lane is 32 bits: 8 or 4 weights
 *     prepared x     what meets them in each lane: bytes of x as low and as high nibbles
 *                    want them, a start for the sum, the scale of x, the sum of x
 *     sum            start + w x + ..               exact, in i32
 *     y             += sum  scale of x  scale of w  once per vector of weights
 *
 * A row of w is read once, front to back, as it lies in the file: x is rearranged instead,
 * because it is small. Four rows at a time, one of each quarter of them: side by side, short
 * neighbours look like jumps to what fetches ahead in the processor, and memory is read at
 * half its speed; a quarter is one sequential read, and four it keeps up with.
 * (w - zero) x = w x - zero sum(x), and the second part is known before any weight is: it
 * is where the sum starts. Without rounded activations the same lanes are widened to f32: as
 * a mantissa under the exponent of 2^23, an unsigned number becomes a float by one
 * subtraction, which takes the zero point off too. The halves of a lane of bf16 are floats
 * already.
 */
#include "codegen/cpu/quant.h"

#include <stdio.h>

enum {
    COLUMNS = 4, /* rows of w at once: they share x, and hide each other's latency */
    AHEAD = 1024 /* bytes of each that are fetched ahead of use */
};

static fg_v
at_bytes(fg_ll *g, fg_v p, fg_v bytes)
{
    return ll_at(g, p, g->i8, bytes);
}

static int
vector_bytes(fg_ll *g)
{
    return g->W * 4;
}

/* Vectors of x that meet one vector of weights. After them: with `round`, start and scale;
 * with `zeros`, the sums of x. */
static int
value_vectors(const fg_qform *f)
{
    return f->round ? 8 / f->bits : fg_q_each(f);
}

int
fg_q_unit_bytes(fg_ll *g, const fg_qform *f)
{
    return (value_vectors(f) + (f->round ? 2 : 0) + f->zeros) * vector_bytes(g);
}

bool
fg_q_helper(fg_ll *g, const fg_qform *f, const char *what, int n, const fg_t *param,
            ll_place *back, fg_v *fn)
{
    char name[64];
    fg_tile t = {.elem = g->f32};
    snprintf(name, sizeof name, "%s_q%d%s%s_b%lld%s_r%lld", what, f->bits,
             f->sign ? "s" : "", f->zeros ? "z" : "", (long long)f->block,
             fg_dtypes[f->scale].name, (long long)f->round);
    return fg_helper_begin(g, name, &t, n, param, back, fn);
}

/* The sign bits of all weights in a lane. */
static int64_t
flip_mask(const fg_qform *f)
{
    return f->bits == 4 ? (int32_t)0x88888888 : (int32_t)0x80808080;
}

/* ---- activations ---------------------------------------------------------------- */

/* W / n numbers of type `of` at p, each to n neighbouring lanes; `left` of them are there, or
 * NULL: all. */
static fg_v
spread(fg_ll *g, fg_t of, fg_v p, int n, fg_v left)
{
    int W = g->W, mask[64], each = n < W ? W / n : 1;
    fg_t t = ll_vec(of, each);
    fg_v v =
        left && each > 1 ? ll_mload(g, t, p, ll_first(g, left, each)) : ll_load(g, t, p);
    v = ll_fcast(g, v, g->f32);
    if (each == 1)
        return ll_splat(g, v, W);
    for (int i = 0; i < W; i++)
        mask[i] = i / n;
    return ll_shuffle(g, v, NULL, W, mask);
}

typedef struct take {
    fg_v x, s, k, units, bytes, steps;
} take;

/* A row of bytes as signed numbers, and its scales, both filled up with zeros to whole
 * vectors of weights. */
static void
take_row(fg_ll *g, const fg_qform *f, const take *t)
{
    int each = 4 * g->W;
    fg_v whole = ll_mul(g, t->units, ll_i(g, g->W * fg_q_each(f)));
    fg_v runs = ll_udiv(g, ll_add(g, t->k, ll_i(g, f->round - 1)), ll_i(g, f->round));
    fg_v room = ll_add(g, ll_udiv(g, whole, ll_i(g, f->round)), ll_i(g, 1));
    fg_v flip = ll_ci(ll_vec(g->i8, each), 0x80);
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), whole, ll_i(g, each), 0, NULL);
    fg_v there = ll_first(g, ll_sub(g, t->k, l.i), each);
    fg_v v = ll_mload(g, LLVMTypeOf(flip), ll_at(g, t->x, g->i8, l.i), there);
    v = ll_sel(g, there, ll_xor(g, v, flip), ll_zero(LLVMTypeOf(flip)));
    ll_store(g, v, ll_at(g, t->bytes, g->i8, l.i));
    ll_next(g, &l, NULL);
    ll_for(g, &l, ll_i(g, 0), room, ll_i(g, g->W), 0, NULL);
    v = ll_mload(g, ll_vec(g->f32, g->W), ll_at(g, t->s, g->f32, l.i),
                 ll_first(g, ll_sub(g, runs, l.i), g->W));
    ll_store(g, v, ll_at(g, t->steps, g->f32, l.i));
    ll_next(g, &l, NULL);
}

/* Every second byte of 2 n. */
static fg_v
every_second(fg_ll *g, fg_v v, int first)
{
    int n = ll_lanes(v) / 2, mask[64];
    for (int i = 0; i < n; i++)
        mask[i] = 2 * i + first;
    return ll_bits(g, ll_shuffle(g, v, NULL, n, mask), ll_vec(g->i32, n / 4));
}

/* What meets vector u of weights, from a rounded row. */
static void
arrange_bytes(fg_ll *g, const fg_qform *f, fg_v bytes, fg_v steps, fg_v u, fg_v zero,
              fg_v dst)
{
    int W = g->W, unit = W * fg_q_each(f), vb = vector_bytes(g);
    fg_t lanes = ll_vec(g->i32, W);
    fg_v first = ll_mul(g, u, ll_i(g, unit)), part[2];
    fg_v from = ll_at(g, bytes, g->i8, first);
    fg_v sum = ll_zero(lanes), ones = ll_ci(lanes, 0x01010101);
    if (f->bits == 8)
        part[0] = ll_load(g, lanes, from);
    else
        for (int h = 0; h < 2; h++)
            part[h] = every_second(g, ll_load(g, ll_vec(g->i8, 8 * W), from), h);
    for (int h = 0; h < value_vectors(f); h++) {
        ll_store_aligned(g, part[h], ll_atc(g, dst, g->i8, h * vb), vb);
        sum = ll_dot_u8s8(g, sum, ones, part[h], true);
    }
    fg_v run = ll_udiv(g, first, ll_i(g, f->round));
    fg_v scale = spread(g, g->f32, ll_at(g, steps, g->f32, run),
                        (int)f->round / fg_q_each(f), NULL);
    fg_v start = ll_mul(g, sum, ll_splat(g, ll_neg(g, ll_sext(g, zero, g->i32)), W));
    dst = ll_atc(g, dst, g->i8, value_vectors(f) * vb);
    ll_store_aligned(g, start, dst, vb);
    ll_store_aligned(g, scale, ll_atc(g, dst, g->i8, vb), vb);
    if (f->zeros)
        ll_store_aligned(g, ll_mul(g, ll_fromint(g, sum, g->f32, true), scale),
                         ll_atc(g, dst, g->i8, 2 * vb), vb);
}

/* The same from a row of f32: element j of every lane side by side, then their sums. */
static void
arrange_floats(fg_ll *g, const fg_qform *f, fg_v x, fg_v k, fg_v u, fg_v dst)
{
    int W = g->W, each = fg_q_each(f), vb = vector_bytes(g);
    fg_t vec = ll_vec(g->f32, W);
    fg_v lane = ll_mul(g, ll_iota(g->i64, W), ll_ci(ll_vec(g->i64, W), each));
    lane = ll_add(g, lane, ll_splat(g, ll_mul(g, u, ll_i(g, W * each)), W));
    fg_v end = ll_splat(g, k, W), sum = ll_zero(vec);
    for (int j = 0; j < each; j++) {
        fg_v at = ll_add(g, lane, ll_ci(LLVMTypeOf(lane), j));
        fg_v v = ll_gather(g, vec, x, at, ll_cmp(g, LL_LT, at, end));
        ll_store_aligned(g, v, ll_atc(g, dst, g->i8, j * vb), vb);
        sum = ll_add(g, sum, v);
    }
    if (f->zeros)
        ll_store_aligned(g, sum, ll_atc(g, dst, g->i8, each * vb), vb);
}

static void
prepare_body(fg_ll *g, const fg_qform *f)
{
    enum { X, LDX, M, K, DST, LD, BYTES, STEPS, ZERO, S, LDS };
    int unit = g->W * fg_q_each(f);
    fg_v k = ll_param(g, K), bytes = ll_param(g, BYTES), steps = ll_param(g, STEPS);
    fg_v units = ll_udiv(g, ll_add(g, k, ll_i(g, unit - 1)), ll_i(g, unit));
    ll_loop m, u;
    ll_for(g, &m, ll_i(g, 0), ll_param(g, M), ll_i(g, 1), 0, NULL);
    fg_v x = at_bytes(g, ll_param(g, X), ll_mul(g, m.i, ll_param(g, LDX)));
    fg_v s = at_bytes(g, ll_param(g, S), ll_mul(g, m.i, ll_param(g, LDS)));
    fg_v dst = at_bytes(g, ll_param(g, DST), ll_mul(g, m.i, ll_param(g, LD)));
    if (f->round)
        take_row(g, f, &(take){x, s, k, units, bytes, steps});
    ll_for(g, &u, ll_i(g, 0), units, ll_i(g, 1), 0, NULL);
    fg_v to = at_bytes(g, dst, ll_mul(g, u.i, ll_i(g, fg_q_unit_bytes(g, f))));
    if (f->round)
        arrange_bytes(g, f, bytes, steps, u.i, ll_param(g, ZERO), to);
    else
        arrange_floats(g, f, x, k, u.i, to);
    ll_next(g, &u, NULL);
    ll_next(g, &m, NULL);
}

void
fg_q_prepare_rows(fg_ll *g, const fg_qform *f, const fg_q_prepare *p)
{
    fg_t param[11] = {g->ptr, g->i64, g->i64, g->i64, g->ptr, g->i64,
                      g->ptr, g->ptr, g->i64, g->ptr, g->i64};
    fg_qform own = {.bits = f->bits, .zeros = f->zeros, .round = f->round};
    ll_place back;
    fg_v fn;
    if (fg_q_helper(g, &own, "prepare", 11, param, &back, &fn)) {
        prepare_body(g, &own);
        fg_helper_end(g, back);
    }
    ll_call(g, fn, 11,
            (fg_v[]){p->x, p->ldx, p->m, p->k, p->dst, p->ld, p->bytes, p->steps, p->zero,
                     p->s, p->lds});
}

/* ---- weights -------------------------------------------------------------------- */

enum { X, LDX, M, WEIGHTS, LDW, LANES, SCALE, LDS, ZEROS, LDZ, Y, LDY, N, ZERO, NARG };

/* One step: vector u of the rows of w, against one row of x. */
typedef struct step {
    const fg_qform *f;
    fg_v w[COLUMNS];                    /* the weights, top bits flipped */
    fg_v scale[COLUMNS], zero[COLUMNS]; /* in lanes; NULL: none */
    fg_v base;                          /* f32: 2^23 + zero */
} step;

/* Sum over the lane's weights times x, without the scale of w. */
static fg_v
lane_sums(fg_ll *g, const step *s, fg_v w, fg_v x)
{
    const fg_qform *f = s->f;
    int W = g->W, vb = vector_bytes(g), n = value_vectors(f);
    fg_t lanes = ll_vec(g->i32, W), vec = ll_vec(g->f32, W);
    if (f->round) {
        fg_v low = ll_ci(lanes, 0x0f0f0f0f), four = ll_ci(lanes, 4);
        fg_v after = ll_atc(g, x, g->i8, n * vb);
        fg_v sum = ll_load_aligned(g, lanes, after, vb);
        for (int h = 0; h < n; h++) {
            fg_v part = n == 1 ? w : ll_and(g, h ? ll_shr(g, w, four) : w, low);
            fg_v v = ll_load_aligned(g, lanes, ll_atc(g, x, g->i8, h * vb), vb);
            sum = ll_dot_u8s8(g, sum, part, v, n == 2);
        }
        fg_v scale = ll_load_aligned(g, vec, ll_atc(g, after, g->i8, vb), vb);
        return ll_mul(g, ll_fromint(g, sum, g->f32, true), scale);
    }
    fg_v sum = NULL, mask = ll_ci(lanes, (1 << f->bits) - 1);
    for (int j = 0; j < n; j++) {
        fg_v half = f->bits < 16 ? NULL
                    : j          ? ll_and(g, w, ll_ci(lanes, (int32_t)0xffff0000))
                                 : ll_shl(g, w, ll_ci(lanes, 16));
        fg_v b = j ? ll_shr(g, w, ll_ci(lanes, j * f->bits)) : w;
        b = ll_or(g, ll_and(g, b, mask), ll_ci(lanes, 0x4b000000));
        fg_v v = ll_load_aligned(g, vec, ll_atc(g, x, g->i8, j * vb), vb);
        b = half ? ll_bits(g, half, vec) : ll_sub(g, ll_bits(g, b, vec), s->base);
        sum = sum ? ll_fma(g, b, v, sum) : ll_mul(g, b, v);
    }
    return sum;
}

static fg_v
step_sum(fg_ll *g, const step *s, int c, fg_v x, fg_v acc)
{
    int vb = vector_bytes(g), n = value_vectors(s->f) + (s->f->round ? 2 : 0);
    fg_v sum = lane_sums(g, s, s->w[c], x);
    acc = s->scale[c] ? ll_fma(g, sum, s->scale[c], acc) : ll_add(g, acc, sum);
    if (s->zero[c]) {
        fg_v all =
            ll_load_aligned(g, ll_vec(g->f32, g->W), ll_atc(g, x, g->i8, n * vb), vb);
        acc = ll_fma(g, ll_neg(g, all), s->zero[c], acc);
    }
    return acc;
}

static fg_t
scale_type(fg_ll *g, const fg_qform *f)
{
    return f->scale == FG_f16 ? g->f16 : g->f32;
}

/* Where in its line the first scale (of type `of`) of vector u is. */
static fg_v
scale_at(fg_ll *g, const fg_qform *f, fg_t of, fg_v line, fg_v u)
{
    int lanes = (int)f->block / fg_q_each(f), W = g->W;
    fg_v at =
        lanes <= W ? ll_mul(g, u, ll_i(g, W / lanes)) : ll_udiv(g, u, ll_i(g, lanes / W));
    return ll_at(g, line, of, at);
}

/* Scales (or zero points) of vector u in lanes, of which `rest` are there, or NULL: all. */
static fg_v
lane_scales(fg_ll *g, const fg_qform *f, fg_t of, fg_v line, fg_v u, fg_v rest)
{
    int lanes = (int)f->block / fg_q_each(f);
    if (rest)
        rest = ll_udiv(g, ll_add(g, rest, ll_i(g, lanes - 1)), ll_i(g, lanes));
    return spread(g, of, scale_at(g, f, of, line, u), lanes, rest);
}

typedef struct columns {
    fg_v w[COLUMNS], scale[COLUMNS], zero[COLUMNS]; /* rows */
    fg_v acc;                                       /* [m][COLUMNS] vectors, or NULL */
    fg_v apart;                                     /* rows from one to the next */
    step s;
} columns;

/* Vector u of all columns, `rest` of its lanes (NULL: all), against all rows of x; acc:
 * registers when there is one row. */
static void
columns_step(fg_ll *g, columns *q, fg_v u, fg_v rest, fg_v *acc)
{
    const fg_qform *f = q->s.f;
    fg_v mask = rest ? ll_first(g, rest, g->W) : NULL;
    fg_t lanes = ll_vec(g->i32, g->W), vec = ll_vec(g->f32, g->W), of = scale_type(g, f);
    fg_v at = ll_mul(g, u, ll_i(g, vector_bytes(g)));
    fg_v x = at_bytes(g, ll_param(g, X), ll_mul(g, u, ll_i(g, fg_q_unit_bytes(g, f))));
    for (int c = 0; c < COLUMNS; c++) {
        fg_v w = at_bytes(g, q->w[c], at);
        ll_prefetch_second(g, ll_atc(g, w, g->i8, AHEAD));
        q->s.w[c] = ll_mload(g, lanes, w, mask);
        if (f->sign)
            q->s.w[c] = ll_xor(g, q->s.w[c], ll_ci(lanes, flip_mask(f)));
        q->s.scale[c] = f->block ? lane_scales(g, f, of, q->scale[c], u, rest) : NULL;
        q->s.zero[c] = !f->zeros  ? NULL
                       : f->block ? lane_scales(g, f, g->f32, q->zero[c], u, rest)
                                  : ll_splat(g, ll_load(g, g->f32, q->zero[c]), g->W);
    }
    if (!q->acc) {
        for (int c = 0; c < COLUMNS; c++)
            acc[c] = step_sum(g, &q->s, c, x, acc[c]);
        return;
    }
    ll_loop m;
    ll_for1(g, &m, ll_i(g, 0), ll_param(g, M), ll_i(g, 1), 2, (fg_v[]){x, q->acc});
    for (int c = 0; c < COLUMNS; c++) {
        fg_v p = ll_atc(g, m.phi[1], g->f32, c * g->W);
        fg_v sum = ll_load_aligned(g, vec, p, vector_bytes(g));
        ll_store_aligned(g, step_sum(g, &q->s, c, m.phi[0], sum), p, vector_bytes(g));
    }
    ll_next(g, &m,
            (fg_v[]){at_bytes(g, m.phi[0], ll_param(g, LDX)),
                     ll_atc(g, m.phi[1], g->f32, COLUMNS * g->W)});
}

/* y[c apart] += the sum across lanes. */
static void
columns_sum(fg_ll *g, columns *q, fg_v *acc, fg_v y)
{
    fg_t four = ll_vec(g->f32, COLUMNS);
    fg_v sum = ll_hsums(g, COLUMNS, acc), scale = ll_undef(four);
    if (!q->s.f->block && q->s.f->bits < 16) {
        for (int c = 0; c < COLUMNS; c++)
            scale = ll_insert(g, scale, ll_load(g, g->f32, q->scale[c]), c);
        sum = ll_mul(g, sum, scale);
    }
    for (int c = 0; c < COLUMNS; c++) {
        ll_store(g, ll_add(g, ll_load(g, g->f32, y), ll_extract(g, sum, c)), y);
        y = ll_at(g, y, g->f32, q->apart);
    }
}

/* Row j of each quarter of w: past the last, that one again, and what comes out is never
 * read. */
static void
columns_group(fg_ll *g, columns *q, fg_v j)
{
    int W = g->W;
    fg_t vec = ll_vec(g->f32, W);
    fg_v last = ll_sub(g, ll_param(g, N), ll_i(g, 1));
    for (int c = 0; c < COLUMNS; c++) {
        fg_v at = ll_min(g, ll_add(g, j, ll_mul(g, q->apart, ll_i(g, c))), last);
        fg_v line = ll_mul(g, at, ll_param(g, LDS)),
             zero = ll_mul(g, at, ll_param(g, LDZ));
        q->w[c] = at_bytes(g, ll_param(g, WEIGHTS), ll_mul(g, at, ll_param(g, LDW)));
        q->scale[c] = at_bytes(g, ll_param(g, SCALE), line);
        q->zero[c] = at_bytes(g, ll_param(g, ZEROS), zero);
    }
    fg_v lanes = ll_param(g, LANES), units = ll_udiv(g, lanes, ll_i(g, W)), acc[COLUMNS];
    fg_v rest = ll_sub(g, lanes, ll_mul(g, units, ll_i(g, W)));
    int carried = q->acc ? 0 : COLUMNS;
    for (int c = 0; c < COLUMNS; c++)
        acc[c] = ll_zero(vec);
    ll_loop u;
    ll_for(g, &u, ll_i(g, 0), units, ll_i(g, 1), carried, acc);
    memcpy(acc, u.phi, sizeof acc);
    columns_step(g, q, u.i, NULL, acc);
    ll_next(g, &u, acc);
    ll_branch ragged;
    ll_if(g, &ragged, ll_cmp(g, LL_GT, rest, ll_i(g, 0)));
    memcpy(acc, u.phi, sizeof acc);
    columns_step(g, q, units, rest, acc);
    ll_else(g, &ragged, carried, acc);
    ll_end(g, &ragged, u.phi, acc);
    fg_v y = ll_at(g, ll_param(g, Y), g->f32, j);
    if (!q->acc) {
        columns_sum(g, q, acc, y);
        return;
    }
    ll_loop m;
    ll_for1(g, &m, ll_i(g, 0), ll_param(g, M), ll_i(g, 1), 2, (fg_v[]){q->acc, y});
    for (int c = 0; c < COLUMNS; c++) {
        fg_v p = ll_atc(g, m.phi[0], g->f32, c * W);
        acc[c] = ll_load_aligned(g, vec, p, vector_bytes(g));
        ll_store_aligned(g, ll_zero(vec), p, vector_bytes(g));
    }
    columns_sum(g, q, acc, m.phi[1]);
    ll_next(g, &m,
            (fg_v[]){ll_atc(g, m.phi[0], g->f32, COLUMNS * W),
                     at_bytes(g, m.phi[1], ll_param(g, LDY))});
}

static void
few_body(fg_ll *g, const fg_qform *f)
{
    fg_t vec = ll_vec(g->f32, g->W);
    fg_v zero = ll_fromint(g, ll_param(g, ZERO), g->f32, true);
    columns q = {.s = {.f = f}};
    q.s.base = ll_splat(g, ll_add(g, zero, ll_cf(g->f32, 0x1p23)), g->W);
    q.apart =
        ll_udiv(g, ll_add(g, ll_param(g, N), ll_i(g, COLUMNS - 1)), ll_i(g, COLUMNS));
    fg_v slot = ll_slot(g, vec, FG_FEW_ROWS * COLUMNS);
    ll_loop j;
    ll_branch one;
    ll_if(g, &one, ll_cmp(g, LL_EQ, ll_param(g, M), ll_i(g, 1)));
    ll_for(g, &j, ll_i(g, 0), q.apart, ll_i(g, 1), 0, NULL);
    columns_group(g, &q, j.i);
    ll_next(g, &j, NULL);
    ll_else(g, &one, 0, NULL);
    q.acc = slot;
    for (int i = 0; i < FG_FEW_ROWS * COLUMNS; i++)
        ll_store(g, ll_zero(vec), ll_atc(g, slot, g->f32, i * g->W));
    ll_for(g, &j, ll_i(g, 0), q.apart, ll_i(g, 1), 0, NULL);
    columns_group(g, &q, j.i);
    ll_next(g, &j, NULL);
    ll_end(g, &one, NULL, NULL);
}

void
fg_q_few_columns(fg_ll *g, const fg_qform *f, const fg_q_few *p)
{
    fg_t param[NARG] = {g->ptr, g->i64, g->i64, g->ptr, g->i64, g->i64, g->ptr,
                        g->i64, g->ptr, g->i64, g->ptr, g->i64, g->i64, g->i64};
    ll_place back;
    fg_v fn;
    if (fg_q_helper(g, f, "few", NARG, param, &back, &fn)) {
        few_body(g, f);
        fg_helper_end(g, back);
    }
    ll_call(g, fn, NARG,
            (fg_v[]){p->x, p->ldx, p->m, p->w, p->ldw, p->lanes, p->scale, p->lds,
                     p->scaled_zero, p->ldz, p->y, p->ldy, p->n, p->zero});
}
