/* knobs.h - options given as one text. */
#ifndef FG_TOOLS_KNOBS_H
#define FG_TOOLS_KNOBS_H

#include "tools/tool.h"

/* Parts the text, or that of @FILE, into at most `most` options; they live until the next
 * call. Message printed on failure. */
int tool_knobs_split(const char *given, char **word, int most, int *n);

#endif
