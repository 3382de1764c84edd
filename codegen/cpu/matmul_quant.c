/* matmul_quant.c - which products have packed weights, and what their kernels are given.
 *
 *     %w = dequantize %q, %s, %z {axis=1, block=32} : f32[N,K]     the data: rows along k
 *     %c = slice %w {start=[0,0]} : f32[N,K']                      whole blocks were stored
 *     %t = transpose %c {perm=[1,0]} : f32[K',N]
 *     %r = dequantize %b, %u, 128 {axis=1, block=32}               or f32
 *     %y = matmul %r, %t
 *
 * Scales and zero points may be of any type and come from anywhere that can be pulled: for
 * some columns at a time they are written out as f32. Few rows read scales of blocks where
 * they lie, when they do, because writing them out costs half as much as the product.
 * bf16 that is cast to f32 is taken the same way, without scales.
 */
#include "codegen/cpu/quant.h"

enum {
    GROUP = 32, /* columns whose scales are written out at a time */
    LINE = 64   /* bytes that memory delivers at a time */
};

/* ---- recognising ---------------------------------------------------------------- */

/* The instruction behind views that turn two axes, cut off their ends, or begin at a later
 * column, *first; *turned: its axes are the other way round. */
static const fg_inst *
behind_views(fg_em *e, fg_reg r, bool *turned, fg_expr *first)
{
    const fg_inst *i;
    for (;; r = i->in[0]) {
        i = fg_em_param(e, r) >= 0 ? NULL : fg_def(e->m, r);
        if (!i || fg_rt(e->m, r)->rank != 2)
            return NULL;
        if (i->op == FG_OP_transpose)
            *turned ^= FG_GET(i, transpose, perm).is[0] == 1;
        else if (i->op == FG_OP_slice) {
            const fg_expr *start = FG_GET(i, slice, start).es;
            const int64_t *step = FG_GET(i, slice, step).is;
            if (step[0] != 1 || step[1] != 1 || !fg_e_is(e->m->ex, start[*turned], 0))
                return NULL;
            *first = fg_eadd(e->m->ex, *first, start[!*turned]);
        } else if (i->op != FG_OP_copy)
            return i;
    }
}

/* A run of weights (or of x) that a scale belongs to makes whole lanes, and they whole
 * vectors or the reverse. */
static bool
run_fits(fg_em *e, const fg_qform *f, int64_t run)
{
    int each = fg_q_each(f), W = e->g->W;
    int64_t lanes = run / each;
    return run % each == 0 && lanes <= 1 << 20 &&
           (lanes >= W ? lanes % W == 0 : lanes > 0 && W % lanes == 0);
}

static fg_expr
up(fg_exprs *t, fg_expr x, int64_t by)
{
    return fg_ediv(t, fg_eadd(t, x, fg_ec(t, by - 1)), fg_ec(t, by));
}

static bool
weights_fit(fg_em *e, const fg_inst *d, fg_quant *q)
{
    fg_exprs *t = e->m->ex;
    fg_dtype type = fg_rt(e->m, d->in[0])->dtype;
    bool cast = d->op == FG_OP_cast;
    q->form.bits = fg_dtypes[type].bits;
    q->form.sign = fg_dtypes[type].cls == FG_CLASS_SINT;
    if (cast ? type != FG_bf16
             : (q->form.bits != 4 && q->form.bits != 8) || type == FG_bool)
        return false;
    if (!fg_strided_of(e, d->in[0], &q->w))
        return false;
    if (q->n_axis == 1)
        fg_strided_swap(&q->w, 0, 1);
    int each = fg_q_each(&q->form);
    q->w.offset = fg_eadd(t, q->w.offset, fg_emul(t, q->first, q->w.stride[0]));
    return fg_e_is(t, q->w.stride[1], 1) && fg_e_divides(t, each, q->w.stride[0]) &&
           fg_e_divides(t, each, q->w.offset);
}

