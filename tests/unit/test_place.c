/* SPDX-License-Identifier: Apache-2.0 */
/* place: ranks to GPUs; and, where there is hwloc, to cores and network devices of made machines:
 *   one_gpu.xml               a virtual machine of 4 cores with 2 threads, one GPU, no network
 *   two_gpu_far_nic.xml       2 sockets of 8 cores, numbered in turn; two GPUs at the first, at the
 *                             second an InfiniBand device without a link and Ethernet
 *   two_sockets_8gpu_8nic.xml 2 sockets of 16 cores with 2 threads; at each four switches with a
 *                             GPU and an InfiniBand device */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/host.h"
#include "base/text.h"
#include "place/place.h"

#include <stdlib.h>
#include <string.h>

#define ARRAY_SIZE(_array) (sizeof(_array) / sizeof((_array)[0]))

enum { RANKS_MAX = 64 };

/* The GPUs of two_sockets_8gpu_8nic.xml. */
static const char *const gpus[] = {"0000:19:00.0", "0000:1c:00.0", "0000:3c:00.0", "0000:4e:00.0",
                                   "0000:99:00.0", "0000:9c:00.0", "0000:bc:00.0", "0000:ce:00.0"};

/* ---------------------------------------------------------------------------------------- seats */

static void make_seat(bsattn_place_seat_t *seat, const char *host)
{
    *seat = (bsattn_place_seat_t){.launcher_rank = -1};
    (void)bsattn_text_copy(seat->host, sizeof(seat->host), host);
    (void)bsattn_text_copy(seat->cpus, sizeof(seat->cpus), "0-63");
}

/* A seat that sees GPUs [first, first + count), none of them far. */
static void make_gpu_seat(bsattn_place_seat_t *seat, const char *host, int first, int count)
{
    make_seat(seat, host);
    for (int i = 0; i < count; ++i) {
        bsattn_place_seat_add_device(seat, gpus[first + i], NULL);
        seat->devices[i].near = true;
    }
}

static void decide(const bsattn_place_seat_t *seats, int ranks, bsattn_place_choice_t *choices)
{
    assert_int_equal(bsattn_place_decide(seats, ranks, choices), BSATTN_OK);
}

static void assert_all_alone(const bsattn_place_choice_t *choices, int ranks)
{
    for (int rank = 0; rank < ranks; ++rank) {
        assert_int_equal(choices[rank].shared, 1);
    }
}

/* Slurm's habit, and mpirun's: all ranks see all GPUs. */
static void test_all_see_all(void **state)
{
    bsattn_place_seat_t seats[8];
    bsattn_place_choice_t choices[8];
    char warning[256];

    (void)state;
    for (int rank = 0; rank < 8; ++rank) {
        make_gpu_seat(&seats[rank], "a", 0, 8);
    }
    decide(seats, 8, choices);
    assert_all_alone(choices, 8);
    for (int rank = 0; rank < 8; ++rank) {
        assert_int_equal(choices[rank].device, rank);
        assert_string_equal(choices[rank].pci, gpus[rank]);
        assert_int_equal(choices[rank].local_rank, rank);
        assert_int_equal(choices[rank].local_ranks, 8);
    }
    assert_string_equal(choices[2].decided, "local rank 2 of 8, 8 visible GPUs");
    assert_false(bsattn_place_warning(seats, choices, 8, warning, sizeof(warning)));
    assert_string_equal(warning, "");
    decide(seats, 4, choices);
    assert_all_alone(choices, 4);
    for (int rank = 0; rank < 4; ++rank) {
        assert_int_equal(choices[rank].device, rank);
    }
    assert_string_equal(choices[3].decided, "local rank 3 of 4, 8 visible GPUs");
}

static void test_more_ranks_than_gpus(void **state)
{
    bsattn_place_seat_t seats[8];
    bsattn_place_choice_t choices[8];
    char warning[256];

    (void)state;
    for (int rank = 0; rank < 8; ++rank) {
        make_gpu_seat(&seats[rank], "a", 0, 4);
    }
    decide(seats, 8, choices);
    for (int rank = 0; rank < 8; ++rank) {
        assert_int_equal(choices[rank].device, rank % 4);
        assert_int_equal(choices[rank].shared, 2);
        assert_int_equal(choices[rank].gpus, 4);
        assert_string_equal(choices[rank].decided, "shared by 2 ranks: 8 ranks, 4 GPUs");
    }
    assert_true(bsattn_place_warning(seats, choices, 8, warning, sizeof(warning)));
    assert_non_null(strstr(warning, "2 ranks share the GPU 0000:19:00.0 of host a"));
    /* 3 ranks on 2 GPUs: as evenly as can be */
    decide(seats, 5, choices);
    assert_int_equal(choices[4].device, 0);
    assert_int_equal(choices[0].shared, 2);
    assert_int_equal(choices[1].shared, 1);
    assert_string_equal(choices[1].decided, "local rank 1 of 5, 4 visible GPUs");
    /* one GPU for all */
    for (int rank = 0; rank < 3; ++rank) {
        make_gpu_seat(&seats[rank], "a", 0, 1);
    }
    decide(seats, 3, choices);
    assert_int_equal(choices[2].device, 0);
    assert_string_equal(choices[2].decided, "shared by 3 ranks: 3 ranks, 1 GPU");
}

