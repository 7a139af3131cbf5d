/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/host.h"

#include "base/bits.h"
#include "base/text.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 4096, NUMBER_SIZE = 32, PROC_SIZE = 16384 };

/* Version 1 writes "no limit" as the largest multiple of the page size below 2^63. */
#define CGROUP_NO_LIMIT (INT64_C(1) << 60)

/* Files of /proc tell no size; what does not fit is left out. */
static bool read_file(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "r");
    size_t length;

    if (file == NULL) {
        return false;
    }
    length = fread(out, 1, size - 1, file);
    out[length] = '\0';
    (void)fclose(file);
    return length > 0;
}

void bsattn_host_name(char *out, size_t size)
{
    char name[256] = "";

    if ((gethostname(name, sizeof(name) - 1) != 0) || (name[0] == '\0')) {
        (void)bsattn_text_copy(out, size, "unknown");
        return;
    }
    name[strcspn(name, ".")] = '\0';
    (void)bsattn_text_copy(out, size, name);
}

/* The number after a name at the beginning of a line. */
static bool find_number(const char *text, const char *name, int64_t *number_p)
{
    size_t length = strlen(name);

    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        char digits[NUMBER_SIZE];
        line += (*line == '\n') ? 1 : 0;
        if (strncmp(line, name, length) != 0) {
            continue;
        }
        line += length;
        line += strspn(line, " \t");
        (void)bsattn_text_copy(digits, sizeof(digits), line);
        digits[strspn(digits, "0123456789")] = '\0';
        return bsattn_text_int64(digits, number_p);
    }
    return false;
}

bool bsattn_host_parse_kib(const char *text, const char *name, int64_t *bytes_p)
{
    int64_t kib;

    if (!find_number(text, name, &kib) || (kib > INT64_MAX / 1024)) {
        return false;
    }
    *bytes_p = kib * 1024;
    return true;
}

