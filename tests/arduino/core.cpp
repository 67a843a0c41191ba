/* SPDX-License-Identifier: Apache-2.0 */
/* An Arduino core whose pins and serial port are the link of a mdy_port_t; it ends when the link does. */
#include "Arduino.h"
#include "mdy/port.h"

SerialPort Serial;

#ifdef __arm__
typedef void (*constructor)();
extern "C" constructor __init_array_start[], __init_array_end[]; /* of the linker script */

static void construct()
{
    for (constructor *each = __init_array_start; each < __init_array_end; each++) {
        (*each)();
    }
}

/* Semihosting: SYS_EXIT_EXTENDED, ADP_Stopped_ApplicationExit, status 0. */
static void end()
{
    const uint32_t arguments[] = {0x20026, 0};
    register uint32_t r0 __asm__("r0") = 0x20;
    register const uint32_t *r1 __asm__("r1") = arguments;
    for (;;) {
        __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    }
}
#else
#include <cstdlib>

static void construct()
{
}

static void end()
{
    std::exit(0);
}
#endif

static uint8_t next()
{
    uint8_t byte = 0;
    if (mdy_port.receive(mdy_port.context, &byte, 1) != 1) {
        end();
    }
    return byte;
}

void pinMode(uint8_t, uint8_t)
{
}

int digitalRead(uint8_t)
{
    return next();
}

void digitalWrite(uint8_t, uint8_t)
{
}

int analogRead(uint8_t)
{
    const int low = next();
    return low | next() << 8;
}

void delay(unsigned long ms)
{
    if (ms >= 1000) {
        end(); /* what a sketch that has stopped does for ever */
    }
}

void SerialPort::begin(unsigned long)
{
}

int SerialPort::available()
{
    return 1; /* read() waits */
}

int SerialPort::read()
{
    return next();
}

size_t SerialPort::write(const uint8_t *from, size_t n)
{
    return mdy_port.send(mdy_port.context, from, static_cast<uint32_t>(n)) == MDY_OK ? n : 0;
}

size_t SerialPort::print(const char *text)
{
    size_t n = 0;
    while (text[n] != '\0') {
        n++;
    }
    return write(reinterpret_cast<const uint8_t *>(text), n);
}

size_t SerialPort::print(int value)
{
    char digits[12];
    char *at = &digits[11];
    *at = '\0';
    unsigned rest = value < 0 ? 0u - static_cast<unsigned>(value) : static_cast<unsigned>(value);
    do {
        *--at = static_cast<char>('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (value < 0) {
        *--at = '-';
    }
    return print(at);
}

size_t SerialPort::println(const char *text)
{
    return print(text) + print("\r\n");
}

size_t SerialPort::println(int value)
{
    return print(value) + print("\r\n");
}

int main()
{
    construct();
    setup();
    for (;;) {
        loop();
    }
}
