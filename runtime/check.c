/* check.c - whether tables that came from a file can be trusted with this process.
 *
 * Every index is inside its table, whatever refers to something later or earlier does so
 * in the direction that excludes cycles, and what bind.c and run.c take for granted of
 * tables made by the compiler holds: constants are as large as they say, lifetimes begin
 * before they end, nothing is written to a constant by control flow.
 */
#include <string.h>

#include "runtime/rt.h"
#include "runtime/tables.h"

enum { MAXDEPTH = 200 }; /* of nested ifs and loops: the run recurses */

typedef struct checker {
    const fg_program *p;
    uint32_t nfn;
    const fg_blob *weight;
    uint32_t nweight;
    const char *why;
} checker;

static bool
bad(checker *c, const char *why)
{
    if (!c->why)
        c->why = why;
    return false;
}

static bool
value_ok(checker *c, uint32_t v)
{
    return v < c->p->nvalue || bad(c, "a value is out of its table");
}

static bool
value_or_none(checker *c, uint32_t v)
{
    return v == FG_NONE || value_ok(c, v);
}

static bool
tensor_ok(checker *c, uint32_t t)
{
    return t < c->p->ntensor || bad(c, "a tensor is out of its table");
}

static bool
symbol_ok(checker *c, uint32_t s)
{
    return s < c->p->nsymbol || bad(c, "a symbol is out of its table");
}

static uint32_t
root(const checker *c, uint32_t t)
{
    while (c->p->tensor[t].storage == FG_ST_ALIAS)
        t = c->p->tensor[t].port;
    return t;
}

/* Something that control flow writes: has memory of its own. */
static bool
target_ok(checker *c, uint32_t t, bool own)
{
    if (!tensor_ok(c, t))
        return false;
    uint8_t st = c->p->tensor[own ? t : root(c, t)].storage;
    return st == FG_ST_ARENA || st == FG_ST_DYNAMIC || st == FG_ST_OUTPUT ||
           bad(c, "control flow writes to a tensor without memory of its own");
}

static bool
check_values(checker *c)
{
    const fg_program *p = c->p;

    for (uint32_t i = 0; i < p->nvalue; i++) {
        const fg_value *v = &p->value[i];
        bool run = false;
        if (v->op > FG_V_LT)
            return bad(c, "an arithmetic operation is not known");
        if (v->op == FG_V_SYM) {
            if (!symbol_ok(c, v->a))
                return false;
            run = p->symbol[v->a].run;
        } else if (v->op != FG_V_CONST) {
            if (v->a >= i || v->b >= i)
                return bad(c, "a value is computed before its operands");
            run = p->value[v->a].run || p->value[v->b].run;
        }
        if (run != (v->run != 0))
            return bad(c, "a value is wrong about when it is known");
    }
    return true;
}

/* Constants have constant shapes; value[] is computed with no symbol known. */
static bool
check_constant(checker *c, const fg_tensordef *t, const int64_t *value)
{
    int64_t bytes = value[t->bytes], count = 1;

    for (int k = 0; k < t->rank; k++)
        if (value[t->dim[k]] < 0 ||
            __builtin_mul_overflow(count, value[t->dim[k]], &count))
            return bad(c, "a constant has no fixed shape");
    if (t->port >= c->nweight || bytes < 0 ||
        (uint64_t)bytes > c->weight[t->port].bytes ||
        fg_packed_bytes(t->dtype, count) > bytes)
        return bad(c, "a constant is larger than its data");
    return true;
}

