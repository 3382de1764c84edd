/* once.c - tensors that a model makes from its constants before the first run.
 *
 *     once:  %p = kernel %w {panels}      made by the first run that gets here
 *            %y = kernel %x, %p           every run reads the same bytes
 *
 * All of them lie in one block, so that the system can back it with large pages. What a
 * kernel has read of a mapped file it does not need again: those pages go back as it
 * proceeds, so that the constants and what is made of them are never in memory together.
 */
#include "runtime/names.h"

#include <sys/mman.h>
#include <unistd.h>

enum { BAND = 8 << 20 }; /* bytes made between giving pages back */

void
fg_model_init(forge_model *m, forge_ctx *cx)
{
    m->once = (fg_once){.alloc = cx->alloc, .release = cx->release, .user = cx->user};
    pthread_mutex_init(&m->once.lock, NULL);
}

void
fg_model_done(forge_model *m)
{
    fg_names_drop(m);
    if (m->once.raw)
        m->once.release(m->once.user, m->once.raw);
    pthread_mutex_destroy(&m->once.lock);
}

static int64_t
aligned(int64_t bytes) /* saturates */
{
    return (bytes + FG_ALIGN - 1) & -(int64_t)FG_ALIGN;
}

/* Sizes of ONCE tensors do not depend on shapes, so every run finds the same ones. */
static int64_t
total(const forge_run *r)
{
    int64_t bytes = 0;

    for (uint32_t t = 0; t < r->p->ntensor; t++)
        if (r->p->tensor[t].storage == FG_ST_ONCE &&
            __builtin_add_overflow(bytes, aligned(r->value[r->p->tensor[t].bytes]),
                                   &bytes))
            return INT64_MAX;
    return bytes;
}

static int
reserve(fg_once *o, int64_t bytes)
{
    pthread_mutex_lock(&o->lock);
    if (!o->raw && (uint64_t)bytes < SIZE_MAX / 2 &&
        (o->raw = o->alloc(o->user, (size_t)bytes + FG_ALIGN))) {
        o->p = (void *)(((uintptr_t)o->raw + FG_ALIGN - 1) & -(uintptr_t)FG_ALIGN);
        fg_large_pages(o->p, bytes);
    }
    pthread_mutex_unlock(&o->lock);
    return o->raw != NULL;
}

forge_status
fg_once_place(forge_run *r)
{
    int64_t at = 0, bytes = r->p->once ? total(r) : 0;

    if (!bytes)
        return FORGE_OK;
    if (!reserve(&r->model->once, bytes))
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY,
                       "out of memory: %lld bytes for packed weights", (long long)bytes);
    for (uint32_t t = 0; t < r->p->ntensor; t++)
        if (r->p->tensor[t].storage == FG_ST_ONCE) {
            r->addr[t] = (char *)r->model->once.p + at;
            at += aligned(r->value[r->p->tensor[t].bytes]);
        }
    return FORGE_OK;
}

/* Whole pages only: the others hold parts of neighbours. */
static void
give_back(const forge_run *r, uint32_t t)
{
    const fg_tensordef *x = &r->p->tensor[t];
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)x->data;
    uintptr_t to = from + (uintptr_t)r->value[x->bytes];

    from = (from + page - 1) & -page;
    to &= -page;
    if (x->mapped && from < to)
        madvise((void *)from, to - from, MADV_DONTNEED);
}

static forge_status
make(forge_run *r, const fg_step *s)
{
    int64_t chunks = r->value[fg_form_of(r, s)->chunks];
    int64_t bytes = r->value[r->p->tensor[s->buf[s->nbuf - 1]].bytes];
    int64_t bands = bytes / BAND < 1 ? 1 : bytes / BAND;
    int64_t each = chunks / bands < 1 ? 1 : chunks / bands;

    for (int64_t at = 0; at < chunks; at += each) {
        int64_t end = chunks - at < each ? chunks : at + each;
        forge_status e = fg_kernel_run(r, s, at, end);
        if (e)
            return e;
        for (uint32_t k = 0; k + 1 < s->nbuf; k++)
            give_back(r, s->buf[k]);
    }
    return FORGE_OK;
}

forge_status
fg_once_run(forge_run *r)
{
    fg_once *o = &r->model->once;
    forge_status e = FORGE_OK;

    if (!r->p->once || atomic_load_explicit(&o->made, memory_order_acquire))
        return FORGE_OK;
    const fg_blockdef *b = &r->p->block[r->p->once];
    pthread_mutex_lock(&o->lock);
    if (!atomic_load_explicit(&o->made, memory_order_relaxed)) {
        for (uint32_t i = b->first; !e && i < b->first + b->count; i++) {
            int64_t start = r->hook ? fg_now_ns() : 0;
            if (!(e = make(r, &r->p->step[i])) && r->hook)
                r->hook(r->hook_user, i, fg_now_ns() - start);
        }
        if (!e)
            atomic_store_explicit(&o->made, 1, memory_order_release);
    }
    pthread_mutex_unlock(&o->lock);
    return e;
}
