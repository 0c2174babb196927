"""A wall clock that a test can set for one process, as an administrator or a time server does for a machine.

A small C library that is loaded before the others answers for the wall clock with an offset that the test writes to a
file, to Python and to librdkafka alike; deadlines on the wall clock, also those waited for while it is set, come sooner
or later by as much, as they do in the kernel. The monotonic clock is left alone, as the kernel leaves it. Where no C
compiler is, or none that makes such a library, `build` says why.
"""

from __future__ import annotations

import mmap
import platform
import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Nanoseconds the wall clock is ahead, in a file that the test shares; counts of what was asked follow it. */
static volatile int64_t none[2];
static volatile int64_t *ahead = none;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("TEST_CLOCK");
    int file = name ? open(name, O_RDWR) : -1;
    if (file < 0) return;
    void *shared = mmap(0, 16, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED) ahead = shared;
}

static int64_t real_ns(void) {
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t wall_ns(void) {
    __sync_fetch_and_add(&ahead[1], 1);
    return real_ns() + ahead[0];
}

static struct timespec as_spec(int64_t ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    return t;
}

int clock_gettime(clockid_t which, struct timespec *t) {
    if (which != CLOCK_REALTIME && which != CLOCK_REALTIME_COARSE) return syscall(SYS_clock_gettime, which, t);
    *t = as_spec(wall_ns());
    return 0;
}

int gettimeofday(struct timeval *t, void *zone) {
    int64_t ns = wall_ns();
    t->tv_sec = ns / 1000000000;
    t->tv_usec = ns % 1000000000 / 1000;
    return 0;
}

time_t time(time_t *t) {
    time_t now = wall_ns() / 1000000000;
    if (t) *t = now;
    return now;
}

int timespec_get(struct timespec *t, int base) {
    *t = as_spec(wall_ns());
    return base;
}

static void *real(const char *name) {
    /* Not the first ABI of condition variables, which dlsym may give. */
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    if (!found) found = dlvsym(RTLD_NEXT, name, "GLIBC_2.17");
    return found ? found : dlsym(RTLD_NEXT, name);
}

/* Wait in short steps of the true clock, until the clock as it is set passes the deadline. */
#define IN_STEPS(wait_once, timed_out)                                        \
    int64_t deadline = (int64_t)until->tv_sec * 1000000000 + until->tv_nsec;  \
    for (;;) {                                                                \
        int64_t left = deadline - wall_ns();                                  \
        struct timespec step = as_spec(real_ns() + (left < 0 ? 0 : left > 20000000 ? 20000000 : left)); \
        int outcome = wait_once;                                              \
        if (!(timed_out) || left <= 0) return outcome;                        \
    }

/* Deadlines of less than thirty years are on the monotonic clock. */
int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!wait) wait = real("pthread_cond_timedwait");
    if (until->tv_sec < 1000000000) return wait(c, m, until);
    IN_STEPS(wait(c, m, &step), outcome == ETIMEDOUT)
}

int sem_timedwait(sem_t *s, const struct timespec *until) {
    static int (*wait)(sem_t *, const struct timespec *);
    if (!wait) wait = dlsym(RTLD_NEXT, "sem_timedwait");
    IN_STEPS(wait(s, &step), outcome == -1 && errno == ETIMEDOUT)
}
"""


class Clock:
    """The wall clock of the processes that are started with `environment`."""

    def __init__(self, library: Path, file: Path) -> None:
        file.write_bytes(bytes(16))
        self.environment = {"LD_PRELOAD": str(library), "TEST_CLOCK": str(file)}
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), 16)

    def set_ahead(self, seconds: float) -> None:
        """Make the wall clock so far ahead of the true one; behind it, if less than 0."""
        struct.pack_into("<q", self._shared, 0, int(seconds * 1e9))

    @property
    def asked(self) -> int:
        """How often a process asked what time it is: a clock that nobody looks at shows nothing."""
        return int(struct.unpack_from("<q", self._shared, 8)[0])


def build(folder: Path) -> Path | str:
    """The library, made in ``folder``; or why there is none."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if platform.system() != "Linux" or compiler is None:
        return "a clock that can be set needs Linux and a C compiler"
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE, encoding="utf-8")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl", "-lpthread"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    return library if made.returncode == 0 else f"the clock cannot be compiled: {made.stderr.strip()[:300]}"
