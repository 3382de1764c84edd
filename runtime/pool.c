/* pool.c - worker threads: awake and spinning for a moment around work, asleep otherwise.
 *
 * A job is published by one store to `ticket`: its number in the upper half, the
 * shares not yet taken in the lower. A thread takes a share by decrementing that word,
 * so it can never take one of another job, and the job's fields stay put until every
 * share is reported done. Shares are handed out one at a time, in rounds of one for each
 * thread, and a round is half of what is left, the last one all of it:
 *
 *     36 chunks, 2 threads, 4 rounds    9 9  5 5  2 2  2 2
 *
 * Chunks that follow each other read memory that follows, which the machine and kernels
 * fetch ahead, so they had better stay together; the last shares are short, so that all
 * threads end together and one that loses its core then delays little.
 *
 * Waking a sleeping thread costs the caller microseconds and takes tens of them, a
 * spinning one answers in a tenth of one. So a worker spins, with pause, for SPIN_NS after
 * work, which bridges what runs on one thread between kernels and a host's moment between
 * runs, and then sleeps in the kernel. Longer would be worse on a busy machine, where it is
 * often the caller whose core is spun on. For the same reason the caller waits for the
 * last shares awake only as long as they can take, and then leaves its core to whoever
 * has them.
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

#define SPIN_NS 50000
#define ROUNDS 8 /* more balance better, fewer cost less: knob shares */
#define LINE 64

struct fg_pool {
    _Alignas(LINE) _Atomic uint64_t ticket; /* job number << 32 | shares left */
    _Alignas(LINE) _Atomic uint32_t done;   /* shares finished; futex of the caller */
    _Atomic uint32_t waiting;               /* the caller sleeps until they all are */
    _Alignas(LINE) _Atomic uint32_t word;   /* futex: changes to wake sleepers */
    _Atomic uint32_t sleepers, stop;

    /* The job. */
    _Alignas(LINE) fg_kernel_fn *fn;
    void *const *buf;
    const int64_t *arg;
    int64_t end, shares;
    struct round {
        int64_t first, size; /* chunks: where its first share starts, of each of them */
    } round[FG_MAXSHARES];
    char *scratch;
    size_t stride;
    fg_sharehook *hook;
    int rounds;
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

static void
sleep_on(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void
wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void
deal(fg_pool *p, int64_t begin, int64_t end, int rounds)
{
    int64_t threads = fg_pool_threads(p), left = end - begin;

    p->end = end;
    p->shares = 0;
    for (int n = 0; left > 0; n++) {
        int64_t of = n + 1 < rounds ? 2 * threads : threads;
        int64_t size = (left + of - 1) / of, all = threads * size;
        p->round[n] = (struct round){end - left, size};
        p->shares += all < left ? threads : (left + size - 1) / size;
        left -= all;
    }
}

/* Share i of the job; thread: whose scratch. */
static void
run_share(fg_pool *p, int64_t i, int thread)
{
    int64_t threads = fg_pool_threads(p);
    const struct round *r = &p->round[i / threads];
    int64_t begin = r->first + i % threads * r->size, end = begin + r->size;
    int64_t start = p->hook ? fg_now_ns() : 0;

    p->fn(p->buf, p->arg, begin, end < p->end ? end : p->end,
          p->scratch + p->stride * (size_t)thread);
    if (p->hook)
        p->hook(p->hook_user, thread, start, fg_now_ns());
}

/* Takes and runs shares until none is left. */
static void
work(fg_pool *p, int thread)
{
    uint64_t t = atomic_load_explicit(&p->ticket, memory_order_acquire);

    while ((uint32_t)t) {
        if (!atomic_compare_exchange_weak_explicit(
                &p->ticket, &t, t - 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        int64_t shares = p->shares;
        run_share(p, shares - (uint32_t)t, thread);
        if (atomic_fetch_add(&p->done, 1) + 1 == shares && atomic_load(&p->waiting))
            wake(&p->done);
        t = atomic_load_explicit(&p->ticket, memory_order_acquire);
    }
}

static bool
has_work(fg_pool *p)
{
    return (uint32_t)atomic_load_explicit(&p->ticket, memory_order_acquire) != 0;
}

/* Looks for work, at most so long; false: there was none. */
static bool
spin(fg_pool *p)
{
    int64_t limit = fg_now_ns() + SPIN_NS;

    for (uint32_t n = 1; n % 64 || fg_now_ns() < limit; n++) {
        if (has_work(p))
            return true;
        relax();
    }
    return false;
}

/* The caller first publishes, then looks for sleepers; a sleeper first counts itself,
 * then looks for work: one of the two sees the other. */
static void
doze(fg_pool *p)
{
    uint32_t seen = atomic_load(&p->word);

    atomic_fetch_add(&p->sleepers, 1);
    if (!has_work(p) && !atomic_load(&p->stop))
        sleep_on(&p->word, seen);
    atomic_fetch_sub(&p->sleepers, 1);
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
            doze(p);
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
    p->rounds = ROUNDS;
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
        p->rounds = n ? (int)n : ROUNDS;
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
    atomic_fetch_add(&p->word, 1);
    wake(&p->word);
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
fg_pool_wake(fg_pool *p)
{
    if (!p || !atomic_load(&p->sleepers))
        return;
    atomic_fetch_add(&p->word, 1);
    wake(&p->word);
}

/* Until every share is done. One that takes a quarter longer than all those that the caller
 * took, whose job began at `start`, has lost its core, perhaps to the caller. Who finishes
 * the last first says so, then looks whether anybody waits; here it is the other way
 * round. */
static void
join(fg_pool *p, int64_t start)
{
    int64_t now = fg_now_ns(), limit = now + SPIN_NS + (now - start) / 4;
    uint32_t done;

    for (uint32_t n = 1; n % 64 || fg_now_ns() < limit; n++) {
        if (atomic_load_explicit(&p->done, memory_order_acquire) == p->shares)
            return;
        relax();
    }
    atomic_store(&p->waiting, 1);
    while ((done = atomic_load(&p->done)) != p->shares)
        sleep_on(&p->done, done);
    atomic_store(&p->waiting, 0);
}

/* On a thread of the host's. */
static void
host_share(void *arg, int i)
{
    run_share(arg, i, i);
}

void
fg_pool_kernel(fg_pool *p, fg_kernel_fn *fn, void *const *buf, const int64_t *arg,
               int64_t begin, int64_t end, char *scratch, size_t stride)
{
    if (!p || fg_pool_threads(p) < 2 || end - begin < 2) {
        fn(buf, arg, begin, end, scratch);
        return;
    }
    uint64_t job = (atomic_load_explicit(&p->ticket, memory_order_relaxed) >> 32) + 1;

    p->fn = fn;
    p->buf = buf;
    p->arg = arg;
    p->scratch = scratch;
    p->stride = stride;
    deal(p, begin, end, p->parallel ? 1 : p->rounds);
    if (p->parallel) {
        p->parallel(p->host, (int)p->shares, host_share, p);
        return;
    }
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->ticket, job << 32 | (uint64_t)p->shares);
    fg_pool_wake(p);
    int64_t start = fg_now_ns();
    work(p, 0);
    if (atomic_load_explicit(&p->done, memory_order_acquire) != p->shares)
        join(p, start);
}
