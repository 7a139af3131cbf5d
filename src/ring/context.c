/* SPDX-License-Identifier: Apache-2.0 */
#include "ring/context.h"

#include "base/host.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

/* NCCL's first version, as it says it, in which ranks can share a GPU, and how it is told to. */
enum { NCCL_SHARING = 23000 };
static const char nccl_sharing_variable[] = "NCCL_MULTI_RANK_GPU_ENABLE";

void bsattn_context_params_init(bsattn_context_params_t *params)
{
    *params = (bsattn_context_params_t){0};
}

static bool is_loop(const char *value)
{
    return (value != NULL) && (strcmp(value, "loop") == 0);
}

static bsattn_status_t check_params(const bsattn_context_params_t *params)
{
    static const char *const names[] = {"auto", "nccl", "ipc", "mpi", "loop"};
    bool known = (params->transport == NULL);

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
        known = known || (strcmp(params->transport, names[i]) == 0);
    }
    if (!known) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "transport '%s': must be auto, nccl, ipc, mpi or loop",
                           params->transport);
    }
    if (!bsattn_text_is_auto(params->bind) && (strcmp(params->bind, "off") != 0)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "bind '%s': must be auto or off", params->bind);
    }
    if ((params->virtual_ranks < 0) || (params->threads < 0) || !(params->timeout_s >= 0.0)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "virtual ranks %d, threads %d, timeout %g s: none can be negative",
                           params->virtual_ranks, params->threads, params->timeout_s);
    }
    if (params->threads > BSATTN_THREADS_MAX) {
        return bsattn_fail(BSATTN_ERR_INPUT, "threads %d: at most %d", params->threads,
                           BSATTN_THREADS_MAX);
    }
    return BSATTN_OK;
}

static void close_transport(bsattn_context_t *context)
{
    context->transport->ops->destroy(context->transport);
    context->transport = NULL;
}

/* Where there are other processes a transport to them comes first, whatever is wrong here: only
 * over it can they be told. status: what was found wrong so far. @return the agreed status; without
 * success there is no transport */
static bsattn_status_t open_first_transport(bsattn_context_t *context,
                                            const bsattn_context_params_t *params,
                                            bsattn_status_t status)
{
    if ((params->mpi_comm == NULL) || is_loop(params->transport)) {
        BSATTN_TRY(status);
        if (!bsattn_text_is_auto(params->transport) && !is_loop(params->transport)) {
            return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                               "transport %s: this process was started without MPI",
                               params->transport);
        }
        return bsattn_transport_loop_create(
            (params->virtual_ranks < 1) ? 1 : params->virtual_ranks, &context->transport);
    }
    BSATTN_TRY(
        bsattn_transport_mpi_create(params->mpi_comm, params->timeout_s, &context->transport));
    status = bsattn_transport_agree(context->transport, status);
    if (status != BSATTN_OK) {
        close_transport(context);
    }
    return status;
}

/* --------------------------------------------------------------------------------------- places */

/* Number the hosts by first appearance. */
static void number_hosts(bsattn_context_t *context)
{
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        int same = 0;
        while ((same < rank) &&
               !bsattn_place_same_host(&context->seats[same], &context->seats[rank])) {
            ++same;
        }
        context->host_of_rank[rank] =
            (same < rank) ? context->host_of_rank[same] : context->hosts++;
    }
}

/* Threads that the user asks for; 0: none. */
static int asked_threads(const bsattn_context_params_t *params)
{
    return (params->threads > 0) ? params->threads : bsattn_host_threads_asked();
}

/* As many as asked for; else the cores this process is bound to, or what it may use, shared evenly
 * with the processes that may use the same ones. */
static int decide_threads(const bsattn_context_t *context)
{
    int mine = context->transport->first_rank;
    int sharers = 1;
    int threads;

    if (context->seats[mine].threads > 0) {
        return context->seats[mine].threads;
    }
    if (context->cores.change) {
        return bsattn_host_cores();
    }
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        bool same = (context->host_of_rank[rank] == context->host_of_rank[mine]) &&
                    (strcmp(context->seats[rank].cpus, context->seats[mine].cpus) == 0);
        /* Ranks of one process take turns. */
        sharers += (same && (rank != mine) && (context->transport->local_count == 1)) ? 1 : 0;
    }
    threads = bsattn_host_cores() / sharers;
    return (threads < 1) ? 1 : threads;
}