/* Scales per block of k or per column, and zero points alike. */
static bool
scales_fit(fg_em *e, const fg_inst *d, fg_quant *q)
{
    fg_exprs *t = e->m->ex;
    int64_t axis = FG_GET(d, dequantize, axis).i, v = 0;
    const fg_type *s = fg_rt(e->m, d->in[1]);
    bool one = fg_e_is(t, fg_type_count(t, s), 1);
    q->form.block = FG_GET(d, dequantize, block).i;
    q->scale = d->in[1];
    if (s->dtype == FG_f64 || fg_rt(e->m, d->out[0])->dtype != FG_f32)
        return false;
    if (q->form.block ? axis == q->n_axis || !run_fits(e, &q->form, q->form.block)
                      : !one && axis != q->n_axis)
        return false;
    if (d->nin > 2 && d->in[2] && !fg_const_i64(e->m, d->in[2], 0, &v)) {
        q->form.zeros = true;
        q->zero = d->in[2];
    } else if (d->nin > 2 && d->in[2] &&
               !fg_e_is(t, fg_type_count(t, fg_rt(e->m, d->in[2])), 1)) {
        return false;
    }
    q->one_zero = v + (q->form.sign ? 1 << (q->form.bits - 1) : 0);
    return true;
}

/* Whether few rows find the scales of a column side by side in memory. */
static bool
scales_lie(fg_em *e, const fg_inst *d, fg_quant *q)
{
    fg_exprs *t = e->m->ex;
    fg_dtype type = fg_rt(e->m, d->in[1])->dtype;
    if (!q->form.block || !fg_strided_of(e, d->in[1], &q->lines) ||
        (type != FG_f32 && (type != FG_f16 || !e->g->t->f16c)))
        return false;
    q->form.scale = type;
    if (q->n_axis == 1)
        fg_strided_swap(&q->lines, 0, 1);
    return fg_e_is(t, q->lines.stride[1], 1);
}

/* x as bytes that are 128 too large, with scales: what quantize_rows makes. */
static bool
bytes_fit(fg_em *e, const fg_inst *matmul, fg_expr rows, fg_quant *q)
{
    fg_exprs *t = e->m->ex;
    const fg_inst *d =
        fg_em_param(e, matmul->in[0]) >= 0 ? NULL : fg_def(e->m, matmul->in[0]);
    int64_t zero, run;
    if (!fg_is_op(d, FG_OP_dequantize) || d->nin < 3 ||
        fg_rt(e->m, d->in[0])->dtype != FG_u8 || fg_rt(e->m, d->in[1])->dtype != FG_f32 ||
        !fg_const_i64(e->m, d->in[2], 0, &zero) || zero != 128)
        return false;
    run = FG_GET(d, dequantize, block).i;
    fg_expr runs = run > 0 ? up(t, q->k, run) : FG_E_BAD;
    q->form.round = run;
    return run > 0 && FG_GET(d, dequantize, axis).i == fg_rt(e->m, d->in[0])->rank - 1 &&
           run_fits(e, &q->form, run) && run % e->g->W == 0 &&
           fg_strided_of(e, d->in[0], &q->left) &&
           fg_strided_reshape(t, &q->left, 2, (fg_expr[]){rows, q->k}) &&
           fg_e_is(t, q->left.stride[1], 1) && fg_strided_of(e, d->in[1], &q->steps_of) &&
           fg_strided_reshape(t, &q->steps_of, 2, (fg_expr[]){rows, runs}) &&
           fg_e_is(t, q->steps_of.stride[1], 1);
}

/* x in bf16, an even number of them. */
static bool
pairs_fit(fg_em *e, const fg_inst *matmul, fg_expr rows, fg_quant *q)
{
    fg_exprs *t = e->m->ex;
    const fg_inst *d =
        fg_em_param(e, matmul->in[0]) >= 0 ? NULL : fg_def(e->m, matmul->in[0]);
    return fg_is_op(d, FG_OP_cast) && fg_rt(e->m, d->in[0])->dtype == FG_bf16 &&
           fg_e_divides(t, 2, q->k) && fg_strided_of(e, d->in[0], &q->left) &&
           fg_strided_reshape(t, &q->left, 2, (fg_expr[]){rows, q->k}) &&
           fg_e_is(t, q->left.stride[1], 1);
}

/* Weights without their zero points are signed bytes, and scales go by the same runs. */
static bool
bytes_tile(const fg_quant *q)
{
    const fg_qform *f = &q->form;
    return f->round && (f->block == f->round || !f->block) &&
           (f->bits == 4 || (f->bits == 8 && !f->zeros && q->one_zero == 128));
}

