/* text_model.h - for test programs: a context that counts allocations, and in it a model that is
 * compiled from text. */
#ifndef FG_TESTS_TEXT_MODEL_H
#define FG_TESTS_TEXT_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/forge.h"

static void *
counted_alloc(void *user, size_t n)
{
    ++*(long *)user;
    return malloc(n);
}

static void
counted_release(void *user, void *p)
{
    (void)user;
    free(p);
}

static inline forge_status
open_counted(long *allocs, forge_ctx **cx)
{
    forge_config c = {sizeof c, counted_alloc, counted_release, allocs, NULL};
    return forge_open(&c, cx);
}

static inline forge_status
compile_text(forge_ctx *cx, const char *source, forge_model **m)
{
    char path[] = "/tmp/forge-textXXXXXX.fir";
    int fd = mkstemps(path, 4);
    FILE *f = fdopen(fd, "w");

    fputs(source, f);
    fclose(f);
    forge_status e = forge_compile_file(cx, path, NULL, m);
    unlink(path);
    return e;
}

#endif
