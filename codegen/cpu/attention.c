/* attention.c - fused attention: operands, limits and masks; which form to use.
 *
 *     %o = attention %q, %k, %v, %mask {scale=0.125, causal} : f32[B,12,S,64]
 *
 * Both forms read q, k and v where they are: head splits, transposes and slices of a
 * projection are strides. Scores live in scratch and are exact f32; softmax subtracts
 * the maximum, or one not far below it (of what was seen so far, rescaling as it grows),
 * so no weight can overflow. Weights that are rounded must be whole first, which only
 * `few` knows: it has all scores of a query before it reads the values.
 */
#include <float.h>
#include <math.h>
#include "codegen/cpu/attention.h"

enum {
    FEW_QUERIES = 16, /* up to here one query at a time beats blocks of 64 */
    LINE = 64         /* bytes that memory delivers at a time */
};

static fg_reg
operand(const fg_inst *i, int k)
{
    return k < i->nin ? i->in[k] : 0;
}

/* ---- q, k and v ----------------------------------------------------------------- */

/* Of an element where the side is. */
static int
bytes_of(const fg_att_side *s)
{
    return fg_dtypes[s->view.dtype].bits / 8;
}

static void
side_setup(fg_att *a, fg_att_side *s, int k)
{
    fg_em *e = a->e;
    fg_exprs *t = e->m->ex;
    s->reg = a->anchor->in[k];
    s->width = fg_rt(e->m, s->reg)->dim[3];
    s->there = fg_strided_of(e, s->reg, &s->view) &&
               (fg_e_is(t, s->view.stride[3], 1) || fg_e_is(t, s->width, 1));
    s->direct = s->there && s->view.dtype == FG_f32;
    if (s->there)
        s->ld = fg_em_expr(e, fg_emul(t, s->view.stride[2], fg_ec(t, bytes_of(s))));
}

fg_v
fg_att_head(fg_att *a, const fg_att_side *s, fg_v b, fg_v head)
{
    fg_em *e = a->e;
    fg_ll *g = a->g;
    fg_v at = fg_em_expr(e, s->view.offset);
    at = ll_add(g, at, ll_mul(g, b, fg_em_expr(e, s->view.stride[0])));
    at = ll_add(g, at, ll_mul(g, head, fg_em_expr(e, s->view.stride[1])));
    fg_t element = LLVMIntTypeInContext(g->cx, (unsigned)fg_dtypes[s->view.dtype].bits);
    return ll_at(g, fg_em_buf(e, s->view.param), element, at);
}

static void
side_begin(fg_att *a, fg_att_side *s, fg_v head)
{
    s->head = head;
    if (s->there)
        s->base = fg_att_head(a, s, a->b, head);
}

/* Bytes of a row of f32 with room for whole vectors. */
static fg_expr
row_bytes(fg_att *a, fg_expr width)
{
    fg_exprs *t = a->e->m->ex;
    int W = a->t.W;
    fg_expr up = fg_ediv(t, fg_eadd(t, width, fg_ec(t, W - 1)), fg_ec(t, W));
    return fg_emul(t, up, fg_ec(t, W * 4));
}

void
fg_att_room(fg_att *a, fg_att_side *s, int n)
{
    if (s->direct && !s->copy)
        return;
    fg_exprs *t = a->e->m->ex;
    fg_expr bytes = row_bytes(a, s->width);
    s->room_ld = fg_em_expr(a->e, bytes);
    s->room = fg_em_scratch(a->e, fg_emul(t, bytes, fg_ec(t, n)));
}

static void
pull_run(fg_em *e, void *user, fg_v i)
{
    fg_att *a = user;
    const fg_att_side *s = a->side;
    fg_index ix[4] = {fg_ix(e, a->b), fg_ix(e, s->head), fg_ix(e, a->row),
                      fg_ix_run(e, i, a->t.W)};
    fg_v v = fg_em_cast(e, fg_pull(e, s->reg, ix), fg_rt(e->m, s->reg)->dtype, FG_f32);
    ll_store(e->g, fg_lanes(e, v), ll_at(e->g, a->to, e->g->f32, i));
}

void
fg_att_copy_row(fg_att *a, fg_att_side *s, fg_v row, fg_v to)
{
    fg_em *e = a->e;
    fg_scopemark mark = fg_scope(e);
    a->side = s;
    a->row = row;
    a->to = to;
    e->lanes = a->t.W;
    fg_em_run(e, ll_i(a->g, 0), fg_em_expr(e, s->width),
              fg_e_divides(e->m->ex, a->t.W, s->width), pull_run, a);
    fg_unscope(e, mark);
}

