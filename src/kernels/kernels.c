#include "kernels/kernels.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define DECLARE(isa)                                                                     \
    extern const sbni_kernels sbni_kernels_##isa##_f32, sbni_kernels_##isa##_f64;        \
    extern const sbni_norm_kernels sbni_norm_kernels_##isa##_f32,                        \
        sbni_norm_kernels_##isa##_f64, sbni_norm_kernels_##isa##_bf16;                   \
    extern const sbni_words_kernels sbni_words_kernels_##isa##_f32,                      \
        sbni_words_kernels_##isa##_f64;
DECLARE(base)
#if SBNI_HAVE_AVX2
DECLARE(avx2)
#endif
#if SBNI_HAVE_AVX512
DECLARE(avx512)
#endif

static bool runs_base(void)
{
    return true;
}

#if SBNI_HAVE_AVX2
static bool runs_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

#if SBNI_HAVE_AVX512
static bool runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

#define BUILD(name)                                                                      \
    {                                                                                    \
        .isa = #name, .runs = runs_##name,                                               \
        .nets = {&sbni_kernels_##name##_f32, &sbni_kernels_##name##_f64},                \
        .norm = {&sbni_norm_kernels_##name##_f32, &sbni_norm_kernels_##name##_f64,       \
                 &sbni_norm_kernels_##name##_bf16},                                      \
        .words = {&sbni_words_kernels_##name##_f32, &sbni_words_kernels_##name##_f64,    \
                  &sbni_words_kernels_##name##_f32},                                     \
    }

/* Widest first; tables by sbn_dtype. */
static const struct {
    const char *isa;
    bool (*runs)(void);
    const sbni_kernels *nets[2];
    const sbni_norm_kernels *norm[3];
    const sbni_words_kernels *words[3];
} builds[] = {
#if SBNI_HAVE_AVX512
    BUILD(avx512),
#endif
#if SBNI_HAVE_AVX2
    BUILD(avx2),
#endif
    BUILD(base),
};
enum { BUILDS = sizeof builds / sizeof *builds };

/* Which of them is the i-th best. Zen 4 takes 512 bits through units of 256, so that
 * wider vectors gain little and lose where they are not full. Words gain: their steps are
 * long, and fewer of them are under way at once. */
static int best(int i)
{
#if SBNI_HAVE_AVX512
    if (i < 2 && __builtin_cpu_is("amdfam19h")) return 1 - i;
#endif
    return i;
}

const char *const *sbni_kernels_isas(void)
{
    static const char *names[BUILDS + 1];
    int n = 0;
    for (int i = 0; i < BUILDS; i++)
        if (builds[best(i)].runs()) names[n++] = builds[best(i)].isa;
    return names;
}

/* Place in the list; -1 where this machine can't run it. */
static int find(const char *isa)
{
    for (int i = 0; i < BUILDS; i++)
        if (!strcmp(builds[i].isa, isa) && builds[i].runs()) return i;
    return -1;
}

const sbni_kernels *sbni_kernels_of(const char *isa, sbn_dtype dtype)
{
    int i = find(isa);
    return i < 0 || dtype > SBN_F64 ? NULL : builds[i].nets[dtype];
}

const sbni_norm_kernels *sbni_norm_kernels_of(const char *isa, sbn_dtype dtype)
{
    int i = find(isa);
    return i < 0 ? NULL : builds[i].norm[dtype];
}

const sbni_words_kernels *sbni_words_kernels_of(const char *isa, sbn_dtype dtype)
{
    int i = find(isa);
    return i < 0 ? NULL : builds[i].words[dtype];
}

static const char *isa_forced(void)
{
    const char *forced = getenv("SBN_ISA");
    return forced && find(forced) >= 0 ? forced : NULL;
}

static const char *isa_wanted(void)
{
    const char *forced = isa_forced();
    return forced ? forced : sbni_kernels_isas()[0];
}

static const char *widest(void)
{
    int i = 0;
    while (!builds[i].runs()) i++;
    return builds[i].isa;
}

const sbni_kernels *sbni_kernels_get(sbn_dtype dtype)
{
    return sbni_kernels_of(isa_wanted(), dtype);
}

const sbni_norm_kernels *sbni_norm_kernels_get(sbn_dtype dtype)
{
    return sbni_norm_kernels_of(isa_wanted(), dtype);
}

const sbni_words_kernels *sbni_words_kernels_get(sbn_dtype dtype)
{
    const char *forced = isa_forced();
    return sbni_words_kernels_of(forced ? forced : widest(), dtype);
}
