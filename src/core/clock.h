/* Time that never goes back. */
#ifndef SBNI_CLOCK_H
#define SBNI_CLOCK_H

/* Seconds since an arbitrary fixed moment. */
double sbni_clock_s(void);

#endif