void
fg_quant_take_tiles(fg_quant *q)
{
    fg_em *e = q->e;
    fg_exprs *t = e->m->ex;
    const fg_qform *f = &q->form;
    if (f->bits == 16) {
        q->tile = fg_tile_of(e->g, e->g->f32);
        fg_expr pairs = fg_eadd(t, q->lanes, fg_ec(t, q->tile.W));
        q->panel = fg_em_scratch(e, fg_emul(t, pairs, fg_ec(t, q->tile.NR * 4)));
        return;
    }
    q->tile = fg_q_tile(e->g);
    fg_expr quads = fg_q_panel_quads(e->g, t, f, q->k);
    fg_expr runs =
        fg_eadd(t, fg_ediv(t, fg_emul(t, quads, fg_ec(t, 4)), fg_ec(t, f->round)),
                fg_ec(t, q->tile.W));
    fg_expr line = fg_ec(t, q->tile.NR * 4);
    q->panel = fg_em_scratch(e, fg_emul(t, quads, line));
    q->start = fg_em_scratch(e, fg_emul(t, runs, line));
    q->scale_rows = fg_em_scratch(e, fg_emul(t, runs, line));
    q->zero_rows = f->zeros ? fg_em_scratch(e, fg_emul(t, runs, line)) : q->scale_rows;
    if (!fg_e_divides(t, f->round, q->k))
        q->a = fg_em_scratch(
            e, fg_emul(t, up(t, q->k, f->round), fg_ec(t, f->round * q->tile.MR)));
}

static void
take_scratch(fg_quant *q)
{
    fg_em *e = q->e;
    fg_exprs *t = e->m->ex;
    const fg_qform *f = &q->form;
    int W = e->g->W, each = fg_q_each(f);
    q->lanes = up(t, q->k, each);
    q->units = up(t, q->lanes, W);
    q->blocks = f->block ? fg_emul(t, up(t, up(t, q->k, f->block), 16), fg_ec(t, 16))
                         : fg_ec(t, 1);
    int row = fg_q_unit_bytes(e->g, f) * FG_FEW_ROWS;
    q->x = fg_em_scratch(e, fg_emul(t, q->units, fg_ec(t, row)));
    if (f->round) {
        fg_expr whole = fg_emul(t, q->units, fg_ec(t, W * each));
        q->bytes = fg_em_scratch(e, fg_eadd(t, whole, fg_ec(t, 64)));
        q->steps = fg_em_scratch(
            e, fg_emul(t, fg_eadd(t, fg_ediv(t, whole, fg_ec(t, f->round)), fg_ec(t, 17)),
                       fg_ec(t, 4)));
    }
    int wide = fg_q_tile(e->g).NR;
    fg_expr lines =
        fg_emul(t, q->blocks, fg_ec(t, ((wide > GROUP ? wide : GROUP) + W) * 4));
    q->scales = fg_em_scratch(e, lines);
    if (f->zeros)
        q->zeros = fg_em_scratch(e, lines);
}

fg_quant *
fg_quant_of(fg_em *e, const fg_inst *matmul, fg_expr rows)
{
    fg_quant *q = FG_NEW(e->a, fg_quant);
    bool turned = FG_GET(matmul, matmul, trans_b).i != 0;
    q->first = fg_ec(e->m->ex, 0);
    const fg_type *x = fg_rt(e->m, matmul->in[0]);
    if (x->dtype != FG_f32 || FG_GET(matmul, matmul, trans_a).i)
        return NULL;
    const fg_inst *d = behind_views(e, matmul->in[1], &turned, &q->first);
    bool cast = fg_is_op(d, FG_OP_cast);
    if (!fg_is_op(d, FG_OP_dequantize) && !cast)
        return NULL;
    q->e = e;
    q->k = x->dim[x->rank - 1];
    q->n_axis = turned ? 0 : 1;
    if (FG_GET(matmul, matmul, round).i || !weights_fit(e, d, q) ||
        (!cast && !scales_fit(e, d, q)))
        return NULL;
    q->lie = !cast && scales_lie(e, d, q);
    if (!q->lie)
        q->form.scale = FG_f32;
    if (!bytes_fit(e, matmul, rows, q))
        q->form.round = 0;
    take_scratch(q);
    q->tiles = cast ? pairs_fit(e, matmul, rows, q) : bytes_tile(q);
    return q;
}

