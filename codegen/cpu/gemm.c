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

enum {
    ARG_A,
    ARG_LDA,
    ARG_SKA,
    ARG_K,
    ARG_B,
    ARG_C,
    ARG_NEXT,
    ARG_LDNEXT,
    ARG_GAP,
    ARG_START,
    NARG
};

/* Lines in a row of the panel. */
static int
lines_of(const fg_tile *t)
{
    int bytes = t->NR * t->size;
    return bytes < LINE ? 1 : bytes / LINE;
}

/* Where accumulator i of the tile is kept. */
static fg_v
c_at(fg_ll *g, const fg_tile *t, int i)
{
    int at = i / t->NV * t->ld + i % t->NV * t->W;
    return ll_atc(g, ll_param(g, ARG_C), t->elem, at);
}

static void
first_sums(fg_ll *g, const fg_tile *t, int n, fg_tilekind kind, fg_v *sum)
{
    fg_t vec = ll_vec(t->elem, t->W);
    fg_v zero[LL_MAXMERGE];
    ll_branch s;
    for (int i = 0; i < n * t->NV; i++)
        sum[i] = zero[i] = ll_zero(vec);
    if (kind != FG_TILE_PLAIN)
        return;
    ll_if(g, &s, ll_cmp(g, LL_NE, ll_param(g, ARG_START), ll_i(g, 0)));
    ll_else(g, &s, n * t->NV, zero);
    for (int i = 0; i < n * t->NV; i++)
        sum[i] = ll_load_aligned(g, vec, c_at(g, t, i), t->W * t->size);
    ll_end(g, &s, sum, sum);
}

static void
kernel_body(fg_ll *g, const fg_tile *t, int n, fg_tilekind kind)
{
    bool pack = kind == FG_TILE_PACK;
    fg_t vec = ll_vec(t->elem, t->W), of = kind == FG_TILE_PAIRS ? g->i32 : t->elem;
    fg_v arg[NARG], phi[LL_MAXPHI], b[8];
    int acc = n * t->NV;
    for (int i = 0; i < NARG; i++)
        arg[i] = ll_param(g, i);
    fg_v row[8], gap[16];
    for (int i = 1; i < n; i++)
        row[i] = ll_mul(g, arg[ARG_LDA], ll_i(g, i));
    for (int i = 1; i < lines_of(t); i++)
        gap[i] = ll_mul(g, arg[ARG_GAP], ll_i(g, i));
    fg_v ahead = ll_mul(g, arg[ARG_LDNEXT], ll_i(g, g->t->knob[FG_KNOB_pack_ahead]));
    first_sums(g, t, n, kind, phi);
    phi[acc] = arg[ARG_A];
    phi[acc + 1] = arg[ARG_B];
    phi[acc + 2] = arg[ARG_NEXT];

    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), arg[ARG_K], ll_i(g, 1), acc + 3, phi);
    fg_v a = l.phi[acc], panel = l.phi[acc + 1], next = l.phi[acc + 2];
    for (int j = 0; j < t->NV; j++) {
        fg_v p = ll_atc(g, panel, t->elem, j * t->W);
        if (!pack) {
            b[j] = ll_load(g, ll_vec(of, t->W), p);
            continue;
        }
        b[j] = ll_load(g, vec, ll_atc(g, next, t->elem, j * t->W));
        ll_store_aligned(g, b[j], p, t->W * t->size);
    }
    for (int i = 0; i < lines_of(t); i++)
        if (pack)
            ll_prefetch(g, ll_atc(g, at_bytes(g, next, ahead), g->i8, i * LINE));
        else if (kind == FG_TILE_PLAIN)
            ll_prefetch_second(g, i ? at_bytes(g, next, gap[i]) : next);
    if (kind == FG_TILE_PAIRS)
        ll_prefetch_second(g, next);
    for (int i = 0; i < n; i++) {
        fg_v p = i ? at_bytes(g, a, row[i]) : a;
        fg_v x = ll_splat(g, ll_load(g, of, p), t->W);
        for (int j = 0; j < t->NV; j++) {
            fg_v *sum = &phi[i * t->NV + j], was = l.phi[i * t->NV + j];
            *sum = kind == FG_TILE_PAIRS ? ll_dot_bf16(g, was, x, b[j])
                                         : ll_fma(g, x, b[j], was);
        }
    }
    phi[acc] = at_bytes(g, a, arg[ARG_SKA]);
    phi[acc + 1] = ll_atc(g, panel, t->elem, t->ld);
    phi[acc + 2] = at_bytes(g, next, arg[ARG_LDNEXT]);
    ll_next(g, &l, phi);

    for (int i = 0; i < acc; i++)
        ll_store_aligned(g, l.phi[i], c_at(g, t, i), t->W * t->size);
}

