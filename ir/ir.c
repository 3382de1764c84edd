/* ir.c - modules, registers, weights, blocks and instructions. */
#include "ir/ir.h"

fg_module *
fg_module_new(fg_ctx *cx, fg_arena *a, const char *name)
{
    fg_module *m = FG_NEW(a, fg_module);
    m->cx = cx;
    m->a = a;
    m->ex = fg_exprs_new(a);
    m->name = fg_intern(cx, name);
    FG_PUSH(a, m->reg, m->nreg, m->capreg) = (fg_reginfo){0}; /* register 0: none */
    m->body = fg_block_new(m, NULL, NULL);
    return m;
}

/* ---- registers ---------------------------------------------------------------------------- */

/* The names in use: a set of interned strings. */
typedef struct nameset {
    const char **slot;
    size_t n, cap;
} nameset;

static size_t
name_slot(const nameset *s, const char *name)
{
    size_t h = fg_hash(&name, sizeof name, 0) & (s->cap - 1);
    while (s->slot[h] && s->slot[h] != name)
        h = (h + 1) & (s->cap - 1);
    return h;
}

/* False when the name was in use. */
static bool
name_take(fg_module *m, const char *name)
{
    nameset *s = m->names;
    if (!s) {
        s = m->names = FG_NEW(m->a, nameset);
        s->cap = 512;
        s->slot = FG_NEWN(m->a, const char *, s->cap);
    }
    if (s->n * 2 >= s->cap) {
        nameset old = *s;
        s->cap *= 2;
        s->slot = FG_NEWN(m->a, const char *, s->cap);
        for (size_t i = 0; i < old.cap; i++)
            if (old.slot[i])
                s->slot[name_slot(s, old.slot[i])] = old.slot[i];
    }
    size_t h = name_slot(s, name);
    if (s->slot[h])
        return false;
    s->slot[h] = name;
    s->n++;
    return true;
}

static const char *
unique_name(fg_module *m, const char *name)
{
    const char *unique = name ? fg_intern(m->cx, name) : NULL;
    if (unique && name_take(m, unique))
        return unique;
    do {
        unique = fg_intern(m->cx, name ? fg_format(m->a, "%s.%u", name, ++m->nname)
                                       : fg_format(m->a, "%u", ++m->nname));
    } while (!name_take(m, unique));
    return unique;
}

fg_reg
fg_reg_new(fg_module *m, fg_block *b, fg_type type, const char *name)
{
    fg_reginfo r = {.type = type, .name = unique_name(m, name), .block = b};
    FG_PUSH(m->a, m->reg, m->nreg, m->capreg) = r;
    return m->nreg - 1;
}

fg_reg
fg_param(fg_module *m, fg_block *b, fg_type type, const char *name)
{
    fg_reg r = fg_reg_new(m, b, type, name);
    fg_reg *p = FG_NEWN(m->a, fg_reg, (size_t)b->nparam + 1);
    if (b->nparam)
        memcpy(p, b->param, (size_t)b->nparam * sizeof *p);
    p[b->nparam++] = r;
    b->param = p;
    return r;
}

/* ---- weights -------------------------------------------------------------------------------- */

/* Reading all of a large file to find its few tied tensors would page it in. So weights are
 * looked for by a key made of type, shape and a sample of the content; what has the key of
 * another weight is compared with that one in full, and if it differs gets a key of its own
 * from all of its content. That makes two comparisons and one hash of a weight's own bytes at
 * most: weights that differ where the sample is not taken (a zero-filled file, files made to
 * have equal keys) cost no more than reading them, and at worst are not shared. The middle is where
 * tensors of one shape differ first; ends are often padding or zero. */
static uint64_t
weight_key(const fg_weight *w, bool whole)
{
    enum { WINDOW = 256 };
    uint64_t h = fg_hash(w->dim, (size_t)w->rank * sizeof w->dim[0], (uint64_t)w->dtype);
    if (!w->data)
        return fg_hash(&w->file_offset, sizeof w->file_offset, h) ^ whole;
    if (whole || w->bytes <= WINDOW)
        return fg_hash(w->data, w->bytes, h) ^ whole;
    return fg_hash((const char *)w->data + w->bytes / 2 / WINDOW * WINDOW, WINDOW, h);
}

/* Content that is not at hand is equal when it is the same place of the same file. */
static bool
content_same(const fg_weight *a, const fg_weight *b)
{
    if (a->data && b->data)
        return a->data == b->data || memcmp(a->data, b->data, a->bytes) == 0;
    return a->data == b->data && a->file && b->file && strcmp(a->file, b->file) == 0 &&
           a->file_offset == b->file_offset;
}

static bool
weight_same(const fg_weight *a, const fg_weight *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes &&
           memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0 &&
           content_same(a, b);
}

