/* dump.h - the views of forge dump, each written to o. */
#ifndef FG_TOOLS_DUMP_H
#define FG_TOOLS_DUMP_H

#include "codegen/compile.h"

void dump_operations(fg_text *o); /* ops.def as Markdown tables */
void dump_passes(fg_text *o);     /* passes.def likewise */
void dump_ledger(fg_text *o, const fg_report *r);
/* What was fused, and what was not and why; of one pass, or all when it is "". */
void dump_explain(fg_text *o, const fg_report *r, const char *pass);
void dump_plan(fg_text *o, fg_module *m, const fg_report *r); /* of a PLACED module */
void dump_dot(fg_text *o, fg_module *m);                      /* for Graphviz */

#endif
