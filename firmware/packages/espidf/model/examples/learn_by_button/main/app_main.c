/* SPDX-License-Identifier: Apache-2.0 */
/* Where ESP-IDF begins: a task that runs main.c, whose main is called application here. */
int application(void);
void app_main(void);

void app_main(void)
{
    (void)application();
}
