/* SPDX-License-Identifier: Apache-2.0 */
/** @file text.h  Bounded strings, and numbers and sizes read from text without surprises. */
#ifndef BSATTN_BASE_TEXT_H
#define BSATTN_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** Text growing inside a buffer of the caller's: never overflows, remembers if it was cut. */
typedef struct bsattn_strbuf {
    char *data; /**< always terminated */
    size_t size;
    size_t length;
    bool cut;
} bsattn_strbuf_t;

/** Start with an empty text. @param size >= 1 */
void bsattn_strbuf_init(bsattn_strbuf_t *buf, char *data, size_t size);

/** Append formatted text; what does not fit is cut. */
void bsattn_strbuf_add(bsattn_strbuf_t *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Copy text, cutting what does not fit. @return false if it was cut */
bool bsattn_text_copy(char *out, size_t size, const char *text);

/** @return whether a choice is left open: NULL or "auto" */
static inline bool bsattn_text_is_auto(const char *text)
{
    return (text == NULL) || (strcmp(text, "auto") == 0);
}

/** Read a whole text as a decimal integer. @return false, leaving *value_p, if it is anything else
 *  or does not fit */
bool bsattn_text_int64(const char *text, int64_t *value_p);

/** The same with a suffix K, M, G or T (binary, either case): "64K" is 65536. Not negative. */
bool bsattn_text_size(const char *text, int64_t *value_p);

/** Read a whole text as a finite number. */
bool bsattn_text_double(const char *text, double *value_p);

/** @return the candidate nearest to name in edit distance (a swap of neighbours counts 1,
 *  upper and lower case are the same), or NULL
 *  if none is near enough to be a misspelling */
const char *bsattn_text_nearest(const char *name, const char *const *candidates, size_t count);

/** Write a byte count for people, e.g. "1.50 GiB". @return out */
const char *bsattn_text_bytes(char *out, size_t size, double bytes);

#endif
