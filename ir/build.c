/* build.c - making instructions: operand checks, types, symbolic values, shorthands. */
#include "ir/ir.h"

#include <stdio.h>

fg_build
fg_build_end(fg_block *b)
{
    return (fg_build){.m = b->m, .block = b};
}

fg_build
fg_build_before(fg_inst *i)
{
    return (fg_build){
        .m = i->block->m, .block = i->block, .at = i, .node = i->node, .nnode = i->nnode};
}

void
fg_build_add_nodes(fg_build *b, const fg_inst *from)
{
    const char **node = FG_NEWN(b->m->a, const char *, (size_t)(b->nnode + from->nnode));
    int n = b->nnode;
    if (n)
        memcpy(node, b->node, (size_t)n * sizeof *node);
    for (int k = 0; k < from->nnode; k++) {
        bool known = false;
        for (int j = 0; j < n; j++)
            known |= node[j] == from->node[k];
        if (!known)
            node[n++] = from->node[k];
    }
    b->node = node;
    b->nnode = n;
}

fg_build
fg_build_before2(fg_inst *at, fg_inst *x, fg_inst *y)
{
    fg_build b = {.m = at->block->m,
                  .block = at->block,
                  .at = at,
                  .node = x->node,
                  .nnode = x->nnode};
    fg_build_add_nodes(&b, y);
    return b;
}

fg_inst *
fg_inst_begin(fg_build *b, fg_op op, int nin, const fg_reg *in)
{
    fg_module *m = b->m;
    const fg_opinfo *info = fg_op_info(op);
    fg_inst *i = FG_NEW(m->a, fg_inst);
    i->op = op;
    i->nin = nin;
    i->in = fg_dup(m->a, in, (size_t)nin * sizeof *in);
    i->attr = FG_NEWN(m->a, fg_attr, (size_t)info->nattr);
    for (int k = 0; k < info->nattr; k++) {
        const fg_attrinfo *at = &fg_attrs[info->attr0 + k];
        i->attr[k] = at->dflt;
        if (at->kind == FG_AK_word)
            fg_set_word(m, &i->attr[k], at->dflt.s);
    }
    i->node = b->node;
    i->nnode = b->nnode;
    return i;
}

/* ---- checks --------------------------------------------------------------------------------- */

static bool
class_fits(fg_inclass cls, fg_dtype d, fg_dtype first)
{
    switch (cls) {
    case FG_IN_num:
        return fg_is_float(d) || fg_is_int(d);
    case FG_IN_flt:
        return fg_is_float(d);
    case FG_IN_int:
        return fg_is_int(d) || d == FG_bool;
    case FG_IN_bool:
        return d == FG_bool;
    case FG_IN_i64:
        return d == FG_i64;
    case FG_IN_same:
        return d == first;
    default:
        return true;
    }
}

bool
fg_inst_operands_ok(fg_module *m, const fg_inst *i)
{
    static const char *const names[] = {
        "any",  "numeric", "floating point",       "integer",
        "bool", "i64",     "the type of the first"};
    const fg_opinfo *info = fg_op_info(i->op);
    if (i->nin < info->min_in || i->nin > info->max_in)
        return fg_error(m->cx, "%s: %d operands, but it takes %d%s", fg_inst_where(m, i),
                        i->nin, info->min_in,
                        info->max_in == info->min_in ? "" : " or more");
    for (int k = 0; k < i->nin; k++) {
        const fg_operand *o = &info->operand[k < info->noperand ? k : info->noperand - 1];
        if (!i->in[k]) {
            if (!o->optional)
                return fg_error(m->cx, "%s: operand %d is missing", fg_inst_where(m, i),
                                k);
            continue;
        }
        fg_dtype d = fg_rt(m, i->in[k])->dtype,
                 first = i->in[0] ? fg_rt(m, i->in[0])->dtype : d;
        if (!class_fits(o->cls, d, first))
            return fg_error(m->cx, "%s: operand %d is %s, but it must be %s",
                            fg_inst_where(m, i), k, fg_dtypes[d].name,
                            o->cls == FG_IN_same ? fg_dtypes[first].name : names[o->cls]);
    }
    return true;
}

