/* quant_rows.c - rows of activations to bytes, a scale for each run of them.
 *
 *     %q, %s = quantize_rows %x {run=32} : u8[M,K], f32[M,24]
 *
 * Two looks at each run: for its largest magnitude, and to write it down. A run is a few
 * vectors, which stay in registers where their number is known.
 */
#include "codegen/cpu/quant.h"
#include "codegen/cpu/strided.h"

enum {
    MOST = 4,    /* vectors of a run that stay in registers */
    WORTH = 8192 /* elements of a chunk */
};

/* ---- runs of any length ---------------------------------------------------------- */

/* Largest magnitude of x[lo, hi). */
static fg_v
largest(fg_ll *g, fg_v x, fg_v lo, fg_v hi)
{
    fg_t vec = ll_vec(g->f32, g->W);
    ll_loop l;
    ll_for(g, &l, lo, hi, ll_i(g, g->W), 1, (fg_v[]){ll_zero(vec)});
    fg_v v =
        ll_mload(g, vec, ll_at(g, x, g->f32, l.i), ll_first(g, ll_sub(g, hi, l.i), g->W));
    ll_next(g, &l, (fg_v[]){ll_max(g, ll_abs(g, v), l.phi[0])});
    return ll_hmax(g, l.phi[0]);
}

/* x[lo, hi) as whole numbers of steps. */
static fg_v
in_steps(fg_ll *g, fg_v x, fg_v i, fg_v hi, fg_v steps)
{
    fg_v v = ll_mload(g, ll_vec(g->f32, g->W), ll_at(g, x, g->f32, i),
                      ll_first(g, ll_sub(g, hi, i), g->W));
    return ll_round(g, ll_mul(g, v, ll_splat(g, steps, g->W)));
}

/* The step of a run and how many there are in 1, from its largest magnitude. */
static fg_v
steps_of(fg_ll *g, fg_v most, fg_v *step)
{
    fg_v top = ll_cf(g->f32, 127), none = ll_cf(g->f32, 0);
    *step = ll_div(g, most, top);
    return ll_sel(g, ll_cmp(g, LL_GT, most, none), ll_div(g, top, most), none);
}

static void
round_body(fg_ll *g, int64_t round)
{
    enum { X, LDX, M, K };
    fg_v k = ll_param(g, K), step;
    ll_loop m, r, l;
    ll_for(g, &m, ll_i(g, 0), ll_param(g, M), ll_i(g, 1), 0, NULL);
    fg_v x = ll_at(g, ll_param(g, X), g->i8, ll_mul(g, m.i, ll_param(g, LDX)));
    ll_for(g, &r, ll_i(g, 0), k, ll_i(g, round), 0, NULL);
    fg_v hi = ll_min(g, ll_add(g, r.i, ll_i(g, round)), k);
    fg_v inverse = steps_of(g, largest(g, x, r.i, hi), &step);
    ll_for(g, &l, r.i, hi, ll_i(g, g->W), 0, NULL);
    fg_v v = ll_mul(g, in_steps(g, x, l.i, hi, inverse), ll_splat(g, step, g->W));
    ll_mstore(g, v, ll_at(g, x, g->f32, l.i), ll_first(g, ll_sub(g, hi, l.i), g->W));
    ll_next(g, &l, NULL);
    ll_next(g, &r, NULL);
    ll_next(g, &m, NULL);
}

void
fg_q_round_rows(fg_ll *g, int64_t round, fg_v x, fg_v ldx, fg_v m, fg_v k)
{
    fg_t param[4] = {g->ptr, g->i64, g->i64, g->i64};
    fg_qform own = {.round = round};
    ll_place back;
    fg_v fn;
    if (fg_q_helper(g, &own, "round", 4, param, &back, &fn)) {
        round_body(g, round);
        fg_helper_end(g, back);
    }
    ll_call(g, fn, 4, (fg_v[]){x, ldx, m, k});
}

/* ---- the operation --------------------------------------------------------------- */

typedef struct rounder {
    fg_em *e;
    fg_inst *i;
    int64_t run;
    bool direct; /* rows of x are in memory */
    fg_strided view;
    fg_v row, kept; /* the row under way; scratch for one that is pulled */
} rounder;

static void
keep_run(fg_em *e, void *user, fg_v at)
{
    rounder *r = user;
    const fg_type *x = fg_rt(e->m, r->i->in[0]);
    fg_index ix[FG_MAXRANK];
    fg_ix_unlinear(e, x->rank - 1, x->dim, fg_ix(e, r->row), ix);
    ix[x->rank - 1] = fg_ix_run(e, at, e->lanes);
    fg_v v = fg_lanes(e, fg_pull(e, r->i->in[0], ix));
    ll_store(e->g, v, ll_at(e->g, r->kept, e->g->f32, at));
}

static fg_v
row_of(rounder *r, fg_v k)
{
    fg_em *e = r->e;
    fg_ll *g = e->g;
    const fg_type *x = fg_rt(e->m, r->i->in[0]);
    if (!r->direct) {
        fg_em_run(e, ll_i(g, 0), k, fg_e_divides(e->m->ex, g->W, x->dim[x->rank - 1]),
                  keep_run, r);
        return r->kept;
    }
    fg_v at = ll_mul(g, r->row, fg_em_expr(e, r->view.stride[0]));
    at = ll_add(g, at, fg_em_expr(e, r->view.offset));
    return ll_at(g, fg_em_buf(e, r->view.param), g->f32, at);
}

