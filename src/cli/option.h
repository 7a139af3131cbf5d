/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file option.h
 * What an option is: its name, kind, group, verbs and default, and how its value is read.
 */
#ifndef BSATTN_CLI_OPTION_H
#define BSATTN_CLI_OPTION_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The list of verbs: X(id, letter, name, uses_mpi, help). */
#define BSATTN_VERB_LIST(X)                                                                        \
    X(RUN, R, "run", 1, "one problem: warm-up, timed iterations, check, report")                   \
    X(PLAN, P, "plan", 0, "memory, bytes, balance and modelled time for any number of ranks")      \
    X(VERIFY, V, "verify", 1, "many small random problems against the fp64 reference")             \
    X(MASK, M, "mask", 0, "draw a pattern, as text or SVG")                                        \
    X(INFO, I, "info", 0, "version, build, machine, and what auto would choose")                   \
    X(HELP, H, "help", 0, "this help, or that of a verb; help markdown, help man")

typedef enum bsattn_verb {
#define VERB_ENUM(_id, _letter, _name, _mpi, _help) BSATTN_VERB_##_id,
    BSATTN_VERB_LIST(VERB_ENUM)
#undef VERB_ENUM
        BSATTN_VERB_COUNT
} bsattn_verb_t;

/** The list of groups, which are the sections of a config file: X(id, name). */
#define BSATTN_GROUP_LIST(X)                                                                       \
    X(PROBLEM, "problem")                                                                          \
    X(DATA, "data")                                                                                \
    X(RING, "ring")                                                                                \
    X(MEASURE, "measure")                                                                          \
    X(REPORT, "report")

typedef enum bsattn_group {
#define GROUP_ENUM(_id, _name) BSATTN_GROUP_##_id,
    BSATTN_GROUP_LIST(GROUP_ENUM)
#undef GROUP_ENUM
        BSATTN_GROUP_COUNT
} bsattn_group_t;

typedef enum bsattn_option {
#define OPTION(_id, ...) BSATTN_OPTION_##_id,
#include "cli/options.def"
#undef OPTION
    BSATTN_OPTION_COUNT
} bsattn_option_t;

typedef enum bsattn_option_kind {
    BSATTN_KIND_SIZE,   /**< a whole number with K, M, G or T */
    BSATTN_KIND_COUNT,  /**< a whole number; K, M, G, T accepted too */
    BSATTN_KIND_REAL,   /**< a finite number, not negative */
    BSATTN_KIND_CHOICE, /**< one of the accepted words */
    BSATTN_KIND_TEXT,   /**< anything but nothing */
    BSATTN_KIND_FILE,   /**< the same */
    BSATTN_KIND_PRESET, /**< the name of a preset */
    BSATTN_KIND_FLAG,   /**< on or off; on the command line alone: on */
    BSATTN_KIND_CHECK,  /**< on, off, all or a number of rows; on the command line alone: on */
} bsattn_option_kind_t;

/** One line of options.def. */
typedef struct bsattn_option_spec {
    const char *name;
    char letter; /**< short option, or 0 */
    bsattn_group_t group;
    bsattn_option_kind_t kind;
    unsigned verbs;       /**< bit 1 << verb for each verb that takes it */
    const char *fallback; /**< default; "" for a file: none */
    int64_t min;
    int64_t max;
    const char *accepted;
    const char *help;
} bsattn_option_spec_t;

/**
 * A value read from text. The integer is
 *
 *     of SIZE, COUNT   the number, 0 for "auto"
 *     of CHOICE        the number if the word is one, else 0
 *     of FLAG          0 or 1
 *     of CHECK         rows; 0 for all, -1 for off
 */
typedef struct bsattn_option_reading {
    int64_t integer;
    double number; /**< REAL: the number, NaN for "auto" */
} bsattn_option_reading_t;

/** @return the line of an option; never NULL */
const bsattn_option_spec_t *bsattn_option_spec(bsattn_option_t option);

/** @return true and the option with exactly this name, or false */
bool bsattn_option_find(const char *name, bsattn_option_t *option_p);

/** @return the option's name nearest to a misspelt one, or NULL */
const char *bsattn_option_nearest(const char *name);

/** @return whether the option may be given without a value on the command line */
bool bsattn_option_is_flag(bsattn_option_t option);

/** @return whether a config file or the environment may set it: all but help, version and, in
 *          files, config */
bool bsattn_option_in_file(bsattn_option_t option);
bool bsattn_option_in_environment(bsattn_option_t option);

/** Write the name of its environment variable, BSATTN_<NAME>. @return out */
const char *bsattn_option_variable(bsattn_option_t option, char *out, size_t size);

/** Read a value.
 *  @param where  where the text came from, for the message, e.g. "--seq" or "x.conf:12"
 *  @return BSATTN_OK or BSATTN_ERR_INPUT naming the option, the value, where it came from and what
 *          is accepted */
bsattn_status_t bsattn_option_read(bsattn_option_t option, const char *text, const char *where,
                                   bsattn_option_reading_t *reading_p);

/** Write what an option accepts as a sentence, e.g. "a whole number from 1 to 4096". @return out */
const char *bsattn_option_accepted(bsattn_option_t option, char *out, size_t size);

const char *bsattn_group_name(bsattn_group_t group);

/** @return true and the group with exactly this name, or false */
bool bsattn_group_find(const char *name, bsattn_group_t *group_p);

const char *bsattn_verb_name(bsattn_verb_t verb);
const char *bsattn_verb_help_line(bsattn_verb_t verb);

/** @return whether the verb runs on the ranks of an MPI job */
bool bsattn_verb_uses_mpi(bsattn_verb_t verb);

/** Find a verb. @return BSATTN_OK or BSATTN_ERR_INPUT naming the nearest, or the verbs there are */
bsattn_status_t bsattn_verb_find(const char *name, bsattn_verb_t *verb_p);

/** Write the names of the verbs in a set of bits, e.g. "run, plan". @return out */
const char *bsattn_verb_list(unsigned verbs, char *out, size_t size);

#endif
