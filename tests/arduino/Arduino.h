/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the sketches call of an Arduino core, by the language reference (docs.arduino.cc), over a mdy_port_t: all that
 * comes in comes from its link in the order of the calls, and what is printed goes there.
 */
#ifndef ARDUINO_H
#define ARDUINO_H

#include <stddef.h>
#include <stdint.h>

constexpr uint8_t LOW = 0, HIGH = 1, INPUT_PULLUP = 2, OUTPUT = 1;
constexpr uint8_t A0 = 14, LED_BUILTIN = 13;

void setup();
void loop();
void pinMode(uint8_t pin, uint8_t mode);
int digitalRead(uint8_t pin); /* one byte of the link */
void digitalWrite(uint8_t pin, uint8_t value);
int analogRead(uint8_t pin); /* two bytes of the link, the low one first */
void delay(unsigned long ms);

class SerialPort
{
  public:
    void begin(unsigned long baud);
    int available();
    int read();
    size_t write(const uint8_t *from, size_t n);
    size_t print(const char *text);
    size_t print(int value);
    size_t println(const char *text);
    size_t println(int value);
};
extern SerialPort Serial;

#endif
