/* program.c - a PLACED module and its machine code as the runtime's tables.
 *
 *     %a = kernel %x, %w     step KERNEL fn=3 buf=[x w a] arg=[v7 v9] chunks=v12
 *     %r = kernel %a {..}    no step: tensor r is ALIAS of a
 *     if %c { .. }           step IF buf=[c] block=[1 2] flow_out: yields -> results
 *     ret %x                 step COPY x -> the output: %x is not computed here
 *
 * Every register outside kernels is one tensor. Registers of a region are tensors of
 * the same table, its instructions are a block of the same step table. Where control
 * flow joins, values are copied by flows; flows of one join happen as if all at once,
 * so a value that an earlier flow of the list would overwrite goes through a tensor of
 * its own.
 */
#include "codegen/program.h"

#include "passes/place.h"

typedef struct lower {
    fg_module *m;
    fg_arena *a;
    fg_vtab *values;
    fg_kcode *kc;
    int nkc, next_kc;
    const fg_specials *specials;
    fg_kernel_fn *(*fn)(const void *code, int fn);
    const void *code;
    fg_liverange *live;
    uint32_t *tensor_of; /* by register: tensor + 1 */
    fg_tensordef *tensor;
    fg_step *step;
    fg_blockdef *block;
    uint32_t ntensor, nstep, nblock;
    struct steps *once; /* what runs before the first run */
    size_t captensor, capstep, capblock;
    bool failed;
} lower;

/* ---- tensors ---------------------------------------------------------------------- */

static uint32_t
value(lower *l, fg_expr e)
{
    uint32_t v = fg_vtab_expr(l->values, e);

    if (v == FG_NONE && !l->failed) {
        l->failed = true;
        fg_error(l->m->cx, "a size overflows or cannot be expressed");
        return 0;
    }
    return v;
}

static uint32_t
new_tensor_like(lower *l, fg_reg r, const fg_type *type, fg_storage storage)
{
    fg_tensordef t = {.name = fg_ri(l->m, r)->name,
                      .dtype = type->dtype,
                      .storage = (uint8_t)storage,
                      .rank = type->rank,
                      .first = l->live[r].first,
                      .last = l->live[r].last};

    for (int k = 0; k < t.rank; k++)
        t.dim[k] = value(l, type->dim[k]);
    t.bytes = fg_vtab_bytes(l->values, t.rank, t.dim, fg_dtypes[t.dtype].bits);
    FG_PUSH(l->a, l->tensor, l->ntensor, l->captensor) = t;
    return l->ntensor - 1;
}

static uint32_t
new_tensor(lower *l, fg_reg r, fg_storage storage)
{
    fg_type type = *fg_rt(l->m, r);

    return new_tensor_like(l, r, &type, storage);
}

static uint32_t
output_port(const lower *l, fg_reg storage)
{
    for (int k = 0; k < l->m->noutput; k++)
        if (fg_storage_of(l->m, l->m->output[k].reg) == storage)
            return (uint32_t)k;
    return FG_NONE;
}

static uint32_t
tensor(lower *l, fg_reg r)
{
    static const fg_storage storage[] = {
        [FG_MEM_INPUT] = FG_ST_INPUT, [FG_MEM_OUTPUT] = FG_ST_OUTPUT,
        [FG_MEM_CONST] = FG_ST_CONST, [FG_MEM_ARENA] = FG_ST_ARENA,
        [FG_MEM_ALIAS] = FG_ST_ALIAS, [FG_MEM_DYNAMIC] = FG_ST_DYNAMIC,
        [FG_MEM_STATE] = FG_ST_STATE, [FG_MEM_ONCE] = FG_ST_ONCE};
    const fg_reginfo *i = fg_ri(l->m, r);

    if (!r)
        return FG_NONE;
    if (l->tensor_of[r])
        return l->tensor_of[r] - 1;
    if (i->mem == FG_MEM_NONE)
        FG_BUG(l->m->cx, "%%%s has no storage", i->name);
    uint32_t port = FG_NONE, t;
    if (i->mem == FG_MEM_ALIAS)
        port = tensor(l, i->alias);
    if (i->mem == FG_MEM_OUTPUT)
        port = output_port(l, r);
    t = new_tensor(l, r, storage[i->mem]);
    l->tensor[t].port = port;
    if (i->mem == FG_MEM_CONST) {
        l->tensor[t].data = fg_reg_weight(l->m, r)->data;
        l->tensor[t].mapped = fg_reg_weight(l->m, r)->mapped;
    }
    l->tensor_of[r] = t + 1;
    return t;
}

