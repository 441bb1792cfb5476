/*
 * The points at which tiles of convolutions are multiplied: 0, ±P, ±Q, ∞. They lie around
 * 1, where their powers grow and shrink least (Barabasz et al. 2020,
 * doi:10.1145/3412380), and float holds these exactly.
 */
#ifndef SBNI_TILES_TMPL_H
#define SBNI_TILES_TMPL_H

#define P 0.75
#define Q 1.5
#define PP (P * P)
#define QQ (Q * Q)
#define PPP (P * PP)
#define QQQ (Q * QQ)
#define PPPP (PP * PP)
#define QQQQ (QQ * QQ)

/* (x² - P²)(x² - Q²) = x⁴ - SUM·x² + PRODUCT */
#define SUM (PP + QQ)
#define PRODUCT (PP * QQ)

#endif
