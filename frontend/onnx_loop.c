/* onnx_loop.c - Loop and Scan.
 *
 *     %h = loop %steps, _, %x {carried=1} : f32[B,S,64] (%i: i64[], %go: bool[], %x.1: f32[B,S,64]) {  !"/Loop"
 *       ..
 *       yield %true, %y
 *     }
 *
 * A carried value keeps its type when the body gives back what it took. A body that
 * gives back another size is imported again with a run-time symbol in that place; so is
 * one that cannot be imported under the first sizes at all. The number of iterations is an expression
 * when the trip count is one and the condition is always true.
 *
 * A sequence of tensors is carried item by item; one that changes its length is possible only
 * when the loop can be repeated in place.
 *
 * Scan is a loop that gathers its elements and whose outputs are moved from axis 0.
 */
#include "frontend/model.h"

enum { MAX_VALUES = 4096, MAX_UNROLL = 256 };

typedef struct element {
    fg_reg x;
    int axis;
    bool reverse;
} element;

typedef struct loop { /* Loop and Scan in common */
    fg_node *n;
    fg_scope *s;
    const Onnx__GraphProto *g;
    bool scan; /* body takes states and elements; else iteration, condition, carried */
    fg_reg trip, cond; /* 0: none */
    fg_expr ntrip;     /* FG_E_BAD: not known */
    int ncarried, nelem, nscan;
    const fg_reg *carried;
    int nval;   /* carried values of the model; a sequence is several of ours */
    int *len;   /* length of value i, -1 for a tensor */
    bool grows; /* a sequence came back with another length */
    element *elem;
    fg_type *type; /* of the carried parameters */
    fg_sym mark;   /* symbols from here on were made for the body */
    int64_t *syms;
    int nsym;
    fg_inst *inst;
    fg_reg *param; /* iteration, condition, carried.. */
    fg_reg *res;   /* condition, carried.., scanned.. */
} loop;

/* The elements of this iteration: slices of what is scanned, with the axis dropped. */
static bool
take_elements(loop *l, fg_build *b, fg_reg *args)
{
    fg_exprs *ex = l->n->ex;
    for (int k = 0; k < l->nelem; k++) {
        fg_reg at = l->param[0];
        if (l->elem[k].reverse) {
            fg_expr last = fg_esub(ex, l->ntrip, fg_ec(ex, 1));
            at = fg_emit2(b, FG_OP_sub, fg_emit_symvec(b, 1, &last, FG_i64, true), at);
        }
        args[l->nval + k] = fg_emit_gather(b, l->elem[k].x, at, l->elem[k].axis);
        if (!args[l->nval + k])
            return false;
    }
    return true;
}

/* Arguments of the body: its parameters, with sequences put together again. */
static void
pack_values(loop *l, fg_build *b, fg_reg *args)
{
    fg_node as = *l->n;
    as.b = b;
    for (int k = 0, at = 2; k < l->nval; at += l->len[k] < 0 ? 1 : l->len[k], k++)
        args[k] =
            l->len[k] < 0 ? l->param[at] : fg_seq_new(&as, l->len[k], l->param + at);
}

/* The reverse, for what the body gives: raw values to l->res. */
static bool
unpack_values(loop *l, const fg_reg *raw)
{
    int at = 1;
    for (int k = 0; k < l->nval; k++) {
        const fg_reg *item;
        int n = fg_seq_items(l->n, raw[k], &item);
        if (n != l->len[k]) {
            l->grows = true;
            return fg_node_unsupported(
                l->n, "carried value %d is a sequence whose length changes", k);
        }
        if (n < 0)
            l->res[at++] = raw[k];
        for (int i = 0; i < n; i++)
            l->res[at++] = item[i];
    }
    memcpy(l->res + at, raw + l->nval, (size_t)l->nscan * sizeof *raw);
    return true;
}

