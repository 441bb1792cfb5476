/* To be preloaded: this process stands still where MPI starts, or where SBN_TEST_STOP_IN
 * is "end" where it ends. */
#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static int at_end(void)
{
    const char *where = getenv("SBN_TEST_STOP_IN");
    return where && !strcmp(where, "end");
}

__attribute__((visibility("default"))) int MPI_Init_thread(int *argc, char ***argv,
                                                           int required, int *provided)
{
    if (!at_end()) raise(SIGSTOP);
    return PMPI_Init_thread(argc, argv, required, provided);
}

__attribute__((visibility("default"))) int MPI_Finalize(void)
{
    if (at_end()) raise(SIGSTOP);
    return PMPI_Finalize();
}
