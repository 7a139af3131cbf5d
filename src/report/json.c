/* SPDX-License-Identifier: Apache-2.0 */
#include "report/json.h"

#include "base/text.h"

#include <cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PART_SIZE = 64, NUMBER_SIZE = 32 };

/* cJSON prints numbers as doubles; 64-bit counts must arrive whole. */
static cJSON *integer_item(int64_t integer)
{
    char digits[NUMBER_SIZE];
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, digits, sizeof(digits));
    bsattn_strbuf_add(&buf, "%" PRId64, integer);
    return cJSON_CreateRaw(digits);
}

static cJSON *cell_item(const bsattn_cell_t *cell)
{
    switch (cell->kind) {
    case BSATTN_CELL_TEXT:
        return cJSON_CreateString(cell->text);
    case BSATTN_CELL_INT:
        return integer_item(cell->integer);
    case BSATTN_CELL_REAL:
        return cJSON_CreateNumber(cell->real);
    case BSATTN_CELL_FLAG:
        return cJSON_CreateBool(cell->integer != 0);
    }
    return NULL;
}

/* The object for a section, made on the way if need be; NULL without memory. */
static cJSON *section_object(cJSON *root, const char *section)
{
    char part[PART_SIZE];

    while ((root != NULL) && (*section != '\0')) {
        size_t length = strcspn(section, ".");
        cJSON *child;
        BSATTN_ASSERT(length < sizeof(part));
        memcpy(part, section, length);
        part[length] = '\0';
        child = cJSON_GetObjectItemCaseSensitive(root, part);
        root = (child != NULL) ? child : cJSON_AddObjectToObject(root, part);
        section += length + ((section[length] == '.') ? 1 : 0);
    }
    return root;
}

static bool add_cell(cJSON *object, const bsattn_cell_t *cell)
{
    cJSON *item = cell_item(cell);

    if ((object == NULL) || !cJSON_AddItemToObject(object, cell->key, item)) {
        cJSON_Delete(item);
        return false;
    }
    return true;
}

static bool add_array_entry(cJSON *array, cJSON **entry_p)
{
    cJSON *entry = cJSON_CreateObject();

    if ((array == NULL) || !cJSON_AddItemToArray(array, entry)) {
        cJSON_Delete(entry);
        return false;
    }
    *entry_p = entry;
    return true;
}

static bool add_placement(cJSON *root, const bsattn_record_t *record)
{
    cJSON *array = cJSON_AddArrayToObject(root, "placement");
    cJSON *entry;
    bool done = (array != NULL);

    for (int rank = 0; done && (record->placement != NULL) && (rank < record->ranks); ++rank) {
        done = add_array_entry(array, &entry);
        for (size_t i = 0; done && (i < bsattn_placement_column_count()); ++i) {
            bsattn_cell_t cell = bsattn_placement_cell(&record->placement[rank], rank, i);
            done = add_cell(entry, &cell);
        }
    }
    return done;
}

static bool add_ranks(cJSON *root, const bsattn_record_t *record)
{
    cJSON *array = cJSON_AddArrayToObject(root, "ranks");
    cJSON *entry;
    bool done = (array != NULL);

    for (int rank = 0; done && (record->rank_records != NULL) && (rank < record->ranks); ++rank) {
        done = add_array_entry(array, &entry);
        for (size_t i = 0; done && (i < bsattn_rank_column_count()); ++i) {
            bsattn_cell_t cell = bsattn_rank_cell(&record->rank_records[rank], rank, i);
            done = add_cell(entry, &cell);
        }
    }
    return done;
}

/* Print and delete an object; NULL is without memory. */
static bsattn_status_t finish(cJSON *root, bool complete, char **line_p)
{
    char *printed = complete ? cJSON_PrintUnformatted(root) : NULL;
    size_t length = (printed != NULL) ? strlen(printed) : 0;
    char *line = (printed != NULL) ? malloc(length + 2) : NULL;

    if (line != NULL) {
        memcpy(line, printed, length);
        memcpy(line + length, "\n", 2);
        *line_p = line;
    }
    cJSON_free(printed);
    cJSON_Delete(root);
    return (line != NULL) ? BSATTN_OK : bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a record");
}

bsattn_status_t bsattn_json_from_cells(const bsattn_cell_t *cells, size_t count, char **line_p)
{
    cJSON *root = cJSON_CreateObject();
    bool done = (root != NULL);

    for (size_t i = 0; done && (i < count); ++i) {
        done = add_cell(section_object(root, cells[i].section), &cells[i]);
    }
    return finish(root, done, line_p);
}

bsattn_status_t bsattn_json_from_record(const bsattn_record_t *record, char **line_p)
{
    cJSON *root = cJSON_CreateObject();
    bool done = (root != NULL);

    for (size_t i = 0; done && (i < bsattn_column_count()); ++i) {
        bsattn_cell_t cell = bsattn_record_cell(record, i);
        done = add_cell(section_object(root, cell.section), &cell);
    }
    done = done && add_placement(root, record) && add_ranks(root, record);
    return finish(root, done, line_p);
}
