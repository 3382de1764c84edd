/* verify.c - whether a module obeys the rules of its stage.
 *
 * Every stage   Blocks are well linked and end in their terminator. A register has one
 *               definition, above its readers and in a block around them; kernel regions
 *               see only their parameters. A run-time symbol is set before a type or an
 *               attribute mentions it. Operands have the classes of ops.def, and types are
 *               those that inference gives again.
 * TENSOR        no kernels
 * FUSED         whatever computes is in a kernel; outside are constants, shape
 *               arithmetic, control flow and calls of kernels
 * PLACED        and every register outside kernels has storage
 *
 * One walk in order: `at` holds for each register its place on the stack of what is visible,
 * so leaving a block is popping, and entering a kernel is raising the floor.
 */
#include "ir/ir.h"

#include <inttypes.h>

typedef struct verifier {
    fg_module *m;
    fg_arena *a;
    uint32_t *at; /* stack position + 1 of each visible register */
    fg_reg *stack;
    uint32_t depth, floor;
    fg_bits defined; /* registers seen defined anywhere */
    bool *set;       /* symbols that have a value here */
    bool runtime;    /* there are run-time symbols at all */
    bool kernel;     /* inside one */
} verifier;

__attribute__((format(printf, 3, 4))) static bool
fault(verifier *v, const fg_inst *i, const char *fmt, ...)
{
    fg_text t = fg_text_new(v->a);
    va_list ap;
    va_start(ap, fmt);
    fg_vputf(&t, fmt, ap);
    va_end(ap);
    return fg_error(v->m->cx, "%s%s%s", i ? fg_inst_where(v->m, i) : "", i ? ": " : "",
                    t.s);
}

static const char *
reg_name(const verifier *v, fg_reg r)
{
    return r && r < v->m->nreg ? v->m->reg[r].name : "?";
}

/* ---- expressions and types ---------------------------------------------------------- */

/* Known, up to date, and over symbols that have a value. */
static bool
check_expr(verifier *v, const fg_inst *i, fg_expr e, const char *what)
{
    if (e == FG_E_BAD)
        return fault(v, i, "%s is unknown", what);
    if (fg_e_renew(v->m->ex, e) != e)
        return fault(v, i, "%s mentions a symbol that was replaced", what);
    if (!v->runtime || !fg_e_mentions(v->m->ex, e, FG_SYM_RUN))
        return true;
    uint32_t n = fg_sym_count(v->m->ex);
    fg_bits in = fg_bits_new(v->a, n);
    fg_e_symbols(v->m->ex, e, in);
    for (fg_sym s = 0; s < n; s++)
        if (fg_bits_has(in, s) && !v->set[s])
            return fault(v, i, "%s mentions %s, which is not set yet", what,
                         fg_sym_info(v->m->ex, s)->name);
    return true;
}

static bool
check_type(verifier *v, const fg_inst *i, fg_reg r)
{
    const fg_type *t = fg_rt(v->m, r);
    if (!t->dtype || t->dtype >= FG_NDTYPES || t->rank > FG_MAXRANK)
        return fault(v, i, "%%%s has no type", reg_name(v, r));
    for (int k = 0; k < t->rank; k++)
        if (!check_expr(v, i, t->dim[k], "a dimension"))
            return false;
    return true;
}

/* ---- definitions -------------------------------------------------------------------- */

static bool
define(verifier *v, const fg_inst *i, const fg_block *b, fg_reg r)
{
    fg_module *m = v->m;
    if (!r || r >= m->nreg)
        return fault(v, i, "defines register %u, which does not exist", r);
    if (fg_bits_has(v->defined, r))
        return fault(v, i, "%%%s is defined twice", reg_name(v, r));
    if (m->reg[r].def != i || m->reg[r].block != b)
        return fault(v, i, "%%%s does not know its definition", reg_name(v, r));
    fg_bits_add(v->defined, r);
    v->stack[v->depth++] = r;
    v->at[r] = v->depth;
    return check_type(v, i, r);
}

