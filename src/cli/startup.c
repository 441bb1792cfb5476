#include "cli/startup.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/alike.h"
#include "core/status.h"

/* A launcher's number of processes and of this one among them, as it tells its processes
 * by the environment. */
typedef struct launcher {
    const char *size, *rank, *name;
    const char *foreign; /* set where another MPI library surely finds nobody, or NULL */
} launcher;

static const launcher launchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "Open MPI's mpirun", NULL},
    {"PMI_SIZE", "PMI_RANK", "an mpiexec of MPICH's kind, or srun --mpi=pmi2",
     "MPI_LOCALNRANKS" /* not by srun */},
    /* of the step, which a batch script's own shell is not in */
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun", NULL},
};
enum { LAUNCHERS = sizeof launchers / sizeof *launchers };

static int number(const char *name)
{
    const char *text = name ? getenv(name) : NULL;
    return text ? atoi(text) : -1;
}

/* Of this host's processes Slurm has a list: "0,1,5". */
static int processes_here(void)
{
    int here = number("OMPI_COMM_WORLD_LOCAL_SIZE");
    if (here < 1) here = number("MPI_LOCALNRANKS");
    const char *list = getenv("SLURM_GTIDS");
    if (here >= 1 || !list) return here >= 1 ? here : 0;
    for (here = 1; (list = strchr(list, ',')); list++) here++;
    return here;
}

sbni_launched sbni_launched_as(void)
{
    for (int i = 0; i < LAUNCHERS; i++) {
        int rank = number(launchers[i].rank), size = number(launchers[i].size);
        if (rank >= 0 && rank < size)
            return (sbni_launched){rank, size, processes_here()};
    }
    return (sbni_launched){0, 1, 1};
}

/* The launcher that belongs to the MPI library in use. */
static const launcher *own_launcher(void)
{
    bool open = strstr(sbni_mpi_version(), "Open MPI") != NULL;
    return &launchers[open ? 0 : 1];
}

sbn_status sbni_check_launcher(int found, bool *speaks)
{
    const launcher *own = own_launcher();
    int own_size = number(own->size);
    if (found > 1 || own_size == 1 || (!found && own_size > 0)) return SBN_OK;
    for (int i = 0; i < LAUNCHERS; i++) {
        const launcher *l = &launchers[i];
        int size = number(l->size), rank = number(l->rank);
        if (size < 2 || rank < 0) continue;
        if (!found && number(l->foreign) < 1) continue;
        *speaks = rank == 0;
        /* a launcher that sees this process fail ends the one that is to say why */
        if (!*speaks) sleep(1);
        return sbni_fail(SBN_E_MISMATCH,
                         "started as one of %d processes by %s (%s=%d), but %s, which "
                         "this program is built with, sees it alone; start it by that "
                         "library's own mpirun, or by srun --mpi=pmix",
                         size, l->name, l->size, size, sbni_mpi_version());
    }
    return SBN_OK;
}

sbn_status sbni_check_builds(sbn_group *group)
{
    const sbni_named list[] = {{"build", sbni_build_words()},
                               {"version", sbni_build_version()},
                               {"MPI library", sbni_mpi_version()}};
    return sbni_alike(group, "", list, sizeof list / sizeof *list);
}
