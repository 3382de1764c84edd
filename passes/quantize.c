/* quantize.c - weights of products in fewer bits, and what activations they are met with.
 *
 *     %w = const {w=$0} : f32[K,N]              %q = const {w=$1} : i4[N,K]
 *     %y = matmul %x, %w                  =>    %s = const {w=$2} : f16[N,K/32]
 *                                               %d = dequantize %q, %s {axis=1, block=32, to=f32}
 *                                               %y = matmul %x, %d {trans_b=1, round=32}
 *
 *     bits=4, 8    each `group` weights along k become multiples of one f16 scale: of the
 *                  largest magnitude / 127, or of the signed largest / -8
 *     bits=16      bf16, read through a cast, and activations likewise
 *     round        0 keeps activations as they are, 1 rounds those of all packed weights
 *                  to 8 bits, -1 those that the model or this pass says
 *
 * The columns that make the logits, and those that are also looked up as an embedding, keep
 * at least 8 bits. Every weight is read once, by several threads; what was mapped from a
 * file is given back at once, so the f32 originals are never all in memory. All other
 * constants stay as they are.
 */
#include "passes/pass.h"
#include "passes/rewrite.h"

#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ACROSS = 16, /* columns read side by side: a line of memory */
    MOSTGROUP = 256,
    MOSTTHREADS = 16
};

/* ---- numbers -------------------------------------------------------------------- */

typedef struct packing {
    const float *from; /* element (n, k) at n * down + k * along */
    int64_t down, along, n, k;
    int bits, group;
    uint8_t *to; /* [n][k] */
    uint16_t *scale;
    int64_t groups; /* of a row */
} packing;

/* Nearest integer of |x| < 2^22, ties to even. */
static inline int
nearest(float x)
{
    union {
        float f;
        int32_t i;
    } u = {.f = x + 12582912.0f};
    return u.i - 0x4b400000;
}

/* One group: `n` numbers to `bits` bits each. A group whose scale vanishes in f16 is 0. */
static void
pack_group(const packing *p, const float *x, int n, uint8_t *to, uint16_t *scale)
{
    float low = 0, high = 0;
    int least = p->bits == 4 ? -8 : -127, most = p->bits == 4 ? 7 : 127;
    int8_t q[MOSTGROUP + 1];
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    float top = high > -low ? high : p->bits == 4 ? low : -low;
    *scale = fg_f32_to_f16(top / (p->bits == 4 ? -8 : 127));
    float s = fg_f16_to_f32(*scale), inverse = s != 0 ? 1 / s : 0;
    if (!isfinite(inverse))
        inverse = 0;
    for (int i = 0; i < n; i++) {
        float v = x[i] * inverse;
        v = v < least ? least : v > most ? most : v;
        q[i] = (int8_t)nearest(v);
    }
    if (p->bits == 8) {
        memcpy(to, q, (size_t)n);
        return;
    }
    q[n] = 0;
    for (int i = 0; i < n; i += 2)
        to[i / 2] = (uint8_t)((q[i] & 15) | (q[i + 1] & 15) << 4);
}

/* Columns [n0, n1), some side by side where that is how they lie in memory. */
static void
pack_rows(const packing *p, int64_t n0, int64_t n1)
{
    float run[ACROSS][MOSTGROUP];
    int step = p->down == 1 ? ACROSS : 1;
    for (int64_t n = n0; n < n1; n += step)
        for (int64_t g = 0; g < p->groups; g++) {
            int64_t k = g * p->group, left = p->k - k;
            int deep = left < p->group ? (int)left : p->group;
            int wide = n1 - n < step ? (int)(n1 - n) : step;
            const float *from = p->from + n * p->down + k * p->along;
            for (int i = 0; step > 1 && i < deep; i++)
                for (int j = 0; j < wide; j++)
                    run[j][i] = from[i * p->along + j];
            for (int j = 0; j < wide; j++)
                pack_group(p, step > 1 ? run[j] : from, deep,
                           p->to + ((n + j) * p->k + k) * p->bits / 8,
                           p->scale + (n + j) * p->groups + g);
        }
}