/* Where equal weights are looked for: open addressing by key, index + 1 or 0. Keys differ. */
typedef struct weightset {
    struct weightslot {
        uint64_t key;
        uint32_t weight;
    } *slot;
    size_t cap, n;
} weightset;

/* The slot with this key, or the empty one where it belongs. */
static struct weightslot *
weight_slot(const weightset *s, uint64_t key)
{
    size_t h = (size_t)key & (s->cap - 1);
    while (s->slot[h].weight && s->slot[h].key != key)
        h = (h + 1) & (s->cap - 1);
    return &s->slot[h];
}

static weightset *
weight_set(fg_module *m)
{
    weightset *s = m->weights;
    if (!s)
        s = m->weights = FG_NEW(m->a, weightset);
    if (s->n * 2 < s->cap)
        return s;
    weightset old = *s;
    s->cap = s->cap ? s->cap * 2 : 64;
    s->slot = FG_NEWN(m->a, struct weightslot, s->cap);
    for (size_t k = 0; k < old.cap; k++)
        if (old.slot[k].weight)
            *weight_slot(s, old.slot[k].key) = old.slot[k];
    return s;
}

int
fg_weight_add(fg_module *m, const fg_weight *w)
{
    weightset *s = weight_set(m);
    m->initializers.bytes += w->bytes;
    uint64_t key = weight_key(w, false);
    struct weightslot *slot = weight_slot(s, key);
    for (int whole = 0; slot->weight && whole < 2; whole++) {
        fg_weight *known = &m->weight[slot->weight - 1];
        if (weight_same(known, w)) {
            known->uses++;
            m->initializers.tied++;
            m->initializers.shared += w->bytes;
            return (int)slot->weight - 1;
        }
        if (!whole)
            slot = weight_slot(s, key = weight_key(w, true));
    }
    FG_PUSH(m->a, m->weight, m->nweight, m->capweight) = *w;
    m->weight[m->nweight - 1].uses = 1;
    if (!slot->weight) {
        *slot = (struct weightslot){key, (uint32_t)m->nweight};
        s->n++;
    }
    return m->nweight - 1;
}

const fg_weight *
fg_reg_weight(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    return fg_is_op(d, FG_OP_const) ? &m->weight[FG_GET(d, const, w).i] : NULL;
}

static int64_t
weight_count(const fg_weight *w)
{
    int64_t n = 1;
    for (int i = 0; i < w->rank; i++)
        n *= w->dim[i];
    return n;
}

/* Element i as a double and, for integers, exactly. */
static bool
weight_element(const fg_weight *w, int64_t i, double *f, int64_t *n)
{
    if (!w || !w->data || i < 0 || i >= weight_count(w))
        return false;
    const char *p = (const char *)w->data + i * fg_dtypes[w->dtype].bits / 8;
#define AS(T, v)                                                                         \
    do {                                                                                 \
        T x;                                                                             \
        memcpy(&x, p, sizeof x);                                                         \
        v;                                                                               \
    } while (0)
    switch (w->dtype) {
    case FG_f32:
        AS(float, *f = x; *n = 0);
        break;
    case FG_f64:
        AS(double, *f = x; *n = 0);
        break;
    case FG_f16:
        AS(uint16_t, *f = fg_f16_to_f32(x); *n = 0);
        break;
    case FG_bf16:
        AS(uint16_t, *f = fg_bf16_to_f32(x); *n = 0);
        break;
    case FG_i64:
        AS(int64_t, *n = x; *f = (double)x);
        break;
    case FG_u64:
        AS(uint64_t, *n = (int64_t)x; *f = (double)x);
        break;
    case FG_i32:
        AS(int32_t, *n = x; *f = x);
        break;
    case FG_u32:
        AS(uint32_t, *n = x; *f = x);
        break;
    case FG_i16:
        AS(int16_t, *n = x; *f = x);
        break;
    case FG_u16:
        AS(uint16_t, *n = x; *f = x);
        break;
    case FG_i8:
        AS(int8_t, *n = x; *f = x);
        break;
    case FG_u8:
    case FG_bool:
        AS(uint8_t, *n = x; *f = x);
        break;
    case FG_u4:
    case FG_i4:
        AS(uint8_t, *n = x >> (i & 1) * 4 & 15;
           *n = w->dtype == FG_i4 && *n > 7 ? *n - 16 : *n; *f = (double)*n);
        break;
    default:
        return false;
    }
#undef AS
    return true;
}

bool
fg_const_f64(const fg_module *m, fg_reg r, int64_t i, double *v)
{
    int64_t n;
    return weight_element(fg_reg_weight(m, r), i, v, &n);
}

bool
fg_const_i64(const fg_module *m, fg_reg r, int64_t i, int64_t *v)
{
    double f;
    const fg_weight *w = fg_reg_weight(m, r);
    return w && !fg_is_float(w->dtype) && weight_element(w, i, &f, v);
}