/* Result types by the op's rule; out[nout]. */
bool
fg_inst_infer(fg_module *m, fg_inst *i, const fg_type *given, fg_type *out)
{
    fg_type *in = FG_NEWN(m->a, fg_type, (size_t)i->nin);
    for (int k = 0; k < i->nin; k++)
        if (i->in[k])
            in[k] = *fg_rt(m, i->in[k]);
    fg_infer s = {.m = m, .i = i, .in = in, .given = given, .out = out};
    if (!fg_op_info(i->op)->shape(&s))
        return false;
    fg_inst_renew(m, i); /* inference may have unified symbols */
    for (int k = 0; k < i->nout; k++)
        for (int d = 0; d < out[k].rank; d++)
            if (!(out[k].dim[d] = fg_e_renew(m->ex, out[k].dim[d])))
                return fg_error(m->cx, "%s: dimension %d of the result is too large",
                                fg_inst_where(m, i), d);
    return true;
}

static bool
required_in_main(const fg_module *m, fg_expr x, fg_expr y)
{
    enum { WORTH_A_LOOK = 512 };
    for (int k = m->nrequired - 2; k >= 0 && k > m->nrequired - WORTH_A_LOOK; k -= 2)
        if (m->required[k] == x && m->required[k + 1] == y)
            return true;
    return false;
}

/* Equalities that inference took for granted and could not solve are checked at run time. */
static void
require_unsolved(fg_build *b)
{
    fg_module *m = b->m;
    for (int k = 0; k < m->nunsolved; k += 2) {
        fg_expr x = fg_e_renew(m->ex, m->unsolved[k]),
                y = fg_e_renew(m->ex, m->unsolved[k + 1]);
        if (x == y || required_in_main(m, x, y))
            continue;
        fg_inst *i = fg_inst_begin(b, FG_OP_require, 0, NULL);
        FG_SET(i, require, a).e = x;
        FG_SET(i, require, b).e = y;
        fg_inst_link(b, i);
        if (b->block != m->body)
            continue;
        FG_PUSH(m->a, m->required, m->nrequired, m->caprequired) = x;
        FG_PUSH(m->a, m->required, m->nrequired, m->caprequired) = y;
    }
    m->nunsolved = 0;
}

bool
fg_require(fg_build *b, fg_expr x, fg_expr y)
{
    if (!fg_unify(b->m, x, y))
        return false;
    require_unsolved(b);
    return true;
}

bool
fg_require_checked(fg_build *b, fg_expr x, fg_expr y)
{
    b->m->conditional++;
    bool ok = fg_require(b, x, y);
    b->m->conditional--;
    return ok;
}

fg_inst *
fg_inst_finish(fg_build *b, fg_inst *i, const fg_type *given, int ngiven)
{
    fg_module *m = b->m;
    const fg_opinfo *info = fg_op_info(i->op);
    i->nout = info->nout == FG_OUTS_N ? ngiven : info->nout;
    i->block = b->block;
    if (!fg_inst_operands_ok(m, i))
        return NULL;
    fg_type *g = fg_dup(m->a, given, (size_t)ngiven * sizeof *g);
    for (int k = 0; k < ngiven; k++)
        for (int d = 0; d < g[k].rank; d++)
            g[k].dim[d] = fg_e_renew(m->ex, g[k].dim[d]);
    fg_type *out = FG_NEWN(m->a, fg_type, (size_t)i->nout);
    if (!fg_inst_infer(m, i, ngiven ? g : NULL, out))
        return NULL;
    require_unsolved(b);
    if (i->op == FG_OP_require) /* read from text */
        fg_rely(m, FG_GET(i, require, a).e, FG_GET(i, require, b).e);
    i->out = FG_NEWN(m->a, fg_reg, (size_t)i->nout);
    for (int k = 0; k < i->nout; k++) {
        i->out[k] = fg_reg_new(m, b->block, out[k], b->name ? b->name[k] : NULL);
        m->reg[i->out[k]].def = i;
    }
    fg_inst_link(b, i);
    fg_symval(m, i);
    return i;
}

bool
fg_infer_error(fg_infer *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *text = fg_alloc(s->m->a, (size_t)(n < 0 ? 0 : n) + 1);
    if (n > 0)
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return fg_error(s->m->cx, "%s: %s", fg_inst_where(s->m, s->i), text);
}

/* ---- attributes ------------------------------------------------------------------------------- */

