/* place.c - decides where every register of a FUSED module lives.
 *
 *     %k = kernel %x ..        -> @arena+0
 *     %r = kernel %k {reshape} -> alias %k        same bytes: the kernel never runs
 *     %y = kernel %r ..        -> @output         written where the host wants it
 *     %z = kernel %y {add %y}  -> alias %y        in place: the kernel reads %y last, and
 *                                                 where it writes
 *     %w = const {w=$0}        -> @const          read where the file is mapped
 *     %p = kernel %k {append}  -> alias %k        %k is a state: only new rows are written
 *
 * Tensors whose size is known from the inputs share one arena. The runtime makes the plan
 * for the sizes it gets; here it is made for nominal ones, to be printed, checked
 * and reported. A register that another one aliases lives as long as both.
 */
#include "passes/place.h"

#include "runtime/plan.h"

/* ---- aliases ---------------------------------------------------------------------- */

/* Axes longer than 1 keep their order. */
static bool
moves_only_units(fg_module *m, const fg_inst *i)
{
    const fg_attr *perm = &FG_GET(i, transpose, perm);
    int64_t last = -1;

    for (int k = 0; k < perm->n; k++) {
        if (fg_e_is(m->ex, fg_rt(m, i->in[0])->dim[perm->is[k]], 1))
            continue;
        if (perm->is[k] < last)
            return false;
        last = perm->is[k];
    }
    return true;
}

static bool
keeps_bytes(fg_module *m, const fg_inst *i)
{
    switch (i->op) {
    case FG_OP_bitcast:
    case FG_OP_copy:
    case FG_OP_reshape:
        return true;
    case FG_OP_transpose:
        return moves_only_units(m, i);
    case FG_OP_expand:
        return fg_type_count(m->ex, fg_rt(m, i->in[0])) ==
               fg_type_count(m->ex, fg_rt(m, i->out[0]));
    default:
        return false;
    }
}

fg_reg
fg_kernel_alias(fg_module *m, const fg_inst *kernel)
{
    const fg_block *b = kernel->region[0];

    if (kernel->nout != 1 || !b->last || b->last->op != FG_OP_yield)
        return 0;
    fg_reg r = b->last->in[0];
    while (fg_def(m, r)) {
        const fg_inst *i = fg_def(m, r);
        if (!keeps_bytes(m, i))
            return 0;
        r = i->in[0];
    }
    for (int k = 0; k < b->nparam; k++)
        if (b->param[k] == r)
            return kernel->in[k];
    return 0;
}

fg_reg
fg_storage_of(const fg_module *m, fg_reg r)
{
    while (m->reg[r].mem == FG_MEM_ALIAS)
        r = m->reg[r].alias;
    return r;
}

/* ---- sizes ------------------------------------------------------------------------- */

int64_t *
fg_nominal_symbols(fg_module *m, fg_arena *a)
{
    uint32_t n = fg_sym_count(m->ex);
    int64_t *v = FG_NEWN(a, int64_t, n + 1);
    fg_bits batch = fg_bits_new(a, n + 1);

    for (int k = 0; k < m->ninput; k++) {
        const fg_type *t = fg_rt(m, m->input[k].reg);
        if (t->rank)
            fg_e_symbols(m->ex, t->dim[0], batch);
    }
    for (uint32_t s = 0; s < n; s++) {
        const fg_syminfo *i = fg_sym_info(m->ex, s);
        v[s] = i->usual ? i->usual : fg_bits_has(batch, s) ? 1 : 128;
        v[s] = v[s] < i->lo ? i->lo : v[s] > i->hi ? i->hi : v[s];
    }
    return v;
}

int64_t
fg_reg_bytes(fg_module *m, fg_reg r, const int64_t *sym)
{
    const fg_type *t = fg_rt(m, r);
    int64_t count = 1, d;
    size_t bytes;

    for (int k = 0; k < t->rank; k++)
        if (!fg_e_eval(m->ex, t->dim[k], sym, &d) || d < 0 ||
            __builtin_mul_overflow(count, d, &count))
            return -1;
    return fg_dtype_bytes(t->dtype, count, &bytes) && bytes <= INT64_MAX ? (int64_t)bytes
                                                                         : -1;
}

static bool
sized_while_running(fg_module *m, fg_reg r)
{
    const fg_type *t = fg_rt(m, r);

    for (int k = 0; k < t->rank; k++)
        if (fg_e_mentions(m->ex, t->dim[k], FG_SYM_RUN))
            return true;
    return false;
}

/* ---- storage ----------------------------------------------------------------------- */

static void
own_storage(fg_module *m, int n, const fg_reg *r)
{
    for (int k = 0; k < n; k++)
        fg_ri(m, r[k])->mem =
            sized_while_running(m, r[k]) ? FG_MEM_DYNAMIC : FG_MEM_ARENA;
}