static void
leave(verifier *v, uint32_t depth)
{
    while (v->depth > depth)
        v->at[v->stack[--v->depth]] = 0;
}

static bool
check_reads(verifier *v, const fg_inst *i)
{
    for (int k = 0; k < i->nin; k++) {
        fg_reg r = i->in[k];
        if (r >= v->m->nreg)
            return fault(v, i, "reads register %u, which does not exist", r);
        if (r && v->at[r] <= v->floor)
            return fault(v, i, "reads %%%s, which is %s", reg_name(v, r),
                         v->at[r]                     ? "outside its kernel"
                         : fg_bits_has(v->defined, r) ? "in a region that has ended"
                                                      : "not defined above");
    }
    return true;
}

/* ---- attributes --------------------------------------------------------------------- */

static bool
check_symbol(verifier *v, const fg_inst *i, int64_t s)
{
    if (s < 0 || s >= fg_sym_count(v->m->ex) ||
        fg_sym_info(v->m->ex, (fg_sym)s)->kind != FG_SYM_RUN)
        return fault(v, i, "sets a symbol that is not computed while running");
    return true;
}

static bool
check_attr(verifier *v, const fg_inst *i, const fg_attrinfo *info, const fg_attr *a)
{
    switch (info->kind) {
    case FG_AK_flag:
        return a->i == 0 || a->i == 1 || fault(v, i, "%s must be 0 or 1", info->name);
    case FG_AK_dtype:
        return (a->i >= 0 && a->i < FG_NDTYPES) ||
               fault(v, i, "%s is not an element type", info->name);
    case FG_AK_word:
        return a->s || fault(v, i, "%s is missing", info->name);
    case FG_AK_expr:
        return a->e == FG_E_BAD || check_expr(v, i, a->e, info->name);
    case FG_AK_exprs:
        for (int k = 0; k < a->n; k++)
            if (!check_expr(v, i, a->es[k], info->name))
                return false;
        return true;
    case FG_AK_weight:
        return (a->i >= 0 && a->i < v->m->nweight) || fault(v, i, "no such weight");
    case FG_AK_sym:
        return check_symbol(v, i, a->i);
    case FG_AK_syms:
        for (int k = 0; k < a->n; k++)
            if (!check_symbol(v, i, a->is[k]))
                return false;
        return true;
    default:
        return true;
    }
}

static bool
check_attrs(verifier *v, const fg_inst *i)
{
    const fg_opinfo *info = fg_op_info(i->op);
    for (int k = 0; k < info->nattr; k++)
        if (!check_attr(v, i, &fg_attrs[info->attr0 + k], &i->attr[k]))
            return false;
    return true;
}

/* The symbols an instruction sets; `inside`: those its regions see. */
static const fg_attr *
symbols_set(const fg_inst *i, bool inside)
{
    if (i->op == FG_OP_loop)
        return &FG_GET(i, loop, syms);
    if (i->op == FG_OP_if && !inside)
        return &FG_GET(i, if, syms);
    return NULL;
}

static void
set_symbols(verifier *v, const fg_inst *i, bool inside)
{
    const fg_attr *syms = symbols_set(i, inside);
    for (int k = 0; syms && k < syms->n; k++)
        v->set[syms->is[k]] = true;
    if (i->op == FG_OP_readsym)
        v->set[FG_GET(i, readsym, sym).i] = true;
}

/* ---- regions ------------------------------------------------------------------------ */

/* A value of type `from` may become one of type `to`, whose first `skip` axes are new: the
 * rest agree, or are set from what flows. */
static bool
flows(verifier *v, const fg_inst *i, const fg_type *from, const fg_type *to, int skip)
{
    if (from->dtype != to->dtype || from->rank + skip != to->rank)
        return false;
    const fg_attr *syms = symbols_set(i, false);
    for (int k = 0; k < from->rank; k++) {
        fg_expr d = to->dim[k + skip];
        bool ok = d == from->dim[k];
        if (ok)
            continue;
        fg_bits in = fg_bits_new(v->a, fg_sym_count(v->m->ex));
        fg_e_symbols(v->m->ex, d, in);
        for (int s = 0; syms && s < syms->n; s++)
            ok |= fg_bits_has(in, (uint32_t)syms->is[s]);
        if (!ok)
            return false;
    }
    return true;
}

