/* map.h - hash maps of tokens: string to number, and number to number. They never shrink
 * and their keys are borrowed. */
#ifndef FG_TEXT_MAP_H
#define FG_TEXT_MAP_H

#include "text/unicode.h"

typedef struct fg_strmap {
    fg_arena *a;
    struct fg_strslot *slot;
    size_t n, cap;
} fg_strmap;
fg_strmap fg_strmap_new(fg_arena *a, size_t expected);
void fg_strmap_set(fg_strmap *m, fg_str key, int32_t value);
int32_t fg_strmap_get(const fg_strmap *m, fg_str key); /* -1: not there */

typedef struct fg_intmap {
    fg_arena *a;
    struct fg_intslot *slot;
    size_t n, cap;
} fg_intmap;
fg_intmap fg_intmap_new(fg_arena *a, size_t expected);
void fg_intmap_set(fg_intmap *m, uint64_t key, uint64_t value);
bool fg_intmap_get(const fg_intmap *m, uint64_t key, uint64_t *value);

/* Every prefix of a set of strings: a step is one look-up of (node, byte). */
typedef struct fg_trie {
    fg_intmap step;
    int32_t *value; /* by node; -1: no string ends here */
    size_t n, cap;
    bool first[256]; /* bytes that some string begins with */
} fg_trie;
fg_trie fg_trie_new(fg_arena *a, size_t expected);
void fg_trie_add(fg_trie *t, fg_str key, int32_t value);
bool fg_trie_step(const fg_trie *t, uint32_t *node, unsigned char byte);

#endif
