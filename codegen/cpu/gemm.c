/* gemm.c - register-tiled product with run-time sizes.
 *
 *     for each k:  NV vectors of the panel; MR broadcasts of A; MR x NV multiply-adds
 *
 * The accumulators are the phis of the loop over k, so they live in registers for all
 * of K and memory traffic is one panel row per MR x NV products: the loop runs at the
 * speed of the multiplier as long as MR x NV covers its latency and MR x NV + NV + 1
 * registers exist. At most 6 rows: more would fall into one set of an 8-way cache when
 * the stride of A is a multiple of 4 KiB.
 *
 * Weights stay where the model file is mapped, rows far apart: reading a panel in
 * place once per tile would pay for address translation every time. So the first tile
 * copies its panel as it goes, the others read the copy, and meanwhile they prefetch
 * the next panel.
 */
#include <stdio.h>
#include <string.h>
#include "codegen/cpu/gemm.h"

enum { LINE = 64 };

fg_tile
fg_tile_of(fg_ll *g, fg_t elem)
{
    fg_tile t = {.elem = elem};
    t.size = elem == g->f64 || elem == g->i64 ? 8 : 4;
    t.W = g->W * 4 / t.size;
    t.NV = g->t->knob[FG_KNOB_vectors];
    if (!t.NV)
        t.NV = g->t->nvec >= 32 ? 4 : 2;
    t.NR = t.NV * t.W;
    t.MR = g->t->knob[FG_KNOB_rows];
    t.ld = t.NR;
    return t;
}

static const char *
elem_name(fg_ll *g, fg_t elem)
{
    return elem == g->f32   ? "f32"
           : elem == g->f64 ? "f64"
           : elem == g->i32 ? "i32"
                            : "i64";
}

static fg_v
at_bytes(fg_ll *g, fg_v p, fg_v bytes)
{
    return ll_at(g, p, g->i8, bytes);
}

bool
fg_helper_begin(fg_ll *g, const char *what, const fg_tile *t, int n, const fg_t *param,
                ll_place *back, fg_v *fn)
{
    char name[48];
    snprintf(name, sizeof name, "%s_%s", what, elem_name(g, t->elem));
    *fn = ll_known_function(g, name, g->none, n, param);
    if (*fn)
        return false;
    *back = ll_save(g);
    *fn = ll_function(g, name, g->none, n, param, true);
    unsigned kind = LLVMGetEnumAttributeKindForName("noinline", 8);
    LLVMAddAttributeAtIndex(*fn, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(g->cx, kind, 0));
    return true;
}

void
fg_helper_end(fg_ll *g, ll_place back)
{
    ll_ret(g, NULL);
    ll_restore(g, back);
}

/* ---- micro-kernel --------------------------------------------------------------- */

enum { ARG_A, ARG_LDA, ARG_SKA, ARG_K, ARG_B, ARG_C, ARG_NEXT, ARG_LDNEXT, NARG };

