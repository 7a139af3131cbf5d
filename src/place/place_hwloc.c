/* SPDX-License-Identifier: Apache-2.0 */
/* What hwloc knows of the machine; without it a machine of which nothing is known. */
#include "place/place.h"

#include "base/host.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether a rank's cores may be changed at all; if not, say why. */
static bool may_change(const bsattn_place_seat_t *seat, const char *bind,
                       bsattn_place_cores_t *cores_p)
{
    const char *why = NULL;

    if (!bsattn_text_is_auto(bind)) {
        why = "cores as launched";
    } else if (seat->openmp_binds) {
        why = "cores left to OpenMP's binding";
    } else if (seat->bound) {
        why = "binding set by the launcher";
    }
    if (why != NULL) {
        (void)bsattn_text_copy(cores_p->decided, sizeof(cores_p->decided), why);
    }
    return why == NULL;
}

static void start_cores(const bsattn_place_seat_t *seat, bsattn_place_cores_t *cores_p)
{
    memset(cores_p, 0, sizeof(*cores_p));
    (void)bsattn_text_copy(cores_p->cpus, sizeof(cores_p->cpus), seat->cpus);
}

#ifdef BSATTN_HAVE_HWLOC

#include <errno.h>
#include <hwloc.h>

/* A rank with a GPU needs a core for the threads of MPI, CUDA and NCCL beside its own. */
enum { CPUS_MAX = 8192, LIBRARY_SIZE = 32, CORES_WITH_GPU = 2 };

struct bsattn_place_machine {
    hwloc_topology_t topology;
    hwloc_bitmap_t process; /* what a process may use, of the seat last looked at */
    hwloc_bitmap_t base;    /* what a rank chooses from */
    hwloc_bitmap_t other;   /* what another rank chooses from */
    hwloc_bitmap_t chosen;
};

const char *bsattn_place_library(void)
{
    static char text[LIBRARY_SIZE];
    unsigned version = hwloc_get_api_version();

    (void)snprintf(text, sizeof(text), "hwloc, API %u.%u.%u", version >> 16, (version >> 8) & 0xFF,
                   version & 0xFF);
    return text;
}

/* -------------------------------------------------------------------------------------- machine */

/* The kernel's files tell all that is needed here. Most of these components would ask the GPUs'
 * libraries, and so start them; "pci" reads the same files through a library that leaks. */
static void forbid_components(hwloc_topology_t topology)
{
    static const char *const names[] = {"cuda", "nvml", "opencl", "rsmi", "levelzero", "gl", "pci"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
        (void)hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                            names[i]);
    }
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t end_length = strlen(end);

    return (length >= end_length) && (strcmp(text + length - end_length, end) == 0);
}

static bool load(hwloc_topology_t topology, const char *source)
{
    if ((source != NULL) && ends_with(source, ".xml")) {
        if (hwloc_topology_set_xml(topology, source) != 0) {
            return false;
        }
    } else if (source != NULL) {
        if (hwloc_topology_set_synthetic(topology, source) != 0) {
            return false;
        }
    } else {
        forbid_components(topology);
    }
    return (hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) == 0) &&
           (hwloc_topology_load(topology) == 0);
}

bsattn_status_t bsattn_place_machine_open(const char *source, bsattn_place_machine_t **machine_p)
{
    bsattn_place_machine_t *machine = calloc(1, sizeof(*machine));

    if ((machine == NULL) || (hwloc_topology_init(&machine->topology) != 0)) {
        free(machine);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the topology of this host");
    }
    machine->process = hwloc_bitmap_alloc();
    machine->base = hwloc_bitmap_alloc();
    machine->other = hwloc_bitmap_alloc();
    machine->chosen = hwloc_bitmap_alloc();
    if ((machine->process == NULL) || (machine->base == NULL) || (machine->other == NULL) ||
        (machine->chosen == NULL)) {
        bsattn_place_machine_close(machine);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the cores of this host");
    }
    if (!load(machine->topology, source)) {
        bsattn_place_machine_close(machine);
        if (source == NULL) {
            return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                               "hwloc could not read the topology of this host");
        }
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "topology '%s': must be a file of hwloc's (NAME.xml) or a synthetic "
                           "one such as 'numa:2 core:8 pu:2'",
                           source);
    }
    *machine_p = machine;
    return BSATTN_OK;
}

void bsattn_place_machine_close(bsattn_place_machine_t *machine)
{
    if (machine == NULL) {
        return;
    }
    hwloc_bitmap_free(machine->process);
    hwloc_bitmap_free(machine->base);
    hwloc_bitmap_free(machine->other);
    hwloc_bitmap_free(machine->chosen);
    hwloc_topology_destroy(machine->topology);
    free(machine);
}