static uint32_t
root(const lower *l, uint32_t t)
{
    while (l->tensor[t].storage == FG_ST_ALIAS)
        t = l->tensor[t].port;
    return t;
}

/* What an alias keeps alive is the storage. */
static void
extend_lifetimes(lower *l)
{
    for (uint32_t t = 0; t < l->ntensor; t++) {
        fg_tensordef *s = &l->tensor[root(l, t)];
        if (l->tensor[t].last > s->last)
            s->last = l->tensor[t].last;
    }
}

/* ---- steps ------------------------------------------------------------------------ */

typedef struct steps {
    fg_step *s;
    uint32_t n;
    size_t cap;
} steps;

static const char *
join_nodes(lower *l, const fg_inst *i)
{
    fg_text t = fg_text_new(l->a);

    for (int k = 0; k < i->nnode; k++)
        fg_putf(&t, "%s%s", k ? "," : "", i->node[k]);
    return i->nnode ? t.s : "";
}

static fg_step *
new_step(lower *l, steps *list, fg_stepkind kind, const fg_inst *i)
{
    fg_step s = {.kind = (uint8_t)kind,
                 .flops = FG_NONE,
                 .bytes = FG_NONE,
                 .sym = FG_NONE,
                 .iter = FG_NONE,
                 .cond_in = FG_NONE,
                 .cond_out = FG_NONE,
                 .name = i ? fg_op_info(i->op)->name : "copy",
                 .nodes = i ? join_nodes(l, i) : ""};

    FG_PUSH(l->a, list->s, list->n, list->cap) = s;
    return &list->s[list->n - 1];
}

static void
set_buffers(lower *l, fg_step *s, uint32_t n, const uint32_t *buf)
{
    s->nbuf = n;
    s->buf = fg_dup(l->a, buf, n * sizeof *buf);
}

/* Kernel k for any sizes, and for those that it has code of its own for. */
static const fg_form *
lower_forms(lower *l, int k)
{
    uint32_t n = l->specials->n + 1;
    fg_form *f = FG_NEWN(l->a, fg_form, n);

    for (uint32_t v = 0; v < n; v++) {
        const fg_kcode *kc = &l->kc[v * (uint32_t)l->nkc + (uint32_t)k];
        uint32_t *arg = FG_NEWN(l->a, uint32_t, (size_t)kc->narg + 1);
        for (int x = 0; x < kc->narg; x++)
            arg[x] = value(l, kc->arg[x]);
        f[v] = (fg_form){.fn = l->fn(l->code, kc->fn),
                         .code = (uint32_t)kc->fn,
                         .narg = (uint32_t)kc->narg,
                         .arg = arg,
                         .chunks = value(l, kc->chunks),
                         .scratch = value(l, kc->scratch)};
    }
    return f;
}

static void
lower_kernel(lower *l, steps *list, fg_inst *i)
{
    if (l->next_kc >= l->nkc || l->kc[l->next_kc].inst != i)
        FG_BUG(l->m->cx, "%s has no machine code", fg_inst_where(l->m, i));
    const fg_kcode *kc = &l->kc[l->next_kc++];
    uint32_t *buf = FG_NEWN(l->a, uint32_t, (size_t)(i->nin + i->nout) + 1);

    for (int k = 0; k < i->nin; k++)
        buf[k] = tensor(l, i->in[k]);
    for (int k = 0; k < i->nout; k++)
        buf[i->nin + k] = tensor(l, i->out[k]);
    if (i->nout == 1 && fg_ri(l->m, i->out[0])->mem == FG_MEM_ALIAS &&
        fg_kernel_alias(l->m, i))
        return;
    fg_step *s = new_step(l, list, FG_STEP_KERNEL, i);
    s->form = lower_forms(l, (int)(kc - l->kc));
    s->nbuf = (uint32_t)(i->nin + i->nout);
    s->buf = buf;
    s->flops = fg_vtab_expr(l->values, kc->flops);
    s->bytes = fg_vtab_expr(l->values, kc->bytes);
    s->name = *FG_GET(i, kernel, name).s ? FG_GET(i, kernel, name).s : "kernel";
}