/* ---- scales --------------------------------------------------------------------- */

/* Element `at` of the line of scales of column q->n; with one scale for each column, of
 * the columns. */
static fg_v
pull_at(fg_quant *q, fg_reg r, fg_v i)
{
    fg_em *e = q->e;
    const fg_type *ty = fg_rt(e->m, r);
    fg_index run = fg_ix_run(e, i, e->lanes), ix[FG_MAXRANK];
    for (int k = 0; k < ty->rank; k++)
        ix[k] = fg_e_is(e->m->ex, ty->dim[k], 1) ? fg_ixc(e, 0) : run;
    if (ty->rank == 2 && !fg_e_is(e->m->ex, ty->dim[q->n_axis], 1))
        ix[q->n_axis] = fg_ix(e, q->n);
    return fg_lanes(e, fg_em_cast(e, fg_pull(e, r, ix), ty->dtype, FG_f32));
}

static void
scales_run(fg_em *e, void *user, fg_v i)
{
    fg_quant *q = user;
    fg_ll *g = e->g;
    fg_v at = q->form.block ? i : ll_add(g, q->n, i);
    fg_v v = pull_at(q, q->what == FG_Q_ZERO ? q->zero : q->scale, at);
    if (q->what == FG_Q_SCALED_ZERO)
        v = ll_mul(g, v, pull_at(q, q->zero, at));
    ll_store(g, v, ll_at(g, q->to, g->f32, i));
}

/* Scales, zero points or both multiplied, of columns [col, col + n) to dst. */
static void
write_scales(fg_quant *q, int what, fg_v col, fg_v n, fg_v dst)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    ll_loop l;
    col = ll_add(g, col, fg_em_expr(e, q->first));
    q->what = what;
    e->lanes = g->W;
    fg_scopemark s = fg_scope(e);
    q->n = col;
    q->to = dst;
    if (!q->form.block) {
        fg_em_run(e, ll_i(g, 0), n, false, scales_run, q);
        fg_unscope(e, s);
        return;
    }
    fg_expr blocks = up(t, q->k, q->form.block);
    ll_for(g, &l, ll_i(g, 0), n, ll_i(g, 1), 0, NULL);
    q->n = ll_add(g, col, l.i);
    q->to = ll_at(g, dst, g->f32, ll_mul(g, l.i, fg_em_expr(e, q->blocks)));
    fg_em_run(e, ll_i(g, 0), fg_em_expr(e, blocks), fg_e_divides(t, g->W, blocks),
              scales_run, q);
    ll_next(g, &l, NULL);
    fg_unscope(e, s);
}

/* ---- memory ---------------------------------------------------------------------- */

/* Where a row of x, or of its scales, is. */
static fg_v
view_at(fg_quant *q, const fg_strided *v, fg_v row)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_v at = ll_mul(g, row, fg_em_expr(e, v->stride[0]));
    at = ll_add(g, at, fg_em_expr(e, v->offset));
    return ll_at(g, fg_em_buf(e, v->param), g->i8,
                 ll_mul(g, at, ll_i(g, fg_dtypes[v->dtype].bits / 8)));
}

/* Where a column of weights is, and the bytes from one to the next. */
static fg_v
weights_at(fg_quant *q, fg_v col, fg_v *ld)
{
    fg_em *e = q->e;
    fg_exprs *t = e->m->ex;
    fg_expr bits = fg_ec(t, q->form.bits), byte = fg_ec(t, 8);
    *ld = fg_em_expr(e, fg_ediv(t, fg_emul(t, q->w.stride[0], bits), byte));
    fg_v first = fg_em_expr(e, fg_ediv(t, fg_emul(t, q->w.offset, bits), byte));
    return ll_at(e->g, fg_em_buf(e, q->w.param), e->g->i8,
                 ll_add(e->g, first, ll_mul(e->g, col, *ld)));
}

/* ---- few rows ------------------------------------------------------------------- */