/* What this process knows of itself. */
static bsattn_status_t fill_seat(bsattn_context_t *context, const bsattn_context_params_t *params,
                                 bsattn_place_seat_t *seat)
{
    int gpus = context->choice.cuda ? bsattn_backend_gpus(NULL, 0) : 0;

    bsattn_place_seat_init(seat, getenv);
    seat->threads = asked_threads(params);
    if ((gpus == 0) && (context->transport->local_count > 1)) {
        return BSATTN_OK; /* nothing to choose or bind: spare the look at the machine */
    }
    for (int i = 0; i < gpus; ++i) {
        bsattn_gpu_t gpu;
        BSATTN_TRY(bsattn_backend_gpu(i, &gpu));
        bsattn_place_seat_add_device(seat, gpu.pci, gpu.uuid);
    }
    BSATTN_TRY(bsattn_place_machine_open(NULL, &context->machine));
    bsattn_place_machine_look(context->machine, NULL, seat);
    return BSATTN_OK;
}

/* Give every rank its GPU. The ranks of one process have one GPU together. */
static bsattn_status_t decide_places(bsattn_context_t *context)
{
    int ranks = context->transport->ranks;

    if (context->transport->local_count == 1) {
        return bsattn_place_decide(context->seats, ranks, context->places);
    }
    BSATTN_TRY(bsattn_place_decide(context->seats, 1, context->places));
    for (int rank = 1; rank < ranks; ++rank) {
        context->places[rank] = context->places[0];
    }
    return BSATTN_OK;
}

/* Take the cores of this process's rank. Virtual ranks take turns on all that the process has. */
static void take_cores(bsattn_context_t *context, const char *bind)
{
    bsattn_place_cores_t *cores = &context->cores;
    int mine = context->transport->first_rank;

    if (context->transport->local_count > 1) {
        (void)bsattn_text_copy(cores->cpus, sizeof(cores->cpus), context->seats[mine].cpus);
        (void)bsattn_text_copy(cores->decided, sizeof(cores->decided),
                               "cores as launched: virtual ranks of one process");
        return;
    }
    bsattn_place_cores(context->machine, context->seats, context->places,
                       context->transport->ranks, mine, bind, cores);
    bsattn_place_bind(context->machine, cores);
}

static bsattn_status_t alloc_places(bsattn_context_t *context)
{
    size_t ranks = (size_t)context->transport->ranks;

    context->seats = calloc(ranks, sizeof(*context->seats));
    context->places = calloc(ranks, sizeof(*context->places));
    context->host_of_rank = calloc(ranks, sizeof(*context->host_of_rank));
    if ((context->seats == NULL) || (context->places == NULL) || (context->host_of_rank == NULL)) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %zu ranks", ranks);
    }
    return BSATTN_OK;
}

static bsattn_status_t take_seats(bsattn_context_t *context,
                                  const bsattn_context_params_t *params)
{
    size_t local_count = (size_t)context->transport->local_count;
    bsattn_place_seat_t *mine = calloc(local_count, sizeof(*mine));
    bsattn_status_t status = alloc_places(context);

    if ((status == BSATTN_OK) && (mine == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the seat of a rank");
    }
    if ((status == BSATTN_OK) && (mine != NULL)) {
        status = fill_seat(context, params, &mine[0]);
        for (size_t i = 1; i < local_count; ++i) {
            mine[i] = mine[0];
        }
    }
    status = bsattn_context_agree(context, status);
    if (status == BSATTN_OK) {
        status = bsattn_context_gather(context, mine, sizeof(*mine), context->seats);
    }
    free(mine);
    BSATTN_TRY(status);
    number_hosts(context);
    BSATTN_TRY(bsattn_context_agree(context, decide_places(context)));
    take_cores(context, params->bind);
    return BSATTN_OK;
}

bool bsattn_context_same_memory(const bsattn_context_t *context, int rank, int other)
{
    return bsattn_place_same_memory(&context->seats[rank], &context->places[rank],
                                    &context->seats[other], &context->places[other]);
}

/* ------------------------------------------------------------------------------------ transport */

/* Whether several ranks have the same GPU. */
static bool gpu_shared(const bsattn_context_t *context)
{
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        if (context->places[rank].shared > 1) {
            return true;
        }
    }
    return false;
}

/* Whether ranks have different parts of one GPU: NCCL takes these for the same GPU, and they do not
 * reach one another's memory. */
