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
 * When the output is no more than the last rows of that, the input becomes a window
 * (state_windows.c, ir/state.c): nothing is moved to the front for the rows that go.
 *
 *     %1 = concat %past, %x {axis=2}           %3 = append %past, %x {axis=2, at=R}
 *     ..                                       %1 = slice %3 {start=[0,0,R-P,0]} : f32[B,4,P+S,64]
 *     %2 = slice %1 {start=[0,0,P+S-512,0]} =>
 *     ret %2                                   ret %3
 *
 * Caches of one size, and those that are padded first, are written at rows that are found
 * while running. The same rewriting, with length = next when the size stays; zeros are
 * appended for padding. Any row may change, so nobody else may read the input at all.
 *
 * By name: what else looks like a cache (`past_conv.0` and `present_conv.0`) changes
 * places with its output between runs. Nothing is rewritten; a wrong guess costs nothing,
 * since states are used only by hosts that ask for them.
 */
#include "passes/algebra.h"
#include "passes/states.h"

enum {
    MAXWRITE = 4,
    MAXCHAIN = 32
}; /* writes into one cache; between input and output */

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

bool
fg_reads(const fg_inst *i, fg_reg r)
{
    for (int k = 0; k < i->nin; k++)
        if (i->in[k] == r)
            return true;
    for (int k = 0; k < i->nregion; k++)
        fg_each_inst(i->region[k], j)
            if (fg_reads(j, r))
                return true;
    return false;
}

static bool
read_before(const fg_inst *at, fg_reg r, const fg_inst *but)
{
    for (const fg_inst *i = at->prev; i; i = i->prev)
        if (i != but && fg_reads(i, r))
            return true;
    return false;
}

/* An output made of an input by joining something on behind it, or zeros that are then
 * written over, and by writing rows into it. */
typedef struct cache {
    int input, axis;
    fg_inst *cut;  /* slice to the last `keep` rows of that; NULL: all of it */
    fg_inst *rest; /* the slice of the input that was joined instead: cut is grow */
    int64_t keep;
    fg_inst *grow;            /* concat or pad; NULL: the size stays */
    fg_inst *write[MAXWRITE]; /* appends to rows, the last first */
    int nwrite;
} cache;

static bool
pads_behind(fg_module *m, const fg_inst *i, int axis)
{
    const fg_attr *before = &FG_GET(i, pad, before), *after = &FG_GET(i, pad, after);
    double fill = 0;

    if (strcmp(FG_GET(i, pad, mode).s, "constant") ||
        (i->nin > 1 && i->in[1] && !(fg_const_splat(m, i->in[1], &fill) && fill == 0)))
        return false;
    for (int d = 0; d < before->n; d++)
        if (!fg_e_is(m->ex, before->es[d], 0) ||
            (d != axis && !fg_e_is(m->ex, after->es[d], 0)))
            return false;
    return fg_e_le(m->ex, fg_rt(m, i->in[0])->dim[axis], fg_rt(m, i->out[0])->dim[axis]);
}

/* The axis along which i takes the last elements of what it reads, and all along others; -1. */
static int
takes_last(fg_module *m, const fg_inst *i)
{
    const fg_type *all = fg_rt(m, i->in[0]), *t = fg_rt(m, i->out[0]);
    int axis = -1;

    for (int d = 0; d < t->rank; d++) {
        if (FG_GET(i, slice, step).is[d] != 1 ||
            fg_eadd(m->ex, FG_GET(i, slice, start).es[d], t->dim[d]) != all->dim[d])
            return -1;
        if (t->dim[d] != all->dim[d]) {
            if (axis >= 0)
                return -1;
            axis = d;
        }
    }
    return axis;
}

/* The last rows of what was joined, or the last of the input with something joined on. */
static bool
cut_in(fg_module *m, fg_inst *i, const uint32_t *uses, cache *c)
{
    fg_inst *part = fg_is_op(i, FG_OP_concat) ? fg_def(m, i->in[0]) : i;

    if (!fg_is_op(part, FG_OP_slice) || part->block != m->body || i->block != m->body ||
        (c->axis = takes_last(m, part)) < 0)
        return false;
    c->cut = i;
    c->rest = i != part ? part : NULL;
    c->grow = i != part ? i : fg_def(m, i->in[0]);
    return fg_is_op(c->grow, FG_OP_concat) && c->grow->block == m->body &&
           c->grow->nin == 2 && c->grow->in[0] != c->grow->in[1] &&
           FG_GET(c->grow, concat, axis).i == c->axis &&
           (!c->rest || uses[part->out[0]] == 1);
}

