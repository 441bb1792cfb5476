/* Who of this host is there while MPI starts, which no watch sees. */
#ifndef SBNI_CLI_ROLLCALL_H
#define SBNI_CLI_ROLLCALL_H

typedef struct sbni_rollcall sbni_rollcall;

/* From here to its end, a thread of this process answers those of the same job and host,
 * and where MPI has not started after limit_s seconds of this process's own time, it asks
 * who is there, says who is not, and ends this process and those that answered with 86.
 * Of several processes of a host one speaks. A host that misses nobody does so 0.6
 * seconds later, or 0.9 where process 0 is on another, which may know more and have the
 * launcher end all before (cli/signals.h). limit_s 0, or no thread to be had: NULL, and
 * MPI may take as long as it takes. Local. */
sbni_rollcall *sbni_rollcall_begin(double limit_s);
void sbni_rollcall_end(sbni_rollcall *r);

#endif
