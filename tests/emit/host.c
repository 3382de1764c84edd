/* host.c - runs the model of an object or library that forge compile --emit made.
 *
 * The first input of every sort is filled as examples/run_artifact.c does; what comes out
 * is written as bytes, one output after another.
 *
 *     host            linked with the object: MODEL_open
 *     host LIB.so     opened by dlopen; the symbol is the second argument
 */
#include <dlfcn.h>
#include <forge.h>
#include <stdio.h>
#include <string.h>

#include "host.h"

#ifdef MODEL_H
#include MODEL_H
#else
#define MODEL_open NULL
#endif

typedef forge_status opener(forge_ctx *, const forge_load_options *, forge_model **);

static int64_t ones[1 << 20], dims[16];

static opener *
from_library(const char *path, const char *symbol)
{
    void *lib = dlopen(path, RTLD_NOW);
    opener *f = NULL;

    if (lib)
        *(void **)&f = dlsym(lib, symbol);
    if (!f)
        fprintf(stderr, "%s\n", dlerror());
    return f;
}

int
main(int argc, char **argv)
{
    forge_ctx *cx;
    forge_model *m = NULL, *again = NULL;
    forge_run *r = NULL;
    opener *open_model = argc > 2 ? from_library(argv[1], argv[2]) : MODEL_open;
    forge_status s = forge_open(NULL, &cx);

    if (!open_model)
        return 1;
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        ones[i] = 1;
    if (!s)
        s = open_model(cx, NULL, &m);
    if (!s)
        s = open_model(cx, NULL, &again);
    forge_model_free(again);
    if (!s)
        s = forge_run_new(cx, m, &r);
    for (int i = 0, rank; !s && i < forge_model_inputs(m); i++) {
        forge_dtype type;
        const char *name = forge_model_input(m, i, &type, &rank);
        for (int k = 0; k < rank; k++)
            if ((dims[k] = forge_model_input_dim(m, i, k, NULL)) < 0)
                dims[k] = 4;
        s = forge_bind_input(r, name, type, rank, dims, ones);
    }
    if (!s)
        s = forge_execute(r);
    return finish(s, cx, m, r);
}
