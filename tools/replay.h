/* replay.h - a run that forge_run_record wrote, done again and compared. */
#ifndef FG_TOOLS_REPLAY_H
#define FG_TOOLS_REPLAY_H

#include "tools/tool.h"

typedef struct replay replay;

/* The options that the recorded model was compiled with, as "--knobs=.."; NULL when the file does
 * not tell. The caller frees it. */
char *replay_knobs(const char *path);
/* Reads the file and binds its inputs; NULL with a diagnostic. Memory from a. */
replay *replay_open(fg_ctx *cx, fg_arena *a, const char *path, forge_ctx *fcx,
                    forge_run *r);
/* After the run: prints where it differs from the recorded one, bit by bit. An exit code. */
int replay_compare(replay *x, const forge_model *m);

#endif
