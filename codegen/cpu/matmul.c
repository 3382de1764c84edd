/* matmul.c - matmul and matmul_int: where the operands of a product are.
 *
 *     %2 = matmul %x, %w {trans_b} : f32[B,S,3072]     rows B*S, batch 1
 *     %5 = matmul %q, %k           : f32[B,12,S,T]     rows S, batch B*12
 *
 * An operand that is a strided view of f32 memory is read in place: %x by broadcasts,
 * %w while it is packed. Anything else (half floats, quantised weights, arithmetic
 * fused in front) is pulled into scratch in blocks, along the axis that is contiguous
 * in memory, and goes on from there, so each kind of operand needs no kernel of its
 * own.
 */
#include "codegen/cpu/product.h"
#include "codegen/cpu/matmul_int.h"
#include "codegen/cpu/quant.h"

enum {
    BLOCK_K = 64,
    BLOCK = 4096,
    LONG_RUN = 32,
    AHEAD = 8
}; /* of pulled operands: elements */

typedef struct side {
    fg_reg reg;
    fg_reg zero;        /* matmul_int: zero point; 0: none */
    int rank, row, col; /* axes; row and column of the product's A or B */
    bool direct;        /* `view` says where it is, with axes [batch.., row, col] */
    fg_strided view;
    bool across; /* B only: columns are contiguous rather than rows */
    fg_v base;   /* direct: this batch's first element */
} side;

typedef struct matmul {
    fg_product p;
    const fg_inst *anchor;
    side a, b;
    int lead;               /* leading axes of the result */
    bool flat;              /* leading axes count as rows */
    fg_v coord[FG_MAXRANK]; /* this batch */
    fg_v apack, block;      /* scratch: rows of A, a block of B */
    fg_v row, col;          /* first of the run being pulled */
    fg_v to;
    bool along_k;
    int lanes;   /* of a run of B */
    bool traced; /* `source` says where the elements of B come from */
    fg_strided source;
    fg_int *bytes;   /* both are bytes, met as such by many rows; NULL: anything else */
    fg_quant *quant; /* B is packed weights; NULL: anything else */
    int64_t round;   /* elements of A under one scale; 0: A is not rounded */
} matmul;

/* ---- values of the operands ----------------------------------------------------- */

/* Index of the leading axes in an operand of `rank` axes: aligned from the right, size
 * 1 repeats. */
static void
lead_index(matmul *q, const fg_type *ty, const fg_index *lead, fg_index *ix)
{
    fg_em *e = q->p.e;
    for (int k = 0; k + 2 < ty->rank; k++) {
        int from = q->lead - (ty->rank - 2) + k;
        ix[k] = fg_e_is(e->m->ex, ty->dim[k], 1) ? fg_ixc(e, 0) : lead[from];
    }
}

/* The zero point of (row, col); the axis summed over is not its own. */
static fg_v
pull_zero(matmul *q, const side *s, const fg_index *lead, fg_index at)
{
    fg_em *e = q->p.e;
    const fg_type *ty = fg_rt(e->m, s->zero);
    fg_index ix[FG_MAXRANK];
    if (ty->rank == 1)
        ix[0] = fg_e_is(e->m->ex, ty->dim[0], 1) ? fg_ixc(e, 0) : at;
    if (ty->rank >= 2) {
        lead_index(q, ty, lead, ix);
        for (int k = ty->rank - 2; k < ty->rank; k++)
            ix[k] = fg_e_is(e->m->ex, ty->dim[k], 1) ? fg_ixc(e, 0) : at;
    }
    return fg_em_cast(e, fg_pull(e, s->zero, ix), ty->dtype, q->p.acc);
}