void
fg_quant_few(fg_quant *q, const fg_few *f, fg_v col, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    fg_v zero = ll_i(g, q->one_zero);
    fg_v ldx =
        fg_em_expr(e, fg_emul(t, q->units, fg_ec(t, fg_q_unit_bytes(g, &q->form))));
    fg_q_prepare x = {f->x, f->ldx, f->m, f->k, q->x, ldx, q->x, q->x, zero, q->x, ldx};
    if (q->form.round) {
        x.x = view_at(q, &q->left, ll_i(g, 0));
        x.ldx = fg_em_expr(e, q->left.stride[0]);
        x.bytes = q->bytes;
        x.steps = q->steps;
        x.s = view_at(q, &q->steps_of, ll_i(g, 0));
        x.lds = fg_em_expr(e, fg_emul(t, q->steps_of.stride[0], fg_ec(t, 4)));
    }
    fg_q_prepare_rows(g, &q->form, &x);
    bool scales = q->form.bits < 16 && !q->lie;
    fg_v line = fg_em_expr(e, fg_emul(t, q->blocks, fg_ec(t, 4)));
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), n, scales || q->form.zeros ? ll_i(g, GROUP) : n, 0, NULL);
    fg_v at = ll_add(g, col, l.i), cols = ll_min(g, ll_sub(g, n, l.i), l.step);
    if (scales)
        write_scales(q, FG_Q_SCALE, at, cols, q->scales);
    if (q->form.zeros) /* taken off before, or after, the scale of a column */
        write_scales(q, q->form.block ? FG_Q_SCALED_ZERO : FG_Q_ZERO, at, cols, q->zeros);
    fg_v ldw, w = weights_at(q, at, &ldw);
    fg_q_few columns = {
        .x = q->x,
        .ldx = ldx,
        .m = f->m,
        .w = w,
        .ldw = ldw,
        .lanes = fg_em_expr(e, q->lanes),
        .scale = q->lie ? view_at(q, &q->lines, ll_add(g, at, fg_em_expr(e, q->first)))
                        : q->scales,
        .lds = q->lie
                   ? fg_em_expr(e, fg_emul(t, q->lines.stride[0],
                                           fg_ec(t, fg_dtypes[q->form.scale].bits / 8)))
                   : line,
        .scaled_zero = q->form.zeros ? q->zeros : q->scales,
        .ldz = line,
        .y = ll_at(g, f->y, g->f32, l.i),
        .ldy = f->ldy,
        .n = cols,
        .zero = zero,
    };
    fg_q_few_columns(g, &q->form, &columns);
    ll_next(g, &l, NULL);
}

/* ---- many rows ------------------------------------------------------------------ */

/* Lines of scales to rows: dst[run][NR]. */
static void
scale_panel(fg_quant *q, int what, fg_v col, fg_v n, fg_v dst)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    if (!q->form.block) {
        write_scales(q, what, col, n, dst);
        return;
    }
    write_scales(q, what, col, n, q->scales);
    fg_pack_columns(g, &q->tile, q->scales,
                    fg_em_expr(e, fg_emul(t, q->blocks, fg_ec(t, 4))),
                    fg_em_expr(e, up(t, q->k, q->form.block)), n, dst);
}

fg_v
fg_quant_rows(fg_quant *q, fg_v row, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    fg_v from = view_at(q, &q->left, row), ld = fg_em_expr(e, q->left.stride[0]);
    if (!q->a)
        return from;
    fg_expr whole = fg_emul(t, up(t, q->k, q->form.round), fg_ec(t, q->form.round));
    fg_v k = fg_em_expr(e, q->k), to = fg_em_expr(e, whole);
    fg_t bytes = ll_vec(g->i8, 4 * g->W);
    fg_v zero = ll_ci(bytes, 128);
    ll_loop r, l;
    ll_for(g, &r, ll_i(g, 0), n, ll_i(g, 1), 0, NULL);
    fg_v src = ll_at(g, from, g->i8, ll_mul(g, r.i, ld));
    fg_v dst = ll_at(g, q->a, g->i8, ll_mul(g, r.i, to));
    ll_for(g, &l, ll_i(g, 0), to, ll_i(g, 4 * g->W), 0, NULL);
    fg_v there = ll_first(g, ll_sub(g, k, l.i), 4 * g->W);
    fg_v v = ll_sel(g, there, ll_mload(g, bytes, ll_at(g, src, g->i8, l.i), there), zero);
    ll_mstore(g, v, ll_at(g, dst, g->i8, l.i), ll_first(g, ll_sub(g, to, l.i), 4 * g->W));
    ll_next(g, &l, NULL);
    ll_next(g, &r, NULL);
    return q->a;
}

