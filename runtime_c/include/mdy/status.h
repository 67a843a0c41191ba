/* SPDX-License-Identifier: Apache-2.0 */
/** What a fallible call of the runtime returns: 0, or one negative code of this list. */
#ifndef MDY_STATUS_H
#define MDY_STATUS_H

/* One list; the enum and the names are both made from it, so that they cannot drift apart. */
#define MDY_STATUS_LIST(X)                                                                                             \
    X(OK, 0, "done")                                                                                                   \
    X(ARGUMENT, -1, "an argument is out of its range")                                                                 \
    X(ARENA, -2, "a region of the arena is too small or misaligned")                                                   \
    X(STATE, -3, "the call does not fit the state: init first, or the sample is incomplete")                           \
    X(FLASH, -4, "the flash refused a read, an erase or a program operation")                                          \
    X(EMPTY, -5, "no valid generation in flash")                                                                       \
    X(MODEL, -6, "the generation in flash belongs to another model or format")                                         \
    X(FRAME, -7, "a frame was damaged, too long or of another protocol version")                                       \
    X(LINK, -8, "the link was closed")                                                                                 \
    X(ABORTED, -9, "the application's yield hook stopped the step")                                                    \
    X(DAMAGED, -10, "the generation in use has changed in flash since it was loaded")                                  \
    X(SESSION, -11, "the request is of a session that is not open")                                                    \
    X(DENIED, -12, "the image does not allow this request, or its tag is wrong")

typedef enum {
#define MDY_STATUS_ENUM(name, code, text) MDY_##name = (code),
    MDY_STATUS_LIST(MDY_STATUS_ENUM)
#undef MDY_STATUS_ENUM
} mdy_status_t;

#endif