/* mpirun binds two ranks to a core each unless told otherwise. */
static void test_bound_to_one_core(void **state)
{
    bsattn_place_seat_t seats[2];
    bsattn_place_choice_t choices[2];
    char warning[256];

    (void)state;
    for (int rank = 0; rank < 2; ++rank) {
        make_gpu_seat(&seats[rank], "a", rank, 1);
        seats[rank].bound = true;
    }
    decide(seats, 2, choices);
    assert_false(bsattn_place_warning(seats, choices, 2, warning, sizeof(warning)));
    (void)bsattn_text_copy(seats[1].cpus, sizeof(seats[1].cpus), "17");
    assert_true(bsattn_place_warning(seats, choices, 2, warning, sizeof(warning)));
    assert_non_null(strstr(warning, "rank 1 has a GPU and is bound to core 17 alone"));
    assert_non_null(strstr(warning, "--cpu-bind=none)")); /* it is whole */
    make_seat(&seats[1], "a");
    (void)bsattn_text_copy(seats[1].cpus, sizeof(seats[1].cpus), "17");
    seats[1].bound = true;
    decide(seats, 2, choices);
    assert_false(bsattn_place_warning(seats, choices, 2, warning, sizeof(warning)));
}

static void test_two_hosts(void **state)
{
    bsattn_place_seat_t seats[8];
    bsattn_place_choice_t choices[8];

    (void)state;
    for (int by_turn = 0; by_turn < 2; ++by_turn) {
        for (int rank = 0; rank < 8; ++rank) {
            bool first = by_turn ? (rank % 2 == 0) : (rank < 4);
            make_gpu_seat(&seats[rank], first ? "a" : "b", 0, 4);
        }
        decide(seats, 8, choices);
        assert_all_alone(choices, 8);
        for (int rank = 0; rank < 8; ++rank) {
            int local_rank = by_turn ? rank / 2 : rank % 4;
            assert_int_equal(choices[rank].local_rank, local_rank);
            assert_int_equal(choices[rank].local_ranks, 4);
            assert_int_equal(choices[rank].device, local_rank);
        }
    }
}

/* Machines made from one image may share a name; containers of one machine may not. */
static void test_host_identity(void **state)
{
    bsattn_place_seat_t seats[2];
    bsattn_place_choice_t choices[2];

    (void)state;
    make_gpu_seat(&seats[0], "localhost", 0, 1);
    make_gpu_seat(&seats[1], "localhost", 0, 1);
    (void)bsattn_text_copy(seats[0].boot, sizeof(seats[0].boot), "1111");
    decide(seats, 2, choices); /* only one tells: the names decide */
    assert_int_equal(choices[0].shared, 2);
    (void)bsattn_text_copy(seats[1].boot, sizeof(seats[1].boot), "2222");
    decide(seats, 2, choices);
    assert_int_equal(choices[0].shared, 1);
    make_gpu_seat(&seats[0], "pod-1", 0, 1);
    make_gpu_seat(&seats[1], "pod-2", 0, 1);
    (void)bsattn_text_copy(seats[0].boot, sizeof(seats[0].boot), "1111");
    (void)bsattn_text_copy(seats[1].boot, sizeof(seats[1].boot), "1111");
    decide(seats, 2, choices);
    assert_int_equal(choices[0].shared, 2);
}

/* srun --gpus-per-task=1: every rank sees one, as its index 0. */
static void test_one_for_each(void **state)
{
    static const char *const visible[] = {"0", "1", "2", "3"};
    bsattn_place_seat_t seats[4];
    bsattn_place_choice_t choices[4];

    (void)state;
    for (int rank = 0; rank < 4; ++rank) {
        make_gpu_seat(&seats[rank], "a", rank, 1);
        (void)bsattn_text_copy(seats[rank].visible, sizeof(seats[rank].visible), visible[rank]);
    }
    decide(seats, 4, choices);
    assert_all_alone(choices, 4);
    for (int rank = 0; rank < 4; ++rank) {
        assert_int_equal(choices[rank].device, 0);
        assert_string_equal(choices[rank].pci, gpus[rank]);
    }
    assert_string_equal(choices[3].decided, "the only visible GPU (CUDA_VISIBLE_DEVICES=3)");
    seats[3].visible[0] = '\0';
    decide(seats, 4, choices);
    assert_string_equal(choices[3].decided, "the only visible GPU");
}