/* Element (row, col) of A or B as an accumulator. */
static fg_v
pull_side(matmul *q, const side *s, fg_index row, fg_index col)
{
    fg_em *e = q->p.e;
    const fg_type *ty = fg_rt(e->m, s->reg);
    fg_index lead[FG_MAXRANK], ix[FG_MAXRANK];
    for (int k = 0; k < q->lead; k++)
        lead[k] = q->coord[k] ? fg_ix(e, q->coord[k]) : fg_ixc(e, 0);
    if (q->flat && s == &q->a) {
        const fg_type *out = fg_rt(e->m, q->p.out);
        fg_ix_unlinear(e, q->lead + 1, out->dim, row, lead);
        row = lead[q->lead];
    }
    lead_index(q, ty, lead, ix);
    ix[s->row] = row;
    ix[s->col] = col;
    fg_v v = fg_em_cast(e, fg_pull(e, s->reg, ix), ty->dtype, q->p.acc);
    if (s->zero)
        v = ll_sub(e->g, fg_lanes(e, v),
                   fg_lanes(e, pull_zero(q, s, lead, s == &q->a ? row : col)));
    return fg_lanes(e, v);
}

/* Runs of A along k, and of B along either axis, to memory that has room for whole
 * vectors. */
static void
run_of_a(fg_em *e, void *user, fg_v i)
{
    matmul *q = user;
    int W = q->p.tile.W;
    fg_v v = pull_side(q, &q->a, fg_ix(e, q->row), fg_ix_run(e, i, W));
    ll_store(e->g, v, ll_at(e->g, q->to, q->p.tile.elem, i));
}

/* Fetches what the line AHEAD lines further on will be made of: runs are too short,
 * and too far apart, for the machine to guess. */
static void
fetch_ahead(matmul *q, fg_v i)
{
    fg_em *e = q->p.e;
    fg_ll *g = e->g;
    const fg_strided *v = &q->source;
    fg_expr bits = fg_ec(e->m->ex, fg_dtypes[v->dtype].bits);
    fg_v row = fg_em_expr(e, fg_emul(e->m->ex, v->stride[q->b.row], bits));
    fg_v col = fg_em_expr(e, fg_emul(e->m->ex, v->stride[q->b.col], bits));
    fg_v r = ll_add(g, q->row, q->along_k ? i : ll_i(g, AHEAD));
    fg_v c = ll_add(g, q->col, q->along_k ? ll_i(g, AHEAD) : i);
    fg_v at = ll_add(g, ll_mul(g, r, row), ll_mul(g, c, col));
    at = ll_add(g, at, fg_em_expr(e, fg_emul(e->m->ex, v->offset, bits)));
    ll_prefetch(g, ll_at(g, fg_em_buf(e, v->param), g->i8, ll_shr(g, at, ll_i(g, 3))));
}

static void
run_of_b(fg_em *e, void *user, fg_v i)
{
    matmul *q = user;
    int n = q->lanes;
    if (q->traced)
        fetch_ahead(q, i);
    fg_v v = q->along_k ? pull_side(q, &q->b, fg_ix_run(e, ll_add(e->g, q->row, i), n),
                                    fg_ix(e, q->col))
                        : pull_side(q, &q->b, fg_ix(e, q->row),
                                    fg_ix_run(e, ll_add(e->g, q->col, i), n));
    ll_store(e->g, v, ll_at(e->g, q->to, q->p.tile.elem, i));
}

/* `lines` runs of `n` elements, parts of an axis of length `of`, to dst, ld elements
 * apart; the first starts at (row, col). */
static void
pull_lines(matmul *q, fg_runfn *run, fg_v row, fg_v col, bool down, fg_v lines, fg_v n,
           fg_expr of, fg_v dst, fg_v ld)
{
    fg_em *e = q->p.e;
    fg_ll *g = e->g;
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), lines, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    q->row = down ? ll_add(g, row, l.i) : row;
    q->col = down ? col : ll_add(g, col, l.i);
    q->to = ll_at(g, dst, q->p.tile.elem, ll_mul(g, l.i, ld));
    e->lanes = run == run_of_b ? q->lanes : q->p.tile.W;
    fg_em_run(e, ll_i(g, 0), n, fg_e_divides(e->m->ex, e->lanes, of), run, q);
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
}

/* ---- operands in place ---------------------------------------------------------- */

static fg_v
bytes_of(fg_em *e, const fg_product *p, fg_expr elements)
{
    return fg_em_expr(e, fg_emul(e->m->ex, elements, fg_ec(e->m->ex, p->tile.size)));
}

static fg_expr
axis_stride(fg_exprs *t, const side *s, int axis)
{
    int at = s->view.rank - 2 + axis;
    return fg_e_is(t, s->view.dim[at], 1) ? fg_ec(t, 0) : s->view.stride[at];
}