/* The same to bf16. */
static void
narrow_rows(const packing *p, int64_t n0, int64_t n1)
{
    enum { TILE = 64 };
    uint16_t *out = (uint16_t *)p->to;
    for (int64_t k0 = 0; k0 < p->k; k0 += TILE)
        for (int64_t n = n0; n < n1; n++)
            for (int64_t k = k0; k < p->k && k < k0 + TILE; k++)
                out[n * p->k + k] = fg_f32_to_bf16(p->from[n * p->down + k * p->along]);
}

/* ---- threads -------------------------------------------------------------------- */

typedef struct share {
    const packing *p;
    int64_t from, to;
} share;

static void *
work(void *arg)
{
    const share *s = arg;
    if (s->p->bits == 16)
        narrow_rows(s->p, s->from, s->to);
    else
        pack_rows(s->p, s->from, s->to);
    return NULL;
}

/* Rows in as many shares as there are processors; a thread that cannot be
 * had is done without. */
static void
pack_all(const packing *p)
{
    pthread_t thread[MOSTTHREADS];
    share s[MOSTTHREADS];
    bool beside[MOSTTHREADS] = {false};
    int64_t total = p->n;
    long have = sysconf(_SC_NPROCESSORS_ONLN);
    int n = have < 1 ? 1 : have > MOSTTHREADS ? MOSTTHREADS : (int)have;
    for (int t = 0; t < n; t++)
        s[t] = (share){p, total * t / n, total * (t + 1) / n};
    for (int t = 1; t < n; t++)
        beside[t] = !pthread_create(&thread[t], NULL, work, &s[t]);
    work(&s[0]);
    for (int t = 1; t < n; t++)
        if (beside[t])
            pthread_join(thread[t], NULL);
        else
            work(&s[t]);
}

/* The pages that lie wholly inside a mapped weight: whoever reads it again has them read
 * from the file again. */
static void
give_back(const fg_weight *w)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t lo = ((uintptr_t)w->data + page - 1) & ~(page - 1);
    uintptr_t hi = ((uintptr_t)w->data + w->bytes) & ~(page - 1);
    if (w->mapped && lo < hi)
        madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

/* ---- weights -------------------------------------------------------------------- */

typedef struct packed { /* what became of a constant */
    fg_reg q, s;        /* 0: nothing yet */
    bool trans;         /* the axis summed over was the last */
} packed;

typedef struct narrowed {  /* a register as bf16 */
    const fg_block *block; /* where it may be read */
    fg_reg to;
} narrowed;

typedef struct quantizer {
    fg_module *m;
    fg_passctx *cx;
    int bits, group, round, least;
    packed *done; /* by register */
    narrowed *narrow;
    uint32_t n;     /* registers that existed before */
    fg_bits looked; /* constants that are gathered from, along axis 0 */
    fg_rewrite w;
} quantizer;

static fg_reg
emit_weight(fg_build *b, fg_dtype d, int64_t n, int64_t k, void *data)
{
    fg_weight w = {.dtype = d, .rank = 2, .dim = {n, k}, .data = data};
    if (!fg_dtype_bytes(d, n * k, &w.bytes))
        return 0;
    fg_weightcount counted = b->m->initializers;
    fg_inst *i = fg_inst_begin(b, FG_OP_const, 0, NULL);
    FG_SET(i, const, w).i = fg_weight_add(b->m, &w);
    b->m->initializers = counted;
    return fg_inst_finish(b, i, NULL, 0) ? i->out[0] : 0;
}