/* The body in a new region with parameters of l->type; results to l->res. */
static bool
import_body(loop *l, bool *poison)
{
    fg_node *n = l->n;
    fg_module *m = n->m;
    fg_arena *tmp = n->im->tmp;
    int first = l->scan ? 0 : 2; /* arguments before the carried values */
    fg_reg *args = FG_NEWN(tmp, fg_reg, (size_t)(l->nval + l->nelem + 2));
    fg_reg *raw = FG_NEWN(tmp, fg_reg, l->g->n_output + 1);
    fg_reg *in = FG_NEWN(tmp, fg_reg, (size_t)l->ncarried + 2);
    in[0] = l->trip;
    in[1] = l->cond;
    if (l->ncarried)
        memcpy(in + 2, l->carried, (size_t)l->ncarried * sizeof *in);
    l->inst = fg_inst_begin(n->b, FG_OP_loop, l->ncarried + 2, in);
    l->inst->block = n->b->block;
    l->inst->region = FG_NEWN(m->a, fg_block *, 1);
    l->inst->nregion = 1;
    fg_block *body = l->inst->region[0] = fg_block_new(m, l->inst, n->b->block);
    fg_build b = fg_build_end(body);
    b.node = n->b->node;
    b.nnode = n->b->nnode;
    l->param[0] = args[0] = fg_param(m, body, fg_type_scalar(FG_i64), NULL);
    l->param[1] = args[1] = fg_param(m, body, fg_type_scalar(FG_bool), NULL);
    for (int k = 0; k < l->ncarried; k++)
        l->param[2 + k] = fg_param(m, body, l->type[k], NULL);
    pack_values(l, &b, args + first);
    if (l->scan && !take_elements(l, &b, args))
        return false;
    if (!fg_import_subgraph(l->s, &b, l->g, first + l->nval + l->nelem, args,
                            raw + l->scan))
        return false;
    *poison = fg_any_poison((int)l->g->n_output, raw + l->scan);
    if (*poison)
        return true;
    l->res[0] = l->scan ? fg_emit_f(&b, FG_bool, 1)
                        : fg_one_element(n, &b, raw[0], FG_bool, "the body's condition");
    return l->res[0] && unpack_values(l, raw + 1);
}

static bool
is_loop_symbol(const loop *l, fg_expr e)
{
    fg_sym s;
    if (!fg_e_single(l->n->ex, e, &s))
        return false;
    for (int i = 0; i < l->nsym; i++)
        if (l->syms[i] == s)
            return true;
    return false;
}

static fg_expr
loop_symbol(loop *l)
{
    return fg_fresh_dim(l->n, 0, INT64_MAX, l->syms, &l->nsym);
}

/* After a body was imported: makes symbolic what does not come back as it went in. */
static bool
settle(loop *l, bool *again)
{
    fg_node *n = l->n;
    *again = false;
    for (int k = 0; k < l->ncarried; k++) {
        const fg_type *was = fg_rt(n->m, l->param[2 + k]),
                      *is = fg_rt(n->m, l->res[1 + k]);
        if (was->dtype != is->dtype)
            return fg_node_error(n, "carried value %d is %s but becomes %s", k,
                                 fg_type_text(n->m, was), fg_type_text(n->m, is));
        if (was->rank != is->rank)
            return fg_node_unsupported(n, "carried value %d changes rank: %s becomes %s",
                                       k, fg_type_text(n->m, was),
                                       fg_type_text(n->m, is));
        l->type[k] = *was;
        for (int d = 0; d < was->rank; d++)
            if (was->dim[d] != is->dim[d] && !is_loop_symbol(l, was->dim[d])) {
                l->type[k].dim[d] = loop_symbol(l);
                *again = true;
            }
    }
    return true;
}

static bool
generalise(loop *l)
{
    bool any = false;
    for (int k = 0; k < l->ncarried; k++)
        for (int d = 0; d < l->type[k].rank; d++) {
            l->type[k].dim[d] = loop_symbol(l);
            any = true;
        }
    return any;
}

/* Imports the body until its types are stable. *poison: it holds an unsupported node. */
static bool
stable_body(loop *l, bool *poison)
{
    enum { ROUNDS = 6 };
    fg_attempt start = fg_attempt_begin(l->n->im);
    bool again, first = true;
    for (int round = 0; round < ROUNDS; round++) {
        l->mark = fg_sym_count(l->n->ex);
        *poison = false;
        bool ok = import_body(l, poison);
        if (ok && *poison)
            return true;
        if (!ok && first && !l->grows && l->n->im->work < FG_MAX_NODES && generalise(l)) {
            fg_attempt_undo(l->n->im, start);
            first = false;
            continue;
        }
        if (!ok || !settle(l, &again))
            return false;
        if (!again)
            return true;
        fg_attempt_undo(l->n->im, start);
        first = false;
    }
    return fg_node_unsupported(l->n, "the sizes of its carried values do not settle");
}

