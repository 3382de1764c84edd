/* digest.h - 128 bits that stand for a block of bytes: integrity of files, identity of
 * weights, keys of the cache. Fast (memory speed) and the same on every machine; not
 * meant to withstand someone who builds two blocks with one digest on purpose. */
#ifndef FG_RUNTIME_DIGEST_H
#define FG_RUNTIME_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct fg_digest {
    uint8_t b[16];
} fg_digest;

fg_digest fg_digest_of(const void *data, size_t n);
/* Of several blocks: the digest of a and then b is fg_digest_join(da, b, nb). */
fg_digest fg_digest_join(fg_digest before, const void *data, size_t n);

static inline int
fg_digest_same(const fg_digest *a, const fg_digest *b)
{
    return !memcmp(a, b, sizeof *a);
}

/* 32 digits and a zero. */
void fg_digest_text(fg_digest d, char out[33]);

#endif
