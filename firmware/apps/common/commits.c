/* SPDX-License-Identifier: Apache-2.0 */
#include "commits.h"

#include "mdy/setup.h"

/* The defaults of `medyate run` (recipe.py). */
#ifndef APP_RATE
#define APP_RATE 0.01
#endif
#ifndef APP_CLIP
#define APP_CLIP 0.3
#endif

mdy_config_t app_config(const mdy_flash_t *flash)
{
    mdy_config_t config = {.flash = flash, .seed = 1};
    config.schedule.rate_mult = MDY_RATE_MULT(APP_RATE);
    config.schedule.rate_exponent = MDY_RATE_EXPONENT(APP_RATE);
    config.schedule.clip = MDY_CLIP(APP_CLIP);
    return config;
}

static int is_time(const app_commits_t *commits, const mdy_t *net, int is_down)
{
    const uint32_t learned = net->epoch_step;
    if (is_down || learned <= commits->refused) {
        return 0;
    }
    const int is_whole = (learned & mdy_batch_rest(net->model)) == 0u;
    return (is_whole && learned - commits->refused >= commits->steps) || commits->up >= commits->idle;
}

mdy_status_t app_commit(app_commits_t *commits, mdy_t *net, const app_hardware_t *hardware, int is_down)
{
    commits->up = is_down ? 0u : commits->up + 1u;
    if (!is_time(commits, net, is_down)) {
        return MDY_OK;
    }
    const uint32_t learned = net->epoch_step;
    const mdy_status_t status = mdy_end_epoch(net);
    commits->refused = status == MDY_OK ? 0u : learned;
    hardware->show(hardware->context, status == MDY_OK ? APP_COMMITTED : APP_REFUSED, 0, status);
    return status == MDY_DAMAGED ? status : MDY_OK;
}
