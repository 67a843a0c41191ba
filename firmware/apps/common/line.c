/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Hardware at the other end of the board's serial line: another controller with the sensor and the button, or a script.
 *
 * The board asks for each sample with four bytes, LINE_READY and three zeros, and only then listens: while it works or
 * commits, a byte would be lost. The other end sends label and age, two bytes each, the low one first, label 0xFFFF while no
 * button is down; then the sample's values. The board answers each event: event, status (0 or negative), prediction, low
 * byte first. The line has to be one that loses nothing.
 */
#include "hardware.h"
#include "mdy/port.h"

#define HEAD 4u
#define LINE_READY 4u /* in the place of an event */

typedef struct {
    uint16_t label, age;
} line_t;

static line_t line;

static int receive(uint8_t *to, uint32_t n)
{
    const mdy_port_t *const port = &mdy_port;
    for (uint32_t done = 0; done < n;) {
        const int32_t got = port->receive(port->context, &to[done], n - done);
        if (got <= 0) {
            return 0;
        }
        done += (uint32_t)got;
    }
    return 1;
}

/* Whoever does not listen needs no answer. */
static void tell(uint8_t event, int8_t status, uint16_t prediction)
{
    const uint8_t answer[HEAD] = {event, (uint8_t)status, (uint8_t)prediction, (uint8_t)(prediction >> 8)};
    const mdy_port_t *const port = &mdy_port;
    (void)port->send(port->context, answer, HEAD);
}

static int sample(void *context, int8_t *input, uint32_t bytes)
{
    line_t *const from = context;
    uint8_t head[HEAD];
    tell(LINE_READY, 0, 0);
    if (!receive(head, HEAD) || !receive((uint8_t *)input, bytes)) {
        return -1;
    }
    from->label = (uint16_t)(head[0] | head[1] << 8);
    from->age = (uint16_t)(head[2] | head[3] << 8);
    return 1;
}

static uint16_t label(void *context, uint16_t *age)
{
    const line_t *const from = context;
    *age = from->age;
    return from->label;
}

static void show(void *context, app_event_t event, uint16_t prediction, mdy_status_t status)
{
    (void)context;
    tell((uint8_t)event, (int8_t)status, prediction);
}

const app_hardware_t app_hardware = {
    .context = &line,
    .sample = sample,
    .label = label,
    .show = show,
};
