/* SPDX-License-Identifier: Apache-2.0 */
/** @file cli.h  From argv to the exit code. */
#ifndef BSATTN_CLI_CLI_H
#define BSATTN_CLI_CLI_H

/** Read the options, start the job if the verb needs one, carry out the verb, and say what went
 *  wrong.
 *  @return the exit code: a bsattn_status_t, the same on every rank */
int bsattn_cli_main(int argc, char **argv);

#endif