static bool gpu_divided(const bsattn_context_t *context)
{
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        for (int other = 0; other < rank; ++other) {
            if ((context->host_of_rank[rank] == context->host_of_rank[other]) &&
                (strcmp(context->places[rank].pci, context->places[other].pci) == 0) &&
                !bsattn_context_same_memory(context, rank, other)) {
                return true;
            }
        }
    }
    return false;
}

/* Containers of one host have names of their own, and memory cannot be mapped across them. */
static bool in_containers(const bsattn_context_t *context)
{
    for (int rank = 1; rank < context->transport->ranks; ++rank) {
        if ((context->host_of_rank[rank] == context->host_of_rank[0]) &&
            (strcmp(context->seats[rank].host, context->seats[0].host) != 0)) {
            return true;
        }
    }
    return false;
}

static void say_why(bsattn_context_t *context, const char *reason)
{
    (void)bsattn_text_copy(context->transport_reason, sizeof(context->transport_reason), reason);
}

/* Whether the choice of a transport depends on what GPUs reach: the same on all ranks. */
static bool reach_matters(const bsattn_context_t *context, const bsattn_context_params_t *params)
{
    return bsattn_text_is_auto(params->transport) && context->choice.cuda &&
           (context->transport->local_count == 1) && (context->transport->ranks > 1) &&
           (gpu_shared(context) || (bsattn_nccl_version() == 0));
}

/* Learn whether ranks on several GPUs may find that these do not reach one another. Collective; asked
 * once every rank has started its own GPU, since asking may start another one. */
static bsattn_status_t learn_reach(bsattn_context_t *context)
{
    int ranks = context->transport->ranks;
    bool mine = bsattn_backend_reaches_all(context->backend);
    bool *all = calloc((size_t)ranks, sizeof(*all));
    bsattn_status_t status = bsattn_context_agree(
        context,
        (all != NULL) ? BSATTN_OK : bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %d ranks", ranks));

    if (status == BSATTN_OK) {
        status = bsattn_context_gather(context, &mine, sizeof(mine), all);
    }
    for (int rank = 0; (status == BSATTN_OK) && (all != NULL) && (rank < ranks); ++rank) {
        context->gpus_apart = context->gpus_apart ||
                              (!all[rank] && !bsattn_context_same_memory(context, 0, rank));
    }
    free(all);
    return status;
}

/* Between processes, without NCCL. @param why  the ranks' GPUs, as the beginning of a sentence */
static const char *choose_without_nccl(bsattn_context_t *context, const char *why)
{
    bool apart = context->gpus_apart || in_containers(context);
    const char *where = (context->hosts > 1)    ? "on several hosts"
                        : context->gpus_apart   ? "on one host whose GPUs do not reach one another"
                        : apart                 ? "in containers of one host"
                                                : "all on one host";
    char reason[sizeof(context->transport_reason)];
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, reason, sizeof(reason));
    bsattn_strbuf_add(&buf, "%s, %s", why, where);
    say_why(context, reason);
    return ((context->hosts == 1) && !apart) ? "ipc" : "mpi";
}

/* The best there is for ranks on GPUs. */
static const char *choose_for_gpus(bsattn_context_t *context)
{
    if (gpu_divided(context)) {
        say_why(context, "ranks have parts of one GPU");
        return "mpi";
    }
    if (gpu_shared(context)) {
        return choose_without_nccl(context, "ranks share a GPU");
    }
    if (bsattn_nccl_version() > 0) {
        say_why(context, "every rank has its own GPU");
        return "nccl";
    }
    return choose_without_nccl(context, "this build has no NCCL: each rank has its own GPU");
}

static const char *choose_transport(bsattn_context_t *context,
                                    const bsattn_context_params_t *params)
{
    if (!bsattn_text_is_auto(params->transport)) {
        say_why(context, "asked for");
        return params->transport;
    }
    if (params->mpi_comm == NULL) {
        say_why(context, "one process without MPI");
        return "loop";
    }
    if (context->transport->ranks == 1) {
        say_why(context, "one process");
        return "loop";
    }
    if (context->choice.cuda) {
        return choose_for_gpus(context);
    }
    say_why(context, "ranks in several processes, on CPUs");
    return "mpi";
}