/* Row `row` of a side that is pulled will be wanted soon. */
static void
fetch_row(fg_att *a, const fg_att_side *s, fg_v row)
{
    fg_em *e = a->e;
    fg_ll *g = a->g;
    fg_v end = ll_mul(g, fg_em_expr(e, s->width), ll_i(g, bytes_of(s)));
    fg_v p = ll_at(g, s->base, g->i8, ll_mul(g, row, s->ld));
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), end, ll_i(g, LINE), 0, NULL);
    ll_prefetch_second(g, ll_at(g, p, g->i8, l.i));
    ll_next(g, &l, NULL);
}

fg_v
fg_att_rows(fg_att *a, fg_att_side *s, fg_v row, fg_v n, fg_v *ld)
{
    fg_ll *g = a->g;
    bool there = s->direct && !s->copy;
    *ld = there ? s->ld : s->room_ld;
    if (there)
        return ll_at(g, s->base, g->i8, ll_mul(g, row, s->ld));
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), n, ll_i(g, 1), 0, NULL);
    fg_v at = ll_add(g, row, l.i);
    if (s->there && !s->direct)
        fetch_row(a, s, ll_add(g, at, n));
    fg_att_copy_row(a, s, at, ll_at(g, s->room, g->i8, ll_mul(g, l.i, s->room_ld)));
    ll_next(g, &l, NULL);
    return s->room;
}

/* ---- limits and masks ----------------------------------------------------------- */

bool
fg_att_limited(const fg_att *a)
{
    return a->left >= 0 || a->right >= 0;
}

bool
fg_att_all_count(const fg_att *a)
{
    return fg_att_limited(a) && a->hidden != -INFINITY;
}

fg_v
fg_att_first(fg_att *a, fg_v i)
{
    fg_ll *g = a->g;
    if (a->left < 0)
        return ll_i(g, 0);
    fg_v at = ll_add(g, i, ll_sub(g, a->shift, ll_i(g, a->left)));
    return ll_max(g, at, ll_i(g, 0));
}

fg_v
fg_att_end(fg_att *a, fg_v i)
{
    fg_ll *g = a->g;
    if (a->right < 0)
        return a->keys;
    fg_v at = ll_add(g, i, ll_add(g, a->shift, ll_i(g, a->right + 1)));
    return ll_max(g, ll_min(g, at, a->keys), ll_i(g, 0));
}

static void
load_grids(fg_att *a)
{
    fg_em *e = a->e;
    e->lanes = 1;
    for (int k = 0; k < a->nround; k++) {
        const fg_rounding *r = &a->round[k];
        a->grid[k][0] = fg_em_cast(e, fg_pull(e, r->scale, NULL),
                                   fg_rt(e->m, r->scale)->dtype, FG_f32);
        a->grid[k][1] =
            fg_em_cast(e, fg_pull(e, r->zero, NULL), fg_rt(e->m, r->zero)->dtype, FG_f32);
    }
}

bool
fg_att_rounds(const fg_att *a, fg_roundat at)
{
    bool any = false;
    for (int k = 0; k < a->nround; k++)
        any |= a->round[k].at == at;
    return any;
}

/* Grids are at most 16 bits wide, so f32 holds every number on the way. */
fg_v
fg_att_round(fg_att *a, fg_roundat at, fg_v x)
{
    fg_ll *g = a->g;
    fg_t t = LLVMTypeOf(x);
    int lanes = LLVMGetTypeKind(t) == LLVMVectorTypeKind ? (int)LLVMGetVectorSize(t) : 0;
    for (int k = 0; k < a->nround; k++) {
        if (a->round[k].at != at)
            continue;
        fg_dtype d = fg_rt(a->e->m, a->round[k].zero)->dtype;
        fg_v s = a->grid[k][0], z = a->grid[k][1];
        if (lanes) {
            s = ll_splat(g, s, lanes);
            z = ll_splat(g, z, lanes);
        }
        x = ll_mul(g, fg_grid_steps(a->e, x, a->round[k].scale, s, z, d), s);
    }
    return x;
}

fg_v
fg_att_key_head(fg_att *a, fg_v h)
{
    bool own = fg_e_is(a->e->m->ex, a->group, 1);
    return own ? h : ll_udiv(a->g, h, fg_em_expr(a->e, a->group));
}

