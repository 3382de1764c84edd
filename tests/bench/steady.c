/* steady.c - how even the runs of a compiled model are, alone and beside a busy process, and
 * what it takes while nothing runs.
 *
 *     bench-steady gpt2-kv.forge 128 2 1000 200 10
 *     {"runs": 1000, "p50_ms": 12.61, "p99_ms": 12.93, "spread": 1.025, "ms": 12.64,
 *      "waited_ms": 0.02, "cpu_ms": 25.2, "machine_spread": 1.021, "busy_runs": 200, ..,
 *      "excess_ms": -0.21, "idle_cpu": 0.0001}
 *
 * Spread is p99 / p50. The machine's is that of threads which only read memory for as long as
 * a run takes: what it shows beyond 1 no program can be without. Waited is how long threads
 * of this process were ready and had no CPU, all together, a run: the time that others took
 * from it. Beside a busy process a run is to take no longer than alone and its threads'
 * mean wait; excess is what it takes beyond. Idle is CPU time by time, all threads there.
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/host.h"

enum { MOST = 100000, WARM_UP = 20 };

/* Of all threads, ms; what the kernel does not tell is 0. */
static double
waited_ms(void)
{
    DIR *d = opendir("/proc/self/task");
    double ms = 0;

    for (struct dirent *e; d && (e = readdir(d));) {
        char path[300];
        unsigned long long ran, waited;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", e->d_name);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%llu %llu", &ran, &waited) == 2)
            ms += (double)waited * 1e-6;
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return ms;
}

static double
cpu_ms(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-3;
}

/* ---- a series of runs ------------------------------------------------------------------ */

typedef struct series {
    double *time; /* ms, by size */
    double mean, waited, cpu;
} series;

static forge_status
repeat(host *h, int runs, series *x)
{
    forge_status s = FORGE_OK;

    x->time = calloc((size_t)runs + 1, sizeof *x->time);
    x->waited = waited_ms();
    x->cpu = cpu_ms();
    for (int k = 0; !s && k < runs; k++) {
        double start = host_now_ms();
        s = host_run(h);
        x->time[k] = host_now_ms() - start;
        x->mean += x->time[k] / runs;
    }
    x->waited = (waited_ms() - x->waited) / runs;
    x->cpu = (cpu_ms() - x->cpu) / runs;
    return s;
}

static void
tell(const char *prefix, series *x, int runs)
{
    double p50 = host_percentile(x->time, runs, 50);
    double p99 = host_percentile(x->time, runs, 99);

    printf("\"%sruns\": %d, \"%sp50_ms\": %.3f, \"%sp99_ms\": %.3f, \"%sspread\": %.3f, "
           "\"%sms\": %.3f, \"%swaited_ms\": %.3f, \"%scpu_ms\": %.3f",
           prefix, runs, prefix, p50, prefix, p99, prefix, p99 / p50, prefix, x->mean,
           prefix, x->waited, prefix, x->cpu);
    free(x->time);
}

/* ---- the machine itself --------------------------------------------------------------- */

enum { BYTES = 64 << 20, BLOCK = 1 << 16 };

typedef struct reader {
    pthread_t thread;
    pthread_barrier_t *gate;
    const uint64_t *data;
    size_t blocks; /* of each round */
    int rounds;
    volatile uint64_t sink;
} reader;

static void
read_blocks(reader *r)
{
    for (size_t k = 0; k < r->blocks; k++) {
        const uint64_t *p = r->data + k % (BYTES / BLOCK) * (BLOCK / sizeof *p);
        uint64_t a = 0, b = 0, c = 0, d = 0;
        for (size_t j = 0; j < BLOCK / sizeof *p; j += 4) {
            a |= p[j];
            b |= p[j + 1];
            c |= p[j + 2];
            d |= p[j + 3];
        }
        r->sink = a | b | c | d;
    }
}

static void *
reader_main(void *arg)
{
    reader *r = arg;

    for (int k = 0; k < r->rounds; k++) {
        pthread_barrier_wait(r->gate);
        read_blocks(r);
        pthread_barrier_wait(r->gate);
    }
    return NULL;
}

