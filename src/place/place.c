/* SPDX-License-Identifier: Apache-2.0 */
#include "place/place.h"

#include "base/host.h"
#include "base/text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --------------------------------------------------------------------------------------- a seat */

/* The first line of a file, "" if there is none. */
static void read_line(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "r");

    out[0] = '\0';
    if (file == NULL) {
        return;
    }
    if (fgets(out, (int)size, file) == NULL) {
        out[0] = '\0';
    }
    out[strcspn(out, "\n")] = '\0';
    (void)fclose(file);
}

/* What launchers call a process's number on its host: Open MPI, Intel MPI and MPICH (Hydra), MVAPICH,
 * PALS of HPE, Slurm. */
static int launcher_rank(char *(*lookup)(const char *name))
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                                        "MV2_COMM_WORLD_LOCAL_RANK", "PALS_LOCAL_RANKID",
                                        "SLURM_LOCALID"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
        const char *value = lookup(names[i]);
        int64_t number;
        if ((value != NULL) && bsattn_text_int64(value, &number) && (number >= 0) &&
            (number < 1 << 20)) {
            return (int)number;
        }
    }
    return -1;
}

static bool openmp_binds(char *(*lookup)(const char *name))
{
    const char *bind = lookup("OMP_PROC_BIND");
    bool told = (lookup("OMP_PLACES") != NULL) || (lookup("GOMP_CPU_AFFINITY") != NULL) ||
                (lookup("KMP_AFFINITY") != NULL);

    if ((bind != NULL) && (tolower((unsigned char)bind[0]) == 'f')) {
        return false; /* "false" turns off what the others say */
    }
    return (bind != NULL) || told;
}

void bsattn_place_seat_init(bsattn_place_seat_t *seat, char *(*lookup)(const char *name))
{
    const char *visible = lookup("CUDA_VISIBLE_DEVICES");

    memset(seat, 0, sizeof(*seat)); /* travels as bytes, and so does what lies between the fields */
    bsattn_host_name(seat->host, sizeof(seat->host));
    read_line("/proc/sys/kernel/random/boot_id", seat->boot, sizeof(seat->boot));
    (void)bsattn_text_copy(seat->visible, sizeof(seat->visible), (visible != NULL) ? visible : "");
    bsattn_host_cores_text(seat->cpus, sizeof(seat->cpus));
    seat->launcher_rank = launcher_rank(lookup);
    seat->openmp_binds = openmp_binds(lookup);
}

void bsattn_place_seat_add_device(bsattn_place_seat_t *seat, const char *pci, const void *uuid)
{
    bsattn_place_device_t *device;

    if (seat->device_count >= BSATTN_PLACE_DEVICES_MAX) {
        return;
    }
    device = &seat->devices[seat->device_count++];
    (void)bsattn_text_copy(device->pci, sizeof(device->pci), pci);
    for (char *letter = device->pci; *letter != '\0'; ++letter) {
        *letter = (char)tolower((unsigned char)*letter);
    }
    if (uuid != NULL) {
        memcpy(device->uuid, uuid, sizeof(device->uuid));
    }
}

bool bsattn_place_same_host(const bsattn_place_seat_t *a, const bsattn_place_seat_t *b)
{
    if ((a->boot[0] != '\0') && (b->boot[0] != '\0')) {
        return strcmp(a->boot, b->boot) == 0;
    }
    return strcmp(a->host, b->host) == 0;
}

static bool same_device(const bsattn_place_device_t *a, const bsattn_place_device_t *b)
{
    static const unsigned char unknown[BSATTN_PLACE_UUID_SIZE];

    return (strcmp(a->pci, b->pci) == 0) && ((memcmp(a->uuid, b->uuid, sizeof(a->uuid)) == 0) ||
                                             (memcmp(a->uuid, unknown, sizeof(unknown)) == 0) ||
                                             (memcmp(b->uuid, unknown, sizeof(unknown)) == 0));
}