void
fg_att_begin(fg_att *a, fg_v b, fg_v h)
{
    fg_em *e = a->e;
    fg_ll *g = a->g;
    fg_exprs *t = e->m->ex;
    fg_expr offset = FG_GET(a->anchor, attention, offset).e;
    a->b = b;
    a->h = h;
    load_grids(a);
    fg_v kvh = fg_att_key_head(a, h);
    side_begin(a, &a->q, h);
    side_begin(a, &a->k, kvh);
    side_begin(a, &a->v, kvh);

    fg_expr keys = a->T;
    if (a->mask) {
        const fg_type *m = fg_rt(e->m, a->mask);
        if (m->rank && !fg_e_is(t, m->dim[m->rank - 1], 1))
            keys = fg_emin(t, keys, m->dim[m->rank - 1]);
    }
    a->keys = fg_em_expr(e, keys);
    a->shift = fg_em_expr(e, offset != FG_E_BAD ? offset : fg_esub(t, a->T, a->S));
    if (a->lengths) {
        fg_index ix = fg_ix(e, b);
        e->lanes = 1;
        fg_v n = fg_pull(e, a->lengths, &ix);
        a->keys = ll_max(g, ll_min(g, a->keys, n), ll_i(g, 0));
        if (offset == FG_E_BAD)
            a->shift = ll_sub(g, n, fg_em_expr(e, a->S));
    }
}

fg_v
fg_att_mask(fg_att *a, fg_v i, fg_v key)
{
    fg_em *e = a->e;
    const fg_type *ty = fg_rt(e->m, a->mask);
    fg_index full[4] = {fg_ix(e, a->b), fg_ix(e, a->h), fg_ix(e, i),
                        fg_ix_run(e, key, 1)};
    fg_index ix[4];
    for (int k = 0; k < ty->rank; k++)
        ix[k] = fg_e_is(e->m->ex, ty->dim[k], 1) ? fg_ixc(e, 0) : full[4 - ty->rank + k];
    fg_v m = fg_lanes(e, fg_pull(e, a->mask, ix));
    if (ty->dtype != FG_bool)
        return fg_em_cast(e, m, ty->dtype, FG_f32);
    fg_t f = ll_like(m, e->g->f32);
    return ll_sel(e->g, m, ll_zero(f), ll_cf(f, a->hidden));
}

fg_v
fg_att_cap(fg_att *a, fg_v s, double unit)
{
    fg_t t = LLVMTypeOf(s);
    if (a->cap == 0)
        return s;
    fg_v y = vm_tanh(a->g, ll_mul(a->g, s, ll_cf(t, 1 / (a->cap * unit))));
    return ll_mul(a->g, y, ll_cf(t, a->cap * unit));
}

fg_v
fg_att_sink(fg_att *a, fg_v h)
{
    if (!a->sink)
        return NULL;
    fg_index ix = fg_ix(a->e, h);
    a->e->lanes = 1;
    return fg_em_cast(a->e, fg_pull(a->e, a->sink, &ix), fg_rt(a->e->m, a->sink)->dtype,
                      FG_f32);
}

fg_v
fg_att_floor(fg_att *a, fg_v m)
{
    fg_t t = LLVMTypeOf(m);
    return ll_sel(a->g, ll_cmp(a->g, LL_EQ, m, ll_cf(t, -INFINITY)), ll_zero(t), m);
}

fg_v
fg_att_inverse(fg_att *a, fg_v sum)
{
    fg_ll *g = a->g;
    fg_t t = LLVMTypeOf(sum);
    fg_v r = ll_div(g, ll_cf(t, 1), sum); /* of 0: inf, and 0 inf = NaN */
    if (!strcmp(FG_GET(a->anchor, attention, empty).s, "nan"))
        return r;
    return ll_sel(g, ll_cmp(g, LL_EQ, sum, ll_zero(t)), ll_zero(t), r);
}

/* ---- both forms ----------------------------------------------------------------- */

