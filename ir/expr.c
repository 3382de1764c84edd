/* expr.c - integer expressions over symbols: canonical polynomials over interned atoms.
 *
 *     S + 2*P - S + 3        =>  2*P + 3
 *     (4*S + 8) / 4          =>  S + 2
 *     (B*S*768) / (B*768)    =>  S
 *
 * A term is coef * atom * atom ..., atoms ascending; terms are ordered by their atoms with
 * the constant last, merged, none zero. The table interns atoms and polynomials, so two
 * expressions are equal as polynomials exactly when their ids are.
 */
#include "ir/expr.h"

#include "ir/expr_impl.h"

/* ---- interning ----------------------------------------------------------------------- */

fg_exprs *
fg_exprs_new(fg_arena *a)
{
    fg_exprs *t = FG_NEW(a, fg_exprs);
    t->a = a;
    t->depth = FG_DEPTH;
    FG_PUSH(a, t->poly, t->npoly, t->cappoly) = (poly){0}; /* FG_E_BAD */
    t->cap_hash = 256;
    t->hash = FG_NEWN(a, uint32_t, t->cap_hash);
    t->cap_ahash = 64;
    t->ahash = FG_NEWN(a, uint32_t, t->cap_ahash);
    return t;
}

void
fg_exprs_limit(fg_exprs *t, int depth)
{
    t->depth = depth;
}

static uint64_t
poly_hash(const term *tm, int n)
{
    uint64_t h = 1469598103934665603u;
    for (int i = 0; i < n; i++) {
        h = fg_hash(&tm[i].coef, sizeof tm[i].coef, h);
        h = fg_hash(tm[i].atom, (size_t)tm[i].natom * sizeof *tm[i].atom, h);
    }
    return h;
}

static bool
poly_same(const poly *p, const term *tm, int n)
{
    if (p->n != n)
        return false;
    for (int i = 0; i < n; i++)
        if (p->t[i].coef != tm[i].coef || p->t[i].natom != tm[i].natom ||
            (tm[i].natom &&
             memcmp(p->t[i].atom, tm[i].atom, (size_t)tm[i].natom * sizeof *tm[i].atom)))
            return false;
    return true;
}

static void
rehash(fg_exprs *t)
{
    uint32_t cap = t->cap_hash * 2, *hash = FG_NEWN(t->a, uint32_t, cap);
    for (uint32_t id = 1; id < t->npoly; id++) {
        uint64_t h = poly_hash(t->poly[id].t, t->poly[id].n) & (cap - 1);
        while (hash[h])
            h = (h + 1) & (cap - 1);
        hash[h] = id;
    }
    t->hash = hash;
    t->cap_hash = cap;
}

static int
terms_depth(const fg_exprs *t, const term *tm, int n)
{
    int depth = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < tm[i].natom; j++) {
            const fg_atom *at = &t->atom[tm[i].atom[j]];
            int a = t->poly[at->a].depth, b = t->poly[at->b].depth,
                d = 1 + (a > b ? a : b);
            depth = at->kind != FG_ATOM_SYM && d > depth ? d : depth;
        }
    return depth;
}

/* Interns canonical terms. */
static fg_expr
intern(fg_exprs *t, const term *tm, int n)
{
    if ((t->npoly + 1) * 2 >= t->cap_hash)
        rehash(t);
    uint64_t h = poly_hash(tm, n) & (t->cap_hash - 1);
    for (; t->hash[h]; h = (h + 1) & (t->cap_hash - 1))
        if (poly_same(&t->poly[t->hash[h]], tm, n))
            return t->hash[h];
    poly p = {.n = n, .t = fg_dup(t->a, tm, (size_t)n * sizeof *tm)};
    for (int i = 0; i < n; i++)
        p.t[i].atom = fg_dup(t->a, tm[i].atom, (size_t)tm[i].natom * sizeof *tm[i].atom);
    p.depth = terms_depth(t, tm, n);
    fg_poly_bounds(t, &p, &p.lo, &p.hi);
    t->hash[h] = t->npoly;
    FG_PUSH(t->a, t->poly, t->npoly, t->cappoly) = p;
    return t->npoly - 1;
}

