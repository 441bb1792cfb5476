/*
 * The input is a pair of files, images and labels, plain or gzip:
 *
 *   byte 0     how each is packed: bits 0-1 images, 2-3 labels (enum packing);
 *              bit 4: deflate without compression
 *              bits 5-7: how many bytes the system gives at a time; 0: all
 *   byte 1, 2  damage: where, and the bits that flip; none flip: cut there
 *   byte 3, 4  bytes of the images, big endian; the labels are the rest
 *
 * A second reader, here, tells what the pair holds: the real one must accept the same
 * pairs and give the same bytes.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "data/idx.h"

enum { HEAD_BYTES = 5, IMAGES_HEAD = 16, LABELS_HEAD = 8, MOST_SIDE = 4096 };

enum packing { AS_IS, ONE_MEMBER, TWO_MEMBERS, DAMAGED };

typedef struct bytes {
    uint8_t *at;
    size_t n;
} bytes;

/* The linker puts this in the place of the reader's calls: small files then meet the
 * border of the buffer, too. */
size_t __wrap_fread(void *out, size_t size, size_t n, FILE *stream);
size_t __real_fread(void *out, size_t size, size_t n, FILE *stream);

static size_t portion; /* 0: all */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t __wrap_fread(void *out, size_t size, size_t n, FILE *stream)
{
    return __real_fread(out, size, portion ? least(n, portion) : n, stream);
}

static void put_word(uint8_t *p, size_t value)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(value >> (24 - 8 * i));
}

static uint64_t word(const uint8_t *p)
{
    return (uint64_t)p[0] << 24 | (uint64_t)p[1] << 16 | (uint64_t)p[2] << 8 | p[3];
}

/* Headers and split of a pair that holds as many samples as there are bytes for. */
void fuzz_mend(uint8_t *data, size_t size)
{
    if (size < HEAD_BYTES + IMAGES_HEAD + LABELS_HEAD + 2) return;
    size_t content = size - HEAD_BYTES - IMAGES_HEAD - LABELS_HEAD;
    uint8_t *images = data + HEAD_BYTES;
    size_t h = 1 + images[11] % 4, w = 1 + images[15] % 4;
    if (content % (h * w + 1)) h = w = 1;
    size_t n = content / (h * w + 1), images_n = IMAGES_HEAD + n * h * w;
    if (images_n > 65535) return;
    data[3] = (uint8_t)(images_n >> 8);
    data[4] = (uint8_t)images_n;
    uint8_t *labels = images + images_n;
    const size_t head[] = {0x803, n, h, w};
    for (int i = 0; i < 4; i++) put_word(images + 4 * i, head[i]);
    put_word(labels, 0x801);
    put_word(labels + 4, n);
    for (size_t i = 0; i < n; i++) labels[LABELS_HEAD + i] %= 10;
}

/* One gzip member behind what packed holds. */
static void deflate_member(const uint8_t *from, size_t n, int level, bytes *packed)
{
    z_stream z = {0};
    FUZZ_CHECK(deflateInit2(&z, level, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK,
               "no memory");
    size_t room = deflateBound(&z, n);
    packed->at = realloc(packed->at, packed->n + room);
    FUZZ_CHECK(packed->at, "no memory");
    z.next_in = (uint8_t *)(uintptr_t)from;
    z.avail_in = (uInt)n;
    z.next_out = packed->at + packed->n;
    z.avail_out = (uInt)room;
    FUZZ_CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END, "cannot deflate");
    packed->n += z.total_out;
    deflateEnd(&z);
}

static bytes pack(const uint8_t *from, size_t n, const uint8_t head[HEAD_BYTES], int how)
{
    int level = head[0] & 16 ? 0 : 6;
    bytes packed = {0};
    if (how == AS_IS) {
        packed = (bytes){malloc(n + 1), n};
        FUZZ_CHECK(packed.at, "no memory");
        if (n) memcpy(packed.at, from, n);
        return packed;
    }
    size_t first = how == TWO_MEMBERS ? least(head[1], n) : n;
    deflate_member(from, first, level, &packed);
    if (how == TWO_MEMBERS) deflate_member(from + first, n - first, level, &packed);
    if (how == DAMAGED && head[1] < packed.n) {
        packed.at[head[1]] ^= head[2];
        if (head[2] == 0) packed.n = head[1];
    }
    return packed;
}

