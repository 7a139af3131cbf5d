/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/random_problem.h"

#include "base/bits.h"
#include "base/status.h"
#include "base/text.h"

#include <inttypes.h>
#include <string.h>

enum { SEQ_MAX = 700, TERM_KINDS = 11 };

#define COUNT_OF(_array) (sizeof(_array) / sizeof((_array)[0]))

/* SplitMix64 (Steele, Lea, Flood 2014). */
typedef struct lot {
    uint64_t state;
} lot_t;

static uint64_t draw(lot_t *lot)
{
    lot->state += BSATTN_MIX_STEP;
    return bsattn_mix(lot->state);
}

/* 0 .. count - 1; the bias of the remainder does not matter here. */
static int below(lot_t *lot, int count)
{
    return (int)(draw(lot) % (uint64_t)count);
}

static int between(lot_t *lot, int first, int last)
{
    return first + below(lot, last - first + 1);
}

static bool one_in(lot_t *lot, int count)
{
    return below(lot, count) == 0;
}

/* The ends of a block are where mistakes live. */
static int64_t draw_seq_len(lot_t *lot, int block)
{
    switch (below(lot, 8)) {
    case 0:
        return 1;
    case 1:
        return block - 1;
    case 2:
        return block;
    case 3:
        return block + 1;
    default:
        return between(lot, 1, SEQ_MAX);
    }
}

static void draw_shapes(lot_t *lot, bsattn_problem_t *problem)
{
    static const int blocks[] = {16, 16, 32, 64, 128, 256};
    static const int head_dims[] = {16, 24, 32, 40, 64, 64, 72, 96, 128, 128, 200, 256};

    bsattn_problem_init(problem);
    problem->block = blocks[below(lot, COUNT_OF(blocks))];
    problem->head_dim = head_dims[below(lot, COUNT_OF(head_dims))];
    problem->seq_len = draw_seq_len(lot, problem->block);
    problem->batch = between(lot, 1, 2);
    problem->heads_kv = between(lot, 1, 3);
    problem->heads_q = problem->heads_kv * between(lot, 1, 3);
    problem->dtype = (bsattn_dtype_t)below(lot, 3);
    problem->causal = below(lot, 2);
}

static void add_levels(lot_t *lot, bsattn_strbuf_t *buf, int block)
{
    int levels = between(lot, 1, 3);

    bsattn_strbuf_add(buf, "hierarchical(levels=");
    for (int i = 0; i < levels; ++i) {
        bsattn_strbuf_add(buf, "%s%d:", (i > 0) ? "/" : "", between(lot, 1, 6));
        if (one_in(lot, 3)) {
            bsattn_strbuf_add(buf, "all");
        } else {
            bsattn_strbuf_add(buf, "%d", between(lot, 1, 12) * block);
        }
    }
    bsattn_strbuf_add(buf, one_in(lot, 2) ? ",orient=rows)" : ")");
}

static void add_rates(lot_t *lot, bsattn_strbuf_t *buf)
{
    int rates = between(lot, 1, 4);

    bsattn_strbuf_add(buf, "dilated(rates=");
    for (int i = 0; i < rates; ++i) {
        bsattn_strbuf_add(buf, "%s%d", (i > 0) ? ":" : "", between(lot, 1, 9));
    }
    bsattn_strbuf_add(buf, ")");
}

static void add_term(lot_t *lot, bsattn_strbuf_t *buf, int block)
{
    switch (below(lot, TERM_KINDS)) {
    case 0:
        bsattn_strbuf_add(buf, "dense");
        break;
    case 1:
        bsattn_strbuf_add(buf, "local(window=%d)", between(lot, 1, 12) * block / 2);
        break;
    case 2:
        add_rates(lot, buf);
        break;
    case 3:
        bsattn_strbuf_add(buf, "strided(stride=%d)", between(lot, 1, 7));
        break;
    case 4:
        bsattn_strbuf_add(buf, "global(tokens=%d)", between(lot, 1, 3 * block));
        break;
    case 5:
        bsattn_strbuf_add(buf, "sink(tokens=%d)", between(lot, 1, 3 * block));
        break;
    case 6:
        add_levels(lot, buf, block);
        break;
    case 7:
        bsattn_strbuf_add(buf, "random(blocks=%d,seed=%d)", between(lot, 1, 4), below(lot, 1000));
        break;
    case 8:
        bsattn_strbuf_add(buf, "local(density=0.%02d)", between(lot, 1, 99));
        break;
    case 9:
        bsattn_strbuf_add(buf, "strided(density=0.%02d)", between(lot, 1, 99));
        break;
    default:
        bsattn_strbuf_add(buf, "random(density=0.%02d,seed=%d)", between(lot, 1, 99),
                          below(lot, 1000));
    }
}