static void set_text(hwloc_const_bitmap_t set, char *out, size_t size)
{
    int cpus[CPUS_MAX];
    size_t count = 0;

    for (int cpu = hwloc_bitmap_first(set); (cpu >= 0) && (count < CPUS_MAX);
         cpu = hwloc_bitmap_next(set, cpu)) {
        cpus[count++] = cpu;
    }
    bsattn_place_cpus_text(cpus, count, out, size);
}

/* ----------------------------------------------------------------------------------------- GPUs */

static hwloc_obj_t find_device(const bsattn_place_machine_t *machine, const char *pci)
{
    return (pci[0] == '\0') ? NULL : hwloc_get_pcidev_by_busidstring(machine->topology, pci);
}

/* The cores of a GPU's neighbourhood; NULL if it is not known. */
static hwloc_const_bitmap_t cores_of_device(const bsattn_place_machine_t *machine, const char *pci)
{
    hwloc_obj_t device = find_device(machine, pci);
    hwloc_obj_t home =
        (device == NULL) ? NULL : hwloc_get_non_io_ancestor_obj(machine->topology, device);

    return (home == NULL) ? NULL : home->cpuset;
}

void bsattn_place_machine_look(bsattn_place_machine_t *machine, const char *cpus,
                               bsattn_place_seat_t *seat)
{
    hwloc_const_bitmap_t allowed = hwloc_topology_get_allowed_cpuset(machine->topology);

    /* Of this thread: what its OpenMP threads will inherit. MPI's own threads may have others. */
    if ((cpus != NULL) ? (hwloc_bitmap_list_sscanf(machine->process, cpus) != 0)
                       : (!hwloc_topology_is_thissystem(machine->topology) ||
                          (hwloc_get_cpubind(machine->topology, machine->process,
                                             HWLOC_CPUBIND_THREAD) != 0))) {
        (void)hwloc_bitmap_copy(machine->process, allowed);
    }
    (void)hwloc_bitmap_and(machine->process, machine->process, allowed);
    if (hwloc_bitmap_iszero(machine->process)) {
        (void)hwloc_bitmap_copy(machine->process, allowed);
    }
    seat->bound = !hwloc_bitmap_isequal(machine->process, allowed);
    set_text(machine->process, seat->cpus, sizeof(seat->cpus));
    for (int i = 0; i < seat->device_count; ++i) {
        hwloc_const_bitmap_t home = cores_of_device(machine, seat->devices[i].pci);
        seat->devices[i].near = (home == NULL) || hwloc_bitmap_intersects(home, machine->process);
    }
}

/* ------------------------------------------------------------------------------- network device */

/* How many steps up from a GPU the first common ancestor with another object is. */
static int steps_to_common(hwloc_obj_t gpu, hwloc_obj_t object)
{
    int steps = 0;

    for (hwloc_obj_t up = gpu; up != NULL; up = up->parent) {
        for (hwloc_obj_t from = object; from != NULL; from = from->parent) {
            if (from == up) {
                return steps;
            }
        }
        ++steps;
    }
    return steps;
}

static bool is_usable_nic(hwloc_obj_t object, hwloc_obj_osdev_type_t type)
{
    const char *port = hwloc_obj_get_info_by_name(object, "Port1State");

    return (object->attr->osdev.type == type) && (object->name != NULL) &&
           ((port == NULL) || (strcmp(port, "4") == 0)); /* 4: the link is up */
}

/* Of equally near ones the first. @return NULL if there is none */
static hwloc_obj_t nearest_nic(hwloc_topology_t topology, hwloc_obj_t gpu,
                               hwloc_obj_osdev_type_t type, int *steps_p)
{
    hwloc_obj_t best = NULL;

    for (hwloc_obj_t object = hwloc_get_next_osdev(topology, NULL); object != NULL;
         object = hwloc_get_next_osdev(topology, object)) {
        int steps = steps_to_common(gpu, object);
        if (is_usable_nic(object, type) && ((best == NULL) || (steps < *steps_p))) {
            best = object;
            *steps_p = steps;
        }
    }
    return best;
}

static void find_nic(const bsattn_place_machine_t *machine, const char *pci,
                     bsattn_place_cores_t *cores_p)
{
    hwloc_obj_t gpu = find_device(machine, pci);
    hwloc_obj_t home;
    hwloc_obj_t nic;
    int steps = 0;

    if (gpu == NULL) {
        return;
    }
    nic = nearest_nic(machine->topology, gpu, HWLOC_OBJ_OSDEV_OPENFABRICS, &steps);
    if (nic == NULL) {
        nic = nearest_nic(machine->topology, gpu, HWLOC_OBJ_OSDEV_NETWORK, &steps);
    }
    if (nic == NULL) {
        return;
    }
    (void)bsattn_text_copy(cores_p->nic, sizeof(cores_p->nic), nic->name);
    home = hwloc_get_non_io_ancestor_obj(machine->topology, gpu);
    cores_p->nic_far = steps > steps_to_common(gpu, home);
}

