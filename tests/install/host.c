/* host.c - a host program as C or C++, linked or through dlopen: several threads over one
 * model, runs in the background, the host's own threads. Needs the installed package only.
 *
 *     host MODEL.forge THREADS RUNS [LIBRARY]
 *
 * With LIBRARY the functions come from there by dlsym. Prints ok and the sum of the first output's
 * bits, or what went wrong.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <forge.h>

/* clang-format off */
#define CALLS(X)                                                                          \
    X(forge_open) X(forge_close) X(forge_message) X(forge_load_file) X(forge_model_free)  \
    X(forge_model_inputs) X(forge_model_input) X(forge_model_input_dim)                   \
    X(forge_model_output) X(forge_run_new) X(forge_run_free) X(forge_run_threads)         \
    X(forge_run_parallel) X(forge_bind_input) X(forge_execute) X(forge_execute_async)     \
    X(forge_wait) X(forge_output)
/* clang-format on */

#define X(f) typedef __typeof__(f) f##_call;
CALLS(X)
#undef X
static struct {
#define X(f) f##_call *f;
    CALLS(X)
#undef X
} api;

static int
fill_api(const char *library)
{
#ifdef LINKED
    (void)library;
#define X(f) api.f = f;
    CALLS(X)
#undef X
    return 0;
#else
    void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        printf("%s\n", dlerror());
        return 1;
    }
#define X(f)                                                                             \
    {                                                                                    \
        void *at = dlsym(lib, #f);                                                       \
        memcpy(&api.f, &at, sizeof at);                                                  \
        if (!at)                                                                         \
            return 1;                                                                    \
    }
    CALLS(X)
#undef X
    return 0;
#endif
}

static int64_t ones[1 << 16];

typedef struct job {
    const forge_model *m;
    int index, runs;
    uint32_t sum;
    int finished; /* callbacks seen */
    char error[200];
} job;

static void
finished(void *user, forge_status s, const char *message)
{
    job *j = (job *)user;

    j->finished++;
    if (s)
        snprintf(j->error, sizeof j->error, "in the background: %s", message);
}

/* A host without threads to spare: one share after another, the last first. */
static void
one_by_one(void *host, int n, void (*work)(void *arg, int i), void *arg)
{
    (void)host;
    while (n--)
        work(arg, n);
}

static forge_status
bind_all(forge_run *r, const forge_model *m)
{
    forge_status s = FORGE_OK;

    for (int i = 0; !s && i < api.forge_model_inputs(m); i++) {
        forge_dtype type;
        int rank;
        int64_t dims[16];
        const char *name = api.forge_model_input(m, i, &type, &rank);
        for (int k = 0; k < rank; k++)
            if ((dims[k] = api.forge_model_input_dim(m, i, k, NULL)) < 0)
                dims[k] = 4;
        s = api.forge_bind_input(r, name, type, rank, dims, ones);
    }
    return s;
}

static uint32_t
sum_of(const forge_run *r, const forge_model *m)
{
    const int64_t *dims;
    int rank;
    int64_t n = 1;
    uint32_t sum = 0;
    const char *name = api.forge_model_output(m, 0, NULL, NULL);
    const uint32_t *x = (const uint32_t *)api.forge_output(r, name, NULL, &rank, &dims);

    for (int k = 0; k < rank; k++)
        n *= dims[k];
    for (int64_t i = 0; i < n; i++)
        sum = sum * 31 + x[i];
    return sum;
}

static void *
run_many(void *arg)
{
    job *j = (job *)arg;
    forge_ctx *cx = NULL;
    forge_run *r = NULL;
    forge_status s = api.forge_open(NULL, &cx);

    if (!s)
        s = api.forge_run_new(cx, j->m, &r);
    if (!s)
        s = j->index % 3 == 1 ? api.forge_run_parallel(r, 3, one_by_one, NULL)
                              : api.forge_run_threads(r, 1 + j->index % 2);
    if (!s)
        s = bind_all(r, j->m);
    for (int k = 0; !s && k < j->runs; k++) {
        if (j->index % 2) {
            s = api.forge_execute_async(r, finished, j);
            if (!s)
                s = api.forge_wait(r);
        } else {
            s = api.forge_execute(r);
        }
        uint32_t sum = s ? 0 : sum_of(r, j->m);
        if (!s && k && sum != j->sum)
            snprintf(j->error, sizeof j->error, "run %d gives other bits", k);
        j->sum = sum;
    }
    if (s)
        snprintf(j->error, sizeof j->error, "%s",
                 cx ? api.forge_message(cx) : "no context");
    if (j->index % 2 && j->finished != j->runs)
        snprintf(j->error, sizeof j->error, "%d callbacks", j->finished);
    api.forge_run_free(r);
    api.forge_close(cx);
    return NULL;
}

int
main(int argc, char **argv)
{
    enum { MOST = 16 };
    job jobs[MOST];
    pthread_t thread[MOST];
    forge_ctx *cx;
    forge_model *m;
    int n = argc > 2 ? atoi(argv[2]) : 1, bad = 0;

    if (argc < 4 || n > MOST || fill_api(argc > 4 ? argv[4] : NULL))
        return 2;
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        ones[i] = 1;
    if (api.forge_open(NULL, &cx) || api.forge_load_file(cx, argv[1], NULL, &m)) {
        printf("%s\n", api.forge_message(cx));
        return 1;
    }
    api.forge_close(cx); /* the model lives on */
    memset(jobs, 0, sizeof jobs);
    for (int i = 0; i < n; i++) {
        jobs[i].m = m;
        jobs[i].index = i;
        jobs[i].runs = atoi(argv[3]);
        pthread_create(&thread[i], NULL, run_many, &jobs[i]);
    }
    for (int i = 0; i < n; i++) {
        pthread_join(thread[i], NULL);
        if (!*jobs[i].error && jobs[i].sum != jobs[0].sum)
            snprintf(jobs[i].error, sizeof jobs[i].error, "other bits than thread 0");
        if (*jobs[i].error)
            printf("thread %d: %s\n", i, jobs[i].error);
        bad += *jobs[i].error != 0;
    }
    api.forge_model_free(m);
    if (!bad)
        printf("ok %08x\n", jobs[0].sum);
    return bad != 0;
}
