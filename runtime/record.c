/* record.c - one run in a file: what went in, what each kernel made of it, what came out.
 *
 *     forge record 1
 *     report 2311              and as many bytes: how the model was compiled
 *     threads 2
 *     input 4 2 1 9 72 9 input_ids         dtype, rank, dims, bytes, length of the name; the bytes
 *     step 8c1f22d0936b1a57 matmul_add /h.0/attn/c_attn/Add
 *     output 0 3 1 9 128 4608 6 logits
 *     end 0                    how it ended: a forge_status
 *
 * Pasts and presents of an attached state are inputs and outputs. A step's digest is of all
 * it read and wrote, constants and states apart, so that the first that differs is where
 * two runs part.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/digest.h"
#include "runtime/state.h"

typedef struct recorder {
    forge_run *r;
    FILE *f;
    fg_stephook *hook; /* whose turn is next */
    void *user;
} recorder;

uint64_t
fg_step_digest(const forge_run *r, uint32_t step)
{
    const fg_step *s = &r->p->step[step];
    fg_digest d = fg_digest_of(NULL, 0);
    uint64_t word;

    for (uint32_t k = 0; k < s->nbuf; k++) {
        uint32_t t = s->buf[k] == FG_NONE ? 0 : r->root[s->buf[k]];
        int64_t bytes =
            s->buf[k] == FG_NONE ? 0 : r->value[r->p->tensor[s->buf[k]].bytes];
        uint8_t storage = r->p->tensor[t].storage;
        if (bytes > 0 && storage != FG_ST_CONST && storage != FG_ST_ONCE &&
            storage != FG_ST_STATE)
            d = fg_digest_join(d, r->addr[t], (size_t)bytes);
    }
    memcpy(&word, d.b, sizeof word);
    return word;
}

static void
on_step(void *user, uint32_t step, int64_t ns)
{
    recorder *x = user;
    const fg_step *s = &x->r->p->step[step];
    const fg_blockdef *once = &x->r->p->block[x->r->p->once];

    if (s->kind == FG_STEP_KERNEL &&
        !(x->r->p->once && step - once->first < once->count)) {
        fprintf(x->f, "step %016llx %s ", (unsigned long long)fg_step_digest(x->r, step),
                s->name);
        for (const char *c = s->nodes; *c; c++)
            fputc((unsigned char)*c < 0x20 ? '?' : *c, x->f);
        fputc('\n', x->f);
    }
    if (x->hook)
        x->hook(x->user, step, ns);
}

static void
put_tensor(FILE *f, const char *kind, const char *name, int dtype, int rank,
           const int64_t *dims, const void *data)
{
    int64_t count = 1;

    fprintf(f, "%s %d %d", kind, dtype, rank);
    for (int k = 0; k < rank; k++) {
        fprintf(f, " %lld", (long long)dims[k]);
        count *= dims[k];
    }
    int64_t bytes = fg_packed_bytes(dtype, count);
    fprintf(f, " %lld %zu %s\n", (long long)bytes, strlen(name), name);
    if (bytes > 0)
        fwrite(data, 1, (size_t)bytes, f);
    fputc('\n', f);
}

/* What state k holds; zeros for what a window has no longer, which nobody reads. */
static forge_status
put_cache(forge_run *r, FILE *f, const char *kind, const char *name, uint32_t k)
{
    const fg_statedef *d = &r->p->state[k];
    const fg_statebuf *b = &r->state->buf[k];
    int64_t n = d->axis < 0 ? 1 : b->dim[d->axis], all = n, dims[12];
    int dtype = r->p->tensor[r->p->input[d->input].tensor].dtype;
    int rank = r->p->tensor[r->p->input[d->input].tensor].rank;
    if (fg_is_window(d) && !fg_is_cut(r->p, d))
        all += b->gone;
    int64_t bytes = fg_state_bytes(r->p, d, b->dim, all);
    char *data = bytes < 0 ? NULL : r->cx->alloc(r->cx->user, (size_t)bytes + 1);

    if (!data)
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY, "out of memory");
    fg_rows rows = fg_rows_of(r->p, d, b->dim);
    memset(data, 0, (size_t)bytes);
    const char *last = (const char *)b->mem[b->now]->mem.p;
    if (fg_is_in_place(d))
        last += (b->rows - n) * rows.bytes;
    fg_copy_rows(rows, data + (all - n) * rows.bytes, all, last,
                 fg_is_in_place(d) ? b->room : n, n);
    memcpy(dims, b->dim, sizeof dims);
    if (d->axis >= 0)
        dims[d->axis] = all;
    put_tensor(f, kind, name, dtype, rank, dims, data);
    r->cx->release(r->cx->user, data);
    return FORGE_OK;
}