static void
setup(fg_att *a, fg_em *e, fg_inst *anchor)
{
    fg_exprs *t = e->m->ex;
    const fg_type *q = fg_rt(e->m, anchor->in[0]), *k = fg_rt(e->m, anchor->in[1]);
    const fg_type *v = fg_rt(e->m, anchor->in[2]);
    a->e = e;
    a->g = e->g;
    a->t = fg_tile_of(e->g, e->g->f32);
    a->anchor = anchor;
    a->B = q->dim[0];
    a->H = q->dim[1];
    a->G = k->dim[1];
    a->S = q->dim[2];
    a->T = k->dim[2];
    a->D = q->dim[3];
    a->E = v->dim[3];
    a->group = fg_ediv(t, a->H, fg_emax(t, a->G, fg_ec(t, 1)));
    a->mask = operand(anchor, 3);
    a->sink = operand(anchor, 4);
    a->lengths = operand(anchor, 5);
    if (a->mask) {
        const fg_type *m = fg_rt(e->m, a->mask);
        a->same_mask = m->rank < 2 || !fg_varies(e, a->mask, m->rank - 2);
    }
    bool mean = !strcmp(FG_GET(anchor, attention, empty).s, "mean");
    a->hidden = mean ? -FLT_MAX : -INFINITY;
    a->cap = FG_GET(anchor, attention, softcap).f;
    a->nround = fg_attention_rounds(anchor, a->round);
    a->left = FG_GET(anchor, attention, left).i;
    a->right = FG_GET(anchor, attention, right).i;
    if (FG_GET(anchor, attention, causal).i)
        a->right = 0;
    side_setup(a, &a->q, 0);
    side_setup(a, &a->k, 1);
    side_setup(a, &a->v, 2);
    a->p = (fg_product){
        .e = e, .tile = a->t, .acc = FG_f32, .out = anchor->out[0], .user = a, .n = a->E};
}

/* n + n - 1 + .. , `terms` of them, twice */
static fg_expr
twice_sum_down(fg_exprs *t, fg_expr n, fg_expr terms)
{
    fg_expr two = fg_ec(t, 2), less = fg_esub(t, terms, fg_ec(t, 1));
    return fg_esub(t, fg_emul(t, two, fg_emul(t, n, terms)), fg_emul(t, terms, less));
}

/* Two products, of the pairs that the limits leave: to the right of the last query's key
 * the first query misses the most, to the left the last one does. */
static fg_expr
flops(fg_att *a)
{
    fg_exprs *t = a->e->m->ex;
    fg_expr none = fg_ec(t, 0), one = fg_ec(t, 1);
    fg_expr pairs = fg_emul(t, fg_emul(t, a->S, a->T), fg_ec(t, 2));
    if (a->right >= 0) {
        fg_expr most = fg_esub(t, fg_esub(t, a->S, one), fg_ec(t, a->right));
        most = fg_emax(t, most, none);
        pairs = fg_esub(t, pairs, twice_sum_down(t, most, most));
    }
    if (a->left >= 0) {
        fg_expr most = fg_esub(t, fg_esub(t, a->T, one), fg_ec(t, a->left));
        most = fg_emax(t, most, none);
        pairs = fg_esub(t, pairs, twice_sum_down(t, most, fg_emin(t, most, a->S)));
    }
    return fg_emul(t, fg_emul(t, fg_emul(t, a->B, a->H), pairs), fg_eadd(t, a->D, a->E));
}

bool
fg_gen_attention(fg_em *e, fg_inst *anchor)
{
    fg_exprs *t = e->m->ex;
    fg_att *a = FG_NEW(e->a, fg_att);
    setup(a, e, anchor);
    if (!fg_product_takes_over(&a->p))
        return false;
    e->flops = flops(a);
    fg_expr few = fg_att_few_chunks(a), many = fg_att_blocks_chunks(a);
    if (fg_e_hi(t, a->S) <= FEW_QUERIES || a->nround) {
        e->chunks = few;
        fg_att_few(a);
    } else if (fg_e_lo(t, a->S) > FEW_QUERIES || a->S == a->T) {
        /* Without a past, few queries have few keys: nothing to gain. */
        e->chunks = many;
        fg_att_blocks(a);
    } else {
        fg_expr small = fg_elt(t, a->S, fg_ec(t, FEW_QUERIES + 1));
        ll_branch s;
        e->chunks = fg_eselect(t, small, few, many);
        ll_if(e->g, &s,
              ll_cmp(e->g, LL_LE, fg_em_expr(e, a->S), ll_i(e->g, FEW_QUERIES)));
        fg_att_few(a);
        ll_else(e->g, &s, 0, NULL);
        fg_att_blocks(a);
        ll_end(e->g, &s, NULL, NULL);
    }
    return true;
}

bool
fg_attention_takes(fg_module *m, const fg_inst *anchor)
{
    return fg_rt(m, anchor->in[0])->dtype != FG_f64;
}
