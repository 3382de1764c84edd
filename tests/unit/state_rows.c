/* state_rows.c - states of models that write rows where an input says: caches of one size, beside
 * one that grows. `test-state_rows` prints `N passed, N failed`.
 *
 * The same steps are made on arrays of the test's own, and results and caches compared.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rt.h"
#include "tests/unit/expect.h"
#include "tests/unit/text_model.h"

enum { B = 2, M = 6, W = 4, STEPS = 9 };

/* %s: the size of the cache that keeps it, a symbol or a number. */
static const char text[] =
    "sym B in 1..\nsym M in 1..\nsym S in 1..\nsym P in 0..\n"
    "func @main(%%past: f32[B,%s,4], %%more: f32[B,P,4], %%x: f32[B,S,4], %%rows: "
    "i64[B,S])"
    " -> f32[B,%s,4], f32[B,P+S,4], f32[B,4], f32[B,4] {\n"
    "  %%now = append %%past, %%x, %%rows {axis=1} : f32[B,%s,4]\n"
    "  %%grown = concat %%more, %%x {axis=1} : f32[B,P+S,4]\n"
    "  %%sum = reduce_sum %%now {axes=[1]} : f32[B,4]\n"
    "  %%all = reduce_sum %%grown {axes=[1]} : f32[B,4]\n"
    "  ret %%now, %%grown, %%sum, %%all\n}\n";

typedef struct host {
    forge_ctx *cx;
    forge_model *m;
    forge_run *r;
    long allocs;
    float x[B * W];
    int64_t rows[B];
    float ring[B][M][W], all[B][W]; /* what there should be */
} host;

static bool
open_model(host *h, const char *size)
{
    char source[sizeof text + 100];

    snprintf(source, sizeof source, text, size, size, size);
    open_counted(&h->allocs, &h->cx);
    return expect(!compile_text(h->cx, source, &h->m), "compile", forge_message(h->cx)) &&
           expect(forge_model_states(h->m) == 2, "states", "not both found") &&
           !forge_run_new(h->cx, h->m, &h->r);
}

static void
close_model(host *h)
{
    forge_run_free(h->r);
    forge_model_free(h->m);
    forge_close(h->cx);
}

/* Sequence b writes its t-th element to row (t + b) mod M. */
static bool
step(host *h, int t)
{
    const int64_t dims[] = {B, 1, W};

    for (int b = 0; b < B; b++) {
        h->rows[b] = (t + b) % M;
        for (int k = 0; k < W; k++) {
            float v = (float)(1 + t * 7 + b * 3 + k);
            h->x[b * W + k] = h->ring[b][h->rows[b]][k] = v;
            h->all[b][k] += v;
        }
    }
    forge_bind_input(h->r, "x", FORGE_F32, 3, dims, h->x);
    forge_bind_input(h->r, "rows", FORGE_I64, 2, dims, h->rows);
    return expect(!forge_execute(h->r), "execute", forge_message(h->cx));
}

static void
check(host *h, const forge_state *s, const char *what)
{
    const float *sum = forge_output(h->r, "sum", NULL, NULL, NULL);
    const float *all = forge_output(h->r, "all", NULL, NULL, NULL);
    float ring[B][M][W];

    for (int b = 0; b < B; b++)
        for (int k = 0; k < W; k++) {
            float want = 0;
            for (int j = 0; j < M; j++)
                want += h->ring[b][j][k];
            expect(sum[b * W + k] == want && all[b * W + k] == h->all[b][k], what,
                   "other sums");
        }
    if (s && expect(!forge_state_read(s, "now", NULL, ring, sizeof ring), what,
                    forge_message(h->cx)))
        expect(!memcmp(ring, h->ring, sizeof ring), what, "another cache");
}

/* A state of capacity `capacity`, in which the cache has M rows; across the end of the ring,
 * with a fork in the middle. */
static void
ring(const char *size, int64_t capacity)
{
    host h = {0};
    forge_state *s = NULL, *f = NULL;
    float saved[B][M][W], sums[B][W];

    if (!open_model(&h, size) || !expect(!forge_state_new(h.cx, h.m, B, capacity, 0, &s),
                                         size, forge_message(h.cx)))
        return;
    forge_run_attach(h.r, s);
    for (int t = 0; t < STEPS && step(&h, t); t++) {
        check(&h, s, size);
        expect(forge_state_length(s) == t + 1, "length", "is that of what grows");
        if (t != 4)
            continue;
        expect(!forge_state_fork(s, &f), "fork", forge_message(h.cx));
        memcpy(saved, h.ring, sizeof saved);
        memcpy(sums, h.all, sizeof sums);
    }
    memcpy(h.ring, saved, sizeof saved);
    memcpy(h.all, sums, sizeof sums);
    forge_run_attach(h.r, f);
    for (int t = 5; t < STEPS && step(&h, t); t++)
        check(&h, f, "fork");
    expect(!forge_state_truncate(f, 0), "cut to 0", forge_message(h.cx));
    memset(h.ring, 0, sizeof h.ring);
    memset(h.all, 0, sizeof h.all);
    if (step(&h, 0))
        check(&h, f, "after a cut to 0");
    forge_run_attach(h.r, NULL);
    forge_state_free(f);
    forge_state_free(s);
    close_model(&h);
}

