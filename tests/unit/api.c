/* api.c - the public header alone: the example of forge.h, and memory that runs out at
 * any point. Prints `N passed, N failed`.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/forge.h"
#include "tests/unit/expect.h"
#include "tests/unit/text_model.h"

/* An allocator that fails after `left` allocations, and counts what is not given back. */
typedef struct host {
    long left, live;
} host;

static void *
host_alloc(void *user, size_t n)
{
    host *h = user;

    if (h->left-- <= 0)
        return NULL;
    h->live++;
    return malloc(n);
}

static void
host_release(void *user, void *p)
{
    host *h = user;

    h->live -= p != NULL;
    free(p);
}

static const char *const inputs[] = {"input_ids", "attention_mask", "token_type_ids"};

/* Opens, compiles, runs and closes; how it ended. *sum grows by squares of the output. */
static forge_status
whole(const char *path, host *h, double *sum)
{
    forge_config c = {sizeof c, host_alloc, host_release, h};
    forge_ctx *cx = NULL;
    forge_model *m = NULL;
    forge_run *r = NULL;
    int64_t ids[9], dims[] = {1, 9};
    forge_status s = forge_open(&c, &cx);

    for (int i = 0; i < 9; i++)
        ids[i] = 1;
    if (!s)
        s = forge_compile_file(cx, path, NULL, &m);
    if (!s)
        s = forge_run_new(cx, m, &r);
    if (!s)
        s = forge_run_threads(r, 2);
    for (int i = 0; !s && i < 3; i++)
        s = forge_bind_input(r, inputs[i], FORGE_I64, 2, dims, ids);
    if (!s)
        s = forge_execute(r);
    if (!s) {
        const float *out = forge_output(r, "last_hidden_state", NULL, NULL, NULL);
        for (int i = 0; i < 32; i++)
            *sum += out[i] * out[i];
    }
    expect(!s || s == FORGE_OUT_OF_MEMORY, "status", cx ? forge_message(cx) : "");
    expect(!s || !cx || *forge_message(cx), "a failure has a message",
           forge_status_text(s));
    forge_run_free(r);
    forge_model_free(m);
    forge_close(cx);
    return s;
}

static int jobs; /* of the host's threads */

static void
one_by_one(void *user, int n, void (*work)(void *, int), void *arg)
{
    (void)user;
    jobs++;
    for (int i = 0; i < n; i++)
        work(arg, i);
}

