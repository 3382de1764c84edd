/* host.h - a .forge file as a host runs it, the runtime alone: one prefill after the other, or
 * with a KV cache one token after the other, each at the same place. */
#ifndef FG_BENCH_HOST_H
#define FG_BENCH_HOST_H

#include "runtime/forge.h"

enum { HOST_INPUTS = 512 };

typedef struct host {
    forge_ctx *cx;
    forge_model *m;
    forge_run *r;
    forge_state *s; /* NULL: the model has no caches */
    int64_t length; /* tokens of a run, or before the token of one */
    int64_t *data[HOST_INPUTS];
} host;

double host_now_ms(void);
/* Opened; the first run binds. On failure the message is forge_message(h->cx). */
forge_status host_open(host *h, const char *path, int64_t length, int threads);
/* All open sizes but the first are h->length; the first is 1. With caches, h->length tokens
 * are run into them. */
forge_status host_bind(host *h);
forge_status host_run(host *h);
void host_close(host *h);
double host_percentile(double *v, int n, double p); /* sorts v */

#endif
