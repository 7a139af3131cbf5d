/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file partial.h
 * Files that are not complete yet and must not outlive a job that is cut short.
 *
 * Between bsattn_partial_add() and bsattn_partial_forget() a file is removed if the process gets
 * SIGINT, SIGTERM or SIGHUP, or calls bsattn_partial_remove_all() before it gives up. Not thread
 * safe.
 */
#ifndef BSATTN_BASE_PARTIAL_H
#define BSATTN_BASE_PARTIAL_H

/** Watch over a file. A path too long to remember, or one too many, is left unwatched. */
void bsattn_partial_add(const char *path);

/** Another process of the job may watch over files: a signal that ends this one, too, leaves it some time.
 *  Open MPI kills all processes as soon as the first has gone. */
void bsattn_partial_of_others(void);

/** The file is complete, or removed already. */
void bsattn_partial_forget(const char *path);

/** Remove every file watched over. Async-signal-safe. */
void bsattn_partial_remove_all(void);

#endif
