/* special.h - sizes that kernels have code of their own for. */
#ifndef FG_CODEGEN_SPECIAL_H
#define FG_CODEGEN_SPECIAL_H

#include "codegen/target.h"

/* What is wrong with a text as `variants` of forge.h, or NULL. */
const char *fg_specials_wrong(const char *text);
/* The sizes it names, those with most of them first; text NULL: none. False with a diagnostic
 * when the module has no such size. */
bool fg_specials_read(fg_module *m, fg_arena *a, const char *text, fg_specials *out);
/* The kernel as it is for these sizes, outside of any block; the kernel itself when they make
 * no difference. */
fg_inst *fg_special_kernel(fg_module *m, fg_inst *kernel, const fg_special *s);

#endif
