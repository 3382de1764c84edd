/* pool.c - worker threads: awake and spinning while a run needs them, asleep otherwise.
 *
 * A job is published by one store to `ticket`: its number in the upper half, the
 * shares not yet taken in the lower. A thread takes a share by decrementing that word,
 * so it can never take one of another job, and the job's fields stay put until every
 * share is reported done. Shares are handed out one at a time: a thread that loses its
 * core delays one share, not half the kernel.
 *
 * Waking a sleeping thread costs the caller microseconds and takes tens of them, a
 * spinning one answers in a tenth of one. So workers are woken once when a run begins
 * and spin, with pause, until it ends or no work came for SPIN_NS; outside a run they
 * sleep in the kernel.
 */
#include "runtime/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 1000000
#define SHARES_PER_THREAD 8 /* more balance better, fewer cost less: knob shares */
#define LINE 64

struct fg_pool {
    _Alignas(LINE) _Atomic uint64_t ticket; /* job number << 32 | shares left */
    _Alignas(LINE) _Atomic uint32_t done;   /* shares finished */
    _Alignas(LINE) _Atomic uint32_t word;   /* futex: changes to wake sleepers */
    _Atomic uint32_t sleepers, running, stop;

    /* The job. */
    _Alignas(LINE) fg_kernel_fn *fn;
    void *const *buf;
    const int64_t *arg;
    int64_t first, chunks, shares;
    char *scratch;
    size_t stride;
    fg_sharehook *hook;
    int each; /* shares per thread */
    void *hook_user;

    forge_parallel *parallel; /* of the host; NULL: workers of our own */
    void *host;
    int nhost;

    int nworker;
    void (*release)(void *, void *);
    void *user, *raw;
    struct worker {
        pthread_t thread;
        fg_pool *pool;
        int index;
    } worker[];
};

static void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int64_t
fg_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

