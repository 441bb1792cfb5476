#include "data/idx.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "data/gzip.h"

enum { PATH_BYTES = 4096, MOST_AXES = 3, CLASSES = 10 };

/* One of the two files of a split. */
typedef struct part_kind {
    const char *noun;
    int axes;
} part_kind;

static const part_kind images_kind = {"images", 3};
static const part_kind labels_kind = {"labels", 1};

typedef struct idx_part {
    const part_kind *kind;
    sbni_gzip *file;
    int64_t axis[MOST_AXES]; /* n, h, w; n */
    char path[PATH_BYTES];
} idx_part;

static const char *split_name(sbn_split split)
{
    return split == SBN_SPLIT_TRAIN ? "train" : "t10k";
}

/* Put the path of the first usual name that exists into part->path. */
static sbn_status find_part(const sbni_idx_source *source, idx_part *part)
{
    static const char *const names[] = {"%s/%s-%s-idx%d-ubyte", "%s/%s-%s-idx%d-ubyte.gz",
                                        "%s/%s-%s.idx%d-ubyte",
                                        "%s/%s-%s.idx%d-ubyte.gz"};
    const char *half = split_name(source->split), *noun = part->kind->noun;
    struct stat s;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int length = snprintf(part->path, sizeof part->path, names[i], source->folder,
                              half, noun, part->kind->axes);
        SBN_CHECK(length < PATH_BYTES, SBN_E_DATA,
                  "data folder: expected a path below %d bytes, got %d", PATH_BYTES,
                  length);
        if (stat(part->path, &s) == 0) return SBN_OK;
        SBN_CHECK(errno == ENOENT || errno == ENOTDIR, SBN_E_IO, "cannot look at %s: %s",
                  part->path, strerror(errno));
    }
    int folder = stat(source->folder, &s) == 0 && S_ISDIR(s.st_mode);
    return sbni_fail(SBN_E_DATA,
                     "%s%s: expected %s-%s-idx%d-ubyte or %s-%s.idx%d-ubyte, plain or "
                     ".gz, found neither; %s",
                     source->folder, folder ? "" : " is no folder", half, noun,
                     part->kind->axes, half, noun, part->kind->axes, source->advice);
}

static int64_t big_endian(const unsigned char *p)
{
    return (int64_t)p[0] << 24 | (int64_t)p[1] << 16 | (int64_t)p[2] << 8 | p[3];
}

static int64_t content_bytes(const idx_part *part)
{
    int64_t bytes = 1; /* n < 2^32 and sides <= 2^12: no overflow */
    for (int i = 0; i < part->kind->axes; i++) bytes *= part->axis[i];
    return bytes;
}

static sbn_status read_header(idx_part *part)
{
    unsigned char head[4 + 4 * MOST_AXES];
    int axes = part->kind->axes, head_bytes = 4 + 4 * axes;
    SBN_TRY(sbni_gzip_read(part->file, head_bytes, head));
    int64_t magic = big_endian(head), expected = 0x0800 + axes; /* uint8, axes */
    SBN_CHECK(magic == expected, SBN_E_DATA,
              "%s: expected magic 0x%08" PRIx64 " (IDX %s), got 0x%08" PRIx64
              "; the file is not what its name says",
              part->path, (uint64_t)expected, part->kind->noun, (uint64_t)magic);
    for (int i = 0; i < axes; i++) part->axis[i] = big_endian(head + 4 + 4 * i);
    SBN_CHECK(part->axis[0] > 0, SBN_E_DATA, "%s: expected at least one of %s, got 0",
              part->path, part->kind->noun);
    for (int i = 1; i < axes; i++)
        SBN_CHECK(part->axis[i] >= 1 && part->axis[i] <= SBNI_IDX_MOST_SIDE, SBN_E_DATA,
                  "%s: expected images with sides of 1 to %d pixels, got %" PRId64
                  " by %" PRId64,
                  part->path, SBNI_IDX_MOST_SIDE, part->axis[1], part->axis[2]);
    int64_t bytes = head_bytes + content_bytes(part),
            capacity = sbni_gzip_capacity(part->file);
    SBN_CHECK(bytes <= capacity, SBN_E_DATA,
              "%s: its header asks for %" PRId64 " bytes, but the file can hold at most "
              "%" PRId64 "; it is truncated or damaged, get it again",
              part->path, bytes, capacity);
    return SBN_OK;
}

static sbn_status open_part(const sbni_idx_source *source, const part_kind *kind,
                            idx_part *part)
{
    part->kind = kind;
    part->file = NULL;
    SBN_TRY(find_part(source, part));
    SBN_TRY(sbni_gzip_open(part->path, &part->file));
    sbn_status status = read_header(part);
    if (status != SBN_OK) sbni_gzip_close(&part->file);
    return status;
}

sbn_status sbni_idx_probe(const sbni_idx_source *source, sbn_dataset_info *info,
                          int64_t *bytes)
{
    idx_part images, labels;
    SBN_TRY(open_part(source, &images_kind, &images));
    sbni_gzip_close(&images.file);
    SBN_TRY(open_part(source, &labels_kind, &labels));
    sbni_gzip_close(&labels.file);
    SBN_CHECK(images.axis[0] == labels.axis[0], SBN_E_DATA,
              "%s: expected one label for each image, got %" PRId64 " images and %" PRId64
              " labels in the %s files",
              source->folder, images.axis[0], labels.axis[0], split_name(source->split));
    *info = (sbn_dataset_info){.n = images.axis[0],
                               .c = 1,
                               .h = images.axis[1],
                               .w = images.axis[2],
                               .classes = CLASSES};
    *bytes = content_bytes(&images) + content_bytes(&labels);
    return SBN_OK;
}

/* The header is read again: memory has the size that the probe saw, the file may not. */
static sbn_status load_part(const sbni_idx_source *source, const part_kind *kind,
                            const int64_t *axis, uint8_t *out)
{
    idx_part part;
    sbn_status status;
    SBN_TRY(open_part(source, kind, &part));
    for (int i = 0; i < kind->axes; i++) {
        if (part.axis[i] == axis[i]) continue;
        status = sbni_fail(SBN_E_DATA,
                           "%s changed while it was read: expected size %" PRId64
                           " of axis %d, got %" PRId64 "; run again",
                           part.path, axis[i], i, part.axis[i]);
        goto fail;
    }
    SBN_GOTO(sbni_gzip_read(part.file, content_bytes(&part), out));
    SBN_GOTO(sbni_gzip_end(part.file));
    if (kind == &labels_kind) {
        for (int64_t i = 0; i < axis[0]; i++) {
            if (out[i] < CLASSES) continue;
            status = sbni_fail(SBN_E_DATA,
                               "%s: expected labels of 0 to %d, got %d for sample "
                               "%" PRId64,
                               part.path, CLASSES - 1, out[i], i);
            goto fail;
        }
    }
    status = SBN_OK;
fail:
    sbni_gzip_close(&part.file);
    return status;
}

sbn_status sbni_idx_load(const sbni_idx_source *source, const sbn_dataset_info *info,
                         void *memory)
{
    int64_t axis[MOST_AXES] = {info->n, info->h, info->w};
    uint8_t *pixels = memory;
    SBN_TRY(load_part(source, &images_kind, axis, pixels));
    return load_part(source, &labels_kind, axis, pixels + info->n * info->h * info->w);
}
