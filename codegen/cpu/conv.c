/* conv.c - convolution as a product whose B is never built.
 *
 *     %1 = conv %x, %w, %bias {stride=[16, 16]} : f32[N,768,14,14]
 *
 *     rows      output channels of one group           A: the filter, [M/group][K]
 *     columns   output positions, all axes as one      B: [K][positions], by panels
 *     K         input channels of the group times the window
 *
 * A panel of B is gathered from the input by index arithmetic, positions outside of it
 * as zeros, and multiplied while it is in the cache. Windows without overlap whose
 * rows are whole vectors (patches of an image) are gathered along the window instead,
 * where memory is contiguous.
 */
#include "codegen/cpu/product.h"
#include "codegen/cpu/pull.h"
#include "codegen/cpu/strided.h"

enum { BLOCK_K = 64, AXES = 3 };

typedef struct conv {
    fg_product p;
    fg_inst *i;
    int axes;                      /* spatial */
    fg_expr size[AXES], out[AXES]; /* of the input, of the result */
    fg_expr part[1 + AXES];        /* channels of a group, window: the axes of K */
    int64_t stride[AXES], dilation[AXES], before[AXES];
    bool padded[AXES];
    bool patches; /* gather along the window */
    fg_strided w;
    bool direct; /* w says where the filter is */
    fg_v wbase, apack, block;
    fg_v n, group, channel0; /* this chunk */
    fg_v row, to;            /* of the run being pulled */
    fg_index at[FG_MAXRANK];
    fg_index place[AXES]; /* of the positions under way: o stride - before */
} conv;

static int64_t
listed(const fg_attr *a, int k, int64_t other)
{
    return k < a->n ? a->is[k] : other;
}

/* ---- the input, gathered -------------------------------------------------------- */

static fg_v
inside(fg_em *e, void *user)
{
    conv *q = user;
    fg_reg x = q->i->in[0];
    fg_v v = fg_pull(e, x, q->at);
    return fg_lanes(e, fg_em_cast(e, v, fg_rt(e->m, x)->dtype, q->p.acc));
}

static fg_v
outside(fg_em *e, void *user)
{
    conv *q = user;
    return ll_zero(ll_vec(q->p.tile.elem, e->lanes));
}

static void
set_places(conv *q, fg_index col)
{
    fg_em *e = q->p.e;
    fg_exprs *t = e->m->ex;
    fg_index o[FG_MAXRANK];
    fg_ix_unlinear(e, q->axes, q->out, col, o);
    for (int a = 0; a < q->axes; a++)
        q->place[a] = fg_ix_addc(e, fg_ix_mul(e, o[a], fg_ec(t, q->stride[a])),
                                 fg_ec(t, -q->before[a]));
}

/* Element k of the windows at `place`: either may be a run. */
static fg_v
gather(conv *q, fg_index k)
{
    fg_em *e = q->p.e;
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    fg_index part[FG_MAXRANK];
    fg_v ok = NULL;
    fg_ix_unlinear(e, 1 + q->axes, q->part, k, part);
    q->at[0] = fg_ix(e, q->n);
    q->at[1] = fg_ix_add(e, fg_ix(e, q->channel0), part[0]);
    for (int a = 0; a < q->axes; a++) {
        fg_index by = fg_ix_mul(e, part[1 + a], fg_ec(t, q->dilation[a]));
        q->at[2 + a] = fg_ix_add(e, q->place[a], by);
        if (!q->padded[a])
            continue;
        fg_v v = fg_ix_value(e, q->at[2 + a]);
        fg_v size = ll_splat(g, fg_em_expr(e, q->size[a]), ll_lanes(v));
        fg_v in = ll_splat(g, ll_ucmp(g, LL_LT, v, size), e->lanes);
        ok = ok ? ll_and(g, ok, in) : in;
    }
    return ok ? fg_pull_either(e, ok, inside, outside, q) : inside(e, q);
}

