/* SPDX-License-Identifier: Apache-2.0 */
#include "base/host.h"
#include "base/text.h"
#include "cli/launch.h"
#include "cli/reports.h"
#include "cli/resolve.h"
#include "report/columns.h"
#include "report/json.h"
#include "ring/context.h"

#include <stdlib.h>
#include <string.h>

enum { ENTRIES_MAX = 64, NAME_SIZE = 128, TEXT_SIZE = 512, GPUS_MAX = 16, KEY_SIZE = 16 };

/* What is told, and the memory it is told in. */
typedef struct sheet {
    bsattn_cell_t cells[ENTRIES_MAX];
    size_t count;
    char host[NAME_SIZE];
    char processor[NAME_SIZE];
    int cores; /* before binding */
    char placement[TEXT_SIZE];
    char nccl[KEY_SIZE];
    char gpu_keys[GPUS_MAX][KEY_SIZE];
    char gpu_texts[GPUS_MAX][TEXT_SIZE];
    bsattn_context_info_t info;
} sheet_t;

static void add_text(sheet_t *sheet, const char *section, const char *key, const char *text)
{
    BSATTN_ASSERT(sheet->count < ENTRIES_MAX);
    sheet->cells[sheet->count++] =
        (bsattn_cell_t){.section = section, .key = key, .kind = BSATTN_CELL_TEXT, .text = text};
}

static void add_int(sheet_t *sheet, const char *section, const char *key, int64_t integer)
{
    BSATTN_ASSERT(sheet->count < ENTRIES_MAX);
    sheet->cells[sheet->count++] = (bsattn_cell_t){
        .section = section, .key = key, .kind = BSATTN_CELL_INT, .integer = integer};
}

/* The GPUs that the backend cuda can use, and what is near them. */
static void fill_gpus(sheet_t *sheet, const bsattn_context_t *context)
{
    int count = bsattn_backend_gpus(NULL, 0);

    add_int(sheet, "host", "gpus", count);
    for (int i = 0; (i < count) && (i < GPUS_MAX); ++i) {
        char memory[32];
        char near[NAME_SIZE];
        bsattn_gpu_t gpu;
        bsattn_strbuf_t buf;

        if (bsattn_backend_gpu(i, &gpu) != BSATTN_OK) {
            continue;
        }
        bsattn_strbuf_init(&buf, sheet->gpu_keys[i], sizeof(sheet->gpu_keys[i]));
        bsattn_strbuf_add(&buf, "gpu%d", gpu.device);
        bsattn_strbuf_init(&buf, sheet->gpu_texts[i], sizeof(sheet->gpu_texts[i]));
        bsattn_strbuf_add(&buf, "%s, sm_%d, %s, %s", gpu.name, gpu.capability,
                          bsattn_text_bytes(memory, sizeof(memory), (double)gpu.memory_bytes),
                          gpu.pci);
        bsattn_place_near_text(context->machine, gpu.pci, near, sizeof(near));
        bsattn_strbuf_add(&buf, "%s%s", (near[0] != '\0') ? ", near it " : "", near);
        add_text(sheet, "host", sheet->gpu_keys[i], sheet->gpu_texts[i]);
    }
}

static void fill_libraries(sheet_t *sheet)
{
    int nccl = bsattn_nccl_version();
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, sheet->nccl, sizeof(sheet->nccl));
    bsattn_strbuf_add(&buf, "%d.%d.%d", nccl / 10000, nccl / 100 % 100, nccl % 100);
    add_text(sheet, "build", "mpi", bsattn_job_mpi_library());
    add_text(sheet, "build", "cuda", bsattn_backend_cuda_library());
    add_text(sheet, "build", "nccl", (nccl > 0) ? sheet->nccl : "not in this build");
    add_text(sheet, "build", "hwloc", bsattn_place_library());
}

