/* outfile.h - files that appear whole or not at all. */
#ifndef FG_CODEGEN_OUTFILE_H
#define FG_CODEGEN_OUTFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FG_OUTFILE_BLOCK = 2 << 20 }; /* a large page, on the machines that matter */

typedef struct fg_outfile {
    int fd;
    uint8_t *block; /* the at % FG_OUTFILE_BLOCK bytes that are not written yet */
    bool named;     /* temp exists in its folder */
    bool transient; /* whole or not at all, but neither durable nor for other users */
    uint64_t at;    /* bytes put */
    bool special;   /* no file, as a pipe: written to as it is */
    char path[4096], temp[4096];
    int error; /* errno of the first failure */
} fg_outfile;

/* A file that will be `path`; without a name until then where the system can do that, so
 * that a process that is killed leaves nothing behind. False: see error. */
bool fg_outfile_open(fg_outfile *f, const char *path, bool transient);
void fg_outfile_put(fg_outfile *f, const void *data, size_t n); /* at the end */
void fg_outfile_pad(fg_outfile *f, uint64_t to);                /* zeros up to there */
/* Makes it durable and gives it its name, in place of what has it. False after any
 * failure, with nothing left behind. */
bool fg_outfile_commit(fg_outfile *f);
void fg_outfile_drop(fg_outfile *f);

#endif