void
fg_set_exprs(fg_module *m, fg_attr *a, int n, const fg_expr *v)
{
    a->es = fg_dup(m->a, v, (size_t)n * sizeof *v);
    a->n = n;
}

void
fg_set_ints(fg_module *m, fg_attr *a, int n, const int64_t *v)
{
    a->is = fg_dup(m->a, v, (size_t)n * sizeof *v);
    a->n = n;
}

/* ---- shorthands --------------------------------------------------------------------------------- */

static fg_reg
finish1(fg_build *b, fg_inst *i, const fg_type *given)
{
    i = fg_inst_finish(b, i, given, given != NULL);
    return i ? i->out[0] : 0;
}

fg_reg
fg_emit1(fg_build *b, fg_op op, fg_reg x)
{
    return x ? finish1(b, fg_inst_begin(b, op, 1, &x), NULL) : 0;
}

fg_reg
fg_emit2(fg_build *b, fg_op op, fg_reg x, fg_reg y)
{
    return x && y ? finish1(b, fg_inst_begin(b, op, 2, (fg_reg[]){x, y}), NULL) : 0;
}

fg_reg
fg_emit3(fg_build *b, fg_op op, fg_reg x, fg_reg y, fg_reg z)
{
    return x && y && z ? finish1(b, fg_inst_begin(b, op, 3, (fg_reg[]){x, y, z}), NULL)
                       : 0;
}

fg_reg
fg_emit_cast(fg_build *b, fg_reg x, fg_dtype to)
{
    if (!x || fg_rt(b->m, x)->dtype == to)
        return x;
    fg_inst *i = fg_inst_begin(b, FG_OP_cast, 1, &x);
    FG_SET(i, cast, to).i = to;
    return finish1(b, i, NULL);
}

/* reshape or expand to dims, unless x has that shape. */
static fg_reg
emit_shaped(fg_build *b, fg_op op, fg_reg x, int rank, const fg_expr *dims)
{
    if (!x)
        return 0;
    fg_type t = fg_type_make(fg_rt(b->m, x)->dtype, rank, dims);
    if (fg_type_equal(&t, fg_rt(b->m, x)))
        return x;
    return finish1(b, fg_inst_begin(b, op, 1, &x), &t);
}

fg_reg
fg_emit_reshape(fg_build *b, fg_reg x, int rank, const fg_expr *dims)
{
    return emit_shaped(b, FG_OP_reshape, x, rank, dims);
}

fg_reg
fg_emit_expand(fg_build *b, fg_reg x, int rank, const fg_expr *dims)
{
    return emit_shaped(b, FG_OP_expand, x, rank, dims);
}