/* The condition never ends the loop. */
static bool
always(loop *l)
{
    int64_t v;
    fg_node *n = l->n;
    bool enters = !l->cond || (fg_known_scalar(n, l->cond, &v) && v);
    fg_reg r = l->res[0];
    while (fg_def(n->m, r) && fg_is_op(fg_def(n->m, r), FG_OP_reshape))
        r = fg_def(n->m, r)->in[0];
    return enters && (r == l->param[1] || (fg_known_scalar(n, r, &v) && v));
}

/* e does not depend on anything made inside the body. */
static bool
outer(loop *l, fg_expr e)
{
    fg_exprs *ex = l->n->ex;
    fg_bits used = fg_bits_new(l->n->im->tmp, fg_sym_count(ex));
    fg_e_symbols(ex, e, used);
    for (fg_sym s = l->mark; s < fg_sym_count(ex); s++)
        if (fg_bits_has(used, s))
            return false;
    for (int i = 0; i < l->nsym; i++)
        if (fg_bits_has(used, (uint32_t)l->syms[i]))
            return false;
    return true;
}

static fg_type
result_type(loop *l, fg_type t, bool stack, fg_expr n)
{
    for (int d = 0; d < t.rank; d++)
        if (!outer(l, t.dim[d]))
            t.dim[d] = loop_symbol(l);
    if (!stack)
        return t;
    memmove(t.dim + 1, t.dim, sizeof t.dim - sizeof t.dim[0]);
    t.dim[0] = n;
    t.rank++;
    return t;
}

/* What flows in first must fit parameters whose size the body settled. */
static bool
starts_right(loop *l)
{
    fg_node *n = l->n;
    for (int k = 0; k < l->ncarried; k++) {
        fg_type in = *fg_rt(n->m, l->carried[k]), p = *fg_rt(n->m, l->param[2 + k]);
        for (int d = 0; d < p.rank; d++)
            if (!is_loop_symbol(l, p.dim[d]) && !fg_unify(n->m, in.dim[d], p.dim[d]))
                return fg_node_error(n, "carried value %d is %s, but its body needs %s",
                                     k, fg_type_text(n->m, &in), fg_type_text(n->m, &p));
    }
    return true;
}

static bool
finish_loop(loop *l)
{
    fg_node *n = l->n;
    fg_module *m = n->m;
    fg_build b = fg_build_end(l->inst->region[0]);
    int nout = l->ncarried + l->nscan;
    bool runs_on = always(l);
    if (runs_on)
        l->inst->in[1] = 0;
    if (runs_on && fg_e_lo(n->ex, l->ntrip ? l->ntrip : fg_ec(n->ex, 0)) >= (int64_t)1
                                                                                << 40)
        return fg_node_error(n, "it never ends");
    if (runs_on && !l->trip)
        return fg_node_error(
            n, "it never ends: it has no trip count and its condition is always true");
    if (!starts_right(l) || !fg_import_yield(&b, 1 + nout, l->res))
        return false;
    /* Result symbols are not the parameters': those change while the loop runs. */
    fg_type *types = FG_NEWN(m->a, fg_type, (size_t)nout);
    fg_expr count = FG_E_BAD;
    if (runs_on && l->ntrip)
        count = fg_emax(n->ex, l->ntrip, fg_ec(n->ex, 0));
    for (int k = 0; k < nout; k++) {
        const fg_type *t = fg_rt(m, k < l->ncarried ? l->param[2 + k] : l->res[1 + k]);
        if (k >= l->ncarried && (t->rank == FG_MAXRANK || t->dtype == FG_NODTYPE))
            return fg_node_unsupported(n, "scan output %d cannot be stacked",
                                       k - l->ncarried);
        if (k >= l->ncarried && !count)
            count = loop_symbol(l);
        types[k] = result_type(l, *t, k >= l->ncarried, count);
    }
    FG_SET(l->inst, loop, carried).i = l->ncarried;
    fg_set_ints(m, &FG_SET(l->inst, loop, syms), l->nsym, l->syms);
    return fg_inst_finish(n->b, l->inst, types, nout) != NULL;
}

