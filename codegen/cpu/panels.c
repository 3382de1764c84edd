/* panels.c - weights cut into panels: what the register tiles of a product read.
 *
 *     %p = panels %w {width=64} : f32[48,768,64]      w: f32[768,3072]
 *
 * A chunk is one panel. Whole ones of f32 and f64 go through the packing routines of
 * gemm.c, one register tile's columns at a time; the last one, which may be narrower, and
 * everything else is moved element by element.
 */
#include "codegen/cpu/product.h"
#include "codegen/cpu/pull.h"
#include "codegen/cpu/strided.h"

typedef struct cut {
    fg_em *e;
    fg_inst *i;
    bool trans;
    int64_t width;
    fg_expr k, n;
    fg_tile tile;
    fg_strided x; /* [K,N] */
} cut;

static bool
by_tiles(cut *q)
{
    fg_em *e = q->e;
    fg_exprs *t = e->m->ex;
    fg_dtype d = fg_rt(e->m, q->i->in[0])->dtype;

    if (fg_product_acc(d) != d || !fg_strided_of(e, q->i->in[0], &q->x))
        return false;
    if (q->trans)
        fg_strided_swap(&q->x, 0, 1);
    q->tile = fg_tile_of(e->g, fg_em_type(e, d));
    q->tile.ld = (int)q->width;
    /* Columns are packed in squares, which must not reach into the next panel. */
    bool along = fg_e_is(t, q->x.stride[1], 1);
    bool down = fg_e_is(t, q->x.stride[0], 1) && fg_e_divides(t, q->tile.W, q->k);
    return q->width % q->tile.NR == 0 && (along || down);
}

static void
whole_panel(cut *q, fg_v panel)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    const fg_tile *tile = &q->tile;
    bool along = fg_e_is(t, q->x.stride[1], 1);
    fg_v k = fg_em_expr(e, q->k), stride = fg_em_expr(e, q->x.stride[along ? 0 : 1]);
    fg_v ld = ll_mul(g, stride, ll_i(g, tile->size)), nr = ll_i(g, tile->NR);
    fg_v from =
        ll_at(g, fg_em_buf(e, q->x.param), tile->elem, fg_em_expr(e, q->x.offset));
    fg_v to = ll_at(g, fg_em_buf(e, 1), tile->elem,
                    ll_mul(g, panel, ll_mul(g, k, ll_i(g, q->width))));

    for (int64_t j = 0; j < q->width; j += tile->NR) {
        fg_v col = ll_add(g, ll_mul(g, panel, ll_i(g, q->width)), ll_i(g, j));
        fg_v at = along ? col : ll_mul(g, col, stride);
        (along ? fg_pack_rows : fg_pack_columns)(g, tile, ll_at(g, from, tile->elem, at),
                                                 ld, k, nr,
                                                 ll_atc(g, to, tile->elem, (int)j));
    }
}

static void
any_panel(cut *q, fg_v panel)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_v n = fg_em_expr(e, q->n), first = ll_mul(g, panel, ll_i(g, q->width));
    ll_loop k, j;

    ll_for(g, &k, ll_i(g, 0), fg_em_expr(e, q->k), ll_i(g, 1), 0, NULL);
    ll_for(g, &j, ll_i(g, 0), ll_i(g, q->width), ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    fg_v col = ll_add(g, first, j.i);
    fg_v last = ll_sub(g, n, ll_i(g, 1));
    fg_index row = fg_ix(e, k.i), at = fg_ix(e, ll_min(g, col, last));
    fg_v v =
        fg_pull(e, q->i->in[0], (fg_index[]){q->trans ? at : row, q->trans ? row : at});
    v = ll_sel(g, ll_cmp(g, LL_LT, col, n), v, ll_zero(LLVMTypeOf(v)));
    fg_em_store(e, 0, (fg_index[]){fg_ix(e, panel), row, fg_ix(e, j.i)}, v);
    fg_unscope(e, s);
    ll_next(g, &j, NULL);
    ll_next(g, &k, NULL);
}

bool
fg_gen_panels(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    const fg_type *x = fg_rt(e->m, i->in[0]), *out = fg_rt(e->m, i->out[0]);
    cut q = {.e = e,
             .i = i,
             .trans = FG_GET(i, panels, trans).i,
             .width = FG_GET(i, panels, width).i};
    ll_loop l;
    ll_branch whole;

    if (fg_em_nresult(e) != 1 || fg_em_result(e, 0) != i->out[0])
        return fg_error(e->m->cx, "%s: panels are cut by a kernel of their own",
                        fg_inst_where(e->m, i));
    q.k = x->dim[q.trans];
    q.n = x->dim[!q.trans];
    e->lanes = 1;
    fg_em_items(e, &l, 1, out->dim, fg_ec(e->m->ex, 1));
    fg_scopemark s = fg_scope(e);
    if (by_tiles(&q)) {
        fg_v end = ll_mul(g, ll_add(g, l.i, ll_i(g, 1)), ll_i(g, q.width));
        ll_if(g, &whole, ll_cmp(g, LL_LE, end, fg_em_expr(e, q.n)));
        whole_panel(&q, l.i);
        ll_else(g, &whole, 0, NULL);
        any_panel(&q, l.i);
        ll_end(g, &whole, NULL, NULL);
    } else {
        any_panel(&q, l.i);
    }
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
    return true;
}
