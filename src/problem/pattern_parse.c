/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/pattern.h"

#include "base/bits.h"
#include "base/npy.h"
#include "base/text.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WORD_SIZE = 512,
    QUOTE_SIZE = 160,
    KEYS_MAX = 4,
    BRANCHES_MAX = 64,
    TERMS_MAX = 64,
    HEAD_UNSET = -1,
};

/* A cursor over the text; every error names the place where it stands. */
typedef struct parser {
    bsattn_pattern_t *pattern;
    const char *text;
    size_t at;
} parser_t;

/* One key=value of a term, as text. */
typedef struct key_value {
    char key[32];
    char value[WORD_SIZE];
    size_t key_at; /* for errors */
    size_t at;     /* of the value */
} key_value_t;

typedef struct term_text {
    char name[32];
    size_t at;
    key_value_t keys[KEYS_MAX];
    int key_count;
} term_text_t;

/* The text of a pattern around a position: all of it unless it is long. */
typedef struct quote {
    char text[QUOTE_SIZE + 8];
} quote_t;

static quote_t quote_at(const parser_t *parser, size_t at)
{
    size_t length = strlen(parser->text);
    size_t first = (at > QUOTE_SIZE / 2) ? at - QUOTE_SIZE / 2 : 0;
    quote_t quote = {{0}};
    bsattn_strbuf_t buf;

    first = (length < QUOTE_SIZE) ? 0 : first;
    bsattn_strbuf_init(&buf, quote.text, sizeof(quote.text));
    bsattn_strbuf_add(&buf, "%s%.*s%s", (first > 0) ? ".." : "", QUOTE_SIZE - 1,
                      parser->text + first, (length - first >= QUOTE_SIZE) ? ".." : "");
    return quote;
}

static bsattn_status_t fail_at(const parser_t *parser, size_t at, const char *what)
{
    return bsattn_fail(BSATTN_ERR_INPUT, "pattern '%s', position %zu: %s",
                       quote_at(parser, at).text, at + 1, what);
}

static bsattn_status_t fail_value(const parser_t *parser, const key_value_t *kv,
                                  const char *accepted)
{
    return bsattn_fail(BSATTN_ERR_INPUT, "pattern '%s', position %zu: %s=%.80s: must be %s",
                       quote_at(parser, kv->at).text, kv->at + 1, kv->key, kv->value, accepted);
}

static void skip_space(parser_t *parser)
{
    while (isspace((unsigned char)parser->text[parser->at])) {
        ++parser->at;
    }
}

/* Step over one character if it is next. */
static bool take(parser_t *parser, char c)
{
    skip_space(parser);
    if (parser->text[parser->at] != c) {
        return false;
    }
    ++parser->at;
    return true;
}

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || (c == '_');
}

/* Read letters, digits and '_' into out. */
static bsattn_status_t read_name(parser_t *parser, char *out, size_t size, const char *what)
{
    size_t start;
    size_t length = 0;

    skip_space(parser);
    start = parser->at;
    while (word_char(parser->text[parser->at])) {
        if (length + 1 == size) {
            return fail_at(parser, start, "a name too long");
        }
        out[length++] = parser->text[parser->at++];
    }
    out[length] = '\0';
    return (length > 0) ? BSATTN_OK : fail_at(parser, start, what);
}

/* Read up to the next ',' or ')', without spaces around. */
static bsattn_status_t read_value(parser_t *parser, key_value_t *kv)
{
    size_t length = 0;

    skip_space(parser);
    kv->at = parser->at;
    while ((parser->text[parser->at] != '\0') && (strchr(",)", parser->text[parser->at]) == NULL)) {
        if (length + 1 == sizeof(kv->value)) {
            return fail_at(parser, kv->at, "a value too long");
        }
        kv->value[length++] = parser->text[parser->at++];
    }
    while ((length > 0) && isspace((unsigned char)kv->value[length - 1])) {
        --length;
    }
    kv->value[length] = '\0';
    return (length > 0) ? BSATTN_OK : fail_at(parser, kv->at, "a value is missing");
}