/* Everything but Scan's moving of axes; *poison as above. */
static bool
import_loop(loop *l, bool *poison)
{
    fg_node *n = l->n;
    fg_arena *tmp = n->im->tmp;
    if (l->ncarried + l->nelem + l->nscan > MAX_VALUES)
        return fg_node_error(n, "too many values");
    l->type = FG_NEWN(tmp, fg_type, (size_t)l->ncarried);
    for (int k = 0; k < l->ncarried; k++) {
        if (!l->carried[k])
            return fg_node_error(n, "carried value %d is missing", k);
        l->type[k] = *fg_rt(n->m, l->carried[k]);
    }
    /* Rounds add symbols for parameters, the end adds some for results. */
    l->syms =
        FG_NEWN(tmp, int64_t, (size_t)(l->ncarried * 4 + l->nscan + 1) * FG_MAXRANK);
    l->param = FG_NEWN(tmp, fg_reg, (size_t)l->ncarried + 2);
    l->res = FG_NEWN(tmp, fg_reg, (size_t)(l->ncarried + l->nscan) + 1);
    return stable_body(l, poison) && (*poison || finish_loop(l));
}

/* ---- Loop ----------------------------------------------------------------------------- */

/* A loop with sequences that grow is repeated in place: sequences exist only now. */
static bool
unroll(loop *l)
{
    fg_node *n = l->n;
    int64_t trips, go = 1;
    int nres = (int)l->g->n_output;
    fg_reg *args = FG_NEWN(n->im->tmp, fg_reg, (size_t)l->nval + 2);
    if (!l->ntrip || !fg_e_const(n->ex, l->ntrip, &trips) || trips > MAX_UNROLL ||
        (l->cond && !fg_known_scalar(n, l->cond, &go)))
        return fg_node_unsupported(
            n,
            "it carries sequences that grow, and its trip count is not a small constant");
    fg_reg **scanned = FG_NEWN(n->im->tmp, fg_reg *, (size_t)l->nscan);
    for (int k = 0; k < l->nscan; k++)
        scanned[k] = FG_NEWN(n->im->tmp, fg_reg, (size_t)(trips > 0 ? trips : 0));
    l->res = FG_NEWN(n->im->tmp, fg_reg, (size_t)nres);
    memcpy(args + 2, n->in + 2, (size_t)l->nval * sizeof *args);
    int64_t i = 0;
    for (; i < trips && go; i++) {
        args[0] = fg_emit_const(n->b, FG_i64, 0, NULL, &i);
        args[1] = fg_emit_f(n->b, FG_bool, 1);
        if (!fg_import_subgraph(l->s, n->b, l->g, l->nval + 2, args, l->res))
            return false;
        if (fg_any_poison(nres, l->res))
            return fg_all_poison(n);
        if (!fg_known_scalar(n, l->res[0], &go))
            return fg_node_unsupported(
                n, "it carries sequences that grow, and may end early");
        memcpy(args + 2, l->res + 1, (size_t)l->nval * sizeof *args);
        for (int k = 0; k < l->nscan; k++) {
            fg_reg r = l->res[1 + l->nval + k];
            fg_type t = *fg_rt(n->m, r);
            if (t.dtype == FG_NODTYPE || t.rank == FG_MAXRANK)
                return fg_node_unsupported(n, "scan output %d cannot be stacked", k);
            memmove(t.dim + 1, t.dim, sizeof t.dim - sizeof t.dim[0]);
            t.dim[0] = fg_ec(n->ex, 1);
            scanned[k][i] = fg_emit_reshape(n->b, r, t.rank + 1, t.dim);
        }
    }
    for (int k = 0; k < n->nout; k++) {
        if (k < l->nval)
            n->out[k] = args[2 + k];
        else if (i)
            n->out[k] = fg_emit_concat(n->b, (int)i, scanned[k - l->nval], 0);
        else
            return fg_node_unsupported(n, "scan output %d of no iterations", k);
    }
    return true;
}

