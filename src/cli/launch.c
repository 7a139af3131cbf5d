/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/launch.h"

#include "base/text.h"

#include <limits.h>
#include <stddef.h>

static int first_number(bsattn_getenv_func_t env, const char *const *names, size_t count,
                        const char **name_p)
{
    for (size_t i = 0; i < count; ++i) {
        const char *text = env(names[i]);
        int64_t value;
        if ((text != NULL) && bsattn_text_int64(text, &value) && (value >= 0) &&
            (value <= INT_MAX)) {
            *name_p = names[i];
            return (int)value;
        }
    }
    return -1;
}

static int launch_size(bsattn_getenv_func_t env, const char **name_p)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS",
                                        "SLURM_NTASKS"};
    int size = first_number(env, names, sizeof(names) / sizeof(names[0]), name_p);

    return (size > 0) ? size : 0;
}

int bsattn_launch_rank(bsattn_getenv_func_t env)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "SLURM_PROCID"};
    const char *name;

    return first_number(env, names, sizeof(names) / sizeof(names[0]), &name);
}

int bsattn_launch_size(bsattn_getenv_func_t env)
{
    const char *name;

    return launch_size(env, &name);
}

const char *bsattn_launch_name(bsattn_getenv_func_t env)
{
    if (env("OMPI_COMM_WORLD_SIZE") != NULL) {
        return "mpirun (Open MPI)";
    }
    if (env("SLURM_STEP_ID") != NULL) {
        return "srun";
    }
    return (env("PMI_SIZE") != NULL) ? "mpiexec (PMI)" : "none";
}

bsattn_status_t bsattn_launch_check(bsattn_getenv_func_t env, int size)
{
    const char *name = "";
    int said = launch_size(env, &name);

    if ((size > 1) || (said <= 1)) {
        return BSATTN_OK;
    }
    return bsattn_fail(
        BSATTN_ERR_ENVIRONMENT,
        "launched as %d singletons: %s is %d but MPI sees one rank; use srun "
        "--mpi=pmix or mpirun of the MPI this program was built with, or --transport "
        "loop for one process",
        said, name, said);
}