static void fill(sheet_t *sheet, const bsattn_context_t *context)
{
    int64_t available = bsattn_host_memory_available();
    int rank = sheet->info.first_rank;

    bsattn_host_name(sheet->host, sizeof(sheet->host));
    bsattn_host_processor(sheet->processor, sizeof(sheet->processor));
    bsattn_place_decided_text(&context->places[rank], &context->cores, sheet->placement,
                              sizeof(sheet->placement));
    add_int(sheet, "", "schema", 1);
    add_text(sheet, "", "tool", "bsattn_ring");
    add_text(sheet, "", "version", bsattn_version());
    add_text(sheet, "", "verb", "info");
    fill_libraries(sheet);
    add_text(sheet, "build", "compiler", bsattn_build_compiler());
    add_text(sheet, "build", "type", bsattn_build_type());
    add_text(sheet, "build", "flags", bsattn_build_flags());
    add_text(sheet, "build", "source", bsattn_build_source());
    add_text(sheet, "host", "name", sheet->host);
    add_text(sheet, "host", "processor", sheet->processor);
    add_int(sheet, "host", "cores", sheet->cores);
    add_text(sheet, "host", "cpus", context->seats[rank].cpus);
    add_int(sheet, "host", "memory_available", (available == INT64_MAX) ? -1 : available);
    fill_gpus(sheet, context);
    add_text(sheet, "job", "launcher", bsattn_launch_name(getenv));
    add_int(sheet, "job", "ranks_launched", bsattn_launch_size(getenv));
    add_text(sheet, "auto", "transport", sheet->info.transport);
    add_text(sheet, "auto", "transport_reason", sheet->info.transport_reason);
    add_text(sheet, "auto", "backend", sheet->info.backend);
    add_text(sheet, "auto", "backend_reason", sheet->info.backend_reason);
    add_text(sheet, "auto", "backend_variant", sheet->info.backend_variant);
    add_text(sheet, "auto", "placement", sheet->placement);
    add_text(sheet, "auto", "cpus", context->cores.cpus);
    add_int(sheet, "auto", "threads", sheet->info.threads);
}

static void print_sheet(const sheet_t *sheet, bool commentary, FILE *file)
{
    char name[NAME_SIZE];
    bsattn_strbuf_t buf;

    if (commentary) {
        (void)fprintf(file, "# %-24s %s\n", "name", "value");
    }
    for (size_t i = 0; i < sheet->count; ++i) {
        const bsattn_cell_t *cell = &sheet->cells[i];
        bsattn_strbuf_init(&buf, name, sizeof(name));
        bsattn_strbuf_add(&buf, "%s%s%s", cell->section, (cell->section[0] != '\0') ? "." : "",
                          cell->key);
        if (cell->kind == BSATTN_CELL_TEXT) {
            (void)fprintf(file, "  %-24s %s\n", name, cell->text);
        } else {
            (void)fprintf(file, "  %-24s %lld\n", name, (long long)cell->integer);
        }
    }
}

static bsattn_status_t tell(const sheet_t *sheet, bsattn_reports_t *reports)
{
    bsattn_status_t status = BSATTN_OK;
    char *line;

    print_sheet(sheet, reports->commentary, reports->table);
    if (reports->json != NULL) {
        BSATTN_TRY(bsattn_json_from_cells(sheet->cells, sheet->count, &line));
        status = bsattn_report_file_append(reports->json, line);
        free(line);
    }
    return status;
}

bsattn_status_t bsattn_verb_info(const bsattn_cli_t *cli)
{
    bsattn_context_params_t params = bsattn_resolve_context(cli->options, &cli->job);
    bsattn_context_t *context;
    bsattn_reports_t reports;
    bsattn_status_t status;
    sheet_t sheet = {.cores = bsattn_host_cores()};

    params.virtual_ranks = 0;
    BSATTN_TRY(bsattn_context_create(&params, &context));
    bsattn_context_info(context, &sheet.info);
    fill(&sheet, context);
    status = bsattn_reports_open(cli, &reports);
    if ((status == BSATTN_OK) && (reports.table != NULL)) {
        status = tell(&sheet, &reports);
    }
    bsattn_reports_close(&reports);
    bsattn_context_destroy(context);
    return status;
}
