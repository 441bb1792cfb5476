/*
 * The input tells what a half's files hold; pixels follow from their place.
 *
 *   byte 0        bit 0: the test half (one file), else the training half (five)
 *   3 per file    bits 0-1: records, bit 2: there is no such file; then int16, big
 *                 endian: bytes more or less than the records have
 *   the rest      labels, one a record
 *
 * Whether the files are valid is told here, too: the reader must accept the same ones and
 * give the same bytes.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/cifar.h"

enum { FILES = 6, HEAD_BYTES = 1 + 3 * FILES, PIXELS = 3072, RECORD = 1 + PIXELS };

/* What the files hold, one after the other. */
typedef struct half {
    bool valid;
    size_t n; /* whole records */
    uint8_t labels[FILES * 16], *pixels;
} half;

void fuzz_mend(uint8_t *data, size_t size)
{
    if (size < HEAD_BYTES) return;
    for (int f = 0; f < FILES; f++) {
        data[1 + 3 * f] = (uint8_t)(1 + data[1 + 3 * f] % 3);
        data[2 + 3 * f] = data[3 + 3 * f] = 0;
    }
    for (size_t i = HEAD_BYTES; i < size; i++) data[i] %= 10;
}

static size_t size_of(const uint8_t *head)
{
    int size = (head[0] & 3) * RECORD + (int16_t)(head[1] << 8 | head[2]);
    return size > 0 ? (size_t)size : 0;
}

/* One file, and what a reader should find in it. */
static void make_file(const char *name, const uint8_t *head, const uint8_t **labels,
                      const uint8_t *end, half *h)
{
    size_t n = size_of(head);
    unlink(fuzz_path(name));
    if (head[0] & 4) {
        h->valid = false;
        return;
    }
    uint8_t *bytes = malloc(n + 1);
    FUZZ_CHECK(bytes, "no memory");
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251 + (size_t)name[11]);
    for (size_t at = 0; at < n; at += RECORD)
        bytes[at] = *labels < end ? *(*labels)++ : 3;
    fuzz_write(fuzz_path(name), bytes, n);
    if (n == 0 || n % RECORD) h->valid = false;
    for (size_t at = 0; at + RECORD <= n; at += RECORD, h->n++) {
        if (bytes[at] >= 10) h->valid = false;
        h->labels[h->n] = bytes[at];
        memcpy(h->pixels + h->n * PIXELS, bytes + at + 1, PIXELS);
    }
    free(bytes);
}

/* The real reader; no memory where it refused the half. */
static uint8_t *load(sbn_split split, sbn_dataset_info *info)
{
    int64_t n = -1;
    uint8_t *memory = NULL;
    sbn_status status = sbni_cifar_probe(fuzz_folder(), split, info, &n);
    if (status == SBN_OK) {
        FUZZ_CHECK(info->n >= 1 && n == info->n * RECORD, "probe gives %lld bytes",
                   (long long)n);
        memory = malloc((size_t)n);
        FUZZ_CHECK(memory, "no memory for %lld bytes", (long long)n);
        status = sbni_cifar_load(fuzz_folder(), split, info, memory);
    }
    if (status == SBN_OK) return memory;
    fuzz_check_refusal(status, fuzz_folder());
    free(memory);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD_BYTES) return 0;
    sbn_split split = data[0] & 1 ? SBN_SPLIT_TEST : SBN_SPLIT_TRAIN;
    const uint8_t *labels = data + HEAD_BYTES;
    half h = {.valid = true, .pixels = malloc(sizeof h.labels * PIXELS)};
    FUZZ_CHECK(h.pixels, "no memory");
    if (split == SBN_SPLIT_TEST)
        make_file("test_batch.bin", data + 1, &labels, data + size, &h);
    for (int f = 0; f < 5 && split == SBN_SPLIT_TRAIN; f++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", f + 1);
        make_file(name, data + 1 + 3 * f, &labels, data + size, &h);
    }
    sbn_dataset_info info;
    uint8_t *memory = load(split, &info);
    FUZZ_CHECK(h.valid == (memory != NULL), "a %s half is %s: %s",
               h.valid ? "valid" : "damaged", memory ? "accepted" : "refused",
               memory ? "" : sbn_last_error());
    if (memory) {
        FUZZ_CHECK((size_t)info.n == h.n && !memcmp(memory, h.pixels, h.n * PIXELS) &&
                       !memcmp(memory + h.n * PIXELS, h.labels, h.n),
                   "other bytes than in the files");
        fuzz_accepted++;
    }
    free(memory);
    free(h.pixels);
    return 0;
}
