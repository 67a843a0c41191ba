/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/sha256.h"

void sha256_probe(const uint8_t *bytes, uint32_t n, uint32_t first, uint8_t *digest);
void hmac_probe(const uint8_t *key, uint32_t key_bytes, const uint8_t *bytes, uint32_t n, uint8_t *digest);

/* In two pieces. */
void sha256_probe(const uint8_t *bytes, uint32_t n, uint32_t first, uint8_t *digest)
{
    mdy_sha256_t hash;
    mdy_sha256_start(&hash);
    mdy_sha256_feed(&hash, bytes, first);
    mdy_sha256_feed(&hash, bytes + first, n - first);
    mdy_sha256_end(&hash, digest);
}

void hmac_probe(const uint8_t *key, uint32_t key_bytes, const uint8_t *bytes, uint32_t n, uint8_t *digest)
{
    mdy_sha256_t hash;
    mdy_hmac_start(&hash, key, key_bytes);
    mdy_sha256_feed(&hash, bytes, n);
    mdy_hmac_end(&hash, key, key_bytes, digest);
}