/* The same GPUs in another order for each rank, and sets that overlap. */
static void test_different_sets(void **state)
{
    bsattn_place_seat_t seats[4];
    bsattn_place_choice_t choices[4];

    (void)state;
    for (int rank = 0; rank < 4; ++rank) {
        make_seat(&seats[rank], "a");
        for (int i = 0; i < 4; ++i) {
            bsattn_place_seat_add_device(&seats[rank], gpus[(rank + i) % 4], NULL);
            seats[rank].devices[i].near = true;
        }
    }
    decide(seats, 4, choices);
    assert_all_alone(choices, 4);

    /* Rank 0 would take the only one that rank 2 has: it must give way, and so must rank 1. */
    make_gpu_seat(&seats[0], "a", 0, 2);
    make_gpu_seat(&seats[1], "a", 0, 3);
    make_gpu_seat(&seats[2], "a", 0, 1);
    decide(seats, 3, choices);
    assert_all_alone(choices, 3);
    assert_string_equal(choices[2].pci, gpus[0]);
    assert_string_equal(choices[0].pci, gpus[1]);
    assert_string_equal(choices[1].pci, gpus[2]);
    assert_string_equal(choices[0].decided, "local rank 0 of 3, a free one, 2 visible GPUs");

    /* Two with the same one beside one with all: only those two share. */
    make_gpu_seat(&seats[0], "a", 3, 1);
    make_gpu_seat(&seats[1], "a", 3, 1);
    make_gpu_seat(&seats[2], "a", 0, 4);
    decide(seats, 3, choices);
    assert_int_equal(choices[0].shared, 2);
    assert_int_equal(choices[1].shared, 2);
    assert_int_equal(choices[2].shared, 1);
}

/* Some ranks see none. */
static void test_without_gpu(void **state)
{
    bsattn_place_seat_t seats[3];
    bsattn_place_choice_t choices[3];

    (void)state;
    make_gpu_seat(&seats[0], "a", 0, 0);
    make_gpu_seat(&seats[1], "a", 0, 2);
    make_gpu_seat(&seats[2], "b", 0, 0);
    decide(seats, 3, choices);
    assert_int_equal(choices[0].device, -1);
    assert_int_equal(choices[0].shared, 0);
    assert_string_equal(choices[0].pci, "");
    assert_string_equal(choices[0].decided, "local rank 0 of 2");
    assert_int_equal(choices[1].device, 1);
    assert_int_equal(choices[2].local_ranks, 1);
    seats[0].launcher_rank = 5;
    decide(seats, 3, choices);
    assert_string_equal(choices[0].decided, "local rank 0 of 2 (5 by the launcher)");
}

/* Parts of a divided GPU have its address, and a number of their own. */
static void test_divided_gpu(void **state)
{
    unsigned char uuids[2][BSATTN_PLACE_UUID_SIZE] = {{1}, {2}};
    bsattn_place_seat_t seats[2];
    bsattn_place_choice_t choices[2];

    (void)state;
    for (int rank = 0; rank < 2; ++rank) {
        make_seat(&seats[rank], "a");
        bsattn_place_seat_add_device(&seats[rank], "0000:1B:00.0", uuids[rank]);
    }
    assert_string_equal(seats[0].devices[0].pci, "0000:1b:00.0");
    decide(seats, 2, choices);
    assert_all_alone(choices, 2);
    assert_false(bsattn_place_same_memory(&seats[0], &choices[0], &seats[1], &choices[1]));
    memcpy(seats[1].devices[0].uuid, uuids[0], sizeof(uuids[0]));
    decide(seats, 2, choices);
    assert_int_equal(choices[0].shared, 2);
    assert_true(bsattn_place_same_memory(&seats[0], &choices[0], &seats[1], &choices[1]));
}

/* Ranks without GPUs share the memory of their host, and nothing with those that have one. */
static void test_same_memory(void **state)
{
    bsattn_place_seat_t seats[4];
    bsattn_place_choice_t choices[4];

    (void)state;
    for (int rank = 0; rank < 4; ++rank) {
        make_seat(&seats[rank], (rank == 2) ? "b" : "a");
    }
    bsattn_place_seat_add_device(&seats[3], "0000:1B:00.0", NULL);
    decide(seats, 4, choices);
    assert_true(bsattn_place_same_memory(&seats[0], &choices[0], &seats[1], &choices[1]));
    assert_false(bsattn_place_same_memory(&seats[0], &choices[0], &seats[2], &choices[2]));
    assert_false(bsattn_place_same_memory(&seats[0], &choices[0], &seats[3], &choices[3]));
}

/* Whatever they see: nobody without a GPU that sees one, and as few on one as the best of all
 * assignments has, found by trying. */