void bsattn_place_near_text(const bsattn_place_machine_t *machine, const char *pci, char *out,
                            size_t size)
{
    hwloc_const_bitmap_t home = cores_of_device(machine, pci);
    bsattn_place_cores_t near = {.nic = ""};
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    if (home == NULL) {
        return;
    }
    set_text(home, near.cpus, sizeof(near.cpus));
    find_nic(machine, pci, &near);
    bsattn_strbuf_add(&buf, "cores %s", near.cpus);
    if (near.nic[0] != '\0') {
        bsattn_strbuf_add(&buf, ", NIC %s%s", near.nic,
                          near.nic_far ? " (at another NUMA node)" : "");
    }
}

/* ---------------------------------------------------------------------------------------- cores */

/* What a rank chooses from: of the process's cores those near its GPU, if there are any.
 * @return whether they are near */
static bool base_of(const bsattn_place_machine_t *machine, const char *pci, hwloc_bitmap_t base)
{
    hwloc_const_bitmap_t home = cores_of_device(machine, pci);

    if ((home != NULL) && hwloc_bitmap_intersects(home, machine->process)) {
        (void)hwloc_bitmap_and(base, home, machine->process);
        return true;
    }
    (void)hwloc_bitmap_copy(base, machine->process);
    return false;
}

/* Those who choose from the same cores divide them: count them, and find the place of the rank.
 * @return >= 1 */
static int count_sharers(const bsattn_place_machine_t *machine, const bsattn_place_seat_t *seats,
                         const bsattn_place_choice_t *choices, int ranks, int rank, int *place_p)
{
    int sharers = 0;

    for (int other = 0; other < ranks; ++other) {
        if (!bsattn_place_same_host(&seats[other], &seats[rank]) ||
            (strcmp(seats[other].cpus, seats[rank].cpus) != 0)) {
            continue;
        }
        (void)base_of(machine, choices[other].pci, machine->other);
        if (hwloc_bitmap_isequal(machine->other, machine->base)) {
            *place_p = (other == rank) ? sharers : *place_p;
            ++sharers;
        }
    }
    return (sharers > 0) ? sharers : 1;
}

/* Cores are what is divided: two threads of one core are no two cores. A virtual machine may not
 * tell its cores; then its processors stand for them. Adds those of the base from `begin` to before
 * `end` to the chosen ones. @return how many the base has */
static int add_cores(const bsattn_place_machine_t *machine, int begin, int end)
{
    hwloc_topology_t topology = machine->topology;
    hwloc_obj_type_t type =
        (hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0) ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    int count = 0;

    for (hwloc_obj_t core = hwloc_get_next_obj_by_type(topology, type, NULL); core != NULL;
         core = hwloc_get_next_obj_by_type(topology, type, core)) {
        if (!hwloc_bitmap_intersects(core->cpuset, machine->base)) {
            continue;
        }
        if ((count >= begin) && (count < end)) {
            (void)hwloc_bitmap_or(machine->chosen, machine->chosen, core->cpuset);
        }
        ++count;
    }
    return count;
}

static void divide(bsattn_place_machine_t *machine, const bsattn_place_seat_t *seats,
                   const bsattn_place_choice_t *choices, int ranks, int rank,
                   bsattn_place_cores_t *cores_p)
{
    bool near = base_of(machine, choices[rank].pci, machine->base);
    int place = 0;
    int sharers = count_sharers(machine, seats, choices, ranks, rank, &place);
    int count = add_cores(machine, 0, 0);
    int begin = (int)((int64_t)count * place / sharers);
    int end = (int)((int64_t)count * (place + 1) / sharers);
    int needed = (choices[rank].device >= 0) ? CORES_WITH_GPU : 1;
    int threads = seats[rank].threads;
    bool narrow = hwloc_bitmap_weight(machine->base) / sharers < threads;
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, cores_p->decided, sizeof(cores_p->decided));
    if (narrow || (count / sharers < needed)) {
        bsattn_strbuf_add(&buf, "cores not bound: %d rank%s", sharers, (sharers == 1) ? "" : "s");
        if (narrow && (threads > 1)) {
            bsattn_strbuf_add(&buf, " of %d threads", threads);
        }
        bsattn_strbuf_add(&buf, ", %d core%s%s", count, (count == 1) ? "" : "s",
                          near ? " near the GPU" : "");
        return;
    }
    (void)add_cores(machine, begin, end);
    (void)hwloc_bitmap_and(machine->chosen, machine->chosen, machine->base);
    set_text(machine->chosen, cores_p->cpus, sizeof(cores_p->cpus));
    cores_p->change = !hwloc_bitmap_isequal(machine->chosen, machine->process);
    bsattn_strbuf_add(&buf, "%d core%s%s", end - begin, (end - begin == 1) ? "" : "s",
                      near ? " near the GPU" : "");
}

