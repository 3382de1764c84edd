/* host.c - opening, binding and running for the programs of this folder. */
#include "tests/bench/host.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double
host_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

forge_status
host_open(host *h, const char *path, int64_t length, int threads)
{
    forge_status s = forge_open(NULL, &h->cx);

    h->length = length;
    if (!s)
        s = forge_load_file(h->cx, path, NULL, &h->m);
    if (!s)
        s = forge_run_new(h->cx, h->m, &h->r);
    if (!s)
        s = forge_run_threads(h->r, threads);
    if (!s && forge_model_states(h->m)) {
        s = forge_state_new(h->cx, h->m, 1, length + 1, 0, &h->s);
        if (!s)
            s = forge_run_attach(h->r, h->s);
    }
    return s;
}

static bool
is_past(const host *h, const char *name)
{
    for (int i = 0; i < forge_model_states(h->m); i++)
        if (!strcmp(forge_model_state(h->m, i, NULL), name))
            return true;
    return false;
}

/* One input: integers are 1, so that masks let everything pass; all else is 0. */
static forge_status
bind_input(host *h, int i, int64_t open)
{
    forge_dtype type;
    int rank;
    int64_t dims[16], count = 1;
    const char *name = forge_model_input(h->m, i, &type, &rank);

    for (int k = 0; k < rank; k++) {
        dims[k] = forge_model_input_dim(h->m, i, k, NULL);
        if (dims[k] < 0)
            dims[k] = k ? open : 1;
        count *= dims[k];
    }
    free(h->data[i]);
    h->data[i] = calloc((size_t)count + 1, sizeof **h->data);
    for (int64_t k = 0; type == FORGE_I64 && h->data[i] && k < count; k++)
        h->data[i][k] = 1;
    return forge_bind_input(h->r, name, type, rank, dims, h->data[i]);
}

/* `tokens` of them behind those that the caches hold: a mask covers both. */
static forge_status
bind(host *h, int64_t tokens)
{
    int64_t past = h->s ? forge_state_length(h->s) : 0;
    forge_status s = FORGE_OK;

    for (int i = 0; !s && i < forge_model_inputs(h->m) && i < HOST_INPUTS; i++) {
        const char *name = forge_model_input(h->m, i, NULL, NULL);
        if (!is_past(h, name))
            s = bind_input(h, i, strstr(name, "mask") ? past + tokens : tokens);
    }
    return s;
}

forge_status
host_bind(host *h)
{
    forge_status s = bind(h, h->length);

    if (!s && h->s && !(s = forge_execute(h->r)))
        s = bind(h, 1);
    return s;
}

forge_status
host_run(host *h)
{
    forge_status s = h->s ? forge_state_truncate(h->s, h->length) : FORGE_OK;

    return s ? s : forge_execute(h->r);
}

void
host_close(host *h)
{
    forge_run_free(h->r);
    forge_state_free(h->s);
    forge_model_free(h->m);
    forge_close(h->cx);
    for (int i = 0; i < HOST_INPUTS; i++)
        free(h->data[i]);
}

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double
host_percentile(double *v, int n, double p)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n ? v[(int)(p / 100 * (n - 1) + 0.5)] : 0;
}