static void
side_begin(matmul *q, side *s)
{
    fg_em *e = q->p.e;
    fg_ll *g = e->g;
    if (!s->direct)
        return;
    fg_v at = fg_em_expr(e, s->view.offset);
    for (int k = 0; k + 2 < s->view.rank; k++) {
        int from = q->lead - (s->view.rank - 2) + k;
        if (q->coord[from] && !fg_e_is(e->m->ex, s->view.dim[k], 1))
            at = ll_add(g, at,
                        ll_mul(g, q->coord[from], fg_em_expr(e, s->view.stride[k])));
    }
    s->base = ll_at(g, fg_em_buf(e, s->view.param), q->p.tile.elem, at);
}

static fg_v
side_at(matmul *q, const side *s, fg_v row, fg_v col)
{
    fg_em *e = q->p.e;
    fg_ll *g = e->g;
    fg_v r = ll_mul(g, row, fg_em_expr(e, axis_stride(e->m->ex, s, 0)));
    fg_v c = ll_mul(g, col, fg_em_expr(e, axis_stride(e->m->ex, s, 1)));
    return ll_at(g, s->base, q->p.tile.elem, ll_add(g, r, c));
}

/* ---- what the frame asks -------------------------------------------------------- */

static void
begin(fg_product *p, fg_v b)
{
    matmul *q = p->user;
    fg_em *e = p->e;
    fg_ll *g = e->g;
    const fg_type *out = fg_rt(e->m, p->out);
    for (int k = q->lead; k-- > 0;) {
        q->coord[k] = NULL;
        if (q->flat || fg_e_is(e->m->ex, out->dim[k], 1))
            continue;
        fg_v n = fg_em_expr(e, out->dim[k]);
        q->coord[k] = k ? ll_urem(g, b, n) : b;
        b = ll_udiv(g, b, n);
    }
    side_begin(q, &q->a);
    side_begin(q, &q->b);
}

static fg_v
rows_as_sums(fg_product *p, fg_v row, fg_v n)
{
    matmul *q = p->user;
    fg_ll *g = p->e->g;
    if (q->a.direct)
        return side_at(q, &q->a, row, ll_i(g, 0));
    fg_v ld = ll_udiv(g, p->lda, ll_i(g, p->tile.size));
    pull_lines(q, run_of_a, row, ll_i(g, 0), true, n, p->vk, p->k, q->apack, ld);
    if (q->round)
        fg_q_round_rows(g, q->round, q->apack, p->lda, n, p->vk);
    return q->apack;
}

static fg_v
rows_of_a(fg_product *p, fg_v row, fg_v n)
{
    matmul *q = p->user;
    return q->bytes                      ? fg_int_rows(q->bytes, row, n)
           : q->quant && q->quant->tiles ? fg_quant_rows(q->quant, row, n)
                                         : rows_as_sums(p, row, n);
}

static void
pull_panel_along_k(matmul *q, fg_v col, fg_v n)
{
    fg_product *p = &q->p;
    fg_ll *g = p->e->g;
    const fg_tile *t = &p->tile;
    ll_loop k;
    ll_for(g, &k, ll_i(g, 0), p->vk, ll_i(g, BLOCK_K), 0, NULL);
    fg_v deep = ll_min(g, ll_sub(g, p->vk, k.i), ll_i(g, BLOCK_K));
    pull_lines(q, run_of_b, k.i, col, false, n, deep, p->k, q->block, ll_i(g, BLOCK_K));
    fg_v to = ll_at(g, p->panel, t->elem, ll_mul(g, k.i, ll_i(g, t->NR)));
    fg_pack_columns(g, t, q->block, ll_i(g, BLOCK_K * t->size), deep, n, to);
    ll_next(g, &k, NULL);
}

static void
pack(fg_product *p, fg_v col, fg_v n)
{
    matmul *q = p->user;
    fg_ll *g = p->e->g;
    const fg_tile *t = &p->tile;
    if (q->b.direct && q->b.across)
        fg_pack_columns(g, t, side_at(q, &q->b, ll_i(g, 0), col), p->ldb, p->vk, n,
                        p->panel);
    else if (q->b.direct)
        fg_pack_rows(g, t, side_at(q, &q->b, ll_i(g, 0), col), p->ldb, p->vk, n,
                     p->panel);
    else if (q->along_k)
        pull_panel_along_k(q, col, n);
    else
        pull_lines(q, run_of_b, ll_i(g, 0), col, true, p->vk, n, p->n, p->panel,
                   ll_i(g, t->NR));
}

