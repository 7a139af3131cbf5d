/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/presets.h"

#include "base/status.h"
#include "base/text.h"

#include <string.h>

typedef struct preset {
    const char *name;
    const char *text;
} preset_t;

static const preset_t presets[] = {
#include "presets.inc"
};

enum { PRESET_COUNT = sizeof(presets) / sizeof(presets[0]) };

const char *bsattn_preset_text(const char *name)
{
    for (size_t i = 0; i < PRESET_COUNT; ++i) {
        if (strcmp(presets[i].name, name) == 0) {
            return presets[i].text;
        }
    }
    return NULL;
}

const char *bsattn_preset_nearest(const char *name)
{
    const char *names[PRESET_COUNT];

    for (size_t i = 0; i < PRESET_COUNT; ++i) {
        names[i] = presets[i].name;
    }
    return bsattn_text_nearest(name, names, PRESET_COUNT);
}

size_t bsattn_preset_count(void)
{
    return PRESET_COUNT;
}

const char *bsattn_preset_name(size_t index)
{
    BSATTN_ASSERT(index < PRESET_COUNT);
    return presets[index].name;
}

const char *bsattn_preset_list(char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    for (size_t i = 0; i < PRESET_COUNT; ++i) {
        bsattn_strbuf_add(&buf, "%s%s", (i > 0) ? ", " : "", presets[i].name);
    }
    return out;
}