static bsattn_status_t check_nccl(const bsattn_context_t *context)
{
    const char *sharing = getenv(nccl_sharing_variable);
    int version = bsattn_nccl_version();

    if (version == 0) {
        return bsattn_fail(
            BSATTN_ERR_ENVIRONMENT,
            "transport nccl: this build has no NCCL; take another transport, or build "
            "where CMake finds CUDA and NCCL");
    }
    if (!gpu_shared(context)) {
        return BSATTN_OK;
    }
    if (version < NCCL_SHARING) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "transport nccl: ranks share a GPU, which takes NCCL 2.30 or newer; "
                           "this is %d.%d.%d; take ipc, or a GPU for each rank",
                           version / 10000, version / 100 % 100, version % 100);
    }
    if ((sharing == NULL) || (strcmp(sharing, "1") != 0)) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "transport nccl: ranks share a GPU, which NCCL does only with %s=1 in "
                           "the environment; set it, or take ipc, or a GPU for each rank",
                           nccl_sharing_variable);
    }
    return BSATTN_OK;
}

static bsattn_status_t check_transport(const bsattn_context_t *context, const char *name)
{
    bool nccl = (strcmp(name, "nccl") == 0);
    bool ipc = (strcmp(name, "ipc") == 0);

    if ((nccl || ipc) && !context->choice.cuda) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "transport %s: it moves chunks between GPUs, but the backend is cpu: %s",
                           name, context->choice.reason);
    }
    if (ipc && (context->hosts > 1)) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "transport ipc: the ranks are on %d hosts; it works within one",
                           context->hosts);
    }
    return nccl ? check_nccl(context) : BSATTN_OK;
}

/* Which of its ways a transport has taken belongs to the reason. */
static void say_way(bsattn_context_t *context)
{
    const char *way = context->transport->way;
    size_t length = strlen(context->transport_reason);
    bsattn_strbuf_t buf;

    if ((way == NULL) || !context->choice.cuda) {
        return;
    }
    bsattn_strbuf_init(&buf, context->transport_reason + length,
                       sizeof(context->transport_reason) - length);
    bsattn_strbuf_add(&buf, "; %s", way);
}

/* Replace the first transport by the one wanted, if that is another. */
static bsattn_status_t open_transport(bsattn_context_t *context,
                                      const bsattn_context_params_t *params)
{
    const char *name = choose_transport(context, params);
    int device = context->backend->device;

    BSATTN_TRY(bsattn_context_agree(context, check_transport(context, name)));
    if (strcmp(name, context->transport->ops->name) == 0) {
        return BSATTN_OK;
    }
    close_transport(context);
    if (strcmp(name, "nccl") == 0) {
        return bsattn_transport_nccl_create(params->mpi_comm, params->timeout_s, device,
                                            &context->transport);
    }
    if (strcmp(name, "ipc") == 0) {
        return bsattn_transport_ipc_create(params->mpi_comm, params->timeout_s, device,
                                           &context->transport);
    }
    return bsattn_transport_loop_create(1, &context->transport);
}

/* -------------------------------------------------------------------------------------- backend */

/* Ranks compute alike: transport, type of the numbers and report depend on it. */
static bsattn_status_t check_alike(const bsattn_context_t *context)
{
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        if ((context->seats[rank].device_count > 0) != (context->seats[0].device_count > 0)) {
            return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                               "backend auto: rank 0 on host %s would take %s, rank %d on host %s "
                               "%s; name the backend",
                               context->seats[0].host,
                               (context->seats[0].device_count > 0) ? "cuda" : "cpu", rank,
                               context->seats[rank].host,
                               (context->seats[rank].device_count > 0) ? "cuda" : "cpu");
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t open_backend(bsattn_context_t *context)
{
    const bsattn_place_choice_t *place = &context->places[context->transport->first_rank];
    bsattn_gpu_t gpu = {.device = -1};

    BSATTN_TRY(check_alike(context));
    if (context->choice.cuda) {
        BSATTN_TRY(bsattn_backend_gpu(place->device, &gpu));
    }
    BSATTN_TRY(bsattn_backend_create(&context->choice, gpu.device, context->threads,
                                     &context->backend));
    context->backend->shared = (context->transport->local_count == 1) && (place->shared > 1);
    return BSATTN_OK;
}

/* ----------------------------------------------------------------------------------------- life */

/* A number of ranks asked for must be the one that there is. */
static bsattn_status_t check_ranks(const bsattn_context_t *context, int asked)
{
    if ((asked > 0) && (asked != context->transport->ranks)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "%d virtual ranks asked for, but this job has %d rank%s of its own; ask "
                           "for none, for the loop transport, or start another number of processes",
                           asked, context->transport->ranks,
                           (context->transport->ranks == 1) ? "" : "s");
    }
    return BSATTN_OK;
}

