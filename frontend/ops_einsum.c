/* ops_einsum.c - Einsum as diagonals, transposes and products.
 *
 *     Einsum "bij,bjk->bik"  ->  matmul x, y
 *     Einsum "...ii->...i"   ->  gather_elements along the last axis, reshape
 *
 * An operand is a tensor and the letters of its axes, none twice. Operands are
 * joined two at a time. A letter of both that no later operand and not the result has is
 * summed by the product: axes are arranged as batch, own, summed and flattened to
 * [batch, M, K] x [batch, N, K]. What is left over at the end is summed away.
 */
#include "frontend/ops.h"

/* "..." stands for the letters ELLIPSIS .. ELLIPSIS + FG_MAXRANK - 1, right-aligned. */
enum { ELLIPSIS = 52, NLETTERS = ELLIPSIS + FG_MAXRANK };

/* A tensor whose axis i is letter axis[i]. */
typedef struct term {
    fg_reg r;
    int rank;
    int axis[FG_MAXRANK];
} term;

typedef struct einsum {
    fg_node *n;
    int nterm, nout;
    term *term;
    int out[FG_MAXRANK];
    int uses[NLETTERS]; /* terms that have the letter, and the result */
    fg_expr size[NLETTERS];
} einsum;

static int
letter(char c)
{
    return c >= 'a' && c <= 'z' ? c - 'a' : c >= 'A' && c <= 'Z' ? c - 'A' + 26 : -1;
}

/* Reads letters up to , - or the end; the ellipsis stands for `dots` axes. */
static bool
read_labels(fg_node *n, const char **s, int dots, int *axis, int *rank)
{
    bool seen = false;

    for (*rank = 0; **s && **s != ',' && **s != '-'; (*s)++) {
        int k = letter(**s);
        if (**s == ' ')
            continue;
        if (!strncmp(*s, "...", 3) && !seen) {
            seen = true;
            *s += 2;
            if (dots < 0 || *rank + dots > FG_MAXRANK)
                return fg_node_error(n, "the ellipsis does not fit the operand");
            for (int i = 0; i < dots; i++)
                axis[(*rank)++] = ELLIPSIS + FG_MAXRANK - dots + i;
            continue;
        }
        if (k < 0 || *rank == FG_MAXRANK)
            return fg_node_error(n, "equation \"%s\" cannot be read",
                                 fg_attr_str(n, "equation", ""));
        axis[(*rank)++] = k;
    }
    return true;
}

/* Letters of a term's text, the ellipsis not counted; -1 when it has none. */
static int
plain_letters(const char *s, bool *dots)
{
    int count = 0;

    *dots = false;
    for (; *s && *s != ',' && *s != '-'; s++) {
        count += letter(*s) >= 0;
        *dots = *dots || *s == '.';
    }
    return count;
}

/* x with its axes i < j, which are one letter, replaced by their diagonal at i. */
static bool
diagonal(fg_node *n, term *t, int i, int j)
{
    int64_t perm[FG_MAXRANK];
    int r = 0;

    for (int a = 0; a < t->rank; a++)
        if (a != i && a != j)
            perm[r++] = a;
    perm[r] = i;
    perm[r + 1] = j;
    fg_reg x = fg_emit_transpose(n->b, t->r, perm);
    if (!x || !fg_unify(n->m, fg_dim(n, x, r), fg_dim(n, x, r + 1)))
        return x && fg_node_error(n, "a repeated letter names axes of different sizes");
    fg_reg at = fg_iota_along(n, fg_dim(n, x, r), r, r + 2, FG_i64);
    fg_expr dim[FG_MAXRANK];
    for (int a = 0; a < r + 2; a++)
        dim[a] = a == r + 1 ? fg_c(n, 1) : fg_dim(n, x, a);
    fg_reg in[2] = {x, at ? fg_emit_expand(n->b, at, r + 2, dim) : 0};
    if (!in[1])
        return false;
    fg_inst *g = fg_inst_begin(n->b, FG_OP_gather_elements, 2, in);
    FG_SET(g, gather_elements, axis).i = r + 1;
    if (!fg_inst_finish(n->b, g, NULL, 0))
        return false;
    int name = t->axis[i];
    t->r = fg_emit_reshape(n->b, g->out[0], r + 1, dim);
    t->rank = r + 1;
    for (int a = 0; a < r; a++)
        perm[a] = t->axis[perm[a]];
    for (int a = 0; a < r; a++)
        t->axis[a] = (int)perm[a];
    t->axis[r] = name;
    return t->r != 0;
}

