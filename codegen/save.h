/* save.h - compiled models as .forge files; the format is runtime/artifact.h. */
#ifndef FG_CODEGEN_SAVE_H
#define FG_CODEGEN_SAVE_H

#include "codegen/compile.h"
#include "runtime/artifact.h"

typedef struct fg_save_options {
    const char *path;
    bool borrow; /* weights stay in the model's files, named relative to its folder */
    /* NULL, or a folder below that of `path`: large weights go there, each into a file of
     * its own that is named by its content, so that artifacts share them. */
    const char *store;
    /* borrow: identities of all files behind the model; NULL: the lengths of those that hold
     * weights, and the weights' digests. */
    const fg_source *source;
    int nsource;
    bool keep_times; /* leave timings in the report */
    bool transient;  /* may be lost when the machine stops */
    uint64_t limit;  /* bytes: nothing is written when it would be more; 0: none */
} fg_save_options;

/* Variants of one model, compiled with keep_objects. False with a diagnostic. */
bool fg_save(fg_ctx *cx, fg_compiled *const *variant, int n, const fg_save_options *o);

/* The report with every measured number 0: the same model gives the same text. */
const char *fg_report_stable(fg_arena *a, const char *json);

#endif