static bool
check_tensor(checker *c, uint32_t i, const int64_t *value)
{
    const fg_program *p = c->p;
    const fg_tensordef *t = &p->tensor[i];

    if (t->dtype == FORGE_NONE || t->dtype > FORGE_BOOL || t->storage > FG_ST_ONCE)
        return bad(c, "a tensor's type is not known");
    for (int k = 0; k < t->rank; k++)
        if (!value_ok(c, t->dim[k]))
            return false;
    if (!value_ok(c, t->bytes))
        return false;
    if (t->first > t->last)
        return bad(c, "a tensor ends before it begins");
    switch ((fg_storage)t->storage) {
    case FG_ST_INPUT:
        return (t->port < p->ninput && p->input[t->port].tensor == i) ||
               bad(c, "an input's tensor is not its own");
    case FG_ST_OUTPUT:
        return t->port < p->noutput || bad(c, "an output is out of its table");
    case FG_ST_ALIAS:
        return t->port < i || bad(c, "an alias goes round");
    case FG_ST_ARENA:
        return !p->value[t->bytes].run || bad(c, "a planned tensor has no known size");
    case FG_ST_CONST:
        return check_constant(c, t, value);
    case FG_ST_STATE:
        return (t->port < p->nstate && p->state[t->port].tensor == i) ||
               bad(c, "a state's tensor is not its own");
    case FG_ST_ONCE:
        return value[t->bytes] >= 0 || bad(c, "a packed weight has no fixed size");
    case FG_ST_DYNAMIC:
        break;
    }
    return true;
}

static bool
check_ports(checker *c)
{
    const fg_program *p = c->p;

    for (uint32_t i = 0; i < p->ninput; i++) {
        const fg_portdef *d = &p->input[i];
        if (!tensor_ok(c, d->tensor))
            return false;
        const fg_tensordef *t = &p->tensor[d->tensor];
        if (t->storage != FG_ST_INPUT || t->port != i || !d->dim_text)
            return bad(c, "an input's tensor is not an input");
    }
    for (uint32_t i = 0; i < p->noutput; i++)
        if (!tensor_ok(c, p->output[i].tensor))
            return false;
    for (uint32_t i = 0; i < p->nsolve; i++) {
        const fg_solve *s = &p->solve[i];
        if (!symbol_ok(c, s->sym) || !value_ok(c, s->rest))
            return false;
        if (s->input >= p->ninput || !s->coef ||
            s->axis >= p->tensor[p->input[s->input].tensor].rank)
            return bad(c, "a size is read from a dimension that is not there");
    }
    return true;
}

static bool
check_state(checker *c, uint32_t k)
{
    const fg_program *p = c->p;
    const fg_statedef *s = &p->state[k];

    if (s->input >= p->ninput || s->output >= p->noutput ||
        p->input[s->input].state != k || p->output[s->output].state != k)
        return bad(c, "a state's ports are not its own");
    uint32_t out = p->output[s->output].tensor;
    const fg_tensordef *a = &p->tensor[p->input[s->input].tensor], *b = &p->tensor[out];
    if (a->dtype != b->dtype || a->rank != b->rank || s->axis < -1 || s->axis >= a->rank)
        return bad(c, "the past of a state is not like its present");
    if (s->tensor == FG_NONE) {
        if (p->tensor[root(c, out)].storage != FG_ST_OUTPUT || p->value[b->bytes].run)
            return bad(c, "a state has no known size");
    } else {
        if (s->axis < 0 || !tensor_ok(c, s->tensor) || !symbol_ok(c, s->capacity) ||
            !value_ok(c, s->next))
            return bad(c, "a state's storage is not there");
        int cut = s->at != FG_NONE && b->storage == FG_ST_OUTPUT;
        if ((root(c, out) != s->tensor && !cut) ||
            p->tensor[s->tensor].storage != FG_ST_STATE ||
            p->tensor[s->tensor].rank != a->rank || p->value[s->next].run ||
            p->tensor[s->tensor].dtype != a->dtype || p->symbol[s->capacity].run)
            return bad(c, "a state's storage is not like its past");
        if (s->at != FG_NONE &&
            (!symbol_ok(c, s->at) || !value_ok(c, s->more) || p->symbol[s->at].run ||
             p->value[s->more].run || s->keep < 0))
            return bad(c, "a window has no rows");
        const fg_value *past = &p->value[a->dim[s->axis]];
        if (cut && past->op == FG_V_CONST && past->k != s->keep)
            return bad(c, "a window has other rows than it keeps");
        if (cut && p->value[b->bytes].run)
            return bad(c, "a state has no known size");
        b = &p->tensor[s->tensor];
    }
    for (int d = 0; d < a->rank; d++)
        if (d != s->axis &&
            (a->dim[d] != b->dim[d] || a->dim[d] != p->tensor[out].dim[d]))
            return bad(c, "a state grows along two axes");
    return true;
}