static int best_load(const bsattn_place_seat_t *seats, int ranks, int rank, int *loads, int most)
{
    int best = RANKS_MAX;

    if (rank == ranks) {
        return most;
    }
    for (int i = 0; i < seats[rank].device_count; ++i) {
        int gpu = 0;
        int load;
        while (strcmp(gpus[gpu], seats[rank].devices[i].pci) != 0) {
            ++gpu;
        }
        load = ++loads[gpu];
        load = best_load(seats, ranks, rank + 1, loads, (load > most) ? load : most);
        --loads[gpu];
        best = (load < best) ? load : best;
    }
    return best;
}

static void test_random_sets(void **state)
{
    unsigned random = 12345;

    (void)state;
    for (int trial = 0; trial < 300; ++trial) {
        bsattn_place_seat_t seats[5];
        bsattn_place_choice_t choices[5];
        int loads[ARRAY_SIZE(gpus)] = {0};
        int most = 0;

        for (int rank = 0; rank < 5; ++rank) {
            make_seat(&seats[rank], "a");
            for (int gpu = 0; gpu < 5; ++gpu) {
                random = random * 1664525U + 1013904223U;
                if (((random >> 24) % 3 == 0) || ((gpu == 4) && (seats[rank].device_count == 0))) {
                    bsattn_place_seat_add_device(&seats[rank], gpus[gpu], NULL);
                    seats[rank].devices[seats[rank].device_count - 1].near = (random >> 23) & 1U;
                }
            }
        }
        decide(seats, 5, choices);
        for (int rank = 0; rank < 5; ++rank) {
            assert_in_range(choices[rank].device, 0, seats[rank].device_count - 1);
            most = (choices[rank].shared > most) ? choices[rank].shared : most;
        }
        assert_int_equal(most, best_load(seats, 5, 0, loads, 0));
    }
}

/* Ranks bound to the sockets in turn, as mpirun does: each gets a GPU of its own socket. */
static void test_near_ones(void **state)
{
    bsattn_place_seat_t seats[8];
    bsattn_place_choice_t choices[8];

    (void)state;
    for (int rank = 0; rank < 8; ++rank) {
        make_gpu_seat(&seats[rank], "a", 0, 8);
        for (int i = 0; i < 8; ++i) {
            seats[rank].devices[i].near = (i / 4) == (rank % 2);
        }
    }
    decide(seats, 8, choices);
    assert_all_alone(choices, 8);
    for (int rank = 0; rank < 8; ++rank) {
        assert_int_equal(choices[rank].device / 4, rank % 2);
    }
    assert_string_equal(choices[1].decided, "local rank 1 of 8, near its cores, 8 visible GPUs");
    /* All bound to one socket: a GPU of one's own comes first. */
    for (int rank = 0; rank < 8; ++rank) {
        for (int i = 0; i < 8; ++i) {
            seats[rank].devices[i].near = i < 4;
        }
    }
    decide(seats, 8, choices);
    assert_all_alone(choices, 8);
}

/* ---------------------------------------------------------------------------------- environment */

static const char *const *environment; /* name, value, ..., NULL */

static char *lookup(const char *name)
{
    for (const char *const *entry = environment; *entry != NULL; entry += 2) {
        if (strcmp(entry[0], name) == 0) {
            return (char *)entry[1];
        }
    }
    return NULL;
}

static void test_seat_init(void **state)
{
    static const char *const slurm[] = {"SLURM_LOCALID", "3", "CUDA_VISIBLE_DEVICES", "2,5", NULL};
    static const char *const open_mpi[] = {
        "OMPI_COMM_WORLD_LOCAL_RANK", "1", "SLURM_LOCALID", "0", "OMP_PROC_BIND", "close", NULL};
    static const char *const unbound[] = {"OMP_PROC_BIND", "FALSE", "OMP_PLACES", "cores",
                                          "SLURM_LOCALID", "many",  NULL};
    bsattn_place_seat_t seat;

    (void)state;
    environment = slurm;
    bsattn_place_seat_init(&seat, lookup);
    assert_int_equal(seat.launcher_rank, 3);
    assert_string_equal(seat.visible, "2,5");
    assert_false(seat.openmp_binds);
    assert_false(seat.bound);
    assert_int_equal(seat.device_count, 0);
    assert_true(seat.host[0] != '\0');
    assert_true(seat.cpus[0] != '\0');
    environment = open_mpi; /* mpirun inside of a step of Slurm's */
    bsattn_place_seat_init(&seat, lookup);
    assert_int_equal(seat.launcher_rank, 1);
    assert_true(seat.openmp_binds);
    environment = unbound;
    bsattn_place_seat_init(&seat, lookup);
    assert_int_equal(seat.launcher_rank, -1);
    assert_false(seat.openmp_binds);
}

static void test_devices_max(void **state)
{
    bsattn_place_seat_t seat;

    (void)state;
    make_seat(&seat, "a");
    for (int i = 0; i < BSATTN_PLACE_DEVICES_MAX + 3; ++i) {
        bsattn_place_seat_add_device(&seat, gpus[0], NULL);
    }
    assert_int_equal(seat.device_count, BSATTN_PLACE_DEVICES_MAX);
}

