/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/driver_cuda.h"

#include "backend/queue_cuda.h"

#include <cuda.h>
#include <cudaTypedefs.h>

static struct driver {
    PFN_cuMemGetAddressRange_v3020 address_range;
    PFN_cuStreamWriteValue32_v11070 write_value;
    PFN_cuStreamWaitValue32_v11070 wait_value;
    PFN_cuGetErrorName_v6000 error_name;
    unsigned wait_flags;
} driver;

static bsattn_status_t find(const char *name, unsigned version, void **function_p)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    cudaError_t error;

    error = cudaGetDriverEntryPointByVersion(name, function_p, version, cudaEnableDefault, &found);
    if ((error != cudaSuccess) || (found != cudaDriverEntryPointSuccess) || (*function_p == NULL)) {
        (void)cudaGetLastError();
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "the CUDA driver has no %s: %s", name,
                           (error != cudaSuccess) ? cudaGetErrorString(error) : "it is too old");
    }
    return BSATTN_OK;
}

/* Writes of another GPU may become visible out of order: where the device can put that right, who
 * waits for a flag behind data asks for it. Elsewhere there is nothing to ask for. */
static bsattn_status_t choose_wait(int device)
{
    int can_flush = 0;

    BSATTN_TRY(bsattn_cuda_check(
        cudaDeviceGetAttribute(&can_flush, cudaDevAttrCanFlushRemoteWrites, device),
        "cudaDeviceGetAttribute"));
    driver.wait_flags = CU_STREAM_WAIT_VALUE_GEQ | (can_flush ? CU_STREAM_WAIT_VALUE_FLUSH : 0);
    return BSATTN_OK;
}

bsattn_status_t bsattn_driver_init(int device)
{
    BSATTN_TRY(choose_wait(device));
    BSATTN_TRY(find("cuGetErrorName", 6000, (void **)&driver.error_name));
    BSATTN_TRY(find("cuMemGetAddressRange", 3020, (void **)&driver.address_range));
    BSATTN_TRY(find("cuStreamWriteValue32", 11070, (void **)&driver.write_value));
    return find("cuStreamWaitValue32", 11070, (void **)&driver.wait_value);
}

static bsattn_status_t check(CUresult result, const char *call)
{
    const char *name = NULL;

    if (result == CUDA_SUCCESS) {
        return BSATTN_OK;
    }
    (void)driver.error_name(result, &name);
    return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "CUDA: %s: %s", call,
                       (name != NULL) ? name : "unknown error");
}

bsattn_status_t bsattn_driver_allocation(void *memory, void **base_p, size_t *offset_p)
{
    CUdeviceptr base;
    size_t bytes;

    BSATTN_TRY(check(driver.address_range(&base, &bytes, (CUdeviceptr)(uintptr_t)memory),
                     "cuMemGetAddressRange"));
    *base_p = (void *)(uintptr_t)base;
    *offset_p = (size_t)((uintptr_t)memory - (uintptr_t)base);
    return BSATTN_OK;
}

bsattn_status_t bsattn_driver_write(cudaStream_t stream, uint32_t *flag, uint32_t value)
{
    return check(driver.write_value(stream, (CUdeviceptr)(uintptr_t)flag, value,
                                    CU_STREAM_WRITE_VALUE_DEFAULT),
                 "cuStreamWriteValue32");
}

bsattn_status_t bsattn_driver_wait(cudaStream_t stream, const uint32_t *flag, uint32_t value)
{
    return check(
        driver.wait_value(stream, (CUdeviceptr)(uintptr_t)flag, value, driver.wait_flags),
        "cuStreamWaitValue32");
}
