/* vtab.c - expressions over symbols as the runtime's value table.
 *
 *     2*S + P      v0 = S   v1 = 2   v2 = v0 * v1   v3 = P   v4 = v2 + v3
 *
 * Values are hash-consed: a stride that ten kernels ask for is one row. Operands are made
 * before what uses them, so the runtime computes the table in one walk.
 */
#include "codegen/program.h"

struct fg_vtab {
    fg_arena *a;
    fg_exprs *ex;
    fg_value *v;
    uint32_t n;
    size_t cap;
    uint32_t *slot; /* hash table of indices + 1 */
    size_t nslot;
};

fg_vtab *
fg_vtab_new(fg_arena *a, fg_exprs *ex)
{
    fg_vtab *t = FG_NEW(a, fg_vtab);

    t->a = a;
    t->ex = ex;
    t->nslot = 1024;
    t->slot = FG_NEWN(a, uint32_t, t->nslot);
    return t;
}

const fg_value *
fg_vtab_values(const fg_vtab *t, uint32_t *n)
{
    *n = t->n;
    return t->v;
}

static size_t
find(const fg_vtab *t, const fg_value *v)
{
    uint64_t key[4] = {v->op, v->a, v->b, (uint64_t)v->k};
    size_t h = fg_hash(key, sizeof key, 0) & (t->nslot - 1);

    for (; t->slot[h]; h = (h + 1) & (t->nslot - 1)) {
        const fg_value *o = &t->v[t->slot[h] - 1];
        if (o->op == v->op && o->a == v->a && o->b == v->b && o->k == v->k)
            break;
    }
    return h;
}

static uint32_t
add(fg_vtab *t, fg_value v)
{
    size_t h = find(t, &v);

    if (t->slot[h])
        return t->slot[h] - 1;
    FG_PUSH(t->a, t->v, t->n, t->cap) = v;
    t->slot[h] = t->n;
    if (t->n * 2 > t->nslot) {
        t->nslot *= 2;
        t->slot = FG_NEWN(t->a, uint32_t, t->nslot);
        for (uint32_t i = 0; i < t->n; i++)
            t->slot[find(t, &t->v[i])] = i + 1;
    }
    return t->n - 1;
}

static uint32_t
constant(fg_vtab *t, int64_t k)
{
    return add(t, (fg_value){.op = FG_V_CONST, .k = k});
}

static uint32_t
binary(fg_vtab *t, fg_vop op, uint32_t a, uint32_t b)
{
    const fg_value *x = &t->v[a], *y = &t->v[b];
    int64_t k;

    if (op == FG_V_MUL && x->op == FG_V_CONST && y->op == FG_V_CONST &&
        !__builtin_mul_overflow(x->k, y->k, &k))
        return constant(t, k);
    if (op == FG_V_MUL && y->op == FG_V_CONST && y->k == 1)
        return a;
    return add(
        t,
        (fg_value){.op = (uint8_t)op, .run = t->v[a].run | t->v[b].run, .a = a, .b = b});
}

uint32_t
fg_vtab_symbol(fg_vtab *t, fg_sym s)
{
    bool run = fg_sym_info(t->ex, s)->kind == FG_SYM_RUN;

    return add(t, (fg_value){.op = FG_V_SYM, .run = run, .a = s});
}

static uint32_t
atom(fg_vtab *t, uint32_t id)
{
    static const fg_vop op[] = {
        [FG_ATOM_DIV] = FG_V_DIV, [FG_ATOM_MOD] = FG_V_MOD, [FG_ATOM_MIN] = FG_V_MIN,
        [FG_ATOM_MAX] = FG_V_MAX, [FG_ATOM_EQ] = FG_V_EQ,   [FG_ATOM_LT] = FG_V_LT};
    fg_atom at = fg_atom_get(t->ex, id);

    if (at.kind == FG_ATOM_SYM)
        return fg_vtab_symbol(t, at.sym);
    uint32_t a = fg_vtab_expr(t, at.a), b = fg_vtab_expr(t, at.b);
    return a == FG_NONE || b == FG_NONE ? FG_NONE : binary(t, op[at.kind], a, b);
}

uint32_t
fg_vtab_expr(fg_vtab *t, fg_expr e)
{
    if (e == FG_E_BAD)
        return FG_NONE;
    uint32_t sum = FG_NONE;
    int nterm = fg_e_nterms(t->ex, e);
    for (int i = 0; i < nterm; i++) {
        const uint32_t *atoms;
        int natom;
        int64_t coef = fg_e_term(t->ex, e, i, &atoms, &natom);
        uint32_t product = coef == 1 && natom ? FG_NONE : constant(t, coef);
        for (int k = 0; k < natom; k++) {
            uint32_t x = atom(t, atoms[k]);
            if (x == FG_NONE)
                return FG_NONE;
            product = product == FG_NONE ? x : binary(t, FG_V_MUL, product, x);
        }
        sum = sum == FG_NONE ? product : binary(t, FG_V_ADD, sum, product);
    }
    return sum == FG_NONE ? constant(t, 0) : sum;
}

uint32_t
fg_vtab_bytes(fg_vtab *t, int rank, const uint32_t *dim, int bits)
{
    uint32_t n = constant(t, bits < 8 ? bits : bits / 8);

    for (int k = 0; k < rank; k++)
        n = binary(t, FG_V_MUL, dim[k], n);
    if (bits >= 8)
        return n;
    n = binary(t, FG_V_ADD, n, constant(t, 7));
    return binary(t, FG_V_DIV, n, constant(t, 8));
}
