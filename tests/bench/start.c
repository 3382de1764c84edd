/* start.c - how soon a compiled model gives its first output, as a host sees it.
 *
 *     bench-start gpt2.forge 128 1 20
 *     {"open_ms": 0.6, "first_ms": 331.0, "run_ms": 302.5}
 *
 * From before the file is opened to the end of the first run, and the median of later ones,
 * with the runtime alone. Then it stays until its input ends, so that its memory can be
 * looked at. The first dimension of an input that is open is 1, others as given.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/forge.h"

enum { LONGEST = 1 << 16, MOST = 1000 };

static double
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static forge_status
bind(forge_model *m, forge_run *r, int64_t length)
{
    static int64_t ones[LONGEST];
    forge_status s = FORGE_OK;

    for (int k = 0; k < LONGEST; k++)
        ones[k] = 1;
    for (int i = 0, rank; !s && i < forge_model_inputs(m); i++) {
        forge_dtype type;
        int64_t dims[16];
        const char *name = forge_model_input(m, i, &type, &rank);
        for (int k = 0; k < rank; k++)
            if ((dims[k] = forge_model_input_dim(m, i, k, NULL)) < 0)
                dims[k] = k ? length : 1;
        s = forge_bind_input(r, name, type, rank, dims, ones);
    }
    return s;
}

int
main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: bench-start FILE.forge LENGTH THREADS RUNS\n");
        return 2;
    }
    int64_t length = atoll(argv[2]);
    int runs = atoi(argv[4]);
    double time[MOST], start = now_ms();
    forge_ctx *cx;
    forge_model *m;
    forge_run *r;

    if (length < 1 || length > LONGEST || runs < 1 || runs > MOST ||
        forge_open(NULL, &cx))
        return 2;
    forge_status s = forge_load_file(cx, argv[1], NULL, &m);
    double open = now_ms() - start;
    if (!s)
        s = forge_run_new(cx, m, &r);
    if (!s)
        s = forge_run_threads(r, atoi(argv[3]));
    if (!s)
        s = bind(m, r, length);
    if (!s)
        s = forge_execute(r);
    double first = now_ms() - start;
    for (int k = 0; !s && k < runs; k++) {
        time[k] = now_ms();
        s = forge_execute(r);
        time[k] = now_ms() - time[k];
    }
    if (s) {
        fprintf(stderr, "%s\n", forge_message(cx));
        return 1;
    }
    qsort(time, (size_t)runs, sizeof *time, by_size);
    printf("{\"open_ms\": %.3f, \"first_ms\": %.3f, \"run_ms\": %.3f}\n", open, first,
           time[runs / 2]);
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    forge_run_free(r);
    forge_model_free(m);
    forge_close(cx);
    return 0;
}
