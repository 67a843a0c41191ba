/* SPDX-License-Identifier: Apache-2.0 */
/** SHA-256 and HMAC. Source: FIPS 180-4, RFC 2104. The linker leaves them out where no link key is built in. */
#ifndef MDY_SHA256_H
#define MDY_SHA256_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_SHA256_BYTES 32u
#define MDY_SHA256_BLOCK 64u

/** A hash under way, of fewer than 2^29 bytes. */
typedef struct {
    uint32_t state[8];
    uint32_t bytes; /* fed so far */
    uint8_t block[MDY_SHA256_BLOCK];
} mdy_sha256_t;

void mdy_sha256_start(mdy_sha256_t *hash);
void mdy_sha256_feed(mdy_sha256_t *hash, const uint8_t *bytes, uint32_t n);
void mdy_sha256_end(mdy_sha256_t *hash, uint8_t digest[MDY_SHA256_BYTES]);

/** Begins the HMAC of what is then fed; the key has at most MDY_SHA256_BLOCK bytes. */
void mdy_hmac_start(mdy_sha256_t *hash, const uint8_t *key, uint32_t n);

/** Ends it, with the same key. */
void mdy_hmac_end(mdy_sha256_t *hash, const uint8_t *key, uint32_t n, uint8_t digest[MDY_SHA256_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