/* Takes and runs shares until none is left; thread: whose scratch. */
static void
work(fg_pool *p, int thread)
{
    uint64_t t = atomic_load_explicit(&p->ticket, memory_order_acquire);

    while ((uint32_t)t) {
        if (!atomic_compare_exchange_weak_explicit(
                &p->ticket, &t, t - 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        int64_t share = p->shares - (uint32_t)t;
        int64_t each = p->chunks / p->shares, rest = p->chunks % p->shares;
        int64_t begin = p->first + share * each + (share < rest ? share : rest);
        int64_t end = begin + each + (share < rest);
        int64_t start = p->hook ? fg_now_ns() : 0;
        p->fn(p->buf, p->arg, begin, end, p->scratch + p->stride * (size_t)thread);
        if (p->hook)
            p->hook(p->hook_user, thread, start, fg_now_ns());
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        t = atomic_load_explicit(&p->ticket, memory_order_acquire);
    }
}

static bool
has_work(fg_pool *p)
{
    return (uint32_t)atomic_load_explicit(&p->ticket, memory_order_acquire) != 0;
}

/* Spins until there is work; false when the run ended or the time is up. */
static bool
spin(fg_pool *p)
{
    int64_t limit = 0;

    for (uint32_t n = 0; atomic_load_explicit(&p->running, memory_order_acquire); n++) {
        if (has_work(p))
            return true;
        if ((n & 255) == 255) {
            int64_t t = fg_now_ns();
            if (!limit)
                limit = t + SPIN_NS;
            if (t > limit)
                return false;
        }
        relax();
    }
    return false;
}

/* The caller first publishes, then looks for sleepers; a sleeper first counts itself,
 * then looks for work: one of the two sees the other. */
static void
doze(fg_pool *p, bool run_over)
{
    uint32_t seen = atomic_load(&p->word);

    atomic_fetch_add(&p->sleepers, 1);
    if (!has_work(p) && !atomic_load(&p->stop) &&
        (!run_over || !atomic_load(&p->running)))
        syscall(SYS_futex, &p->word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&p->sleepers, 1);
}

static void
wake(fg_pool *p)
{
    atomic_fetch_add(&p->word, 1);
    syscall(SYS_futex, &p->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;
    fg_pool *p = w->pool;

    while (!atomic_load(&p->stop)) {
        if (spin(p))
            work(p, w->index);
        else
            doze(p, !atomic_load(&p->running));
    }
    return NULL;
}

static fg_pool *
new_pool(int workers, void *(*alloc)(void *, size_t), void (*release)(void *, void *),
         void *user)
{
    size_t bytes = sizeof(fg_pool) + (size_t)workers * sizeof(struct worker);
    void *raw = alloc(user, bytes + LINE);
    if (!raw)
        return NULL;
    fg_pool *p = (fg_pool *)(((uintptr_t)raw + LINE - 1) & -(uintptr_t)LINE);
    memset(p, 0, bytes);
    p->raw = raw;
    p->release = release;
    p->user = user;
    return p;
}

fg_pool *
fg_pool_borrow(int n, forge_parallel *parallel, void *host,
               void *(*alloc)(void *, size_t), void (*release)(void *, void *),
               void *user)
{
    fg_pool *p = new_pool(0, alloc, release, user);

    if (p) {
        p->parallel = parallel;
        p->host = host;
        p->nhost = n;
    }
    return p;
}

fg_pool *
fg_pool_new(int threads, void *(*alloc)(void *, size_t), void (*release)(void *, void *),
            void *user)
{
    fg_pool *p = threads < 2 ? NULL : new_pool(threads - 1, alloc, release, user);

    if (!p)
        return NULL;
    p->each = SHARES_PER_THREAD;
    for (int i = 0; i < threads - 1; i++) {
        p->worker[i].pool = p;
        p->worker[i].index = i + 1;
        if (pthread_create(&p->worker[i].thread, NULL, worker_main, &p->worker[i]))
            break;
        p->nworker++;
    }
    return p;
}

void
fg_pool_shares(fg_pool *p, uint32_t n)
{
    if (p)
        p->each = n ? (int)n : SHARES_PER_THREAD;
}

bool
fg_pool_borrowed(const fg_pool *p)
{
    return p && p->parallel;
}

void
fg_pool_free(fg_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, 1);
    wake(p);
    for (int i = 0; i < p->nworker; i++)
        pthread_join(p->worker[i].thread, NULL);
    p->release(p->user, p->raw);
}

int
fg_pool_threads(const fg_pool *p)
{
    return !p ? 1 : p->parallel ? p->nhost : p->nworker + 1;
}

void
fg_pool_watch(fg_pool *p, fg_sharehook *hook, void *user)
{
    if (!p)
        return;
    p->hook = hook;
    p->hook_user = user;
}

void
fg_pool_begin(fg_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->running, 1);
    if (atomic_load(&p->sleepers))
        wake(p);
}

void
fg_pool_end(fg_pool *p)
{
    if (p)
        atomic_store(&p->running, 0);
}

/* Share i of the job, on a thread of the host's. */
static void
host_share(void *arg, int i)
{
    fg_pool *p = arg;
    int64_t each = p->chunks / p->shares, rest = p->chunks % p->shares;
    int64_t begin = p->first + i * each + (i < rest ? i : rest);
    int64_t end = begin + each + (i < rest);
    int64_t start = p->hook ? fg_now_ns() : 0;

    p->fn(p->buf, p->arg, begin, end, p->scratch + p->stride * (size_t)i);
    if (p->hook)
        p->hook(p->hook_user, i, start, fg_now_ns());
}

void
fg_pool_kernel(fg_pool *p, fg_kernel_fn *fn, void *const *buf, const int64_t *arg,
               int64_t begin, int64_t end, char *scratch, size_t stride)
{
    int64_t chunks = end - begin;

    if (!p || fg_pool_threads(p) < 2 || chunks < 2) {
        fn(buf, arg, begin, end, scratch);
        return;
    }
    int64_t most = (int64_t)fg_pool_threads(p) * (p->parallel ? 1 : p->each);
    uint64_t job = (atomic_load_explicit(&p->ticket, memory_order_relaxed) >> 32) + 1;

    p->fn = fn;
    p->buf = buf;
    p->arg = arg;
    p->first = begin;
    p->chunks = chunks;
    p->shares = chunks < most ? chunks : most;
    p->scratch = scratch;
    p->stride = stride;
    if (p->parallel) {
        p->parallel(p->host, (int)p->shares, host_share, p);
        return;
    }
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->ticket, job << 32 | (uint64_t)p->shares);
    if (atomic_load(&p->sleepers))
        wake(p);
    work(p, 0);
    while (atomic_load_explicit(&p->done, memory_order_acquire) != p->shares)
        relax();
}
