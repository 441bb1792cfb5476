/* Who of this host is there while MPI starts, which no watch sees. */
#ifndef SBNI_CLI_ROLLCALL_H
#define SBNI_CLI_ROLLCALL_H

typedef struct sbni_rollcall sbni_rollcall;

/* From here to its end, a thread of this process answers those of the same job and host,
 * and where MPI has not started after limit_s seconds of this process's own time, it asks
 * who is there, says who is not, and ends this process and those that answered with 86.
 * Of several processes one speaks. On a host that misses nobody it does so a second
 * later, as another host may know more. limit_s 0, or no thread or socket to be had:
 * NULL, and MPI may take as long as it takes. Local. */
sbni_rollcall *sbni_rollcall_begin(double limit_s);
void sbni_rollcall_end(sbni_rollcall *r);

#endif