static void
kernel_body(fg_ll *g, const fg_tile *t, int n, fg_tilekind kind)
{
    bool pack = kind == FG_TILE_PACK;
    fg_t vec = ll_vec(t->elem, t->W);
    fg_v arg[NARG], phi[LL_MAXPHI], b[8];
    int acc = n * t->NV;
    for (int i = 0; i < NARG; i++)
        arg[i] = ll_param(g, i);
    for (int i = 0; i < acc; i++) {
        phi[i] = ll_zero(vec);
        if (kind != FG_TILE_RESCALE)
            continue;
        fg_v by = ll_load_aligned(
            g, vec, ll_atc(g, arg[ARG_NEXT], t->elem, i % t->NV * t->W), t->W * t->size);
        fg_v c = ll_load_aligned(g, vec, ll_atc(g, arg[ARG_C], t->elem, i * t->W),
                                 t->W * t->size);
        phi[i] = ll_mul(g, c, by);
    }
    fg_v row[8];
    for (int i = 1; i < n; i++)
        row[i] = ll_mul(g, arg[ARG_LDA], ll_i(g, i));
    fg_v ahead = ll_mul(g, arg[ARG_LDNEXT], ll_i(g, g->t->knob[FG_KNOB_pack_ahead]));
    phi[acc] = arg[ARG_A];
    phi[acc + 1] = arg[ARG_B];
    phi[acc + 2] = arg[ARG_NEXT];

    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), arg[ARG_K], ll_i(g, 1), acc + 3, phi);
    fg_v a = l.phi[acc], panel = l.phi[acc + 1], next = l.phi[acc + 2];
    for (int j = 0; j < t->NV; j++) {
        fg_v p = ll_atc(g, panel, t->elem, j * t->W);
        if (!pack) {
            b[j] = ll_load(g, vec, p);
            continue;
        }
        b[j] = ll_load(g, vec, ll_atc(g, next, t->elem, j * t->W));
        ll_store_aligned(g, b[j], p, t->W * t->size);
    }
    if (pack)
        for (int byte = 0; byte < t->NR * t->size; byte += LINE)
            ll_prefetch(g, ll_atc(g, at_bytes(g, next, ahead), g->i8, byte));
    else if (kind == FG_TILE_STREAM)
        for (int byte = 0; byte < t->NR * t->size; byte += LINE)
            ll_prefetch_second(
                g, ll_atc(g, panel, g->i8, g->t->knob[FG_KNOB_stream_ahead] + byte));
    else if (kind == FG_TILE_PLAIN)
        ll_prefetch(g, next);
    for (int i = 0; i < n; i++) {
        fg_v p = i ? at_bytes(g, a, row[i]) : a;
        fg_v x = ll_splat(g, ll_load(g, t->elem, p), t->W);
        for (int j = 0; j < t->NV; j++)
            phi[i * t->NV + j] = ll_fma(g, x, b[j], l.phi[i * t->NV + j]);
    }
    phi[acc] = at_bytes(g, a, arg[ARG_SKA]);
    phi[acc + 1] = ll_atc(g, panel, t->elem, t->ld);
    phi[acc + 2] = at_bytes(g, next, arg[ARG_LDNEXT]);
    ll_next(g, &l, phi);

    for (int i = 0; i < acc; i++)
        ll_store_aligned(g, l.phi[i], ll_atc(g, arg[ARG_C], t->elem, i * t->W),
                         t->W * t->size);
}

fg_v
fg_tile_kernel(fg_ll *g, const fg_tile *t, int n, fg_tilekind kind)
{
    static const char *const what[] = {"", "_pack", "_stream", "_rescale"};
    fg_t param[NARG] = {g->ptr, g->i64, g->i64, g->i64, g->ptr, g->ptr, g->ptr, g->i64};
    char name[40];
    snprintf(name, sizeof name, "tile%dx%d%s", n, t->ld, what[kind]);
    ll_place back;
    fg_v fn;
    if (!fg_helper_begin(g, name, t, NARG, param, &back, &fn))
        return fn;
    kernel_body(g, t, n, kind);
    fg_helper_end(g, back);
    return fn;
}

/* ---- one panel, all rows -------------------------------------------------------- */

/* Rows are dealt out evenly, because a tile of 1 or 2 rows costs as much as one of 4:
 * of `left` rows the next tile takes left / tiles, rounded up, and fewer than 4 go one
 * by one. So the sizes are 1, 4, 5 and 6. */
enum { LEAST_TILE = 4 };

static int
next_tile(const fg_tile *t, int64_t left)
{
    int64_t tiles = (left + t->MR - 1) / t->MR;
    return left < LEAST_TILE ? 1 : (int)((left + tiles - 1) / tiles);
}

static fg_v
next_tile_at_run(fg_ll *g, const fg_tile *t, fg_v left)
{
    fg_v tiles = ll_udiv(g, ll_add(g, left, ll_i(g, t->MR - 1)), ll_i(g, t->MR));
    fg_v n = ll_udiv(g, ll_sub(g, ll_add(g, left, tiles), ll_i(g, 1)), tiles);
    return ll_sel(g, ll_cmp(g, LL_LT, left, ll_i(g, LEAST_TILE)), ll_i(g, 1), n);
}

