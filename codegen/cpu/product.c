/* product.c - the frame of matrix products: chunks, tiles, epilogues.
 *
 *     %2 = matmul %x, %w          the anchor: tiles in scratch
 *     %3 = add %2, %bias          pulled per vector of a tile
 *     %4 = gelu %3
 *     yield %4                    stored
 *
 * A twin (the gate of a gated unit) is multiplied before, for all rows of the chunk; its
 * sums wait in scratch until the epilogue pulls both.
 *
 * Sums run over k in the same order whatever the chunks are, so results depend neither on
 * the number of threads nor on how rows are cut.
 */
#include "codegen/cpu/product.h"
#include "codegen/cpu/strided.h"

enum {
    STRIP = 64,       /* unit of the column strips of products with few rows */
    LEAST_STRIPS = 6, /* narrower ones spend their time in address translation */
    MOST_STRIPS = 16, /* that the knob may ask for */
    MOST_ROWS = 144,  /* of a packed panel's chunk: their sums stay in the cache */
    WIDEST = 4096,    /* columns of strips side by side, taken as one */
    LINE = 64
};

fg_dtype
fg_product_acc(fg_dtype d)
{
    switch (d) {
    case FG_f32:
    case FG_f16:
    case FG_bf16:
        return FG_f32;
    case FG_f64:
        return FG_f64;
    case FG_i64:
    case FG_u64:
        return FG_i64;
    case FG_i32:
    case FG_u32:
    case FG_i16:
    case FG_u16:
    case FG_i8:
    case FG_u8:
        return FG_i32;
    default:
        return FG_NODTYPE;
    }
}

static int
knob(const fg_product *p, fg_knobid k)
{
    return p->e->g->t->knob[k];
}

/* ---- epilogue ------------------------------------------------------------------- */

static fg_v
sums(fg_em *e, void *user, fg_reg r, const fg_index *ix)
{
    fg_product *p = user;
    fg_dtype d = fg_rt(e->m, r)->dtype;
    /* Every step from the anchor to the results keeps the element, so ix is where
     * p->now is. */
    fg_v v = ll_load(e->g, ll_vec(p->tile.elem, e->lanes), p->now);
    if (p->finish)
        v = p->finish(p, ix, v);
    return fg_is_float(d) ? fg_em_round(e, d, v) : fg_em_cast(e, v, p->acc, d);
}

static void
store_run(fg_em *e, void *user, fg_v j)
{
    fg_product *p = user;
    fg_ll *g = e->g;
    fg_v row = p->done.row, line = p->now;
    for (fg_product *q = p; q; q = q->twin) {
        fg_v down = q == p ? line : ll_add(g, ll_sub(g, row, q->done.row), line);
        fg_v at = ll_add(g, ll_mul(g, down, q->done.ld), j);
        q->now = ll_at(g, q->done.at, q->tile.elem, at);
    }
    fg_index ix[FG_MAXRANK], to[FG_MAXRANK];
    p->index(p, ll_add(g, row, line), fg_ix_run(e, ll_add(g, p->done.col, j), p->tile.W),
             ix);
    for (int k = 0; k < fg_em_nresult(e); k++) {
        memcpy(to, ix, sizeof to);
        fg_forward(e, p->out, fg_em_result(e, k), to);
        fg_em_put(e, k, to);
    }
    p->now = line;
}

bool
fg_product_takes_over(fg_product *p)
{
    fg_em *e = p->e;
    for (int k = 0; k < fg_em_nresult(e); k++)
        if (!fg_forward_known(e, p->out, fg_em_result(e, k)))
            return fg_error(e->m->cx, "%s: a result of its kernel rearranges the product",
                            fg_inst_where(e->m, fg_def(e->m, p->out)));
    for (fg_product *q = p; q; q = q->twin)
        fg_em_override(e, q->out, sums, q);
    return true;
}

