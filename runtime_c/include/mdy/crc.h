/* SPDX-License-Identifier: Apache-2.0 */
/** CRC-32 as in zlib (polynomial 0x04C11DB7, reflected); start with 0, feed in pieces. */
#ifndef MDY_CRC_H
#define MDY_CRC_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The CRC of everything fed before (`crc`) followed by n bytes. */
uint32_t mdy_crc32(uint32_t crc, const void *bytes, uint32_t n);

/** The same for a 32-bit word in little-endian order. */
uint32_t mdy_crc32_word(uint32_t crc, uint32_t word);

#ifdef __cplusplus
}
#endif

#endif
