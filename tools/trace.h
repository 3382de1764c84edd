/* trace.h - a compilation and a run as a trace for chrome://tracing or ui.perfetto.dev. */
#ifndef FG_TOOLS_TRACE_H
#define FG_TOOLS_TRACE_H

#include "tools/measure.h"

const char *trace_json(fg_compiled *c, const measure *x); /* in c->a */

#endif
