/* SPDX-License-Identifier: Apache-2.0 */
#include "report/columns.h"

#include "base/status.h"
#include "build_info.h"

#include <string.h>

static const bsattn_column_t columns[] = {
#define COLUMN(_section, _key, _kind, _expression, _unit, _description)                            \
    {_section, _key, _unit, _description},
#include "report/columns.def"
};

static const bsattn_column_t placement_columns[] = {
#define PLACEMENT_COLUMN(_key, _kind, _expression, _unit, _description)                            \
    {"placement", _key, _unit, _description},
#include "report/columns.def"
};

static const bsattn_column_t rank_columns[] = {
#define RANK_COLUMN(_key, _kind, _expression, _unit, _description)                                 \
    {"ranks", _key, _unit, _description},
#include "report/columns.def"
};

enum {
    COLUMN_COUNT = sizeof(columns) / sizeof(columns[0]),
    PLACEMENT_COUNT = sizeof(placement_columns) / sizeof(placement_columns[0]),
    RANK_COUNT = sizeof(rank_columns) / sizeof(rank_columns[0]),
};

size_t bsattn_column_count(void)
{
    return COLUMN_COUNT;
}

const bsattn_column_t *bsattn_column(size_t index)
{
    BSATTN_ASSERT(index < COLUMN_COUNT);
    return &columns[index];
}

static bsattn_cell_t cell_TEXT(const char *section, const char *key, const char *text)
{
    return (bsattn_cell_t){section, key, BSATTN_CELL_TEXT, text, 0, 0.0};
}

static bsattn_cell_t cell_INT(const char *section, const char *key, int64_t integer)
{
    return (bsattn_cell_t){section, key, BSATTN_CELL_INT, NULL, integer, 0.0};
}

static bsattn_cell_t cell_REAL(const char *section, const char *key, double real)
{
    return (bsattn_cell_t){section, key, BSATTN_CELL_REAL, NULL, 0, real};
}

static bsattn_cell_t cell_FLAG(const char *section, const char *key, bool flag)
{
    return (bsattn_cell_t){section, key, BSATTN_CELL_FLAG, NULL, flag ? 1 : 0, 0.0};
}

bsattn_cell_t bsattn_record_cell(const bsattn_record_t *record, size_t column)
{
    const bsattn_record_t *r = record; /* as columns.def calls it */
    size_t at = 0;

    BSATTN_ASSERT(column < COLUMN_COUNT);
#define COLUMN(_section, _key, _kind, _expression, _unit, _description)                            \
    if (at++ == column) {                                                                          \
        return cell_##_kind(_section, _key, _expression);                                          \
    }
#include "report/columns.def"
    return cell_INT("", "", 0);
}

size_t bsattn_column_find(const char *name)
{
    for (size_t i = 0; i < COLUMN_COUNT; ++i) {
        size_t length = strlen(columns[i].section);
        if ((strncmp(columns[i].section, name, length) == 0) && (name[length] == '.') &&
            (strcmp(name + length + 1, columns[i].key) == 0)) {
            return i;
        }
    }
    bsattn_assert_failed(name, __FILE__, __LINE__);
}

size_t bsattn_placement_column_count(void)
{
    return PLACEMENT_COUNT;
}

const bsattn_column_t *bsattn_placement_column(size_t index)
{
    BSATTN_ASSERT(index < PLACEMENT_COUNT);
    return &placement_columns[index];
}

bsattn_cell_t bsattn_placement_cell(const bsattn_placement_t *placement, int rank, size_t column)
{
    const bsattn_placement_t *r = placement;
    size_t at = 0;

#define PLACEMENT_COLUMN(_key, _kind, _expression, _unit, _description)                            \
    if (at++ == column) {                                                                          \
        return cell_##_kind("placement", _key, _expression);                                       \
    }
#include "report/columns.def"
    return cell_INT("", "", 0);
}

size_t bsattn_rank_column_count(void)
{
    return RANK_COUNT;
}

const bsattn_column_t *bsattn_rank_column(size_t index)
{
    BSATTN_ASSERT(index < RANK_COUNT);
    return &rank_columns[index];
}

bsattn_cell_t bsattn_rank_cell(const bsattn_rank_record_t *record, int rank, size_t column)
{
    const bsattn_rank_record_t *r = record;
    size_t at = 0;

#define RANK_COLUMN(_key, _kind, _expression, _unit, _description)                                 \
    if (at++ == column) {                                                                          \
        return cell_##_kind("ranks", _key, _expression);                                           \
    }
#include "report/columns.def"
    return cell_INT("", "", 0);
}

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZER " (address sanitizer)"
#elif defined(__SANITIZE_THREAD__)
#define SANITIZER " (thread sanitizer)"
#else
#define SANITIZER ""
#endif

const char *bsattn_build_compiler(void)
{
    return BSATTN_BUILD_COMPILER;
}

const char *bsattn_build_type(void)
{
    return BSATTN_BUILD_TYPE SANITIZER;
}

const char *bsattn_build_flags(void)
{
    return BSATTN_BUILD_FLAGS;
}

const char *bsattn_build_source(void)
{
    return BSATTN_BUILD_SOURCE;
}
