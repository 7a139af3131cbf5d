/* SPDX-License-Identifier: Apache-2.0 */
#include "base/npy.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAGIC_SIZE = 6, ALIGNMENT = 64 };

static const unsigned char magic[MAGIC_SIZE] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* The dictionary in a header, being read. */
typedef struct cursor {
    const char *name;
    const char *at;
    const char *end;
} cursor_t;

static void skip_space(cursor_t *cursor)
{
    while ((cursor->at < cursor->end) &&
           ((*cursor->at == ' ') || (*cursor->at == '\n') || (*cursor->at == '\t'))) {
        ++cursor->at;
    }
}

static bool peek(cursor_t *cursor, char c)
{
    skip_space(cursor);
    return (cursor->at < cursor->end) && (*cursor->at == c);
}

static bool take(cursor_t *cursor, char c)
{
    if (!peek(cursor, c)) {
        return false;
    }
    ++cursor->at;
    return true;
}

static bool take_word(cursor_t *cursor, const char *word)
{
    size_t length = strlen(word);

    skip_space(cursor);
    if (((size_t)(cursor->end - cursor->at) < length) || (memcmp(cursor->at, word, length) != 0)) {
        return false;
    }
    cursor->at += length;
    return true;
}

static bsattn_status_t malformed(const cursor_t *cursor, const char *expected)
{
    return bsattn_fail(BSATTN_ERR_FILE, "%s: not a valid .npy header: %s expected", cursor->name,
                       expected);
}

/* A quoted string of printable ASCII without escapes: nothing else occurs in a header that we can
 * use. */
static bsattn_status_t take_string(cursor_t *cursor, char *out, size_t size)
{
    size_t length = 0;
    char quote;

    if (!peek(cursor, '\'') && !peek(cursor, '"')) {
        return malformed(cursor, "a quoted string");
    }
    quote = *cursor->at;
    ++cursor->at;
    while ((cursor->at < cursor->end) && (*cursor->at != quote)) {
        char c = *cursor->at;

        if ((c < ' ') || (c > '~') || (c == '\\') || (length + 1 >= size)) {
            return malformed(cursor, "a short string of plain characters");
        }
        out[length++] = c;
        ++cursor->at;
    }
    if (cursor->at >= cursor->end) {
        return malformed(cursor, "a closing quote");
    }
    ++cursor->at;
    out[length] = '\0';
    return BSATTN_OK;
}

static bsattn_status_t take_count(cursor_t *cursor, int64_t *value_p)
{
    int64_t value = 0;

    skip_space(cursor);
    if ((cursor->at >= cursor->end) || (*cursor->at < '0') || (*cursor->at > '9')) {
        return malformed(cursor, "a number of elements");
    }
    while ((cursor->at < cursor->end) && (*cursor->at >= '0') && (*cursor->at <= '9')) {
        if (__builtin_mul_overflow(value, (int64_t)10, &value) ||
            __builtin_add_overflow(value, (int64_t)(*cursor->at - '0'), &value)) {
            return bsattn_fail(BSATTN_ERR_INPUT, "%s: a dimension does not fit 63 bits",
                               cursor->name);
        }
        ++cursor->at;
    }
    *value_p = value;
    return BSATTN_OK;
}

/* The element type: byte order, kind and size, e.g. "<f4". */
static bsattn_status_t parse_descr(cursor_t *cursor, bsattn_npy_t *npy)
{
    const char *descr = npy->descr;
    int64_t size;

    if (peek(cursor, '[') || peek(cursor, '(')) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "%s: a structured element type is not supported, a plain one such as "
                           "'<f4' is expected",
                           cursor->name);
    }
    BSATTN_TRY(take_string(cursor, npy->descr, sizeof(npy->descr)));
    if ((strlen(descr) < 3) || (strchr("<>|", descr[0]) == NULL) ||
        (strchr("biufcSUV", descr[1]) == NULL) || !bsattn_text_int64(descr + 2, &size) ||
        (size < 1) || (size > 1024 * 1024)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "%s: element type '%s' is not supported, a plain one such as '<f4' is "
                           "expected",
                           cursor->name, descr);
    }
    npy->item_size = (size_t)((descr[1] == 'U') ? 4 * size : size);
    return BSATTN_OK;
}