/* ---------------------------------------------------------------------------------------- texts */

static void test_cpus_text(void **state)
{
    static const int cpus[] = {0, 1, 2, 3, 8, 10, 11, 128};
    char out[32];

    (void)state;
    bsattn_place_cpus_text(cpus, ARRAY_SIZE(cpus), out, sizeof(out));
    assert_string_equal(out, "0-3,8,10-11,128");
    bsattn_place_cpus_text(cpus, 0, out, sizeof(out));
    assert_string_equal(out, "");
    bsattn_place_cpus_text(cpus, ARRAY_SIZE(cpus), out, 16); /* fits exactly */
    assert_string_equal(out, "0-3,8,10-11,128");
    bsattn_place_cpus_text(cpus, ARRAY_SIZE(cpus), out, 15);
    assert_string_equal(out, "0-3,8,...");
    bsattn_place_cpus_text(cpus, ARRAY_SIZE(cpus), out, 6);
    assert_string_equal(out, "...");
}

/* ------------------------------------------------------------------------------------- machines */

#ifdef BSATTN_HAVE_HWLOC

static bsattn_place_machine_t *open_machine(const char *source)
{
    static const char here[] = __FILE__;
    bsattn_place_machine_t *machine = NULL;
    char path[4096];
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, path, sizeof(path));
    if (strstr(source, ".xml") != NULL) {
        const char *slash = strrchr(here, '/');
        int length = (slash != NULL) ? (int)(slash + 1 - here) : 0;
        bsattn_strbuf_add(&buf, "%.*splace/", length, here);
    }
    bsattn_strbuf_add(&buf, "%s", source);
    assert_int_equal(bsattn_place_machine_open(path, &machine), BSATTN_OK);
    return machine;
}

/* Decide for all, and find everybody's cores. launched: [ranks] of them or NULL: all may use all */
static void place_all(bsattn_place_machine_t *machine, const char *const *launched,
                      bsattn_place_seat_t *seats, int ranks, bsattn_place_choice_t *choices,
                      bsattn_place_cores_t *cores)
{
    for (int rank = 0; rank < ranks; ++rank) {
        bsattn_place_machine_look(machine, (launched != NULL) ? launched[rank] : NULL,
                                  &seats[rank]);
    }
    decide(seats, ranks, choices);
    for (int rank = 0; rank < ranks; ++rank) {
        bsattn_place_cores(machine, seats, choices, ranks, rank, "auto", &cores[rank]);
    }
}

static void test_eight_gpus(void **state)
{
    static const char *const cpus[] = {"0-3,32-35",   "4-7,36-39",   "8-11,40-43",  "12-15,44-47",
                                       "16-19,48-51", "20-23,52-55", "24-27,56-59", "28-31,60-63"};
    static const char *const nics[] = {"mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3",
                                       "mlx5_4", "mlx5_5", "mlx5_6", "mlx5_7"};
    bsattn_place_machine_t *machine = open_machine("two_sockets_8gpu_8nic.xml");
    bsattn_place_seat_t seats[8];
    bsattn_place_choice_t choices[8];
    bsattn_place_cores_t cores[8];

    (void)state;
    for (int rank = 0; rank < 8; ++rank) {
        make_gpu_seat(&seats[rank], "a", 0, 8);
    }
    place_all(machine, NULL, seats, 8, choices, cores);
    for (int rank = 0; rank < 8; ++rank) {
        assert_false(seats[rank].bound);
        assert_string_equal(seats[rank].cpus, "0-63");
        assert_int_equal(choices[rank].device, rank);
        assert_string_equal(cores[rank].cpus, cpus[rank]);
        assert_string_equal(cores[rank].decided, "4 cores near the GPU");
        assert_string_equal(cores[rank].nic, nics[rank]);
        assert_false(cores[rank].nic_far);
        assert_true(cores[rank].change);
    }
    /* Four ranks: all on GPUs of the first socket, whose cores they divide. */
    place_all(machine, NULL, seats, 4, choices, cores);
    for (int rank = 0; rank < 4; ++rank) {
        assert_string_equal(cores[rank].cpus, cpus[rank]);
    }
    /* Another machine than this one is not bound to. */
    bsattn_place_bind(machine, &cores[0]);
    assert_false(cores[0].change);
    assert_string_equal(cores[0].decided, "cores not bound: another machine");
    bsattn_place_machine_close(machine);
}