/* Carried registers: sequences become their items. */
static void
flatten(loop *l)
{
    fg_node *n = l->n;
    size_t cap = 0;
    fg_reg *flat = NULL;
    l->len = FG_NEWN(n->im->tmp, int, (size_t)l->nval);
    for (int k = 0; k < l->nval; k++) {
        const fg_reg *item;
        l->len[k] = fg_seq_items(n, n->in[2 + k], &item);
        for (int i = 0; i < (l->len[k] < 0 ? 1 : l->len[k]); i++)
            FG_PUSH(n->im->tmp, flat, l->ncarried, cap) = item ? item[i] : n->in[2 + k];
    }
    l->carried = flat;
}

static bool
loop_header(loop *l)
{
    fg_node *n = l->n;
    if (!l->g)
        return false;
    l->nval = n->nin > 2 ? n->nin - 2 : 0;
    if (l->g->n_output < (size_t)l->nval + 1 || l->g->n_output > MAX_VALUES)
        return fg_node_error(n, "its body gives %zu values for %d carried ones",
                             l->g->n_output, l->nval);
    l->nscan = (int)l->g->n_output - 1 - l->nval;
    if (n->nout > l->nval + l->nscan)
        return fg_node_error(n, "has %d outputs, its body %d", n->nout,
                             l->nval + l->nscan);
    if (fg_in(n, 0)) {
        if (!(l->trip = fg_one_element(n, n->b, fg_in(n, 0), FG_i64, "the trip count")))
            return false;
        const fg_reginfo *ri = fg_ri(n->m, l->trip);
        l->ntrip = ri->sym && ri->nsym == 1 ? ri->sym[0] : FG_E_BAD;
    }
    if (fg_in(n, 1) &&
        !(l->cond = fg_one_element(n, n->b, fg_in(n, 1), FG_bool, "the condition")))
        return false;
    flatten(l);
    return true;
}

bool
fg_import_loop(fg_node *n, fg_scope *s)
{
    loop l = {.n = n, .s = s, .g = fg_attr_graph(n, "body")};
    bool poison;
    if (!loop_header(&l))
        return false;
    fg_attempt start = fg_attempt_begin(n->im);
    if (!import_loop(&l, &poison)) {
        if (!l.grows)
            return false;
        fg_attempt_undo(n->im, start);
        return unroll(&l);
    }
    if (poison)
        return fg_all_poison(n);
    const fg_reg *out = l.inst->out;
    for (int k = 0; k < n->nout; k++) {
        int len = k < l.nval ? l.len[k] : -1;
        n->out[k] = len < 0 ? *out : fg_seq_new(n, len, out);
        out += len < 0 ? 1 : len;
    }
    return true;
}

/* ---- Scan ----------------------------------------------------------------------------- */

/* Element k of an optional list of integers, which has `len` of them. */
static bool
listed(fg_node *n, const char *name, int len, int k, int64_t *v)
{
    const int64_t *list;
    int have = fg_attr_ints(n, name, &list);
    if (have >= 0 && have != len)
        return fg_node_error(n, "%s has %d entries, not %d", name, have, len);
    *v = have < 0 ? 0 : list[k];
    return !n->im->failed;
}

static bool
scan_inputs(loop *l)
{
    fg_node *n = l->n;
    int64_t axis = 0, reverse = 0;
    l->elem = FG_NEWN(n->im->tmp, element, (size_t)l->nelem);
    for (int k = 0; k < l->nelem; k++) {
        fg_reg x = fg_need(n, l->ncarried + k);
        element *e = &l->elem[k];
        if (!x || !listed(n, "scan_input_axes", l->nelem, k, &axis) ||
            !listed(n, "scan_input_directions", l->nelem, k, &reverse) ||
            !fg_axis(n, axis, fg_rt(n->m, x)->rank, &e->axis))
            return false;
        e->x = x;
        e->reverse = reverse == 1;
        fg_expr len = fg_rt(n->m, x)->dim[e->axis];
        if (k && !fg_unify(n->m, l->ntrip, len))
            return fg_node_error(n, "its inputs have different lengths");
        l->ntrip = fg_e_renew(n->ex, len);
    }
    l->trip = fg_emit_symvec(n->b, 1, &l->ntrip, FG_i64, true);
    return l->trip != 0;
}

