/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file host.h
 * What this process may use of its host and what it has used: name, memory, cores.
 *
 * The functions of the first part read /proc and /sys and ask the system; those of the second part
 * do the reading of one text each, so that they can be tested with the contents of recorded files.
 */
#ifndef BSATTN_BASE_HOST_H
#define BSATTN_BASE_HOST_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Write the host's name, cut at the first dot. "unknown" if it has none. */
void bsattn_host_name(char *out, size_t size);

/** @return the largest resident size this process ever had, in bytes; 0 if unknown */
int64_t bsattn_host_memory_peak(void);

/** @return bytes that can still be allocated: the least of the host's available memory and what the
 *          control groups of this process leave; INT64_MAX if unknown */
int64_t bsattn_host_memory_available(void);

/** More threads than this are not started. */
enum { BSATTN_THREADS_MAX = 4096 };

/** @return BSATTN_OK, or BSATTN_ERR_INPUT for a number that is not 1 .. BSATTN_THREADS_MAX */
bsattn_status_t bsattn_host_check_threads(int threads);

/** @return the number that OMP_NUM_THREADS asks for, at most BSATTN_THREADS_MAX; 0 if it is not set */
int bsattn_host_threads_asked(void);

/** @return logical CPUs this process may run on, >= 1 */
int bsattn_host_cores(void);

/** Write the logical CPUs this process may run on as ranges, e.g. "0-3,8"; cut to what fits. */
void bsattn_host_cores_text(char *out, size_t size);

/** Write the processor's model name, e.g. "Intel(R) Xeon(R) Platinum 8488C"; else "unknown". */
void bsattn_host_processor(char *out, size_t size);

/** Find "name: value kB" in the text of /proc/meminfo or /proc/self/status.
 *  @param name  with the colon, e.g. "VmHWM:"
 *  @return false, leaving *bytes_p, if there is no such line */
bool bsattn_host_parse_kib(const char *text, const char *name, int64_t *bytes_p);

/** Find the path of this process's control group in the text of /proc/self/cgroup.
 *  @param controller  "" for version 2 (the line "0::PATH"), e.g. "memory" for version 1
 *  @return false if there is none or it does not fit */
bool bsattn_host_parse_cgroup(const char *text, const char *controller, char *out, size_t size);

/** What a control group leaves: limit - (usage - page cache that can be dropped), at least 0.
 *  @param limit        contents of memory.max (2) or memory.limit_in_bytes (1)
 *  @param usage        contents of memory.current (2) or memory.usage_in_bytes (1)
 *  @param stat         contents of memory.stat; each of the three is NULL if there is no such file
 *  @param reclaimable  begin of its line: "inactive_file " (2) or "total_inactive_file " (1)
 *  @return INT64_MAX without a limit ("max", or version 1's number near 2^63) */
int64_t bsattn_host_parse_limit(const char *limit, const char *usage, const char *stat,
                                const char *reclaimable);

#endif