/* ---- control flow ------------------------------------------------------------------- */

typedef struct flows {
    fg_flow *f;
    uint32_t n;
    size_t cap;
} flows;

/* Symbols of `syms` that are dims of `to` get the dims of `from`; axis k of from is axis
 * k + shift of to. */
static void
flow_symbols(lower *l, fg_flow *f, const fg_attr *syms, fg_reg from, fg_reg to, int shift)
{
    const fg_type *s = fg_rt(l->m, from), *d = fg_rt(l->m, to);
    uint32_t *sym = FG_NEWN(l->a, uint32_t, FG_MAXRANK),
             *dim = FG_NEWN(l->a, uint32_t, FG_MAXRANK);

    for (int k = 0; k < s->rank && k + shift < d->rank; k++) {
        fg_sym y;
        if (!fg_e_single(l->m->ex, d->dim[k + shift], &y))
            continue;
        for (int j = 0; j < syms->n; j++)
            if ((fg_sym)syms->is[j] == y) {
                sym[f->nsym] = y;
                dim[f->nsym++] = value(l, s->dim[k]);
                break;
            }
    }
    f->sym = sym;
    f->dim = dim;
}

static fg_flow *
add_flow(lower *l, flows *list, uint32_t src, uint32_t dst)
{
    FG_PUSH(l->a, list->f, list->n, list->cap) = (fg_flow){.src = src, .dst = dst};
    return &list->f[list->n - 1];
}

static void
flow(lower *l, flows *list, const fg_attr *syms, fg_reg from, fg_reg to)
{
    flow_symbols(l, add_flow(l, list, tensor(l, from), tensor(l, to)), syms, from, to, 0);
}

/* Makes a list that is meant to happen at once right in order. A source that is also a
 * destination is first copied away; a flow of a value to itself only sets symbols. */
static void
order_flows(lower *l, flows *list, const fg_liverange *at)
{
    flows out = {0};

    for (uint32_t k = 0; k < list->n; k++) {
        fg_flow *f = &list->f[k];
        uint32_t src = root(l, f->src);
        if (!f->stack && src == root(l, f->dst)) {
            f->src = f->dst = FG_NONE;
            continue;
        }
        for (uint32_t j = 0; j < k; j++) {
            if (list->f[j].dst == FG_NONE || src != root(l, list->f[j].dst))
                continue;
            fg_tensordef copy = l->tensor[f->src];
            copy.storage =
                l->tensor[src].storage == FG_ST_DYNAMIC ? FG_ST_DYNAMIC : FG_ST_ARENA;
            copy.first = at->first;
            copy.last = at->last;
            FG_PUSH(l->a, l->tensor, l->ntensor, l->captensor) = copy;
            add_flow(l, &out, f->src, l->ntensor - 1);
            f->src = l->ntensor - 1;
            break;
        }
    }
    for (uint32_t k = 0; k < list->n; k++)
        FG_PUSH(l->a, out.f, out.n, out.cap) = list->f[k];
    *list = out;
}

static uint32_t lower_block(lower *l, fg_block *b);

static void
lower_if(lower *l, steps *list, fg_inst *i)
{
    const fg_attr *syms = &FG_GET(i, if, syms);
    uint32_t cond = tensor(l, i->in[0]), block[2];
    flows out[2] = {{0}, {0}};

    for (int b = 0; b < 2; b++) {
        const fg_inst *yield = i->region[b]->last;
        block[b] = lower_block(l, i->region[b]);
        for (int k = 0; k < i->nout; k++)
            flow(l, &out[b], syms, yield->in[k], i->out[k]);
    }
    fg_step *s = new_step(l, list, FG_STEP_IF, i);
    set_buffers(l, s, 1, &cond);
    for (int b = 0; b < 2; b++) {
        s->block[b] = block[b];
        s->flow_out[b] = out[b].f;
        s->nflow_out[b] = out[b].n;
    }
}

/* Results that stack one slice per iteration: the number of iterations is their first
 * dim. The first such symbol is set by the loop, others follow it. */