static fg_v
panel_of_b(fg_product *p, fg_v col)
{
    matmul *q = p->user;
    return side_at(q, &q->b, ll_i(p->e->g, 0), col);
}

static fg_v
panel_cut(fg_product *p, fg_v at)
{
    matmul *q = p->user;
    fg_em *e = p->e;
    fg_ll *g = e->g;
    fg_v size = ll_mul(g, p->vk, ll_i(g, FG_PANEL));
    fg_v b = fg_em_buf(e, q->b.view.param), from = fg_em_expr(e, q->b.view.offset);
    return ll_at(g, b, p->tile.elem, ll_add(g, from, ll_mul(g, at, size)));
}

/* Blocks of B in natural order, each pulled and multiplied at once. */
static void
few_pulled(matmul *q, fg_few *f, fg_v col, fg_v n)
{
    fg_product *p = &q->p;
    fg_em *e = p->e;
    fg_ll *g = e->g;
    const fg_tile *t = &p->tile;
    int deep = q->along_k ? BLOCK / 4 : FG_FEW_DEEP, wide = BLOCK / deep;
    int ld = q->along_k ? deep : wide;
    fg_v x = f->x, y = f->y;
    ll_loop outer, inner;
    fg_v lim[2] = {p->vk, n}, step[2] = {ll_i(g, deep), ll_i(g, wide)};
    ll_for(g, &outer, ll_i(g, 0), lim[q->along_k], step[q->along_k], 0, NULL);
    ll_for(g, &inner, ll_i(g, 0), lim[!q->along_k], step[!q->along_k], 0, NULL);
    fg_v k = q->along_k ? inner.i : outer.i, j = q->along_k ? outer.i : inner.i;
    f->k = ll_min(g, ll_sub(g, p->vk, k), step[0]);
    f->n = ll_min(g, ll_sub(g, n, j), step[1]);
    f->x = ll_at(g, x, t->elem, k);
    f->y = ll_at(g, y, t->elem, j);
    f->w = q->block;
    f->ldw = ll_i(g, ld * t->size);
    pull_lines(q, run_of_b, k, ll_add(g, col, j), !q->along_k, q->along_k ? f->n : f->k,
               q->along_k ? f->k : f->n, q->along_k ? p->k : p->n, q->block, ll_i(g, ld));
    if (q->along_k)
        fg_few_columns(g, t, f);
    else
        fg_few_rows(g, t, f);
    ll_next(g, &inner, NULL);
    ll_next(g, &outer, NULL);
}

static void
few(fg_product *p, fg_v col, fg_v n, fg_v y, fg_v ldy)
{
    matmul *q = p->user;
    fg_ll *g = p->e->g;
    fg_v zero = ll_i(g, 0);
    bool bytes = q->quant && q->quant->form.round; /* fetches x itself */
    fg_few f = {.x = bytes ? NULL : rows_as_sums(p, zero, p->vrows),
                .ldx = p->lda,
                .m = p->vrows,
                .ldw = p->ldb,
                .k = p->vk,
                .y = y,
                .ldy = ldy,
                .n = n};
    if (q->quant) {
        fg_quant_few(q->quant, &f, col, n);
        return;
    }
    if (!q->b.direct) {
        few_pulled(q, &f, col, n);
        return;
    }
    f.w = side_at(q, &q->b, zero, col);
    if (q->b.across)
        fg_few_columns(g, &p->tile, &f);
    else
        fg_few_rows(g, &p->tile, &f);
}

static void
index_of(fg_product *p, fg_v row, fg_index col, fg_index *ix)
{
    matmul *q = p->user;
    fg_em *e = p->e;
    const fg_type *out = fg_rt(e->m, p->out);
    if (q->flat) {
        fg_ix_unlinear(e, q->lead + 1, out->dim, fg_ix(e, row), ix);
    } else {
        for (int k = 0; k < q->lead; k++)
            ix[k] = q->coord[k] ? fg_ix(e, q->coord[k]) : fg_ixc(e, 0);
        ix[q->lead] = fg_ix(e, row);
    }
    ix[q->lead + 1] = col;
}

