/* SPDX-License-Identifier: Apache-2.0 */
/** @file array.h  Arrays that grow. */
#ifndef BSATTN_BASE_ARRAY_H
#define BSATTN_BASE_ARRAY_H

#include "base/status.h"

/** Make room in an array that malloc() or realloc() gave, doubling it.
 *  @param items_p     address of the pointer to the first item; NULL items: no array yet
 *  @param capacity_p  items that there is room for
 *  @param needed      items that there must be room for
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY, the array being as it was */
bsattn_status_t bsattn_array_reserve(void *items_p, size_t *capacity_p, size_t needed,
                                     size_t item_size);

#endif