static uint32_t
stack_flows(lower *l, const fg_inst *i, const fg_attr *syms, flows *next, flows *out)
{
    const fg_inst *yield = i->region[0]->last;
    uint32_t count = FG_NONE;

    for (int k = (int)FG_GET(i, loop, carried).i; k < i->nout; k++) {
        fg_flow *f = add_flow(l, next, tensor(l, yield->in[k + 1]), tensor(l, i->out[k]));
        fg_sym y;
        f->stack = 1;
        flow_symbols(l, f, syms, yield->in[k + 1], i->out[k], 1);
        if (!fg_e_single(l->m->ex, fg_rt(l->m, i->out[k])->dim[0], &y) ||
            fg_sym_info(l->m->ex, y)->kind != FG_SYM_RUN)
            continue;
        if (count == FG_NONE)
            count = y;
        if (y != count) {
            f = add_flow(l, out, FG_NONE, FG_NONE);
            uint32_t pair[] = {y, fg_vtab_symbol(l->values, count)};
            f->nsym = 1;
            f->sym = fg_dup(l->a, &pair[0], sizeof pair[0]);
            f->dim = fg_dup(l->a, &pair[1], sizeof pair[1]);
        }
    }
    return count;
}

static void
lower_loop(lower *l, steps *list, fg_inst *i)
{
    fg_block *b = i->region[0];
    const fg_attr *syms = &FG_GET(i, loop, syms);
    int carried = (int)FG_GET(i, loop, carried).i;
    flows in = {0}, next = {0}, out = {0};
    uint32_t buf[2] = {tensor(l, i->in[0]), tensor(l, i->in[1])};

    for (int k = 0; k < carried; k++)
        flow(l, &in, syms, i->in[k + 2], b->param[k + 2]);
    uint32_t iter = tensor(l, b->param[0]), cond_in = tensor(l, b->param[1]);
    uint32_t block = lower_block(l, b);
    for (int k = 0; k < carried; k++) {
        flow(l, &next, syms, b->last->in[k + 1], b->param[k + 2]);
        flow(l, &out, syms, b->param[k + 2], i->out[k]);
    }
    uint32_t count = stack_flows(l, i, syms, &next, &out);
    order_flows(l, &next, &l->live[b->param[0]]);

    fg_step *s = new_step(l, list, FG_STEP_LOOP, i);
    set_buffers(l, s, 2, buf);
    s->block[0] = block;
    s->sym = count;
    s->iter = iter;
    s->cond_in = cond_in;
    s->cond_out = tensor(l, b->last->in[0]);
    s->flow_in = in.f;
    s->nflow_in = in.n;
    s->flow_next = next.f;
    s->nflow_next = next.n;
    s->flow_out[0] = out.f;
    s->nflow_out[0] = out.n;
}

static void
new_require(lower *l, steps *list, fg_inst *i, uint32_t a, uint32_t b)
{
    fg_step *s = new_step(l, list, FG_STEP_REQUIRE, i);

    s->equal[0] = a;
    s->equal[1] = b;
}

static void
lower_readsym(lower *l, steps *list, fg_inst *i)
{
    uint32_t x = tensor(l, i->in[0]);
    fg_step *s = new_step(l, list, FG_STEP_READSYM, i);

    set_buffers(l, s, 1, &x);
    s->sym = (uint32_t)FG_GET(i, readsym, sym).i;
    s->at = FG_GET(i, readsym, at).i;
    /* Kernels use what the symbol was found to equal; the data must agree. */
    fg_expr is = fg_sym_info(l->m->ex, s->sym)->is;
    uint32_t sym = s->sym;
    if (is)
        new_require(l, list, i, fg_vtab_symbol(l->values, sym), value(l, is));
}

static void
lower_require(lower *l, steps *list, fg_inst *i)
{
    new_require(l, list, i, value(l, FG_GET(i, require, a).e),
                value(l, FG_GET(i, require, b).e));
}

/* ---- the whole ------------------------------------------------------------------------ */

