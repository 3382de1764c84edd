/* artifact.h - the .forge file: a compiled model that is mapped and run.
 *
 *     0    header     magic, version, length, number of sections; digest of header and table
 *     96   table      one row per section: kind, variant, place, length, digest
 *     ..   INFO       what the file needs and where its weights are (fg_artifact_info)
 *          TABLES v   fg_program of variant v (tables.c)
 *          CODE v     a relocatable ELF object of variant v, as often as it has objects
 *          REPORT v   the compiler's report, JSON text and a zero
 *     page weights    each at a multiple of 64, large ones at a multiple of 4096
 *
 * Integers are little endian, sections begin at multiples of 64. A variant is the whole
 * program for one instruction set; loading takes the best that this machine can run, and
 * all variants share the weights, equal bytes once. A weight's source is 0, this file, or
 * another one beside it: a file of weights that several artifacts share, or the model's
 * own data. Sources that are files are mapped read-only, so processes share their pages.
 *
 * Nothing in the file depends on when, where or by how many threads it was made.
 *
 * Trust: header, table, INFO, TABLES, CODE and REPORT are compared with their digests when
 * the file is opened, weights when asked for, and tables are checked index by index
 * (check.c), so that a damaged file or a hostile one cannot make loading leave its
 * buffers. But CODE is machine code and will be executed: a digest is no signature.
 * Load artifacts only from where you would load a shared library from.
 */
#ifndef FG_RUNTIME_ARTIFACT_H
#define FG_RUNTIME_ARTIFACT_H

#include "runtime/digest.h"
#include "runtime/isa.h"
#include "runtime/rt.h"
#include "runtime/tables.h"

#define FG_ARTIFACT_MAGIC                                                                \
    "\x89"                                                                               \
    "FORGE\r\n"
#define FG_ARTIFACT_VERSION 6 /* of everything here, tables.c and abi.h */

enum {
    FG_ARTIFACT_HEAD = 96,
    FG_ARTIFACT_ROW = 48,
    FG_ARTIFACT_ALIGN = 64,
    FG_ARTIFACT_PAGE = 4096
};

typedef enum {
    FG_SECTION_INFO = 1,
    FG_SECTION_TABLES,
    FG_SECTION_CODE,
    FG_SECTION_REPORT
} fg_sectionkind;

typedef struct fg_section {
    uint32_t kind, variant;
    uint64_t offset, bytes;
    fg_digest digest;
} fg_section;

/* Identity of a file whose bytes the artifact does not carry. An artifact that is shipped
 * has the size alone, one of the compile cache all of it. */
typedef struct fg_source {
    const char *path; /* relative to the artifact's folder, never above it */
    uint64_t size;
    uint64_t inode, mtime,
        ctime;        /* nanoseconds; compared when sample is not of all bytes */
    fg_digest sample; /* zero: nothing but the size is compared */
} fg_source;

typedef struct fg_segment { /* a weight */
    uint32_t source;        /* 0: this file; else sources[source - 1] */
    uint64_t offset, bytes;
    fg_digest digest; /* of the bytes; zero when the source's identity stands for it */
} fg_segment;

typedef struct fg_variant {
    const char *isa; /* isa.h */
    uint32_t nfn;    /* functions fg_k0 .. in its objects */
} fg_variant;

typedef struct fg_artifact_info {
    const char *requirement; /* "forge-2 x86_64-linux x86-64-v3|x86-64-v4" */
    const char *compiler;    /* FORGE_VERSION that made it */
    const char *model;       /* name */
    uint32_t nsource, nsegment, nvariant;
    fg_source *source;
    fg_segment *segment;
    fg_variant *variant;
} fg_artifact_info;

typedef struct fg_filemap {
    const uint8_t *data;
    size_t size;
    int borrowed; /* memory of the host's: not ours to unmap */
} fg_filemap;

typedef struct fg_artifact {
    forge_ctx *cx;
    fg_pile pile;
    fg_filemap map;
    const char *path;
    uint32_t nsection;
    fg_section *section;
    fg_artifact_info info;
} fg_artifact;

/* Maps and checks everything but weights. *out goes with fg_artifact_close. */
forge_status fg_artifact_open(forge_ctx *cx, const char *path, fg_artifact **out);
/* The same of one in memory, which is not copied. */
forge_status fg_artifact_borrow(forge_ctx *cx, const void *data, size_t bytes,
                                fg_artifact **out);
void fg_artifact_close(fg_artifact *a); /* takes NULL */
/* The n-th section of a kind and variant; NULL: there are fewer. */
const fg_section *fg_artifact_section(const fg_artifact *a, fg_sectionkind kind,
                                      uint32_t variant, uint32_t n);
/* The variant to run here; -1: none can. */
int fg_artifact_choose(const fg_artifact *a);
/* A model of it, which takes the artifact over, failed or not. Sources are looked for in
 * `folder` (NULL: the artifact's). verify: compare weights with their digests. */
forge_status fg_artifact_model(fg_artifact *a, const char *folder, int verify,
                               forge_model **out);
/* Reads or writes the INFO section. */
void fg_io_info(fg_tables *x, fg_artifact_info *i);

/* source.c: the file at path, mapped at a multiple of a large page; false with *why. */
int fg_map_file(const char *path, fg_filemap *map, const char **why);
void fg_unmap_file(fg_filemap *map);
/* Relative, and no step up. */
int fg_path_below(const char *path);
/* What the cache compares of a file that is too large to be hashed whole. */
int fg_source_identify(const char *path, fg_source *out);
int fg_source_is_whole(const fg_source *s); /* sample is a digest of all bytes */
int fg_source_unchanged(const char *path, const fg_source *s);

#endif
