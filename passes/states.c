/* states.c - find the caches: inputs that the host gets back as outputs.
 *
 *     func @main(%past: f32[B,4,P,64], ..)       state "past" -> "present" {axis=2, ..}
 *       %2 = concat %past, %1 {axis=2}           func @main(%past: f32[B,4,C,64], ..)
 *       ..                               =>        %3 = append %past, %1 {axis=2, at=P}
 *       ret %2                                     %2 = slice %3 : f32[B,4,P+S,64]
 *                                                  ret %3
 *
 * By data flow: an output that is an input with something joined on behind it. The input
 * becomes storage of capacity C of which P is valid; appending writes only what is
 * new, and whoever read the input or the output reads a slice. That is the same computation
 * as long as nobody reads the input before the append: the rows read later are those
 * that appending leaves alone. What the joined part is made of may therefore not
 * depend on the input, and all other readers must come later.
 *
 * By name: what else looks like a cache (`past_conv.0` and `present_conv.0`) changes
 * places with its output between runs. Nothing is rewritten; a wrong guess costs nothing,
 * since states are used only by hosts that ask for them.
 */
#include "passes/pass.h"

/* ---- in place ----------------------------------------------------------------------- */

static int
input_of(const fg_module *m, fg_reg r)
{
    int k = 0;

    while (k < m->ninput && m->input[k].reg != r)
        k++;
    return k;
}

/* Rows of 4-bit elements may begin inside a byte; and longer integers are tokens, which a
 * host wants to give and see itself. */
static bool
can_be_state(const fg_module *m, int input)
{
    fg_dtype d = fg_rt(m, m->input[input].reg)->dtype;

    return m->input[input].weight < 0 && !fg_state_of_input(m, input) &&
           (fg_is_float(d) || fg_dtypes[d].bits == 8);
}

/* Whether the instruction, or one in its regions, reads r. */
static bool
reads(const fg_inst *i, fg_reg r)
{
    for (int k = 0; k < i->nin; k++)
        if (i->in[k] == r)
            return true;
    for (int k = 0; k < i->nregion; k++)
        fg_each_inst(i->region[k], j)
            if (reads(j, r))
                return true;
    return false;
}

static bool
read_before(const fg_inst *at, fg_reg r)
{
    for (const fg_inst *i = at->prev; i; i = i->prev)
        if (reads(i, r))
            return true;
    return false;
}

static bool
fits(fg_module *m, const fg_inst *i, int *input)
{
    if (!fg_is_op(i, FG_OP_concat) || i->nin != 2 || i->block != m->body ||
        i->in[0] == i->in[1])
        return false;
    *input = input_of(m, i->in[0]);
    if (*input == m->ninput || !can_be_state(m, *input))
        return false;
    int axis = (int)FG_GET(i, concat, axis).i;
    fg_expr length = fg_rt(m, i->in[0])->dim[axis], next = fg_rt(m, i->out[0])->dim[axis];
    fg_sym p;
    return fg_e_single(m->ex, length, &p) && !fg_e_mentions(m->ex, next, FG_SYM_RUN) &&
           fg_sym_info(m->ex, p)->kind == FG_SYM_INPUT && !read_before(i, i->in[0]);
}

/* States that grow alike have one capacity. */
static fg_expr
capacity_for(fg_module *m, fg_expr next)
{
    for (int k = 0; k < m->nstate; k++)
        if (m->state[k].next == next)
            return fg_state_capacity(m, &m->state[k]);
    int64_t lo = fg_e_lo(m->ex, next);
    return fg_es(m->ex,
                 fg_sym_new(m->ex, "capacity", FG_SYM_INPUT, lo > 0 ? lo : 0, INT64_MAX));
}