static bool
check_flow(verifier *v, const fg_inst *i, fg_reg from, fg_reg to, int skip)
{
    if (!from)
        return fault(v, i, "%%%s gets no value", reg_name(v, to));
    if (flows(v, i, fg_rt(v->m, from), fg_rt(v->m, to), skip))
        return true;
    return fault(v, i, "%%%s: %s flows into %%%s: %s", reg_name(v, from),
                 fg_type_text(v->m, fg_rt(v->m, from)), reg_name(v, to),
                 fg_type_text(v->m, fg_rt(v->m, to)));
}

/* Parameters from `first` on get the operands; results get what is yielded behind `skip`
 * values, all but `carried` of them stacked on a new axis. */
static bool
check_region(verifier *v, const fg_inst *i, const fg_block *b, int first, int skip,
             int carried)
{
    const fg_inst *y = b->last;
    if (y->nin != i->nout + skip)
        return fault(v, i, "%d values are yielded for %d results", y->nin,
                     i->nout + skip);
    for (int k = first; k < b->nparam; k++)
        if (!check_flow(v, i, i->in[k], b->param[k], 0))
            return false;
    for (int k = 0; k < i->nout; k++)
        if (!check_flow(v, i, y->in[skip + k], i->out[k], k >= carried))
            return false;
    return true;
}

static bool
check_loop_head(verifier *v, const fg_inst *i)
{
    const fg_block *b = i->region[0];
    int64_t carried = FG_GET(i, loop, carried).i;
    if (i->nin < 2 || carried != i->nin - 2 || carried > i->nout)
        return fault(v, i, "%" PRId64 " carried values, but %d operands and %d results",
                     carried, i->nin, i->nout);
    if (b->nparam != i->nin)
        return fault(v, i, "%d region parameters for %d operands", b->nparam, i->nin);
    const fg_type *iter = fg_rt(v->m, b->param[0]), *cond = fg_rt(v->m, b->param[1]);
    if (iter->dtype != FG_i64 || iter->rank || cond->dtype != FG_bool || cond->rank)
        return fault(v, i, "the region must begin with an i64[] and a bool[]");
    const fg_inst *y = b->last;
    if (!y->nin || !y->in[0] || fg_rt(v->m, y->in[0])->dtype != FG_bool)
        return fault(v, i, "the region must yield a condition first");
    return true;
}

static bool check_block(verifier *v, const fg_block *b);

static bool
check_regions(verifier *v, const fg_inst *i)
{
    int need = i->op == FG_OP_if ? 2 : i->op == FG_OP_loop || i->op == FG_OP_kernel;
    if (i->nregion != need)
        return fault(v, i, "%d regions, not %d", i->nregion, need);
    if (i->op == FG_OP_kernel && v->kernel)
        return fault(v, i, "a kernel inside a kernel");
    uint32_t floor = v->floor, nsym = fg_sym_count(v->m->ex);
    bool kernel = v->kernel;
    bool *outer = fg_dup(v->a, v->set, nsym * sizeof *outer);
    for (int k = 0; k < need; k++) {
        const fg_block *b = i->region[k];
        if (b->owner != i || b->parent != i->block || b->m != v->m)
            return fault(v, i, "region %d belongs elsewhere", k);
        if (i->op != FG_OP_loop && b->nparam != (i->op == FG_OP_kernel ? i->nin : 0))
            return fault(v, i, "%d region parameters for %d operands", b->nparam, i->nin);
        set_symbols(v, i, true);
        v->kernel |= i->op == FG_OP_kernel;
        v->floor = i->op == FG_OP_kernel ? v->depth : floor;
        if (!check_block(v, b))
            return false;
        v->floor = floor;
        v->kernel = kernel;
        memcpy(v->set, outer, nsym * sizeof *outer);
    }
    return true;
}