static void
write_bytes(fg_ll *g, fg_v v, fg_v to, fg_v mask)
{
    fg_v q = ll_add(g, ll_toint(g, v, g->i32), ll_ci(ll_vec(g->i32, g->W), 128));
    ll_mstore(g, ll_sext(g, q, g->i8), to, mask);
}

/* Run [lo, hi) of a row, from memory. */
static void
any_run(fg_ll *g, fg_v x, fg_v lo, fg_v hi, fg_v q, fg_v s)
{
    fg_v step, inverse = steps_of(g, largest(g, x, lo, hi), &step);
    ll_loop l;
    ll_store(g, step, s);
    ll_for(g, &l, lo, hi, ll_i(g, g->W), 0, NULL);
    write_bytes(g, in_steps(g, x, l.i, hi, inverse), ll_at(g, q, g->i8, l.i),
                ll_first(g, ll_sub(g, hi, l.i), g->W));
    ll_next(g, &l, NULL);
}

/* The same of n whole vectors. */
static void
whole_run(fg_ll *g, int n, fg_v x, fg_v lo, fg_v q, fg_v s)
{
    fg_v v[MOST], most = NULL, step;
    for (int j = 0; j < n; j++) {
        v[j] = ll_load(g, ll_vec(g->f32, g->W),
                       ll_atc(g, ll_at(g, x, g->f32, lo), g->f32, j * g->W));
        fg_v size = ll_abs(g, v[j]);
        most = most ? ll_max(g, size, most) : size;
    }
    fg_v inverse = steps_of(g, ll_hmax(g, most), &step);
    ll_store(g, step, s);
    inverse = ll_splat(g, inverse, g->W);
    for (int j = 0; j < n; j++)
        write_bytes(g, ll_round(g, ll_mul(g, v[j], inverse)),
                    ll_atc(g, ll_at(g, q, g->i8, lo), g->i8, j * g->W), NULL);
}

static void
runs_of_row(rounder *r, fg_v x, fg_v k, fg_v q, fg_v s)
{
    fg_ll *g = r->e->g;
    int64_t n = r->run / g->W;
    fg_v run = ll_i(g, r->run), whole = ll_i(g, 0);
    ll_loop l;
    if (r->run % g->W == 0 && n <= MOST) {
        whole = ll_sub(g, k, ll_urem(g, k, run));
        ll_for(g, &l, ll_i(g, 0), whole, run, 0, NULL);
        whole_run(g, (int)n, x, l.i, q, ll_at(g, s, g->f32, ll_udiv(g, l.i, run)));
        ll_next(g, &l, NULL);
    }
    ll_for(g, &l, whole, k, run, 0, NULL);
    any_run(g, x, l.i, ll_min(g, ll_add(g, l.i, run), k), q,
            ll_at(g, s, g->f32, ll_udiv(g, l.i, run)));
    ll_next(g, &l, NULL);
}

bool
fg_gen_quantize_rows(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    fg_exprs *t = e->m->ex;
    const fg_type *x = fg_rt(e->m, i->in[0]), *s = fg_rt(e->m, i->out[1]);
    rounder r = {.e = e, .i = i, .run = FG_GET(i, quantize_rows, run).i};
    fg_expr rows = fg_ec(t, 1), k = x->dim[x->rank - 1], one = fg_ec(t, 1);
    fg_v to[2] = {NULL, NULL};
    ll_loop l;

    for (int n = 0; n < fg_em_nresult(e); n++) {
        if (fg_em_result(e, n) != i->out[0] && fg_em_result(e, n) != i->out[1])
            return fg_error(e->m->cx, "%s: rows are quantised by a kernel of their own",
                            fg_inst_where(e->m, i));
        to[fg_em_result(e, n) == i->out[1]] = fg_em_result_buf(e, n);
    }
    for (int n = 0; n + 1 < x->rank; n++)
        rows = fg_emul(t, rows, x->dim[n]);
    for (int n = 0; n < 2; n++) /* a result that nobody reads */
        if (!to[n])
            to[n] =
                fg_em_scratch(e, fg_emul(t, fg_emul(t, rows, k), fg_ec(t, n ? 4 : 1)));
    r.direct = fg_strided_of(e, i->in[0], &r.view) &&
               fg_strided_reshape(t, &r.view, 2, (fg_expr[]){rows, k}) &&
               fg_e_is(t, r.view.stride[1], 1);
    e->lanes = g->W;
    if (!r.direct)
        r.kept = fg_em_scratch(e, fg_emul(t, fg_eadd(t, k, fg_ec(t, g->W)), fg_ec(t, 4)));
    fg_expr per = fg_emax(t, fg_ediv(t, fg_ec(t, WORTH), fg_emax(t, k, one)), one);
    fg_em_items(e, &l, x->rank - 1, x->dim, per);
    fg_scopemark mark = fg_scope(e);
    r.row = l.i;
    fg_v vk = fg_em_expr(e, k), runs = fg_em_expr(e, s->dim[s->rank - 1]);
    runs_of_row(&r, row_of(&r, vk), vk, ll_at(g, to[0], g->i8, ll_mul(g, l.i, vk)),
                ll_at(g, to[1], g->f32, ll_mul(g, l.i, runs)));
    fg_unscope(e, mark);
    ll_next(g, &l, NULL);
    return true;
}
