/* cache.h - compiled models kept on disk between processes. */
#ifndef FG_CODEGEN_CACHE_H
#define FG_CODEGEN_CACHE_H

#include "codegen/save.h"

typedef struct fg_cache {
    forge_ctx *cx;
    const forge_options *o;
    const char *model;  /* path */
    char folder[4096];  /* of the cache; "": there is none */
    char entry[4200];   /* the file of this model and these options */
    char beside[4096];  /* the model's folder, as a full path */
    fg_source identity; /* of the model before anything was read from it */
    uint64_t start;     /* when that was, in nanoseconds */
} fg_cache;

/* Whether there is a cache for this compilation; what stands in the way is logged. */
bool fg_cache_open(fg_cache *c, forge_ctx *cx, const char *model, const forge_options *o);
/* The model from the cache; false: it has to be compiled. */
bool fg_cache_find(fg_cache *c, forge_model **out);
/* Keeps what was compiled, with keep_objects; failing is logged and does no harm. */
void fg_cache_store(fg_cache *c, fg_compiled *made);

#endif
