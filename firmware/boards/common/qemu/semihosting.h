/* SPDX-License-Identifier: Apache-2.0 */
/** Arm semihosting: the firmware's way to the host's files and to an exit status. */
#ifndef MDY_SEMIHOSTING_H
#define MDY_SEMIHOSTING_H

#include <stdint.h>

/* Operation numbers of the Arm semihosting specification. */
#define SYS_OPEN 0x01U
#define SYS_WRITE 0x05U
#define SYS_READ 0x06U
#define SYS_SEEK 0x0AU
#define SYS_FLEN 0x0CU
#define SYS_EXIT_EXTENDED 0x20U

/* File modes of SYS_OPEN, after fopen. */
#define MODE_READ 1U          /* rb */
#define MODE_UPDATE 3U        /* r+b */
#define MODE_WRITE 5U         /* wb */
#define MODE_CREATE_UPDATE 7U /* w+b */

#define ADP_STOPPED_APPLICATION_EXIT 0x20026U

/** Performs `operation`; what `arguments` means and what comes back depends on the operation. */
static inline int32_t semihosting(uint32_t operation, const uint32_t *arguments)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const uint32_t *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory", "cc");
    return (int32_t)r0;
}

/** Ends QEMU with the exit status `code`, 0 to 255. */
_Noreturn static inline void semihosting_exit(uint32_t code)
{
    const uint32_t arguments[] = {ADP_STOPPED_APPLICATION_EXIT, code};
    for (;;) {
        (void)semihosting(SYS_EXIT_EXTENDED, arguments);
    }
}

#endif