/* p99 / p50 of `runs` rounds in which each of `threads` reads for about `ms`; 0: no memory. */
static double
machine_spread(int threads, int runs, double ms)
{
    reader *r = calloc((size_t)threads, sizeof *r);
    uint64_t *data = malloc(BYTES);
    double *time = calloc((size_t)runs, sizeof *time), spread = 0;
    pthread_barrier_t gate;
    bool ok = r && data && time && !pthread_barrier_init(&gate, NULL, (unsigned)threads);

    if (ok) {
        memset(data, 1, BYTES);
        r[0] = (reader){.data = data, .blocks = BYTES / BLOCK};
        double start = host_now_ms();
        read_blocks(&r[0]);
        size_t blocks = (size_t)(BYTES / BLOCK * ms / (host_now_ms() - start)) + 1;
        for (int i = 0; i < threads; i++)
            r[i] =
                (reader){.gate = &gate, .data = data, .blocks = blocks, .rounds = runs};
        for (int i = 1; i < threads && ok; i++)
            ok = !pthread_create(&r[i].thread, NULL, reader_main, &r[i]);
        if (!ok)
            exit(1); /* the others wait for ever */
        for (int k = 0; k < runs; k++) {
            pthread_barrier_wait(&gate);
            start = host_now_ms();
            read_blocks(&r[0]);
            pthread_barrier_wait(&gate);
            time[k] = host_now_ms() - start;
        }
        for (int i = 1; i < threads; i++)
            pthread_join(r[i].thread, NULL);
        spread = host_percentile(time, runs, 99) / host_percentile(time, runs, 50);
    }
    free(r);
    free(data);
    free(time);
    return spread;
}

/* ---- measuring ------------------------------------------------------------------------ */

/* The same again while a process of its own computes. */
static forge_status
beside(host *h, int runs, series *x)
{
    pid_t other = fork();

    if (!other)
        for (volatile unsigned long n = 0;; n++)
            continue;
    sleep(1);
    forge_status s = repeat(h, runs, x);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    return s;
}

int
main(int argc, char **argv)
{
    int runs = argc > 4 ? atoi(argv[4]) : 0, busy = argc > 5 ? atoi(argv[5]) : 0;
    double idle = argc > 6 ? atof(argv[6]) : 0;

    if (argc < 5 || argc > 7 || atoll(argv[2]) < 1 || atoi(argv[3]) < 1 || runs < 1 ||
        runs > MOST || busy < 0 || busy > MOST) {
        fprintf(stderr,
                "usage: bench-steady FILE.forge LENGTH THREADS RUNS [RUNS-BESIDE-A-"
                "BUSY-PROCESS [IDLE-SECONDS]]\n");
        return 2;
    }
    static host h;
    series alone = {0}, other = {0};
    forge_status s = host_open(&h, argv[1], atoll(argv[2]), atoi(argv[3]));
    if (!s)
        s = host_bind(&h);
    for (int k = 0; !s && k < WARM_UP; k++)
        s = host_run(&h);
    if (!s)
        s = repeat(&h, runs, &alone);
    if (!s && busy)
        s = beside(&h, busy, &other);
    if (s) {
        fprintf(stderr, "%s\n", forge_message(h.cx));
        return 1;
    }
    int threads = atoi(argv[3]);
    double p50 = host_percentile(alone.time, runs, 50);
    putchar('{');
    tell("", &alone, runs);
    printf(", \"machine_spread\": %.3f", machine_spread(threads, runs, p50));
    if (busy) {
        printf(", ");
        tell("busy_", &other, busy);
        printf(", \"excess_ms\": %.3f", other.mean - alone.mean - other.waited / threads);
    }
    if (idle > 0) {
        double cpu = cpu_ms(), start = host_now_ms();
        usleep((useconds_t)(idle * 1e6));
        printf(", \"idle_cpu\": %.5f", (cpu_ms() - cpu) / (host_now_ms() - start));
    }
    puts("}");
    host_close(&h);
    return 0;
}
