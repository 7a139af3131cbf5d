/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU: which there are, its memory, and the marks of its time line. */
#include "backend/backend_cuda.h"
#include "backend/variants.h"
#include "base/array.h"
#include "base/text.h"
#include "kernels/attend_cuda.h"

#include <nvtx3/nvToolsExt.h>

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { CAPABILITY_LEAST = 80 };

/* -------------------------------------------------------------------------------------- devices */

static int capability_of(int device)
{
    int major = 0;
    int minor = 0;

    (void)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    (void)cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    return 10 * major + minor;
}

/* Say why the runtime finds no GPU. */
static void explain(cudaError_t error, bsattn_strbuf_t *buf)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    int driver = 0;

    (void)cudaDriverGetVersion(&driver);
    if ((error == cudaErrorInsufficientDriver) && (driver == 0)) {
        bsattn_strbuf_add(buf, "no NVIDIA driver was found");
    } else if (error == cudaErrorInsufficientDriver) {
        bsattn_strbuf_add(buf, "the NVIDIA driver is for CUDA %d.%d, this build needs %d.%d",
                          driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                          CUDART_VERSION % 1000 / 10);
    } else if ((error == cudaSuccess) || (error == cudaErrorNoDevice)) {
        bsattn_strbuf_add(buf, "no GPU is visible");
        if (visible != NULL) {
            bsattn_strbuf_add(buf, " (CUDA_VISIBLE_DEVICES is '%s')", visible);
        }
    } else {
        bsattn_strbuf_add(buf, "no GPU can be asked for: %s", cudaGetErrorString(error));
    }
}

int bsattn_backend_cuda_gpus(char *reason, size_t size)
{
    int visible = 0;
    int usable = 0;
    cudaError_t error = cudaGetDeviceCount(&visible);
    bsattn_strbuf_t buf;

    (void)cudaGetLastError();
    bsattn_strbuf_init(&buf, reason, size);
    if ((error != cudaSuccess) || (visible == 0)) {
        explain(error, &buf);
        return 0;
    }
    for (int device = 0; device < visible; ++device) {
        usable += (capability_of(device) >= CAPABILITY_LEAST) ? 1 : 0;
    }
    if (usable == 0) {
        bsattn_strbuf_add(&buf, "GPU 0 is too old: it is sm_%d, sm_%d or newer is needed",
                          capability_of(0), CAPABILITY_LEAST);
    }
    return usable;
}

/* The index-th GPU that can be used. */
static int find_device(int index)
{
    int visible = 0;

    if (cudaGetDeviceCount(&visible) != cudaSuccess) {
        (void)cudaGetLastError();
        return -1;
    }
    for (int device = 0; device < visible; ++device) {
        if ((capability_of(device) >= CAPABILITY_LEAST) && (index-- == 0)) {
            return device;
        }
    }
    return -1;
}

static bsattn_status_t describe(int device, bsattn_gpu_t *gpu_p)
{
    struct cudaDeviceProp properties;
    char pci[32] = "";

    BSATTN_TRY(
        bsattn_cuda_check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
    BSATTN_TRY(bsattn_cuda_check(cudaDeviceGetPCIBusId(pci, (int)sizeof(pci), device),
                                 "cudaDeviceGetPCIBusId"));
    *gpu_p = (bsattn_gpu_t){
        .device = device,
        .capability = 10 * properties.major + properties.minor,
        .memory_bytes = (int64_t)properties.totalGlobalMem,
    };
    (void)bsattn_text_copy(gpu_p->name, sizeof(gpu_p->name), properties.name);
    (void)bsattn_text_copy(gpu_p->pci, sizeof(gpu_p->pci), pci);
    for (char *letter = gpu_p->pci; *letter != '\0'; ++letter) {
        *letter = (char)tolower((unsigned char)*letter);
    }
    _Static_assert(sizeof(properties.uuid.bytes) == sizeof(gpu_p->uuid), "a UUID has 16 bytes");
    memcpy(gpu_p->uuid, properties.uuid.bytes, sizeof(gpu_p->uuid));
    return BSATTN_OK;
}

bsattn_status_t bsattn_backend_cuda_gpu(int index, bsattn_gpu_t *gpu_p)
{
    int device = find_device(index);

    if (device < 0) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "GPU %d: there are only %d", index,
                           bsattn_backend_gpus(NULL, 0));
    }
    return describe(device, gpu_p);
}

