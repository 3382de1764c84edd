/* peak.c - what this machine can do, by measurement: operations of each kind of arithmetic,
 * bytes read from each level of memory.
 *
 * Peaks are measured where they are used, because clock and memory of a shared machine
 * change by the minute: a percentage only means something against the same minute's peak.
 */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "runtime/rt.h"
#include "tools/tool.h"

#define CHAINS 12 /* independent: more than latency times issue width needs */
#define ROUNDS 20000
#define TURNS 10                      /* of ROUNDS */
#define READ_BYTES ((size_t)96 << 20) /* per measurement, well past any cache */

/* acc = step(acc, x, y) in chains, in one kind of vector. The empty assembly keeps the
 * compiler from folding them; multiply and add contract to one FMA. */
#define CHAIN(name, attributes, vector, step)                                            \
    attributes static double name(int seed)                                              \
    {                                                                                    \
        unsigned char bytes[sizeof(vector)];                                             \
        vector acc[CHAINS], x;                                                           \
        double sum = 0;                                                                  \
        memset(bytes, seed, sizeof bytes);                                               \
        memcpy(&x, bytes, sizeof x);                                                     \
        for (int k = 0; k < CHAINS; k++)                                                 \
            acc[k] = x;                                                                  \
        for (int n = 0; n < ROUNDS; n++) {                                               \
            _Pragma("GCC unroll 12") for (int k = 0; k < CHAINS; k++) acc[k] =           \
                step(acc[k], x);                                                         \
            __asm__ volatile("");                                                        \
        }                                                                                \
        for (int k = 0; k < CHAINS; k++)                                                 \
            sum += (double)((const unsigned char *)&acc[k])[0];                          \
        return sum;                                                                      \
    }
#define READ(name, width, attributes)                                                    \
    typedef uint64_t name##_v __attribute__((vector_size(width), aligned(8)));           \
    attributes static double name(const char *p, size_t bytes)                           \
    {                                                                                    \
        name##_v s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                 \
        const name##_v *v = (const name##_v *)p, *end = v + bytes / (width);             \
        for (; v + 4 <= end; v += 4) {                                                   \
            s0 |= v[0];                                                                  \
            s1 |= v[1];                                                                  \
            s2 |= v[2];                                                                  \
            s3 |= v[3];                                                                  \
        }                                                                                \
        s0 |= s1 | s2 | s3;                                                              \
        return (double)s0[0];                                                            \
    }
#define FMA(c, x) ((c) * (x) + (x))

typedef float float4 __attribute__((vector_size(16)));
CHAIN(fma_base, , float4, FMA)
READ(read_base, 16, )
#if defined(__x86_64__)
#define TARGET(list) __attribute__((target(list)))
#define PAIRS_512(c, x) _mm512_dpbf16_ps(c, (__m512bh)(x), (__m512bh)(x))
#define BYTES_512(c, x) _mm512_dpbusd_epi32(c, x, x)
#define BYTES_VNNI(c, x) _mm256_dpbusd_avx_epi32(c, x, x)
#define BYTES_256(c, x)                                                                  \
    _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(c, x), x))
CHAIN(fma_256, TARGET("avx2,fma"), __m256, FMA)
CHAIN(fma_512, TARGET("avx512f"), __m512, FMA)
CHAIN(pairs_512, TARGET("avx512f,avx512bf16"), __m512, PAIRS_512)
CHAIN(bytes_512, TARGET("avx512f,avx512vnni"), __m512i, BYTES_512)
CHAIN(bytes_vnni, TARGET("avx2,avxvnni"), __m256i, BYTES_VNNI)
CHAIN(bytes_256, TARGET("avx2"), __m256i, BYTES_256)
READ(read_256, 32, TARGET("avx2"))
READ(read_512, 64, TARGET("avx512f"))
#endif

/* Operations of one step of one chain. */
typedef struct chain {
    double (*run)(int seed);
    int ops;
} chain;

