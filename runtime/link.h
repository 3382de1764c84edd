/* link.h - from object files in memory to code that runs. */
#ifndef FG_RUNTIME_LINK_H
#define FG_RUNTIME_LINK_H

#include <stdbool.h>
#include <stddef.h>

typedef struct fg_function {
    const void *at;
    size_t bytes;
    int object; /* of those that were linked */
    int number; /* 7 of fg_k7; -1: called by such functions only */
} fg_function;

typedef struct
    fg_linked { /* of one object: from the first function's code on, and its .eh_frame */
    const void *text, *unwind;
    size_t text_bytes, unwind_bytes;
} fg_linked;

typedef struct fg_image {
    void *base; /* the mapping */
    size_t bytes;
    size_t code_bytes;
    fg_function *function;
    fg_linked *part;
    int nfunction, npart;
} fg_image;

typedef struct fg_object { /* one relocatable ELF object */
    const void *data;
    size_t bytes;
} fg_object;

/* Links objects into fresh memory: code executable, nothing both writable and
 * executable. They may call each other's functions. found(user, name, address) is
 * called for each function, which the image lists too. Every offset in an object is checked, the code itself cannot
 * be. False with *why (static text). */
bool fg_link(fg_image *im, const fg_object *object, int n,
             void (*found)(void *user, const char *name, void *address), void *user,
             const char **why);
void fg_unlink(fg_image *im);

#endif
