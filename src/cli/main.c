#include <fcntl.h>
#include <mpi.h>
#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/rollcall.h"
#include "cli/signals.h"
#include "cli/stall.h"
#include "cli/startup.h"
#include "comm/alike.h"
#include "comm/group.h"
#include "core/status.h"
#include "kernels/kernels.h"
#include "options/options.h"

static const struct {
    const char *name, *about;
    sbn_status (*run)(int argc, char **argv, sbn_group *group);
    bool saves; /* when it is asked to stop */
} commands[] = {
    {"train", "train a net with synchronized batch norm", sbni_command_train, true},
    {"eval", "evaluate saved weights on a test set", sbni_command_eval, false},
    {"study", "run a designed experiment and report on it", sbni_command_study, true},
    {"bench", "measure the layer's speed, synchronization and training",
     sbni_command_bench, false},
    {"inspect", "summarize a data set, net, checkpoint or metrics file",
     sbni_command_inspect, false},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const char *const printing[] = {"--version", "--help", "-h", "help"};

/* What the shell sees; the meanings are part of the program's contract. */
static int exit_code(sbn_status status)
{
    if (status == SBN_E_PEER) status = sbn_peer_status();
    switch (status) {
    case SBN_OK:
        return 0;
    case SBN_E_ARG:
    case SBN_E_FEW:
        return 64;
    case SBN_E_DATA:
        return 65;
    case SBN_E_IO:
        return 74;
    case SBN_E_STOPPED:
        return SBNI_EXIT_STOPPED;
    case SBN_E_NONFINITE:
    case SBN_E_RANGE:
        return 77;
    case SBN_E_MISMATCH:
        return 78;
    default:
        return 70;
    }
}

static void print_help(void)
{
    printf("Usage: mpirun -np N syncbn COMMAND [options]\n\n"
           "Train small nets with batch normalization whose statistics are those of all\n"
           "processes; results do not depend on how many there are.\n\nCommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-10s%s\n", commands[i].name, commands[i].about);
    printf("\n  syncbn COMMAND --help lists a command's options.\n"
           "\nExit codes: 0 done, 64 bad usage, 65 bad data or checkpoint, 70 internal,\n"
           "74 cannot read or write, 75 stopped on request and saved, 77 not finite,\n"
           "78 processes disagree, 86 no progress: a process stands still\n");
}

/* Threads of this process, unless the user said: its share of the cores it may use. */
static sbn_status choose_threads(sbn_group *group)
{
    int hosts, processes;
    SBN_TRY(sbni_group_hosts(group, &hosts, &processes));
    if (!getenv("OMP_NUM_THREADS")) {
        int threads = omp_get_num_procs() / processes;
        omp_set_num_threads(threads > 1 ? threads : 1);
    }
    return SBN_OK;
}

/* A forced instruction set that is not there, or a way of sums that there is not, would
 * silently measure another. */
static sbn_status check_environment(void)
{
    const char *isa = getenv("SBN_ISA"), *sums = getenv("SBN_SUMS");
    SBN_CHECK(!isa || sbni_kernels_of(isa, SBN_F32), SBN_E_ARG,
              "SBN_ISA: expected base, or avx2 or avx512 where the machine has it, got "
              "\"%s\"",
              isa);
    SBN_CHECK(!sums || !strcmp(sums, "memory") || !strcmp(sums, "mpi"), SBN_E_ARG,
              "SBN_SUMS: expected memory, or mpi, got \"%s\"", sums);
    return SBN_OK;
}

/* Whether it is a command that saves when it is asked to stop. */
static bool saves(int argc, char **argv)
{
    for (int i = 0; i < COMMANDS; i++)
        if (argc > 1 && commands[i].saves && !strcmp(argv[1], commands[i].name))
            return true;
    return false;
}

/* Index of a command; COMMANDS for those that only print. */
static sbn_status find_command(int argc, char **argv, int *which)
{
    *which = COMMANDS;
    SBN_CHECK(argc > 1, SBN_E_ARG, "expected a command; syncbn --help lists them");
    for (size_t i = 0; i < sizeof printing / sizeof *printing; i++)
        if (!strcmp(argv[1], printing[i])) return SBN_OK;
    for (*which = 0; *which < COMMANDS; ++*which)
        if (!strcmp(argv[1], commands[*which].name)) return SBN_OK;
    return sbni_fail(SBN_E_ARG, "unknown command \"%s\"; syncbn --help lists them",
                     argv[1]);
}

static sbn_status dispatch(int argc, char **argv, sbn_group *group)
{
    int which;
    SBN_TRY(sbn_group_agree(group, find_command(argc, argv, &which)));
    SBN_TRY(sbni_compare_text(group, "the command", argv[1]));
    if (which < COMMANDS) {
        SBN_TRY(sbn_group_agree(group, check_environment()));
        SBN_TRY(choose_threads(group));
        return commands[which].run(argc - 1, argv + 1, group);
    }
    if (sbn_group_rank(group) != 0) return SBN_OK;
    if (!strcmp(argv[1], "--version"))
        printf("syncbn %s\n", sbni_build_version());
    else
        print_help();
    return SBN_OK;
}

/* Where a standard stream is closed, the next file opened would take its place, and what
 * is printed would go there. */
static void open_standard_streams(void)
{
    int fd;
    do fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) close(fd);
}