/* The constant at the head of its block in fewer bits: readers may stand anywhere below. */
static bool
pack_weight(quantizer *z, fg_reg r, const fg_weight *w, bool trans, int bits)
{
    fg_build b = fg_build_before(fg_def(z->m, r));
    packed *d = &z->done[r];
    packing p = {.from = w->data, .bits = bits, .group = z->group};
    p.n = w->dim[trans ? 0 : 1];
    p.k = w->dim[trans ? 1 : 0];
    p.down = trans ? p.k : 1;
    p.along = trans ? 1 : p.n;
    p.groups = (p.k + z->group - 1) / z->group;
    size_t bytes = (size_t)(p.n * p.k) * (size_t)bits / 8;
    p.to = fg_alloc_large(z->m->a, bytes);
    if (bits < 16)
        p.scale = fg_alloc_large(z->m->a, (size_t)(p.n * p.groups) * sizeof *p.scale);
    pack_all(&p);
    give_back(w);
    fg_dtype type = bits == 16 ? FG_bf16 : bits == 8 ? FG_i8 : FG_i4;
    d->q = emit_weight(&b, type, p.n, p.k, p.to);
    d->s = bits < 16 ? emit_weight(&b, FG_f16, p.n, p.groups, p.scale) : d->q;
    d->trans = trans;
    fg_report_fusion(z->cx->report, bits == 16  ? "weights in bf16"
                                    : bits == 8 ? "weights in 8 bits"
                                                : "weights in 4 bits");
    return d->q && d->s;
}

static fg_reg
dequantize(fg_build *b, fg_reg q, fg_reg s, int64_t axis, int64_t block)
{
    fg_inst *i = q && s ? fg_inst_begin(b, FG_OP_dequantize, 2, (fg_reg[]){q, s}) : NULL;
    if (!i)
        return 0;
    FG_SET(i, dequantize, axis).i = axis;
    FG_SET(i, dequantize, block).i = block;
    FG_SET(i, dequantize, to).i = FG_f32;
    return fg_inst_finish(b, i, NULL, 0) ? i->out[0] : 0;
}

static bool
makes_logits(const fg_module *m, const fg_inst *i)
{
    for (int k = 0; k < m->noutput; k++)
        if (m->output[k].reg == i->out[0])
            return true;
    return false;
}

/* ---- instructions --------------------------------------------------------------- */

/* What bf16 keeps of a product's first operand: one tensor for all products that read it. */
static fg_reg
in_bf16(quantizer *z, fg_inst *i)
{
    fg_reg x = i->in[0];
    narrowed *known = x < z->n ? &z->narrow[x] : NULL;
    if (known && known->block == i->block)
        return known->to;
    fg_build b = fg_build_before(i);
    fg_reg half = fg_emit_cast(&b, x, FG_bf16);
    fg_reg to = half ? fg_emit_cast(&b, half, FG_f32) : 0;
    if (known)
        *known = (narrowed){i->block, to};
    return to;
}

static bool
packed_product(quantizer *z, fg_inst *i)
{
    fg_module *m = z->m;
    fg_reg r = i->in[1];
    const fg_weight *found = r < z->n ? fg_reg_weight(m, r) : NULL;
    if (!z->bits || !found || found->dtype != FG_f32 || found->rank != 2 ||
        !found->data || FG_GET(i, matmul, trans_a).i ||
        found->dim[0] * found->dim[1] < z->least)
        return false;
    const fg_weight w = *found; /* the table moves when it grows */
    bool trans = FG_GET(i, matmul, trans_b).i != 0;
    int bits = z->bits;
    if (bits == 4 && (fg_bits_has(z->looked, r) || makes_logits(m, i)))
        bits = 8;
    if (w.dim[trans ? 1 : 0] % 8)
        return false; /* rows must begin at whole words */
    packed *d = &z->done[r];
    if (d->q && d->trans != trans)
        return false;
    if (!d->q && !pack_weight(z, r, &w, trans, bits))
        return false;
    fg_build b = fg_build_before(i);
    fg_reg y, x = i->in[0], fresh = m->nreg;
    if (bits == 16)
        y = fg_emit_matmul(&b, z->round ? in_bf16(z, i) : x,
                           fg_emit_cast(&b, d->q, FG_f32), false, true);
    else
        y = fg_emit_matmul_rounded(&b, x, dequantize(&b, d->q, d->s, 1, z->group), false,
                                   true, z->round ? z->group : 0);
    if (y)
        fg_rewrite_replace(&z->w, i, y, fresh);
    return y != 0;
}

