/* dump.h - the views of forge dump, each written to o, and those that are data also as
 * JSON, which the caller deletes. */
#ifndef FG_TOOLS_DUMP_H
#define FG_TOOLS_DUMP_H

#include <cjson/cJSON.h>

#include "codegen/compile.h"
#include "passes/place.h"
#include "tools/history.h"

#define DUMP_DEVICE "cpu"
#define DUMP_DEVICE_REASON "the only device of this build"

void dump_operations(fg_text *o); /* ops.def as Markdown tables */
void dump_passes(fg_text *o);     /* passes.def likewise */
void dump_ledger(fg_text *o, const fg_report *r);
/* What was fused, and what was not and why; of one pass, or all when it is "". */
void dump_explain(fg_text *o, const fg_report *r, const char *pass);
void dump_placement(fg_text *o, fg_module *m);
void dump_node(fg_text *o, fg_compiled *c,
               const history_node *n); /* of a PLACED module */
/* The kernel that computes a part of the node now; NULL: none does. */
const fg_inst *dump_kernel_of(const fg_block *b, const history_node *n);

/* dump_plan.c: storage of a PLACED module. */
typedef struct dump_buffer {
    fg_reg reg;
    int64_t bytes;     /* at nominal sizes */
    fg_liverange live; /* with that of its aliases */
} dump_buffer;
typedef struct dump_memory {
    dump_buffer *row; /* all that have storage of their own, constants excepted */
    int n;
    size_t cap;
    int constants, positions;
    int64_t constant_bytes;
    int64_t peak; /* bytes of the arena live at once, and first where */
    int peak_at;
} dump_memory;
dump_memory dump_memory_of(fg_module *m, fg_arena *a);
void dump_plan(fg_text *o, fg_module *m, const fg_report *r);
void dump_plan_register(fg_text *o, fg_module *m, fg_reg r); /* one line */
const char *dump_storage(fg_module *m, fg_arena *a, fg_reg r);

/* dump_dot.c: the graph of a FUSED module for Graphviz. */
void dump_dot(fg_text *o, fg_module *m);
const char *dump_kernel_name(const fg_inst *kernel);
static inline bool
dump_is_alias(fg_module *m, const fg_inst *kernel)
{
    return fg_kernel_alias(m, kernel) != 0;
}

/* dump_json.c: from the report's tree, and what it does not hold. */
cJSON *dump_json_explain(const cJSON *report, const fg_report *r, const char *pass);
cJSON *dump_json_plan(const cJSON *report, fg_module *m, fg_arena *a);
cJSON *dump_json_placement(const cJSON *report, fg_module *m);
/* Of a PLACED module. */
cJSON *dump_json_node(fg_module *m, fg_arena *a, const history_node *n);

/* dump_artifact.c: what a .forge file holds, to stdout; the exit code. */
int dump_artifact(const char *path);

#endif
