/* One run at a time in a folder of results. */
#ifndef SBNI_LOCK_H
#define SBNI_LOCK_H

#include "core/status.h"

typedef struct sbni_lock sbni_lock;

/*
 * Take the folder: make run.lock in it, locked, and write there who holds it (host, its
 * boot, process and when it started, job of the batch system). The system lets go of a
 * lock when its process ends, however it ends, so what a killed run left is taken over;
 * but where the host itself died, a server of files (NFS) does so only when it has given
 * up the host, 90 s by default.
 * On file systems that cannot lock, the text decides: a process of this host that is gone
 * holds nothing, one of another host is believed.
 * SBN_E_IO: the folder cannot be written to, or another run holds it; then the text names
 * that run. A run that is just dying is waited for: two seconds, or as many as
 * SBN_LOCK_WAIT says in the environment.
 */
sbn_status sbni_lock_take(const char *folder, sbni_lock **lock);

/* Give the folder back, and remove the file. NULL is fine. Keeps the error text. */
void sbni_lock_release(sbni_lock **lock);

#endif