/* Sizes that tiles can have for any number of rows within the bounds, one bit each. */
static unsigned
tile_sizes(const fg_panel *p, bool first)
{
    unsigned sizes = 0;
    int64_t from = p->min_rows < 1 ? 1 : p->min_rows, to = p->max_rows;
    /* Beyond MR^2 rows every size is MR or MR - 1; a window of that width sees all. */
    int64_t window = p->t.MR * p->t.MR;
    if (to - from > window)
        to = from + window;
    for (int64_t n = from; n <= to; n++)
        for (int64_t left = n; left > 0; left -= next_tile(&p->t, left)) {
            sizes |= 1u << next_tile(&p->t, left);
            if (first)
                break;
        }
    return sizes ? sizes : 2;
}

/* Which of the micro-kernels serves n rows. */
static fg_v
choose(fg_ll *g, const fg_panel *p, fg_v n, unsigned sizes, fg_tilekind kind)
{
    fg_v fn = NULL;
    for (int i = 1; i <= p->t.MR; i++) {
        if (!(sizes >> i & 1))
            continue;
        fg_v k = p->kernel ? p->kernel(g, p->maker, &p->t, i)
                           : fg_tile_kernel(g, &p->t, i, kind);
        fn = fn ? ll_sel(g, ll_cmp(g, LL_EQ, n, ll_i(g, i)), k, fn) : k;
    }
    return fn;
}

void
fg_panel_rows(fg_ll *g, const fg_panel *p)
{
    const fg_tile *t = &p->t;
    unsigned any = tile_sizes(p, false);
    int lines = t->NR * t->size / LINE;
    fg_v zero = ll_i(g, 0), one = ll_i(g, 1);
    ll_loop l; /* over rows; carried: tiles done */
    ll_for(g, &l, zero, p->rows, one, 1, &zero);
    fg_v row = l.i, n = next_tile_at_run(g, t, ll_sub(g, p->rows, row));
    if (!(any & (any - 1)))
        n = ll_i(g, __builtin_ctz(any));
    fg_tilekind kind = p->rescale ? FG_TILE_RESCALE : FG_TILE_PLAIN;
    fg_v arg[NARG + 6], fn = choose(g, p, n, any, kind);
    LLVMTypeRef type = LLVMGlobalGetValueType(
        p->kernel ? p->kernel(g, p->maker, t, __builtin_ctz(any))
                  : fg_tile_kernel(g, t, __builtin_ctz(any), kind));
    int narg = NARG;
    arg[ARG_A] = p->a(p->user, row, n);
    arg[ARG_LDA] = p->lda;
    arg[ARG_SKA] = p->ska;
    arg[ARG_K] = p->k;
    arg[ARG_B] = p->b;
    arg[ARG_C] =
        p->stack ? ll_at(g, p->c, t->elem, ll_mul(g, row, ll_i(g, t->NR))) : p->c;
    arg[ARG_NEXT] = p->rescale ? p->rescale : arg[ARG_A];
    arg[ARG_LDNEXT] = zero;
    if (p->ahead)
        p->ahead(p->user, l.phi[0], &arg[ARG_NEXT], &arg[ARG_LDNEXT]);
    if (p->src) {
        fg_v before = ll_sub(g, l.phi[0], one);
        fg_v mine = ll_ucmp(g, LL_LT, before, ll_i(g, lines));
        fg_v line = ll_add(g, ll_mul(g, before, ll_i(g, LINE)), ll_i(g, t->NR * t->size));
        fg_v packs = ll_and(g, ll_cmp(g, LL_EQ, row, zero), p->fuse);
        fn = ll_sel(g, packs, choose(g, p, n, tile_sizes(p, true), FG_TILE_PACK), fn);
        line = ll_sel(g, packs, zero, line);
        mine = ll_or(g, mine, packs);
        arg[ARG_NEXT] = ll_sel(g, mine, at_bytes(g, p->src, line), arg[ARG_NEXT]);
        arg[ARG_LDNEXT] = ll_sel(g, mine, p->ldsrc, arg[ARG_LDNEXT]);
    }
    if (p->next) {
        fg_v first = ll_cmp(g, LL_EQ, row, zero);
        fg_v done = ll_mul(g, ll_sub(g, l.phi[0], one), ll_mul(g, p->k, ll_i(g, LINE)));
        fn = ll_sel(g, first, choose(g, p, n, tile_sizes(p, true), FG_TILE_STREAM), fn);
        fg_v mine = ll_ucmp(g, LL_LT, ll_sub(g, l.phi[0], one), ll_i(g, lines));
        arg[ARG_NEXT] = ll_sel(g, mine, at_bytes(g, p->next, done), arg[ARG_NEXT]);
        arg[ARG_LDNEXT] = ll_sel(g, mine, ll_i(g, LINE), arg[ARG_LDNEXT]);
    }
    if (p->kernel) {
        arg[ARG_NEXT] =
            at_bytes(g, p->after, ll_mul(g, l.phi[0], ll_mul(g, p->k, p->ldafter)));
        arg[ARG_LDNEXT] = p->ldafter;
        arg[narg++] = at_bytes(g, p->beside, ll_mul(g, row, p->ldbeside));
        arg[narg++] = p->ldbeside;
        for (int i = 0; i < p->nmore; i++)
            arg[narg++] = p->more[i];
    }
    LLVMBuildCall2(g->b, type, fn, arg, (unsigned)narg, "");
    if (p->done)
        p->done(p->user, row, n);
    l.step = n;
    ll_next(g, &l, (fg_v[]){ll_add(g, l.phi[0], one)});
}