/* From the output back to what may be an input. What lies between is read by nobody else, but
 * for what a cut leaves. */
static fg_reg
walk_back(fg_module *m, fg_reg r, const uint32_t *uses, cache *c)
{
    fg_inst *i = fg_def(m, r);

    if (cut_in(m, i, uses, c))
        return (c->rest ? c->rest : c->grow)->in[0];

    while (fg_is_op(i, FG_OP_append) && i->block == m->body && i->nin > 2 && i->in[2]) {
        int axis = (int)FG_GET(i, append, axis).i;
        if (c->nwrite == MAXWRITE || (c->nwrite && axis != c->axis) ||
            uses[i->in[0]] != 1)
            return 0;
        c->axis = axis;
        c->write[c->nwrite++] = i;
        i = fg_def(m, r = i->in[0]);
    }
    if (!i || i->block != m->body)
        return i ? 0 : r;
    bool joins = i->op == FG_OP_concat && i->nin == 2 && i->in[0] != i->in[1] &&
                 (!c->nwrite || FG_GET(i, concat, axis).i == c->axis);
    bool pads = i->op == FG_OP_pad && c->nwrite && pads_behind(m, i, c->axis);
    if (joins)
        c->axis = (int)FG_GET(i, concat, axis).i;
    c->grow = joins || pads ? i : NULL;
    return c->grow ? i->in[0] : 0;
}

/* Rows so small that a line of memory has several of them, and few, are written anew for less
 * than what it takes to touch a line for each: the last inputs of a convolution whose axis
 * of time comes last. */
static bool
worth_a_window(fg_module *m, const fg_type *t, const cache *c)
{
    enum { FEW = 4 * 64 };
    int64_t bytes = fg_dtypes[t->dtype].bits / 8;

    for (int d = c->axis + 1; d < t->rank && bytes < FEW; d++) {
        int64_t n = fg_e_lo(m->ex, t->dim[d]);
        bytes *= n < 1 ? 1 : n < FEW ? n : FEW;
    }
    return c->keep * bytes >= FEW || c->keep >= FEW;
}

/* The output is the last `keep` rows of past and new, or as many as there are; and the past has
 * no more than those. */
static bool
cuts(fg_module *m, const fg_type *past, fg_expr next, cache *c)
{
    fg_exprs *x = m->ex;
    fg_expr length = past->dim[c->axis],
            all = fg_eadd(x, length, fg_rt(m, c->grow->in[1])->dim[c->axis]);
    fg_sym p;

    c->keep = fg_e_hi(x, next);
    return c->keep > 0 && c->keep < INT64_MAX &&
           next == fg_emin(x, all, fg_ec(x, c->keep)) &&
           (length == fg_ec(x, c->keep)
                ? worth_a_window(m, past, c)
                : fg_e_single(x, length, &p) && fg_sym_info(x, p)->kind == FG_SYM_INPUT);
}

static bool
fits(fg_module *m, fg_reg out, const uint32_t *uses, cache *c)
{
    fg_reg past = walk_back(m, out, uses, c);
    fg_sym p;

    c->input = past ? input_of(m, past) : m->ninput;
    if (c->input == m->ninput || past == out || !can_be_state(m, c->input))
        return false;
    fg_expr length = fg_rt(m, past)->dim[c->axis], next = fg_rt(m, out)->dim[c->axis];
    if (fg_e_mentions(m->ex, next, FG_SYM_RUN))
        return false;
    if (c->cut)
        return cuts(m, fg_rt(m, past), next, c) && !read_before(c->grow, past, c->rest);
    if (c->grow &&
        !(fg_e_single(m->ex, length, &p) && fg_sym_info(m->ex, p)->kind == FG_SYM_INPUT))
        return false;
    return c->nwrite ? uses[past] == 1 : !read_before(c->grow, past, NULL);
}

/* States that grow alike have one capacity. */
static fg_expr
capacity_for(fg_module *m, fg_expr next)
{
    for (int k = 0; k < m->nstate; k++)
        if (m->state[k].next == next && m->state[k].at == FG_E_BAD)
            return fg_state_capacity(m, &m->state[k]);
    int64_t lo = fg_e_lo(m->ex, next);
    return fg_es(m->ex,
                 fg_sym_new(m->ex, "capacity", FG_SYM_INPUT, lo > 0 ? lo : 0, INT64_MAX));
}