static bsattn_status_t open_context(bsattn_context_t *context,
                                    const bsattn_context_params_t *params)
{
    bsattn_status_t status = check_params(params);

    if (status == BSATTN_OK) {
        status = bsattn_backend_choose(params->backend, &context->choice);
    }
    BSATTN_TRY(open_first_transport(context, params, status));
    BSATTN_TRY(bsattn_context_agree(context, check_ranks(context, params->virtual_ranks)));
    BSATTN_TRY(take_seats(context, params));
    context->threads = decide_threads(context);
    context->timeout_s = params->timeout_s;
    BSATTN_TRY(bsattn_context_agree(context, open_backend(context)));
    if (reach_matters(context, params)) {
        BSATTN_TRY(learn_reach(context));
    }
    BSATTN_TRY(open_transport(context, params));
    say_way(context);
    return BSATTN_OK;
}

bsattn_status_t bsattn_context_create(const bsattn_context_params_t *params,
                                      bsattn_context_t **context_p)
{
    bsattn_context_t *context = calloc(1, sizeof(*context));
    bsattn_status_t status;

    if (context == NULL) {
        bsattn_context_t none = {0}; /* enough to tell the other ranks */
        return open_first_transport(&none, params,
                                    bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a context"));
    }
    status = open_context(context, params);
    if (status != BSATTN_OK) {
        bsattn_context_destroy(context);
        return status;
    }
    *context_p = context;
    return BSATTN_OK;
}

void bsattn_context_destroy(bsattn_context_t *context)
{
    if (context == NULL) {
        return;
    }
    if (context->transport != NULL) {
        close_transport(context);
    }
    if (context->backend != NULL) {
        context->backend->ops->destroy(context->backend);
    }
    bsattn_place_unbind(context->machine, &context->cores);
    bsattn_place_machine_close(context->machine);
    free(context->seats);
    free(context->places);
    free(context->host_of_rank);
    free(context);
}

void bsattn_context_info(const bsattn_context_t *context, bsattn_context_info_t *info_p)
{
    *info_p = (bsattn_context_info_t){
        .ranks = context->transport->ranks,
        .local_count = context->transport->local_count,
        .first_rank = context->transport->first_rank,
        .threads = context->threads,
        .hosts = context->hosts,
        .transport = context->transport->ops->name,
        .transport_reason = context->transport_reason,
        .backend = context->backend->ops->name,
        .backend_reason = context->choice.reason,
        .backend_variant = context->backend->variant,
        .device = context->backend->name,
        .device_pci = context->backend->pci,
    };
}

bsattn_status_t bsattn_context_gather(bsattn_context_t *context, const void *local_items,
                                      size_t item_bytes, void *all_items)
{
    return context->transport->ops->gather(context->transport, local_items, item_bytes, all_items);
}

bsattn_status_t bsattn_context_barrier(bsattn_context_t *context)
{
    return bsattn_transport_barrier(context->transport);
}

bsattn_status_t bsattn_context_agree(bsattn_context_t *context, bsattn_status_t status)
{
    return bsattn_transport_agree(context->transport, status);
}

/* -------------------------------------------------------------------------------------- tensors */

bsattn_status_t bsattn_context_alloc(bsattn_context_t *context, size_t bytes, void **memory_p)
{
    return context->backend->ops->alloc(context->backend, bytes, memory_p);
}

void bsattn_context_free(bsattn_context_t *context, void *memory)
{
    context->backend->ops->free(context->backend, memory);
}

bsattn_status_t bsattn_context_fill(bsattn_context_t *context, void *memory, unsigned char byte,
                                    size_t bytes)
{
    return context->backend->ops->fill(context->backend, memory, byte, bytes);
}

bsattn_status_t bsattn_context_read(bsattn_context_t *context, const bsattn_rows_t *rows)
{
    return context->backend->ops->read(context->backend, rows);
}

bsattn_status_t bsattn_context_write(bsattn_context_t *context, const bsattn_rows_t *rows)
{
    return context->backend->ops->write(context->backend, rows);
}