/* Scanned output k as the model wants it: reversed, and with its axis in place. */
static fg_reg
place_output(fg_node *n, fg_reg r, int nscan, int k)
{
    int64_t axis = 0, reverse = 0, perm[FG_MAXRANK], step[FG_MAXRANK];
    fg_expr start[FG_MAXRANK];
    fg_type t = *fg_rt(n->m, r);
    int to;
    if (!listed(n, "scan_output_axes", nscan, k, &axis) ||
        !listed(n, "scan_output_directions", nscan, k, &reverse) ||
        !fg_axis(n, axis, t.rank, &to))
        return 0;
    for (int d = 0; d < t.rank; d++) {
        bool flip = d == 0 && reverse == 1;
        step[d] = flip ? -1 : 1;
        start[d] = flip ? fg_esub(n->ex, t.dim[d], fg_ec(n->ex, 1)) : fg_ec(n->ex, 0);
        perm[d] = d == to ? 0 : d < to ? d + 1 : d;
    }
    return fg_emit_transpose(n->b, fg_emit_slice(n->b, r, start, step, t.dim), perm);
}

/* Opset 8: a batch in front of everything; without lengths and for a batch of one it is the
 * later operator on its only entry. */
static bool
drop_batch(fg_node *n, fg_reg *in)
{
    for (int k = 1; k < n->nin; k++) {
        if (!in[k])
            return fg_node_error(n, "operand %d is missing", k);
        fg_type t = *fg_rt(n->m, in[k]);
        if (t.rank < 1 || !fg_e_is(n->ex, t.dim[0], 1))
            return fg_node_unsupported(n, "version 8 with a batch other than 1");
        in[k] = fg_emit_reshape(n->b, in[k], t.rank - 1, t.dim + 1);
    }
    return !fg_in(n, 0) || fg_node_unsupported(n, "version 8 with sequence lengths");
}

bool
fg_import_scan(fg_node *n, fg_scope *s)
{
    loop l = {.n = n, .s = s, .scan = true, .g = fg_attr_graph(n, "body")};
    bool poison, old = n->opset < 9;
    int64_t nelem = fg_attr_int(n, "num_scan_inputs", 0);
    fg_node as = *n;
    fg_reg *in = fg_dup(n->im->tmp, n->in, (size_t)(n->nin + 1) * sizeof *in);
    if (!l.g)
        return false;
    if (old) {
        if (n->nin < 1 || !drop_batch(n, in))
            return false;
        as.in = in + 1;
        as.nin--;
        l.n = &as;
    }
    if (nelem < 1 || nelem > as.nin)
        return fg_node_error(n, "num_scan_inputs does not fit its %d operands", as.nin);
    l.nelem = (int)nelem;
    l.nval = l.ncarried = as.nin - l.nelem;
    l.carried = as.in;
    l.len = FG_NEWN(n->im->tmp, int, (size_t)l.nval);
    for (int k = 0; k < l.nval; k++)
        l.len[k] = -1;
    if (l.g->n_output < (size_t)l.ncarried || (size_t)n->nout > l.g->n_output ||
        l.g->n_output > MAX_VALUES)
        return fg_node_error(n, "has %d outputs, its body %zu", n->nout, l.g->n_output);
    l.nscan = (int)l.g->n_output - l.ncarried;
    if (!scan_inputs(&l) || !import_loop(&l, &poison))
        return false;
    if (poison)
        return fg_all_poison(n);
    for (int k = 0; k < n->nout; k++) {
        fg_reg r = l.inst->out[k];
        if (k >= l.ncarried && !old)
            r = place_output(&as, r, l.nscan, k - l.ncarried);
        fg_type t = *fg_rt(n->m, r);
        if (old && r && t.rank < FG_MAXRANK) {
            memmove(t.dim + 1, t.dim, sizeof t.dim - sizeof t.dim[0]);
            t.dim[0] = fg_ec(n->ex, 1);
            r = fg_emit_reshape(n->b, r, t.rank + 1, t.dim);
        }
        if (!(n->out[k] = r))
            return false;
    }
    return true;
}
