#include "kernels/tmpl.h"

#define SBNI_TEXT_(x) #x
#define SBNI_TEXT(x) SBNI_TEXT_(x)
#define SBNI_FIELD(name) .name = K(name),

extern const sbni_kernels K(kernels);
const sbni_kernels K(kernels) = {.isa = SBNI_TEXT(SBNI_ISA),
#ifdef SBNI_FUSES
                                 SBNI_FUSING_KERNEL_LIST(SBNI_FIELD)
#endif
                                     SBNI_KERNEL_LIST(SBNI_FIELD)};
