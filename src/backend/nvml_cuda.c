/* SPDX-License-Identifier: Apache-2.0 */
/* The library comes with the driver and its header with another package, so it is opened at run
 * time by the few functions that its interface promises to keep. */
#include "backend/nvml_cuda.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

enum { PROCESSES_MAX = 256 };

typedef struct nvml_memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
} nvml_memory_t;

typedef struct nvml_process {
    unsigned int pid;
    unsigned long long used; /* all ones: not known */
    unsigned int instance;
    unsigned int compute_instance;
} nvml_process_t;

typedef int (*init_func_t)(void);
typedef int (*find_func_t)(const char *pci, void **device_p);
typedef int (*memory_func_t)(void *device, nvml_memory_t *memory_p);
typedef int (*processes_func_t)(void *device, unsigned int *count, nvml_process_t *processes);

struct bsattn_nvml {
    void *library;
    void *device;
    init_func_t shutdown;
    memory_func_t memory;
    processes_func_t processes;
};

/* A function by name; a cast of the pointer itself is not C. */
static void find_function(void *library, const char *name, void *function_p)
{
    *(void **)function_p = dlsym(library, name);
}

bsattn_nvml_t *bsattn_nvml_open(const char *pci)
{
    bsattn_nvml_t *nvml = calloc(1, sizeof(*nvml));
    init_func_t init = NULL;
    find_func_t find = NULL;

    if (nvml == NULL) {
        return NULL;
    }
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL) {
        free(nvml);
        return NULL;
    }
    find_function(nvml->library, "nvmlInit_v2", &init);
    find_function(nvml->library, "nvmlShutdown", &nvml->shutdown);
    find_function(nvml->library, "nvmlDeviceGetHandleByPciBusId_v2", &find);
    find_function(nvml->library, "nvmlDeviceGetMemoryInfo", &nvml->memory);
    find_function(nvml->library, "nvmlDeviceGetComputeRunningProcesses_v3", &nvml->processes);
    if ((init == NULL) || (find == NULL) || (nvml->shutdown == NULL) || (init() != 0)) {
        (void)dlclose(nvml->library);
        free(nvml);
        return NULL;
    }
    if (find(pci, &nvml->device) != 0) {
        bsattn_nvml_close(nvml);
        return NULL;
    }
    return nvml;
}

void bsattn_nvml_close(bsattn_nvml_t *nvml)
{
    if (nvml != NULL) {
        (void)nvml->shutdown();
        (void)dlclose(nvml->library);
        free(nvml);
    }
}

int64_t bsattn_nvml_used(const bsattn_nvml_t *nvml)
{
    nvml_memory_t memory = {0};

    if ((nvml == NULL) || (nvml->memory == NULL) || (nvml->memory(nvml->device, &memory) != 0)) {
        return -1;
    }
    return (int64_t)memory.used;
}

int64_t bsattn_nvml_used_here(const bsattn_nvml_t *nvml)
{
    nvml_process_t processes[PROCESSES_MAX];
    unsigned int count = PROCESSES_MAX;

    if ((nvml == NULL) || (nvml->processes == NULL) ||
        (nvml->processes(nvml->device, &count, processes) != 0)) {
        return -1;
    }
    for (unsigned int i = 0; (i < count) && (i < PROCESSES_MAX); ++i) {
        if ((processes[i].pid == (unsigned int)getpid()) && (processes[i].used <= INT64_MAX)) {
            return (int64_t)processes[i].used;
        }
    }
    return -1;
}