void
fg_product_store(fg_product *p, fg_v n, fg_v cols, bool whole)
{
    fg_em *e = p->e;
    ll_loop l;
    ll_for1(e->g, &l, ll_i(e->g, 0), n, ll_i(e->g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    p->now = l.i;
    e->lanes = p->tile.W;
    fg_em_run(e, ll_i(e->g, 0), cols, whole, store_run, p);
    fg_unscope(e, s);
    ll_next(e->g, &l, NULL);
}

static void
begin(fg_product *p, fg_v batch)
{
    for (fg_product *q = p; q; q = q->twin)
        q->begin(q, batch);
}

/* ---- many rows ------------------------------------------------------------------ */

static fg_v
panel_a(void *user, fg_v row, fg_v n)
{
    fg_product *p = user;
    return p->a(p, ll_add(p->e->g, p->done.row, row), n);
}

/* Fetches the lines where row `row` of result k will be. */
static void
fetch_result(fg_product *p, int k, fg_v row)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    const fg_type *t = fg_rt(e->m, fg_em_result(e, k));
    int size = fg_dtypes[t->dtype].bits / 8;
    fg_index ix[FG_MAXRANK];

    p->index(p, row, fg_ix_run(e, p->done.col, p->tile.W), ix);
    fg_forward(e, p->out, fg_em_result(e, k), ix);
    fg_index at = fg_ix_linear(e, t->rank, t->dim, ix);
    if (at.vec || at.step != 1)
        return;
    fg_v first =
        ll_at(g, fg_em_result_buf(e, k), g->i8, ll_mul(g, at.base, ll_i(g, size)));
    for (int i = 0; i < p->tile.ld * size; i += LINE)
        ll_prefetch_write(g, ll_atc(g, first, g->i8, i));
}

/* Results are far from any cache. Would the stores be the first to ask for their lines, the
 * multiplier would wait for all of them: there are more than the machine holds back. */
static void
panel_soon(void *user, fg_v row, fg_v n)
{
    fg_product *p = user;
    fg_em *e = p->e;
    fg_ll *g = e->g;
    ll_loop l;

    ll_for1(g, &l, ll_i(g, 0), n, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    e->lanes = p->tile.W;
    for (int k = 0; k < fg_em_nresult(e); k++)
        fetch_result(p, k, ll_add(g, ll_add(g, p->done.row, row), l.i));
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
}

static void
panel_done(void *user, fg_v row, fg_v n, fg_v c)
{
    fg_product *p = user;
    fg_ll *g = p->e->g;
    fg_v first = p->done.row;
    p->done.row = ll_add(g, first, row);
    p->done.at = c;
    fg_product_store(p, n, p->done.n, fg_e_divides(p->e->m->ex, p->tile.W, p->n));
    p->done.row = first;
}

/* All rows of q times the columns [col, col + cols) of p's B. */
static void
multiply(fg_product *p, fg_panel q, fg_v col, fg_v cols, bool whole)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    if (p->multiply) {
        p->multiply(p, &q, col, cols);
        return;
    }
    if (!p->b) {
        p->pack(p, col, cols);
    } else {
        q.src = p->b(p, col);
        q.ldsrc = p->ldb;
        q.fuse = whole ? ll_ci(g->i1, 1) : ll_cmp(g, LL_EQ, cols, ll_i(g, p->tile.NR));
        if (!whole) {
            ll_branch ragged;
            ll_if(g, &ragged, ll_not(g, q.fuse));
            fg_scopemark s = fg_scope(e);
            p->pack(p, col, cols);
            fg_unscope(e, s);
            ll_end(g, &ragged, NULL, NULL);
        }
    }
    fg_panel_rows(g, &q);
}

static fg_expr
ceil_div(fg_exprs *t, fg_expr a, int64_t b)
{
    return fg_ediv(t, fg_eadd(t, a, fg_ec(t, b - 1)), fg_ec(t, b));
}

/* Every slice costs each tile a start; nothing is fetched ahead of the first one. The fewer
 * tiles, the more the latter weighs; one alone reads a panel front to back anyway. */
static fg_slices
slices_of(const fg_product *p, fg_expr rows)
{
    enum { SHALLOW = 256, PER_TILE = 64 };
    fg_em *e = p->e;
    fg_exprs *t = e->m->ex;
    const fg_tile *tile = &p->tile;
    int wide = tile->ld * tile->size, across = tile->ld / tile->NR;
    int lines = across * (tile->NR * tile->size / LINE);
    fg_expr one = fg_ec(t, 1), n = one;
    fg_expr tiles = fg_emax(t, ceil_div(t, rows, tile->MR), one);
    if (!p->pulls_a) {
        fg_expr most = fg_emul(t, tiles, fg_ec(t, PER_TILE));
        most = fg_emax(t, most, fg_ec(t, SHALLOW));
        most = fg_emin(t, most, fg_ec(t, knob(p, FG_KNOB_depth)));
        n = fg_ediv(t, fg_eadd(t, p->k, fg_esub(t, most, one)), most);
        n = fg_emax(t, n, one);
        if (across == 1)
            n = fg_eselect(t, fg_eeq(t, tiles, one), one, n);
    }
    fg_expr deep = fg_ediv(t, fg_eadd(t, p->k, fg_esub(t, n, one)), n);
    fg_expr per = fg_emul(t, tiles, fg_ec(t, lines < 1 ? 1 : lines));
    fg_expr gap = fg_ediv(t, fg_eadd(t, fg_ec(t, wide), fg_esub(t, per, one)), per);
    deep = fg_emax(t, deep, one);
    return (fg_slices){.deep = fg_em_expr(e, deep),
                       .last = fg_em_expr(e, fg_emul(t, fg_esub(t, n, one), deep)),
                       .gap = fg_em_expr(e, gap)};
}

/* All rows of q times panel `at` of p's B, which is packed already; `next` is wanted then. */
static void
multiply_cut(fg_product *p, fg_panel q, fg_v at, fg_v next)
{
    q.b = p->cut(p, at);
    q.next = p->cut(p, next);
    if (!p->pulls_a) {
        q.at = p->a(p, p->done.row, q.rows);
        q.a = NULL;
    }
    fg_panel_cut(p->e->g, &q, &p->slices);
}

/* One chunk: rows [lo, lo + rows), panel `at`, which panel `next` follows; cold: the first one
 * that this thread takes. */
static void
many_chunk(fg_product *p, fg_v lo, fg_v rows, fg_v at, fg_v next, fg_v cold,
           int64_t least)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    const fg_tile *t = &p->tile;
    fg_v col = ll_mul(g, at, ll_i(g, t->ld)), width = ll_i(g, t->ld);
    bool whole = fg_e_divides(e->m->ex, t->ld, p->n);
    fg_v cols = whole ? width : ll_min(g, ll_sub(g, p->vn, col), width);
    fg_panel q = {.t = *t,
                  .rows = rows,
                  .k = p->vk,
                  .min_rows = least,
                  .max_rows = fg_e_hi(e->m->ex, p->rows),
                  .lda = p->lda,
                  .ska = p->ska,
                  .b = p->panel,
                  .cold = p->cut ? cold : NULL,
                  .a = panel_a,
                  .user = p};
    p->done = (struct fg_done){lo, col, cols, p->c, width};
    if (p->twin) {
        fg_panel first = q;
        first.c = p->twin->c;
        first.down = width;
        p->twin->done = p->done;
        p->twin->done.at = first.c;
        if (p->cut)
            multiply_cut(p->twin, first, at, next);
        else
            multiply(p->twin, first, col, cols, whole);
    }
    q.c = p->c;
    q.soon = panel_soon;
    q.done = panel_done;
    if (p->cut)
        multiply_cut(p, q, at, next);
    else
        multiply(p, q, col, cols, whole);
}