static bsattn_status_t read_keys(parser_t *parser, term_text_t *term)
{
    if (!take(parser, '(')) {
        return BSATTN_OK;
    }
    do {
        key_value_t *kv = &term->keys[term->key_count];

        skip_space(parser);
        if (term->key_count == KEYS_MAX) {
            return fail_at(parser, parser->at, "too many parameters");
        }
        kv->key_at = parser->at;
        BSATTN_TRY(read_name(parser, kv->key, sizeof(kv->key), "a parameter name is expected"));
        for (int i = 0; i < term->key_count; ++i) {
            if (strcmp(term->keys[i].key, kv->key) == 0) {
                return fail_at(parser, kv->key_at, "a parameter given twice");
            }
        }
        if (!take(parser, '=')) {
            return fail_at(parser, parser->at, "'=' is expected");
        }
        BSATTN_TRY(read_value(parser, kv));
        ++term->key_count;
    } while (take(parser, ','));
    return take(parser, ')') ? BSATTN_OK : fail_at(parser, parser->at, "',' or ')' is expected");
}

/* ------------------------------------------------------------------------- values of parameters */

static bsattn_status_t value_size(const parser_t *parser, const key_value_t *kv, int64_t min,
                                  int64_t *value_p)
{
    char accepted[64];
    bsattn_strbuf_t buf;

    if (bsattn_text_size(kv->value, value_p) && (*value_p >= min)) {
        return BSATTN_OK;
    }
    bsattn_strbuf_init(&buf, accepted, sizeof(accepted));
    bsattn_strbuf_add(&buf, "an integer, %" PRId64 " or more", min);
    return fail_value(parser, kv, accepted);
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static bsattn_status_t value_density(const parser_t *parser, const key_value_t *kv,
                                     bsattn_term_t *term)
{
    if (!bsattn_text_double(kv->value, &term->density) || (term->density <= 0.0) ||
        (term->density > 1.0)) {
        return fail_value(parser, kv, "a density above 0, at most 1");
    }
    return BSATTN_OK;
}

static bsattn_status_t value_window(const parser_t *parser, const key_value_t *kv,
                                    bsattn_term_t *term)
{
    int64_t window;

    BSATTN_TRY(value_size(parser, kv, 0, &window));
    term->half = bsattn_min64(window / (2 * (int64_t)parser->pattern->problem.block),
                              parser->pattern->blocks);
    return BSATTN_OK;
}

/* A stride or a number of draws, in blocks. */
static bsattn_status_t value_count(const parser_t *parser, const key_value_t *kv,
                                   bsattn_term_t *term)
{
    BSATTN_TRY(value_size(parser, kv, 1, &term->count));
    term->count = bsattn_min64(term->count, parser->pattern->blocks);
    return BSATTN_OK;
}

static bsattn_status_t value_tokens(const parser_t *parser, const key_value_t *kv,
                                    bsattn_term_t *term)
{
    int64_t tokens;

    BSATTN_TRY(value_size(parser, kv, 0, &tokens));
    term->count =
        bsattn_min64(ceil_div(tokens, parser->pattern->problem.block), parser->pattern->blocks);
    return BSATTN_OK;
}

static bsattn_status_t value_seed(const parser_t *parser, const key_value_t *kv,
                                  bsattn_term_t *term)
{
    int64_t seed;

    BSATTN_TRY(value_size(parser, kv, 0, &seed));
    term->seed = (uint64_t)seed;
    return BSATTN_OK;
}

static void insert_rate(bsattn_term_t *term, int64_t rate)
{
    int at = term->rate_count;

    while ((at > 0) && (term->rates[at - 1] >= rate)) {
        if (term->rates[at - 1] == rate) {
            return;
        }
        --at;
    }
    memmove(&term->rates[at + 1], &term->rates[at],
            (size_t)(term->rate_count - at) * sizeof(term->rates[0]));
    term->rates[at] = rate;
    ++term->rate_count;
}

static bsattn_status_t value_rates(const parser_t *parser, const key_value_t *kv,
                                   bsattn_term_t *term)
{
    char list[WORD_SIZE];
    char *rest = list;
    char *item;

    (void)bsattn_text_copy(list, sizeof(list), kv->value);
    while ((item = strsep(&rest, ":")) != NULL) {
        int64_t rate;
        if (!bsattn_text_size(item, &rate) || (rate < 1) ||
            (term->rate_count == BSATTN_RATES_MAX)) {
            return fail_value(parser, kv,
                              "at most 64 block offsets of 1 or more separated by ':', "
                              "e.g. 1:2:4");
        }
        insert_rate(
            term, bsattn_min64(rate, parser->pattern->blocks)); /* beyond all: no matter how far */
    }
    return BSATTN_OK;
}

static bsattn_status_t value_level(const parser_t *parser, char *item, bsattn_level_t *level)
{
    char *colon = strchr(item, ':');
    int64_t window;

    if (colon == NULL) {
        return BSATTN_ERR_INPUT;
    }
    *colon = '\0';
    if (!bsattn_text_size(item, &level->stride) || (level->stride < 1)) {
        return BSATTN_ERR_INPUT;
    }
    if (strcmp(colon + 1, "all") == 0) {
        level->half = parser->pattern->blocks;
        return BSATTN_OK;
    }
    if (!bsattn_text_size(colon + 1, &window)) {
        return BSATTN_ERR_INPUT;
    }
    level->half = bsattn_min64(window / (2 * (int64_t)parser->pattern->problem.block),
                               parser->pattern->blocks);
    return BSATTN_OK;
}

static bsattn_status_t value_levels(const parser_t *parser, const key_value_t *kv,
                                    bsattn_term_t *term)
{
    char list[WORD_SIZE];
    char *rest = list;
    char *item;

    (void)bsattn_text_copy(list, sizeof(list), kv->value);
    while ((item = strsep(&rest, "/")) != NULL) {
        if ((term->level_count == BSATTN_LEVELS_MAX) ||
            (value_level(parser, item, &term->levels[term->level_count]) != BSATTN_OK)) {
            return fail_value(parser, kv,
                              "at most 16 levels stride:window separated by '/', stride in "
                              "blocks, window in tokens or all, e.g. 1:256/4:1024/16:all");
        }
        ++term->level_count;
    }
    return BSATTN_OK;
}

static bsattn_status_t value_orient(const parser_t *parser, const key_value_t *kv,
                                    bsattn_term_t *term)
{
    term->rows = (strcmp(kv->value, "rows") == 0);
    if (!term->rows && (strcmp(kv->value, "cols") != 0)) {
        return fail_value(parser, kv, "cols or rows");
    }
    return BSATTN_OK;
}

static bsattn_status_t value_file(const parser_t *parser, const key_value_t *kv,
                                  bsattn_term_t *term)
{
    int64_t nb = parser->pattern->blocks;
    int64_t heads = parser->pattern->problem.heads_q;
    bsattn_npy_t npy;
    char shape[96];
    int64_t mask_heads;

    BSATTN_TRY(bsattn_npy_read_bool(kv->value, 2, 3, &term->mask, &npy));
    mask_heads = (npy.dims == 3) ? npy.shape[0] : 1;
    if ((npy.shape[npy.dims - 1] != nb) || (npy.shape[npy.dims - 2] != nb) ||
        ((npy.dims == 3) && (mask_heads != heads))) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "pattern '%s': mask %s has shape %s: must be (%" PRId64 ", %" PRId64
                           ") or (%" PRId64 ", %" PRId64 ", %" PRId64 ")",
                           quote_at(parser, kv->at).text, kv->value,
                           bsattn_npy_shape_text(npy.dims, npy.shape, shape, sizeof(shape)), nb, nb,
                           heads, nb, nb);
    }
    term->mask_heads = mask_heads;
    return BSATTN_OK;
}