bool bsattn_backend_cuda_reaches_all(const bsattn_backend_t *backend)
{
    int visible = 0;
    bool all = (cudaGetDeviceCount(&visible) == cudaSuccess);

    for (int other = 0; all && (other < visible); ++other) {
        int reaches = 0;
        all = (other == backend->device) ||
              ((cudaDeviceCanAccessPeer(&reaches, backend->device, other) == cudaSuccess) &&
               (reaches != 0));
    }
    (void)cudaGetLastError();
    return all;
}

const char *bsattn_backend_cuda_versions(void)
{
    static char text[64];
    int driver = 0;
    bsattn_strbuf_t buf;

    (void)cudaDriverGetVersion(&driver);
    bsattn_strbuf_init(&buf, text, sizeof(text));
    bsattn_strbuf_add(&buf, "%d.%d, ", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (driver == 0) {
        bsattn_strbuf_add(&buf, "no driver");
    } else {
        bsattn_strbuf_add(&buf, "driver for %d.%d", driver / 1000, driver % 1000 / 10);
    }
    return text;
}

bsattn_status_t bsattn_cuda_enter(const bsattn_backend_t *backend)
{
    return bsattn_cuda_check(cudaSetDevice(backend->device), "cudaSetDevice");
}

/* --------------------------------------------------------------------------------------- memory */

bsattn_status_t bsattn_cuda_alloc(bsattn_backend_t *backend, size_t bytes, void *memory_p)
{
    bsattn_backend_cuda_t *cuda = (bsattn_backend_cuda_t *)backend;
    void *memory;

    if (bytes == 0) {
        *(void **)memory_p = NULL;
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_cuda_enter(backend));
    BSATTN_TRY(bsattn_array_reserve(&cuda->pieces, &cuda->piece_capacity, cuda->piece_count + 1,
                                    sizeof(*cuda->pieces)));
    BSATTN_TRY(bsattn_cuda_malloc(bytes, "", &memory));
    cuda->pieces[cuda->piece_count++] = (bsattn_cuda_piece_t){.memory = memory, .bytes = bytes};
    cuda->allocated += (int64_t)bytes;
    *(void **)memory_p = memory;
    return BSATTN_OK;
}

void bsattn_cuda_free(bsattn_backend_t *backend, void *memory)
{
    bsattn_backend_cuda_t *cuda = (bsattn_backend_cuda_t *)backend;
    size_t i = 0;

    if (memory == NULL) {
        return;
    }
    while ((i < cuda->piece_count) && (cuda->pieces[i].memory != memory)) {
        ++i;
    }
    BSATTN_ASSERT(i < cuda->piece_count);
    cuda->allocated -= (int64_t)cuda->pieces[i].bytes;
    cuda->pieces[i] = cuda->pieces[--cuda->piece_count];
    (void)cudaSetDevice(backend->device);
    (void)cudaFree(memory);
    (void)cudaGetLastError();
}

/* Never NULL: a rank may own nothing, and yet its tensors are there. */
static bsattn_status_t cuda_alloc(bsattn_backend_t *backend, size_t bytes, void **memory_p)
{
    return bsattn_cuda_alloc(backend, (bytes == 0) ? 1 : bytes, memory_p);
}

static bsattn_status_t cuda_fill(bsattn_backend_t *backend, void *memory, unsigned char byte,
                                 size_t bytes)
{
    BSATTN_TRY(bsattn_cuda_enter(backend));
    BSATTN_TRY(bsattn_cuda_check(cudaMemset(memory, byte, bytes), "cudaMemset"));
    /* Our streams do not wait for the default one. */
    return bsattn_cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

static bsattn_status_t move_rows(bsattn_backend_t *backend, const bsattn_rows_t *rows,
                                 enum cudaMemcpyKind kind)
{
    bool dense = (rows->from_stride == rows->row_bytes) && (rows->to_stride == rows->row_bytes);
    bool pitched =
        (rows->from_stride <= BSATTN_CUDA_PITCH_MAX) && (rows->to_stride <= BSATTN_CUDA_PITCH_MAX);

    BSATTN_TRY(bsattn_cuda_enter(backend));
    if ((rows->row_count == 0) || (rows->row_bytes == 0)) {
        return BSATTN_OK;
    }
    if (dense || (rows->row_count == 1)) {
        return bsattn_cuda_check(
            cudaMemcpy(rows->to, rows->from, rows->row_count * rows->row_bytes, kind),
            "cudaMemcpy");
    }
    if (pitched) {
        return bsattn_cuda_check(cudaMemcpy2D(rows->to, rows->to_stride, rows->from,
                                              rows->from_stride, rows->row_bytes, rows->row_count,
                                              kind),
                                 "cudaMemcpy2D");
    }
    for (size_t row = 0; row < rows->row_count; ++row) {
        BSATTN_TRY(bsattn_cuda_check(cudaMemcpy((char *)rows->to + row * rows->to_stride,
                                                (const char *)rows->from + row * rows->from_stride,
                                                rows->row_bytes, kind),
                                     "cudaMemcpy"));
    }
    return BSATTN_OK;
}

static bsattn_status_t cuda_read(bsattn_backend_t *backend, const bsattn_rows_t *rows)
{
    return move_rows(backend, rows, cudaMemcpyDeviceToHost);
}

static bsattn_status_t cuda_write(bsattn_backend_t *backend, const bsattn_rows_t *rows)
{
    /* From pageable memory a copy may return before the GPU has it; our streams must find it. */
    BSATTN_TRY(move_rows(backend, rows, cudaMemcpyHostToDevice));
    return bsattn_cuda_check(cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize");
}

/* The process's own number where the driver tells it; else what came on top of what there was, if no
 * other rank of this job works on the GPU (another job might); else what we allocated, and a context of
 * the usual size. */
static int64_t held_bytes(const bsattn_backend_cuda_t *cuda)
{
    int64_t here = bsattn_nvml_used_here(cuda->nvml);
    int64_t used = bsattn_nvml_used(cuda->nvml);

    if (here >= 0) {
        return here;
    }
    if (!cuda->super.shared && (used >= 0) && (cuda->used_before >= 0)) {
        return used - cuda->used_before;
    }
    return cuda->allocated + bsattn_cuda_context_bytes;
}

static bsattn_backend_memory_t cuda_memory(bsattn_backend_t *backend)
{
    bsattn_backend_cuda_t *cuda = (bsattn_backend_cuda_t *)backend;
    int64_t held = held_bytes(cuda);
    bool known = (bsattn_cuda_enter(backend) == BSATTN_OK);
    size_t available = 0;
    size_t total = 0;

    known = known && (cudaMemGetInfo(&available, &total) == cudaSuccess);
    if (!known) {
        (void)cudaGetLastError(); /* else the next launch would report it */
    }
    cuda->peak = (held > cuda->peak) ? held : cuda->peak;
    return (bsattn_backend_memory_t){
        .available = known ? (int64_t)available : INT64_MAX,
        .libraries = (held > cuda->allocated) ? held - cuda->allocated : 0,
        .peak = cuda->peak,
    };
}

/* ---------------------------------------------------------------------------------------- marks */

static nvtxDomainHandle_t mark_domain(void)
{
    static nvtxDomainHandle_t domain;

    if (domain == NULL) {
        domain = nvtxDomainCreateA("bsattn_ring");
    }
    return domain;
}

static void cuda_mark(bsattn_mark_t mark)
{
    static const char *const names[] = {
        [BSATTN_MARK_STEP] = "step",
        [BSATTN_MARK_ATTEND] = "attend",
        [BSATTN_MARK_EXCHANGE] = "exchange",
        [BSATTN_MARK_WAIT] = "wait",
    };
    nvtxEventAttributes_t attributes = {
        .version = NVTX_VERSION,
        .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
        .messageType = NVTX_MESSAGE_TYPE_ASCII,
        .message.ascii = names[mark],
    };

    (void)nvtxDomainRangePushEx(mark_domain(), &attributes);
}

static void cuda_unmark(void)
{
    (void)nvtxDomainRangePop(mark_domain());
}

/* ----------------------------------------------------------------------------------------- life */

static bsattn_machine_t cuda_machine(bsattn_backend_t *backend)
{
    bsattn_machine_t machine = bsattn_backend_cuda_machine(backend->threads);

    machine.libraries_bytes = cuda_memory(backend).libraries;
    machine.exchange_bytes = 0; /* held by now, and among these */
    return machine;
}

static void cuda_destroy(bsattn_backend_t *backend)
{
    bsattn_backend_cuda_t *cuda = (bsattn_backend_cuda_t *)backend;

    bsattn_nvml_close(cuda->nvml);
    free(cuda->pieces);
    free(cuda);
}

static const bsattn_backend_ops_t cuda_ops = {
    .name = "cuda",
    .destroy = cuda_destroy,
    .machine = cuda_machine,
    .alloc = cuda_alloc,
    .free = bsattn_cuda_free,
    .fill = cuda_fill,
    .read = cuda_read,
    .write = cuda_write,
    .memory = cuda_memory,
    .prepare = bsattn_work_cuda_prepare,
    .release = bsattn_work_cuda_release,
    .movement = bsattn_work_cuda_movement,
    .begin = bsattn_work_cuda_begin,
    .exchange_begin = bsattn_work_cuda_exchange_begin,
    .exchange_end = bsattn_work_cuda_exchange_end,
    .attend = bsattn_work_cuda_attend,
    .poll = bsattn_work_cuda_poll,
    .timings = bsattn_work_cuda_timings,
    .mark = cuda_mark,
    .unmark = cuda_unmark,
};

/* Without a context CUDA cannot tell how much is free. */
static bsattn_status_t fail_context(const bsattn_backend_cuda_t *cuda, int64_t memory_bytes)
{
    int64_t left = (memory_bytes > cuda->used_before) ? memory_bytes - cuda->used_before : 0;
    char need_text[32];
    char free_text[BSATTN_CUDA_FREE_TEXT_SIZE];

    return bsattn_fail(
        BSATTN_ERR_MEMORY, "out of memory: a CUDA context, about %s, was refused %s",
        bsattn_text_bytes(need_text, sizeof(need_text), (double)bsattn_cuda_context_bytes),
        bsattn_cuda_free_text_of(free_text, sizeof(free_text), cuda->super.device, cuda->super.name,
                                 (cuda->used_before >= 0) ? left : -1, memory_bytes));
}

/* Make the GPU's context, remembering what others hold. */
static bsattn_status_t open_context(bsattn_backend_cuda_t *cuda, int64_t memory_bytes)
{
    const bsattn_cuda_kernel_t *kernel;
    cudaError_t error;

    cuda->nvml = bsattn_nvml_open(cuda->super.pci);
    cuda->used_before = bsattn_nvml_used(cuda->nvml);
    error = cudaSetDevice(cuda->super.device);
    error = (error == cudaSuccess) ? cudaFree(NULL) : error;
    if (error == cudaErrorMemoryAllocation) {
        return fail_context(cuda, memory_bytes);
    }
    BSATTN_TRY(bsattn_cuda_check(error, "the start of a context"));
    BSATTN_TRY(bsattn_cuda_kernel_find(cuda->capability, BSATTN_BF16, 64, &kernel));
    cuda->super.variant = kernel->name;
    return BSATTN_OK;
}

bsattn_status_t bsattn_backend_cuda_create(int device, int threads, bsattn_backend_t **backend_p)
{
    bsattn_backend_cuda_t *cuda;
    bsattn_status_t status;
    bsattn_gpu_t gpu;

    BSATTN_TRY(describe(device, &gpu));
    cuda = calloc(1, sizeof(*cuda));
    if (cuda == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a backend");
    }
    cuda->super = (bsattn_backend_t){.ops = &cuda_ops, .threads = threads, .device = device};
    cuda->capability = gpu.capability;
    (void)bsattn_text_copy(cuda->super.name, sizeof(cuda->super.name), gpu.name);
    (void)bsattn_text_copy(cuda->super.pci, sizeof(cuda->super.pci), gpu.pci);
    status = open_context(cuda, gpu.memory_bytes);
    if (status != BSATTN_OK) {
        cuda_destroy(&cuda->super);
        return status;
    }
    *backend_p = &cuda->super;
    return BSATTN_OK;
}