static uint32_t
atom_intern(fg_exprs *t, fg_atom at)
{
    if ((t->natom + 1) * 2 >= t->cap_ahash) {
        uint32_t cap = t->cap_ahash * 2, *hash = FG_NEWN(t->a, uint32_t, cap);
        for (uint32_t i = 0; i < t->natom; i++) {
            uint64_t h = fg_hash(&t->atom[i], sizeof at, 7) & (cap - 1);
            while (hash[h])
                h = (h + 1) & (cap - 1);
            hash[h] = i + 1;
        }
        t->ahash = hash;
        t->cap_ahash = cap;
    }
    uint64_t h = fg_hash(&at, sizeof at, 7) & (t->cap_ahash - 1);
    for (; t->ahash[h]; h = (h + 1) & (t->cap_ahash - 1))
        if (memcmp(&t->atom[t->ahash[h] - 1], &at, sizeof at) == 0)
            return t->ahash[h] - 1;
    FG_PUSH(t->a, t->atom, t->natom, t->capatom) = at;
    t->ahash[h] = t->natom;
    return t->natom - 1;
}

/* ---- symbols -------------------------------------------------------------------------- */

int64_t
fg_sym_find(const fg_exprs *t, const char *name)
{
    for (uint32_t s = 0; s < t->nsym; s++)
        if (strcmp(t->sym[s].name, name) == 0)
            return s;
    return -1;
}

fg_sym
fg_sym_new(fg_exprs *t, const char *name, fg_symkind kind, int64_t lo, int64_t hi)
{
    const char *base = name ? name : kind == FG_SYM_RUN ? "u" : "s";
    const char *unique = base;
    for (uint32_t k = name ? 1 : t->nsym;
         (!name && unique == base) || fg_sym_find(t, unique) >= 0; k++)
        unique = fg_format(t->a, name ? "%s.%u" : "%s%u", base, k);
    fg_syminfo s = {
        .name = fg_intern(fg_arena_ctx(t->a), unique), .kind = kind, .lo = lo, .hi = hi};
    FG_PUSH(t->a, t->sym, t->nsym, t->capsym) = s;
    return t->nsym - 1;
}

fg_syminfo *
fg_sym_info(fg_exprs *t, fg_sym s)
{
    return &t->sym[s];
}

uint32_t
fg_sym_count(const fg_exprs *t)
{
    return t->nsym;
}

/* ---- polynomials ----------------------------------------------------------------------- */

static int poly_order(const fg_exprs *t, fg_expr a, fg_expr b);

/* By structure, not by age: the same expressions made in another order (by reading them from
 * text, say) have the same form. */
static int
atom_order(const fg_exprs *t, uint32_t x, uint32_t y)
{
    const fg_atom *a = &t->atom[x], *b = &t->atom[y];
    if (x == y)
        return 0;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->kind == FG_ATOM_SYM)
        return a->sym < b->sym ? -1 : 1;
    int first = poly_order(t, a->a, b->a);
    return first ? first : poly_order(t, a->b, b->b);
}

/* Constant term last, else by atoms. */
static int
term_order(const fg_exprs *t, const term *x, const term *y)
{
    if (!x->natom || !y->natom)
        return (x->natom == 0) - (y->natom == 0);
    for (int i = 0; i < x->natom && i < y->natom; i++) {
        int o = atom_order(t, x->atom[i], y->atom[i]);
        if (o)
            return o;
    }
    return x->natom - y->natom;
}

static int
poly_order(const fg_exprs *t, fg_expr a, fg_expr b)
{
    if (a == b)
        return 0;
    const poly *p = &t->poly[a], *q = &t->poly[b];
    for (int i = 0; i < p->n && i < q->n; i++) {
        int o = term_order(t, &p->t[i], &q->t[i]);
        if (o)
            return o;
        if (p->t[i].coef != q->t[i].coef)
            return p->t[i].coef < q->t[i].coef ? -1 : 1;
    }
    return p->n - q->n;
}

/* Sorts, merges, drops zeros, interns. tm is the caller's to spoil. */
static fg_expr
canonical(fg_exprs *t, term *tm, int n)
{
    for (int i = 1; i < n; i++) {
        term x = tm[i];
        int j = i;
        for (; j > 0 && term_order(t, &tm[j - 1], &x) > 0; j--)
            tm[j] = tm[j - 1];
        tm[j] = x;
    }
    int m = 0;
    for (int i = 0; i < n; i++) {
        if (m && term_order(t, &tm[m - 1], &tm[i]) == 0) {
            if (__builtin_add_overflow(tm[m - 1].coef, tm[i].coef, &tm[m - 1].coef))
                return FG_E_BAD;
        } else {
            tm[m++] = tm[i];
        }
        if (tm[m - 1].coef == 0)
            m--;
    }
    return intern(t, tm, m);
}