/* ---- setting up ----------------------------------------------------------------- */

/* Same bits as an accumulator, so memory can be read as such. */
static bool
is_acc(fg_dtype d, fg_dtype acc)
{
    return d == acc || (d == FG_u32 && acc == FG_i32) || (d == FG_u64 && acc == FG_i64);
}

static void
side_setup(matmul *q, side *s, int operand, bool trans)
{
    fg_em *e = q->p.e;
    fg_exprs *t = e->m->ex;
    s->reg = q->anchor->in[operand];
    s->rank = fg_rt(e->m, s->reg)->rank;
    s->row = s->rank - (trans ? 1 : 2);
    s->col = s->rank - (trans ? 2 : 1);
    if (q->anchor->op == FG_OP_matmul_int && q->anchor->nin > operand + 2)
        s->zero = q->anchor->in[operand + 2];
    s->direct =
        !s->zero && fg_strided_of(e, s->reg, &s->view) && is_acc(s->view.dtype, q->p.acc);
    if (s->direct && trans)
        fg_strided_swap(&s->view, s->rank - 2, s->rank - 1);
    if (s->direct && q->flat && s == &q->a)
        s->direct = fg_strided_reshape(t, &s->view, 2, (fg_expr[]){q->p.rows, q->p.k});
}

/* B is read in place if either axis is contiguous; else, the better axis to pull
 * along. */
static void
b_setup(matmul *q, bool trans)
{
    fg_product *p = &q->p;
    fg_exprs *t = p->e->m->ex;
    side_setup(q, &q->b, 1, trans);
    side *s = &q->b;
    fg_strided *v = &q->source;
    if (s->direct) {
        fg_expr down = axis_stride(t, s, 0), along = axis_stride(t, s, 1);
        bool columns = fg_e_is(t, down, 1), rows = fg_e_is(t, along, 1);
        s->across = columns && !(rows && !fg_e_is(t, p->n, 1));
        if (fg_e_is(t, p->n, 1) && !columns)
            s->direct = rows || fg_e_is(t, down, 0);
        else
            s->direct = rows || columns;
        p->ldb = bytes_of(p->e, p, s->across ? along : down);
    }
    q->along_k = trans;
    q->lanes = p->tile.W;
    if (s->direct || !fg_strided_source(p->e, s->reg, v) || v->rank != s->rank)
        return;
    q->along_k = fg_e_is(t, v->stride[s->row], 1) && !fg_e_is(t, v->stride[s->col], 1);
    /* Small elements: longer runs share what is computed once per run, such as scales. */
    if (fg_dtypes[v->dtype].bits <= 8 && p->tile.NR % LONG_RUN == 0)
        q->lanes = LONG_RUN;
    q->traced = fg_e_is(t, p->batch, 1);
}

/* Rows of A must be contiguous for the path of few rows; packed rows are. */
static void
a_setup(matmul *q, bool trans)
{
    fg_product *p = &q->p;
    fg_exprs *t = p->e->m->ex;
    side_setup(q, &q->a, 0, trans);
    q->a.direct = q->a.direct && !q->round;
    fg_expr one = fg_ec(t, 1), step = q->a.direct ? axis_stride(t, &q->a, 1) : one;
    if (q->a.direct && !fg_e_is(t, step, 1) && fg_e_lo(t, p->rows) <= FG_FEW_ROWS)
        q->a.direct = fg_e_is(t, p->k, 1);
    if (q->a.direct) {
        p->lda = bytes_of(p->e, p, axis_stride(t, &q->a, 0));
        p->ska = bytes_of(p->e, p, step);
        return;
    }
    int W = p->tile.W, rows = p->tile.MR > FG_FEW_ROWS ? p->tile.MR : FG_FEW_ROWS;
    fg_expr up = fg_ediv(t, fg_eadd(t, p->k, fg_ec(t, W - 1)), fg_ec(t, W));
    fg_expr ld = fg_emul(t, up, fg_ec(t, W));
    p->lda = bytes_of(p->e, p, ld);
    p->ska = bytes_of(p->e, p, one);
    p->pulls_a = true;
    q->apack = fg_em_scratch(p->e, fg_emul(t, ld, fg_ec(t, rows * p->tile.size)));
}