/* How many blocks the rows are cut into, when columns alone give too few chunks; not finer
 * than the knob says, because every block packs its panels anew. Panels that are packed
 * already may be cut finer, but need it less, and no block may have more rows than its sums
 * have room in the cache. */
static fg_expr
row_blocks(fg_product *p, fg_expr panels)
{
    fg_exprs *t = p->e->m->ex;
    fg_expr have = fg_emax(t, fg_emul(t, panels, p->batch), fg_ec(t, 1));
    int half = p->cut ? 2 : 1, least = knob(p, FG_KNOB_block) / half;
    fg_expr want = fg_ediv(t, fg_ec(t, knob(p, FG_KNOB_chunks) / half), have);
    fg_expr may = fg_emin(t, want, fg_ediv(t, p->rows, fg_ec(t, least)));
    fg_expr must = p->cut ? ceil_div(t, p->rows, MOST_ROWS) : fg_ec(t, 1);
    return fg_emax(t, fg_emax(t, may, must), fg_ec(t, 1));
}

/* Scratch for the panel, the sums, and those of the twin; how panels are sliced. */
static void
many_room(fg_product *p, fg_expr blocks)
{
    fg_em *e = p->e;
    fg_exprs *t = e->m->ex;
    fg_expr width = fg_ec(t, p->tile.ld * p->tile.size);
    fg_expr over = fg_esub(t, blocks, fg_ec(t, 1));
    fg_expr most = fg_ediv(t, fg_eadd(t, p->rows, over), blocks);
    if (!p->cut && !p->multiply)
        p->panel =
            fg_em_scratch(e, fg_emul(t, fg_eadd(t, p->k, fg_ec(t, p->tile.W)), width));
    p->c = fg_em_scratch(e, fg_emul(t, p->cut ? most : fg_ec(t, p->tile.MR), width));
    if (p->cut)
        p->slices = slices_of(p, most);
    if (!p->twin)
        return;
    p->twin->slices = p->slices;
    p->twin->c = fg_em_scratch(e, fg_emul(t, most, width));
    p->twin->panel = p->panel;
}

