/* bench_decode.c - one token at a time on a model with a KV cache.
 *
 *     prefill  input_ids [1,P]    the state's length is P
 *     step i   input_ids [1,1]    P+i+1
 *
 * The cache is a forge_state, appended to in place; after STEPS tokens the steps begin
 * again in a copy of what the prefill left. What an input is for is told by its name, as
 * exporters spell it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/rt.h"
#include "tools/bench.h"

#define STEPS 32 /* tokens before the cache is reset to the prefill */

typedef enum {
    ROLE_OTHER,
    ROLE_IDS,
    ROLE_MASK,
    ROLE_POSITION,
    ROLE_SEQLENS,
    ROLE_TOTAL,
    ROLE_STATE
} role;

struct bench_decode {
    role *roles;                    /* by input */
    forge_state *prefilled, *state; /* after the prefill; where the steps are */
    int step;
    int64_t ids[STEPS];
};

/* ---- names ---------------------------------------------------------------------------- */

static const struct {
    const char *part;
    role r;
} names[] = {{"attention_mask", ROLE_MASK}, {"position", ROLE_POSITION},
             {"seqlens_k", ROLE_SEQLENS},   {"total_sequence_length", ROLE_TOTAL},
             {"input_ids", ROLE_IDS},       {"token", ROLE_IDS}};

static role
role_of(const char *name)
{
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (strstr(name, names[k].part))
            return names[k].r;
    return ROLE_OTHER;
}

/* Inputs the state holds are not fed; the first output it does not hold are the logits. */
static bool
find_roles(bench *b, bench_decode *d)
{
    const fg_program *p = b->m->program;

    if (!forge_model_states(b->m))
        return bench_fail(
            b, "not a model with a KV cache: no present outputs and past inputs");
    d->roles = FG_NEWN(b->a, role, (size_t)p->ninput + 1);
    for (uint32_t i = 0; i < p->ninput; i++)
        d->roles[i] =
            p->input[i].state != FG_NONE ? ROLE_STATE : role_of(p->input[i].name);
    return true;
}

/* ---- feeding
 * ---------------------------------------------------------------------------- */

static bool
bind(bench *b, int i, const fg_tensor *t)
{
    if (forge_bind_input(b->r, forge_model_input(b->m, i, NULL, NULL),
                         (forge_dtype)t->dtype, t->rank, t->dim, t->data))
        return bench_fail(b, "%s", forge_message(b->fcx));
    return true;
}

/* Inputs that are not states, for `n` tokens after `past`; their ids, or NULL for
 * random ones. */
static bool
feed(bench *b, int64_t past, int64_t n, const int64_t *ids)
{
    bench_decode *d = b->decode;

    for (int i = 0; i < forge_model_inputs(b->m); i++) {
        role what = d->roles[i];
        forge_dtype dtype;
        fg_tensor t;
        int rank;
        int64_t dims[FG_MAXRANK], length = what == ROLE_MASK ? past + n : n;
        const char *name = forge_model_input(b->m, i, &dtype, &rank);
        if (what == ROLE_STATE || (what == ROLE_OTHER && b->m->program->input[i].dflt))
            continue;
        if (!tool_input_shape(b->m, i, 0, dims))
            return bench_fail(b, "out of memory");
        if (what == ROLE_IDS || what == ROLE_MASK || what == ROLE_POSITION)
            for (int k = 0; k < rank; k++)
                dims[k] = k == rank - 1 ? length : 1;
        if (!fg_tensor_new(b->a, &t, (fg_dtype)dtype, rank, dims))
            return bench_fail(b, "%s", fg_first_error(b->cx));
        tool_random_fill(name, &t, 0);
        for (int64_t k = 0;
             k < t.count && (what != ROLE_IDS || ids) && what != ROLE_OTHER; k++)
            fg_tensor_set_i64(&t, k,
                              what == ROLE_IDS       ? ids[k]
                              : what == ROLE_MASK    ? 1
                              : what == ROLE_SEQLENS ? past + n - 1
                              : what == ROLE_TOTAL   ? past + n
                                                     : past + k);
        if (!bind(b, i, &t))
            return false;
    }
    return true;
}