bool bsattn_place_same_memory(const bsattn_place_seat_t *seat, const bsattn_place_choice_t *choice,
                              const bsattn_place_seat_t *other_seat,
                              const bsattn_place_choice_t *other_choice)
{
    if (!bsattn_place_same_host(seat, other_seat)) {
        return false;
    }
    if ((choice->device < 0) || (other_choice->device < 0)) {
        return (choice->device < 0) && (other_choice->device < 0);
    }
    return same_device(&seat->devices[choice->device], &other_seat->devices[other_choice->device]);
}

/* ------------------------------------------------------------------------------------- matching */

/* The ranks of one host and the GPUs that they see. */
typedef struct group {
    const bsattn_place_seat_t *seats; /* [ranks] of the job */
    int *members;                     /* [count]: ranks, ascending */
    int count;
    int (*gpu_of)[BSATTN_PLACE_DEVICES_MAX]; /* [count]: number of each visible GPU on the host */
    int *loads;                              /* [gpus]: ranks on each */
    bool *visited;                           /* [gpus]: in the search that runs */
    int *taken;                              /* [count]: index among the visible; -1: none yet */
    int gpus;
} group_t;

static const bsattn_place_seat_t *seat_of(const group_t *group, int member)
{
    return &group->seats[group->members[member]];
}

/* The i-th wish of a member: its visible GPUs in turn, from the one of its local rank on. */
static int wish(const group_t *group, int member, int i)
{
    return (member + i) % seat_of(group, member)->device_count;
}

static void take(group_t *group, int member, int index)
{
    if (group->taken[member] >= 0) {
        --group->loads[group->gpu_of[member][group->taken[member]]];
    }
    group->taken[member] = index;
    ++group->loads[group->gpu_of[member][index]];
}

/* Give a member a GPU that has fewer than `limit` ranks, moving others to another of theirs if
 * need be: the augmenting path of a bipartite matching. As deep as there are GPUs. */
static bool place_member(group_t *group, int member, int limit, bool near_only)
{
    const bsattn_place_seat_t *seat = seat_of(group, member);

    for (int i = 0; i < seat->device_count; ++i) {
        int index = wish(group, member, i);
        if ((group->loads[group->gpu_of[member][index]] < limit) &&
            (!near_only || seat->devices[index].near)) {
            take(group, member, index);
            return true;
        }
    }
    for (int i = 0; i < seat->device_count; ++i) {
        int index = wish(group, member, i);
        int gpu = group->gpu_of[member][index];
        if (group->visited[gpu] || (near_only && !seat->devices[index].near)) {
            continue;
        }
        group->visited[gpu] = true;
        for (int other = 0; other < group->count; ++other) {
            bool on_it =
                (group->taken[other] >= 0) && (group->gpu_of[other][group->taken[other]] == gpu);
            if (on_it && place_member(group, other, limit, near_only)) {
                take(group, member, index);
                return true;
            }
        }
    }
    return false;
}

static void number_gpus(group_t *group)
{
    for (int member = 0; member < group->count; ++member) {
        const bsattn_place_seat_t *seat = seat_of(group, member);
        for (int i = 0; i < seat->device_count; ++i) {
            int number = -1;
            for (int other = 0; (other < member) && (number < 0); ++other) {
                const bsattn_place_seat_t *known = seat_of(group, other);
                for (int k = 0; (k < known->device_count) && (number < 0); ++k) {
                    number = same_device(&known->devices[k], &seat->devices[i])
                                 ? group->gpu_of[other][k]
                                 : -1;
                }
            }
            group->gpu_of[member][i] = (number >= 0) ? number : group->gpus++;
        }
    }
}

