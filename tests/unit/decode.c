/* decode.c - decoding allocates nothing: malloc itself is counted, whoever calls it.
 *
 *     test-decode                                tiny models, some hundred tokens each
 *     test-decode MODEL.onnx [TOKENS [SKIP [PRECISION]]]
 *                                                SKIP tokens at once between decoded ones
 *
 * The first run of a model may allocate, and so may the first step of one token; from then
 * on none does up to the state's capacity. With a model of one's own, a line for every
 * eighth of the way tells the median time of a token there and what it read: bytes of all
 * steps, and of the caches.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/rt.h"
#include "tests/unit/expect.h"

enum { TINY = 300, PARTS = 8, KEPT = 64 };

static atomic_long calls;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { COUNTS = 0 }; /* the sanitizer has malloc */
#else
enum { COUNTS = 1 };

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

FORGE_API void *
malloc(size_t n)
{
    atomic_fetch_add(&calls, 1);
    return __libc_malloc(n);
}

FORGE_API void *
calloc(size_t n, size_t each)
{
    atomic_fetch_add(&calls, 1);
    return __libc_calloc(n, each);
}

FORGE_API void *
realloc(void *p, size_t n)
{
    atomic_fetch_add(&calls, 1);
    return __libc_realloc(p, n);
}

FORGE_API void *
aligned_alloc(size_t align, size_t n)
{
    atomic_fetch_add(&calls, 1);
    return __libc_memalign(align, n);
}
#endif

typedef struct decoder {
    const char *path;
    forge_ctx *cx;
    forge_model *m;
    forge_run *r;
    forge_state *s;
    int64_t *ids, *ones, *position;
} decoder;

static double
now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Tokens [from, to); how long it took. */
static double
run(decoder *d, int64_t from, int64_t to)
{
    const int64_t now[] = {1, to - from}, all[] = {1, to};

    for (int i = 0; i < forge_model_inputs(d->m); i++) {
        const char *name = forge_model_input(d->m, i, NULL, NULL);
        bool mask = strstr(name, "mask") != NULL;
        const int64_t *data = mask                       ? d->ones
                              : strstr(name, "position") ? d->position + from
                                                         : d->ids + from;
        if (!strstr(name, "past"))
            forge_bind_input(d->r, name, FORGE_I64, 2, mask ? all : now, data);
    }
    double start = now_ms();
    expect(!forge_execute(d->r), d->path, forge_message(d->cx));
    return now_ms() - start;
}

static bool
open_decoder(decoder *d, const char *precision, int64_t tokens)
{
    forge_options o;

    forge_options_init(&o);
    o.precision = precision;
    if (!expect(!forge_open(NULL, &d->cx), d->path, "cannot be opened") ||
        !expect(!forge_compile_file(d->cx, d->path, &o, &d->m), d->path,
                forge_message(d->cx)) ||
        !expect(!forge_run_new(d->cx, d->m, &d->r) &&
                    !forge_state_new(d->cx, d->m, 1, tokens, tokens, &d->s) &&
                    !forge_run_attach(d->r, d->s),
                d->path, forge_message(d->cx)))
        return false;
    d->ids = calloc((size_t)tokens, sizeof *d->ids);
    d->ones = calloc((size_t)tokens, sizeof *d->ones);
    d->position = calloc((size_t)tokens, sizeof *d->position);
    for (int64_t k = 0; k < tokens; k++) {
        d->ids[k] = 3 + k * 7 % 50;
        d->ones[k] = 1;
        d->position[k] = k;
    }
    return true;
}

static void
close_decoder(decoder *d)
{
    forge_run_free(d->r);
    forge_state_free(d->s);
    forge_model_free(d->m);
    forge_close(d->cx);
    free(d->ids);
    free(d->ones);
    free(d->position);
}

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* By the steps of the last run. */
static int64_t
bytes_moved(const forge_run *r)
{
    const fg_blockdef *b = &r->p->block[0];
    int64_t bytes = 0;

    for (uint32_t k = b->first; k < b->first + b->count; k++)
        bytes += fg_val(r, r->p->step[k].bytes);
    return bytes;
}

static void
tell(const decoder *d, int64_t at, int64_t bytes, double *ms, int n)
{
    int64_t caches = 0;

    for (uint32_t k = 0; k < d->s->p->nstate; k++) {
        const fg_tensordef *x =
            &d->s->p->tensor[d->s->p->input[d->s->p->state[k].input].tensor];
        int64_t count = 1;
        for (int a = 0; a < x->rank; a++)
            count *= d->s->buf[k].dim[a];
        caches += fg_packed_bytes(x->dtype, count);
    }
    qsort(ms, (size_t)n, sizeof *ms, by_value);
    printf("%6lld tokens  %9.3f ms a token  %10.1f MB moved  %8.1f MB of caches\n",
           (long long)at, ms[n / 2], (double)bytes * 1e-6, (double)caches * 1e-6);
    fflush(stdout);
}

/* With skip > 1 there are skip tokens at once, then KEPT / 4 single ones, and so on. */
static void
decode(const char *path, const char *precision, int64_t tokens, int64_t skip, bool loud)
{
    decoder d = {.path = path};
    double ms[KEPT];
    int64_t part = tokens / PARTS, next = part, moved = 0;
    int n = 0;

    if (!open_decoder(&d, precision, tokens))
        return;
    expect(!COUNTS || atomic_load(&calls) > 100, path, "malloc is not counted");
    run(&d, 0, skip);
    run(&d, skip, skip + 1);
    long before = atomic_load(&calls);
    for (int64_t t = skip + 1; t < tokens && !failed; t++) {
        ms[n++ % KEPT] = run(&d, t, t + 1);
        moved = bytes_moved(d.r);
        if (skip > 1 && n % (KEPT / 4) == 0 && t + 1 + skip < tokens) {
            run(&d, t + 1, t + 1 + skip);
            t += skip;
        }
        if (t + 1 < next && t + 1 < tokens)
            continue;
        long after = atomic_load(&calls);
        expect(after == before, path, "a step allocated");
        if (loud)
            tell(&d, t + 1, moved, ms, n < KEPT ? n : KEPT);
        before = atomic_load(&calls);
        next = t + 1 + part;
        n = 0;
    }
    expect(forge_state_length(d.s) == tokens, path, "not all tokens were decoded");
    close_decoder(&d);
}

int
main(int argc, char **argv)
{
    static const char *const all[] = {"gpt2-kv-ts17",    "lfm2-kv-ts17",
                                      "llama-genai-gqa", "llama-optimum-kv",
                                      "llama32-kv-ts17", "qwen2-kv-dy18"};

    for (size_t k = 0; argc == 1 && k < sizeof all / sizeof *all; k++) {
        char path[100];
        snprintf(path, sizeof path, "tests/models/%s/model.onnx", all[k]);
        decode(path, NULL, strstr(path, "gpt2") ? 60 : TINY, 1, false);
        decode(path, NULL, strstr(path, "gpt2") ? 60 : TINY, 9, false);
    }
    if (argc > 1)
        decode(argv[1], argc > 4 ? argv[4] : NULL, argc > 2 ? atoll(argv[2]) : TINY,
               argc > 3 ? atoll(argv[3]) : 1, true);
    return verdict();
}