/* Inputs given on the command line replace the made ones; decode_ids are the tokens of
 * the steps. */
static bool
feed_given(bench *b)
{
    for (int k = 0; k < b->in.given.n; k++) {
        const char *text = b->in.given.v[k];
        size_t n = strcspn(text, "=");
        fg_tensor t;
        if (!text[n] || !tool_read_value(b->cx, b->a, text + n + 1, &t))
            return bench_fail(b, "%s",
                              *fg_first_error(b->cx) ? fg_first_error(b->cx)
                                                     : "--input: expected NAME=VALUE");
        if (n == 10 && !strncmp(text, "decode_ids", n)) {
            for (int64_t i = 0; i < STEPS && i < t.count; i++)
                b->decode->ids[i] = fg_tensor_i64(&t, i);
            continue;
        }
        int i = 0;
        while (i < forge_model_inputs(b->m) &&
               strcmp(forge_model_input(b->m, i, NULL, NULL),
                      fg_format(b->a, "%.*s", (int)n, text)))
            i++;
        if (i == forge_model_inputs(b->m))
            return bench_fail(b, "the model has no input \"%.*s\"", (int)n, text);
        if (!bind(b, i, &t))
            return false;
    }
    return true;
}

bool
bench_decode_begin(bench *b)
{
    bench_decode *d = b->decode = FG_NEW(b->a, bench_decode);

    for (int i = 0; i < STEPS; i++)
        d->ids[i] = 5 + i * 37 % 90;
    if (!find_roles(b, d) || !feed(b, 0, b->past, NULL) || !feed_given(b))
        return false;
    if (forge_state_new(b->fcx, b->m, 1, b->past + STEPS, 0, &d->prefilled) ||
        forge_run_attach(b->r, d->prefilled) || forge_execute(b->r))
        return bench_fail(b, "%s", forge_message(b->fcx));
    d->step = STEPS;
    return true;
}

bool
bench_decode_bind(bench *b)
{
    bench_decode *d = b->decode;

    if (d->step >= STEPS) {
        forge_state_free(d->state);
        d->state = NULL;
        d->step = 0;
        if (forge_state_fork(d->prefilled, &d->state) || forge_run_attach(b->r, d->state))
            return bench_fail(b, "%s", forge_message(b->fcx));
    }
    return feed(b, b->past + d->step, 1, &d->ids[d->step]);
}

void
bench_decode_next(bench *b)
{
    b->decode->step++;
}

void
bench_decode_end(bench *b)
{
    if (!b->decode)
        return;
    forge_state_free(b->decode->state);
    forge_state_free(b->decode->prefilled);
}

bool
bench_write_out(bench *b, int output, bool last_row)
{
    fg_tensor t, f;
    int64_t dims[FG_MAXRANK], count = 1, first;
    int rank = 0;

    if (!tool_output(b->r, b->m, output, &t) || !t.rank)
        return bench_fail(b, "no output to write");
    for (int x = last_row ? t.rank - 1 : t.rank > 1; x < t.rank; x++) {
        dims[rank++] = t.dim[x];
        count *= t.dim[x];
    }
    first = last_row ? t.count - count : 0;
    if (t.dtype == FG_f32 && count <= t.count) {
        f = t;
        f.rank = rank;
        memcpy(f.dim, dims, sizeof dims);
        f.count = count;
        f.data = (float *)t.data + first;
    } else {
        if (!fg_tensor_new(b->a, &f, FG_f32, rank, dims))
            return bench_fail(b, "%s", fg_first_error(b->cx));
        for (int64_t i = 0; i < count && first + i < t.count; i++)
            fg_tensor_set_f64(&f, i, fg_tensor_f64(&t, first + i));
    }
    if (tool_npy_write(b->out, &f))
        b->code = TOOL_FAILED;
    return b->code == TOOL_OK;
}