static fg_expr
from_atom(fg_exprs *t, fg_atom at)
{
    if (at.kind != FG_ATOM_SYM &&
        (t->poly[at.a].depth >= t->depth || t->poly[at.b].depth >= t->depth))
        return FG_E_BAD;
    uint32_t id = atom_intern(t, at);
    return intern(t, &(term){.coef = 1, .natom = 1, .atom = &id}, 1);
}

fg_expr
fg_ec(fg_exprs *t, int64_t v)
{
    return v ? intern(t, &(term){.coef = v}, 1) : intern(t, NULL, 0);
}

fg_expr
fg_es(fg_exprs *t, fg_sym s)
{
    if (t->sym[s].is)
        return fg_e_renew(t, t->sym[s].is);
    return from_atom(t, (fg_atom){.kind = FG_ATOM_SYM, .sym = s});
}

/* x + k*y */
static fg_expr
add_scaled(fg_exprs *t, fg_expr x, fg_expr y, int64_t k)
{
    if (!x || !y)
        return FG_E_BAD;
    int nx = t->poly[x].n, ny = t->poly[y].n;
    if (nx + ny > MAXTERMS)
        return FG_E_BAD;
    term tm[MAXTERMS];
    for (int i = 0; i < nx; i++)
        tm[i] = t->poly[x].t[i];
    for (int i = 0; i < ny; i++) {
        tm[nx + i] = t->poly[y].t[i];
        if (__builtin_mul_overflow(tm[nx + i].coef, k, &tm[nx + i].coef))
            return FG_E_BAD;
    }
    return canonical(t, tm, nx + ny);
}

fg_expr
fg_eadd(fg_exprs *t, fg_expr a, fg_expr b)
{
    return add_scaled(t, a, b, 1);
}

fg_expr
fg_esub(fg_exprs *t, fg_expr a, fg_expr b)
{
    return add_scaled(t, a, b, -1);
}

static bool
is_truth(const fg_exprs *t, uint32_t atom)
{
    return t->atom[atom].kind == FG_ATOM_EQ || t->atom[atom].kind == FG_ATOM_LT;
}

fg_expr
fg_emul(fg_exprs *t, fg_expr a, fg_expr b)
{
    if (!a || !b)
        return FG_E_BAD;
    poly x = t->poly[a], y = t->poly[b];
    if (x.n * y.n > MAXTERMS)
        return FG_E_BAD;
    term tm[MAXTERMS];
    uint32_t atoms[MAXTERMS][MAXDEGREE];
    int n = 0;
    for (int i = 0; i < x.n; i++)
        for (int j = 0; j < y.n; j++, n++) {
            term *p = &x.t[i], *q = &y.t[j];
            if (p->natom + q->natom > MAXDEGREE ||
                __builtin_mul_overflow(p->coef, q->coef, &tm[n].coef))
                return FG_E_BAD;
            int k = 0;
            for (int u = 0, v = 0; u < p->natom || v < q->natom;) {
                uint32_t w = v == q->natom || (u < p->natom &&
                                               atom_order(t, p->atom[u], q->atom[v]) <= 0)
                                 ? p->atom[u++]
                                 : q->atom[v++];
                if (k && atoms[n][k - 1] == w && is_truth(t, w))
                    continue; /* 0 or 1: its own square */
                atoms[n][k++] = w;
            }
            tm[n].natom = k;
            tm[n].atom = atoms[n];
        }
    return canonical(t, tm, n);
}

/* q with q * d == x, for one term; false when it does not divide. */
static bool
term_divide(const term *x, const term *d, term *q, uint32_t *atoms)
{
    if (d->coef == 0 || (d->coef == -1 && x->coef == INT64_MIN) || x->coef % d->coef)
        return false;
    q->coef = x->coef / d->coef;
    q->atom = atoms;
    q->natom = 0;
    int j = 0;
    for (int i = 0; i < x->natom; i++) {
        if (j < d->natom && x->atom[i] == d->atom[j])
            j++;
        else
            atoms[q->natom++] = x->atom[i];
    }
    return j == d->natom;
}

