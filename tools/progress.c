/* progress.c - a line on the terminal while something takes more than a second. */
#include "tools/progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool on, over, shown;
    const char *doing, *file;
} p = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

static void *
show(void *arg)
{
    struct timespec at;

    (void)arg;
    clock_gettime(CLOCK_REALTIME, &at);
    pthread_mutex_lock(&p.lock);
    for (int seconds = 1; !p.over; seconds++) {
        at.tv_sec++;
        while (!p.over && pthread_cond_timedwait(&p.ended, &p.lock, &at) != ETIMEDOUT)
            ;
        if (p.over)
            break;
        fprintf(stderr, "\r\033[Kforge: %s %.80s .. %d s", p.doing, p.file, seconds);
        p.shown = true;
    }
    if (p.shown)
        fputs("\r\033[K", stderr);
    pthread_mutex_unlock(&p.lock);
    return NULL;
}

void
tool_progress_begin(const char *doing, const char *file)
{
    const char *slash = strrchr(file, '/');

    if (p.on || !isatty(STDERR_FILENO))
        return;
    for (const char *s = file; *s; s++) /* a terminal could take it for a command */
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return;
    p.over = p.shown = false;
    p.doing = doing;
    p.file = slash && slash[1] ? slash + 1 : file;
    p.on = !pthread_create(&p.thread, NULL, show, NULL);
}

void
tool_progress_end(void)
{
    if (!p.on)
        return;
    pthread_mutex_lock(&p.lock);
    p.over = true;
    pthread_cond_signal(&p.ended);
    pthread_mutex_unlock(&p.lock);
    pthread_join(p.thread, NULL);
    p.on = false;
}
