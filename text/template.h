/* template.h - chat templates: the part of Jinja that they use, with the settings that
 * transformers gives them (blocks trimmed, no automatic escaping).
 *
 * Statements   for/else/break/continue, if/elif/else, set, set block, macro, generation
 * Expressions  constants, lists, dicts, attributes, items, slices, calls, filters, tests,
 *              conditions, arithmetic, comparison
 *
 * A template comes from a file: steps, depth and output are bounded.
 */
#ifndef FG_TEXT_TEMPLATE_H
#define FG_TEXT_TEMPLATE_H

#include "text/unicode.h"

struct cJSON;

/* Variables are the members of an object. False with a diagnostic that begins with name
 * and line; what the template itself raises is one. */
bool fg_template_render(fg_ctx *cx, fg_arena *a, const char *name, fg_str text,
                        const struct cJSON *variables, fg_str *out);

#endif