/* Exact polynomial division by the leading term, a few steps; FG_E_BAD when not exact. */
static fg_expr
divide_exact(fg_exprs *t, fg_expr a, fg_expr b)
{
    fg_expr q = fg_ec(t, 0), rest = a, zero = q;
    for (int step = 0; step < MAXTERMS && rest != zero; step++) {
        term one;
        uint32_t atoms[MAXDEGREE];
        if (!rest || !q || !t->poly[b].n ||
            !term_divide(&t->poly[rest].t[0], &t->poly[b].t[0], &one, atoms))
            return FG_E_BAD;
        fg_expr e = intern(t, &one, 1);
        q = fg_eadd(t, q, e);
        rest = fg_esub(t, rest, fg_emul(t, e, b));
    }
    return rest == zero ? q : FG_E_BAD;
}

static int64_t
floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return a % b && (a < 0) != (b < 0) ? q - 1 : q;
}

/* a = k*q + r with every coefficient of r in [0, |k|). */
static bool
split_by(fg_exprs *t, fg_expr a, int64_t k, fg_expr *q, fg_expr *r)
{
    term tq[MAXTERMS], tr[MAXTERMS];
    poly p = t->poly[a];
    if (k == 0 || k == INT64_MIN || k == -1)
        return false;
    for (int i = 0; i < p.n; i++) {
        tq[i] = tr[i] = p.t[i];
        tq[i].coef = floor_div(p.t[i].coef, k);
        tr[i].coef = p.t[i].coef - tq[i].coef * k;
    }
    *q = canonical(t, tq, p.n);
    *r = canonical(t, tr, p.n);
    return true;
}

/* floor((floor(p/m) + rest) / k) = floor((p + m*rest) / (m*k)), FG_E_BAD when a is not so: one
 * division for a whole stack of strided convolutions. */
static fg_expr
nested_div(fg_exprs *t, fg_expr a, int64_t k)
{
    fg_expr inner = FG_E_BAD;
    int64_t m = 0, both;

    for (int i = 0; i < t->poly[a].n; i++) {
        const term *x = &t->poly[a].t[i];
        if (x->natom != 1 || t->atom[x->atom[0]].kind != FG_ATOM_DIV)
            continue;
        if (inner || x->coef != 1 || !fg_e_const(t, t->atom[x->atom[0]].b, &m) || m < 1)
            return FG_E_BAD;
        inner = intern(t, &(term){.coef = 1, .natom = 1, .atom = x->atom}, 1);
    }
    if (!inner || __builtin_mul_overflow(m, k, &both))
        return FG_E_BAD;
    fg_expr p = t->atom[t->poly[inner].t[0].atom[0]].a;
    return fg_ediv(t, add_scaled(t, p, fg_esub(t, a, inner), m), fg_ec(t, both));
}

fg_expr
fg_ediv(fg_exprs *t, fg_expr a, fg_expr b)
{
    int64_t x, k;
    if (!a || !b || fg_e_is(t, b, 0))
        return FG_E_BAD;
    if (fg_e_is(t, b, 1))
        return a;
    if (fg_e_const(t, a, &x) && fg_e_const(t, b, &k))
        return x == INT64_MIN && k == -1 ? FG_E_BAD : fg_ec(t, floor_div(x, k));
    fg_expr q = divide_exact(t, a, b), r;
    if (q)
        return q;
    if (fg_e_const(t, b, &k) && k > 0 && split_by(t, a, k, &q, &r)) {
        if (fg_e_lo(t, r) >= 0 && fg_e_hi(t, r) < k)
            return q;
        fg_expr one = nested_div(t, r, k);
        if (!one)
            one = from_atom(t, (fg_atom){.kind = FG_ATOM_DIV, .a = r, .b = b});
        return fg_eadd(t, q, one);
    }
    if (fg_e_lo(t, a) >= 0 && fg_e_lo(t, fg_esub(t, b, a)) > 0)
        return fg_ec(t, 0);
    return from_atom(t, (fg_atom){.kind = FG_ATOM_DIV, .a = a, .b = b});
}