/* Chunks that follow each other have the same rows of A, which stay in the cache, and panels
 * that follow each other. */
static void
many_rows(fg_product *p, fg_expr panels, fg_expr blocks)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    many_room(p, blocks);
    fg_v np = fg_em_expr(e, panels), nb = fg_em_expr(e, blocks);

    ll_loop l;
    ll_for(g, &l, e->begin, e->end, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    fg_v rest = ll_udiv(g, l.i, np), block = ll_urem(g, rest, nb), one = ll_i(g, 1);
    begin(p, ll_udiv(g, rest, nb));
    fg_v after = ll_add(g, l.i, one), cold = ll_cmp(g, LL_EQ, l.i, e->begin);
    fg_v on = ll_cmp(g, LL_LT, after, e->end), next = ll_urem(g, after, np);
    fg_v panel = ll_urem(g, l.i, np);
    next = ll_sel(g, on, next, panel);
    fg_v lo = ll_udiv(g, ll_mul(g, p->vrows, block), nb);
    fg_v hi = ll_udiv(g, ll_mul(g, p->vrows, ll_add(g, block, one)), nb);
    int64_t least = fg_e_lo(t, p->rows);
    int few = knob(p, FG_KNOB_few), half = knob(p, FG_KNOB_block) / 2;
    if (p->few && least <= few)
        least = few + 1; /* fewer go the other way */
    if (!fg_e_is(t, blocks, 1) && least > half)
        least = half;
    fg_v rows = fg_e_is(t, blocks, 1) ? p->vrows : ll_sub(g, hi, lo);
    many_chunk(p, fg_e_is(t, blocks, 1) ? ll_i(g, 0) : lo, rows, panel, next, cold,
               least);
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
}

/* ---- few rows ------------------------------------------------------------------- */

/* Columns per chunk: wide, for long sequential reads, but several chunks. */
static fg_expr
strip_width(fg_product *p)
{
    fg_exprs *t = p->e->m->ex;
    fg_expr w = fg_emax(t, ceil_div(t, p->n, 4 * STRIP), fg_ec(t, LEAST_STRIPS));
    return fg_emul(t, fg_emin(t, w, fg_ec(t, knob(p, FG_KNOB_strip))), fg_ec(t, STRIP));
}

/* Neighbouring strips given to one thread are taken as one: the longer its rows, the
 * more sequential is the reading. Columns do not meet in a sum, so that changes no
 * result. */