/* Replace what is gzip by what it holds; false: it is damaged. */
static bool unpack(bytes *file)
{
    if (file->n < 2 || file->at[0] != 0x1f || file->at[1] != 0x8b) return true;
    z_stream z = {.next_in = file->at, .avail_in = (uInt)file->n};
    FUZZ_CHECK(inflateInit2(&z, 31) == Z_OK, "no memory");
    bytes out = {0};
    int code = Z_OK;
    size_t room = 0;
    while (code == Z_OK) {
        if (out.n == room) {
            room = 2 * room + 4096;
            out.at = realloc(out.at, room);
            FUZZ_CHECK(out.at, "no memory");
        }
        z.next_out = out.at + out.n;
        z.avail_out = (uInt)(room - out.n);
        code = inflate(&z, Z_NO_FLUSH);
        out.n = room - z.avail_out;
        if (code == Z_STREAM_END && z.avail_in) code = inflateReset(&z);
    }
    inflateEnd(&z);
    free(file->at);
    *file = out;
    return code == Z_STREAM_END;
}

static bool is_valid(const bytes *images, const bytes *labels)
{
    if (images->n < IMAGES_HEAD || labels->n < LABELS_HEAD) return false;
    uint64_t n = word(images->at + 4), h = word(images->at + 8),
             w = word(images->at + 12);
    if (word(images->at) != 0x803 || word(labels->at) != 0x801) return false;
    if (n == 0 || n != word(labels->at + 4)) return false;
    if (h == 0 || h > MOST_SIDE || w == 0 || w > MOST_SIDE) return false;
    if (images->n != IMAGES_HEAD + n * h * w || labels->n != LABELS_HEAD + n)
        return false;
    for (size_t i = LABELS_HEAD; i < labels->n; i++)
        if (labels->at[i] >= 10) return false;
    return true;
}

/* The real reader; returns what it loaded, or no memory where it refused the pair. */
static bytes load(sbn_dataset_info *info)
{
    sbni_idx_source source = {fuzz_folder(), "give two files", SBN_SPLIT_TRAIN};
    int64_t n = -1;
    sbn_status status = sbni_idx_probe(&source, info, &n);
    bytes memory = {0};
    if (status == SBN_OK) {
        FUZZ_CHECK(info->n >= 1 && info->c == 1 && info->h >= 1 && info->w >= 1 &&
                       n == info->n * info->h * info->w + info->n,
                   "probe gives %lld bytes", (long long)n);
        /* exactly what the probe asks for, so that a sanitizer sees the next byte */
        memory = (bytes){malloc((size_t)n), (size_t)n};
        FUZZ_CHECK(memory.at, "no memory for %lld bytes", (long long)n);
        status = sbni_idx_load(&source, info, memory.at);
    }
    if (status == SBN_OK) return memory;
    fuzz_check_refusal(status, source.folder);
    free(memory.at);
    return (bytes){0};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD_BYTES) return 0;
    const uint8_t *body = data + HEAD_BYTES;
    size_t n = least((size_t)data[3] << 8 | data[4], size - HEAD_BYTES);
    bytes images = pack(body, n, data, data[0] & 3);
    bytes labels = pack(body + n, size - HEAD_BYTES - n, data, data[0] >> 2 & 3);
    fuzz_write(fuzz_path("train-images-idx3-ubyte"), images.at, images.n);
    fuzz_write(fuzz_path("train-labels-idx1-ubyte"), labels.at, labels.n);
    sbn_dataset_info info;
    /* at least the two bytes that tell gzip from plain */
    size_t c = data[0] >> 5;
    portion = c ? 1 + c * c : 0;
    bytes memory = load(&info);
    portion = 0;
    bool whole = unpack(&images) & unpack(&labels);
    bool valid = whole && is_valid(&images, &labels);
    FUZZ_CHECK(valid == (memory.at != NULL), "a %s pair is %s: %s",
               valid ? "valid" : "damaged", memory.at ? "accepted" : "refused",
               memory.at ? "" : sbn_last_error());
    if (valid) {
        size_t pixels = images.n - IMAGES_HEAD;
        FUZZ_CHECK(memory.n == pixels + labels.n - LABELS_HEAD &&
                       !memcmp(memory.at, images.at + IMAGES_HEAD, pixels) &&
                       !memcmp(memory.at + pixels, labels.at + LABELS_HEAD,
                               labels.n - LABELS_HEAD),
                   "other bytes than in the files");
        fuzz_accepted++;
    }
    free(memory.at);
    free(images.at);
    free(labels.at);
    return 0;
}
