/* knobs.h - the numbers of knobs.def: from text, and as text. */
#ifndef FG_CODEGEN_KNOBS_H
#define FG_CODEGEN_KNOBS_H

#include "ir/ir.h"

typedef enum {
#define KNOB(name, ...) FG_KNOB_##name,
#include "codegen/knobs.def"
    FG_NKNOBS
} fg_knobid;

typedef enum {
    FG_KNOB_MANY = 1,
    FG_KNOB_FEW,
    FG_KNOB_BOTH,
    FG_KNOB_SHARED,
    FG_KNOB_REACHES
} fg_knobreach;

enum { FG_KNOB_TRIES = 6 };

typedef struct fg_knobinfo {
    const char *name;
    int lo, hi, dflt;
    bool power; /* 0 or a power of two */
    fg_knobreach on;
    int tries[FG_KNOB_TRIES]; /* ends with 0 */
    const char *meaning;
} fg_knobinfo;
extern const fg_knobinfo fg_knobs[];

/* Defaults, then what "rows=5,few=4" says; NULL: nothing. False with a diagnostic; `what` is
 * the text's name in it. */
bool fg_knobs_read(fg_ctx *cx, const char *what, const char *text, int *knob);
/* Those that are not the default, likewise; "" when none. */
void fg_knobs_write(fg_text *t, const int *knob);

#endif
