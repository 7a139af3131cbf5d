/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/help.h"
#include "cli/verbs.h"

bsattn_status_t bsattn_verb_help(const bsattn_cli_t *cli)
{
    return cli->speaks ? bsattn_help_print_topic(cli->options->topic, stdout) : BSATTN_OK;
}