/* One GPU for each task, in an order of the launcher's: the cores follow the GPU. */
static void test_eight_gpus_by_task(void **state)
{
    static const int order[] = {7, 0, 6, 1};
    static const char *const cpus[] = {"16-23,48-55", "0-7,32-39", "24-31,56-63", "8-15,40-47"};
    bsattn_place_machine_t *machine = open_machine("two_sockets_8gpu_8nic.xml");
    bsattn_place_seat_t seats[4];
    bsattn_place_choice_t choices[4];
    bsattn_place_cores_t cores[4];

    (void)state;
    for (int rank = 0; rank < 4; ++rank) {
        make_gpu_seat(&seats[rank], "a", order[rank], 1);
    }
    place_all(machine, NULL, seats, 4, choices, cores);
    for (int rank = 0; rank < 4; ++rank) {
        assert_int_equal(choices[rank].device, 0);
        assert_string_equal(cores[rank].cpus, cpus[rank]);
        assert_string_equal(cores[rank].decided, "8 cores near the GPU");
    }
    assert_string_equal(cores[0].nic, "mlx5_7");
    bsattn_place_machine_close(machine);
}

static void test_bound_by_launcher(void **state)
{
    static const char *const launched[] = {"0-15,32-47", "16-31,48-63", "0-15,32-47",
                                           "16-31,48-63"};
    bsattn_place_machine_t *machine = open_machine("two_sockets_8gpu_8nic.xml");
    bsattn_place_seat_t seats[4];
    bsattn_place_choice_t choices[4];
    bsattn_place_cores_t cores[4];

    (void)state;
    for (int rank = 0; rank < 4; ++rank) {
        make_gpu_seat(&seats[rank], "a", 0, 8);
    }
    place_all(machine, launched, seats, 4, choices, cores);
    assert_all_alone(choices, 4);
    for (int rank = 0; rank < 4; ++rank) {
        assert_true(seats[rank].bound);
        assert_string_equal(cores[rank].cpus, launched[rank]);
        assert_string_equal(cores[rank].decided, "binding set by the launcher");
        assert_false(cores[rank].change);
        /* The GPU follows the cores instead. */
        assert_int_equal(choices[rank].device / 4, rank % 2);
        assert_false(cores[rank].nic_far);
    }
    /* Nor where OpenMP binds, or nobody wants it. */
    seats[0].bound = false;
    bsattn_place_cores(machine, seats, choices, 4, 0, "off", &cores[0]);
    assert_string_equal(cores[0].decided, "cores as launched");
    assert_string_equal(cores[0].nic, "mlx5_0");
    seats[0].openmp_binds = true;
    bsattn_place_cores(machine, seats, choices, 4, 0, NULL, &cores[0]);
    assert_string_equal(cores[0].decided, "cores left to OpenMP's binding");
    bsattn_place_machine_close(machine);
}

static void test_one_gpu(void **state)
{
    bsattn_place_machine_t *machine = open_machine("one_gpu.xml");
    bsattn_place_seat_t seats[2];
    bsattn_place_choice_t choices[2];
    bsattn_place_cores_t cores[2];

    (void)state;
    for (int rank = 0; rank < 2; ++rank) {
        make_seat(&seats[rank], "a");
        bsattn_place_seat_add_device(&seats[rank], "0000:00:07.0", NULL);
    }
    place_all(machine, NULL, seats, 1, choices, cores);
    assert_string_equal(cores[0].cpus, "0-7");
    assert_string_equal(cores[0].decided, "4 cores near the GPU");
    assert_false(cores[0].change); /* it has them */
    assert_string_equal(cores[0].nic, "");
    /* Two ranks on the one GPU: each two whole cores. */
    place_all(machine, NULL, seats, 2, choices, cores);
    assert_int_equal(choices[1].shared, 2);
    assert_string_equal(cores[0].cpus, "0-3");
    assert_string_equal(cores[1].cpus, "4-7");
    bsattn_place_machine_close(machine);
}

/* Two cores each, or none of its own. */
static void test_too_few_cores_for_gpus(void **state)
{
    bsattn_place_machine_t *machine = open_machine("one_gpu.xml");
    bsattn_place_seat_t seats[3];
    bsattn_place_choice_t choices[3];
    bsattn_place_cores_t cores[3];

    (void)state;
    for (int rank = 0; rank < 3; ++rank) {
        make_seat(&seats[rank], "a");
        bsattn_place_seat_add_device(&seats[rank], "0000:00:07.0", NULL);
    }
    place_all(machine, NULL, seats, 3, choices, cores);
    for (int rank = 0; rank < 3; ++rank) {
        assert_string_equal(cores[rank].cpus, "0-7");
        assert_string_equal(cores[rank].decided, "cores not bound: 3 ranks, 4 cores near the GPU");
        assert_false(cores[rank].change);
    }
    bsattn_place_machine_close(machine);
}