static bsattn_status_t parse_shape(cursor_t *cursor, bsattn_npy_t *npy)
{
    bool comma = true;

    npy->dims = 0;
    if (!take(cursor, '(')) {
        return malformed(cursor, "a tuple as shape");
    }
    while (!take(cursor, ')')) {
        if (!comma) {
            return malformed(cursor, "',' or ')' in the shape");
        }
        if (npy->dims == BSATTN_NPY_DIMS_MAX) {
            return bsattn_fail(BSATTN_ERR_INPUT, "%s: more than %d dimensions", cursor->name,
                               (int)BSATTN_NPY_DIMS_MAX);
        }
        BSATTN_TRY(take_count(cursor, &npy->shape[npy->dims]));
        ++npy->dims;
        comma = take(cursor, ',');
    }
    /* Without its comma "(3)" is a number in brackets, no tuple. */
    if ((npy->dims == 1) && !comma) {
        return malformed(cursor, "',' in a shape of one dimension");
    }
    return BSATTN_OK;
}

static bsattn_status_t parse_entry(cursor_t *cursor, unsigned *seen, bsattn_npy_t *npy)
{
    char key[32];
    unsigned bit;

    BSATTN_TRY(take_string(cursor, key, sizeof(key)));
    if (!take(cursor, ':')) {
        return malformed(cursor, "':' after a key");
    }
    if (strcmp(key, "descr") == 0) {
        bit = 1;
        BSATTN_TRY(parse_descr(cursor, npy));
    } else if (strcmp(key, "fortran_order") == 0) {
        bit = 2;
        npy->fortran_order = take_word(cursor, "True");
        if (!npy->fortran_order && !take_word(cursor, "False")) {
            return malformed(cursor, "True or False for fortran_order");
        }
    } else if (strcmp(key, "shape") == 0) {
        bit = 4;
        BSATTN_TRY(parse_shape(cursor, npy));
    } else {
        return malformed(cursor, "one of the keys descr, fortran_order, shape");
    }
    if ((*seen & bit) != 0) {
        return malformed(cursor, "each key once");
    }
    *seen |= bit;
    return BSATTN_OK;
}

static bsattn_status_t parse_dictionary(cursor_t *cursor, bsattn_npy_t *npy)
{
    unsigned seen = 0;
    bool comma = true;

    if (!take(cursor, '{')) {
        return malformed(cursor, "'{'");
    }
    while (!take(cursor, '}')) {
        if (!comma) {
            return malformed(cursor, "',' or '}'");
        }
        BSATTN_TRY(parse_entry(cursor, &seen, npy));
        comma = take(cursor, ',');
    }
    skip_space(cursor);
    if (cursor->at != cursor->end) {
        return malformed(cursor, "nothing after '}'");
    }
    if (seen != 7) {
        return malformed(cursor, "all of descr, fortran_order and shape");
    }
    return BSATTN_OK;
}

