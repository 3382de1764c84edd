/* attention_limits.c - masks that say by position who sees whom, as limits.
 *
 *     %c = le %j, %i : bool[1,1,S,S]              ; i and j count queries and keys
 *     %b = and %c, %pad : bool[B,1,S,S]
 *     %m = where %b, 0, -inf : f32[B,1,S,S]
 *     %y = attention %q, %k, %v, %m          =>   attention %q, %k, %v, %pad {causal=1}
 *
 * What a limit hides is never computed, and never read from a mask. A mask of bools is a
 * conjunction; each part that is a comparison of positions, which affine.c shows, or a
 * constant of that form, bounds j - i from one side; the others stay as the mask.
 *
 * A limit hides as -infinity does. A large negative number, which swallows what it is added
 * to, leaves as little of a key beside one that is seen; but a query that sees none gets the
 * mean of all values. So it is {empty=mean}, unless limits are all and leave each a key.
 */
#include <math.h>

#include "passes/algebra.h"
#include "passes/attention.h"

enum { PARTS = 8 };

typedef struct limits {
    fg_module *m;
    fg_expr S, T;
    fg_expr left, right; /* left <= j - i <= right; FG_E_BAD: open */
    int n;
    fg_reg part[PARTS]; /* of the mask that stay, */
    bool hides[PARTS];  /* where they are true, or false */
    /* The last constant that was looked at, and what it bounds. */
    fg_reg seen;
    fg_expr bound;
} limits;

/* ---- one part ------------------------------------------------------------------------ */

/* x - y as  start + i - j  (sign 1)  or  start - i + j  (sign -1); 0: neither. Of one query
 * i is 0. */
static int
difference(limits *l, fg_reg x, fg_reg y, int rank, fg_expr *start)
{
    fg_exprs *t = l->m->ex;
    fg_affine f[2];
    bool one = fg_e_is(t, l->S, 1);
    fg_expr coef[2] = {fg_ec(t, 0), fg_ec(t, 0)}; /* of i and of j */
    if (!fg_find_affine(l->m, x, &f[0]) || !fg_find_affine(l->m, y, &f[1]))
        return 0;
    for (int k = 0; k < 2; k++) {
        int lead = rank - fg_rt(l->m, k ? y : x)->rank;
        for (int j = 0; j < f[k].n; j++) {
            int at = f[k].term[j].axis + lead - (rank - 2);
            if (at < 0)
                return 0;
            coef[at] = k ? fg_esub(t, coef[at], f[k].term[j].coef)
                         : fg_eadd(t, coef[at], f[k].term[j].coef);
        }
    }
    *start = fg_esub(t, f[0].start, f[1].start);
    for (int sign = -1; sign <= 1; sign += 2)
        if ((one || fg_e_is(t, coef[0], sign)) && fg_e_is(t, coef[1], -sign))
            return sign;
    return 0;
}

/* Keeps j - i within a bound, if it has no other from that side. */
static bool
bound(fg_expr *have, fg_expr e)
{
    if (*have != FG_E_BAD && *have != e)
        return false;
    *have = e;
    return e != FG_E_BAD;
}

/* x >= y + least */
static bool
compared(limits *l, fg_reg x, fg_reg y, int least, int rank)
{
    fg_exprs *t = l->m->ex;
    fg_expr start;
    int sign = difference(l, x, y, rank, &start);
    if (!sign)
        return false;
    start = fg_esub(t, start, fg_ec(t, least));
    return sign > 0 ? bound(&l->right, start)
                    : bound(&l->left, fg_esub(t, fg_ec(t, 0), start));
}

/* A constant triangle: true exactly where j - i <= *right. */
static bool
triangle(const fg_weight *w, int64_t *right)
{
    const unsigned char *p = w->data;
    if (!p || w->dtype != FG_bool || w->rank < 2)
        return false;
    int64_t rows = w->dim[w->rank - 2], cols = w->dim[w->rank - 1], first = 0;
    if ((int64_t)w->bytes != rows * cols) /* one of them */
        return false;
    while (first < cols && p[first])
        first++;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            if ((p[i * cols + j] != 0) != (j - i < first))
                return false;
    *right = first - 1;
    return rows > 1 && first < cols;
}