/* -------------------------------------------------------------------------------- terms by name */

typedef bsattn_status_t (*value_func_t)(const parser_t *parser, const key_value_t *kv,
                                        bsattn_term_t *term);

typedef struct key_rule {
    const char *key;
    value_func_t read;
    int group; /* > 0: exactly one key of each group must be given; 0: optional */
} key_rule_t;

typedef struct term_rule {
    const char *name;
    bsattn_term_kind_t kind;
    key_rule_t keys[KEYS_MAX];
} term_rule_t;

static const term_rule_t term_rules[] = {
    {"dense", BSATTN_TERM_DENSE, {{0}}},
    {"local", BSATTN_TERM_LOCAL, {{"window", value_window, 1}, {"density", value_density, 1}}},
    {"dilated", BSATTN_TERM_DILATED, {{"rates", value_rates, 1}}},
    {"strided", BSATTN_TERM_STRIDED, {{"stride", value_count, 1}, {"density", value_density, 1}}},
    {"global", BSATTN_TERM_GLOBAL, {{"tokens", value_tokens, 1}}},
    {"sink", BSATTN_TERM_SINK, {{"tokens", value_tokens, 1}}},
    {"hierarchical",
     BSATTN_TERM_HIERARCHICAL,
     {{"levels", value_levels, 1}, {"orient", value_orient, 0}}},
    {"random",
     BSATTN_TERM_RANDOM,
     {{"blocks", value_count, 1}, {"density", value_density, 1}, {"seed", value_seed, 0}}},
    {"blocks", BSATTN_TERM_BLOCKS, {{"file", value_file, 1}}},
};

enum { TERM_RULE_COUNT = sizeof(term_rules) / sizeof(term_rules[0]) };

