/* prepack.c - panels of constants, made while a file is written.
 *
 *     once:  %p = kernel %w {panels}        =>    %p = constant in the file
 *     main:  %y = kernel %x, %p                   %y = kernel %x, %p
 *
 * The same bytes that the kernel would make, so a file serves every instruction set and
 * processes share the pages; what they were made from is not in the file unless some other
 * kernel reads it.
 */
#include "codegen/prepack.h"

static fg_prepacked
describe(const fg_module *m, const fg_inst *kernel)
{
    const fg_inst *cut = kernel->region[0]->first;
    const fg_weight *w = fg_reg_weight(m, kernel->in[0]);
    fg_prepacked p = {.w = w,
                      .width = FG_GET(cut, panels, width).i,
                      .trans = FG_GET(cut, panels, trans).i};

    p.k = w->dim[p.trans];
    p.n = w->dim[!p.trans];
    p.bytes = (size_t)((p.n + p.width - 1) / p.width * p.width * p.k) *
              (size_t)(fg_dtypes[w->dtype].bits / 8);
    return p;
}

/* Constants that no step but those of `once` reads. */
static void
drop_unread(fg_program *p, fg_tensordef *tensor, fg_arena *a)
{
    fg_bits read = fg_bits_new(a, p->ntensor + 1);

    for (uint32_t i = 0; i < p->nstep; i++)
        for (uint32_t k = 0; k < p->step[i].nbuf; k++)
            if (p->step[i].buf[k] != FG_NONE)
                fg_bits_add(read, p->step[i].buf[k]);
    for (uint32_t t = 0; t < p->ntensor; t++)
        if (tensor[t].storage == FG_ST_ALIAS)
            fg_bits_add(read, tensor[t].port);
    for (uint32_t k = 0; k < p->noutput; k++)
        fg_bits_add(read, p->output[k].tensor);
    const fg_blockdef *b = &p->block[p->once];
    for (uint32_t i = 0; i < b->count; i++) {
        const fg_step *s = &p->step[b->first + i];
        if (!fg_bits_has(read, s->buf[0])) {
            tensor[s->buf[0]].storage = FG_ST_DYNAMIC; /* never made */
            tensor[s->buf[0]].data = NULL;
        }
    }
}

const fg_program *
fg_prepack(const fg_compiled *c, fg_arena *a, fg_prepacked **list, int *n)
{
    const fg_program *from = c->program;
    const fg_blockdef *b = &from->block[from->once];

    *n = 0;
    *list = NULL;
    /* It is the last block and has the last steps, so both are cut off. */
    if (!from->once || from->once + 1 != from->nblock ||
        b->first + b->count != from->nstep)
        return from;
    fg_program *p = fg_dup(a, from, sizeof *from);
    fg_tensordef *tensor = fg_dup(a, from->tensor, from->ntensor * sizeof *from->tensor);
    *list = FG_NEWN(a, fg_prepacked, b->count);
    fg_each_inst(c->m->body, i) {
        if (!fg_kernel_once(c->m, i))
            continue;
        fg_prepacked *q = &(*list)[*n];
        fg_tensordef *t = &tensor[from->step[b->first + (uint32_t)(*n)++].buf[1]];
        *q = describe(c->m, i);
        t->storage = FG_ST_CONST;
        t->data = q;
    }
    p->tensor = tensor;
    p->nstep -= b->count;
    drop_unread(p, tensor, a);
    p->once = 0;
    p->nblock--;
    return p;
}

/* `n` elements of `size` bytes, `stride` bytes apart, side by side. */
static void
gather(char *dst, const char *src, int64_t n, size_t stride, size_t size)
{
    for (int64_t j = 0; j < n; j++)
        memcpy(dst + (size_t)j * size, src + (size_t)j * stride, size);
}

void
fg_prepack_fill(const fg_prepacked *p, void *dst)
{
    size_t size = (size_t)fg_dtypes[p->w->dtype].bits / 8;
    size_t row = (size_t)p->width * size;
    const char *w = p->w->data;
    char *to = dst;

    memset(dst, 0, p->bytes);
    for (int64_t col = 0; col < p->n; col += p->width)
        for (int64_t k = 0; k < p->k; k++, to += row) {
            int64_t n = p->n - col < p->width ? p->n - col : p->width;
            if (p->trans)
                gather(to, w + (size_t)(col * p->k + k) * size, n, (size_t)p->k * size,
                       size);
            else
                memcpy(to, w + (size_t)(k * p->n + col) * size, (size_t)n * size);
        }
}