static bool
check_states(checker *c)
{
    const fg_program *p = c->p;

    for (uint32_t k = 0; k < p->nstate; k++)
        if (!check_state(c, k))
            return false;
    for (uint32_t i = 0; i < p->ninput; i++)
        if (p->input[i].state != FG_NONE &&
            (p->input[i].state >= p->nstate || p->state[p->input[i].state].input != i))
            return bad(c, "an input is of no state");
    for (uint32_t i = 0; i < p->noutput; i++)
        if (p->output[i].state != FG_NONE &&
            (p->output[i].state >= p->nstate || p->state[p->output[i].state].output != i))
            return bad(c, "an output is of no state");
    return true;
}

static bool
check_flows(checker *c, const fg_flow *f, uint32_t n)
{
    for (; n; n--, f++) {
        for (uint32_t k = 0; k < f->nsym; k++)
            if (!symbol_ok(c, f->sym[k]) || !value_ok(c, f->dim[k]))
                return false;
        if (f->src == FG_NONE && f->dst == FG_NONE)
            continue;
        if (!tensor_ok(c, f->src) || !target_ok(c, f->dst, true))
            return false;
        if (f->stack && !c->p->tensor[f->dst].rank)
            return bad(c, "a loop stacks into a scalar");
    }
    return true;
}

static bool
typed(checker *c, uint32_t t, forge_dtype want)
{
    return t == FG_NONE || (tensor_ok(c, t) && (c->p->tensor[t].dtype == want ||
                                                bad(c, "a condition or count has the "
                                                       "wrong type")));
}

static bool
check_loop(checker *c, const fg_step *s)
{
    return typed(c, s->buf[0], FORGE_I64) && typed(c, s->buf[1], FORGE_BOOL) &&
           typed(c, s->iter, FORGE_I64) && typed(c, s->cond_in, FORGE_BOOL) &&
           typed(c, s->cond_out, FORGE_BOOL) &&
           (s->iter == FG_NONE || target_ok(c, s->iter, false)) &&
           (s->cond_in == FG_NONE || target_ok(c, s->cond_in, false)) &&
           (s->sym == FG_NONE || symbol_ok(c, s->sym)) &&
           check_flows(c, s->flow_in, s->nflow_in) &&
           check_flows(c, s->flow_next, s->nflow_next) &&
           check_flows(c, s->flow_out[0], s->nflow_out[0]);
}

static bool
check_forms(checker *c, const fg_step *s)
{
    for (uint32_t v = 0; v <= c->p->nspecial; v++) {
        const fg_form *f = &s->form[v];
        for (uint32_t k = 0; k < f->narg; k++)
            if (!value_ok(c, f->arg[k]))
                return false;
        if (f->code >= c->nfn)
            return bad(c, "a step's function is not there");
        if (!value_ok(c, f->chunks) || !value_or_none(c, f->scratch))
            return false;
    }
    return true;
}

static bool
check_special(checker *c)
{
    const fg_program *p = c->p;

    for (uint32_t i = 0; i < p->nspecial; i++)
        for (uint32_t k = 0; k < p->special[i].n; k++)
            if (!symbol_ok(c, p->special[i].fixed[k].sym))
                return false;
    return true;
}

static bool
check_step(checker *c, const fg_step *s)
{
    static const uint8_t buffers[] = {
        [FG_STEP_COPY] = 2, [FG_STEP_READSYM] = 1, [FG_STEP_IF] = 1, [FG_STEP_LOOP] = 2};

    if (s->kind > FG_STEP_LOOP)
        return bad(c, "a step's kind is not known");
    for (uint32_t k = 0; k < s->nbuf; k++)
        if (s->buf[k] != FG_NONE && !tensor_ok(c, s->buf[k]))
            return false;
    if (!value_or_none(c, s->flops) || !value_or_none(c, s->bytes))
        return false;
    if (s->kind != FG_STEP_KERNEL && s->kind != FG_STEP_REQUIRE) {
        if (s->nbuf != buffers[s->kind])
            return bad(c, "a step has too few or too many tensors");
        for (uint32_t k = 0; k < s->nbuf && s->kind != FG_STEP_LOOP; k++)
            if (!tensor_ok(c, s->buf[k]))
                return false;
    }
    switch ((fg_stepkind)s->kind) {
    case FG_STEP_KERNEL:
        return check_forms(c, s);
    case FG_STEP_COPY:
        return target_ok(c, s->buf[1], false);
    case FG_STEP_READSYM:
        return symbol_ok(c, s->sym);
    case FG_STEP_REQUIRE:
        return value_ok(c, s->equal[0]) && value_ok(c, s->equal[1]);
    case FG_STEP_IF:
        return typed(c, s->buf[0], FORGE_BOOL) &&
               check_flows(c, s->flow_out[0], s->nflow_out[0]) &&
               check_flows(c, s->flow_out[1], s->nflow_out[1]);
    case FG_STEP_LOOP:
        return check_loop(c, s);
    }
    return true;
}

