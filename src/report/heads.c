/* SPDX-License-Identifier: Apache-2.0 */
#include "report/heads.h"

#include "base/text.h"

/* The last of the run of heads of one class that begins at head. */
static int run_end(const bsattn_pattern_t *pattern, int head)
{
    int last = head;

    while ((last + 1 < pattern->problem.heads_q) &&
           (pattern->class_of_head[last + 1] == pattern->class_of_head[head])) {
        ++last;
    }
    return last;
}

static int count_heads(const bsattn_pattern_t *pattern, int class_index)
{
    int count = 0;

    for (int head = 0; head < pattern->problem.heads_q; ++head) {
        count += (pattern->class_of_head[head] == class_index) ? 1 : 0;
    }
    return count;
}

const char *bsattn_heads_text(const bsattn_pattern_t *pattern, int class_index, char *out,
                              size_t size)
{
    int count = count_heads(pattern, class_index);
    const char *separator = "";
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    if ((pattern->class_count == 1) && (count > 1)) {
        bsattn_strbuf_add(&buf, "all %d heads", count);
        return out;
    }
    bsattn_strbuf_add(&buf, (count == 1) ? "head " : "heads ");
    for (int head = 0; head < pattern->problem.heads_q; ++head) {
        int last = run_end(pattern, head);
        if (pattern->class_of_head[head] == class_index) {
            bsattn_strbuf_add(&buf, "%s%d", separator, head);
            if (last > head) {
                bsattn_strbuf_add(&buf, "-%d", last);
            }
            separator = ",";
        }
        head = last;
    }
    return out;
}