void bsattn_place_cores(bsattn_place_machine_t *machine, const bsattn_place_seat_t *seats,
                        const bsattn_place_choice_t *choices, int ranks, int rank, const char *bind,
                        bsattn_place_cores_t *cores_p)
{
    const bsattn_place_seat_t *seat = &seats[rank];

    start_cores(seat, cores_p);
    hwloc_bitmap_zero(machine->chosen);
    find_nic(machine, choices[rank].pci, cores_p);
    if (!may_change(seat, bind, cores_p)) {
        return;
    }
    if ((strstr(seat->cpus, "...") != NULL) ||
        (hwloc_bitmap_list_sscanf(machine->process, seat->cpus) != 0)) {
        (void)bsattn_text_copy(cores_p->decided, sizeof(cores_p->decided),
                               "cores as launched: too scattered to divide");
        return;
    }
    divide(machine, seats, choices, ranks, rank, cores_p);
}

void bsattn_place_bind(bsattn_place_machine_t *machine, bsattn_place_cores_t *cores)
{
    const char *error = NULL;

    if (!cores->change) {
        return;
    }
    if (!hwloc_topology_is_thissystem(machine->topology)) {
        error = "another machine";
    } else if (hwloc_set_cpubind(machine->topology, machine->chosen, HWLOC_CPUBIND_PROCESS) != 0) {
        error = strerror(errno);
    }
    if (error != NULL) {
        (void)snprintf(cores->decided, sizeof(cores->decided), "cores not bound: %s", error);
        bsattn_host_cores_text(cores->cpus, sizeof(cores->cpus));
        cores->change = false;
    }
}

void bsattn_place_unbind(bsattn_place_machine_t *machine, const bsattn_place_cores_t *cores)
{
    if ((machine != NULL) && cores->change) {
        (void)hwloc_set_cpubind(machine->topology, machine->process, HWLOC_CPUBIND_PROCESS);
    }
}

#else /* no hwloc */

struct bsattn_place_machine {
    int nothing;
};

const char *bsattn_place_library(void)
{
    return "hwloc not in this build";
}

bsattn_status_t bsattn_place_machine_open(const char *source, bsattn_place_machine_t **machine_p)
{
    if (source != NULL) {
        return bsattn_fail(BSATTN_ERR_INPUT, "topology '%s': hwloc not in this build", source);
    }
    *machine_p = calloc(1, sizeof(**machine_p));
    if (*machine_p == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the topology of this host");
    }
    return BSATTN_OK;
}

void bsattn_place_machine_close(bsattn_place_machine_t *machine)
{
    free(machine);
}

void bsattn_place_machine_look(bsattn_place_machine_t *machine, const char *cpus,
                               bsattn_place_seat_t *seat)
{
    (void)machine;
    seat->bound = false;
    if (cpus != NULL) {
        (void)bsattn_text_copy(seat->cpus, sizeof(seat->cpus), cpus);
    }
    for (int i = 0; i < seat->device_count; ++i) {
        seat->devices[i].near = true;
    }
}

void bsattn_place_cores(bsattn_place_machine_t *machine, const bsattn_place_seat_t *seats,
                        const bsattn_place_choice_t *choices, int ranks, int rank, const char *bind,
                        bsattn_place_cores_t *cores_p)
{
    (void)machine;
    (void)choices;
    (void)ranks;
    start_cores(&seats[rank], cores_p);
    if (may_change(&seats[rank], bind, cores_p)) {
        (void)bsattn_text_copy(cores_p->decided, sizeof(cores_p->decided),
                               "cores as launched: hwloc not in this build");
    }
}

void bsattn_place_near_text(const bsattn_place_machine_t *machine, const char *pci, char *out,
                            size_t size)
{
    (void)machine;
    (void)pci;
    (void)bsattn_text_copy(out, size, "");
}

void bsattn_place_bind(bsattn_place_machine_t *machine, bsattn_place_cores_t *cores)
{
    (void)machine;
    (void)cores;
}

void bsattn_place_unbind(bsattn_place_machine_t *machine, const bsattn_place_cores_t *cores)
{
    (void)machine;
    (void)cores;
}

#endif