static bsattn_status_t count_elements(const char *name, bsattn_npy_t *npy)
{
    int64_t end;

    npy->count = 1;
    for (int d = 0; d < npy->dims; ++d) {
        if (__builtin_mul_overflow(npy->count, npy->shape[d], &npy->count)) {
            return bsattn_fail(BSATTN_ERR_INPUT, "%s: its number of elements does not fit 63 bits",
                               name);
        }
    }
    if (__builtin_mul_overflow(npy->count, (int64_t)npy->item_size, &npy->bytes) ||
        __builtin_add_overflow(npy->bytes, npy->data_offset, &end)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "%s: its size in bytes does not fit 63 bits", name);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_npy_parse(const char *name, const void *data, size_t size,
                                 bsattn_npy_t *npy_p)
{
    const unsigned char *bytes = data;
    bsattn_npy_t npy = {.dims = 0};
    cursor_t cursor = {.name = name};
    size_t prefix;
    size_t length;

    if ((size < MAGIC_SIZE) || (memcmp(bytes, magic, MAGIC_SIZE) != 0)) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: not a .npy file: it does not begin as one", name);
    }
    if (size < MAGIC_SIZE + 2 + 4) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: %zu bytes are too few for a .npy header", name,
                           size);
    }
    if ((bytes[6] < 1) || (bytes[6] > 3) || (bytes[7] != 0)) {
        return bsattn_fail(BSATTN_ERR_FILE,
                           "%s: .npy version %d.%d is not known, 1.0, 2.0 or 3.0 is expected", name,
                           bytes[6], bytes[7]);
    }
    prefix = (bytes[6] == 1) ? 10 : 12;
    length = (size_t)bytes[8] | ((size_t)bytes[9] << 8);
    if (bytes[6] > 1) {
        length |= ((size_t)bytes[10] << 16) | ((size_t)bytes[11] << 24);
    }
    if (length > BSATTN_NPY_HEADER_MAX - prefix) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: a header of %zu bytes, at most %d are expected",
                           name, length, (int)BSATTN_NPY_HEADER_MAX);
    }
    if (length > size - prefix) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: its header is %zu bytes, %zu are there", name,
                           prefix + length, size);
    }
    cursor.at = (const char *)bytes + prefix;
    cursor.end = cursor.at + length;
    npy.data_offset = (int64_t)(prefix + length);
    BSATTN_TRY(parse_dictionary(&cursor, &npy));
    BSATTN_TRY(count_elements(name, &npy));
    *npy_p = npy;
    return BSATTN_OK;
}

/* Open a file that is a regular one: a pipe or a device would have no size to check. */
static bsattn_status_t open_regular(const char *path, int *fd_p, int64_t *size_p)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    }
    if ((fstat(fd, &status) != 0) || !S_ISREG(status.st_mode)) {
        (void)close(fd);
        return bsattn_fail(BSATTN_ERR_FILE, "%s: not a regular file", path);
    }
    *fd_p = fd;
    *size_p = status.st_size;
    return BSATTN_OK;
}

/* Read exactly size bytes at offset. */
static bsattn_status_t read_exactly(int fd, const char *path, int64_t offset, size_t size,
                                    void *out)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = pread(fd, (char *)out + done, size - done, (off_t)(offset + (int64_t)done));

        if ((got < 0) && (errno == EINTR)) {
            continue;
        }
        if (got < 0) {
            return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be read: %s", path, strerror(errno));
        }
        if (got == 0) {
            return bsattn_fail(BSATTN_ERR_FILE,
                               "%s: ended after %" PRId64 " bytes while being read", path,
                               offset + (int64_t)done);
        }
        done += (size_t)got;
    }
    return BSATTN_OK;
}

static bsattn_status_t read_header(int fd, const char *path, int64_t file_size, bsattn_npy_t *npy_p)
{
    bsattn_npy_t npy;
    bsattn_status_t status;
    size_t size = (file_size < BSATTN_NPY_HEADER_MAX) ? (size_t)file_size : BSATTN_NPY_HEADER_MAX;
    void *header = malloc(BSATTN_NPY_HEADER_MAX);

    if (header == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no %d bytes for the header of %s",
                           (int)BSATTN_NPY_HEADER_MAX, path);
    }
    status = read_exactly(fd, path, 0, size, header);
    if (status == BSATTN_OK) {
        status = bsattn_npy_parse(path, header, size, &npy);
    }
    free(header);
    BSATTN_TRY(status);
    if (file_size - npy.data_offset < npy.bytes) {
        return bsattn_fail(BSATTN_ERR_FILE,
                           "%s: %" PRId64 " bytes expected by its header, %" PRId64 " there", path,
                           npy.data_offset + npy.bytes, file_size);
    }
    *npy_p = npy;
    return BSATTN_OK;
}

bsattn_status_t bsattn_npy_read_header(const char *path, bsattn_npy_t *npy_p)
{
    bsattn_status_t status;
    int64_t file_size;
    int fd;

    BSATTN_TRY(open_regular(path, &fd, &file_size));
    status = read_header(fd, path, file_size, npy_p);
    (void)close(fd);
    return status;
}