/* After the results are known: what flows in and out of the regions has their types. */
static bool
check_flows(verifier *v, const fg_inst *i)
{
    if (i->op != FG_OP_loop) {
        for (int k = 0; k < i->nregion; k++)
            if (!check_region(v, i, i->region[k], 0, 0, i->nout))
                return false;
        return true;
    }
    int carried = (int)FG_GET(i, loop, carried).i;
    const fg_block *b = i->region[0];
    if (!check_loop_head(v, i) || !check_region(v, i, b, 2, 1, carried))
        return false;
    for (int k = 0; k < carried; k++)
        if (!check_flow(v, i, b->last->in[1 + k], b->param[2 + k], 0))
            return false;
    return true;
}

/* ---- stages ------------------------------------------------------------------------- */

static bool
check_stage(verifier *v, const fg_inst *i)
{
    static const bool outside[FG_NOPS] = {
        [FG_OP_const] = true,   [FG_OP_symvec] = true, [FG_OP_readsym] = true,
        [FG_OP_require] = true, [FG_OP_if] = true,     [FG_OP_loop] = true,
        [FG_OP_kernel] = true,  [FG_OP_yield] = true,  [FG_OP_ret] = true,
    };
    if (v->m->stage == FG_STAGE_TENSOR)
        return i->op != FG_OP_kernel || fault(v, i, "a kernel before stage fused");
    if (v->kernel)
        return (!fg_has_effect(i) && !i->nregion) || i->op == FG_OP_yield ||
               fault(v, i, "cannot be part of a kernel");
    return outside[i->op] || fault(v, i, "is not in a kernel");
}

static bool
check_storage(verifier *v, const fg_inst *i, fg_reg r)
{
    const fg_module *m = v->m;
    const fg_reginfo *ri = &m->reg[r];
    if (m->stage != FG_STAGE_PLACED || v->kernel)
        return ri->mem == FG_MEM_NONE ||
               fault(v, i, "%%%s has storage already", reg_name(v, r));
    bool ok = ri->mem != FG_MEM_NONE;
    if (ri->mem == FG_MEM_INPUT)
        ok = !i && ri->block == m->body;
    if (ri->mem == FG_MEM_STATE)
        ok = !i && ri->block == m->body && fg_in_state(m, r);
    if (ri->mem == FG_MEM_CONST)
        ok = fg_is_op(i, FG_OP_const);
    if (ri->mem == FG_MEM_ONCE)
        ok = i && fg_kernel_once(m, i);
    if (ri->mem == FG_MEM_ARENA)
        ok = ri->offset >= 0;
    fg_reg end = r;
    for (uint32_t steps = 0; ok && m->reg[end].mem == FG_MEM_ALIAS; steps++) {
        end = m->reg[end].alias;
        ok = end && end < m->nreg && steps < m->nreg;
    }
    return ok || fault(v, i, "%%%s has no storage that fits it", reg_name(v, r));
}

/* ---- instructions and blocks -------------------------------------------------------- */

static uint32_t
free_symbols(fg_module *m)
{
    uint32_t n = 0;
    for (fg_sym s = 0; s < fg_sym_count(m->ex); s++)
        n += fg_sym_info(m->ex, s)->is == FG_E_BAD;
    return n;
}

/* Inference again, with the types there are as those given. It must not even have to
 * assume that two symbols are equal: that would have been done when i was made. */