static bsattn_status_t fail_unknown(const parser_t *parser, size_t at, const char *kind,
                                    const char *name, const char *const *known, size_t count)
{
    const char *nearest = bsattn_text_nearest(name, known, count);
    char text[256];
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, text, sizeof(text));
    bsattn_strbuf_add(&buf, "unknown %s '%s'", kind, name);
    if (nearest != NULL) {
        bsattn_strbuf_add(&buf, " (did you mean '%s'?)", nearest);
    }
    bsattn_strbuf_add(&buf, (count == 0) ? "; it takes none" : "; known:");
    for (size_t i = 0; i < count; ++i) {
        bsattn_strbuf_add(&buf, "%s %s", (i == 0) ? "" : ",", known[i]);
    }
    return fail_at(parser, at, text);
}

static bsattn_status_t find_term_rule(const parser_t *parser, const term_text_t *text,
                                      const term_rule_t **rule_p)
{
    const char *known[TERM_RULE_COUNT];

    for (size_t i = 0; i < TERM_RULE_COUNT; ++i) {
        if (strcmp(term_rules[i].name, text->name) == 0) {
            *rule_p = &term_rules[i];
            return BSATTN_OK;
        }
        known[i] = term_rules[i].name;
    }
    if (strcmp(text->name, "adaptive") == 0) {
        return fail_at(parser, text->at, "adaptive is not supported yet");
    }
    if (strcmp(text->name, "dilate") == 0) {
        return fail_at(parser, text->at, "dilate is not supported yet");
    }
    return fail_unknown(parser, text->at, "term", text->name, known, TERM_RULE_COUNT);
}

static bsattn_status_t read_parameter(const parser_t *parser, const term_rule_t *rule,
                                      const key_value_t *kv, bsattn_term_t *term, unsigned *given)
{
    const char *known[KEYS_MAX];
    size_t count = 0;

    for (; (count < KEYS_MAX) && (rule->keys[count].key != NULL); ++count) {
        const key_rule_t *key = &rule->keys[count];
        if (strcmp(key->key, kv->key) == 0) {
            if ((key->group > 0) && (*given & (1u << key->group))) {
                return fail_at(parser, kv->key_at,
                               "only one of window, stride, blocks and density can be given");
            }
            *given |= 1u << key->group;
            return key->read(parser, kv, term);
        }
        known[count] = key->key;
    }
    return fail_unknown(parser, kv->key_at, "parameter", kv->key, known, count);
}

static bsattn_status_t parse_term(parser_t *parser, bsattn_term_t *term)
{
    term_text_t *text = calloc(1, sizeof(*text));
    const term_rule_t *rule = NULL;
    bsattn_status_t status;
    unsigned given = 0;

    if (text == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to parse a pattern");
    }
    skip_space(parser);
    text->at = parser->at;
    status = read_name(parser, text->name, sizeof(text->name), "the name of a term is expected");
    if (status == BSATTN_OK) {
        status = find_term_rule(parser, text, &rule);
    }
    if (status == BSATTN_OK) {
        status = read_keys(parser, text);
    }
    for (int i = 0; (status == BSATTN_OK) && (i < text->key_count); ++i) {
        term->kind = rule->kind;
        status = read_parameter(parser, rule, &text->keys[i], term, &given);
    }
    if ((status == BSATTN_OK) && (rule->keys[0].key != NULL) && !(given & 2u)) {
        char message[96];
        bsattn_strbuf_t buf;
        bsattn_strbuf_init(&buf, message, sizeof(message));
        bsattn_strbuf_add(&buf, "%s needs %s=..%s", rule->name, rule->keys[0].key,
                          (rule->keys[1].read == value_density) ? " or density=.." : "");
        status = fail_at(parser, text->at, message);
    }
    if (status == BSATTN_OK) {
        term->kind = rule->kind;
    }
    free(text);
    return status;
}

/* -------------------------------------------------------------------- branches, masks and heads */

/* Append a zeroed element to an array that the pattern owns. */
static void *grow(void *items_p, int *count, size_t size)
{
    void **items = items_p;
    char *bigger = realloc(*items, (size_t)(*count + 1) * size);

    if (bigger == NULL) {
        (void)bsattn_fail(BSATTN_ERR_MEMORY, "no memory to parse a pattern");
        return NULL;
    }
    memset(bigger + (size_t)*count * size, 0, size);
    *items = bigger;
    return bigger + (size_t)(*count)++ * size;
}

