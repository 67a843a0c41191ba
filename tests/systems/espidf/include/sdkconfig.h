/* SPDX-License-Identifier: Apache-2.0 */
/* The defaults of the component's Kconfig. */
#define CONFIG_MEDYATE_PARTITION "medyate"
#define CONFIG_MEDYATE_SECTORS 64
#define CONFIG_MEDYATE_UART 0
#define CONFIG_MEDYATE_BAUD 115200
