/* link.h - from object files in memory to code that runs. */
#ifndef FG_CODEGEN_CPU_LINK_H
#define FG_CODEGEN_CPU_LINK_H

#include <stdbool.h>
#include <stddef.h>

typedef struct fg_image {
    void  *base;                /* the mapping */
    size_t bytes;
    size_t code_bytes;
} fg_image;

/* Links one relocatable ELF object into fresh memory: code executable, nothing both writable and executable.
 * find(user, name, address) is called for each function the object defines. False with *why (static text). */
bool fg_link(fg_image *im, const void *object, size_t bytes,
             void (*found)(void *user, const char *name, void *address), void *user, const char **why);
void fg_unlink(fg_image *im);

/* Drops the compiler's own code from resident memory (trim.c). */
void fg_cpu_trim(void);

#endif
