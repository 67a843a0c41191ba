/* SPDX-License-Identifier: Apache-2.0 */
/** Geometry of the emulated flash, the same for every port that emulates one; override with -D. */
#ifndef MDY_FLASH_GEOMETRY_H
#define MDY_FLASH_GEOMETRY_H

#ifndef MDY_FLASH_BYTES
#define MDY_FLASH_BYTES 1048576U
#endif
#ifndef MDY_FLASH_SECTOR_BYTES
#define MDY_FLASH_SECTOR_BYTES 4096U
#endif
#ifndef MDY_FLASH_UNIT_BYTES
#define MDY_FLASH_UNIT_BYTES 8U
#endif

_Static_assert(MDY_FLASH_UNIT_BYTES >= 1 && MDY_FLASH_UNIT_BYTES <= 32, "see port.h");
_Static_assert(MDY_FLASH_SECTOR_BYTES % MDY_FLASH_UNIT_BYTES == 0, "a sector is made of units");
_Static_assert(MDY_FLASH_BYTES % MDY_FLASH_SECTOR_BYTES == 0, "flash is made of sectors");

#endif