/* A vector of positions at a time, all of the window. */
static void
pack_positions(fg_em *e, void *user, fg_v j)
{
    conv *q = user;
    fg_ll *g = e->g;
    const fg_tile *t = &q->p.tile;
    set_places(q, fg_ix_run(e, ll_add(g, q->row, j), t->W));
    ll_loop k;
    ll_for(g, &k, ll_i(g, 0), q->p.vk, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    fg_v v = gather(q, fg_ix(e, k.i));
    fg_v at = ll_add(g, ll_mul(g, k.i, ll_i(g, t->NR)), j);
    ll_store(g, v, ll_at(g, q->p.panel, t->elem, at));
    fg_unscope(e, s);
    ll_next(g, &k, NULL);
}

static void
pack_window(fg_em *e, void *user, fg_v i)
{
    conv *q = user;
    fg_v v = gather(q, fg_ix_run(e, ll_add(e->g, q->row, i), q->p.tile.W));
    ll_store(e->g, v, ll_at(e->g, q->to, q->p.tile.elem, i));
}

/* A position at a time, a vector of the window; blocks of it are then transposed. */
static void
pack_patches(conv *q, fg_v col, fg_v n)
{
    fg_product *p = &q->p;
    fg_em *e = p->e;
    fg_ll *g = e->g;
    const fg_tile *t = &p->tile;
    ll_loop k, j;
    ll_for(g, &k, ll_i(g, 0), p->vk, ll_i(g, BLOCK_K), 0, NULL);
    fg_v deep = ll_min(g, ll_sub(g, p->vk, k.i), ll_i(g, BLOCK_K));
    ll_for(g, &j, ll_i(g, 0), n, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    set_places(q, fg_ix(e, ll_add(g, col, j.i)));
    q->row = k.i;
    q->to = ll_at(g, q->block, t->elem, ll_mul(g, j.i, ll_i(g, BLOCK_K)));
    fg_em_run(e, ll_i(g, 0), deep, true, pack_window, q);
    fg_unscope(e, s);
    ll_next(g, &j, NULL);
    fg_pack_columns(g, t, q->block, ll_i(g, BLOCK_K * t->size), deep, n,
                    ll_at(g, p->panel, t->elem, ll_mul(g, k.i, ll_i(g, t->NR))));
    ll_next(g, &k, NULL);
}

static void
pack(fg_product *p, fg_v col, fg_v n)
{
    conv *q = p->user;
    p->e->lanes = p->tile.W;
    if (q->patches) {
        pack_patches(q, col, n);
        return;
    }
    q->row = col;
    fg_em_run(p->e, ll_i(p->e->g, 0), n, fg_e_divides(p->e->m->ex, p->tile.W, p->n),
              pack_positions, q);
}

/* ---- the filter ----------------------------------------------------------------- */

static void
begin(fg_product *p, fg_v b)
{
    conv *q = p->user;
    fg_em *e = p->e;
    fg_ll *g = e->g;
    fg_v groups = ll_i(g, FG_GET(q->i, conv, group).i);
    q->n = ll_udiv(g, b, groups);
    q->group = ll_urem(g, b, groups);
    q->channel0 = ll_mul(g, q->group, fg_em_expr(e, q->part[0]));
    if (!q->direct)
        return;
    fg_v at = ll_mul(g, q->group, fg_em_expr(e, q->w.stride[0]));
    at = ll_add(g, at, fg_em_expr(e, q->w.offset));
    q->wbase = ll_at(g, fg_em_buf(e, q->w.param), p->tile.elem, at);
}

static void
filter_run(fg_em *e, void *user, fg_v i)
{
    conv *q = user;
    const fg_type *ty = fg_rt(e->m, q->i->in[1]);
    fg_index ix[FG_MAXRANK];
    fg_ix_unlinear(e, 1 + q->axes, q->part, fg_ix_run(e, i, q->p.tile.W), ix + 1);
    ix[0] = fg_ix(e, q->row);
    fg_v v = fg_em_cast(e, fg_pull(e, q->i->in[1], ix), ty->dtype, q->p.acc);
    ll_store(e->g, fg_lanes(e, v), ll_at(e->g, q->to, q->p.tile.elem, i));
}

static fg_v
filter(fg_product *p, fg_v row, fg_v n)
{
    conv *q = p->user;
    fg_em *e = p->e;
    fg_ll *g = e->g;
    if (q->direct)
        return ll_at(g, q->wbase, g->i8, ll_mul(g, row, p->lda));
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), n, ll_i(g, 1), 0, NULL);
    fg_scopemark s = fg_scope(e);
    q->row = ll_add(g, ll_mul(g, q->group, p->vrows), ll_add(g, row, l.i));
    q->to = ll_at(g, q->apack, g->i8, ll_mul(g, l.i, p->lda));
    e->lanes = p->tile.W;
    fg_em_run(e, ll_i(g, 0), p->vk, fg_e_divides(e->m->ex, p->tile.W, p->k), filter_run,
              q);
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
    return q->apack;
}

/* ---- the result ----------------------------------------------------------------- */

static void
index_of(fg_product *p, fg_v row, fg_index col, fg_index *ix)
{
    conv *q = p->user;
    fg_em *e = p->e;
    ix[0] = fg_ix(e, q->n);
    ix[1] = fg_ix(e, ll_add(e->g, ll_mul(e->g, q->group, p->vrows), row));
    fg_ix_unlinear(e, q->axes, q->out, col, ix + 2);
}