/* Rows of a packed table: of its numbers and of its scales. */
static bool
packed_lookup(quantizer *z, fg_inst *i)
{
    fg_reg r = i->in[0];
    const packed *d = r < z->n ? &z->done[r] : NULL;
    if (!d || !d->q || FG_GET(i, gather, axis).i || !d->trans)
        return false;
    fg_build b = fg_build_before(i);
    fg_reg fresh = z->m->nreg, y, q = fg_emit_gather(&b, d->q, i->in[1], 0);
    if (fg_rt(z->m, d->q)->dtype == FG_bf16)
        y = q ? fg_emit_cast(&b, q, FG_f32) : 0;
    else
        y = dequantize(&b, q, fg_emit_gather(&b, d->s, i->in[1], 0),
                       fg_rt(z->m, i->out[0])->rank - 1, z->group);
    if (y)
        fg_rewrite_replace(&z->w, i, y, fresh);
    return y != 0;
}

/* The length of the runs by which the activations of packed weights are rounded; 0: the
 * second operand is not that. */
static int64_t
run_of(quantizer *z, const fg_inst *i)
{
    const fg_inst *d = fg_def(z->m, i->in[1]);
    while (d && (fg_op_is(d->op, FG_T_VIEW) || d->op == FG_OP_cast))
        d = fg_def(z->m, d->in[0]);
    if (!fg_is_op(d, FG_OP_dequantize) || fg_rt(z->m, i->in[0])->dtype != FG_f32 ||
        fg_rt(z->m, i->in[1])->rank != 2 || !fg_reg_weight(z->m, d->in[0]))
        return 0;
    int64_t block = FG_GET(d, dequantize, block).i;
    return block >= 16 && !(block & (block - 1)) ? block : z->group;
}

static bool
choose_rounding(quantizer *z, fg_inst *i)
{
    fg_attr *round = &FG_SET(i, matmul, round);
    int64_t want = z->round < 0 ? round->i : z->round ? run_of(z, i) : 0;
    bool changed = want != round->i;
    round->i = want;
    return changed;
}

static void
note_lookups(quantizer *z, fg_block *b)
{
    fg_each_inst(b, i) {
        if (i->op == FG_OP_gather && !FG_GET(i, gather, axis).i)
            fg_bits_add(z->looked, i->in[0]);
        for (int k = 0; k < i->nregion; k++)
            note_lookups(z, i->region[k]);
    }
}

/* Products first: a table is only packed for the sake of a product. */
static bool
walk(quantizer *z, fg_block *b, bool lookups)
{
    bool changed = false;
    fg_each_inst(b, i) {
        fg_rewrite_operands(&z->w, i);
        for (int k = 0; k < i->nregion; k++)
            changed |= walk(z, i->region[k], lookups);
        if (i->op == FG_OP_matmul && !lookups)
            changed |= packed_product(z, i) || choose_rounding(z, i);
        else if (i->op == FG_OP_gather && lookups)
            changed |= packed_lookup(z, i);
    }
    return changed;
}

fg_progress
fg_pass_quantize(fg_module *m, fg_passctx *cx)
{
    quantizer z = {.m = m,
                   .cx = cx,
                   .bits = (int)cx->param[FG_PARAM_quantize_bits],
                   .group = (int)cx->param[FG_PARAM_quantize_group],
                   .round = (int)cx->param[FG_PARAM_quantize_round],
                   .least = (int)cx->param[FG_PARAM_quantize_least],
                   .n = m->nreg};
    if (!z.bits && z.round < 0)
        return FG_SAME;
    if ((z.bits && z.bits != 4 && z.bits != 8 && z.bits != 16) ||
        (z.group & (z.group - 1))) {
        fg_error(m->cx, "quantize: bits are 4, 8 or 16, and a group a power of two");
        return FG_FAILED;
    }
    z.done = FG_NEWN(cx->scratch, packed, m->nreg);
    z.narrow = FG_NEWN(cx->scratch, narrowed, m->nreg);
    z.looked = fg_bits_new(cx->scratch, m->nreg);
    z.w = fg_rewrite_new(m, cx->scratch);
    note_lookups(&z, m->body);
    bool changed = walk(&z, m->body, false);
    changed |= walk(&z, m->body, true);
    fg_rewrite_done(&z.w);
    return changed ? FG_CHANGED : FG_SAME;
}
