/* In the place of src/cli/build.c: the program as another build of it, or one for another
 * machine, would be. */
#include <stdlib.h>

/* what this build is where the environment says nothing else */
#define sbni_build_version real_version
#define sbni_build_words real_words
#include "cli/build.c"
#undef sbni_build_version
#undef sbni_build_words

const char *sbni_build_version(void);
const char *sbni_build_words(void);

const char *sbni_build_version(void)
{
    const char *text = getenv("SBN_TEST_VERSION");
    return text ? text : real_version();
}

const char *sbni_build_words(void)
{
    const char *text = getenv("SBN_TEST_WORDS");
    return text ? text : real_words();
}