/* Whether a comma separated list such as "cpu,cpuacct" has a name. */
static bool list_has(const char *list, size_t list_length, const char *name)
{
    size_t length = strlen(name);
    size_t at = 0;

    while (at <= list_length) {
        size_t end = at;
        while ((end < list_length) && (list[end] != ',')) {
            ++end;
        }
        if ((end - at == length) && (strncmp(list + at, name, length) == 0)) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

bool bsattn_host_parse_cgroup(const char *text, const char *controller, char *out, size_t size)
{
    const char *line = text;

    while ((line != NULL) && (*line != '\0')) {
        size_t line_length = strcspn(line, "\n");
        const char *list = memchr(line, ':', line_length);
        const char *path =
            (list == NULL) ? NULL : memchr(list + 1, ':', line_length - (size_t)(list + 1 - line));
        if (path != NULL) {
            size_t path_length = line_length - (size_t)(path + 1 - line);
            if (list_has(list + 1, (size_t)(path - list - 1), controller)) {
                if (path_length >= size) {
                    return false;
                }
                memcpy(out, path + 1, path_length);
                out[path_length] = '\0';
                return true;
            }
        }
        line = strchr(line, '\n');
        line = (line == NULL) ? NULL : line + 1;
    }
    return false;
}

static bool parse_bytes(const char *text, int64_t *bytes_p)
{
    char digits[NUMBER_SIZE];

    (void)bsattn_text_copy(digits, sizeof(digits), text);
    digits[strcspn(digits, " \n")] = '\0';
    return bsattn_text_int64(digits, bytes_p);
}

int64_t bsattn_host_parse_limit(const char *limit, const char *usage, const char *stat,
                                const char *reclaimable)
{
    int64_t limit_bytes;
    int64_t usage_bytes = 0;
    int64_t cache_bytes = 0;

    if ((limit == NULL) || !parse_bytes(limit, &limit_bytes) || (limit_bytes >= CGROUP_NO_LIMIT)) {
        return INT64_MAX;
    }
    if ((usage != NULL) && !parse_bytes(usage, &usage_bytes)) {
        usage_bytes = 0;
    }
    if ((stat != NULL) && !find_number(stat, reclaimable, &cache_bytes)) {
        cache_bytes = 0;
    }
    usage_bytes -= (cache_bytes < usage_bytes) ? cache_bytes : usage_bytes;
    return (usage_bytes < limit_bytes) ? limit_bytes - usage_bytes : 0;
}

/* What the files of a control group are called. */
typedef struct group_names {
    const char *limit;
    const char *usage;
    const char *reclaimable; /* in memory.stat, with the space after it */
} group_names_t;

static const group_names_t names_v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                       "total_inactive_file "};
static const group_names_t names_v2 = {"memory.max", "memory.current", "inactive_file "};

static bool read_group_file(const char *folder, const char *name, char *out, size_t size)
{
    char path[PATH_SIZE + 64];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return read_file(path, out, size);
}

static int64_t group_leaves(const char *folder, const group_names_t *names)
{
    char limit[NUMBER_SIZE];
    char usage[NUMBER_SIZE];
    char stat[PROC_SIZE];
    bool limited = read_group_file(folder, names->limit, limit, sizeof(limit));
    bool used = read_group_file(folder, names->usage, usage, sizeof(usage));
    bool detailed = read_group_file(folder, "memory.stat", stat, sizeof(stat));

    return bsattn_host_parse_limit(limited ? limit : NULL, used ? usage : NULL,
                                   detailed ? stat : NULL, names->reclaimable);
}

/* A group's limit binds its children too, so every level up to the mount point is asked. */
static int64_t groups_leave(const char *mount, const char *group, const group_names_t *names)
{
    char folder[PATH_SIZE];
    bsattn_strbuf_t buf;
    int64_t least = INT64_MAX;
    size_t mount_length = strlen(mount);

    bsattn_strbuf_init(&buf, folder, sizeof(folder));
    bsattn_strbuf_add(&buf, "%s%s", mount, (strcmp(group, "/") == 0) ? "" : group);
    for (;;) {
        int64_t leaves = group_leaves(folder, names);
        char *slash = strrchr(folder, '/');
        least = (leaves < least) ? leaves : least;
        if ((slash == NULL) || ((size_t)(slash - folder) < mount_length)) {
            return least;
        }
        *slash = '\0';
    }
}

int64_t bsattn_host_memory_available(void)
{
    char text[PROC_SIZE];
    char group[PATH_SIZE / 2];
    int64_t available = INT64_MAX;

    if (read_file("/proc/meminfo", text, sizeof(text))) {
        (void)bsattn_host_parse_kib(text, "MemAvailable:", &available);
    }
    if (!read_file("/proc/self/cgroup", text, sizeof(text))) {
        return available;
    }
    if (bsattn_host_parse_cgroup(text, "", group, sizeof(group))) {
        available = bsattn_min64(available, groups_leave("/sys/fs/cgroup", group, &names_v2));
    }
    if (bsattn_host_parse_cgroup(text, "memory", group, sizeof(group))) {
        available =
            bsattn_min64(available, groups_leave("/sys/fs/cgroup/memory", group, &names_v1));
    }
    return available;
}

int64_t bsattn_host_memory_peak(void)
{
    char text[PROC_SIZE];
    int64_t bytes = 0;

    if (read_file("/proc/self/status", text, sizeof(text))) {
        (void)bsattn_host_parse_kib(text, "VmHWM:", &bytes);
    }
    return bytes;
}

bsattn_status_t bsattn_host_check_threads(int threads)
{
    return ((threads >= 1) && (threads <= BSATTN_THREADS_MAX))
               ? BSATTN_OK
               : bsattn_fail(BSATTN_ERR_INPUT, "threads %d: must be 1 to %d", threads,
                             BSATTN_THREADS_MAX);
}

int bsattn_host_threads_asked(void)
{
    int threads = (getenv("OMP_NUM_THREADS") != NULL) ? omp_get_max_threads() : 0;

    return (threads < BSATTN_THREADS_MAX) ? threads : BSATTN_THREADS_MAX;
}

int bsattn_host_cores(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        return CPU_COUNT(&set);
    }
    /* The mask of a host with more than CPU_SETSIZE cores does not fit. */
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return (online >= 1) ? (int)online : 1;
}

void bsattn_host_cores_text(char *out, size_t size)
{
    cpu_set_t set;
    bsattn_strbuf_t buf;
    int first = 0;

    bsattn_strbuf_init(&buf, out, size);
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0) {
        bsattn_strbuf_add(&buf, "unknown");
        return;
    }
    while (first < CPU_SETSIZE) {
        int last = first;
        if (!CPU_ISSET(first, &set)) {
            ++first;
            continue;
        }
        while ((last + 1 < CPU_SETSIZE) && CPU_ISSET(last + 1, &set)) {
            ++last;
        }
        bsattn_strbuf_add(&buf, (last > first) ? "%s%d-%d" : "%s%d", (buf.length > 0) ? "," : "",
                          first, last);
        first = last + 1;
    }
}

void bsattn_host_processor(char *out, size_t size)
{
    char text[PROC_SIZE];
    const char *name;

    (void)bsattn_text_copy(out, size, "unknown");
    if (!read_file("/proc/cpuinfo", text, sizeof(text))) {
        return;
    }
    name = strstr(text, "model name");
    name = (name == NULL) ? NULL : strchr(name, ':');
    if (name == NULL) {
        return;
    }
    name += 1 + strspn(name + 1, " \t");
    (void)bsattn_text_copy(out, size, name);
    out[strcspn(out, "\n")] = '\0';
}