static void add_branches(lot_t *lot, bsattn_strbuf_t *buf, int block)
{
    int branches = one_in(lot, 4) ? between(lot, 2, 3) : 1;

    for (int branch = 0; branch < branches; ++branch) {
        int terms = one_in(lot, 2) ? between(lot, 2, 3) : 1;
        bsattn_strbuf_add(buf, "%s", (branch > 0) ? "|" : "");
        for (int term = 0; term < terms; ++term) {
            bsattn_strbuf_add(buf, "%s", (term > 0) ? "+" : "");
            add_term(lot, buf, block);
        }
    }
}

static void draw_pattern(lot_t *lot, const bsattn_problem_t *problem, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    if ((problem->heads_q > 1) && one_in(lot, 5)) {
        int split = between(lot, 1, problem->heads_q - 1);
        bsattn_strbuf_add(&buf, "0-%d@", split - 1);
        add_branches(lot, &buf, problem->block);
        bsattn_strbuf_add(&buf, ";%d-%d@", split, problem->heads_q - 1);
    }
    add_branches(lot, &buf, problem->block);
    BSATTN_ASSERT(!buf.cut);
}

static void draw_layout(lot_t *lot, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    switch (below(lot, 4)) {
    case 0:
        bsattn_strbuf_add(&buf, "contiguous");
        break;
    case 1:
        bsattn_strbuf_add(&buf, "zigzag");
        break;
    case 2:
        bsattn_strbuf_add(&buf, "cyclic");
        break;
    default:
        bsattn_strbuf_add(&buf, "cyclic:%d", between(lot, 2, 4));
    }
}

static const char *draw_exchange(lot_t *lot)
{
    static const char *const exchanges[] = {"auto", "ring", "direct"};

    return exchanges[below(lot, (int)COUNT_OF(exchanges))];
}

void bsattn_random_problem_draw(uint64_t seed, int64_t index, bsattn_random_problem_t *drawn_p)
{
    lot_t lot = {seed};

    /* Mixed before the index is added, so that neighbouring seeds do not share problems. */
    lot.state = draw(&lot) + (uint64_t)index * UINT64_C(0xD1B54A32D192ED03);
    draw_shapes(&lot, &drawn_p->problem);
    draw_pattern(&lot, &drawn_p->problem, drawn_p->pattern, sizeof(drawn_p->pattern));
    draw_layout(&lot, drawn_p->layout, sizeof(drawn_p->layout));
    drawn_p->ranks = between(&lot, 1, 8);
    drawn_p->seed = draw(&lot) >> 1; /* --seed takes 63 bits */
    drawn_p->exchange = draw_exchange(&lot);
}

const char *bsattn_random_problem_command(const bsattn_random_problem_t *drawn,
                                          const bsattn_context_info_t *info, char *out, size_t size)
{
    const bsattn_problem_t *problem = &drawn->problem;
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    if (strcmp(info->transport, "loop") == 0) {
        bsattn_strbuf_add(&buf, "bsattn_ring run --ranks %d", info->ranks);
    } else {
        bsattn_strbuf_add(&buf, "mpirun -np %d bsattn_ring run", info->ranks);
    }
    bsattn_strbuf_add(&buf, " --transport %s --backend %s --threads %d", info->transport,
                      info->backend, info->threads);
    bsattn_strbuf_add(
        &buf, " --seq %" PRId64 " --batch %" PRId64 " --heads %d --kv-heads %d --head-dim %d",
        problem->seq_len, problem->batch, problem->heads_q, problem->heads_kv, problem->head_dim);
    bsattn_strbuf_add(&buf, " --dtype %s --block %d%s --layout %s --pattern '%s' --seed %" PRIu64,
                      bsattn_dtype_name(problem->dtype), problem->block,
                      (problem->causal != 0) ? " --causal" : "", drawn->layout, drawn->pattern,
                      drawn->seed);
    bsattn_strbuf_add(&buf, " --exchange %s --check=all -n 1 -w 0", drawn->exchange);
    return out;
}