static fg_expr
product_of(fg_exprs *t, int n, const fg_expr *dim)
{
    fg_expr r = fg_ec(t, 1);
    for (int i = 0; i < n; i++)
        r = fg_emul(t, r, dim[i]);
    return r;
}

/* ---- twins ---------------------------------------------------------------------- */

static bool
same_dims(const fg_module *m, fg_reg a, fg_reg b)
{
    const fg_type *x = fg_rt(m, a), *y = fg_rt(m, b);
    return x->rank == y->rank && !memcmp(x->dim, y->dim, x->rank * sizeof *x->dim);
}

bool
fg_matmul_twins(const fg_module *m, const fg_inst *a, const fg_inst *b)
{
    if (a == b || a->op != b->op || a->in[0] != b->in[0] ||
        !same_dims(m, a->out[0], b->out[0]) ||
        fg_rt(m, a->out[0])->dtype != fg_rt(m, b->out[0])->dtype)
        return false;
    return a->op == FG_OP_matmul_panels ||
           (a->op == FG_OP_matmul &&
            FG_GET(a, matmul, trans_a).i == FG_GET(b, matmul, trans_a).i &&
            FG_GET(a, matmul, round).i == FG_GET(b, matmul, round).i &&
            fg_rt(m, a->in[1])->rank == fg_rt(m, b->in[1])->rank);
}

enum { BESIDE = 1, MET = 2 }; /* of a register: what is known of how it is made */

/* Whether b's element is only wanted where a's same element is: everything made of b
 * alone is elementwise and keeps the shape, until it meets what is so made of a. */
static bool
in_step(const matmul *q, const fg_inst *a, const fg_inst *b)
{
    fg_em *e = q->p.e;
    uint8_t *is = FG_NEWN(e->a, uint8_t, e->m->nreg);
    is[a->out[0]] = MET;
    is[b->out[0]] = BESIDE;
    fg_each_inst(e->region, i) {
        uint8_t seen = 0;
        for (int k = 0; k < i->nin; k++)
            seen |= is[i->in[k]];
        bool keeps = i->nout == 1 && fg_op_is(i->op, FG_T_ELEM) &&
                     same_dims(e->m, i->out[0], a->out[0]);
        for (int k = 0; k < i->nin && keeps; k++)
            keeps = !is[i->in[k]] || same_dims(e->m, i->in[k], a->out[0]);
        if (keeps && seen)
            is[i->out[0]] = seen & MET ? MET : BESIDE;
        else if (seen & BESIDE)
            return false;
    }
    return true;
}

static const fg_inst *
find_twin(const matmul *q)
{
    fg_em *e = q->p.e;
    fg_each_inst(e->region, i)
        if (fg_matmul_twins(e->m, q->anchor, i) && in_step(q, q->anchor, i))
            return i;
    return NULL;
}

static bool
panels_setup(matmul *q)
{
    fg_product *p = &q->p;
    fg_em *e = p->e;
    fg_exprs *t = e->m->ex;
    fg_strided *v = &q->b.view;
    if (!fg_strided_of(e, q->anchor->in[1], v) || v->dtype != p->acc ||
        !fg_e_is(t, v->dim[2], FG_PANEL) || !fg_e_is(t, v->stride[2], 1) ||
        v->stride[1] != v->dim[2] || v->stride[0] != fg_emul(t, v->dim[1], v->dim[2]) ||
        FG_PANEL % p->tile.NR)
        return fg_error(e->m->cx,
                        "%s: the second operand is not panels of %d numbers that are "
                        "added up as they are",
                        fg_inst_where(e->m, q->anchor), FG_PANEL);
    p->tile.ld = FG_PANEL;
    p->cut = panel_cut;
    return true;
}

static void
multiply_packed(fg_product *p, fg_panel *to, fg_v col, fg_v n)
{
    matmul *q = p->user;
    fg_quant_multiply(q->quant, to, p->done.row, col, n);
}