/* Place who has no GPU yet. @return how many still have none */
static int match_pass(group_t *group, int limit, bool near_only)
{
    int waiting = 0;

    for (int member = 0; member < group->count; ++member) {
        if ((group->taken[member] < 0) && (seat_of(group, member)->device_count > 0)) {
            memset(group->visited, 0, (size_t)group->gpus * sizeof(*group->visited));
            waiting += place_member(group, member, limit, near_only) ? 0 : 1;
        }
    }
    return waiting;
}

/* One more rank on each GPU as long as somebody has none: near ones first, then any. */
static void match(group_t *group)
{
    int limit = 0;

    do {
        ++limit;
        (void)match_pass(group, limit, true);
    } while (match_pass(group, limit, false) > 0);
}

/* ------------------------------------------------------------------------------------ decisions */

static bool any_far(const bsattn_place_seat_t *seat)
{
    for (int i = 0; i < seat->device_count; ++i) {
        if (!seat->devices[i].near) {
            return true;
        }
    }
    return false;
}

static void say_choice(const bsattn_place_seat_t *seat, bsattn_place_choice_t *choice,
                       int ranks_with_gpu)
{
    bsattn_strbuf_t buf;
    int count = seat->device_count;

    bsattn_strbuf_init(&buf, choice->decided, sizeof(choice->decided));
    if (count == 0) {
        bsattn_strbuf_add(&buf, "local rank %d of %d", choice->local_rank, choice->local_ranks);
    } else if (choice->shared > 1) {
        bsattn_strbuf_add(&buf, "shared by %d ranks: %d ranks, %d GPU%s", choice->shared,
                          ranks_with_gpu, choice->gpus, (choice->gpus == 1) ? "" : "s");
    } else if (count == 1) {
        bsattn_strbuf_add(&buf, "the only visible GPU%s%s%s",
                          (seat->visible[0] != '\0') ? " (CUDA_VISIBLE_DEVICES=" : "",
                          seat->visible, (seat->visible[0] != '\0') ? ")" : "");
    } else {
        bool plain = choice->device == choice->local_rank % count;
        bool nearer = seat->devices[choice->device].near && any_far(seat);
        const char *how = nearer ? "near its cores, " : "a free one, ";
        bsattn_strbuf_add(&buf, "local rank %d of %d, %s%d visible GPUs", choice->local_rank,
                          choice->local_ranks, plain ? "" : how, count);
    }
    if ((seat->launcher_rank >= 0) && (seat->launcher_rank != choice->local_rank)) {
        bsattn_strbuf_add(&buf, " (%d by the launcher)", seat->launcher_rank);
    }
}

static void decide_group(group_t *group, bsattn_place_choice_t *choices)
{
    int ranks_with_gpu = 0;

    number_gpus(group);
    match(group);
    for (int member = 0; member < group->count; ++member) {
        ranks_with_gpu += (group->taken[member] >= 0) ? 1 : 0;
    }
    for (int member = 0; member < group->count; ++member) {
        const bsattn_place_seat_t *seat = seat_of(group, member);
        bsattn_place_choice_t *choice = &choices[group->members[member]];
        int taken = group->taken[member];

        choice->device = taken;
        choice->local_rank = member;
        choice->local_ranks = group->count;
        choice->gpus = group->gpus;
        if (taken >= 0) {
            choice->shared = group->loads[group->gpu_of[member][taken]];
            (void)bsattn_text_copy(choice->pci, sizeof(choice->pci), seat->devices[taken].pci);
        }
        say_choice(seat, choice, ranks_with_gpu);
    }
}

/* The ranks on the host of `first`, none of which is lower. */
static void fill_group(group_t *group, const bsattn_place_seat_t *seats, int ranks, int first)
{
    group->seats = seats;
    group->count = 0;
    group->gpus = 0;
    for (int rank = first; rank < ranks; ++rank) {
        if (bsattn_place_same_host(&seats[rank], &seats[first])) {
            group->taken[group->count] = -1;
            group->members[group->count++] = rank;
        }
    }
    for (int gpu = 0; gpu < group->count * BSATTN_PLACE_DEVICES_MAX; ++gpu) {
        group->loads[gpu] = 0;
    }
}