static bool
check_inference(verifier *v, fg_inst *i)
{
    fg_module *m = v->m;
    const fg_opinfo *info = fg_op_info(i->op);
    if (info->nout != FG_OUTS_N && i->nout != info->nout)
        return fault(v, i, "%d results, not %d", i->nout, info->nout);
    fg_type *have = FG_NEWN(v->a, fg_type, (size_t)i->nout);
    fg_type *want = FG_NEWN(v->a, fg_type, (size_t)i->nout);
    for (int k = 0; k < i->nout; k++)
        have[k] = *fg_rt(m, i->out[k]);
    uint32_t before = free_symbols(m);
    if (!fg_inst_infer(m, i, i->nout ? have : NULL, want))
        return false;
    if (free_symbols(m) != before)
        return fault(v, i, "its types are right only if symbols are equal");
    for (int k = 0; k < i->nout; k++)
        if (!fg_type_equal(&have[k], &want[k]))
            return fault(v, i, "%%%s is %s, but inference gives %s",
                         reg_name(v, i->out[k]), fg_type_text(m, &have[k]),
                         fg_type_text(m, &want[k]));
    return true;
}

static bool
check_inst(verifier *v, const fg_block *b, fg_inst *i)
{
    if (i->op <= FG_OP_NONE || i->op >= FG_NOPS)
        return fault(v, NULL, "unknown operation %d", (int)i->op);
    if (i->block != b || (i->prev ? i->prev->next : b->first) != i ||
        (i->next ? i->next->prev : b->last) != i)
        return fault(v, i, "is not linked into its block");
    if (fg_op_is(i->op, FG_T_TERM) != !i->next)
        return fault(v, i, "%s",
                     i->next ? "is not the last of its block" : "does not end its block");
    if (i->op == FG_OP_ret ? b->owner != NULL : i->op == FG_OP_yield && !b->owner)
        return fault(v, i, "ends the wrong kind of block");
    if (!check_stage(v, i) || !check_reads(v, i) || !fg_inst_operands_ok(v->m, i) ||
        !check_attrs(v, i) || !check_regions(v, i))
        return false;
    set_symbols(v, i, false);
    for (int k = 0; k < i->nout; k++)
        if (!define(v, i, b, i->out[k]) || !check_storage(v, i, i->out[k]))
            return false;
    return check_inference(v, i) && check_flows(v, i);
}

static bool
check_block(verifier *v, const fg_block *b)
{
    uint32_t depth = v->depth;
    if (!b->last)
        return fault(v, b->owner, "an empty block");
    for (int k = 0; k < b->nparam; k++)
        if (!define(v, NULL, b, b->param[k]) || !check_storage(v, NULL, b->param[k]))
            return false;
    for (fg_inst *i = b->first; i; i = i->next)
        if (!check_inst(v, b, i))
            return false;
    leave(v, depth);
    return true;
}

/* ---- module ------------------------------------------------------------------------- */

static bool
check_default(verifier *v, const fg_port *io)
{
    if (io->weight < 0)
        return true;
    if (io->weight >= v->m->nweight)
        return fault(v, NULL, "input \"%s\": no such weight", io->name);
    const fg_weight *w = &v->m->weight[io->weight];
    const fg_type *t = fg_rt(v->m, io->reg);
    if (w->dtype != t->dtype || w->rank != t->rank)
        return fault(v, NULL, "input \"%s\": its default has another type", io->name);
    return true;
}

static bool
check_ports(verifier *v)
{
    fg_module *m = v->m;
    const fg_inst *ret = m->body->last;
    if (m->ninput != m->body->nparam)
        return fault(v, NULL, "%d inputs for %d parameters", m->ninput, m->body->nparam);
    for (int k = 0; k < m->ninput; k++) {
        if (m->input[k].reg != m->body->param[k])
            return fault(v, NULL, "input %d is not parameter %%%s", k,
                         reg_name(v, m->body->param[k]));
        if (!check_default(v, &m->input[k]))
            return false;
    }
    if (m->noutput != ret->nin)
        return fault(v, ret, "%d operands for %d outputs", ret->nin, m->noutput);
    for (int k = 0; k < m->noutput; k++)
        if (!ret->in[k] || m->output[k].reg != ret->in[k])
            return fault(v, ret, "operand %d is not output \"%s\"", k, m->output[k].name);
    return true;
}

/* The output is the input with something appended: first, when it grows, behind what is
 * valid, and up to what is valid next; then to rows that are found while running. */
