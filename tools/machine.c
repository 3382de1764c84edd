/* machine.c - what this machine is and can do: names from the system, peaks by
 * measurement.
 *
 * Peaks are measured where they are used, because clock and memory of a shared machine
 * change by the minute: a percentage only means something against the same minute's peak.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tools/tool.h"

double
tool_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

int
tool_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);

    return n < 1 ? 1 : n;
}

/* ---- names ------------------------------------------------------------------------- */

/* The first line of /proc/cpuinfo that begins with key, after its colon. */
static bool
cpuinfo(const char *key, char *buf, size_t n)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[8192];
    bool found = false;

    while (f && !found && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) || !colon)
            continue;
        colon += 1 + strspn(colon + 1, " ");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(buf, n, "%s", colon);
        found = true;
    }
    if (f)
        fclose(f);
    return found;
}

const char *
tool_cpu_model(char *buf, size_t n)
{
    if (!cpuinfo("model name", buf, n) && !cpuinfo("Processor", buf, n))
        snprintf(buf, n, "unknown");
    return buf;
}

/* The ones that decide which code is generated. */
const char *
tool_cpu_features(char *buf, size_t n)
{
    static const char *const wanted[] = {
        "sse4_2",   "avx",      "avx2",        "fma",         "f16c",        "avx512f",
        "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni",
        "amx_tile", "amx_bf16", "amx_int8",    "asimd",       "asimdhp",     "asimddp",
        "bf16",     "i8mm",     "sve"};
    char flags[8192] = " ";
    size_t at = 0;

    buf[0] = '\0';
    if (!cpuinfo("flags", flags + 1, sizeof flags - 2) &&
        !cpuinfo("Features", flags + 1, sizeof flags - 2))
        return buf;
    strcat(flags, " ");
    for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) {
        char key[32];
        snprintf(key, sizeof key, " %s ", wanted[k]);
        if (strstr(flags, key) && at + strlen(key) < n)
            at += (size_t)snprintf(buf + at, n - at, "%s%s", at ? " " : "", wanted[k]);
    }
    return buf;
}

/* ---- peaks ---------------------------------------------------------------------------- */

#define CHAINS 12 /* independent: more than latency times issue width needs */
#define FMA_ROUNDS 20000
#define READ_BYTES ((size_t)96 << 20) /* per measurement, well past any cache */

/* The same two loops for each width; the widest that the processor has is called. The
 * empty assembly keeps the compiler from folding the chains; multiply and add contract
 * to one FMA. */
