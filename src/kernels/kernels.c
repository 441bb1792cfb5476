#include "kernels/kernels.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

extern const sbni_kernels sbni_kernels_base_f32, sbni_kernels_base_f64;
#if SBNI_HAVE_X86
extern const sbni_kernels sbni_kernels_avx2_f32, sbni_kernels_avx2_f64;
extern const sbni_kernels sbni_kernels_avx512_f32, sbni_kernels_avx512_f64;
#endif

static bool runs_base(void)
{
    return true;
}

#if SBNI_HAVE_X86
static bool runs_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

/* Best first. */
static const struct {
    const char *isa;
    bool (*runs)(void);
    const sbni_kernels *f32, *f64;
} builds[] = {
#if SBNI_HAVE_X86
    {"avx512", runs_avx512, &sbni_kernels_avx512_f32, &sbni_kernels_avx512_f64},
    {"avx2", runs_avx2, &sbni_kernels_avx2_f32, &sbni_kernels_avx2_f64},
#endif
    {"base", runs_base, &sbni_kernels_base_f32, &sbni_kernels_base_f64},
};
enum { BUILDS = sizeof builds / sizeof *builds };

const char *const *sbni_kernels_isas(void)
{
    static const char *names[BUILDS + 1];
    int n = 0;
    for (int i = 0; i < BUILDS; i++)
        if (builds[i].runs()) names[n++] = builds[i].isa;
    return names;
}

const sbni_kernels *sbni_kernels_of(const char *isa, sbn_dtype dtype)
{
    for (int i = 0; i < BUILDS; i++)
        if (!strcmp(builds[i].isa, isa) && builds[i].runs())
            return dtype == SBN_F64 ? builds[i].f64 : builds[i].f32;
    return NULL;
}

const sbni_kernels *sbni_kernels_get(sbn_dtype dtype)
{
    const char *forced = getenv("SBN_ISA");
    const sbni_kernels *table = forced ? sbni_kernels_of(forced, dtype) : NULL;
    return table ? table : sbni_kernels_of(sbni_kernels_isas()[0], dtype);
}