static bool
appends_only(fg_module *m, const fg_state *s)
{
    fg_reg r = m->output[s->output].reg, x;
    const fg_inst *i;
    bool grown = false;
    while ((i = fg_append_of(m, r, &x))) {
        fg_expr at = FG_GET(i, append, at).e;
        if (FG_GET(i, append, axis).i != s->axis || grown)
            return false;
        grown = at != FG_E_BAD;
        fg_expr end = fg_eadd(m->ex, at, fg_rt(m, i->in[1])->dim[s->axis]);
        if (grown &&
            (at != (s->at == FG_E_BAD ? s->length : s->at) || end != fg_state_rows(m, s)))
            return false;
        r = x;
    }
    return r == m->input[s->input].reg && r != m->output[s->output].reg &&
           (grown || s->length == s->next);
}

/* Rows from `start` on are among the last `keep` of the past, or appended. The past of a window
 * that the model cuts has no more: then any of it will do. */
static bool
in_window(fg_module *m, const fg_state *s, fg_expr start)
{
    fg_exprs *x = m->ex;
    fg_expr back = fg_esub(x, s->at, start);
    int64_t most = fg_e_hi(x, back);

    if (fg_state_cut(m, s))
        return fg_e_le(x, fg_esub(x, fg_state_rows(m, s), start),
                       fg_eadd(x, s->length, fg_state_more(m, s)));
    return most <= s->keep && back == fg_emin(x, s->length, fg_ec(x, most));
}

/* Nobody reads other rows: r is the storage of a window, or what a region calls it. */
static bool
reads_window(fg_module *m, const fg_state *s, const fg_block *b, fg_reg r)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nin; k++) {
            if (i->in[k] != r)
                continue;
            if (i->op == FG_OP_kernel) {
                if (!reads_window(m, s, i->region[0], i->region[0]->param[k]))
                    return false;
            } else if (i->op == FG_OP_slice) {
                if (FG_GET(i, slice, step).is[s->axis] != 1 ||
                    !in_window(m, s, FG_GET(i, slice, start).es[s->axis]))
                    return false;
            } else if (i != b->last && !(i->op == FG_OP_append && k == 0)) {
                return false;
            }
        }
    }
    return true;
}

/* Of past and new rows the last `keep`, of which at first there may be fewer. */
static bool
keeps_last(fg_module *m, const fg_state *s)
{
    fg_expr all = fg_eadd(m->ex, s->length, fg_state_more(m, s));

    return s->next == fg_emin(m->ex, all, fg_ec(m->ex, s->keep));
}

/* What says where a window's past ends is a symbol that no input tells, and the same for all
 * that share a capacity. */
static bool
check_window(verifier *v, const fg_state *s, const char *name)
{
    fg_module *m = v->m;
    fg_sym at;
    if (!check_expr(v, NULL, s->at, "a state's row"))
        return false;
    if (!fg_e_single(m->ex, s->at, &at) || fg_sym_info(m->ex, at)->kind != FG_SYM_INPUT ||
        fg_sym_info(m->ex, at)->lo < 0 || s->keep < 0)
        return fault(v, NULL, "state \"%s\": its row is not a symbol", name);
    for (int k = 0; k < m->nstate; k++) {
        const fg_state *o = &m->state[k];
        bool apart = fg_state_capacity(m, o) != fg_state_capacity(m, s);
        if (o->length != FG_E_BAD && (o->at == s->at) == apart)
            return fault(v, NULL, "state \"%s\": another one has its row", name);
        if (o->length != FG_E_BAD && !apart &&
            (o->keep != s->keep || fg_state_more(m, o) != fg_state_more(m, s)))
            return fault(v, NULL, "state \"%s\": another one keeps other rows", name);
    }
    if (fg_state_rows(m, s) == FG_E_BAD ||
        !reads_window(m, s, m->body, m->output[s->output].reg))
        return fault(v, NULL, "state \"%s\": more is read of it than it keeps", name);
    return !fg_state_cut(m, s) || keeps_last(m, s) ||
           fault(v, NULL, "state \"%s\": its present is not its last rows", name);
}