fg_expr
fg_emod(fg_exprs *t, fg_expr a, fg_expr b)
{
    int64_t k;
    fg_expr q, r;
    if (!a || !b || fg_e_is(t, b, 0))
        return FG_E_BAD;
    if (divide_exact(t, a, b))
        return fg_ec(t, 0);
    if (fg_e_const(t, b, &k) && k > 0 && split_by(t, a, k, &q, &r)) {
        if (fg_e_lo(t, r) >= 0 && fg_e_hi(t, r) < k)
            return r;
        a = r;
    } else if (fg_e_lo(t, a) >= 0 && fg_e_lo(t, fg_esub(t, b, a)) > 0) {
        return a;
    }
    return from_atom(t, (fg_atom){.kind = FG_ATOM_MOD, .a = a, .b = b});
}

static fg_expr
symmetric(fg_exprs *t, fg_atomkind kind, fg_expr a, fg_expr b)
{
    bool swap = poly_order(t, a, b) > 0;
    return from_atom(t, (fg_atom){.kind = kind, .a = swap ? b : a, .b = swap ? a : b});
}

fg_expr
fg_emin(fg_exprs *t, fg_expr a, fg_expr b)
{
    if (!a || !b)
        return FG_E_BAD;
    return fg_e_le(t, a, b) ? a : fg_e_le(t, b, a) ? b : symmetric(t, FG_ATOM_MIN, a, b);
}

fg_expr
fg_emax(fg_exprs *t, fg_expr a, fg_expr b)
{
    if (!a || !b)
        return FG_E_BAD;
    return fg_e_le(t, a, b) ? b : fg_e_le(t, b, a) ? a : symmetric(t, FG_ATOM_MAX, a, b);
}

fg_expr
fg_eeq(fg_exprs *t, fg_expr a, fg_expr b)
{
    if (!a || !b)
        return FG_E_BAD;
    fg_expr d = fg_esub(t, a, b);
    if (d && fg_e_is(t, d, 0))
        return fg_ec(t, 1);
    if (d && (fg_e_lo(t, d) > 0 || fg_e_hi(t, d) < 0))
        return fg_ec(t, 0);
    return symmetric(t, FG_ATOM_EQ, a, b);
}

fg_expr
fg_elt(fg_exprs *t, fg_expr a, fg_expr b)
{
    if (!a || !b)
        return FG_E_BAD;
    fg_expr d = fg_esub(t, b, a);
    if (d && fg_e_lo(t, d) > 0)
        return fg_ec(t, 1);
    if (d && fg_e_hi(t, d) <= 0)
        return fg_ec(t, 0);
    return from_atom(t, (fg_atom){.kind = FG_ATOM_LT, .a = a, .b = b});
}

fg_expr
fg_eselect(fg_exprs *t, fg_expr c, fg_expr a, fg_expr b)
{
    return fg_eadd(t, b, fg_emul(t, c, fg_esub(t, a, b)));
}

/* ---- structure ------------------------------------------------------------------------- */

bool
fg_e_const(const fg_exprs *t, fg_expr e, int64_t *v)
{
    const poly *p = &t->poly[e];
    if (!e || p->n > 1 || (p->n == 1 && p->t[0].natom))
        return false;
    *v = p->n ? p->t[0].coef : 0;
    return true;
}

bool
fg_e_is(const fg_exprs *t, fg_expr e, int64_t v)
{
    int64_t c;
    return fg_e_const(t, e, &c) && c == v;
}

bool
fg_e_single(const fg_exprs *t, fg_expr e, fg_sym *s)
{
    const poly *p = &t->poly[e];
    if (!e || p->n != 1 || p->t[0].coef != 1 || p->t[0].natom != 1 ||
        t->atom[p->t[0].atom[0]].kind != FG_ATOM_SYM)
        return false;
    *s = t->atom[p->t[0].atom[0]].sym;
    return true;
}

int
fg_e_nterms(const fg_exprs *t, fg_expr e)
{
    return t->poly[e].n;
}

int64_t
fg_e_term(const fg_exprs *t, fg_expr e, int i, const uint32_t **atoms, int *natoms)
{
    *atoms = t->poly[e].t[i].atom;
    *natoms = t->poly[e].t[i].natom;
    return t->poly[e].t[i].coef;
}

fg_atom
fg_atom_get(const fg_exprs *t, uint32_t atom)
{
    return t->atom[atom];
}

