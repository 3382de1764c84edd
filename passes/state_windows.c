/* state_windows.c - caches of which attention reads only the last rows: windows.
 *
 *     %all = slice %k {..} : f32[B,4,P+S,64]
 *     %y = attention %q, %all, .., %mask {causal=1, left=511}
 * =>
 *     %win = slice %k {start=[0,0,P-n,0]} : f32[B,4,n+S,64]
 *     %m = slice %mask {start=[0,0,0,P-n]} : bool[B,1,S,n+S]
 *     %y = attention %q, %win, .., %m {causal=1, left=511}
 *
 * with n = min(P, 511): query i, at position P + i, sees no key before P - 511. What is cut off
 * was hidden from all of them, and keys are counted from the end, so the rest is the same
 * computation; but for {empty=mean}, where a query that sees none of its keys, padding that
 * nobody reads, is then the mean of what is left.
 *
 * When nobody reads more of a cache, its rows need not be at their positions: the append and
 * those who read begin at a row that the state tells (ir/state.c), and the runtime keeps no
 * more than those. (Caches that the model cuts itself are so from the beginning: states.c.)
 */
#include "passes/algebra.h"
#include "passes/states.h"

enum { CHAIN = 4 }; /* instructions between a cache and its reader */

/* ---- attention reads less ------------------------------------------------------------ */

/* From what attention reads back to the slice of a state that it is; NULL: it is not. *axis:
 * of positions, there. */
static fg_inst *
slice_of_state(fg_module *m, fg_reg r, int *axis)
{
    fg_inst *d = fg_def(m, r);

    for (int n = 0; n < CHAIN && d && d->block == m->body; n++) {
        if (d->op == FG_OP_slice)
            return fg_in_state(m, d->in[0]) ? d : NULL;
        if (d->op == FG_OP_transpose)
            *axis = (int)FG_GET(d, transpose, perm).is[*axis];
        else if (d->op != FG_OP_cast)
            return NULL;
        d = fg_def(m, d->in[0]);
    }
    return NULL;
}

/* All that is valid, of a state whose length is `past`. */
static bool
is_whole(fg_module *m, const fg_inst *d, int axis, fg_expr past, fg_expr size)
{
    fg_reg x;
    const fg_inst *i = fg_append_of(m, d->in[0], &x);

    return i && FG_GET(i, append, axis).i == axis && FG_GET(i, append, at).e == past &&
           fg_e_is(m->ex, FG_GET(d, slice, start).es[axis], 0) &&
           FG_GET(d, slice, step).is[axis] == 1 && fg_rt(m, d->out[0])->dim[axis] == size;
}

/* r again, of `size` rows of the state from `start` on. */
static fg_reg
narrowed(fg_build *b, fg_reg r, int axis, fg_expr start, fg_expr size)
{
    const fg_inst *d = fg_def(b->m, r);
    fg_type t = *fg_rt(b->m, r);
    fg_expr at[FG_MAXRANK];

    if (d->op == FG_OP_slice) {
        memcpy(at, FG_GET(d, slice, start).es, sizeof *at * (size_t)t.rank);
        at[axis] = start;
        t.dim[axis] = size;
        return fg_emit_slice(b, d->in[0], at, FG_GET(d, slice, step).is, t.dim);
    }
    int below =
        d->op == FG_OP_transpose ? (int)FG_GET(d, transpose, perm).is[axis] : axis;
    fg_reg x = narrowed(b, d->in[0], below, start, size);
    return x ? fg_emit_again(b, d, &x) : 0;
}

static bool
masks_all(fg_module *m, fg_reg mask, fg_expr keys)
{
    const fg_type *t = fg_rt(m, mask);

    return t->rank &&
           (t->dim[t->rank - 1] == keys || fg_e_is(m->ex, t->dim[t->rank - 1], 1));
}

/* Positions that a query sees before its own; -1: no limit, or not counted from the end. */
static int64_t
sees_back(const fg_inst *i, fg_expr past)
{
    fg_expr offset = FG_GET(i, attention, offset).e;

    return (offset == FG_E_BAD || offset == past) && (i->nin <= 5 || !i->in[5])
               ? FG_GET(i, attention, left).i
               : -1;
}

