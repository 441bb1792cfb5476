/* In the place of CMocka, which no package has for the other processor: what the tests of
 * kernels use of it. The first failure ends the program. */
#ifndef NEON_CMOCKA_H
#define NEON_CMOCKA_H

#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(f)                                                              \
    {                                                                                    \
#f, f                                                                            \
    }

_Noreturn void _fail(const char *file, int line);

#define fail() _fail(__FILE__, __LINE__)
#define assert_true(c) ((c) ? (void)0 : fail())
#define assert_null(p) assert_true((p) == NULL)
#define assert_non_null(p) assert_true((p) != NULL)
#define assert_ptr_equal(a, b) assert_true((a) == (b))
#define assert_int_equal(a, b) assert_true((a) == (b))
#define assert_in_range(v, least, most) assert_true((v) >= (least) && (v) <= (most))
#define assert_string_equal(a, b) assert_true(strcmp((a), (b)) == 0)
#define assert_memory_equal(a, b, bytes) assert_true(memcmp((a), (b), (bytes)) == 0)

#endif