/* A core, or what the system counts as one, for each thread asked for. */
static void test_threads(void **state)
{
    bsattn_place_machine_t *machine = open_machine("numa:2 core:8 pu:2");
    bsattn_place_seat_t seats[4];
    bsattn_place_choice_t choices[4];
    bsattn_place_cores_t cores[4];

    (void)state;
    for (int rank = 0; rank < 4; ++rank) {
        make_seat(&seats[rank], "a");
        seats[rank].threads = 8;
    }
    place_all(machine, NULL, seats, 4, choices, cores);
    assert_string_equal(cores[3].cpus, "24-31");
    for (int rank = 0; rank < 4; ++rank) {
        seats[rank].threads = 9;
    }
    place_all(machine, NULL, seats, 4, choices, cores);
    assert_string_equal(cores[3].cpus, "0-31");
    assert_string_equal(cores[3].decided, "cores not bound: 4 ranks of 9 threads, 16 cores");
    assert_false(cores[3].change);
    bsattn_place_machine_close(machine);
}

static void test_near_text(void **state)
{
    bsattn_place_machine_t *machine = open_machine("two_gpu_far_nic.xml");
    char text[128];

    (void)state;
    bsattn_place_near_text(machine, "0000:21:00.0", text, sizeof(text));
    assert_string_equal(text, "cores 0,2,4,6,8,10,12,14, NIC ens2 (at another NUMA node)");
    bsattn_place_near_text(machine, "0000:99:00.0", text, sizeof(text));
    assert_string_equal(text, "");
    bsattn_place_machine_close(machine);
    machine = open_machine("two_sockets_8gpu_8nic.xml");
    bsattn_place_near_text(machine, gpus[5], text, sizeof(text));
    assert_string_equal(text, "cores 16-31,48-63, NIC mlx5_5");
    bsattn_place_machine_close(machine);
}

static void test_far_nic(void **state)
{
    bsattn_place_machine_t *machine = open_machine("two_gpu_far_nic.xml");
    bsattn_place_seat_t seats[2];
    bsattn_place_choice_t choices[2];
    bsattn_place_cores_t cores[2];

    (void)state;
    for (int rank = 0; rank < 2; ++rank) {
        make_seat(&seats[rank], "a");
        bsattn_place_seat_add_device(&seats[rank], "0000:21:00.0", NULL);
        bsattn_place_seat_add_device(&seats[rank], "0000:22:00.0", NULL);
    }
    place_all(machine, NULL, seats, 2, choices, cores);
    assert_string_equal(cores[0].cpus, "0,2,4,6");
    assert_string_equal(cores[1].cpus, "8,10,12,14");
    assert_string_equal(cores[0].nic, "ens2");
    assert_true(cores[0].nic_far);
    bsattn_place_machine_close(machine);
}

/* An address that the machine does not know: all cores, divided. */
static void test_unknown_device(void **state)
{
    bsattn_place_machine_t *machine = open_machine("one_gpu.xml");
    bsattn_place_seat_t seats[2];
    bsattn_place_choice_t choices[2];
    bsattn_place_cores_t cores[2];

    (void)state;
    for (int rank = 0; rank < 2; ++rank) {
        make_gpu_seat(&seats[rank], "a", rank, 1);
    }
    place_all(machine, NULL, seats, 2, choices, cores);
    assert_true(seats[1].devices[0].near);
    assert_string_equal(cores[1].cpus, "4-7");
    assert_string_equal(cores[1].decided, "2 cores");
    assert_string_equal(cores[1].nic, "");
    bsattn_place_machine_close(machine);
}

/* Ranks without GPUs: whole cores, in the order of the topology. */
static void test_cpu_ranks(void **state)
{
    static const char *const thirds[] = {"0-9", "10-19", "20-31"};
    bsattn_place_machine_t *machine = open_machine("numa:2 core:8 pu:2");
    bsattn_place_seat_t seats[RANKS_MAX];
    bsattn_place_choice_t choices[RANKS_MAX];
    bsattn_place_cores_t cores[RANKS_MAX];

    (void)state;
    for (int rank = 0; rank < RANKS_MAX; ++rank) {
        make_seat(&seats[rank], "a");
    }
    place_all(machine, NULL, seats, 4, choices, cores);
    assert_string_equal(cores[0].cpus, "0-7");
    assert_string_equal(cores[3].cpus, "24-31");
    assert_string_equal(cores[3].decided, "4 cores");
    place_all(machine, NULL, seats, 3, choices, cores);
    for (int rank = 0; rank < 3; ++rank) {
        assert_string_equal(cores[rank].cpus, thirds[rank]);
    }
    place_all(machine, NULL, seats, 16, choices, cores);
    assert_string_equal(cores[15].cpus, "30-31");
    assert_string_equal(cores[15].decided, "1 core");
    place_all(machine, NULL, seats, 17, choices, cores);
    assert_string_equal(cores[15].cpus, "0-31");
    assert_string_equal(cores[15].decided, "cores not bound: 17 ranks, 16 cores");
    assert_false(cores[15].change);
    /* Only ranks of one's own host count. */
    for (int rank = 2; rank < 4; ++rank) {
        make_seat(&seats[rank], "b");
    }
    place_all(machine, NULL, seats, 4, choices, cores);
    assert_string_equal(cores[1].cpus, "16-31");
    assert_string_equal(cores[2].cpus, "0-15");
    bsattn_place_machine_close(machine);
}

