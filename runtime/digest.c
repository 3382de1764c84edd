/* digest.c - a wide multiply per 16 bytes, in eight independent chains.
 *
 * A word is multiplied with its neighbour, both masked by constants, and the halves of the
 * 128-bit product are folded together with what the chain held: any changed bit reaches
 * every bit of the chain. Each pair of words feeds two chains with different masks; each
 * half of the result joins four chains, so it takes all eight to agree by chance.
 */
#include "runtime/digest.h"

/* Fraction bits of square roots of primes. */
static const uint64_t mask[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};

static uint64_t
word(const uint8_t *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof w);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

static uint64_t
fold(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b;

    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static void
block(uint64_t chain[8], const uint8_t *p)
{
    for (int k = 0; k < 4; k++) {
        uint64_t x = word(p + 16 * k), y = word(p + 16 * k + 8);
        chain[k] = fold(x ^ mask[k], y ^ chain[k]) + x;
        chain[k + 4] = fold(y ^ mask[k + 4], x ^ chain[k + 4]) + y;
    }
}

fg_digest
fg_digest_join(fg_digest before, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t chain[8], half[2];
    uint8_t tail[64] = {0};
    fg_digest out;

    for (int k = 0; k < 8; k++)
        chain[k] = mask[7 - k] ^ word(before.b + 8 * (k & 1)) ^ (uint64_t)n * mask[k];
    for (size_t left = n; left >= 64; left -= 64, p += 64)
        block(chain, p);
    if (n % 64) {
        memcpy(tail, p, n % 64);
        block(chain, tail);
    }
    for (int h = 0; h < 2; h++) {
        half[h] = n ^ mask[h];
        for (int k = 0; k < 8; k++)
            half[h] =
                fold(half[h] ^ mask[(k + h) & 7], chain[(k + 4 * h) & 7] ^ mask[k]) +
                chain[(5 * k + 3 * h) & 7];
    }
    for (int k = 0; k < 16; k++)
        out.b[k] = (uint8_t)(half[k / 8] >> 8 * (k % 8));
    return out;
}

fg_digest
fg_digest_of(const void *data, size_t n)
{
    return fg_digest_join((fg_digest){{0}}, data, n);
}

void
fg_digest_text(fg_digest d, char out[33])
{
    for (int k = 0; k < 16; k++) {
        out[2 * k] = "0123456789abcdef"[d.b[k] >> 4];
        out[2 * k + 1] = "0123456789abcdef"[d.b[k] & 15];
    }
    out[32] = 0;
}
