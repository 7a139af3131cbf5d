/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include "base/status.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { NAME_MAX_LENGTH = 63 };

void bsattn_strbuf_init(bsattn_strbuf_t *buf, char *data, size_t size)
{
    BSATTN_ASSERT(size >= 1);
    data[0] = '\0';
    *buf = (bsattn_strbuf_t){.data = data, .size = size};
}

void bsattn_strbuf_add(bsattn_strbuf_t *buf, const char *format, ...)
{
    size_t room = buf->size - buf->length;
    va_list args;
    int written;

    va_start(args, format);
    written = vsnprintf(buf->data + buf->length, room, format, args);
    va_end(args);
    if ((written < 0) || ((size_t)written >= room)) {
        buf->cut = true;
        buf->length = buf->size - 1;
        return;
    }
    buf->length += (size_t)written;
}

bool bsattn_text_copy(char *out, size_t size, const char *text)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    bsattn_strbuf_add(&buf, "%s", text);
    return !buf.cut;
}

bool bsattn_text_int64(const char *text, int64_t *value_p)
{
    char *end;
    long long value;

    if (!isdigit((unsigned char)text[0]) && (text[0] != '-')) {
        return false;
    }
    errno = 0;
    value = strtoll(text, &end, 10);
    if ((errno != 0) || (end == text) || (*end != '\0')) {
        return false;
    }
    *value_p = value;
    return true;
}

static int suffix_shift(char suffix)
{
    switch (toupper((unsigned char)suffix)) {
    case 'K':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    case 'T':
        return 40;
    default:
        return -1;
    }
}

bool bsattn_text_size(const char *text, int64_t *value_p)
{
    char digits[32];
    size_t length = strlen(text);
    int shift = 0;
    int64_t value;

    if ((length == 0) || (length >= sizeof(digits))) {
        return false;
    }
    (void)bsattn_text_copy(digits, sizeof(digits), text);
    if (!isdigit((unsigned char)digits[length - 1])) {
        shift = suffix_shift(digits[length - 1]);
        if (shift < 0) {
            return false;
        }
        digits[length - 1] = '\0';
    }
    if (!bsattn_text_int64(digits, &value) || (value < 0) || (value > (INT64_MAX >> shift))) {
        return false;
    }
    *value_p = value << shift;
    return true;
}

bool bsattn_text_double(const char *text, double *value_p)
{
    char *end;
    double value;

    if ((text[0] == '\0') || isspace((unsigned char)text[0])) {
        return false;
    }
    errno = 0;
    value = strtod(text, &end);
    if ((end == text) || (*end != '\0') || !isfinite(value)) {
        return false;
    }
    *value_p = value;
    return true;
}

static size_t least(size_t a, size_t b)
{
    return (a < b) ? a : b;
}

static bool same_letter(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Edits that turn a into b: characters added, dropped, changed, or swapped with their neighbour.
 * Names of at most NAME_MAX_LENGTH characters. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][NAME_MAX_LENGTH + 1];
    size_t length_a = strlen(a);
    size_t length_b = strlen(b);

    for (size_t j = 0; j <= length_b; ++j) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= length_a; ++i) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3];
        const size_t *above2 = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= length_b; ++j) {
            row[j] = above[j - 1] + (same_letter(a[i - 1], b[j - 1]) ? 0 : 1);
            row[j] = least(row[j], least(above[j], row[j - 1]) + 1);
            if ((i > 1) && (j > 1) && same_letter(a[i - 1], b[j - 2]) &&
                same_letter(a[i - 2], b[j - 1])) {
                row[j] = least(row[j], above2[j - 2] + 1);
            }
        }
    }
    return rows[length_a % 3][length_b];
}

const char *bsattn_text_nearest(const char *name, const char *const *candidates, size_t count)
{
    const char *nearest = NULL;
    size_t best = strlen(name) / 2 + 1;

    if (strlen(name) > NAME_MAX_LENGTH) {
        return NULL;
    }
    for (size_t i = 0; i < count; ++i) {
        size_t distance;
        if (strlen(candidates[i]) > NAME_MAX_LENGTH) {
            continue;
        }
        distance = edit_distance(name, candidates[i]);
        if (distance < best) {
            best = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}

const char *bsattn_text_bytes(char *out, size_t size, double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    bsattn_strbuf_t buf;

    while ((fabs(bytes) >= 1024.0) && (unit + 1 < sizeof(units) / sizeof(units[0]))) {
        bytes /= 1024.0;
        ++unit;
    }
    bsattn_strbuf_init(&buf, out, size);
    bsattn_strbuf_add(&buf, (unit == 0) ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
    return out;
}