/* Without instructions of its own, a kind is computed as the next wider one. */
static chain
chain_of(tool_math math)
{
#if defined(__x86_64__)
    if (math == TOOL_BYTES && __builtin_cpu_supports("avx512vnni"))
        return (chain){bytes_512, 128};
    if (math == TOOL_BYTES && __builtin_cpu_supports("avxvnni"))
        return (chain){bytes_vnni, 64};
    if (math == TOOL_BYTES && __builtin_cpu_supports("avx2"))
        return (chain){bytes_256, 64};
    if (math == TOOL_BF16 && __builtin_cpu_supports("avx512bf16"))
        return (chain){pairs_512, 64};
    if (__builtin_cpu_supports("avx512f"))
        return (chain){fma_512, 32};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (chain){fma_256, 16};
#endif
    return (chain){fma_base, 8};
}

static double
read_widest(const char *p, size_t bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return read_512(p, bytes);
    if (__builtin_cpu_supports("avx2"))
        return read_256(p, bytes);
#endif
    return read_base(p, bytes);
}

/* Opens when all threads are there. */
typedef struct gate {
    atomic_int ready, open;
} gate;

typedef struct probe {
    pthread_t thread;
    struct gate *gate;
    chain chain;
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
probe_chain(void *arg)
{
    probe *p = arg;

    p->sink = p->chain.run(1);
    wait_at(p->gate);
    p->begin = tool_now_ms();
    for (int k = 0; k < TURNS; k++)
        p->sink = p->chain.run(0x3e + k % 2);
    p->end = tool_now_ms();
    return NULL;
}

static void *
probe_read(void *arg)
{
    probe *p = arg;

    wait_at(p->gate);
    p->begin = tool_now_ms();
    for (int k = 0; k < p->turns; k++)
        p->sink = read_widest(p->data, p->bytes);
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

tool_level
tool_level_of(int threads, double bytes)
{
    for (int k = TOOL_L1; k < TOOL_MEMORY; k++)
        if (bytes <= tool_cache_bytes(k + 1) * (k == TOOL_L3 ? 1 : threads))
            return (tool_level)k;
    return TOOL_MEMORY;
}

/* What is read to measure a level: half of what it holds, four times what the one before does
 * if that is less, because a last level has other users; or exactly `bytes`, if that is where
 * they lie. */
static size_t
probe_bytes(tool_level level, int threads, double bytes)
{
    if (bytes > 0 && bytes < (double)READ_BYTES && tool_level_of(threads, bytes) == level)
        return (size_t)bytes / (size_t)threads;
    if (level == TOOL_MEMORY)
        return READ_BYTES / (size_t)threads;
    size_t half = (size_t)tool_cache_bytes(level + 1) / 2;
    size_t inner = level ? (size_t)tool_cache_bytes(level) * 4 : half;
    return half < inner ? half : inner;
}

tool_peak
tool_measure_peak(int threads, double bytes)
{
    tool_peak best = {.threads = threads};
    probe *p = calloc((size_t)threads, sizeof *p);
    size_t room = READ_BYTES / (size_t)threads;
    char *data = malloc(READ_BYTES);

    if (!p || !data)
        goto out;
    fg_large_pages(data, (int64_t)READ_BYTES); /* as what kernels read is in */
    memset(data, 1, READ_BYTES);
    for (int i = 0; i < threads; i++)
        p[i].data = data + room * (size_t)i;
    for (int turn = 0; turn < 5; turn++) {
        for (int k = 0; k < TOOL_NMATH; k++) {
            chain c = chain_of((tool_math)k);
            for (int i = 0; i < threads; i++)
                p[i].chain = c;
            double ops = (double)c.ops * CHAINS * ROUNDS * TURNS;
            double ms = together(probe_chain, p, &threads);
            best.gflops[k] = fmax(best.gflops[k], ops * threads / ms * 1e-6);
        }
        for (int k = 0; k < TOOL_NLEVELS; k++) {
            size_t each =
                (probe_bytes((tool_level)k, threads, bytes) + 255) & ~(size_t)255;
            int turns = (int)(room / each);
            for (int i = 0; i < threads; i++) {
                p[i].bytes = each < room ? each : room;
                p[i].turns = turns > 1 ? turns : 1;
            }
            double ms = together(probe_read, p, &threads);
            double all = (double)p->bytes * p->turns * threads;
            best.gbps[k] = fmax(best.gbps[k], all / ms * 1e-6);
        }
    }
out:
    free(p);
    free(data);
    return best;
}