/* A block is entered from steps of blocks with smaller numbers only. depth[]: zeros. */
static bool
check_blocks(checker *c, uint16_t *depth)
{
    const fg_program *p = c->p;

    if (!p->nblock)
        return bad(c, "there is no main program");
    if (p->shares > FG_MAXSHARES)
        return bad(c, "a kernel is cut into too many shares");
    for (uint32_t b = 0; b < p->nblock; b++) {
        if (p->block[b].first > p->nstep ||
            p->block[b].count > p->nstep - p->block[b].first)
            return bad(c, "a block is out of the table of steps");
        for (uint32_t i = 0; i < p->block[b].count; i++) {
            const fg_step *s = &p->step[p->block[b].first + i];
            int n = s->kind == FG_STEP_IF ? 2 : s->kind == FG_STEP_LOOP;
            for (int k = 0; k < n; k++) {
                uint32_t to = s->block[k];
                if (to <= b || to >= p->nblock || depth[b] >= MAXDEPTH)
                    return bad(c, "blocks go round or too deep");
                if (depth[to] <= depth[b])
                    depth[to] = (uint16_t)(depth[b] + 1);
            }
        }
    }
    return true;
}

/* What runs before the first run is kernels from constants to packed weights. */
static bool
check_once(checker *c)
{
    const fg_program *p = c->p;

    if (p->once >= p->nblock && p->once)
        return bad(c, "a block is out of its table");
    for (uint32_t i = 0; p->once && i < p->block[p->once].count; i++) {
        const fg_step *s = &p->step[p->block[p->once].first + i];
        bool ok = s->kind == FG_STEP_KERNEL && s->nbuf >= 2;
        for (uint32_t k = 0; ok && k < s->nbuf; k++) /* optional operands are FG_NONE */
            ok = s->buf[k] < p->ntensor &&
                 p->tensor[s->buf[k]].storage ==
                     (k + 1 < s->nbuf ? FG_ST_CONST : FG_ST_ONCE);
        if (!ok)
            return bad(c, "weights are packed by something else than kernels");
    }
    return true;
}

const char *
fg_program_check(const fg_program *p, uint32_t nfn, const fg_blob *weight,
                 uint32_t nweight, fg_pile *scratch)
{
    checker c = {p, nfn, weight, nweight, NULL};
    int64_t *value = fg_pile_get(scratch, p->nvalue + (size_t)1, sizeof *value);
    int64_t *sym = fg_pile_get(scratch, p->nsymbol + (size_t)1, sizeof *sym);
    uint16_t *depth = fg_pile_get(scratch, p->nblock + (size_t)1, sizeof *depth);

    if (!value || !sym || !depth)
        return "out of memory";
    if (!check_values(&c))
        return c.why;
    for (uint32_t k = 0; k < p->nsymbol; k++)
        sym[k] = FG_UNKNOWN;
    fg_values(p, sym, value, 0, p->nvalue);
    for (uint32_t k = 0; k < p->ntensor; k++)
        if (!check_tensor(&c, k, value))
            return c.why;
    if (!check_ports(&c) || !check_states(&c) || !check_special(&c))
        return c.why;
    for (uint32_t k = 0; k < p->nstep; k++)
        if (!check_step(&c, &p->step[k]))
            return c.why;
    if (check_blocks(&c, depth))
        check_once(&c);
    return c.why;
}
