/* SPDX-License-Identifier: Apache-2.0 */
/* The demonstration program: one image that trains and infers on request of the host. */
#include "mdy/serve.h"
#include "mdy_model.h"

static mdy_server_t server;

int main(void)
{
    server.model = &mdy_model;
    server.memory = &mdy_memory;
    return mdy_serve(&server) == MDY_OK ? 0 : 1;
}