/* ---- packing -------------------------------------------------------------------- */

/* Lanes of 16 bytes stay where they are; within each, runs of `run` elements from the
 * low (high) halves of a and b alternate. */
static fg_v
unpack(fg_ll *g, fg_v a, fg_v b, int W, int per_lane, int run, bool high)
{
    int mask[64], half = per_lane / 2;
    for (int i = 0; i < W; i++) {
        int lane = i / per_lane * per_lane, at = i % per_lane;
        int from = at / (2 * run) * run + at % run + (high ? half : 0);
        mask[i] = lane + from + (at / run % 2 ? W : 0);
    }
    return ll_shuffle(g, a, b, W, mask);
}

/* Lanes of 16 bytes: the even (odd) ones of a, then those of b. */
static fg_v
pick_lanes(fg_ll *g, fg_v a, fg_v b, int W, int per_lane, int odd)
{
    int mask[64], lanes = W / per_lane;
    for (int i = 0; i < W; i++) {
        int lane = i / per_lane, of = lane % (lanes / 2) * 2 + odd;
        mask[i] = of * per_lane + i % per_lane + (lane < lanes / 2 ? 0 : W);
    }
    return ll_shuffle(g, a, b, W, mask);
}

/* First within lanes of 16 bytes, then the lanes: every step is one cheap instruction. */
void
fg_transpose_regs(fg_ll *g, fg_v *r, int W, int size)
{
    int n = 16 / size;
    fg_v q[64];
    for (int i = 0; i < W; i += n) {
        if (n == 2) {
            q[i] = unpack(g, r[i], r[i + 1], W, n, 1, false);
            q[i + 1] = unpack(g, r[i], r[i + 1], W, n, 1, true);
            continue;
        }
        fg_v half[4];
        for (int k = 0; k < 4; k++)
            half[k] = unpack(g, r[i + k / 2 * 2], r[i + k / 2 * 2 + 1], W, n, 1, k & 1);
        for (int k = 0; k < 4; k++)
            q[i + k] = unpack(g, half[k / 2], half[2 + k / 2], W, n, 2, k & 1);
    }
    /* q[i + c]: in lane L, rows i.. of column n L + c. Halving the groups brings the
     * rows of a column together. */
    for (int groups = W / n; groups > 1; groups /= 2) {
        memcpy(r, q, (size_t)W * sizeof *q);
        for (int k = 0; k < W / n / 2; k++)
            for (int c = 0; c < n; c++)
                for (int odd = 0; odd < 2; odd++)
                    q[(k + odd * (W / n / 2)) * n + c] = pick_lanes(
                        g, r[2 * k * n + c], r[(2 * k + 1) * n + c], W, n, odd);
    }
    memcpy(r, q, (size_t)W * sizeof *q);
}