static void
few_rows(fg_product *p, fg_expr strip, fg_expr strips)
{
    enum { ROOM = FG_FEW_ROWS * MOST_STRIPS * STRIP };
    fg_em *e = p->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    for (fg_product *q = p; q; q = q->twin)
        q->c = fg_em_scratch(e, fg_ec(t, ROOM * p->tile.size));
    fg_v unit = fg_em_expr(e, strip), ns = fg_em_expr(e, strips);
    fg_v room = ll_udiv(g, ll_i(g, ROOM), ll_max(g, p->vrows, ll_i(g, 1)));
    fg_v most = ll_udiv(g, ll_min(g, room, ll_i(g, WIDEST)), unit);

    ll_loop l, z;
    ll_for(g, &l, e->begin, e->end, NULL, 0, NULL);
    fg_scopemark s = fg_scope(e);
    begin(p, ll_udiv(g, l.i, ns));
    fg_v first = ll_urem(g, l.i, ns);
    l.step = ll_min(g, ll_min(g, ll_sub(g, ns, first), ll_sub(g, e->end, l.i)), most);
    fg_v width = ll_mul(g, l.step, unit), col = ll_mul(g, first, unit);
    fg_v ldy = ll_mul(g, width, ll_i(g, p->tile.size));
    fg_v cols = ll_min(g, ll_sub(g, p->vn, col), width);
    for (fg_product *q = p; q; q = q->twin) {
        ll_for(g, &z, ll_i(g, 0), ll_mul(g, p->vrows, width), ll_i(g, p->tile.W), 0,
               NULL);
        ll_store(g, ll_zero(ll_vec(p->tile.elem, p->tile.W)),
                 ll_at(g, q->c, p->tile.elem, z.i));
        ll_next(g, &z, NULL);
        q->few(q, col, cols, q->c, ldy);
        q->done = (struct fg_done){ll_i(g, 0), col, cols, q->c, width};
    }
    fg_product_store(p, p->vrows, cols, fg_e_divides(t, p->tile.W, p->n));
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
}

/* ---- both ----------------------------------------------------------------------- */

bool
fg_product_emit(fg_product *p)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    if (!fg_product_takes_over(p))
        return false;
    for (fg_product *q = p; q; q = q->twin) {
        q->vrows = fg_em_expr(e, p->rows);
        q->vn = fg_em_expr(e, p->n);
        q->vk = fg_em_expr(e, p->k);
    }

    fg_expr panels = ceil_div(t, p->n, p->tile.ld), blocks = row_blocks(p, panels);
    fg_expr strip = strip_width(p), over = fg_esub(t, strip, fg_ec(t, 1));
    fg_expr strips = fg_ediv(t, fg_eadd(t, p->n, over), strip);
    fg_expr any = fg_emul(t, p->batch, fg_emin(t, p->rows, fg_ec(t, 1)));
    fg_expr many = fg_emul(t, any, fg_emul(t, blocks, panels));
    fg_expr few = fg_emul(t, any, strips);
    int most = knob(p, FG_KNOB_few);
    bool may_few = p->few && fg_e_lo(t, p->rows) <= most;
    bool may_many = !p->few || fg_e_hi(t, p->rows) > most;
    e->chunks = may_many ? many : few;
    if (may_few && may_many)
        e->chunks = fg_eselect(t, fg_elt(t, p->rows, fg_ec(t, most + 1)), few, many);
    e->flops = fg_emul(t, fg_emul(t, p->batch, p->rows), fg_emul(t, p->n, p->k));
    e->flops = fg_emul(t, e->flops, fg_ec(t, p->twin ? 4 : 2));
    if (!may_few) {
        many_rows(p, panels, blocks);
    } else if (!may_many) {
        few_rows(p, strip, strips);
    } else {
        ll_branch small;
        ll_if(g, &small, ll_cmp(g, LL_LE, p->vrows, ll_i(g, most)));
        few_rows(p, strip, strips);
        ll_else(g, &small, 0, NULL);
        many_rows(p, panels, blocks);
        ll_end(g, &small, NULL, NULL);
    }
    return true;
}