static bool
narrow_attention(fg_module *m, fg_inst *i)
{
    fg_exprs *x = m->ex;
    fg_expr keys = fg_rt(m, i->in[1])->dim[2];
    fg_expr past = fg_esub(x, keys, fg_rt(m, i->in[0])->dim[2]);
    int64_t left = sees_back(i, past);
    fg_reg mask = i->nin > 3 ? i->in[3] : 0;

    if (left < 0 || fg_e_lo(x, past) < 0 || (mask && !masks_all(m, mask, keys)))
        return false;
    for (int k = 1; k <= 2; k++) {
        int axis = 2;
        const fg_inst *d = slice_of_state(m, i->in[k], &axis);
        if (!d || !is_whole(m, d, axis, past, keys))
            return false;
    }
    fg_expr n = fg_emin(x, past, fg_ec(x, left)), start = fg_esub(x, past, n);
    fg_expr size = fg_eadd(x, n, fg_esub(x, keys, past));
    fg_build b = fg_build_before(i);
    fg_reg in[3] = {narrowed(&b, i->in[1], 2, start, size),
                    narrowed(&b, i->in[2], 2, start, size), mask};
    if (mask && !fg_e_is(x, fg_rt(m, mask)->dim[fg_rt(m, mask)->rank - 1], 1))
        in[2] = fg_emit_slice_axis(&b, mask, fg_rt(m, mask)->rank - 1, start, size);
    if (!in[0] || !in[1] || (mask && !in[2]))
        return false;
    for (int k = 0; k < (mask ? 3 : 2); k++)
        i->in[1 + k] = in[k];
    FG_SET(i, attention, offset).e = FG_E_BAD;
    return true;
}

/* ---- states keep less ---------------------------------------------------------------- */

/* The slices that read a state, each of which begins at most *keep rows before the past ends;
 * false when something else reads it. */
static bool
read_near(fg_module *m, const fg_state *s, fg_reg now, int64_t *keep)
{
    *keep = -1;
    fg_each_inst(m->body, i) {
        if (i == m->body->last || !fg_reads(i, now))
            continue;
        if (i->op != FG_OP_slice || FG_GET(i, slice, step).is[s->axis] != 1)
            return false;
        fg_expr back = fg_esub(m->ex, s->length, FG_GET(i, slice, start).es[s->axis]);
        int64_t most = fg_e_hi(m->ex, back);
        if (most == INT64_MAX || back != fg_emin(m->ex, s->length, fg_ec(m->ex, most)))
            return false;
        *keep = most > *keep ? most : *keep;
    }
    return *keep >= 0;
}

void
fg_window_symbols(fg_module *m, const fg_state *s, fg_expr more, fg_expr *at,
                  fg_expr *capacity)
{
    for (int k = 0; k < m->nstate; k++) {
        const fg_state *o = &m->state[k];
        if (o->at != FG_E_BAD && o->keep == s->keep && o->length == s->length &&
            o->next == s->next && fg_state_more(m, o) == more) {
            *at = o->at;
            *capacity = fg_state_capacity(m, o);
            return;
        }
    }
    *at = fg_es(m->ex, fg_sym_new(m->ex, "row", FG_SYM_INPUT, 0, INT64_MAX));
    *capacity = fg_es(m->ex, fg_sym_new(m->ex, "window", FG_SYM_INPUT, 0, INT64_MAX));
}

static bool
make_window(fg_module *m, fg_state *s)
{
    fg_reg past = m->input[s->input].reg, now = m->output[s->output].reg;
    fg_inst *w = fg_def(m, now);
    fg_expr at, capacity;
    int64_t keep;

    if (s->length == FG_E_BAD || s->at != FG_E_BAD || !fg_is_op(w, FG_OP_append) ||
        w->in[0] != past || FG_GET(w, append, at).e != s->length ||
        !read_near(m, s, now, &keep))
        return false;
    s->keep = keep;
    fg_window_symbols(m, s, fg_state_more(m, s), &at, &capacity);
    fg_each_inst(m->body, i)
        if (i != m->body->last && fg_reads(i, now)) {
            fg_attr *start = &FG_SET(i, slice, start);
            fg_expr *es = FG_NEWN(m->a, fg_expr, (size_t)start->n);
            memcpy(es, start->es, sizeof *es * (size_t)start->n);
            es[s->axis] = fg_eadd(m->ex, at, fg_esub(m->ex, es[s->axis], s->length));
            start->es = es;
        }
    FG_SET(w, append, at).e = at;
    fg_ri(m, past)->type.dim[s->axis] = fg_ri(m, now)->type.dim[s->axis] = capacity;
    s->at = at;
    return true;
}

bool
fg_state_windows(fg_module *m, fg_passctx *cx)
{
    int n = 0;

    fg_each_inst(m->body, i)
        n += i->op == FG_OP_attention && narrow_attention(m, i);
    if (n)
        fg_drop_unread(m, cx->scratch);
    for (int k = 0; k < m->nstate && n; k++)
        if (make_window(m, &m->state[k]))
            fg_report_fusion(cx->report, "caches kept as windows");
    return n > 0;
}
