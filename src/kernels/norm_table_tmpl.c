#include "kernels/tmpl.h"

#define SBNI_FIELD(name) .name = K(name),

extern const sbni_norm_kernels K(norm_kernels);
const sbni_norm_kernels K(norm_kernels) = {SBNI_NORM_KERNEL_LIST(SBNI_FIELD)};