static void
multiply_int(fg_product *p, fg_panel *to, fg_v col, fg_v n)
{
    matmul *q = p->user;
    fg_int_multiply(q->bytes, to, p->done.row, col, n);
}

static fg_quant *
packed_weights(const matmul *q, const fg_inst *i)
{
    return i->op == FG_OP_matmul ? fg_quant_of(q->p.e, i, q->p.rows) : NULL;
}

/* What is right of the product sign. */
static bool
right_setup(matmul *q)
{
    fg_product *p = &q->p;
    if (q->anchor->op == FG_OP_matmul_panels)
        return panels_setup(q);
    p->few = few;
    if (q->quant && q->quant->tiles) {
        fg_quant_take_tiles(q->quant);
        p->tile = q->quant->tile;
        p->multiply = multiply_packed;
        return true;
    }
    if (q->bytes) {
        p->few = NULL;
        p->tile = fg_int_take(q->bytes);
        p->multiply = multiply_int;
        return true;
    }
    b_setup(q, q->anchor->op == FG_OP_matmul && FG_GET(q->anchor, matmul, trans_b).i);
    if (!q->b.direct && !q->block)
        q->block = fg_em_scratch(p->e, fg_ec(p->e->m->ex, BLOCK * p->tile.size));
    p->pack = pack;
    p->b = q->b.direct && !q->b.across ? panel_of_b : NULL;
    return true;
}

bool
fg_gen_matmul(fg_em *e, fg_inst *anchor)
{
    fg_exprs *t = e->m->ex;
    const fg_type *x = fg_rt(e->m, anchor->in[0]), *y = fg_rt(e->m, anchor->in[1]);
    const fg_type *out = fg_rt(e->m, anchor->out[0]);
    bool ta = anchor->op == FG_OP_matmul && FG_GET(anchor, matmul, trans_a).i;
    matmul *q = FG_NEW(e->a, matmul);
    fg_product *p = &q->p;
    p->e = e;
    p->user = q;
    p->out = anchor->out[0];
    p->acc = anchor->op == FG_OP_matmul_int ? FG_i32 : fg_product_acc(x->dtype);
    p->tile = fg_tile_of(e->g, fg_em_type(e, p->acc));
    q->anchor = anchor;
    q->lead = out->rank - 2;
    /* One B for all: the leading axes are more rows, when A has them all. */
    bool cut = anchor->op == FG_OP_matmul_panels;
    q->flat = cut || (!ta && fg_e_is(t, product_of(t, y->rank - 2, y->dim), 1));
    fg_expr lead = product_of(t, q->lead, out->dim), m = out->dim[q->lead];
    p->batch = q->flat ? fg_ec(t, 1) : lead;
    p->rows = q->flat ? fg_emul(t, lead, m) : m;
    p->n = out->dim[out->rank - 1];
    p->k = x->dim[x->rank - (ta ? 2 : 1)];
    q->round = anchor->op == FG_OP_matmul ? FG_GET(anchor, matmul, round).i : 0;
    p->begin = begin;
    p->a = rows_of_a;
    p->index = index_of;
    const fg_inst *other = find_twin(q);
    fg_quant *second = other ? packed_weights(q, other) : NULL;
    q->quant = packed_weights(q, anchor);
    if (anchor->op == FG_OP_matmul_int && q->flat)
        q->bytes = fg_int_of(e, anchor, p->rows);
    if (other && q->quant && q->quant->tiles != (second && second->tiles))
        q->quant->tiles = false;
    if (second && !(q->quant && q->quant->tiles))
        second->tiles = false;
    if (!right_setup(q))
        return false;
    if (!q->bytes && (!q->quant || !q->quant->tiles || !q->quant->form.round))
        a_setup(q, ta);
    if (other) {
        matmul *twin = fg_dup(e->a, q, sizeof *q);
        twin->anchor = other;
        twin->quant = second;
        twin->p.user = twin;
        twin->p.out = other->out[0];
        if (!right_setup(twin))
            return false;
        p->twin = &twin->p;
    }
    return fg_product_emit(p);
}

bool
fg_matmul_takes(fg_module *m, const fg_inst *anchor)
{
    return fg_product_acc(fg_rt(m, anchor->in[0])->dtype) != FG_NODTYPE;
}