static void
pack_rows_body(fg_ll *g, const fg_tile *t)
{
    fg_t vec = ll_vec(t->elem, t->W);
    fg_v ld = ll_param(g, 1), n = ll_param(g, 3), mask[8];
    for (int j = 0; j < t->NV; j++)
        mask[j] = ll_first(g, ll_sub(g, n, ll_i(g, j * t->W)), t->W);
    fg_v ahead = ll_mul(g, ld, ll_i(g, g->t->knob[FG_KNOB_pack_ahead]));
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), ll_param(g, 2), ll_i(g, 1), 2,
           (fg_v[]){ll_param(g, 0), ll_param(g, 4)});
    for (int j = 0; j < t->NV; j++) {
        fg_v p = ll_atc(g, l.phi[0], t->elem, j * t->W);
        ll_prefetch(g, at_bytes(g, p, ahead));
        ll_store(g, ll_mload(g, vec, p, mask[j]), ll_atc(g, l.phi[1], t->elem, j * t->W));
    }
    ll_next(g, &l,
            (fg_v[]){at_bytes(g, l.phi[0], ld), ll_atc(g, l.phi[1], t->elem, t->ld)});
}

void
fg_pack_rows(fg_ll *g, const fg_tile *t, fg_v src, fg_v ld, fg_v k, fg_v n, fg_v dst)
{
    fg_t param[5] = {g->ptr, g->i64, g->i64, g->i64, g->ptr};
    ll_place back;
    fg_v fn;
    char name[32];
    snprintf(name, sizeof name, "pack_rows%d", t->ld);
    if (fg_helper_begin(g, name, t, 5, param, &back, &fn)) {
        pack_rows_body(g, t);
        fg_helper_end(g, back);
    }
    ll_call(g, fn, 5, (fg_v[]){src, ld, k, n, dst});
}

/* W columns at a time: each is one sequential stream. */
static void
pack_columns_body(fg_ll *g, const fg_tile *t)
{
    fg_t vec = ll_vec(t->elem, t->W);
    fg_v ld = ll_param(g, 1), k = ll_param(g, 2), n = ll_param(g, 3);
    ll_loop group, l;
    ll_for1(g, &group, ll_i(g, 0), n, ll_i(g, t->W), 0, NULL);
    fg_v src = at_bytes(g, ll_param(g, 0), ll_mul(g, group.i, ld));
    fg_v left = ll_sub(g, n, group.i);
    ll_for(g, &l, ll_i(g, 0), k, ll_i(g, t->W), 0, NULL);
    fg_v mask = ll_first(g, ll_sub(g, k, l.i), t->W), r[64];
    fg_v p = ll_at(g, src, t->elem, l.i);
    for (int i = 0; i < t->W; i++) {
        r[i] = ll_mload(g, vec, p, mask);
        ll_prefetch(g, ll_atc(g, p, g->i8, 4 * LINE));
        /* Past the last column: read that one again. */
        p = ll_sel(g, ll_cmp(g, LL_GT, left, ll_i(g, i + 1)), at_bytes(g, p, ld), p);
    }
    fg_transpose_regs(g, r, t->W, t->size);
    fg_v dst = ll_at(g, ll_param(g, 4), t->elem,
                     ll_add(g, ll_mul(g, l.i, ll_i(g, t->ld)), group.i));
    for (int i = 0; i < t->W; i++)
        ll_store(g, r[i], ll_atc(g, dst, t->elem, i * t->ld));
    ll_next(g, &l, NULL);
    ll_next(g, &group, NULL);
}

void
fg_pack_columns(fg_ll *g, const fg_tile *t, fg_v src, fg_v ld, fg_v k, fg_v n, fg_v dst)
{
    fg_t param[5] = {g->ptr, g->i64, g->i64, g->i64, g->ptr};
    ll_place back;
    fg_v fn;
    char name[32];
    snprintf(name, sizeof name, "pack_columns%d", t->ld);
    if (fg_helper_begin(g, name, t, 5, param, &back, &fn)) {
        pack_columns_body(g, t);
        fg_helper_end(g, back);
    }
    ll_call(g, fn, 5, (fg_v[]){src, ld, k, n, dst});
}
