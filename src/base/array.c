/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY_MIN = 16 };

bsattn_status_t bsattn_array_reserve(void *items_p, size_t *capacity_p, size_t needed,
                                     size_t item_size)
{
    size_t capacity = (*capacity_p < CAPACITY_MIN) ? CAPACITY_MIN : *capacity_p;
    void *items;

    if (needed <= *capacity_p) {
        return BSATTN_OK;
    }
    while ((capacity < needed) && (capacity < SIZE_MAX / 2 / item_size)) {
        capacity *= 2;
    }
    memcpy(&items, items_p, sizeof(items));
    items = (capacity < needed) ? NULL : realloc(items, capacity * item_size);
    if (items == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a list of %zu entries of %zu bytes",
                           needed, item_size);
    }
    memcpy(items_p, &items, sizeof(items));
    *capacity_p = capacity;
    return BSATTN_OK;
}