/* Of few processes Open MPI makes a non-blocking sum by a reduction and then a broadcast,
 * twice the way of a blocking one, which costs more than overlap saves. Integers add up
 * alike either way. A choice of the user's stays. */
static void choose_sums(void)
{
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (size && atoi(size) < 4)
        setenv("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "recursive_doubling", 0);
}

/* Process 0 knows the cause, its own or a peer's; the others keep silent. */
static void tell(sbn_status status, bool speaks)
{
    if (status != SBN_OK && speaks) fprintf(stderr, "syncbn: %s\n", sbn_last_error());
}

int main(int argc, char **argv)
{
    int provided;
    double stall_limit_s = sbni_stall_limit(argc, argv);
    if (saves(argc, argv)) sbni_listen_for_stop();
    if (sbni_launched_as().size == 1) sbni_listen_to_save();
    open_standard_streams();
    choose_sums();
    bool speaks = true;
    sbn_status status = sbni_check_launcher(0, &speaks);
    /* A closed pipe is a write error to report, not a reason to die silently. */
    signal(SIGPIPE, SIG_IGN);
    tell(status, speaks);
    if (status != SBN_OK) return exit_code(status);
    sbni_rollcall *rollcall = sbni_rollcall_begin(stall_limit_s);
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    sbn_group *group = NULL;
    sbn_watch *watch = NULL;
    status = sbn_group_create(MPI_COMM_WORLD, &group);
    speaks = !group || sbn_group_rank(group) == 0;
    if (status == SBN_OK) status = sbni_check_launcher(sbn_group_size(group), &speaks);
    /* the calls of another build are others from here on */
    if (status == SBN_OK) status = sbni_check_builds(group);
    if (status == SBN_OK)
        status = sbn_watch_create(group, stall_limit_s, sbni_stalled, NULL, &watch);
    sbni_rollcall_end(rollcall);
    sbni_listen_to_save();
    if (status == SBN_OK) status = dispatch(argc, argv, group);
    tell(status, speaks);
    /* MPICH takes the buffer from the stream, which then has failed already. */
    bool printed = fflush(stdout) == 0 && !ferror(stdout);
    if (speaks && !printed && status == SBN_OK) {
        fprintf(stderr, "syncbn: cannot write to standard output\n");
        status = SBN_E_IO;
    }
    sbn_watch_enter(watch, "the end of the program");
    sbn_group_destroy(&group);
    MPI_Finalize();
    sbn_watch_destroy(&watch);
    return exit_code(status);
}
