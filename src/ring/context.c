/* SPDX-License-Identifier: Apache-2.0 */
#include "ring/context.h"

#include "base/host.h"
#include "base/text.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* What a rank must know of the others to share a host with them. */
typedef struct seat {
    char host[64];
    char cores[192];
} seat_t;

void bsattn_context_params_init(bsattn_context_params_t *params)
{
    *params = (bsattn_context_params_t){0};
}

static bsattn_status_t check_params(const bsattn_context_params_t *params)
{
    const char *transport = params->transport;

    if ((transport != NULL) && (strcmp(transport, "auto") != 0) &&
        (strcmp(transport, "mpi") != 0) && (strcmp(transport, "loop") != 0)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "transport '%s': must be auto, mpi or loop",
                           transport);
    }
    if ((params->virtual_ranks < 0) || (params->threads < 0) || !(params->timeout_s >= 0.0)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "ranks %d, threads %d, timeout %g: none can be negative",
                           params->virtual_ranks, params->threads, params->timeout_s);
    }
    return BSATTN_OK;
}

static bsattn_status_t open_loop(bsattn_context_t *context, const bsattn_context_params_t *params,
                                 const char *reason)
{
    int ranks = (params->virtual_ranks == 0) ? 1 : params->virtual_ranks;

    context->transport_reason = reason;
    return bsattn_transport_loop_create(ranks, &context->transport);
}

static bsattn_status_t open_mpi(bsattn_context_t *context, const bsattn_context_params_t *params,
                                const char *reason)
{
    context->transport_reason = reason;
    return bsattn_transport_mpi_create(params->mpi_comm, params->timeout_s, &context->transport);
}

static bsattn_status_t open_transport(bsattn_context_t *context,
                                      const bsattn_context_params_t *params)
{
    const char *name = (params->transport == NULL) ? "auto" : params->transport;

    if (strcmp(name, "loop") == 0) {
        return open_loop(context, params, "asked for");
    }
    if (strcmp(name, "mpi") == 0) {
        if (params->mpi_comm == NULL) {
            return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                               "transport mpi: this process was started without MPI");
        }
        return open_mpi(context, params, "asked for");
    }
    if (params->mpi_comm == NULL) {
        return open_loop(context, params, "one process without MPI");
    }
    BSATTN_TRY(open_mpi(context, params, "ranks in several processes, on CPUs"));
    if (context->transport->ranks > 1) {
        return BSATTN_OK;
    }
    context->transport->ops->destroy(context->transport);
    context->transport = NULL;
    return open_loop(context, params, "one process");
}

/* Number the hosts by first appearance. */
static void number_hosts(bsattn_context_t *context, const seat_t *seats)
{
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        int same = 0;
        while (strcmp(seats[same].host, seats[rank].host) != 0) {
            ++same;
        }
        context->host_of_rank[rank] =
            (same < rank) ? context->host_of_rank[same] : context->hosts++;
    }
}

/* The cores this process may use, shared evenly with the processes that may use the same ones. */
static int auto_threads(const bsattn_context_t *context, const seat_t *seats)
{
    const seat_t *mine = &seats[context->transport->first_rank];
    int sharers = 0;
    int threads;

    if (getenv("OMP_NUM_THREADS") != NULL) {
        return omp_get_max_threads();
    }
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        sharers += ((strcmp(seats[rank].host, mine->host) == 0) &&
                    (strcmp(seats[rank].cores, mine->cores) == 0))
                       ? 1
                       : 0;
    }
    if (context->transport->local_count > 1) {
        sharers = 1;
    }
    BSATTN_ASSERT(sharers > 0);
    threads = bsattn_host_cores() / sharers;
    return (threads < 1) ? 1 : threads;
}

static bsattn_status_t take_seats(bsattn_context_t *context, int threads)
{
    size_t ranks = (size_t)context->transport->ranks;
    size_t local_count = (size_t)context->transport->local_count;
    seat_t *seats = calloc(ranks + local_count, sizeof(*seats));
    bsattn_status_t status;

    context->host_of_rank = calloc(ranks, sizeof(*context->host_of_rank));
    if ((seats == NULL) || (context->host_of_rank == NULL)) {
        free(seats);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %zu ranks", ranks);
    }
    for (size_t i = 0; i < local_count; ++i) {
        bsattn_host_name(seats[ranks + i].host, sizeof(seats->host));
        bsattn_host_cores_text(seats[ranks + i].cores, sizeof(seats->cores));
    }
    status = bsattn_context_gather(context, seats + ranks, sizeof(*seats), seats);
    if (status == BSATTN_OK) {
        number_hosts(context, seats);
        context->threads = (threads > 0) ? threads : auto_threads(context, seats);
    }
    free(seats);
    return status;
}

bsattn_status_t bsattn_context_create(const bsattn_context_params_t *params,
                                      bsattn_context_t **context_p)
{
    bsattn_context_t *context;
    bsattn_status_t status;

    BSATTN_TRY(check_params(params));
    context = calloc(1, sizeof(*context));
    if (context == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a context");
    }
    status = bsattn_backend_find(params->backend, &context->backend);
    if (status == BSATTN_OK) {
        status = open_transport(context, params);
    }
    if (status != BSATTN_OK) {
        free(context);
        return status;
    }
    if ((params->virtual_ranks > 0) && (params->virtual_ranks != context->transport->ranks)) {
        status = bsattn_fail(BSATTN_ERR_INPUT,
                             "ranks %d: this job has %d; leave --ranks out, or start another "
                             "number of processes",
                             params->virtual_ranks, context->transport->ranks);
    } else {
        status = take_seats(context, params->threads);
    }
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
    context->transport->ops->destroy(context->transport);
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
        .backend = context->backend->name,
        .backend_variant = context->backend->variant(),
    };
}

bsattn_status_t bsattn_context_gather(bsattn_context_t *context, const void *local_items,
                                      size_t item_bytes, void *all_items)
{
    return context->transport->ops->gather(context->transport, local_items, item_bytes, all_items);
}

bsattn_status_t bsattn_context_barrier(bsattn_context_t *context)
{
    size_t ranks = (size_t)context->transport->ranks;
    char *all = calloc(2, ranks);
    bsattn_status_t status;

    BSATTN_ASSERT(all != NULL);
    status = bsattn_context_gather(context, all + ranks, 1, all);
    free(all);
    return status;
}

bsattn_status_t bsattn_context_agree(bsattn_context_t *context, bsattn_status_t status)
{
    return bsattn_transport_agree(context->transport, status);
}