static void test_sources(void **state)
{
    bsattn_place_machine_t *machine;

    (void)state;
    assert_int_equal(bsattn_place_machine_open("numa:two", &machine), BSATTN_ERR_INPUT);
    assert_int_equal(bsattn_place_machine_open("/nowhere/at/all.xml", &machine), BSATTN_ERR_INPUT);
    assert_non_null(strstr(bsattn_last_error(), "topology '/nowhere/at/all.xml'"));
}

/* This machine, and the binding that is really set. */
static void test_this_machine(void **state)
{
    bsattn_place_machine_t *machine;
    bsattn_place_seat_t seats[2];
    bsattn_place_choice_t choices[2];
    bsattn_place_cores_t cores;
    char before[BSATTN_PLACE_CPUS_SIZE];
    char now[BSATTN_PLACE_CPUS_SIZE];

    (void)state;
    bsattn_host_cores_text(before, sizeof(before));
    assert_int_equal(bsattn_place_machine_open(NULL, &machine), BSATTN_OK);
    for (int rank = 0; rank < 2; ++rank) {
        environment = (const char *const[]){NULL};
        bsattn_place_seat_init(&seats[rank], lookup);
        bsattn_place_machine_look(machine, NULL, &seats[rank]);
    }
    assert_string_equal(seats[0].cpus, before);
    decide(seats, 2, choices);
    bsattn_place_cores(machine, seats, choices, 2, 1, "auto", &cores);
    bsattn_place_bind(machine, &cores);
    bsattn_host_cores_text(now, sizeof(now));
    assert_string_equal(cores.cpus, now);
    assert_int_equal(cores.change, strcmp(now, before) != 0);
    bsattn_place_unbind(machine, &cores);
    bsattn_host_cores_text(now, sizeof(now));
    assert_string_equal(now, before);
    bsattn_place_machine_close(machine);
}

#else

static void test_without_hwloc(void **state)
{
    bsattn_place_machine_t *machine;
    bsattn_place_seat_t seat;
    bsattn_place_choice_t choice;
    bsattn_place_cores_t cores;
    char text[8] = "text";

    (void)state;
    assert_int_equal(bsattn_place_machine_open("numa:2", &machine), BSATTN_ERR_INPUT);
    assert_int_equal(bsattn_place_machine_open(NULL, &machine), BSATTN_OK);
    make_gpu_seat(&seat, "a", 0, 2);
    bsattn_place_machine_look(machine, NULL, &seat);
    decide(&seat, 1, &choice);
    bsattn_place_cores(machine, &seat, &choice, 1, 0, "auto", &cores);
    assert_string_equal(cores.decided, "cores as launched: hwloc not in this build");
    assert_string_equal(cores.cpus, "0-63");
    bsattn_place_bind(machine, &cores);
    bsattn_place_unbind(machine, &cores);
    bsattn_place_near_text(machine, gpus[0], text, sizeof(text));
    assert_string_equal(text, "");
    assert_string_equal(bsattn_place_library(), "hwloc not in this build");
    bsattn_place_machine_close(machine);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_see_all),       cmocka_unit_test(test_more_ranks_than_gpus),
        cmocka_unit_test(test_two_hosts),         cmocka_unit_test(test_host_identity),
        cmocka_unit_test(test_one_for_each),      cmocka_unit_test(test_different_sets),
        cmocka_unit_test(test_without_gpu),       cmocka_unit_test(test_divided_gpu),
        cmocka_unit_test(test_same_memory),
        cmocka_unit_test(test_random_sets),       cmocka_unit_test(test_near_ones),
        cmocka_unit_test(test_seat_init),         cmocka_unit_test(test_devices_max),
        cmocka_unit_test(test_cpus_text),         cmocka_unit_test(test_bound_to_one_core),
#ifdef BSATTN_HAVE_HWLOC
        cmocka_unit_test(test_eight_gpus),        cmocka_unit_test(test_eight_gpus_by_task),
        cmocka_unit_test(test_bound_by_launcher), cmocka_unit_test(test_one_gpu),
        cmocka_unit_test(test_far_nic),           cmocka_unit_test(test_unknown_device),
        cmocka_unit_test(test_cpu_ranks),         cmocka_unit_test(test_sources),
        cmocka_unit_test(test_this_machine),      cmocka_unit_test(test_too_few_cores_for_gpus),
        cmocka_unit_test(test_threads),           cmocka_unit_test(test_near_text),
#else
        cmocka_unit_test(test_without_hwloc),
#endif
    };

    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