static fg_v
pairs_kernel(fg_ll *g, void *maker, const fg_tile *t, int n)
{
    (void)maker;
    return fg_tile_kernel(g, t, n, FG_TILE_PAIRS);
}

static void
multiply_pairs(fg_quant *q, fg_panel *p, fg_v w, fg_v ldw, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    p->kernel = pairs_kernel;
    p->lda = fg_em_expr(e, fg_emul(e->m->ex, q->left.stride[0], fg_ec(e->m->ex, 2)));
    p->ska = ll_i(g, 4);
    p->k = fg_em_expr(e, q->lanes);
    p->b = q->panel;
    fg_pack_columns(g, &q->tile, w, ldw, p->k, n, q->panel);
}

static void
multiply_bytes(fg_quant *q, fg_panel *p, fg_v first, fg_v col, fg_v w, fg_v ldw, fg_v n)
{
    fg_em *e = q->e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    fg_expr run = fg_ec(t, q->form.round);
    fg_expr whole = fg_emul(t, up(t, q->k, q->form.round), run);
    fg_v runs = fg_em_expr(e, up(t, q->k, q->form.round));
    scale_panel(q, FG_Q_SCALE, col, n, q->scale_rows);
    if (q->form.zeros)
        scale_panel(q, FG_Q_ZERO, col, n, q->zero_rows);
    fg_q_pack_panel(g, &q->tile, &q->form,
                    &(fg_q_pack){w, ldw, fg_em_expr(e, q->lanes), n, runs, q->panel,
                                 q->start, q->zero_rows, ll_i(g, q->one_zero)});
    p->kernel = fg_q_tile_kernel;
    p->maker = q;
    p->lda = fg_em_expr(e, q->a ? whole : q->left.stride[0]);
    p->ska = ll_i(g, fg_q_quads(&q->form));
    p->k = runs;
    p->b = q->panel;
    p->beside = view_at(q, &q->steps_of, first);
    p->ldbeside = fg_em_expr(e, fg_emul(t, q->steps_of.stride[0], fg_ec(t, 4)));
    p->more[0] = q->start;
    p->more[1] = q->scale_rows;
    p->more[2] = ll_i(g, q->form.block ? q->tile.NR * 4 : 0);
    p->nmore = 3;
}

/* Bytes of the next panel that each turn of a tile fetches: all tiles together fetch it once.
 * Farther ahead it would drive out of the cache what is multiplied now. */
static fg_v
pace(fg_quant *q, const fg_panel *p, fg_v ldw)
{
    fg_ll *g = q->e->g;
    int most = q->form.bits == 16 ? LINE : 2 * LINE, MR = q->tile.MR;
    fg_v tiles = ll_udiv(g, ll_add(g, p->rows, ll_i(g, MR - 1)), ll_i(g, MR));
    fg_v turns = ll_max(g, ll_mul(g, tiles, p->k), ll_i(g, 1));
    fg_v bytes =
        ll_add(g, ll_mul(g, ldw, ll_i(g, q->tile.NR)), ll_sub(g, turns, ll_i(g, 1)));
    return ll_min(g, ll_udiv(g, bytes, turns), ll_i(g, most));
}

void
fg_quant_multiply(fg_quant *q, fg_panel *p, fg_v first, fg_v col, fg_v n)
{
    fg_ll *g = q->e->g;
    fg_v ldw, w = weights_at(q, col, &ldw);
    if (q->form.bits == 16)
        multiply_pairs(q, p, w, ldw, n);
    else
        multiply_bytes(q, p, first, col, w, ldw, n);
    p->after = ll_at(g, w, g->i8, ll_mul(g, ldw, ll_i(g, q->tile.NR)));
    p->ldafter = pace(q, p, ldw);
    fg_panel_rows(g, p);
}