bool
fg_const_splat(const fg_module *m, fg_reg r, double *v)
{
    enum { LARGEST = 4096 }; /* elements worth comparing */
    const fg_inst *d = fg_def(m, r);
    while (d && (d->op == FG_OP_expand || d->op == FG_OP_reshape || d->op == FG_OP_copy ||
                 d->op == FG_OP_transpose ||
                 (d->op == FG_OP_cast && fg_is_float(m->reg[r].type.dtype)))) {
        r = d->in[0];
        d = fg_def(m, r);
    }
    const fg_weight *w = fg_reg_weight(m, r);
    double x;
    int64_t n;
    if (!w || !weight_element(w, 0, v, &n) || weight_count(w) > LARGEST)
        return false;
    size_t each = (size_t)fg_dtypes[w->dtype].bits / 8;
    if (each) /* all bytes equal those one element further on */
        return memcmp(w->data, (const char *)w->data + each, w->bytes - each) == 0;
    for (int64_t i = 1; i < weight_count(w); i++)
        if (!weight_element(w, i, &x, &n) || memcmp(&x, v, sizeof x) != 0)
            return false;
    return true;
}

/* ---- blocks and instructions ----------------------------------------------------------------- */

fg_block *
fg_block_new(fg_module *m, fg_inst *owner, fg_block *parent)
{
    fg_block *b = FG_NEW(m->a, fg_block);
    b->m = m;
    b->owner = owner;
    b->parent = parent;
    return b;
}

static void
link_before(fg_block *b, fg_inst *i, fg_inst *at)
{
    i->block = b;
    i->next = at;
    i->prev = at ? at->prev : b->last;
    *(i->prev ? &i->prev->next : &b->first) = i;
    *(at ? &at->prev : &b->last) = i;
}

void
fg_inst_remove(fg_inst *i)
{
    fg_block *b = i->block;
    *(i->prev ? &i->prev->next : &b->first) = i->next;
    *(i->next ? &i->next->prev : &b->last) = i->prev;
    i->prev = i->next = NULL;
    i->block = NULL;
}

void
fg_inst_move_before(fg_inst *i, fg_inst *at)
{
    fg_inst_remove(i);
    link_before(at->block, i, at);
    for (int k = 0; k < i->nout; k++)
        at->block->m->reg[i->out[k]].block = at->block;
}

void
fg_inst_link(fg_build *b, fg_inst *i)
{
    link_before(b->block, i, b->at);
}

/* In i and what follows it. */
static void
replace_uses(fg_inst *i, fg_reg from, fg_reg to)
{
    for (; i; i = i->next) {
        for (int k = 0; k < i->nin; k++)
            if (i->in[k] == from)
                i->in[k] = to;
        for (int k = 0; k < i->nregion; k++)
            replace_uses(i->region[k]->first, from, to);
    }
}

void
fg_replace_uses(fg_block *b, fg_reg from, fg_reg to)
{
    fg_module *m = b->m;
    const fg_inst *d = fg_def(m, from); /* nobody reads it before */
    replace_uses(d && d->block == b ? d->next : b->first, from, to);
    for (int k = 0; b == m->body && k < m->noutput; k++)
        if (m->output[k].reg == from)
            m->output[k].reg = to;
}

static void
count_uses(const fg_block *b, uint32_t *count)
{
    for (const fg_inst *i = b->first; i; i = i->next) {
        for (int k = 0; k < i->nin; k++)
            count[i->in[k]]++;
        for (int k = 0; k < i->nregion; k++)
            count_uses(i->region[k], count);
    }
}

uint32_t *
fg_count_uses(fg_module *m, fg_arena *a)
{
    uint32_t *count = FG_NEWN(a, uint32_t, m->nreg);
    count_uses(m->body, count);
    return count;
}

int
fg_inst_count(const fg_block *b)
{
    int n = 0;
    for (const fg_inst *i = b->first; i; i = i->next) {
        n += i->op != FG_OP_const && !fg_op_is(i->op, FG_T_TERM);
        for (int k = 0; k < i->nregion && i->op != FG_OP_kernel; k++)
            n += fg_inst_count(i->region[k]);
    }
    return n;
}

bool
fg_kernel_once(const fg_module *m, const fg_inst *i)
{
    if (i->op != FG_OP_kernel || i->nin != 1 || i->nout != 1 || i->block->owner)
        return false;
    const fg_block *b = i->region[0];
    return fg_is_op(fg_def(m, i->in[0]), FG_OP_const) &&
           fg_is_op(b->first, FG_OP_panels) && b->first->next == b->last;
}

