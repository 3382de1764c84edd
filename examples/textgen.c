/* textgen.c - a host program: text from a byte-level language model with a KV cache.
 *
 *     textgen MODEL.onnx PROMPT N [SEED]
 *
 * The model takes input_ids, attention_mask, position_ids and past_key_values.L.key/.value
 * and gives logits and present.L.key/.value, the naming of most exporters. Each step feeds
 * the presents back as pasts; with a seed the next byte is drawn at temperature 0.6, else the likeliest is taken.
 */
#include <forge.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAXLEN = 256, VOCAB = 256 };

typedef struct state {
    forge_ctx *cx;
    forge_model *model;
    forge_run *run;
    int64_t ids[MAXLEN], mask[MAXLEN], position[MAXLEN];
    int npast;       /* tensors of the cache */
    char *past[128]; /* copies: an output is valid until the next run only */
    unsigned seed;
} state;

static void
check(state *s, forge_status st)
{
    if (st != FORGE_OK) {
        fprintf(stderr, "textgen: %s\n", forge_message(s->cx));
        exit(1);
    }
}

static bool
is_past(const char *name)
{
    return strncmp(name, "past_key_values.", 16) == 0;
}

/* Before the first step: every past has length 0. */
static void
empty_cache(state *s)
{
    for (int i = 0; i < forge_model_inputs(s->model); i++) {
        forge_dtype t;
        int rank;
        int64_t dims[8];
        const char *name = forge_model_input(s->model, i, &t, &rank);
        if (!is_past(name))
            continue;
        for (int a = 0; a < rank && a < 8; a++) {
            dims[a] = forge_model_input_dim(s->model, i, a, NULL);
            if (dims[a] < 0)
                dims[a] = a == 0 ? 1 : 0; /* batch 1, past length 0 */
        }
        check(s, forge_bind_input(s->run, name, t, rank, dims, ""));
    }
}

static void
feed_back(state *s)
{
    int k = 0;
    for (int i = 0; i < forge_model_inputs(s->model); i++) {
        forge_dtype t;
        int rank;
        const int64_t *dims;
        char present[128];
        const char *name = forge_model_input(s->model, i, &t, &rank);
        if (!is_past(name) || k == 128)
            continue;
        snprintf(present, sizeof present, "present.%s", name + 16);
        const void *data = forge_output(s->run, present, &t, &rank, &dims);
        size_t bytes = sizeof(float);
        for (int a = 0; data && a < rank; a++)
            bytes *= (size_t)dims[a];
        char *copy = data ? malloc(bytes) : NULL;
        if (!copy) {
            fprintf(stderr, "textgen: no output %s\n", present);
            exit(1);
        }
        memcpy(copy, data, bytes);
        int64_t shape[8];
        memcpy(shape, dims, (size_t)rank * sizeof *shape);
        check(s, forge_bind_input(s->run, name, t, rank, shape, copy));
        free(s->past[k]);
        s->past[k++] = copy;
    }
}

static int
pick(state *s, const float *logit)
{
    int best = 0;
    double p[VOCAB], sum = 0;
    for (int v = 1; v < VOCAB; v++)
        best = logit[v] > logit[best] ? v : best;
    if (!s->seed)
        return best;
    for (int v = 0; v < VOCAB; v++)
        sum += p[v] = exp((logit[v] - logit[best]) / 0.6);
    s->seed = s->seed * 1103515245 + 12345;
    double at = sum * (s->seed >> 8 & 0xffff) / 65536.0;
    for (int v = 0; v < VOCAB; v++)
        if ((at -= p[v]) < 0)
            return v;
    return best;
}

/* Runs tokens [from, to) and returns the next one. */
static int
step(state *s, int from, int to)
{
    const int64_t *dims;
    int64_t now[] = {1, to - from}, all[] = {1, to};
    check(s, forge_bind_input(s->run, "input_ids", FORGE_I64, 2, now, s->ids + from));
    check(s, forge_bind_input(s->run, "attention_mask", FORGE_I64, 2, all, s->mask));
    check(s, forge_bind_input(s->run, "position_ids", FORGE_I64, 2, now,
                              s->position + from));
    check(s, forge_execute(s->run));
    const float *logits = forge_output(s->run, "logits", NULL, NULL, &dims);
    int next = logits ? pick(s, logits + (dims[1] - 1) * VOCAB) : 0;
    feed_back(s);
    return next;
}

int
main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: textgen MODEL.onnx PROMPT N [SEED]\n");
        return 2;
    }
    state s = {.seed = argc > 4 ? (unsigned)atoi(argv[4]) : 7};
    if (forge_open(NULL, &s.cx) != FORGE_OK)
        return 1;
    check(&s, forge_compile_file(s.cx, argv[1], NULL, &s.model));
    check(&s, forge_run_new(s.cx, s.model, &s.run));
    int n = (int)strlen(argv[2]), end = n + atoi(argv[3]);
    if (n == 0 || n >= MAXLEN)
        return 2;
    end = end > MAXLEN ? MAXLEN : end;
    for (int i = 0; i < MAXLEN; i++) {
        s.ids[i] = i < n ? (unsigned char)argv[2][i] : 0;
        s.mask[i] = 1;
        s.position[i] = i;
    }
    empty_cache(&s);
    fputs(argv[2], stdout);
    for (int at = 0, to = n; to < end; at = to, to++) {
        s.ids[to] = step(&s, at, to);
        putchar((int)s.ids[to]);
        fflush(stdout);
    }
    putchar('\n');
    for (int k = 0; k < 128; k++)
        free(s.past[k]);
    forge_run_free(s.run);
    forge_model_free(s.model);
    forge_close(s.cx);
    return 0;
}