/* The host's threads serve until it asks for the run's own, however many. */
static void
test_threads(const char *path)
{
    int64_t ids[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, dims[] = {1, 9};
    forge_ctx *cx;
    forge_model *m;
    forge_run *r;

    expect(!forge_open(NULL, &cx) && !forge_compile_file(cx, path, NULL, &m) &&
               !forge_run_new(cx, m, &r),
           "a run", "");
    for (int i = 0; i < 3; i++)
        forge_bind_input(r, inputs[i], FORGE_I64, 2, dims, ids);
    expect(!forge_run_parallel(r, 2, one_by_one, NULL) && !forge_execute(r) && jobs > 0,
           "the host's threads", forge_message(cx));
    jobs = 0;
    expect(!forge_run_threads(r, 2) && !forge_execute(r) && jobs == 0,
           "as many of the run's own", forge_message(cx));
    forge_run_free(r);
    forge_model_free(m);
    forge_close(cx);
}

typedef struct seen {
    int kernels, once, odd;
    int64_t last;
    double flops;
} seen;

static void
see(void *user, const forge_kernel *k)
{
    seen *s = user;

    s->kernels++;
    s->once += k->once;
    s->flops += k->flops > 0 ? k->flops : 0;
    s->odd += k->size < sizeof *k || !*k->name || !k->nodes || k->end < k->begin ||
              k->begin < s->last || k->threads < 1 || k->threads > 2;
    s->last = k->end;
}

/* Every kernel is told, in order; those made once only in the first run. */
static void
test_watch(const char *path)
{
    int64_t ids[9] = {0}, dims[] = {1, 9};
    forge_ctx *cx;
    forge_model *m;
    forge_run *r;
    seen first = {0}, second = {0}, none = {0};

    expect(!forge_open(NULL, &cx) && !forge_compile_file(cx, path, NULL, &m) &&
               !forge_run_new(cx, m, &r) && !forge_run_threads(r, 2),
           "a run", "");
    for (int i = 0; i < 3; i++)
        forge_bind_input(r, inputs[i], FORGE_I64, 2, dims, ids);
    expect(!forge_run_watch(r, see, &first) && !forge_execute(r), "watched", "");
    expect(!forge_run_watch(r, see, &second) && !forge_execute(r), "and again", "");
    expect(!forge_run_watch(r, NULL, &none) && !forge_execute(r), "and no more", "");
    expect(first.kernels > 5 && !first.odd && first.flops > 1000,
           "what the first run did", "");
    expect(second.kernels == first.kernels - first.once && !second.once && !second.odd,
           "what is made once is not made again", "");
    expect(!none.kernels, "nobody is told any more", "");
    forge_run_free(r);
    forge_model_free(m);
    forge_close(cx);
}

static void
test_questions(const char *path)
{
    forge_ctx *cx;
    forge_model *m;
    forge_dtype t;
    int rank;
    const char *name;

    expect(forge_open(NULL, &cx) == FORGE_OK, "open", "");
    expect(forge_compile_file(cx, "/nowhere.onnx", NULL, &m) == FORGE_IO, "no file",
           forge_message(cx));
    expect(forge_compile_file(cx, path, NULL, &m) == FORGE_OK, "compile",
           forge_message(cx));
    expect(forge_model_inputs(m) == 3 && forge_model_outputs(m) == 2, "ports", "");
    expect(!strcmp(forge_model_input(m, 0, &t, &rank), inputs[0]) && t == FORGE_I64 &&
               rank == 2,
           "first input", "");
    expect(forge_model_input_dim(m, 0, 1, &name) == -1 && !strcmp(name, "sequence"),
           "dim", name);
    expect(!forge_model_input(m, 3, NULL, NULL), "no fourth input", "");
    expect(strstr(forge_model_report(m), "\"attention\"") != NULL, "report", "");
    forge_model_free(m);
    forge_close(cx);
    const forge_config odd = {.size = sizeof odd, .code_names = "perf,pref"};
    expect(forge_open(&odd, &cx) == FORGE_USAGE, "nobody is called that", "");
    forge_model_free(NULL);
    forge_run_free(NULL);
    forge_close(NULL);
}

/* A budget is of what has its size found while running, nothing else. */
static void
test_budget(void)
{
    static const char text[] = "sym S in 1..\nsym n run in 0..\n"
                               "func @main(%x: f32[S]) -> f32[S,4096], f32[n] {\n"
                               "  %r = reshape %x : f32[S,1]\n"
                               "  %y = expand %r : f32[S,4096]\n"
                               "  %c = nonzero_count %x : i64[]\n"
                               "  readsym %c {sym=n}\n"
                               "  %at = nonzero %x : i64[1,n]\n"
                               "  %flat = reshape %at : i64[n]\n"
                               "  %z = gather %x, %flat {axis=0} : f32[n]\n"
                               "  ret %y, %z\n}\n";
    enum { SMALL = 8, LARGE = 4096 };
    static float x[LARGE];
    forge_ctx *cx;
    forge_model *m = NULL;
    forge_run *r = NULL;
    long allocs = 0;

    for (int k = 0; k < LARGE; k++)
        x[k] = 1;
    open_counted(&allocs, &cx);
    expect(!compile_text(cx, text, &m) && !forge_run_new(cx, m, &r), "budget",
           forge_message(cx));
    expect(!forge_run_memory(r, 1024), "a budget of 1 KiB", "");
    forge_bind_input(r, "x", FORGE_F32, 1, (int64_t[]){SMALL}, x);
    expect(!forge_execute(r), "32 bytes found, 128 KiB known", forge_message(cx));
    forge_bind_input(r, "x", FORGE_F32, 1, (int64_t[]){LARGE}, x);
    expect(forge_execute(r) == FORGE_INVALID && strstr(forge_message(cx), "budget"),
           "16 KiB found", forge_message(cx));
    expect(!forge_run_memory(r, 1 << 20) && !forge_execute(r), "a budget of 1 MiB",
           forge_message(cx));
    forge_run_free(r);
    forge_model_free(m);
    forge_close(cx);
}

int
main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "tests/models/bert-ts17/model.onnx";
    double sum = 0;
    host h = {1 << 30, 0};

    test_questions(path);
    test_threads(path);
    test_watch(path);
    test_budget();
    expect(whole(path, &h, &sum) == FORGE_OK && sum > 0, "the example runs", "");
    expect(h.live == 0, "everything is given back", "");
    long needed = (1 << 30) - h.left;
    for (long n = 0; n < needed; n += 1 + needed / 25) {
        h = (host){n, 0};
        expect(whole(path, &h, &sum) == FORGE_OUT_OF_MEMORY, "memory runs out", "");
        expect(h.live == 0, "everything is given back after a failure", "");
    }
    return verdict();
}
