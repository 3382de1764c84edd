/* state.c - inputs that the host gets back as outputs and gives again: caches.
 *
 *     state "past" -> "present" {axis=2, length=P, next=P+S}
 *
 *     func @main(%past: f32[B,4,C,64], %new: f32[B,4,S,64]) -> f32[B,4,C,64] {
 *       %present = append %past, %new {axis=2, at=P} : f32[B,4,C,64]
 *       %all = slice %present {start=[0,0,0,0], step=[1,1,1,1]} : f32[B,4,P+S,64]
 *
 * With a length the state is in place: the register has the shape of the storage, whose
 * size along the axis is the capacity C, and only the first P of it are valid. The
 * host still binds [B,4,P,64] and reads [B,4,P+S,64] when it keeps no state: then C is
 * P+S, and storage and present are one and the same. Without a length input and
 * output are two tensors that change places between runs.
 *
 *     state "past" -> "present" {axis=2, length=P, next=P+S, at=R, keep=511}
 *
 * A window: whoever reads the storage reads no more than the last 511 rows of the past, and
 * what is appended. Then the past ends at row R, where the state says, and what was
 * further back need not be there any more. Without a state R is P.
 *
 *     state "past" -> "present" {axis=2, length=P, next=min(P+S,512), at=R, keep=512}
 *
 * A window that the model itself cuts: the present is the last 512 rows of past and new. The
 * storage has all of them, and whoever reads past or present reads rows of it; a host that
 * keeps no state gets a copy.
 */
#include "ir/ir.h"

const fg_state *
fg_state_of_input(const fg_module *m, int input)
{
    for (int k = 0; k < m->nstate; k++)
        if (m->state[k].input == input)
            return &m->state[k];
    return NULL;
}

const fg_state *
fg_state_of_output(const fg_module *m, int output)
{
    for (int k = 0; k < m->nstate; k++)
        if (m->state[k].output == output)
            return &m->state[k];
    return NULL;
}

fg_type
fg_input_type(const fg_module *m, int input)
{
    const fg_state *s = fg_state_of_input(m, input);
    fg_type t = *fg_rt(m, m->input[input].reg);

    if (s && s->length != FG_E_BAD)
        t.dim[s->axis] = s->length;
    return t;
}

fg_expr
fg_state_capacity(const fg_module *m, const fg_state *s)
{
    return fg_rt(m, m->input[s->input].reg)->dim[s->axis];
}

fg_expr
fg_state_more(const fg_module *m, const fg_state *s)
{
    fg_reg x;
    const fg_inst *i = fg_append_of(m, m->output[s->output].reg, &x);

    return i ? fg_rt(m, i->in[1])->dim[s->axis] : FG_E_BAD;
}

bool
fg_state_cut(const fg_module *m, const fg_state *s)
{
    return s->at != FG_E_BAD && s->next != fg_eadd(m->ex, s->length, fg_state_more(m, s));
}

fg_expr
fg_state_rows(const fg_module *m, const fg_state *s)
{
    return s->at == FG_E_BAD ? s->next : fg_eadd(m->ex, s->at, fg_state_more(m, s));
}

const fg_inst *
fg_append_of(const fg_module *m, fg_reg r, fg_reg *x)
{
    const fg_inst *i = fg_def(m, r);

    if (fg_is_op(i, FG_OP_append)) {
        *x = i->in[0];
        return i;
    }
    if (!fg_is_op(i, FG_OP_kernel))
        return NULL;
    const fg_block *b = i->region[0];
    const fg_inst *y = NULL;
    for (int k = 0; b->last && k < i->nout && k < b->last->nin; k++)
        if (i->out[k] == r)
            y = fg_def(m, b->last->in[k]);
    for (int k = 0; k < b->nparam && k < i->nin && fg_is_op(y, FG_OP_append); k++)
        if (b->param[k] == y->in[0]) {
            *x = i->in[k];
            return y;
        }
    return NULL;
}

bool
fg_in_state(const fg_module *m, fg_reg r)
{
    fg_reg x;

    while (fg_append_of(m, r, &x))
        r = x;
    for (int k = 0; k < m->nstate; k++)
        if (m->state[k].length != FG_E_BAD && m->input[m->state[k].input].reg == r)
            return true;
    return false;
}

bool
fg_appends_in_place(fg_module *m, const fg_inst *i)
{
    const fg_block *b = i->block;

    if (i->op != FG_OP_append)
        return false;
    if (!fg_is_op(b->owner, FG_OP_kernel))
        return fg_in_state(m, i->in[0]);
    for (int k = 0; k < b->nparam; k++)
        if (b->param[k] == i->in[0])
            return fg_in_state(m, b->owner->in[k]);
    return false;
}