static bool
constant(limits *l, fg_reg r)
{
    fg_exprs *t = l->m->ex;
    fg_expr shift = fg_ec(t, 0);
    const fg_inst *d = fg_def(l->m, r);
    int64_t right;
    if (fg_is_op(d, FG_OP_slice)) {
        int n = fg_rt(l->m, r)->rank;
        const fg_attr *start = &FG_GET(d, slice, start), *step = &FG_GET(d, slice, step);
        if (n < 2 || step->is[n - 1] != 1 || step->is[n - 2] != 1)
            return false;
        shift = fg_esub(t, start->es[n - 2], start->es[n - 1]);
        r = d->in[0];
    }
    const fg_weight *w = fg_reg_weight(l->m, r);
    if (!w)
        return false;
    if (r != l->seen) {
        l->seen = r;
        l->bound = triangle(w, &right) ? fg_ec(t, right) : FG_E_BAD;
    }
    return l->bound != FG_E_BAD && bound(&l->right, fg_eadd(t, l->bound, shift));
}

/* True when r, which has both axes whole, only says what l says now; or when not r does. */
static bool
is_limit(limits *l, fg_reg r, bool hides)
{
    const fg_type *y = fg_rt(l->m, r);
    const fg_inst *d = fg_def(l->m, r);
    int n = y->rank;
    if (n < 2 || y->dim[n - 2] != l->S || y->dim[n - 1] != l->T || !d)
        return false;
    switch (d->op) {
    case FG_OP_ge:
        return compared(l, d->in[hides], d->in[!hides], hides, n);
    case FG_OP_gt:
        return compared(l, d->in[hides], d->in[!hides], !hides, n);
    case FG_OP_le:
        return compared(l, d->in[!hides], d->in[hides], hides, n);
    case FG_OP_lt:
        return compared(l, d->in[!hides], d->in[hides], !hides, n);
    default:
        return !hides && constant(l, r);
    }
}

/* ---- the whole mask ------------------------------------------------------------------ */

static bool
only_last_two(const fg_module *m, const fg_type *t)
{
    for (int k = 0; k + 2 < t->rank; k++)
        if (!fg_e_is(m->ex, t->dim[k], 1))
            return false;
    return true;
}

/* r without what only repeats it along leading axes, or gives it such axes of 1. */
static fg_reg
unexpanded(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    while (fg_is_op(d, FG_OP_expand) || fg_is_op(d, FG_OP_reshape)) {
        const fg_type *x = fg_rt(m, d->in[0]), *y = fg_rt(m, r);
        if (x->rank < 2 || y->rank < 2 || x->dim[x->rank - 1] != y->dim[y->rank - 1] ||
            x->dim[x->rank - 2] != y->dim[y->rank - 2] ||
            (d->op == FG_OP_reshape && !(only_last_two(m, x) && only_last_two(m, y))))
            break;
        r = d->in[0];
        d = fg_def(m, r);
    }
    return r;
}

/* The limits of a conjunction to l, its other parts to l->part; false: too many. What hides
 * where one of two is true shows where neither is. */
static bool
take_apart(limits *l, fg_reg r, bool hides)
{
    r = unexpanded(l->m, r);
    const fg_inst *d = fg_def(l->m, r);
    if (is_limit(l, r, hides))
        return true;
    if (fg_is_op(d, FG_OP_not))
        return take_apart(l, d->in[0], !hides);
    if (fg_is_op(d, hides ? FG_OP_or : FG_OP_and))
        return take_apart(l, d->in[0], hides) && take_apart(l, d->in[1], hides);
    if (l->n == PARTS)
        return false;
    l->hides[l->n] = hides;
    l->part[l->n++] = r;
    return true;
}

/* The parts that stay, as one. */
static fg_reg
put_together(limits *l, fg_build *b)
{
    fg_reg all = 0;
    for (int k = 0; k < l->n; k++) {
        fg_reg part = l->hides[k] ? fg_emit1(b, FG_OP_not, l->part[k]) : l->part[k];
        all = k ? fg_emit2(b, FG_OP_and, all, part) : part;
    }
    return all;
}

