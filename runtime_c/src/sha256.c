/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/sha256.h"

static const uint32_t round_constants[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
    0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
    0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
    0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
    0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
    0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
};

static uint32_t rotate(uint32_t x, uint32_t n)
{
    return x >> n | x << (32u - n);
}

/* FIPS 180-4, 6.2.2; of the message schedule the last 16 words are kept. */
static void compress(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[16];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (uint32_t t = 0; t < 64; t++) {
        if (t < 16) {
            w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 | (uint32_t)block[4 * t + 2] << 8 |
                   (uint32_t)block[4 * t + 3];
        } else {
            const uint32_t x = w[(t + 1) % 16], y = w[(t + 14) % 16];
            w[t % 16] += (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) + w[(t + 9) % 16] +
                         (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
        }
        const uint32_t first = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) +
                               round_constants[t] + w[t % 16];
        const uint32_t second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + first;
        d = c;
        c = b;
        b = a;
        a = first + second;
    }
    const uint32_t sums[8] = {a, b, c, d, e, f, g, h};
    for (uint32_t i = 0; i < 8; i++) {
        state[i] += sums[i];
    }
}

void mdy_sha256_start(mdy_sha256_t *hash)
{
    static const uint32_t start[8] = {
        0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u,
    };
    for (uint32_t i = 0; i < 8; i++) {
        hash->state[i] = start[i];
    }
    hash->bytes = 0;
}

void mdy_sha256_feed(mdy_sha256_t *hash, const uint8_t *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        hash->block[hash->bytes++ % MDY_SHA256_BLOCK] = bytes[i];
        if (hash->bytes % MDY_SHA256_BLOCK == 0) {
            compress(hash->state, hash->block);
        }
    }
}

void mdy_sha256_end(mdy_sha256_t *hash, uint8_t digest[MDY_SHA256_BYTES])
{
    const uint32_t bytes = hash->bytes;
    uint8_t next = 0x80;
    do {
        mdy_sha256_feed(hash, &next, 1);
        next = 0;
    } while (hash->bytes % MDY_SHA256_BLOCK != MDY_SHA256_BLOCK - 8u);
    for (uint32_t i = 0; i < 8; i++) { /* the length in bits, below 2^32 */
        const uint8_t part = i < 4 ? 0 : (uint8_t)(bytes << 3 >> (8 * (7 - i)));
        mdy_sha256_feed(hash, &part, 1);
    }
    for (uint32_t i = 0; i < MDY_SHA256_BYTES; i++) {
        digest[i] = (uint8_t)(hash->state[i / 4] >> (8 * (3 - i % 4)));
    }
}

/* Starts a hash with the key's block, every byte xor `pad`. */
static void start_padded(mdy_sha256_t *hash, const uint8_t *key, uint32_t n, uint8_t pad)
{
    mdy_sha256_start(hash);
    for (uint32_t i = 0; i < MDY_SHA256_BLOCK; i++) {
        const uint8_t byte = (uint8_t)((i < n ? key[i] : 0) ^ pad);
        mdy_sha256_feed(hash, &byte, 1);
    }
}

void mdy_hmac_start(mdy_sha256_t *hash, const uint8_t *key, uint32_t n)
{
    start_padded(hash, key, n, 0x36);
}

void mdy_hmac_end(mdy_sha256_t *hash, const uint8_t *key, uint32_t n, uint8_t digest[MDY_SHA256_BYTES])
{
    mdy_sha256_end(hash, digest);
    start_padded(hash, key, n, 0x5c);
    mdy_sha256_feed(hash, digest, MDY_SHA256_BYTES);
    mdy_sha256_end(hash, digest);
}