bsattn_status_t bsattn_place_decide(const bsattn_place_seat_t *seats, int ranks,
                                    bsattn_place_choice_t *choices_p)
{
    size_t count = (size_t)ranks;
    group_t group = {
        .members = calloc(count, sizeof(*group.members)),
        .gpu_of = calloc(count, sizeof(*group.gpu_of)),
        .loads = calloc(count * BSATTN_PLACE_DEVICES_MAX, sizeof(*group.loads)),
        .visited = calloc(count * BSATTN_PLACE_DEVICES_MAX, sizeof(*group.visited)),
        .taken = calloc(count, sizeof(*group.taken)),
    };
    bsattn_status_t status = BSATTN_OK;

    if ((group.members == NULL) || (group.gpu_of == NULL) || (group.loads == NULL) ||
        (group.visited == NULL) || (group.taken == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory to place %d ranks", ranks);
    } else {
        memset(choices_p, 0, count * sizeof(*choices_p));
        for (int rank = 0; rank < ranks; ++rank) {
            if (choices_p[rank].local_ranks == 0) {
                fill_group(&group, seats, ranks, rank);
                decide_group(&group, choices_p);
            }
        }
    }
    free(group.members);
    free(group.gpu_of);
    free(group.loads);
    free(group.visited);
    free(group.taken);
    return status;
}

/* ---------------------------------------------------------------------------------------- texts */

void bsattn_place_cpus_text(const int *cpus, size_t count, char *out, size_t size)
{
    bsattn_strbuf_t buf;
    size_t first = 0;

    bsattn_strbuf_init(&buf, out, size);
    while (first < count) {
        char range[32];
        bsattn_strbuf_t piece;
        size_t last = first;
        size_t room;

        while ((last + 1 < count) && (cpus[last + 1] == cpus[last] + 1)) {
            ++last;
        }
        bsattn_strbuf_init(&piece, range, sizeof(range));
        bsattn_strbuf_add(&piece, (last > first) ? "%s%d-%d" : "%s%d", (first > 0) ? "," : "",
                          cpus[first], cpus[last]);
        /* Half a number would be another number: room for the dots stays until the last range. */
        room = size - buf.length;
        if (piece.length + ((last + 1 < count) ? strlen(",...") : 0) >= room) {
            bsattn_strbuf_add(&buf, "%s", (first > 0) ? ",..." : "...");
            return;
        }
        bsattn_strbuf_add(&buf, "%s", range);
        first = last + 1;
    }
}

bool bsattn_place_warning(const bsattn_place_seat_t *seats, const bsattn_place_choice_t *choices,
                          int ranks, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    for (int rank = 0; rank < ranks; ++rank) {
        if (choices[rank].shared > 1) {
            bsattn_strbuf_add(&buf,
                              "%d ranks share the GPU %s of host %s; start at most one rank for "
                              "each GPU, and let each see all GPUs or one of its own",
                              choices[rank].shared, choices[rank].pci, seats[rank].host);
            return true;
        }
    }
    for (int rank = 0; rank < ranks; ++rank) {
        if ((choices[rank].device >= 0) && seats[rank].bound &&
            (strpbrk(seats[rank].cpus, ",-") == NULL)) {
            bsattn_strbuf_add(&buf,
                              "rank %d has a GPU and is bound to core %s alone, which threads of "
                              "MPI, CUDA and NCCL need too; start it with more cores, or unbound "
                              "(mpirun --bind-to none, srun --cpu-bind=none)",
                              rank, seats[rank].cpus);
            return true;
        }
    }
    return false;
}

void bsattn_place_decided_text(const bsattn_place_choice_t *choice,
                               const bsattn_place_cores_t *cores, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    bsattn_strbuf_add(&buf, "%s; %s", choice->decided, cores->decided);
}