/* In place: nothing but appending changes it, and the capacity is a symbol of its own, so
 * that nothing else says what it is. */
static bool
check_in_place(verifier *v, const fg_state *s, const char *name)
{
    fg_module *m = v->m;
    const fg_type *t = fg_rt(m, m->input[s->input].reg);
    fg_sym capacity;
    if (!check_expr(v, NULL, s->length, "a state's length") ||
        !check_expr(v, NULL, s->next, "a state's next length"))
        return false;
    if (fg_e_mentions(m->ex, s->length, FG_SYM_RUN) ||
        fg_e_mentions(m->ex, s->next, FG_SYM_RUN))
        return fault(v, NULL, "state \"%s\": its length is found while running", name);
    if (!fg_e_single(m->ex, t->dim[s->axis], &capacity))
        return fault(v, NULL, "state \"%s\": its capacity is not a symbol", name);
    fg_sym at = capacity;
    if (s->at != FG_E_BAD)
        fg_e_single(m->ex, s->at, &at);
    for (int k = 0; k < m->ninput; k++) {
        fg_type host = fg_input_type(m, k);
        fg_bits in = fg_bits_new(v->a, fg_sym_count(m->ex) + 1);
        for (int d = 0; d < host.rank; d++)
            fg_e_symbols(m->ex, host.dim[d], in);
        if (fg_bits_has(in, capacity) || fg_bits_has(in, at))
            return fault(v, NULL, "state \"%s\": an input has its capacity", name);
    }
    for (int k = 0; k < m->nstate; k++)
        if (m->state[k].length != FG_E_BAD && m->state[k].next != s->next &&
            fg_state_capacity(m, &m->state[k]) == t->dim[s->axis])
            return fault(v, NULL, "state \"%s\": another one has its capacity", name);
    if (fg_e_lo(m->ex, s->length) < 0 || !appends_only(m, s))
        return fault(v, NULL, "state \"%s\": the output is not the input, appended to",
                     name);
    return s->at == FG_E_BAD || check_window(v, s, name);
}

static bool
check_states(verifier *v)
{
    fg_module *m = v->m;
    for (int k = 0; k < m->nstate; k++) {
        const fg_state *s = &m->state[k];
        const char *name = m->input[s->input].name;
        const fg_type *a = fg_rt(m, m->input[s->input].reg);
        const fg_type *b = fg_rt(m, m->output[s->output].reg);
        if (fg_state_of_input(m, s->input) != s || fg_state_of_output(m, s->output) != s)
            return fault(v, NULL, "state \"%s\": a port of two states", name);
        if (a->dtype != b->dtype || a->rank != b->rank || s->axis < -1 ||
            s->axis >= a->rank)
            return fault(v, NULL, "state \"%s\": input and output differ in type", name);
        for (int d = 0; d < a->rank; d++)
            if (a->dim[d] != b->dim[d] && (d != s->axis || s->length != FG_E_BAD))
                return fault(v, NULL, "state \"%s\": sizes differ on axis %d", name, d);
        if (s->length != FG_E_BAD && !check_in_place(v, s, name))
            return false;
    }
    return true;
}

bool
fg_verify(fg_module *m)
{
    uint32_t nsym = fg_sym_count(m->ex);
    verifier v = {.m = m, .a = fg_arena_new(m->cx)};
    v.at = FG_NEWN(v.a, uint32_t, m->nreg);
    v.stack = FG_NEWN(v.a, fg_reg, m->nreg);
    v.defined = fg_bits_new(v.a, m->nreg);
    v.set = FG_NEWN(v.a, bool, nsym + 1);
    for (fg_sym s = 0; s < nsym; s++) {
        v.set[s] = fg_sym_info(m->ex, s)->kind == FG_SYM_INPUT;
        v.runtime |= !v.set[s];
    }
    bool ok = check_block(&v, m->body) && check_ports(&v) && check_states(&v);
    fg_arena_free(v.a);
    return ok;
}