static int
axis_of(const term *t, int name)
{
    for (int a = 0; a < t->rank; a++)
        if (t->axis[a] == name)
            return a;
    return -1;
}

static bool
take_term(einsum *e, term *t)
{
    fg_node *n = e->n;

    for (int i = 0; i < t->rank; i++)
        for (int j = i + 1; j < t->rank; j++)
            if (t->axis[i] == t->axis[j]) {
                if (!diagonal(n, t, i, j))
                    return false;
                i = -1;
                break;
            }
    for (int a = 0; a < t->rank; a++) {
        int name = t->axis[a];
        fg_expr d = fg_dim(n, t->r, a);
        if (e->uses[name]++ == 0)
            e->size[name] = d;
        else if (!fg_bcast_dim(n->m, e->size[name], d, &e->size[name]))
            return fg_node_error(n, "a letter names axes of different sizes");
    }
    return true;
}

static bool
parse(einsum *e)
{
    fg_node *n = e->n;
    const char *s = fg_attr_str(n, "equation", "");
    bool dots;
    int most = 0;

    e->term = FG_NEWN(n->m->a, term, (size_t)n->nin);
    for (e->nterm = 0; e->nterm < n->nin; e->nterm++) {
        term *t = &e->term[e->nterm];
        if (!(t->r = fg_need(n, e->nterm)))
            return false;
        int count = plain_letters(s, &dots), left = fg_rank(n, t->r) - count;
        if (!read_labels(n, &s, dots ? left : 0, t->axis, &t->rank))
            return false;
        if (t->rank != fg_rank(n, t->r))
            return fg_node_error(n, "operand %d, %s, does not fit the equation", e->nterm,
                                 fg_type_text(n->m, fg_rt(n->m, t->r)));
        most = dots && left > most ? left : most;
        if (!take_term(e, t))
            return false;
        if (*s == ',')
            s++;
        else if (e->nterm + 1 < n->nin)
            return fg_node_error(n, "the equation has fewer terms than operands");
    }
    if (s[0] == '-' && s[1] == '>') {
        s += 2;
        if (!read_labels(n, &s, most, e->out, &e->nout))
            return false;
    } else if (!*s) { /* implicit: the ellipsis, then letters that occur once */
        for (int i = 0; i < most; i++)
            e->out[e->nout++] = ELLIPSIS + FG_MAXRANK - most + i;
        for (const char *c = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"; *c;
             c++) {
            int seen = 0;
            for (const char *q = fg_attr_str(n, "equation", ""); *q; q++)
                seen += *q == *c;
            if (seen == 1 && e->nout < FG_MAXRANK)
                e->out[e->nout++] = letter(*c);
        }
    }
    if (*s)
        return fg_node_error(n, "the equation has more terms than operands");
    for (int i = 0; i < e->nout; i++) {
        for (int j = 0; j < i; j++)
            if (e->out[i] == e->out[j])
                return fg_node_error(n, "the result names an axis twice");
        if (e->uses[e->out[i]]++ == 0)
            return fg_node_error(n, "the result names an axis that no operand has");
    }
    return true;
}

/* t with exactly the axes names[0..count), size 1 where it has none. */
static fg_reg
arrange(einsum *e, const term *t, int count, const int *names)
{
    fg_node *n = e->n;
    int64_t perm[FG_MAXRANK];
    fg_expr dim[FG_MAXRANK];
    int r = 0;

    for (int i = 0; i < count; i++) {
        int a = axis_of(t, names[i]);
        dim[i] = a < 0 ? fg_c(n, 1) : fg_dim(n, t->r, a);
        if (a >= 0)
            perm[r++] = a;
    }
    if (r != t->rank) {
        fg_node_unsupported(n, "equation \"%s\"", fg_attr_str(n, "equation", ""));
        return 0;
    }
    return fg_emit_reshape(n->b, fg_emit_transpose(n->b, t->r, perm), count, dim);
}

