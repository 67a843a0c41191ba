/* SPDX-License-Identifier: Apache-2.0 */
/* Integer elementary functions. The polynomials are least-squares Chebyshev fits in Q30. */
#include "mdy/fixed.h"

#define MANTISSA_BITS 11 /* of packed norms */

static int leading_bit(uint64_t x)
{
    int bit = 0;
    while (x > 1) {
        x >>= 1;
        bit++;
    }
    return bit;
}

/* Horner's rule in Q30: x in [0, 2^30], coefficients from the highest power down. */
static int64_t polynomial(const int32_t *coefficients, int n, int64_t x)
{
    int64_t value = coefficients[0];
    for (int i = 1; i < n; i++) {
        value = ((value * x) >> 30) + coefficients[i];
    }
    return value;
}

int32_t mdy_log2_16(uint32_t x)
{
    const int bit = leading_bit(x);
    const uint32_t mantissa = bit >= 4 ? x >> (bit - 4) : x << (4 - bit);
    return 16 * bit + (int32_t)(mantissa & 15u);
}

uint32_t mdy_isqrt(uint64_t x)
{
    uint64_t root = 0;
    for (uint64_t bit = UINT64_C(1) << 62; bit != 0; bit >>= 2) {
        if (x >= root + bit) {
            x -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return (uint32_t)root;
}

uint32_t mdy_exp2_neg(uint32_t x)
{
    static const int32_t fit[] = {7342532, -57108570, 257037730, -744134529, 1073737660};
    const uint32_t whole = x >> 16;
    if (whole > 30) {
        return 0;
    }
    const int64_t value = polynomial(fit, 5, (int64_t)(x & 0xffffu) << 14);
    return (uint32_t)(value >> whole);
}

int32_t mdy_ln_q30(uint64_t x)
{
    static const int32_t fit[] = {32322447, -139714658, 304195702, -525228165, 1072679299, 23748};
    const int bit = leading_bit(x);
    const uint64_t mantissa = bit >= 30 ? x >> (bit - 30) : x << (30 - bit);
    const int64_t ln_mantissa = polynomial(fit, 6, (int64_t)(mantissa - (UINT64_C(1) << 30)));
    return (int32_t)((ln_mantissa + (int64_t)(bit - 30) * INT64_C(744261118) + (1 << 13)) >> 14);
}

uint32_t mdy_cos2(uint32_t u)
{
    static const int32_t fit[] = {921429, -22344260, 272354023, -1324672812, 1073741722};
    const int64_t square = ((int64_t)u * u) >> 2;
    const int64_t cosine = polynomial(fit, 5, square);
    const int64_t value = (cosine * cosine) >> 44;
    return value < 0 ? 0 : value > 65536 ? 65536 : (uint32_t)value;
}

uint16_t mdy_norm_pack(uint32_t norm)
{
    uint32_t exponent = 0;
    while (norm >> exponent >> MANTISSA_BITS != 0) {
        exponent++;
    }
    return (uint16_t)(exponent << MANTISSA_BITS | norm >> exponent);
}

uint32_t mdy_norm_unpack(uint16_t code)
{
    return (code & ((1u << MANTISSA_BITS) - 1u)) << (code >> MANTISSA_BITS);
}