fg_reg
fg_emit_transpose(fg_build *b, fg_reg x, const int64_t *perm)
{
    if (!x)
        return 0;
    int rank = fg_rt(b->m, x)->rank;
    bool identity = true;
    for (int k = 0; k < rank; k++)
        identity &= perm[k] == k;
    if (identity)
        return x;
    fg_inst *i = fg_inst_begin(b, FG_OP_transpose, 1, &x);
    fg_set_ints(b->m, &FG_SET(i, transpose, perm), rank, perm);
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_slice(fg_build *b, fg_reg x, const fg_expr *start, const int64_t *step,
              const fg_expr *size)
{
    if (!x)
        return 0;
    const fg_type *tx = fg_rt(b->m, x);
    int rank = tx->rank;
    bool whole = true;
    for (int k = 0; k < rank; k++)
        whole &= fg_e_is(b->m->ex, start[k], 0) && step[k] == 1 && size[k] == tx->dim[k];
    if (whole)
        return x;
    fg_type t = fg_type_make(tx->dtype, rank, size);
    fg_inst *i = fg_inst_begin(b, FG_OP_slice, 1, &x);
    fg_set_exprs(b->m, &FG_SET(i, slice, start), rank, start);
    fg_set_ints(b->m, &FG_SET(i, slice, step), rank, step);
    return finish1(b, i, &t);
}

fg_reg
fg_emit_slice_axis(fg_build *b, fg_reg x, int axis, fg_expr start, fg_expr size)
{
    if (!x)
        return 0;
    fg_type t = *fg_rt(b->m, x);
    fg_expr at[FG_MAXRANK];
    int64_t step[FG_MAXRANK];
    for (int k = 0; k < t.rank; k++) {
        at[k] = k == axis ? start : fg_ec(b->m->ex, 0);
        step[k] = 1;
    }
    t.dim[axis] = size;
    return fg_emit_slice(b, x, at, step, t.dim);
}

fg_reg
fg_emit_concat(fg_build *b, int n, const fg_reg *x, int axis)
{
    for (int k = 0; k < n; k++)
        if (!x[k])
            return 0;
    if (n == 1)
        return x[0];
    fg_inst *i = fg_inst_begin(b, FG_OP_concat, n, x);
    FG_SET(i, concat, axis).i = axis;
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_reduce(fg_build *b, fg_op op, fg_reg x, int naxes, const int64_t *axes, bool keep)
{
    if (!x)
        return 0;
    /* All reductions have the same two attributes, in this order. */
    fg_inst *i = fg_inst_begin(b, op, 1, &x);
    fg_set_ints(b->m, &i->attr[0], naxes, axes);
    i->attr[1].i = keep;
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_gather(fg_build *b, fg_reg x, fg_reg index, int axis)
{
    if (!x || !index)
        return 0;
    fg_inst *i = fg_inst_begin(b, FG_OP_gather, 2, (fg_reg[]){x, index});
    FG_SET(i, gather, axis).i = axis;
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_matmul(fg_build *b, fg_reg x, fg_reg y, bool trans_a, bool trans_b)
{
    return fg_emit_matmul_rounded(b, x, y, trans_a, trans_b, 0);
}

fg_reg
fg_emit_matmul_rounded(fg_build *b, fg_reg x, fg_reg y, bool trans_a, bool trans_b,
                       int64_t round)
{
    if (!x || !y)
        return 0;
    fg_inst *i = fg_inst_begin(b, FG_OP_matmul, 2, (fg_reg[]){x, y});
    FG_SET(i, matmul, trans_a).i = trans_a;
    FG_SET(i, matmul, trans_b).i = trans_b;
    FG_SET(i, matmul, round).i = round;
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_softmax(fg_build *b, fg_reg x, int axis)
{
    if (!x)
        return 0;
    fg_inst *i = fg_inst_begin(b, FG_OP_softmax, 1, &x);
    FG_SET(i, softmax, axis).i = axis;
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_iota(fg_build *b, fg_expr n, fg_expr start, int64_t step, fg_dtype to)
{
    fg_inst *i = fg_inst_begin(b, FG_OP_iota, 0, NULL);
    FG_SET(i, iota, n).e = n;
    FG_SET(i, iota, start).e = start;
    FG_SET(i, iota, step).i = step;
    FG_SET(i, iota, to).i = to;
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_symvec(fg_build *b, int n, const fg_expr *v, fg_dtype to, bool scalar)
{
    fg_inst *i = fg_inst_begin(b, FG_OP_symvec, 0, NULL);
    fg_set_exprs(b->m, &FG_SET(i, symvec, v), n, v);
    FG_SET(i, symvec, to).i = to;
    FG_SET(i, symvec, scalar).i = scalar;
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_const(fg_build *b, fg_dtype d, int rank, const int64_t *dims, const void *data)
{
    fg_weight w = {.dtype = d, .rank = rank};
    int64_t count = 1;
    for (int k = 0; k < rank; k++) {
        w.dim[k] = dims[k];
        if (dims[k] < 0 || __builtin_mul_overflow(count, dims[k], &count)) {
            fg_error(b->m->cx, "a constant of impossible size");
            return 0;
        }
    }
    if (!fg_dtype_bytes(d, count, &w.bytes)) {
        fg_error(b->m->cx, "a constant of impossible size");
        return 0;
    }
    w.data = fg_dup(b->m->a, data, w.bytes);
    fg_weightcount counted = b->m->initializers;
    fg_inst *i = fg_inst_begin(b, FG_OP_const, 0, NULL);
    FG_SET(i, const, w).i = fg_weight_add(b->m, &w);
    b->m->initializers = counted;
    return finish1(b, i, NULL);
}

fg_reg
fg_emit_f(fg_build *b, fg_dtype d, double v)
{
    union {
        float f;
        double d;
        uint16_t h;
        int64_t i;
        uint8_t b;
    } u = {.i = 0};
    switch (d) {
    case FG_f32:
        u.f = (float)v;
        break;
    case FG_f64:
        u.d = v;
        break;
    case FG_f16:
        u.h = fg_f32_to_f16((float)v);
        break;
    case FG_bf16:
        u.h = fg_f32_to_bf16((float)v);
        break;
    case FG_bool:
        u.b = v != 0;
        break;
    case FG_u64:
        u.i = (int64_t)(uint64_t)v;
        break;
    default:
        u.i = (int64_t)v;
        break; /* little endian: the low bytes */
    }
    return fg_emit_const(b, d, 0, NULL, &u);
}

fg_expr
fg_emit_readsym(fg_build *b, fg_reg x, int64_t at, int64_t lo, int64_t hi)
{
    if (!x)
        return FG_E_BAD;
    fg_sym s = fg_sym_new(b->m->ex, NULL, FG_SYM_RUN, lo, hi);
    fg_inst *i = fg_inst_begin(b, FG_OP_readsym, 1, &x);
    FG_SET(i, readsym, sym).i = s;
    FG_SET(i, readsym, at).i = at;
    return fg_inst_finish(b, i, NULL, 0) ? fg_es(b->m->ex, s) : FG_E_BAD;
}

/* ---- cloning -------------------------------------------------------------------------------------- */

static fg_block *clone_block(fg_module *m, fg_inst *owner, fg_block *parent,
                             const fg_block *src, fg_reg *map);

/* Reads through map (NULL: keep); notes the new results in `made` unless NULL. */
static fg_inst *
clone_inst(fg_build *b, const fg_inst *i, const fg_reg *map, fg_reg *made)
{
    fg_module *m = b->m;
    const fg_opinfo *info = fg_op_info(i->op);
    fg_inst *c = FG_NEW(m->a, fg_inst);
    *c = *i;
    c->prev = c->next = NULL;
    c->in = fg_dup(m->a, i->in, (size_t)i->nin * sizeof *i->in);
    for (int k = 0; k < c->nin; k++)
        if (map && map[c->in[k]])
            c->in[k] = map[c->in[k]];
    c->attr = fg_dup(m->a, i->attr, (size_t)info->nattr * sizeof *i->attr);
    for (int k = 0; k < info->nattr; k++)
        if (fg_attrs[info->attr0 + k].kind ==
            FG_AK_exprs) /* unification writes into it */
            fg_set_exprs(m, &c->attr[k], i->attr[k].n, i->attr[k].es);
    c->region = FG_NEWN(m->a, fg_block *, (size_t)i->nregion);
    for (int k = 0; k < i->nregion; k++)
        c->region[k] = clone_block(m, c, b->block, i->region[k], made);
    c->out = FG_NEWN(m->a, fg_reg, (size_t)i->nout);
    for (int k = 0; k < i->nout; k++) {
        fg_reginfo from = m->reg[i->out[k]];
        c->out[k] = fg_reg_new(m, b->block, from.type, from.name);
        m->reg[c->out[k]].def = c;
        m->reg[c->out[k]].sym = from.sym;
        m->reg[c->out[k]].nsym = from.nsym;
        if (made)
            made[i->out[k]] = c->out[k];
    }
    fg_inst_link(b, c);
    return c;
}

static fg_block *
clone_block(fg_module *m, fg_inst *owner, fg_block *parent, const fg_block *src,
            fg_reg *map)
{
    fg_block *b = fg_block_new(m, owner, parent);
    for (int k = 0; k < src->nparam; k++) {
        fg_reginfo from = m->reg[src->param[k]];
        map[src->param[k]] = fg_param(m, b, from.type, from.name);
    }
    fg_build at = fg_build_end(b);
    for (const fg_inst *i = src->first; i; i = i->next)
        clone_inst(&at, i, map, map);
    return b;
}

fg_inst *
fg_inst_clone(fg_build *b, const fg_inst *i, const fg_reg *map)
{
    if (!i->nregion)
        return clone_inst(b, i, map, NULL);
    /* Registers defined inside the regions need a map of their own on top of the caller's. */
    fg_reg *all = FG_NEWN(b->m->a, fg_reg, b->m->nreg);
    if (map)
        memcpy(all, map, b->m->nreg * sizeof *all);
    return clone_inst(b, i, all, all);
}
