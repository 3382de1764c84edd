/* async.c - a run in the background: one thread per run, made at its first use, asleep
 * between runs.
 *
 * While it is away the run has a context of its own, a copy, so that a message of failure does
 * not meet one of the host's other calls; forge_wait brings it back to the host's.
 */
#include "runtime/rt.h"

#include <pthread.h>
#include <string.h>

enum { IDLE, BUSY, STOP };

struct fg_async {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int state;
    forge_run *run;
    forge_ctx *host, own;
    forge_done *done;
    void *user;
    forge_status status; /* of the last one */
};

static void *
main_loop(void *arg)
{
    fg_async *a = arg;

    pthread_mutex_lock(&a->lock);
    while (a->state != STOP) {
        if (a->state == IDLE) {
            pthread_cond_wait(&a->changed, &a->lock);
            continue;
        }
        pthread_mutex_unlock(&a->lock);
        forge_status s = forge_execute(a->run);
        if (a->done)
            a->done(a->user, s, s ? a->own.message : "");
        pthread_mutex_lock(&a->lock);
        a->status = s;
        a->state = IDLE;
        pthread_cond_broadcast(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

static fg_async *
new_async(forge_run *r)
{
    fg_async *a = r->cx->alloc(r->cx->user, sizeof *a);

    if (!a)
        return NULL;
    memset(a, 0, sizeof *a);
    a->run = r;
    a->host = r->cx;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    if (!pthread_create(&a->thread, NULL, main_loop, a))
        return a;
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    r->cx->release(r->cx->user, a);
    return NULL;
}

forge_status
forge_execute_async(forge_run *r, forge_done *done, void *user)
{
    if (!r->async && !(r->async = new_async(r)))
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY, "no thread to run in the background");
    fg_async *a = r->async;
    pthread_mutex_lock(&a->lock);
    int state = a->state;
    if (state == IDLE) {
        a->own = *a->host;
        a->done = done;
        a->user = user;
        a->state = BUSY;
        r->cx = &a->own;
        pthread_cond_broadcast(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return state == IDLE ? FORGE_OK
                         : fg_fail(a->host, FORGE_USAGE, "the run is not over yet");
}

forge_status
forge_wait(forge_run *r)
{
    fg_async *a = r->async;

    if (!a)
        return FORGE_OK;
    pthread_mutex_lock(&a->lock);
    while (a->state == BUSY)
        pthread_cond_wait(&a->changed, &a->lock);
    pthread_mutex_unlock(&a->lock);
    if (r->cx == a->host)
        return a->status;
    r->cx = a->host;
    return a->status ? fg_fail(a->host, a->status, "%s", a->own.message) : FORGE_OK;
}

void
fg_async_free(forge_run *r)
{
    fg_async *a = r->async;

    if (!a)
        return;
    forge_wait(r);
    pthread_mutex_lock(&a->lock);
    a->state = STOP;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    r->async = NULL;
    a->host->release(a->host->user, a);
}