static fg_v
add_bias(fg_product *p, const fg_index *ix, fg_v sums)
{
    conv *q = p->user;
    fg_em *e = p->e;
    fg_reg bias = q->i->in[2];
    fg_v v = fg_em_cast(e, fg_pull(e, bias, ix + 1), fg_rt(e->m, bias)->dtype, p->acc);
    return ll_add(e->g, sums, fg_lanes(e, v));
}

/* ---- setting up ----------------------------------------------------------------- */

static void
geometry(conv *q, fg_em *e, const fg_inst *i)
{
    const fg_type *x = fg_rt(e->m, i->in[0]), *w = fg_rt(e->m, i->in[1]);
    const fg_type *y = fg_rt(e->m, i->out[0]);
    int64_t width;
    q->axes = x->rank - 2;
    memcpy(q->part, w->dim + 1, (size_t)(1 + q->axes) * sizeof *q->part);
    for (int a = 0; a < q->axes; a++) {
        q->size[a] = x->dim[2 + a];
        q->out[a] = y->dim[2 + a];
        q->stride[a] = listed(&FG_GET(i, conv, stride), a, 1);
        q->dilation[a] = listed(&FG_GET(i, conv, dilation), a, 1);
        q->before[a] = listed(&FG_GET(i, conv, before), a, 0);
        q->padded[a] = q->before[a] || listed(&FG_GET(i, conv, after), a, 0);
    }
    int last = q->axes - 1;
    q->patches = q->stride[last] > 1 && q->dilation[last] == 1 && !q->padded[last] &&
                 fg_e_const(e->m->ex, w->dim[w->rank - 1], &width) &&
                 width % q->p.tile.W == 0;
}

static void
filter_setup(conv *q, fg_em *e)
{
    fg_product *p = &q->p;
    fg_exprs *t = e->m->ex;
    fg_expr group = fg_ec(t, FG_GET(q->i, conv, group).i), elem = fg_ec(t, p->tile.size);
    int W = p->tile.W;
    p->ska = ll_i(e->g, p->tile.size);
    q->direct = fg_strided_of(e, q->i->in[1], &q->w) && q->w.dtype == p->acc &&
                fg_strided_reshape(t, &q->w, 3, (fg_expr[]){group, p->rows, p->k}) &&
                (fg_e_is(t, q->w.stride[2], 1) || fg_e_is(t, p->k, 1));
    if (q->direct) {
        p->lda = fg_em_expr(e, fg_emul(t, q->w.stride[1], elem));
        return;
    }
    fg_expr up = fg_ediv(t, fg_eadd(t, p->k, fg_ec(t, W - 1)), fg_ec(t, W));
    fg_expr ld = fg_emul(t, fg_emul(t, up, fg_ec(t, W)), elem);
    p->lda = fg_em_expr(e, ld);
    q->apack = fg_em_scratch(e, fg_emul(t, ld, fg_ec(t, p->tile.MR)));
}

bool
fg_gen_conv(fg_em *e, fg_inst *anchor)
{
    fg_exprs *t = e->m->ex;
    const fg_type *y = fg_rt(e->m, anchor->out[0]);
    conv *q = FG_NEW(e->a, conv);
    fg_product *p = &q->p;
    fg_expr group = fg_ec(t, FG_GET(anchor, conv, group).i);
    p->e = e;
    p->user = q;
    p->out = anchor->out[0];
    p->acc = fg_product_acc(y->dtype);
    p->tile = fg_tile_of(e->g, fg_em_type(e, p->acc));
    q->i = anchor;
    geometry(q, e, anchor);
    p->batch = fg_emul(t, y->dim[0], group);
    p->rows = fg_ediv(t, y->dim[1], group);
    p->n = fg_ec(t, 1);
    p->k = q->part[0];
    for (int a = 0; a < q->axes; a++) {
        p->n = fg_emul(t, p->n, q->out[a]);
        p->k = fg_emul(t, p->k, q->part[1 + a]);
    }
    filter_setup(q, e);
    if (q->patches)
        q->block = fg_em_scratch(e, fg_ec(t, BLOCK_K * p->tile.NR * p->tile.size));
    p->begin = begin;
    p->a = filter;
    p->pack = pack;
    p->index = index_of;
    p->finish = anchor->nin > 2 && anchor->in[2] ? add_bias : NULL;
    return fg_product_emit(p);
}

/* Depthwise filters have nothing to share between rows: loops are as good. */
bool
fg_conv_takes(fg_module *m, const fg_inst *anchor)
{
    const fg_type *x = fg_rt(m, anchor->in[0]), *y = fg_rt(m, anchor->out[0]);
    fg_expr group = fg_ec(m->ex, FG_GET(anchor, conv, group).i);
    return x->rank >= 3 && x->rank <= 2 + AXES && x->dtype == y->dtype &&
           fg_product_acc(y->dtype) != FG_NODTYPE &&
           !fg_e_is(m->ex, fg_ediv(m->ex, y->dim[1], group), 1);
}