/* Outputs that are not computed in place are copied last. */
static void
lower_outputs(lower *l, steps *list, fg_portdef *port)
{
    for (int k = 0; k < l->m->noutput; k++) {
        fg_reg r = l->m->output[k].reg, s = fg_storage_of(l->m, r);
        uint32_t t = tensor(l, r);
        const fg_state *state = fg_state_of_output(l->m, k);
        if (state && fg_state_cut(l->m, state)) { /* the runtime copies the last rows */
            fg_type present = *fg_rt(l->m, r);
            present.dim[state->axis] = state->next;
            t = new_tensor_like(l, r, &present, FG_ST_OUTPUT);
            l->tensor[t].port = (uint32_t)k;
        } else if (state && state->length != FG_E_BAD) {
            /* the storage itself */
        } else if (fg_ri(l->m, s)->mem != FG_MEM_OUTPUT ||
                   output_port(l, s) != (uint32_t)k) {
            uint32_t buf[2] = {t, new_tensor(l, r, FG_ST_OUTPUT)};
            l->tensor[buf[1]].port = (uint32_t)k;
            set_buffers(l, new_step(l, list, FG_STEP_COPY, NULL), 2, buf);
            t = buf[1];
        }
        port[k].name = l->m->output[k].name;
        port[k].tensor = t;
        port[k].state = state ? (uint32_t)(state - l->m->state) : FG_NONE;
    }
}

static void
lower_insts(lower *l, steps *list, fg_block *b)
{
    fg_each_inst(b, i) {
        switch (i->op) {
        case FG_OP_const:
            tensor(l, i->out[0]);
            break;
        case FG_OP_kernel:
            lower_kernel(l, fg_kernel_once(l->m, i) ? l->once : list, i);
            break;
        case FG_OP_readsym:
            lower_readsym(l, list, i);
            break;
        case FG_OP_require:
            lower_require(l, list, i);
            break;
        case FG_OP_if:
            lower_if(l, list, i);
            break;
        case FG_OP_loop:
            lower_loop(l, list, i);
            break;
        case FG_OP_yield:
        case FG_OP_ret:
            break;
        default:
            FG_BUG(l->m->cx, "%s is outside of a kernel", fg_inst_where(l->m, i));
        }
    }
}

static void
close_block(lower *l, uint32_t id, const steps *list)
{
    l->block[id] = (fg_blockdef){l->nstep, list->n};
    for (uint32_t k = 0; k < list->n; k++)
        FG_PUSH(l->a, l->step, l->nstep, l->capstep) = list->s[k];
}

static uint32_t
open_block(lower *l)
{
    FG_PUSH(l->a, l->block, l->nblock, l->capblock) = (fg_blockdef){0};
    return l->nblock - 1;
}

static uint32_t
lower_block(lower *l, fg_block *b)
{
    uint32_t id = open_block(l);
    steps list = {0};

    lower_insts(l, &list, b);
    close_block(l, id, &list);
    return id;
}

static void
lower_inputs(lower *l, fg_portdef *port)
{
    fg_module *m = l->m;

    for (int k = 0; k < m->ninput; k++) {
        const fg_type t = fg_input_type(m, k);
        const char **text = FG_NEWN(l->a, const char *, FG_MAXRANK);
        const fg_state *state = fg_state_of_input(m, k);
        bool apart = state && state->length != FG_E_BAD;
        fg_reg r = m->input[k].reg;
        for (int x = 0; x < t.rank; x++) {
            fg_text s = fg_text_new(l->a);
            fg_put_expr(&s, m->ex, t.dim[x]);
            text[x] = s.s;
        }
        port[k] = (fg_portdef){.name = m->input[k].name,
                               .tensor = apart ? new_tensor_like(l, r, &t, FG_ST_INPUT)
                                               : tensor(l, r),
                               .dim_text = text,
                               .state = state ? (uint32_t)(state - m->state) : FG_NONE};
        l->tensor[port[k].tensor].port = (uint32_t)k;
        if (m->input[k].weight >= 0) {
            port[k].dflt = m->weight[m->input[k].weight].data;
            port[k].dflt_dim = m->weight[m->input[k].weight].dim;
        }
    }
}

/* Behind the append that makes room there are others, to rows that are found while running. */
static bool
writes_anywhere(const fg_module *m, const fg_state *s)
{
    fg_reg x;
    const fg_inst *i = fg_append_of(m, m->output[s->output].reg, &x);

    return i && FG_GET(i, append, at).e == FG_E_BAD;
}