#define LOOPS(name, width, attributes)                                                   \
    typedef float name##_f __attribute__((vector_size(width), aligned(4)));              \
    typedef uint64_t name##_i __attribute__((vector_size(width), aligned(8)));           \
    attributes static double fma_##name(float seed)                                      \
    {                                                                                    \
        name##_f acc[CHAINS], a, b;                                                      \
        for (int k = 0; k < CHAINS; k++)                                                 \
            acc[k] = (name##_f){0} + seed;                                               \
        a = (name##_f){0} + (seed + 0.999f);                                             \
        b = (name##_f){0} + seed;                                                        \
        for (int n = 0; n < FMA_ROUNDS; n++) {                                           \
            _Pragma("GCC unroll 12") for (int k = 0; k < CHAINS; k++) acc[k] =           \
                acc[k] * a + b;                                                          \
            __asm__ volatile("");                                                        \
        }                                                                                \
        for (int k = 1; k < CHAINS; k++)                                                 \
            acc[0] += acc[k];                                                            \
        return acc[0][0];                                                                \
    }                                                                                    \
    attributes static uint64_t read_##name(const char *p, size_t bytes)                  \
    {                                                                                    \
        name##_i s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                 \
        const name##_i *v = (const name##_i *)p, *end = v + bytes / (width);             \
        for (; v + 4 <= end; v += 4) {                                                   \
            s0 |= v[0];                                                                  \
            s1 |= v[1];                                                                  \
            s2 |= v[2];                                                                  \
            s3 |= v[3];                                                                  \
        }                                                                                \
        s0 |= s1 | s2 | s3;                                                              \
        return s0[0];                                                                    \
    }

LOOPS(base, 16, )
#if defined(__x86_64__)
LOOPS(avx2, 32, __attribute__((target("avx2,fma"))))
LOOPS(avx512, 64, __attribute__((target("avx512f"))))
#endif

typedef struct width {
    double (*fma)(float seed);
    uint64_t (*read)(const char *p, size_t bytes);
    int lanes;
} width;

static width
widest(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return (width){fma_avx512, read_avx512, 16};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (width){fma_avx2, read_avx2, 8};
#endif
    return (width){fma_base, read_base, 4};
}

/* Opens when all threads are there. */
typedef struct gate {
    atomic_int ready, open;
} gate;

typedef struct probe {
    pthread_t thread;
    struct gate *gate;
    const char *data;
    size_t bytes;
    int turns;
    double begin, end; /* ms */
    volatile double sink;
} probe;

static void
wait_at(gate *g)
{
    atomic_fetch_add(&g->ready, 1);
    while (!atomic_load(&g->open))
        sched_yield();
}

static void *
probe_fma(void *arg)
{
    probe *p = arg;
    width w = widest();

    p->sink = w.fma(1e-3f);
    wait_at(p->gate);
    p->begin = tool_now_ms();
    for (int k = 0; k < 20; k++)
        p->sink = w.fma((float)k * 1e-3f);
    p->end = tool_now_ms();
    return NULL;
}

static void *
probe_read(void *arg)
{
    probe *p = arg;
    width w = widest();

    wait_at(p->gate);
    p->begin = tool_now_ms();
    for (int k = 0; k < p->turns; k++)
        p->sink = (double)w.read(p->data, p->bytes);
    p->end = tool_now_ms();
    return NULL;
}

/* Milliseconds from the first start to the last end on *threads threads at once; fewer
 * when the system gives fewer. */
static double
together(void *(*fn)(void *), probe *p, int *threads)
{
    gate start = {0};
    double begin, end;
    int n = 0;

    while (n < *threads - 1 && (p[n].gate = &start, true) &&
           !pthread_create(&p[n].thread, NULL, fn, &p[n]))
        n++;
    while (atomic_load(&start.ready) < n)
        sched_yield();
    atomic_store(&start.open, 1);
    p[n].gate = &start;
    fn(&p[n]);
    begin = p[n].begin;
    end = p[n].end;
    for (int i = 0; i < n; i++) {
        pthread_join(p[i].thread, NULL);
        begin = p[i].begin < begin ? p[i].begin : begin;
        end = p[i].end > end ? p[i].end : end;
    }
    *threads = n + 1;
    return end - begin;
}

tool_peak
tool_measure_peak(int threads, double bytes)
{
    tool_peak best = {0};
    probe *p = calloc((size_t)threads, sizeof *p);
    double most = bytes > 0 && bytes < (double)READ_BYTES ? bytes : (double)READ_BYTES;
    size_t each = ((size_t)most / (size_t)threads + 4095) & ~(size_t)4095;
    size_t room = each * (size_t)threads;
    char *data = malloc(room);
    int turns = (int)(READ_BYTES / room);
    double flops = 20.0 * FMA_ROUNDS * CHAINS * 2 * widest().lanes;

    if (!p || !data)
        goto out;
    memset(data, 1, room);
    for (int i = 0; i < threads; i++) {
        p[i].data = data + each * (size_t)i;
        p[i].bytes = each;
        p[i].turns = turns > 1 ? turns : 1;
    }
    for (int k = 0; k < 5; k++) {
        double ms = together(probe_fma, p, &threads);
        double fma = flops * threads / ms * 1e-6;
        ms = together(probe_read, p, &threads);
        double mem = (double)each * p->turns * threads / ms * 1e-6;
        best.gflops = fma > best.gflops ? fma : best.gflops;
        best.gbps = mem > best.gbps ? mem : best.gbps;
    }
out:
    free(p);
    free(data);
    return best;
}