static forge_status
put_inputs(forge_run *r, FILE *f)
{
    for (uint32_t i = 0; i < r->p->ninput; i++) {
        const fg_portdef *port = &r->p->input[i];
        const fg_tensordef *t = &r->p->tensor[port->tensor];
        forge_status s;
        if (r->state && port->state != FG_NONE) {
            if ((s = put_cache(r, f, "input", port->name, port->state)))
                return s;
        } else if (r->in[i].bound) {
            put_tensor(f, "input", port->name, t->dtype, t->rank, r->in[i].dim,
                       r->in[i].data);
        }
    }
    return FORGE_OK;
}

static forge_status
put_run(forge_run *r, FILE *f)
{
    recorder x = {r, f, r->hook, r->hook_user};
    const char *report = r->model->report ? r->model->report : "{}";

    fprintf(f, "forge record 1\nreport %zu\n%s\nthreads %d\n", strlen(report), report,
            r->threads);
    forge_status s = r->threads ? FORGE_OK : forge_run_threads(r, 0);
    if (!s && r->state)
        s = fg_prepare(
            r); /* windows move before, so that their presents are what they were */
    if (s || (s = put_inputs(r, f)))
        return s;
    r->hook = on_step;
    r->hook_user = &x;
    s = forge_execute(r);
    r->hook = x.hook;
    r->hook_user = x.user;
    for (uint32_t i = 0; !s && i < r->p->noutput; i++) {
        forge_dtype t;
        int rank;
        const int64_t *dims;
        const fg_portdef *port = &r->p->output[i];
        const void *data = forge_output(r, port->name, &t, &rank, &dims);
        if (data)
            put_tensor(f, "output", port->name, (int)t, rank, dims, data);
        else if (r->state && port->state != FG_NONE)
            s = put_cache(r, f, "output", port->name, port->state);
    }
    fprintf(f, "end %d\n", (int)s);
    return s;
}

forge_status
fg_record_run(forge_run *r)
{
    char *path = r->record, temp[4096];
    struct stat there;
    FILE *f = NULL;

    r->record = NULL;
    if (!stat(path, &there) &&
        !S_ISREG(there.st_mode)) { /* no file takes a device's place */
        forge_status s = fg_fail(r->cx, FORGE_IO, "%.400s: is not a regular file", path);
        r->cx->release(r->cx->user, path);
        return s;
    }
    snprintf(temp, sizeof temp, "%.4000s.%ld.tmp", path, (long)getpid());
    if (!(f = fopen(temp, "wx")))
        fg_fail(r->cx, FORGE_IO, "%.400s: %s", path, strerror(errno));
    forge_status s = f ? put_run(r, f) : FORGE_IO;
    bool bad = f && (ferror(f) | fclose(f));
    if (f && (bad || rename(temp, path)) && !s)
        s = fg_fail(r->cx, FORGE_IO, "%.400s: %s", path, strerror(errno));
    if (f && (bad || s == FORGE_IO))
        unlink(temp);
    r->cx->release(r->cx->user, path);
    return s;
}

forge_status
forge_run_record(forge_run *r, const char *path)
{
    char *copy = NULL;

    if (path) {
        size_t n = strlen(path);
        if (n > 4000)
            return fg_fail(r->cx, FORGE_USAGE, "%.60s..: the name is too long", path);
        if (!(copy = r->cx->alloc(r->cx->user, n + 1)))
            return fg_fail(r->cx, FORGE_OUT_OF_MEMORY, "out of memory");
        memcpy(copy, path, n + 1);
    }
    if (r->record)
        r->cx->release(r->cx->user, r->record);
    r->record = copy;
    return FORGE_OK;
}
