#include "train/lock.h"
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"

/* Some file systems cannot lock; this stands in for the call by the linker's --wrap. */
static bool lockless;

int __real_fcntl64(int fd, int command, void *argument);
int __wrap_fcntl64(int fd, int command, void *argument);
int __wrap_fcntl64(int fd, int command, void *argument)
{
    if (!lockless) return __real_fcntl64(fd, command, argument);
    errno = ENOLCK;
    return -1;
}

static char path[1024];

static void write_lock(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0 && fclose(f) == 0);
}

static void read_lock(char *text, size_t bytes)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, bytes - 1, f)] = 0;
    fclose(f);
}

/* The folder can be had, and is given back. */
static void is_free(const char *text)
{
    sbni_lock *lock;
    if (text) write_lock(text);
    OK(sbni_lock_take(test_folder(), &lock));
    char held[1024], mine[64];
    read_lock(held, sizeof held);
    snprintf(mine, sizeof mine, "\"pid\":%ld,", (long)getpid());
    assert_non_null(strstr(held, mine));
    sbni_lock_release(&lock);
    assert_null(lock);
    assert_int_equal(access(path, F_OK), -1);
}

static void is_held(const char *by)
{
    sbni_lock *lock;
    FAILS(SBN_E_IO, sbni_lock_take(test_folder(), &lock));
    assert_null(lock);
    if (!strstr(sbn_last_error(), by))
        fail_msg("expected %s, got %s", by, sbn_last_error());
    assert_int_equal(access(path, F_OK), 0);
}

static void one_at_a_time(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s/run.lock", test_folder());
    sbni_lock *lock;
    char by[64];
    is_free(NULL);
    OK(sbni_lock_take(test_folder(), &lock));
    snprintf(by, sizeof by, "process %ld on host ", (long)getpid());
    is_held(by);
    write_lock(""); /* the lock counts, not the text */
    is_held(" is in use by another run, since 2");
    sbni_lock_release(&lock);
    is_free(NULL);
    sbni_lock_release(&lock);
    sbni_lock_release(NULL);
    FAILS(SBN_E_IO, sbni_lock_take("/nowhere/at/all", &lock));
}

static void *let_go(void *lock)
{
    const struct timespec nap = {.tv_sec = 2, .tv_nsec = 300000000};
    nanosleep(&nap, NULL); /* longer than anybody waits unasked */
    sbni_lock_release(lock);
    return NULL;
}

static void waits_as_told(void **state)
{
    (void)state;
    sbni_lock *lock, *next;
    pthread_t thread;
    OK(sbni_lock_take(test_folder(), &lock));
    setenv("SBN_LOCK_WAIT", "0", 1);
    double began_s = sbni_clock_s();
    is_held(" is in use by another run");
    assert_true(sbni_clock_s() - began_s < 1);
    setenv("SBN_LOCK_WAIT", "60", 1);
    assert_int_equal(pthread_create(&thread, NULL, let_go, &lock), 0);
    OK(sbni_lock_take(test_folder(), &next));
    assert_int_equal(pthread_join(thread, NULL), 0);
    sbni_lock_release(&next);
    unsetenv("SBN_LOCK_WAIT");
}

/* Where the system keeps locks, nobody holds what it does not say is held. */
static void text_alone_holds_nothing(void **state)
{
    (void)state;
    is_free("");
    is_free("{");
    is_free(
        "{\"host\":\"elsewhere\",\"boot\":\"b\",\"pid\":1,\"start\":1,\"job\":\"7\"}");
}

/* The text that this process writes, with other values of some keys. */
static void other_text(char *text, size_t bytes, const char *key, const char *value)
{
    sbni_lock *lock;
    char mine[1024];
    unlink(path);
    OK(sbni_lock_take(test_folder(), &lock));
    read_lock(mine, sizeof mine);
    sbni_lock_release(&lock);
    const char *at = strstr(mine, key);
    assert_non_null(at);
    at += strlen(key);
    const char *end = at + strcspn(at, ",}");
    snprintf(text, bytes, "%.*s%s%s", (int)(at - mine), mine, value, end);
}

static void without_locks_the_text_decides(void **state)
{
    (void)state;
    char text[2048];
    lockless = true;
    is_free(NULL);
    is_free("");
    is_free("[1]");
    other_text(text, sizeof text, "\"pid\":", "4194305"); /* above any number */
    is_free(text);
    other_text(text, sizeof text, "\"start\":", "12345678901234");
    is_free(text);
    other_text(text, sizeof text, "\"boot\":", "\"an earlier one\"");
    is_free(text);

    other_text(text, sizeof text, "\"host\":", "\"elsewhere\"");
    write_lock(text);
    is_held(" on host elsewhere");
    other_text(text, sizeof text, "\"job\":", "\"77\"");
    write_lock(text);
    is_held(", job 77, since 2");
    unlink(path);
    lockless = false;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(one_at_a_time),
    cmocka_unit_test(waits_as_told),
    cmocka_unit_test(text_alone_holds_nothing),
    cmocka_unit_test(without_locks_the_text_decides),
};
TEST_MAIN(tests)
