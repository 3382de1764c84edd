/* source.h - a model as C source: kernels, plan and one function, without a runtime. */
#ifndef FG_CODEGEN_SOURCE_H
#define FG_CODEGEN_SOURCE_H

#include "codegen/target.h"

typedef struct fg_source_weight { /* bytes of the weights' file */
    const void *data;
    size_t bytes, offset;
} fg_source_weight;

typedef struct fg_source_text {
    const char *source, *header;
    const fg_source_weight *weight;
    int nweight;
    size_t bytes; /* of the whole file */
} fg_source_text;

/* A FUSED module without states; see special.h. Functions and files are called `name`, which
 * is a name in C. False with a diagnostic that names the node when something is not
 * covered. */
bool fg_source_make(fg_module *m, fg_arena *a, const char *name,
                    const fg_specials *specials, fg_source_text *out);

#endif