/* Sums axes of t that nothing else has; uses counts t itself. */
static bool
sum_out(einsum *e, term *t)
{
    int64_t axes[FG_MAXRANK];
    int count = 0, r = 0;

    for (int a = 0; a < t->rank; a++)
        if (e->uses[t->axis[a]] == 1)
            axes[count++] = a;
        else
            t->axis[r++] = t->axis[a];
    if (!count)
        return true;
    t->rank = r;
    t->r = fg_emit_reduce(e->n->b, FG_OP_reduce_sum, t->r, count, axes, false);
    return t->r != 0;
}

/* The axes of one operand of a product flattened to [batch.., rows, inner]. */
static fg_reg
matrix(einsum *e, const term *t, int nb, const int *batch, int no, const int *own, int nk,
       const int *inner)
{
    fg_node *n = e->n;
    int names[FG_MAXRANK], count = 0;
    fg_expr dim[FG_MAXRANK], rows = fg_c(n, 1), cols = fg_c(n, 1);

    for (int i = 0; i < nb; i++)
        names[count++] = batch[i];
    for (int i = 0; i < no; i++)
        names[count++] = own[i];
    for (int i = 0; i < nk; i++)
        names[count++] = inner[i];
    fg_reg x = arrange(e, t, count, names);
    if (!x)
        return 0;
    for (int i = 0; i < count; i++) {
        fg_expr d = fg_dim(n, x, i);
        if (i < nb)
            dim[i] = d;
        else if (i < nb + no)
            rows = fg_emul(n->ex, rows, d);
        else
            cols = fg_emul(n->ex, cols, d);
    }
    dim[nb] = rows;
    dim[nb + 1] = cols;
    return fg_emit_reshape(n->b, x, nb + 2, dim);
}

/* x joined with y into x. Letters of both: summed if nobody else has them, else batch. */
static bool
join(einsum *e, term *x, const term *y)
{
    fg_node *n = e->n;
    int batch[FG_MAXRANK], inner[FG_MAXRANK], ownx[FG_MAXRANK], owny[FG_MAXRANK];
    int nb = 0, nk = 0, nx = 0, ny = 0;
    fg_expr dim[FG_MAXRANK];

    for (int a = 0; a < x->rank; a++) {
        int name = x->axis[a], b = axis_of(y, name);
        if (b < 0)
            ownx[nx++] = name;
        else if (e->uses[name] == 2 && fg_dim(n, x->r, a) == fg_dim(n, y->r, b))
            inner[nk++] = name;
        else
            batch[nb++] = name;
    }
    for (int a = 0; a < y->rank; a++)
        if (axis_of(x, y->axis[a]) < 0)
            owny[ny++] = y->axis[a];
    if (nb + 2 > FG_MAXRANK || nb + nx + ny > FG_MAXRANK)
        return fg_node_unsupported(n, "equation \"%s\"", fg_attr_str(n, "equation", ""));
    fg_reg p = matrix(e, x, nb, batch, nx, ownx, nk, inner);
    fg_reg q = matrix(e, y, nb, batch, ny, owny, nk, inner);
    fg_reg z = p && q ? fg_emit_matmul(n->b, p, q, false, true) : 0;
    if (!z)
        return false;
    term out = {.rank = nb + nx + ny};
    for (int i = 0; i < out.rank; i++) {
        out.axis[i] = i < nb ? batch[i] : i < nb + nx ? ownx[i - nb] : owny[i - nb - nx];
        dim[i] = i < nb ? fg_dim(n, z, i) : e->size[out.axis[i]];
    }
    out.r = fg_emit_reshape(n->b, z, out.rank, dim);
    for (int i = 0; i < nk; i++)
        e->uses[inner[i]] = 0;
    for (int i = 0; i < nb; i++)
        e->uses[batch[i]]--;
    *x = out;
    return x->r != 0 && sum_out(e, x);
}

bool
fg_onnx_einsum(fg_node *n)
{
    einsum e = {.n = n};

    if (n->nin < 1 || !parse(&e))
        return false;
    for (int k = 0; k < e.nterm; k++)
        if (!sum_out(&e, &e.term[k]))
            return false;
    for (int k = 1; k < e.nterm; k++)
        if (!join(&e, &e.term[0], &e.term[k]))
            return false;
    return fg_yield(n, arrange(&e, &e.term[0], e.nout, e.out));
}
