/* host.h - how the hosts here end: the outputs of a run as bytes, or one line of message.
 * forge.h is included before. */
#ifndef FG_TESTS_EMIT_HOST_H
#define FG_TESTS_EMIT_HOST_H

#include <stdio.h>

static size_t
bytes_of(forge_dtype t, int rank, const int64_t *d)
{
    size_t n = t == FORGE_BOOL || t == FORGE_I8 || t == FORGE_U8    ? 1
               : t == FORGE_I64 || t == FORGE_F64 || t == FORGE_U64 ? 8
               : t == FORGE_F16 || t == FORGE_BF16                  ? 2
                                                                    : 4;

    for (int k = 0; k < rank; k++)
        n *= (size_t)d[k];
    return n;
}

/* Writes what came out unless s says that nothing did, and frees everything; the exit
 * status. */
static int
finish(forge_status s, forge_ctx *cx, forge_model *m, forge_run *r)
{
    if (s)
        fprintf(stderr, "%s\n", cx ? forge_message(cx) : forge_status_text(s));
    for (int i = 0; !s && i < forge_model_outputs(m); i++) {
        const int64_t *d;
        int rank;
        forge_dtype t;
        const char *name = forge_model_output(m, i, NULL, NULL);
        const void *data = forge_output(r, name, &t, &rank, &d);
        fwrite(data, 1, bytes_of(t, rank, d), stdout);
    }
    forge_run_free(r);
    forge_model_free(m);
    forge_close(cx);
    return (int)s;
}

#endif