static const fg_statedef *
lower_states(lower *l, fg_bits found)
{
    fg_module *m = l->m;
    fg_statedef *d = FG_NEWN(l->a, fg_statedef, (size_t)m->nstate + 1);

    for (int k = 0; k < m->nstate; k++) {
        const fg_state *s = &m->state[k];
        fg_sym capacity;
        d[k] = (fg_statedef){.input = (uint32_t)s->input,
                             .output = (uint32_t)s->output,
                             .axis = s->axis,
                             .tensor = FG_NONE,
                             .capacity = FG_NONE,
                             .next = FG_NONE,
                             .at = FG_NONE,
                             .more = FG_NONE};
        if (s->length == FG_E_BAD)
            continue;
        d[k].tensor = tensor(l, m->input[s->input].reg);
        l->tensor[d[k].tensor].port = (uint32_t)k;
        d[k].next = value(l, s->next);
        if (!fg_e_single(m->ex, fg_state_capacity(m, s), &capacity))
            FG_BUG(m->cx, "the capacity of a state is not a symbol");
        d[k].capacity = capacity;
        d[k].anywhere = writes_anywhere(m, s);
        fg_bits_add(found, capacity);
        if (s->at == FG_E_BAD)
            continue;
        if (!fg_e_single(m->ex, s->at, &d[k].at))
            FG_BUG(m->cx, "the row of a window is not a symbol");
        d[k].more = value(l, fg_state_more(m, s));
        d[k].keep = s->keep;
        fg_bits_add(found, d[k].at);
    }
    return d;
}

static const fg_symbol *
lower_symbols(lower *l)
{
    uint32_t n = fg_sym_count(l->m->ex);
    fg_symbol *s = FG_NEWN(l->a, fg_symbol, (size_t)n + 1);

    for (uint32_t k = 0; k < n; k++) {
        const fg_syminfo *i = fg_sym_info(l->m->ex, k);
        s[k] = (fg_symbol){i->name, i->lo, i->hi, i->kind == FG_SYM_RUN};
    }
    return s;
}

static bool
all_found(fg_module *m, const fg_program *p, fg_bits found)
{
    for (uint32_t k = 0; k < p->nvalue; k++)
        if (p->value[k].op == FG_V_SYM && !p->value[k].run &&
            !fg_bits_has(found, p->value[k].a))
            return fg_error(
                m->cx, "the size \"%s\" does not follow from the shapes of the inputs",
                p->symbol[p->value[k].a].name);
    return true;
}

fg_program *
fg_program_make(fg_module *m, fg_arena *a, fg_kcode *kc, int nkc,
                const fg_specials *specials,
                fg_kernel_fn *(*fn)(const void *code, int fn), const void *code)
{
    lower l = {.m = m,
               .a = a,
               .values = fg_vtab_new(a, m->ex),
               .kc = kc,
               .nkc = nkc,
               .specials = specials,
               .fn = fn,
               .code = code,
               .live = fg_liveness(m, a),
               .tensor_of = FG_NEWN(a, uint32_t, m->nreg)};
    fg_program *p = FG_NEW(a, fg_program);
    fg_portdef *in = FG_NEWN(a, fg_portdef, (size_t)m->ninput + 1);
    fg_portdef *out = FG_NEWN(a, fg_portdef, (size_t)m->noutput + 1);
    fg_bits found = fg_bits_new(a, fg_sym_count(m->ex) + 1);
    steps list = {0}, once = {0};

    l.once = &once;
    p->solve = fg_solve_rows(m, a, l.values, &p->nsolve, found);
    uint32_t main_block = open_block(&l);
    lower_inputs(&l, in);
    lower_insts(&l, &list, m->body);
    lower_outputs(&l, &list, out);
    close_block(&l, main_block, &list);
    p->state = lower_states(&l, found);
    p->nstate = (uint32_t)m->nstate;
    if (once.n)
        close_block(&l, p->once = open_block(&l), &once);
    extend_lifetimes(&l);
    p->nsymbol = fg_sym_count(m->ex);
    p->symbol = lower_symbols(&l);
    p->value = fg_vtab_values(l.values, &p->nvalue);
    p->tensor = l.tensor;
    p->ntensor = l.ntensor;
    p->special = specials->list;
    p->nspecial = specials->n;
    p->step = l.step;
    p->nstep = l.nstep;
    p->block = l.block;
    p->nblock = l.nblock;
    p->input = in;
    p->ninput = (uint32_t)m->ninput;
    p->output = out;
    p->noutput = (uint32_t)m->noutput;
    return !l.failed && all_found(m, p, found) ? p : NULL;
}
