/* The subcommands: each parses its own arguments and does its work on all processes. */
#ifndef SBNI_COMMANDS_H
#define SBNI_COMMANDS_H

#include "syncbn/group.h"

sbn_status sbni_command_train(int argc, char **argv, sbn_group *group);
sbn_status sbni_command_eval(int argc, char **argv, sbn_group *group);
sbn_status sbni_command_study(int argc, char **argv, sbn_group *group);
sbn_status sbni_command_bench(int argc, char **argv, sbn_group *group);
sbn_status sbni_command_inspect(int argc, char **argv, sbn_group *group);

#endif