static bool
make_state(fg_module *m, int input, int output, fg_inst *join)
{
    int axis = (int)FG_GET(join, concat, axis).i;
    fg_reg past = join->in[0];
    fg_type before = *fg_rt(m, past), after = *fg_rt(m, join->out[0]);
    fg_state s = {input, output, axis, before.dim[axis], after.dim[axis]};
    fg_build b = fg_build_before(join);
    fg_expr zero[FG_MAXRANK];
    int64_t one[FG_MAXRANK];

    for (int d = 0; d < FG_MAXRANK; d++) {
        zero[d] = fg_ec(m->ex, 0);
        one[d] = 1;
    }
    fg_ri(m, past)->type.dim[axis] = capacity_for(m, s.next);
    fg_inst *i = fg_inst_begin(&b, FG_OP_append, 2, join->in);
    FG_SET(i, append, axis).i = axis;
    FG_SET(i, append, at).e = s.length;
    if (!fg_inst_finish(&b, i, NULL, 0))
        return false;
    fg_reg all = fg_emit_slice(&b, i->out[0], zero, one, after.dim);
    if (!all)
        return false;
    const char *name = fg_ri(m, i->out[0])->name;
    fg_ri(m, i->out[0])->name = fg_ri(m, join->out[0])->name;
    fg_ri(m, join->out[0])->name = name;
    fg_inst_remove(join);
    fg_replace_uses(m->body, join->out[0], all);
    fg_reg old = 0; /* what was valid before, made only for those who read it */
    fg_each_inst(m->body, j)
        if (j != i && reads(j, past) && !old) {
            b = fg_build_before(j);
            if (!(old = fg_emit_slice(&b, i->out[0], zero, one, before.dim)))
                return false;
        }
    if (old) {
        fg_replace_uses(m->body, past, old);
        i->in[0] = past;
    }
    m->output[output].reg = m->body->last->in[output] = i->out[0];
    m->state[m->nstate++] = s;
    return true;
}

/* ---- by name ------------------------------------------------------------------------ */

/* Letters and digits of a name without the words that tell past from present:
 * "past_key_values.3.key" and "present.3.key" alike leave "3key". */
static const char *
stem(fg_arena *a, const char *name)
{
    static const char *const drop[] = {"past_key_values", "present_key_values", "past",
                                       "present", "key_values"};
    fg_text t = fg_text_new(a);

    while (*name) {
        size_t skip = 0;
        for (size_t d = 0; d < sizeof drop / sizeof *drop && !skip; d++)
            if (!strncmp(name, drop[d], strlen(drop[d])))
                skip = strlen(drop[d]);
        if (!skip && ((*name >= '0' && *name <= '9') || (*name >= 'a' && *name <= 'z') ||
                      (*name >= 'A' && *name <= 'Z')))
            fg_putc(&t, *name);
        name += skip ? skip : 1;
    }
    return t.n ? t.s : "";
}

/* The axis along which the output may be longer, -1 when sizes are equal; false when the one
 * cannot be given for the other. */
static bool
grows_along(fg_module *m, int input, int output, int *axis)
{
    const fg_type *a = fg_rt(m, m->input[input].reg),
                  *b = fg_rt(m, m->output[output].reg);

    *axis = -1;
    if (a->dtype != b->dtype || a->rank != b->rank)
        return false;
    for (int d = 0; d < a->rank; d++) {
        if (fg_e_mentions(m->ex, b->dim[d], FG_SYM_RUN))
            return false;
        if (a->dim[d] == b->dim[d])
            continue;
        if (*axis >= 0)
            return false;
        *axis = d;
    }
    return true;
}

static void
pair_by_name(fg_module *m, fg_arena *a, int output)
{
    const char *name = m->output[output].name, *want;

    if (!strstr(name, "present"))
        return;
    want = stem(a, name);
    for (int k = 0; k < m->ninput; k++) {
        int axis;
        if (!strstr(m->input[k].name, "past") || !can_be_state(m, k) ||
            strcmp(want, stem(a, m->input[k].name)) || !grows_along(m, k, output, &axis))
            continue;
        m->state[m->nstate++] = (fg_state){k, output, axis, FG_E_BAD, FG_E_BAD};
        return;
    }
}

fg_progress
fg_pass_states(fg_module *m, fg_passctx *cx)
{
    int before = m->nstate;
    fg_state *had = m->state;

    m->state = FG_NEWN(m->a, fg_state, (size_t)m->noutput + 1);
    for (int k = 0; k < before; k++)
        m->state[k] = had[k];
    for (int k = 0; k < m->noutput; k++) {
        fg_inst *i = fg_def(m, m->output[k].reg);
        int input;
        if (fg_state_of_output(m, k) || !fits(m, i, &input))
            continue;
        if (!make_state(m, input, k, i))
            return FG_FAILED;
        fg_report_fusion(cx->report, "caches that grow in place");
    }
    for (int k = 0; k < m->noutput; k++)
        if (!fg_state_of_output(m, k))
            pair_by_name(m, cx->scratch, k);
    return m->nstate != before ? FG_CHANGED : FG_SAME;
}