const char *
fg_inst_where(const fg_module *m, const fg_inst *i)
{
    const char *op = fg_op_info(i->op)->name;
    if (i->nnode)
        return fg_format(m->a, "%s \"%s\"", op, i->node[0]);
    return i->out && i->nout ? fg_format(m->a, "%s %%%s", op, m->reg[i->out[0]].name)
                             : op;
}

/* ---- unification -------------------------------------------------------------------------------- */

static void renew_block(fg_module *m, fg_block *b);

/* Brings the attributes of i and of its regions up to date. */
void
fg_inst_renew(fg_module *m, fg_inst *i)
{
    const fg_opinfo *info = fg_op_info(i->op);
    for (int k = 0; k < info->nattr; k++) {
        fg_attrkind kind = fg_attrs[info->attr0 + k].kind;
        if (kind == FG_AK_expr)
            i->attr[k].e = fg_e_renew(m->ex, i->attr[k].e);
        for (int j = 0; kind == FG_AK_exprs && j < i->attr[k].n; j++)
            i->attr[k].es[j] = fg_e_renew(m->ex, i->attr[k].es[j]);
    }
    for (int k = 0; k < i->nregion; k++)
        renew_block(m, i->region[k]);
}

static void
renew_block(fg_module *m, fg_block *b)
{
    for (fg_inst *i = b->first; i; i = i->next)
        fg_inst_renew(m, i);
}

static void
renew_registers(fg_module *m)
{
    for (uint32_t r = 1; r < m->nreg; r++) {
        fg_reginfo *ri = &m->reg[r];
        for (int k = 0; k < ri->type.rank; k++)
            ri->type.dim[k] = fg_e_renew(m->ex, ri->type.dim[k]);
        if (!ri->sym)
            continue;
        fg_expr *sym = FG_NEWN(m->a, fg_expr, (size_t)ri->nsym);
        for (int k = 0; k < ri->nsym; k++)
            sym[k] = fg_e_renew(m->ex, ri->sym[k]);
        ri->sym = sym;
    }
}

static void
renew(fg_module *m)
{
    renew_registers(m);
    renew_block(m, m->body);
    for (int k = 0; k < m->nstate; k++) {
        m->state[k].length = fg_e_renew(m->ex, m->state[k].length);
        m->state[k].next = fg_e_renew(m->ex, m->state[k].next);
        m->state[k].at = fg_e_renew(m->ex, m->state[k].at);
    }
}

void
fg_rely(fg_module *m, fg_expr a, fg_expr b)
{
    FG_PUSH(m->a, m->relied, m->nrelied, m->caprelied) = a;
    FG_PUSH(m->a, m->relied, m->nrelied, m->caprelied) = b;
}

/* Once the model is imported: is that what a branch relies on? */
static bool
relied_on(fg_module *m, fg_expr a, fg_expr b)
{
    for (int k = 0; !m->checks && k < m->nrelied; k += 2)
        if (fg_e_renew(m->ex, m->relied[k]) == fg_e_renew(m->ex, a) &&
            fg_e_renew(m->ex, m->relied[k + 1]) == fg_e_renew(m->ex, b))
            return true;
    return false;
}

/* In a branch: a == b is left for `require` unless one can tell. */
static bool
unify_in_branch(fg_module *m, fg_expr a, fg_expr b)
{
    fg_expr d = fg_esub(m->ex, a = fg_e_renew(m->ex, a), b = fg_e_renew(m->ex, b));
    if (a == b || !d)
        return true;
    if (fg_e_lo(m->ex, d) > 0 || fg_e_hi(m->ex, d) < 0)
        return false;
    fg_rely(m, a, b);
    FG_PUSH(m->a, m->unsolved, m->nunsolved, m->capunsolved) = a;
    FG_PUSH(m->a, m->unsolved, m->nunsolved, m->capunsolved) = b;
    return true;
}

bool
fg_unify(fg_module *m, fg_expr a, fg_expr b)
{
    bool changed;
    if (m->conditional)
        return unify_in_branch(m, a, b);
    if (relied_on(m, a, b))
        return true;
    if (!fg_e_unify(m->ex, a, b, &changed))
        return false;
    if (changed)
        renew(m);
    else if (m->checks && a && b &&
             (a = fg_e_renew(m->ex, a)) != (b = fg_e_renew(m->ex, b))) {
        FG_PUSH(m->a, m->unsolved, m->nunsolved, m->capunsolved) = a;
        FG_PUSH(m->a, m->unsolved, m->nunsolved, m->capunsolved) = b;
    }
    return true;
}

bool
fg_assume_le(fg_module *m, fg_expr a, fg_expr b)
{
    bool changed;
    if (m->conditional)
        return fg_e_le(m->ex, a, b);
    if (!fg_e_assume_le(m->ex, a, b, &changed))
        return false;
    if (changed)
        renew(m);
    return true;
}
