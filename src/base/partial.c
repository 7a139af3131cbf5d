/* SPDX-License-Identifier: Apache-2.0 */
#include "base/partial.h"

#include "base/text.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { FILES_MAX = 8, PATH_SIZE = 4096, LEAVE_MS = 300 };

/* A signal handler reads this: a path is complete before its flag is set. */
static struct {
    volatile sig_atomic_t watched;
    char path[PATH_SIZE];
} files[FILES_MAX];

/* Another process has such files. */
static volatile sig_atomic_t others;

void bsattn_partial_remove_all(void)
{
    for (int i = 0; i < FILES_MAX; ++i) {
        if (files[i].watched) {
            files[i].watched = 0;
            (void)unlink(files[i].path);
        }
    }
}

static void on_signal(int number)
{
    bsattn_partial_remove_all();
    if (others) {
        (void)poll(NULL, 0, LEAVE_MS);
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* Signals that somebody else already cares for are left to them. */
static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); ++i) {
        struct sigaction action;
        if ((sigaction(numbers[i], NULL, &action) == 0) && (action.sa_handler == SIG_DFL)) {
            action = (struct sigaction){.sa_handler = on_signal};
            (void)sigaction(numbers[i], &action, NULL);
        }
    }
}

void bsattn_partial_of_others(void)
{
    catch_signals();
    others = 1;
}

void bsattn_partial_add(const char *path)
{
    catch_signals();
    for (int i = 0; i < FILES_MAX; ++i) {
        if (!files[i].watched) {
            files[i].watched = bsattn_text_copy(files[i].path, sizeof(files[i].path), path);
            return;
        }
    }
}

void bsattn_partial_forget(const char *path)
{
    for (int i = 0; i < FILES_MAX; ++i) {
        if (files[i].watched && (strcmp(files[i].path, path) == 0)) {
            files[i].watched = 0;
        }
    }
}
