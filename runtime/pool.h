/* pool.h - worker threads of one run. */
#ifndef FG_RUNTIME_POOL_H
#define FG_RUNTIME_POOL_H

#include <stdbool.h>

#include "runtime/abi.h"
#include "runtime/forge.h"

typedef struct fg_pool fg_pool;

/* threads - 1 workers (the caller is the last); fewer when the system refuses some.
 * NULL when threads < 2 or out of memory: fg_pool_kernel then runs everything on the
 * caller. */
fg_pool *fg_pool_new(int threads, void *(*alloc)(void *, size_t),
                     void (*release)(void *, void *), void *user);
/* Threads of the host's instead, n at a time at most; NULL: out of memory. */
fg_pool *fg_pool_borrow(int n, forge_parallel *parallel, void *host,
                        void *(*alloc)(void *, size_t), void (*release)(void *, void *),
                        void *user);
bool fg_pool_borrowed(const fg_pool *p); /* takes NULL */
void fg_pool_free(fg_pool *p);           /* takes NULL */
/* Shares of a kernel for each thread of its own, 1 to FG_MAXSHARES; 0: as many as usual. */
void fg_pool_shares(fg_pool *p, uint32_t n); /* takes NULL */
int fg_pool_threads(const fg_pool *p);       /* caller included */

/* A run begins: workers that sleep are woken ahead of its first kernel. */
void fg_pool_wake(fg_pool *p); /* takes NULL */

/* fn over chunks [begin, end); scratch: one block of `stride` bytes per thread, the caller's
 * first. */
void fg_pool_kernel(fg_pool *p, fg_kernel_fn *fn, void *const *buf, const int64_t *arg,
                    int64_t begin, int64_t end, char *scratch, size_t stride);

/* While set, called by the thread that ran it after each share of a kernel: thread 0 is the
 * caller. Times in nanoseconds of the monotonic clock. */
typedef void fg_sharehook(void *user, int thread, int64_t begin, int64_t end);
void fg_pool_watch(fg_pool *p, fg_sharehook *hook, void *user); /* between kernels */
int64_t fg_now_ns(void);                                        /* that clock */

#endif
