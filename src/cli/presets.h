/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file presets.h
 * The config files of configs/, embedded when the program is built, so that --preset works from any
 * directory.
 *
 * They come from "presets.inc", made by presets.cmake: one line {"name", "text"}, for each file,
 * the text being the whole file as C string literals.
 */
#ifndef BSATTN_CLI_PRESETS_H
#define BSATTN_CLI_PRESETS_H

#include <stddef.h>

/** @return the config text of a preset, or NULL if there is none of this name */
const char *bsattn_preset_text(const char *name);

/** @return the preset's name nearest to a misspelt one, or NULL */
const char *bsattn_preset_nearest(const char *name);

/** @return the number of presets */
size_t bsattn_preset_count(void);

/** @return the name of preset index, 0 <= index < count, in alphabetical order */
const char *bsattn_preset_name(size_t index);

/** Write all names, e.g. "dense, dilated, .."; cut to what fits. @return out */
const char *bsattn_preset_list(char *out, size_t size);

#endif
