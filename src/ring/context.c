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

static bool is_loop(const char *value)
{
    return (value != NULL) && (strcmp(value, "loop") == 0);
}

static bsattn_status_t check_params(const bsattn_context_params_t *params)
{
    if (!bsattn_text_is_auto(params->transport) && !is_loop(params->transport) &&
        (strcmp(params->transport, "mpi") != 0)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "transport '%s': must be auto, mpi or loop",
                           params->transport);
    }
    if ((params->virtual_ranks < 0) || (params->threads < 0) || !(params->timeout_s >= 0.0)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "virtual ranks %d, threads %d, timeout %g s: none can be negative",
                           params->virtual_ranks, params->threads, params->timeout_s);
    }
    return BSATTN_OK;
}

static bsattn_status_t open_loop(bsattn_context_t *context, const bsattn_context_params_t *params,
                                 const char *reason)
{
    int ranks = (params->virtual_ranks < 1) ? 1 : params->virtual_ranks;

    context->transport_reason = reason;
    return bsattn_transport_loop_create(ranks, &context->transport);
}

static void close_transport(bsattn_context_t *context)
{
    context->transport->ops->destroy(context->transport);
    context->transport = NULL;
}

/* Where there are other processes the transport to them comes first, whatever is wrong here: only
 * over it can they be told. status: what was found wrong so far. @return the agreed status; without
 * success there is no transport */
static bsattn_status_t open_transport(bsattn_context_t *context,
                                      const bsattn_context_params_t *params, bsattn_status_t status)
{
    bool alone;

    if ((params->mpi_comm == NULL) || is_loop(params->transport)) {
        BSATTN_TRY(status);
        if (!bsattn_text_is_auto(params->transport) && !is_loop(params->transport)) {
            return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                               "transport mpi: this process was started without MPI");
        }
        return open_loop(context, params,
                         bsattn_text_is_auto(params->transport) ? "one process without MPI"
                                                                : "asked for");
    }
    BSATTN_TRY(
        bsattn_transport_mpi_create(params->mpi_comm, params->timeout_s, &context->transport));
    context->transport_reason = bsattn_text_is_auto(params->transport)
                                    ? "ranks in several processes, on CPUs"
                                    : "asked for";
    alone = bsattn_text_is_auto(params->transport) && (context->transport->ranks == 1);
    status = bsattn_transport_agree(context->transport, status);
    if ((status != BSATTN_OK) || alone) {
        close_transport(context);
    }
    BSATTN_TRY(status);
    return alone ? open_loop(context, params, "one process") : BSATTN_OK;
}

/* Number the hosts by first appearance. */
static void number_hosts(bsattn_context_t *context, const seat_t *seats)
{
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        int same = 0;
        while ((same < rank) && (strcmp(seats[same].host, seats[rank].host) != 0)) {
            ++same;
        }
        context->host_of_rank[rank] =
            (same < rank) ? context->host_of_rank[same] : context->hosts++;
    }
}

/* The cores this process may use, shared evenly with the processes that may use the same ones. */
static int auto_threads(const bsattn_context_t *context, const seat_t *seats)
{
    int mine = context->transport->first_rank;
    int sharers = 1;
    int threads;

    if (getenv("OMP_NUM_THREADS") != NULL) {
        return omp_get_max_threads();
    }
    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        bool same = (strcmp(seats[rank].host, seats[mine].host) == 0) &&
                    (strcmp(seats[rank].cores, seats[mine].cores) == 0);
        /* Ranks of one process take turns. */
        sharers += (same && (rank != mine) && (context->transport->local_count == 1)) ? 1 : 0;
    }
    threads = bsattn_host_cores() / sharers;
    return (threads < 1) ? 1 : threads;
}

static bsattn_status_t take_seats(bsattn_context_t *context, int threads)
{
    size_t ranks = (size_t)context->transport->ranks;
    size_t local_count = (size_t)context->transport->local_count;
    seat_t *seats = calloc(ranks + local_count, sizeof(*seats));
    bsattn_status_t status = BSATTN_OK;

    context->host_of_rank = calloc(ranks, sizeof(*context->host_of_rank));
    if ((seats == NULL) || (context->host_of_rank == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %zu ranks", ranks);
    }
    status = bsattn_context_agree(context, status);
    if ((status != BSATTN_OK) || (seats == NULL) || (context->host_of_rank == NULL)) {
        free(seats);
        return status;
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

/* A number of ranks asked for must be the one that there is. */
static bsattn_status_t check_ranks(const bsattn_context_t *context, int asked)
{
    if ((asked > 0) && (asked != context->transport->ranks)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "%d virtual ranks asked for, but this job has %d ranks of its own; ask "
                           "for none, for the loop transport, or start another number of processes",
                           asked, context->transport->ranks);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_context_create(const bsattn_context_params_t *params,
                                      bsattn_context_t **context_p)
{
    bsattn_context_t *context = calloc(1, sizeof(*context));
    bsattn_status_t status;

    if (context == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a context");
    }
    status = check_params(params);
    if (status == BSATTN_OK) {
        status = bsattn_backend_find(params->backend, &context->backend);
    }
    status = open_transport(context, params, status);
    if (status == BSATTN_OK) {
        status = bsattn_context_agree(context, check_ranks(context, params->virtual_ranks));
    }
    if (status == BSATTN_OK) {
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
    if (context->transport != NULL) {
        close_transport(context);
    }
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
    return bsattn_transport_barrier(context->transport);
}

bsattn_status_t bsattn_context_agree(bsattn_context_t *context, bsattn_status_t status)
{
    return bsattn_transport_agree(context->transport, status);
}
