/*
 * flip_bit PID FILE TENSOR: what failing memory does. Finds the values of a tensor of a
 * safetensors file in the memory of a running process and turns a bit of each copy over.
 * Exit code 0; 1: not found; 77: that memory may not be touched.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/safetensors.h"

/* Turn a bit over wherever the bytes lie between two addresses. Returns how often. */
static int flip_between(int memory, uint64_t from, uint64_t to, const void *bytes,
                        size_t n)
{
    size_t room = (size_t)(to - from);
    char *copy = malloc(room);
    ssize_t got = copy ? pread(memory, copy, room, (off_t)from) : -1;
    int found = 0;
    for (size_t at = 0; got > 0 && at + n <= (size_t)got; at += sizeof(float)) {
        if (memcmp(copy + at, bytes, n) != 0) continue;
        char changed = (char)(copy[at + 2] ^ 1);
        if (pwrite(memory, &changed, 1, (off_t)(from + at + 2)) == 1) found++;
    }
    free(copy);
    return found;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 64;
    sbni_st_file *file;
    if (sbni_st_open(argv[2], &file) != SBN_OK) return 65;
    const sbni_st_tensor *t = sbni_st_find(file, argv[3]);
    if (!t || t->bytes < 64) return 65;
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%s/mem", argv[1]);
    int memory = open(path, O_RDWR);
    snprintf(path, sizeof path, "/proc/%s/maps", argv[1]);
    FILE *maps = fopen(path, "r");
    if (memory < 0 || !maps) return 77;
    int found = 0;
    while (fgets(line, sizeof line, maps)) {
        uint64_t from, to;
        char access[8];
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &from, &to, access) == 3 &&
            strcmp(access, "rw-p") == 0)
            found += flip_between(memory, from, to, t->data, (size_t)t->bytes);
    }
    printf("%d\n", found);
    fclose(maps);
    close(memory);
    sbni_st_close(&file);
    return found ? 0 : 1;
}