static void
place_block(fg_module *m, fg_block *b)
{
    fg_each_inst(b, i) {
        fg_reg same = i->op == FG_OP_kernel ? fg_kernel_alias(m, i) : 0;
        if (i->op == FG_OP_const) {
            fg_ri(m, i->out[0])->mem = FG_MEM_CONST;
        } else if (fg_kernel_once(m, i)) {
            fg_ri(m, i->out[0])->mem = FG_MEM_ONCE;
        } else if (same) {
            fg_ri(m, i->out[0])->mem = FG_MEM_ALIAS;
            fg_ri(m, i->out[0])->alias = same;
        } else {
            own_storage(m, i->nout, i->out);
        }
        for (int k = 0; k < i->nout; k++)
            if (fg_in_state(m, i->out[k])) {
                fg_ri(m, i->out[k])->mem = FG_MEM_ALIAS;
                fg_append_of(m, i->out[k], &fg_ri(m, i->out[k])->alias);
            }
        if (i->op == FG_OP_kernel)
            continue;
        for (int k = 0; k < i->nregion; k++) {
            own_storage(m, i->region[k]->nparam, i->region[k]->param);
            place_block(m, i->region[k]);
        }
    }
}

/* An output is computed in place unless it is an input, a constant or another output:
 * then the runtime copies it at the end. */
static void
place_outputs(fg_module *m)
{
    for (int k = 0; k < m->noutput; k++) {
        fg_reginfo *s = fg_ri(m, fg_storage_of(m, m->output[k].reg));
        if (s->mem == FG_MEM_ARENA || s->mem == FG_MEM_DYNAMIC)
            s->mem = FG_MEM_OUTPUT;
    }
}

static int
distinct_offsets(const fg_planitem *item, int n)
{
    int distinct = 0;

    for (int i = 0; i < n; i++) {
        int j = 0;
        while (j < i && item[j].offset != item[i].offset)
            j++;
        distinct += j == i;
    }
    return distinct;
}

static bool
plan(fg_module *m, fg_passctx *cx, const fg_liverange *live)
{
    fg_arena *a = cx->scratch;
    int64_t *sym = fg_nominal_symbols(m, a);
    int *index = FG_NEWN(a, int, m->nreg);
    fg_reg *owner = FG_NEWN(a, fg_reg, m->nreg);
    fg_planitem *item = FG_NEWN(a, fg_planitem, m->nreg);
    int64_t naive = 0;
    int n = 0, aliases = 0, elsewhere = 0;
    fg_plansize size;

    for (fg_reg r = 1; r < m->nreg; r++) {
        if (live[r].first < 0 || m->reg[r].mem != FG_MEM_ARENA)
            continue;
        int64_t bytes = fg_reg_bytes(m, r, sym);
        item[n] = (fg_planitem){bytes < 0 ? 0 : bytes, live[r].first, live[r].last, 0};
        owner[n] = r;
        index[r] = n++;
    }
    for (fg_reg r = 1; r < m->nreg; r++) {
        fg_reg s = live[r].first < 0 ? 0 : fg_storage_of(m, r);
        elsewhere +=
            s == r && (m->reg[r].mem == FG_MEM_OUTPUT || m->reg[r].mem == FG_MEM_DYNAMIC);
        if (!s || s == r || m->reg[s].mem == FG_MEM_STATE)
            continue;
        aliases++;
        int64_t bytes = fg_reg_bytes(m, r, sym);
        naive += bytes < 0 ? 0 : bytes;
        if (m->reg[s].mem == FG_MEM_ARENA && live[r].last > item[index[s]].last)
            item[index[s]].last = live[r].last;
    }
    if (!fg_plan(item, n, FG_NEWN(a, int64_t, FG_PLAN_SCRATCH(n) + 1), &size))
        return fg_error(m->cx,
                        "intermediate tensors need more memory than can be addressed");
    for (int k = 0; k < n; k++)
        fg_ri(m, owner[k])->offset = item[k].offset;
    if (cx->report) {
        fg_report *p = cx->report;
        p->buffers_virtual = n + aliases + elsewhere;
        p->buffers_physical = distinct_offsets(item, n) + elsewhere;
        p->bytes_naive = size.naive + naive;
        p->bytes_planned = size.planned;
        p->bytes_lower_bound = size.bound;
    }
    return true;
}

fg_progress
fg_pass_place(fg_module *m, fg_passctx *cx)
{
    for (int k = 0; k < m->body->nparam; k++)
        fg_ri(m, m->body->param[k])->mem =
            fg_in_state(m, m->body->param[k]) ? FG_MEM_STATE : FG_MEM_INPUT;
    place_block(m, m->body);
    place_outputs(m);
    const fg_liverange *live = fg_liveness(m, cx->scratch);
    if (cx->opt >= 1)
        fg_place_in_place(m, cx->scratch, live);
    if (!plan(m, cx, live))
        return FG_FAILED;
    m->stage = FG_STAGE_PLACED;
    return fg_check_place(m, cx->scratch) ? FG_CHANGED : FG_FAILED;
}