static fg_reg
emit_append(fg_build *b, fg_reg x, fg_reg y, fg_reg rows, int axis, fg_expr at)
{
    fg_inst *i = fg_inst_begin(b, FG_OP_append, rows ? 3 : 2, (fg_reg[]){x, y, rows});

    FG_SET(i, append, axis).i = axis;
    FG_SET(i, append, at).e = at;
    return fg_inst_finish(b, i, NULL, 0) ? i->out[0] : 0;
}

/* What is appended behind the valid part: what was joined on, or zeros. */
static fg_reg
behind(fg_build *b, const fg_inst *grow, int axis)
{
    fg_type t = *fg_rt(b->m, grow->in[0]);

    if (grow->op == FG_OP_concat)
        return grow->in[1];
    t.dim[axis] = FG_GET(grow, pad, after).es[axis];
    return fg_emit_expand(b, fg_emit_f(b, (fg_dtype)t.dtype, 0), t.rank, t.dim);
}

/* The appends again, to storage; the register of the last. */
static fg_reg
rebuild(const cache *c, fg_reg past, fg_expr length)
{
    fg_reg x = past;

    if (c->grow) {
        fg_build b = fg_build_before(c->grow);
        fg_reg y = behind(&b, c->grow, c->axis);
        x = y ? emit_append(&b, x, y, 0, c->axis, length) : 0;
    }
    for (int k = c->nwrite - 1; k >= 0 && x; k--) {
        fg_build b = fg_build_before(c->write[k]);
        x = emit_append(&b, x, c->write[k]->in[1], c->write[k]->in[2], c->axis, FG_E_BAD);
    }
    return x;
}

/* Whoever reads r, which had type t, reads as much of the storage from row `first` on. */
static bool
read_there(fg_module *m, fg_reg r, const fg_type *t, fg_reg now, int axis, fg_expr first)
{
    fg_inst *append = fg_def(m, now), *j = m->body->first;
    fg_expr start[FG_MAXRANK];
    int64_t one[FG_MAXRANK];

    while (j && (j == append || !fg_reads(j, r)))
        j = j->next;
    if (!j)
        return true;
    for (int d = 0; d < t->rank; d++) {
        start[d] = d == axis ? first : fg_ec(m->ex, 0);
        one[d] = 1;
    }
    fg_build b = fg_build_before(j);
    fg_reg rows = fg_emit_slice(&b, now, start, one, t->dim), from = append->in[0];
    if (!rows)
        return false;
    fg_replace_uses(m->body, r, rows);
    append->in[0] = from;
    return true;
}

/* What is joined, cut and written now happens in the storage. */
static void
remove_old(const cache *c)
{
    if (c->cut && c->cut != c->grow)
        fg_inst_remove(c->cut);
    for (int k = 0; k < c->nwrite; k++)
        fg_inst_remove(c->write[k]);
    if (c->grow)
        fg_inst_remove(c->grow);
    if (c->rest)
        fg_inst_remove(c->rest);
}