void
fg_e_symbols(fg_exprs *t, fg_expr e, fg_bits into)
{
    for (int i = 0; i < t->poly[e].n; i++)
        for (int j = 0; j < t->poly[e].t[i].natom; j++) {
            fg_atom at = t->atom[t->poly[e].t[i].atom[j]];
            if (at.kind == FG_ATOM_SYM) {
                fg_bits_add(into, at.sym);
            } else {
                fg_e_symbols(t, at.a, into);
                fg_e_symbols(t, at.b, into);
            }
        }
}

bool
fg_e_mentions(fg_exprs *t, fg_expr e, fg_symkind kind)
{
    for (int i = 0; i < t->poly[e].n; i++)
        for (int j = 0; j < t->poly[e].t[i].natom; j++) {
            fg_atom at = t->atom[t->poly[e].t[i].atom[j]];
            if (at.kind == FG_ATOM_SYM
                    ? t->sym[at.sym].kind == kind
                    : fg_e_mentions(t, at.a, kind) || fg_e_mentions(t, at.b, kind))
                return true;
        }
    return false;
}

/* ---- replacing symbols -------------------------------------------------------------------- */

/* Rebuilds e with symbols mapped by map (or by their `is` when map is NULL). */
static fg_expr
rebuild(fg_exprs *t, fg_expr e, const fg_expr *map)
{
    fg_expr sum = fg_ec(t, 0);
    for (int i = 0; i < t->poly[e].n; i++) {
        term tm = t->poly[e].t[i]; /* a copy: the table may move */
        fg_expr prod = fg_ec(t, tm.coef);
        for (int j = 0; j < tm.natom; j++) {
            fg_atom at = t->atom[tm.atom[j]];
            fg_expr x = FG_E_BAD;
            if (at.kind == FG_ATOM_SYM) {
                x = map && map[at.sym] ? map[at.sym] : fg_es(t, at.sym);
            } else {
                fg_expr a = rebuild(t, at.a, map), b = rebuild(t, at.b, map);
                switch (at.kind) {
                case FG_ATOM_DIV:
                    x = fg_ediv(t, a, b);
                    break;
                case FG_ATOM_MOD:
                    x = fg_emod(t, a, b);
                    break;
                case FG_ATOM_MIN:
                    x = fg_emin(t, a, b);
                    break;
                case FG_ATOM_MAX:
                    x = fg_emax(t, a, b);
                    break;
                case FG_ATOM_EQ:
                    x = fg_eeq(t, a, b);
                    break;
                default:
                    x = fg_elt(t, a, b);
                    break;
                }
            }
            prod = fg_emul(t, prod, x);
        }
        sum = fg_eadd(t, sum, prod);
    }
    return sum;
}

fg_expr
fg_e_subst(fg_exprs *t, fg_expr e, const fg_expr *map)
{
    return e ? rebuild(t, e, map) : FG_E_BAD;
}

fg_expr
fg_e_renew(fg_exprs *t, fg_expr e)
{
    if (!e || !t->generation || t->poly[e].generation == t->generation)
        return e && t->generation ? t->poly[e].renewed : e;
    fg_expr r = rebuild(t, e, NULL);
    t->poly[e].renewed = r;
    t->poly[e].generation = t->generation;
    return r;
}

/* The symbol alone in term i of d with coefficient +-1 and nowhere else in d. */
static bool
solvable(fg_exprs *t, fg_expr d, int i, fg_sym *s)
{
    const term *tm = &t->poly[d].t[i];
    if (tm->natom != 1 || (tm->coef != 1 && tm->coef != -1) ||
        t->atom[tm->atom[0]].kind != FG_ATOM_SYM)
        return false;
    *s = t->atom[tm->atom[0]].sym;
    fg_expr alone = fg_emul(t, fg_ec(t, t->poly[d].t[i].coef), fg_es(t, *s));
    fg_bits in = fg_bits_new(t->a, t->nsym);
    fg_e_symbols(t, fg_esub(t, d, alone), in);
    return !fg_bits_has(in, *s);
}

/* Whether e depends on a run-time symbol that is not older than s. */
static bool
mentions_run_from(fg_exprs *t, fg_expr e, fg_sym s)
{
    fg_bits in = fg_bits_new(t->a, t->nsym);
    fg_e_symbols(t, e, in);
    for (; s < t->nsym; s++)
        if (t->sym[s].kind == FG_SYM_RUN && fg_bits_has(in, s))
            return true;
    return false;
}

