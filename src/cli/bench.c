#include "cli/bench.h"

#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "comm/alike.h"
#include "options/options.h"

static const struct {
    const char *name, *about;
    sbn_status (*run)(int argc, char **argv, sbn_group *group);
} subjects[] = {
    {"norm", "passes of the layer in one process, against memcpy", sbni_bench_norm},
    {"sync", "what synchronizing the layer costs, against a bare MPI_Allreduce",
     sbni_bench_sync},
    {"train", "training steps, against the machine's matrix products", sbni_bench_train},
};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

static void print_help(void)
{
    printf("Usage: syncbn bench SUBJECT [options]\n"
           "Measure speed, in ratios to what the machine gives in the same run.\n\n"
           "Subjects:\n");
    for (int i = 0; i < SUBJECTS; i++)
        printf("  %-10s%s\n", subjects[i].name, subjects[i].about);
    printf("\n  syncbn bench SUBJECT --help lists a subject's options.\n");
}

/* Index of the subject; SUBJECTS where help is wanted. */
static sbn_status find(int argc, char **argv, int *which)
{
    *which = SUBJECTS;
    SBN_CHECK(argc > 1, SBN_E_ARG,
              "expected what to measure; syncbn bench --help lists it");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) return SBN_OK;
    for (*which = 0; *which < SUBJECTS; ++*which)
        if (!strcmp(argv[1], subjects[*which].name)) return SBN_OK;
    return sbni_fail(SBN_E_ARG,
                     "cannot measure \"%s\"; syncbn bench --help lists what can be",
                     argv[1]);
}

sbn_status sbni_command_bench(int argc, char **argv, sbn_group *group)
{
    int which;
    SBN_TRY(sbn_group_agree(group, find(argc, argv, &which)));
    SBN_TRY(sbni_compare_text(group, "what to measure", argv[1]));
    if (which < SUBJECTS) return subjects[which].run(argc - 1, argv + 1, group);
    if (sbn_group_rank(group) == 0) print_help();
    return SBN_OK;
}