/* What is true where the mask hides nothing, or where it `hides`: by *hidden, 0 elsewhere. */
static fg_reg
condition(const fg_module *m, fg_reg mask, double *hidden, bool *hides)
{
    double yes, no;
    mask = unexpanded(m, mask);
    const fg_inst *d = fg_def(m, mask);
    *hides = false;
    *hidden = -INFINITY;
    if (fg_rt(m, mask)->dtype == FG_bool)
        return mask;
    if (!fg_is_op(d, FG_OP_where) || !fg_const_splat(m, d->in[1], &yes) ||
        !fg_const_splat(m, d->in[2], &no) || (yes != 0 && no != 0))
        return 0;
    *hides = yes != 0;
    *hidden = *hides ? yes : no;
    return d->in[0];
}

/* Scores are numbers of at most a few hundred; added to this they are gone. */
static bool
swallows(const fg_module *m, const fg_inst *i, double hidden)
{
    return hidden <= (fg_rt(m, i->in[0])->dtype == FG_f16 ? -65504 : -4e9);
}

/* Do the limits leave each query a key? */
static bool
all_see(const limits *l)
{
    fg_exprs *t = l->m->ex;
    fg_expr most = fg_esub(t, l->T, l->S);
    return (l->right == FG_E_BAD || fg_e_lo(t, l->right) >= 0) &&
           fg_e_le(t, l->left == FG_E_BAD ? fg_ec(t, 0) : l->left, most);
}

static bool
limit(limits *l, fg_inst *i)
{
    fg_module *m = l->m;
    fg_exprs *t = m->ex;
    int64_t width = -1;
    double hidden = 0;
    bool hides = false;
    fg_reg mask = i->nin > 3 ? i->in[3] : 0;
    fg_reg c = mask ? condition(m, mask, &hidden, &hides) : 0;
    bool free = !FG_GET(i, attention, causal).i && FG_GET(i, attention, left).i < 0 &&
                FG_GET(i, attention, right).i < 0 &&
                FG_GET(i, attention, offset).e == FG_E_BAD &&
                (i->nin <= 5 || !i->in[5]) && !*FG_GET(i, attention, round).s;
    if (!c || !free || !swallows(m, i, hidden))
        return false;
    l->S = fg_rt(m, i->in[0])->dim[2];
    l->T = fg_rt(m, i->in[1])->dim[2];
    l->left = l->right = FG_E_BAD;
    l->n = 0;
    if (!take_apart(l, c, hides) || (l->left == FG_E_BAD && l->right == FG_E_BAD))
        return false;
    bool causal = l->right != FG_E_BAD;
    fg_expr last = fg_esub(t, l->T, l->S), offset = causal ? l->right : last;
    if (l->left != FG_E_BAD &&
        (!fg_e_const(t, fg_esub(t, offset, l->left), &width) || width < 0))
        return false;
    fg_build b = fg_build_before(i);
    fg_reg rest = put_together(l, &b);
    if (l->n && !rest)
        return false;
    i->in[3] = rest;
    while (i->nin > 3 && !i->in[i->nin - 1])
        i->nin--;
    FG_SET(i, attention, causal).i = causal;
    FG_SET(i, attention, left).i = width;
    if (hidden > -INFINITY && (rest || !all_see(l)))
        fg_set_word(m, &FG_SET(i, attention, empty), "mean");
    if (offset != last)
        FG_SET(i, attention, offset).e = offset;
    return true;
}

static int
limit_block(limits *l, fg_block *b)
{
    int n = 0;
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nregion; k++)
            n += limit_block(l, i->region[k]);
        n += i->op == FG_OP_attention && limit(l, i);
    }
    return n;
}

bool
fg_att_limits(fg_module *m, fg_passctx *cx)
{
    limits l = {.m = m};
    int n = limit_block(&l, m->body);
    for (int k = 0; k < n; k++)
        fg_report_fusion(cx->report, "limits of a mask");
    return n > 0;
}