bool
fg_e_assume_le(fg_exprs *t, fg_expr a, fg_expr b, bool *changed)
{
    *changed = false;
    a = fg_e_renew(t, a);
    b = fg_e_renew(t, b);
    if (fg_e_le(t, a, b))
        return true;
    fg_expr d = fg_esub(t, b, a); /* sign s + c >= 0 */
    int n = t->poly[d].n;
    if (!d || n == 0 || n > 2 || (n == 2 && t->poly[d].t[1].natom))
        return false;
    const term *tm = &t->poly[d].t[0];
    int64_t c = n == 2 ? t->poly[d].t[1].coef : 0;
    if (tm->natom != 1 || (tm->coef != 1 && tm->coef != -1) || c == INT64_MIN ||
        t->atom[tm->atom[0]].kind != FG_ATOM_SYM)
        return false;
    fg_syminfo *s = &t->sym[t->atom[tm->atom[0]].sym];
    if (s->kind != FG_SYM_INPUT || (tm->coef == 1 ? -c > s->hi : c < s->lo))
        return false;
    if (tm->coef == 1)
        s->lo = -c;
    else
        s->hi = c;
    t->generation++; /* a tighter bound decides more clamps */
    *changed = true;
    return true;
}

/* y == min(y, q) says y <= q, and y == max(y, q) says q <= y. */
static void
assume_clamp(fg_exprs *t, fg_expr x, fg_expr y, bool *changed)
{
    const poly *p = &t->poly[x];
    if (p->n != 1 || p->t[0].coef != 1 || p->t[0].natom != 1)
        return;
    fg_atom at = t->atom[p->t[0].atom[0]];
    if ((at.kind != FG_ATOM_MIN && at.kind != FG_ATOM_MAX) || (at.a != y && at.b != y))
        return;
    fg_expr q = at.a == y ? at.b : at.a;
    fg_e_assume_le(t, at.kind == FG_ATOM_MIN ? y : q, at.kind == FG_ATOM_MIN ? q : y,
                   changed);
}

static bool
is_sum(const fg_exprs *t, fg_expr e)
{
    for (int i = 0; i < t->poly[e].n; i++)
        if (t->poly[e].t[i].coef < 0)
            return false;
    return true;
}

bool
fg_e_unify(fg_exprs *t, fg_expr a, fg_expr b, bool *changed)
{
    *changed = false;
    fg_expr d = fg_esub(t, fg_e_renew(t, a), fg_e_renew(t, b));
    if (!d || fg_e_is(t, d, 0))
        return true;
    if (fg_e_lo(t, d) > 0 || fg_e_hi(t, d) < 0)
        return false;
    /* Prefer what leaves something non-negative (T := P+S, not S := T-P), then run-time
     * symbols, then a sum (T := P+1, not P := T-1), then the younger one. */
    int best = -1;
    fg_sym who = 0;
    fg_expr value = FG_E_BAD;
    for (int i = 0; i < t->poly[d].n; i++) {
        fg_sym s;
        if (!solvable(t, d, i, &s))
            continue;
        int64_t c = t->poly[d].t[i].coef;
        fg_expr rest = fg_esub(t, d, fg_emul(t, fg_ec(t, c), fg_es(t, s)));
        rest = fg_emul(t, rest, fg_ec(t, -c));
        bool run = t->sym[s].kind == FG_SYM_RUN;
        /* Symbols are made in the order in which they get their values: none may come to
         * depend on one that is set after it. */
        if (!rest || mentions_run_from(t, rest, run ? s : 0))
            continue;
        int score = 4 * (fg_e_lo(t, rest) >= 0) + 2 * run + is_sum(t, rest);
        if (score > best || (score == best && s > who)) {
            best = score;
            who = s;
            value = rest;
        }
    }
    if (best < 0) {
        assume_clamp(t, fg_e_renew(t, a), fg_e_renew(t, b), changed);
        if (!*changed)
            assume_clamp(t, fg_e_renew(t, b), fg_e_renew(t, a), changed);
        return true;
    }
    fg_sym other;
    if (fg_e_single(t, value, &other)) {
        fg_syminfo *o = &t->sym[other], *w = &t->sym[who];
        o->lo = w->lo > o->lo ? w->lo : o->lo;
        o->hi = w->hi < o->hi ? w->hi : o->hi;
        o->usual = o->usual ? o->usual : w->usual;
    }
    t->sym[who].is = value;
    t->generation++;
    *changed = true;
    return true;
}