static bsattn_status_t parse_branch(parser_t *parser, bsattn_branch_t *branch)
{
    do {
        bsattn_term_t *term;
        if (branch->term_count == TERMS_MAX) {
            return fail_at(parser, parser->at, "more than 64 terms in a branch");
        }
        term = grow(&branch->terms, &branch->term_count, sizeof(*term));
        if (term == NULL) {
            return BSATTN_ERR_MEMORY;
        }
        BSATTN_TRY(parse_term(parser, term));
    } while (take(parser, '+'));
    return BSATTN_OK;
}

static bsattn_status_t parse_mask(parser_t *parser)
{
    bsattn_pattern_t *pattern = parser->pattern;
    bsattn_head_mask_t *mask = grow(&pattern->masks, &pattern->mask_count, sizeof(*mask));

    if (mask == NULL) {
        return BSATTN_ERR_MEMORY;
    }
    do {
        bsattn_branch_t *branch;
        if (mask->branch_count == BRANCHES_MAX) {
            return fail_at(parser, parser->at, "more than 64 branches");
        }
        branch = grow(&mask->branches, &mask->branch_count, sizeof(*branch));
        if (branch == NULL) {
            return BSATTN_ERR_MEMORY;
        }
        BSATTN_TRY(parse_branch(parser, branch));
    } while (take(parser, '|'));
    return BSATTN_OK;
}

static bsattn_status_t parse_head(parser_t *parser, int *head_p)
{
    char word[32];
    int64_t head;
    size_t at;

    skip_space(parser);
    at = parser->at;
    BSATTN_TRY(read_name(parser, word, sizeof(word), "a head number is expected"));
    if (!bsattn_text_int64(word, &head)) {
        return fail_at(parser, at, "a head number is expected");
    }
    if (head >= parser->pattern->problem.heads_q) {
        char message[64];
        bsattn_strbuf_t buf;
        bsattn_strbuf_init(&buf, message, sizeof(message));
        bsattn_strbuf_add(&buf, "head %" PRId64 ": heads are 0 to %d", head,
                          parser->pattern->problem.heads_q - 1);
        return fail_at(parser, at, message);
    }
    *head_p = (int)head;
    return BSATTN_OK;
}

/* heads := range { "," range }, range := head [ "-" head ] */
static bsattn_status_t parse_heads(parser_t *parser, int mask)
{
    int *mask_of_head = parser->pattern->mask_of_head;

    do {
        size_t at = parser->at;
        int first;
        int last;

        BSATTN_TRY(parse_head(parser, &first));
        last = first;
        if (take(parser, '-')) {
            BSATTN_TRY(parse_head(parser, &last));
        }
        if (last < first) {
            return fail_at(parser, at, "a range of heads that ends before it begins");
        }
        for (int head = first; head <= last; ++head) {
            if (mask_of_head[head] != HEAD_UNSET) {
                return fail_at(parser, at, "a head given twice");
            }
            mask_of_head[head] = mask;
        }
    } while (take(parser, ','));
    return take(parser, '@') ? BSATTN_OK : fail_at(parser, parser->at, "'@' is expected");
}

static bsattn_status_t parse_per_head(parser_t *parser)
{
    bsattn_pattern_t *pattern = parser->pattern;

    do {
        BSATTN_TRY(parse_heads(parser, pattern->mask_count));
        BSATTN_TRY(parse_mask(parser));
    } while (take(parser, ';'));
    for (int head = 0; head < pattern->problem.heads_q; ++head) {
        if (pattern->mask_of_head[head] == HEAD_UNSET) {
            return bsattn_fail(BSATTN_ERR_INPUT,
                               "pattern '%s': head %d has no pattern; heads 0 to %d must have one",
                               quote_at(parser, parser->at).text, head,
                               pattern->problem.heads_q - 1);
        }
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_pattern_parse(bsattn_pattern_t *pattern, const char *text)
{
    parser_t parser = {.pattern = pattern, .text = text};
    int heads = pattern->problem.heads_q;

    pattern->mask_of_head = malloc((size_t)heads * sizeof(*pattern->mask_of_head));
    if (pattern->mask_of_head == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to parse a pattern");
    }
    skip_space(&parser);
    if (isdigit((unsigned char)text[parser.at])) {
        for (int head = 0; head < heads; ++head) {
            pattern->mask_of_head[head] = HEAD_UNSET;
        }
        BSATTN_TRY(parse_per_head(&parser));
    } else {
        memset(pattern->mask_of_head, 0, (size_t)heads * sizeof(*pattern->mask_of_head));
        BSATTN_TRY(parse_mask(&parser));
    }
    skip_space(&parser);
    if (text[parser.at] != '\0') {
        return fail_at(&parser, parser.at, "'+', '|', ';' or the end is expected");
    }
    return BSATTN_OK;
}