static bool
make_state(fg_module *m, int output, const cache *c)
{
    fg_inst *last = c->cut ? c->cut : c->nwrite ? c->write[0] : c->grow;
    fg_reg past = m->input[c->input].reg, was = last->out[0],
           all = c->cut ? c->grow->out[0] : was;
    const fg_type before = *fg_rt(m, past), joined = *fg_rt(m, all),
                  after = *fg_rt(m, was);
    fg_state s = {c->input, output, c->axis, before.dim[c->axis], after.dim[c->axis]};
    fg_expr first = fg_ec(m->ex, 0), begins = s.length, last_rows = first;
    fg_expr capacity = c->cut ? FG_E_BAD : capacity_for(m, s.next);

    if (c->cut) {
        fg_expr more = fg_rt(m, c->grow->in[1])->dim[c->axis];
        s.keep = c->keep;
        fg_window_symbols(m, &s, more, &s.at, &capacity);
        begins = s.at;
        first = fg_esub(m->ex, s.at, s.length);
        last_rows = fg_esub(m->ex, fg_eadd(m->ex, s.at, more), s.next);
    }
    fg_ri(m, past)->type.dim[c->axis] = capacity;
    fg_reg now = rebuild(c, past, begins);
    if (!now)
        return false;
    const char *name = fg_ri(m, now)->name;
    fg_ri(m, now)->name = fg_ri(m, was)->name;
    fg_ri(m, was)->name = name;
    m->output[output].reg = m->body->last->in[output] = now;
    remove_old(c);
    m->state[m->nstate++] = s;
    return read_there(m, was, &after, now, c->axis, last_rows) &&
           read_there(m, all, &joined, now, c->axis, first) &&
           (c->nwrite || read_there(m, past, &before, now, c->axis, first));
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

/* The axis along which the output is longer, -1 when sizes are equal; false when the one cannot
 * be given for the other, or when it may be shorter: then to go back is not to drop its end. */
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
        if (*axis >= 0 || !fg_e_le(m->ex, a->dim[d], b->dim[d]))
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

/* ---- the pass ------------------------------------------------------------------------- */

/* i as an append to rows, if it is that under another name. */
static bool
respell(fg_module *m, fg_inst *i)
{
    if (!i || i->block != m->body)
        return false;
    fg_build b = fg_build_before(i);
    fg_reg x = fg_rules_apply(&b, i, fg_rules_cache);
    if (!x)
        return false;
    const char *name = fg_ri(m, x)->name;
    fg_ri(m, x)->name = fg_ri(m, i->out[0])->name;
    fg_ri(m, i->out[0])->name = name;
    fg_replace_uses(m->body, i->out[0], x);
    for (int k = 0; k < m->noutput; k++)
        m->output[k].reg = m->body->last->in[k];
    fg_inst_remove(i);
    return true;
}

void
fg_drop_unread(fg_module *m, fg_arena *a)
{
    uint32_t *uses = fg_count_uses(m, a);

    fg_each_inst_back(m->body, i) {
        bool read = fg_has_effect(i) || i->nregion;
        for (int k = 0; k < i->nout; k++)
            read |= uses[i->out[k]] > 0;
        for (int k = 0; k < i->nin && !read; k++)
            uses[i->in[k]]--;
        if (!read)
            fg_inst_remove(i);
    }
}

/* Whether r may be an input that something was written into. */
static bool
of_input(fg_module *m, fg_reg r)
{
    int n = 0;

    for (fg_inst *i; (i = fg_def(m, r)); r = i->in[0])
        if (++n > MAXCHAIN || i->block != m->body ||
            (i->op != FG_OP_scatter_nd && i->op != FG_OP_scatter_elements &&
             i->op != FG_OP_transpose && i->op != FG_OP_append && i->op != FG_OP_pad &&
             i->op != FG_OP_concat && i->op != FG_OP_slice))
            return false;
    int k = input_of(m, r);
    return k < m->ninput && can_be_state(m, k);
}

/* All that makes output k, from its definition on. */
static bool
respell_output(fg_module *m, fg_arena *a, int k)
{
    bool any = false, more = true;

    while (more) {
        fg_inst *i = fg_def(m, m->output[k].reg);
        fg_inst *below = fg_is_op(i, FG_OP_transpose) ? fg_def(m, i->in[0]) : NULL;
        while (fg_is_op(i, FG_OP_append))
            i = fg_def(m, i->in[0]);
        more = respell(m, below) || respell(m, i);
        any |= more;
    }
    if (any)
        fg_drop_unread(m, a);
    return any;
}

fg_progress
fg_pass_states(fg_module *m, fg_passctx *cx)
{
    int before = m->nstate;
    bool respelled = false;
    fg_state *had = m->state;

    m->state = FG_NEWN(m->a, fg_state, (size_t)m->noutput + 1);
    for (int k = 0; k < before; k++)
        m->state[k] = had[k];
    for (int k = 0; k < m->noutput; k++) {
        cache c = {0};
        if (fg_state_of_output(m, k) || !of_input(m, m->output[k].reg))
            continue;
        respelled |= respell_output(m, cx->scratch, k);
        if (!fits(m, m->output[k].reg, fg_count_uses(m, cx->scratch), &c))
            continue;
        if (!make_state(m, k, &c))
            return FG_FAILED;
        fg_report_fusion(cx->report,
                         c.cut ? "caches kept as windows" : "caches that grow in place");
    }
    for (int k = 0; k < m->noutput; k++)
        if (!fg_state_of_output(m, k))
            pair_by_name(m, cx->scratch, k);
    bool narrowed = fg_state_windows(m, cx);
    return m->nstate != before || respelled || narrowed ? FG_CHANGED : FG_SAME;
}
