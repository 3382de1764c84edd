/* emit.h - what forge compile writes when it is not a .forge file. */
#ifndef FG_TOOLS_EMIT_H
#define FG_TOOLS_EMIT_H

#include "tools/tool.h"

typedef struct emit_job {
    const tool_common *c;
    const forge_save_options *save; /* CPUs, and where weights are kept */
    const char *kind;               /* a word of emit_kinds */
    const char *out;
    const char *symbol; /* C names begin with it */
} emit_job;

extern const char *const emit_kinds[]; /* "forge", "obj", ..; ends with NULL */
/* ".forge", "lib" and ".so": what stands around a model's name. */
const char *emit_suffix(const char *kind);
/* An exit code; message printed on failure. */
int emit(forge_ctx *cx, const emit_job *j);
/* "dir/libbert-base.so" as the beginning of C names, "bert_base", in `out`. */
void emit_symbol(const char *path, char *out, size_t n);

#endif