size_t bsattn_npy_format(const char *descr, int dims, const int64_t *shape, void *out, size_t size)
{
    char text[512];
    bsattn_strbuf_t buf;
    unsigned char *bytes = out;
    size_t prefix = MAGIC_SIZE + 4;
    size_t total;

    if ((dims < 0) || (dims > BSATTN_NPY_DIMS_MAX) || (strpbrk(descr, "'\\\n") != NULL)) {
        return 0;
    }
    bsattn_strbuf_init(&buf, text, sizeof(text));
    bsattn_strbuf_add(&buf, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int d = 0; d < dims; ++d) {
        if (shape[d] < 0) {
            return 0;
        }
        bsattn_strbuf_add(&buf, "%s%" PRId64, (d > 0) ? ", " : "", shape[d]);
    }
    bsattn_strbuf_add(&buf, "%s), }", (dims == 1) ? "," : "");
    total = (prefix + buf.length + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (buf.cut || (total > size)) {
        return 0;
    }
    memset(bytes, ' ', total);
    memcpy(bytes, magic, MAGIC_SIZE);
    bytes[6] = 1;
    bytes[7] = 0;
    bytes[8] = (unsigned char)((total - prefix) & 0xff);
    bytes[9] = (unsigned char)((total - prefix) >> 8);
    memcpy(bytes + prefix, text, buf.length);
    bytes[total - 1] = '\n';
    return total;
}

const char *bsattn_npy_shape_text(int dims, const int64_t *shape, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    bsattn_strbuf_add(&buf, "(");
    for (int d = 0; d < dims; ++d) {
        bsattn_strbuf_add(&buf, "%s%" PRId64, (d > 0) ? ", " : "", shape[d]);
    }
    bsattn_strbuf_add(&buf, "%s)", (dims == 1) ? "," : "");
    return out;
}

static bsattn_status_t check_mask(const char *path, const bsattn_npy_t *npy, int dims_min,
                                  int dims_max)
{
    char shape[256];

    if (strcmp(npy->descr, "|b1") != 0) {
        return bsattn_fail(BSATTN_ERR_INPUT, "%s: element type '%s', boolean ('|b1') is expected",
                           path, npy->descr);
    }
    (void)bsattn_npy_shape_text(npy->dims, npy->shape, shape, sizeof(shape));
    if ((npy->dims < dims_min) || (npy->dims > dims_max)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "%s: shape %s, %d to %d dimensions are expected", path,
                           shape, dims_min, dims_max);
    }
    if (npy->fortran_order && (npy->dims > 1)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "%s: Fortran order, C order (numpy.ascontiguousarray) is expected",
                           path);
    }
    return BSATTN_OK;
}

static bsattn_status_t read_mask(int fd, const char *path, const bsattn_npy_t *npy,
                                 uint8_t **values_p)
{
    /* One more, since a size of 0 may give NULL. */
    uint8_t *values = malloc((size_t)npy->bytes + 1);
    bsattn_status_t status;

    if (values == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no %" PRId64 " bytes for the mask of %s", npy->bytes,
                           path);
    }
    status = read_exactly(fd, path, npy->data_offset, (size_t)npy->bytes, values);
    for (int64_t i = 0; (status == BSATTN_OK) && (i < npy->count); ++i) {
        if (values[i] > 1) {
            status =
                bsattn_fail(BSATTN_ERR_INPUT, "%s: element %" PRId64 " is %d, 0 or 1 is expected",
                            path, i, values[i]);
        }
    }
    if (status != BSATTN_OK) {
        free(values);
        return status;
    }
    *values_p = values;
    return BSATTN_OK;
}

bsattn_status_t bsattn_npy_read_bool(const char *path, int dims_min, int dims_max,
                                     uint8_t **values_p, bsattn_npy_t *npy_p)
{
    bsattn_npy_t npy;
    bsattn_status_t status;
    uint8_t *values = NULL;
    int64_t file_size;
    int fd;

    BSATTN_TRY(open_regular(path, &fd, &file_size));
    status = read_header(fd, path, file_size, &npy);
    if (status == BSATTN_OK) {
        status = check_mask(path, &npy, dims_min, dims_max);
    }
    if (status == BSATTN_OK) {
        status = read_mask(fd, path, &npy, &values);
    }
    (void)close(fd);
    BSATTN_TRY(status);
    *values_p = values;
    *npy_p = npy;
    return BSATTN_OK;
}