/* Without a state, a host that binds one buffer as past and present has its own cache written
 * in place; with two the past stays as it was. */
static void
own_buffer(void)
{
    host h = {0};
    float cache[B][M][W] = {0}, other[B][M][W], none[1] = {0};
    int64_t dims[] = {B, M, W}, empty[] = {B, 0, W};

    if (!open_model(&h, "M"))
        return;
    forge_bind_input(h.r, "past", FORGE_F32, 3, dims, cache);
    forge_bind_input(h.r, "more", FORGE_F32, 3, empty, none);
    forge_bind_output(h.r, "now", cache, sizeof cache);
    for (int t = 0; t < STEPS && step(&h, t); t++) {
        memcpy(h.all, h.x, sizeof h.x);
        check(&h, NULL, "own buffer");
        expect(!memcmp(cache, h.ring, sizeof cache), "own buffer", "another cache");
    }
    float before[B][M][W];
    memcpy(before, cache, sizeof before);
    forge_bind_output(h.r, "now", other, sizeof other);
    if (step(&h, STEPS)) {
        expect(!memcmp(cache, before, sizeof cache), "two buffers", "the past changed");
        expect(!memcmp(other, h.ring, sizeof other), "two buffers", "another cache");
    }
    close_model(&h);
}

/* A limit is of what grows; and what keeps its size has no other than its own. */
static void
limits(void)
{
    host h = {0};
    forge_state *s = NULL;

    if (!open_model(&h, "6") ||
        !expect(!forge_state_new(h.cx, h.m, B, 2, 3, &s), "new", forge_message(h.cx)))
        return;
    forge_run_attach(h.r, s);
    for (int t = 0; t < 3 && step(&h, t); t++)
        check(&h, s, "below the limit");
    const int64_t dims[] = {B, 1, W};
    forge_bind_input(h.r, "x", FORGE_F32, 3, dims, h.x);
    expect(forge_execute(h.r) == FORGE_USAGE, "beyond the limit", "accepted");
    forge_state_free(s);
    close_model(&h);
}

/* A cache that is always its last nine rows and gets four in a step, beside one that gets one: each
 * has what it should, through all that grows, but no position of the one is one of the other. */
static void
other_steps(void)
{
    enum { KEEP = 9, MORE = 4, WIDE = 32, N = 30 };
    static const char source[] =
        "sym P in 0..\n"
        "func @main(%grows: f32[P,32], %last: f32[9,32], %x: f32[4,32], %y: f32[1,32])"
        " -> f32[P+1,32], f32[9,32], f32[32], f32[32] {\n"
        "  %more = concat %grows, %y : f32[P+1,32]\n"
        "  %all = concat %last, %x : f32[13,32]\n"
        "  %now = slice %all {start=[4,0], step=[1,1]} : f32[9,32]\n"
        "  %a = reduce_sum %more {axes=[0]} : f32[32]\n"
        "  %b = reduce_sum %all {axes=[0]} : f32[32]\n"
        "  ret %more, %now, %a, %b\n}\n";
    const int64_t four[] = {MORE, WIDE}, one[] = {1, WIDE};
    float x[MORE * WIDE], y[WIDE], total = 0, rows[N * 2 * MORE];
    host h = {0};
    forge_state *s = NULL;

    open_counted(&h.allocs, &h.cx);
    if (!expect(!compile_text(h.cx, source, &h.m), "compile", forge_message(h.cx)) ||
        forge_run_new(h.cx, h.m, &h.r) ||
        !expect(!forge_state_new(h.cx, h.m, 1, 2, 0, &s), "new", forge_message(h.cx)))
        return;
    forge_run_attach(h.r, s);
    for (int t = 0, n = 0; t < 2 * N; t++) {
        if (t == N) {
            expect(forge_state_truncate(s, 5) == FORGE_UNSUPPORTED, "back", "accepted");
            expect(!forge_state_truncate(s, 0), "back to 0", forge_message(h.cx));
            n = 0, total = 0;
        }
        float want = 0;
        for (int k = 0; k < MORE * WIDE; k++)
            x[k] = rows[n + k / WIDE] = (float)(t * MORE + k / WIDE);
        for (int k = 0; k < WIDE; k++)
            y[k] = (float)t;
        n += MORE;
        total += (float)t;
        for (int k = n < KEEP + MORE ? 0 : n - KEEP - MORE; k < n; k++)
            want += rows[k];
        forge_bind_input(h.r, "x", FORGE_F32, 2, four, x);
        forge_bind_input(h.r, "y", FORGE_F32, 2, one, y);
        if (!expect(!forge_execute(h.r), "other steps", forge_message(h.cx)))
            break;
        const float *a = forge_output(h.r, "a", NULL, NULL, NULL),
                    *b = forge_output(h.r, "b", NULL, NULL, NULL);
        expect(a[WIDE - 1] == total && b[0] == want && b[WIDE - 1] == want, "other steps",
               "other sums");
        expect(forge_state_length(s) == t % N + 1, "length", "is that of what grows");
    }
    forge_run_attach(h.r, NULL);
    forge_state_free(s);
    close_model(&h);
}

int
main(void)
{
    ring("M", M);
    ring("6", 1);
    ring("6", 64);
    own_buffer();
    limits();
    other_steps();
    return verdict();
}
