/* raw.c - runs a .forge file on inputs that are bytes, for machines that have nothing else.
 *
 *     raw MODEL.forge FIT NAME TYPE RANK DIM.. FILE NAME TYPE ..
 *
 * TYPE is a number of forge_dtype. FIT is the forge_fit that is expected here. Outputs go
 * to standard output, one after another.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/forge.h"

#include "host.h"

static void *
content(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *data = malloc(1 << 24);

    if (!f || !data || (fread(data, 1, 1 << 24, f) == 0 && ferror(f)))
        exit(9);
    fclose(f);
    return data;
}

/* Files of scalars say that they have one axis; the model knows better. */
static int
rank_of(const forge_model *m, const char *name, int given)
{
    int rank = given;

    for (int i = 0; i < forge_model_inputs(m); i++)
        if (!strcmp(forge_model_input(m, i, NULL, &rank), name))
            return rank ? given : 0;
    return given;
}

int
main(int argc, char **argv)
{
    forge_ctx *cx;
    forge_model *m = NULL;
    forge_run *r = NULL;
    char needs[1024];
    forge_status s = forge_open(NULL, &cx);

    if (!s)
        s = forge_file_requirement(cx, argv[1], needs, sizeof needs);
    if (!s && (int)forge_requirement_fit(needs) != atoi(argv[2])) {
        fprintf(stderr, "%s: fit %d\n", needs, (int)forge_requirement_fit(needs));
        return 8;
    }
    if (!s)
        s = forge_load_file(cx, argv[1], NULL, &m);
    if (!s)
        s = forge_run_new(cx, m, &r);
    for (int k = 3; !s && k < argc;) {
        const char *name = argv[k];
        forge_dtype t = (forge_dtype)atoi(argv[k + 1]);
        int rank = atoi(argv[k + 2]);
        int64_t dims[12];
        for (int x = 0; x < rank; x++)
            dims[x] = atoll(argv[k + 3 + x]);
        k += 4 + rank;
        s = forge_bind_input(r, name, t, rank_of(m, name, rank), dims,
                             content(argv[k - 1]));
    }
    if (!s)
        s = forge_execute(r);
    return finish(s, cx, m, r);
}
