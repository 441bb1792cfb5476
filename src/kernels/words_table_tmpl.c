#include "kernels/tmpl.h"

#define SBNI_FIELD(name) .name = K(words_##name),

extern const sbni_words_kernels K(words_kernels);
const sbni_words_kernels K(words_kernels) = {SBNI_WORDS_KERNEL_LIST(SBNI_FIELD)};