fg_v
fg_tile_kernel(fg_ll *g, const fg_tile *t, int n, fg_tilekind kind)
{
    static const char *const what[] = {"", "_pack", "_pairs"};
    fg_t param[NARG] = {g->ptr, g->i64, g->i64, g->i64, g->ptr,
                        g->ptr, g->ptr, g->i64, g->i64, g->i64};
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

/* Rows are dealt out evenly, because a tile of 1 or 2 rows waits for its own sums: of
 * `left` rows the next tile takes left / tiles, rounded up. */
static int
next_tile(const fg_tile *t, int64_t left)
{
    int64_t tiles = (left + t->MR - 1) / t->MR;
    return (int)((left + tiles - 1) / tiles);
}

static fg_v
tile_count(fg_ll *g, const fg_tile *t, fg_v rows)
{
    return ll_udiv(g, ll_add(g, rows, ll_i(g, t->MR - 1)), ll_i(g, t->MR));
}

static fg_v
next_tile_at_run(fg_ll *g, const fg_tile *t, fg_v left)
{
    fg_v tiles = tile_count(g, t, left);
    return ll_udiv(g, ll_sub(g, ll_add(g, left, tiles), ll_i(g, 1)), tiles);
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

static fg_v
tile_of(fg_ll *g, const fg_panel *p, int n, fg_tilekind kind)
{
    return p->kernel ? p->kernel(g, p->maker, &p->t, n)
                     : fg_tile_kernel(g, &p->t, n, kind);
}

/* Which of the micro-kernels serves n rows. */
static fg_v
choose(fg_ll *g, const fg_panel *p, fg_v n, unsigned sizes, fg_tilekind kind)
{
    fg_v fn = NULL;
    for (int i = 1; i <= p->t.MR; i++) {
        if (!(sizes >> i & 1))
            continue;
        fg_v k = tile_of(g, p, i, kind);
        fn = fn ? ll_sel(g, ll_cmp(g, LL_EQ, n, ll_i(g, i)), k, fn) : k;
    }
    return fn;
}

/* Tile number `tile`, whose first row is `row`, of the panel's columns from NR j on. */
static void
tile_call(fg_ll *g, const fg_panel *p, fg_v fn, const fg_v *given, fg_v row, fg_v tile,
          fg_v j)
{
    const fg_tile *t = &p->t;
    fg_v col = ll_mul(g, j, ll_i(g, t->NR)), across = ll_i(g, t->ld / t->NR);
    fg_v type = tile_of(g, p, __builtin_ctz(tile_sizes(p, false)), FG_TILE_PLAIN);
    fg_v arg[NARG + FG_MORE], done = ll_add(g, ll_mul(g, tile, across), j);
    unsigned n = NARG;
    memcpy(arg, given, NARG * sizeof *arg);
    arg[ARG_B] = ll_at(g, p->b, t->elem, col);
    arg[ARG_C] = ll_at(g, arg[ARG_C], t->elem, col);
    if (p->next) {
        done = ll_mul(g, done, ll_mul(g, p->k, arg[ARG_LDNEXT]));
        arg[ARG_NEXT] = at_bytes(g, p->next, done);
    }
    if (p->cold) { /* every other line: the machine guesses the rest, and stops if told more */
        fg_v mine = ll_and(g, ll_cmp(g, LL_EQ, tile, ll_i(g, 0)), p->cold);
        fg_v soon = ll_atc(g, arg[ARG_B], g->i8, g->t->knob[FG_KNOB_stream_ahead]);
        arg[ARG_NEXT] = ll_sel(g, mine, soon, arg[ARG_NEXT]);
        arg[ARG_GAP] = ll_sel(g, mine, ll_i(g, 2 * LINE), arg[ARG_GAP]);
        arg[ARG_LDNEXT] = ll_sel(g, mine, ll_i(g, t->ld * t->size), arg[ARG_LDNEXT]);
    }
    if (p->after) {
        fg_v at = ll_mul(g, tile, ll_mul(g, p->k, p->ldafter));
        arg[ARG_NEXT] = at_bytes(g, p->after, at);
        arg[ARG_LDNEXT] = p->ldafter;
    }
    if (p->beside) {
        n = ARG_GAP;
        arg[n++] = at_bytes(g, p->beside, ll_mul(g, row, p->ldbeside));
        arg[n++] = p->ldbeside;
        for (int i = 0; i < p->nmore; i++)
            arg[n++] = p->more[i];
    }
    LLVMBuildCall2(g->b, LLVMGlobalGetValueType(type), fn, arg, n, "");
}

void
fg_panel_rows(fg_ll *g, const fg_panel *p)
{
    const fg_tile *t = &p->t;
    unsigned any = tile_sizes(p, false);
    fg_v zero = ll_i(g, 0), one = ll_i(g, 1);
    ll_loop l, j; /* over rows, carried: tiles done; over tiles side by side */
    ll_for(g, &l, zero, p->rows, one, 1, &zero);
    fg_v row = l.i, n = next_tile_at_run(g, t, ll_sub(g, p->rows, row));
    if (!(any & (any - 1)))
        n = ll_i(g, __builtin_ctz(any));
    fg_v arg[NARG], fn = choose(g, p, n, any, FG_TILE_PLAIN);
    arg[ARG_A] =
        p->a ? p->a(p->user, row, n) : at_bytes(g, p->at, ll_mul(g, row, p->lda));
    arg[ARG_LDA] = p->lda;
    arg[ARG_SKA] = p->ska;
    arg[ARG_K] = p->k;
    arg[ARG_C] = p->down ? ll_at(g, p->c, t->elem, ll_mul(g, row, p->down)) : p->c;
    arg[ARG_NEXT] = arg[ARG_A];
    arg[ARG_GAP] = p->next ? p->gap : zero;
    arg[ARG_LDNEXT] = ll_mul(g, arg[ARG_GAP], ll_i(g, lines_of(t)));
    arg[ARG_START] = p->start ? p->start : one;
    if (p->ahead) {
        arg[ARG_GAP] = ll_i(g, LINE);
        p->ahead(p->user, l.phi[0], &arg[ARG_NEXT], &arg[ARG_LDNEXT]);
    }
    if (p->src) { /* the first tile packs, the second fetches the next panel */
        fg_v packs = ll_and(g, ll_cmp(g, LL_EQ, row, zero), p->fuse);
        fg_v mine = ll_or(g, ll_cmp(g, LL_EQ, l.phi[0], one), packs);
        fg_v from = ll_atc(g, p->src, g->i8, t->NR * t->size);
        fn = ll_sel(g, packs, choose(g, p, n, tile_sizes(p, true), FG_TILE_PACK), fn);
        from = ll_sel(g, packs, p->src, from);
        arg[ARG_NEXT] = ll_sel(g, mine, from, arg[ARG_NEXT]);
        arg[ARG_LDNEXT] = ll_sel(g, mine, p->ldsrc, zero);
        arg[ARG_GAP] = ll_sel(g, mine, ll_i(g, LINE), zero);
    }
    if (p->soon)
        p->soon(p->user, row, n);
    if (t->ld > t->NR) {
        ll_for1(g, &j, zero, ll_i(g, t->ld / t->NR), one, 0, NULL);
        tile_call(g, p, fn, arg, row, l.phi[0], j.i);
        ll_next(g, &j, NULL);
    } else {
        tile_call(g, p, fn, arg, row, l.phi[0], zero);
    }
    if (p->done)
        p->done(p->user, row, n, arg[ARG_C]);
    l.step = n;
    ll_next(g, &l, (fg_v[]){ll_add(g, l.phi[0], one)});
}

/* ---- one packed panel, all rows ------------------------------------------------- */

/* The slice of p that starts at row k. */
static fg_panel
slice_at(fg_ll *g, const fg_panel *p, fg_v k)
{
    fg_panel q = *p;
    fg_v first = ll_cmp(g, LL_EQ, k, ll_i(g, 0));
    q.b = at_bytes(g, p->b, ll_mul(g, k, ll_i(g, p->t.ld * p->t.size)));
    q.start = ll_sel(g, first, ll_i(g, 1), ll_i(g, 0));
    q.cold = ll_and(g, first, p->cold);
    q.down = ll_i(g, p->t.ld);
    if (!p->a)
        q.at = at_bytes(g, p->at, ll_mul(g, k, p->ska));
    return q;
}

/* All slices but the last: the same code for every product. */
static void
slices_before(fg_ll *g, const fg_panel *p, const fg_slices *s)
{
    enum { AT, LDA, SKA, ROWS, TO, DEEP, GAP, B, C, COLD, N };
    fg_t param[N] = {g->ptr, g->i64, g->i64, g->i64, g->i64,
                     g->i64, g->i64, g->ptr, g->ptr, g->i1};
    fg_panel q = *p;
    ll_place back;
    ll_loop l;
    fg_v fn;
    char name[32];
    snprintf(name, sizeof name, "slices%d_%x", p->t.ld, tile_sizes(p, false));
    if (fg_helper_begin(g, name, &p->t, N, param, &back, &fn)) {
        q.at = ll_param(g, AT);
        q.lda = ll_param(g, LDA);
        q.ska = ll_param(g, SKA);
        q.rows = ll_param(g, ROWS);
        q.k = ll_param(g, DEEP);
        q.gap = ll_param(g, GAP);
        q.b = ll_param(g, B);
        q.c = ll_param(g, C);
        q.cold = ll_param(g, COLD);
        q.soon = NULL;
        q.done = NULL;
        ll_for(g, &l, ll_i(g, 0), ll_param(g, TO), q.k, 0, NULL);
        fg_panel r = slice_at(g, &q, l.i);
        r.next = at_bytes(g, r.b, ll_mul(g, q.k, ll_i(g, p->t.ld * p->t.size)));
        fg_panel_rows(g, &r);
        ll_next(g, &l, NULL);
        fg_helper_end(g, back);
    }
    ll_call(g, fn, N,
            (fg_v[]){p->at, p->lda, p->ska, p->rows, s->last, s->deep, s->gap, p->b, p->c,
                     p->cold});
}

/* Slice by slice: one stays in the cache while the tiles of all rows read it, and meanwhile
 * the next is fetched at an even pace, so that memory and multiplier are both busy all the
 * time. A tile that is alone fetches what it will read itself, and so does the first one of a
 * panel that nothing was computed before. */
void
fg_panel_cut(fg_ll *g, const fg_panel *p, const fg_slices *s)
{
    if (!p->a)
        slices_before(g, p, s);
    fg_panel q = slice_at(g, p, s->last);
    q.k = ll_sub(g, p->k, s->last);
    q.gap = s->gap;
    if (p->t.ld == p->t.NR)
        q.cold = ll_or(g, q.cold, ll_cmp(g, LL_LE, p->rows, ll_i(g, p->t.MR)));
    if (!p->down) /* nothing to be added to: each tile is used up at once */
        q.down = ll_sel(g, ll_cmp(g, LL_EQ, s->last, ll_i(g, 0)), ll_i(g, 0), q.down);
    fg_panel_rows(g, &q);
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
