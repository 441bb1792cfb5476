#include "train/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "train/file.h"

enum { LENGTH_BYTES = 8, HEADER_ALIGN = 8, MAX_HEADER_BYTES = 100000000 };
enum { BLOCK_BYTES = 1 << 16 };

static const char METADATA[] = "__metadata__";

static const struct {
    const char *name;
    int64_t bytes;
} dtypes[] = {
    {"F64", 8},  {"I64", 8}, {"U64", 8}, {"F32", 4}, {"I32", 4}, {"U32", 4},  {"F16", 2},
    {"BF16", 2}, {"I16", 2}, {"U16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1},
};

typedef struct entry {
    sbni_st_tensor tensor;
    int64_t begin;
    int order;  /* place in the header */
    void *copy; /* the data where the file has it unaligned, else NULL */
} entry;

struct sbni_st_file {
    int fd;
    void *map;
    int64_t map_bytes;
    json_t *header; /* owns the names and the metadata */
    int n;
    entry *entries;
};

/* Index into dtypes, or -1. */
static int dtype_find(const char *name)
{
    for (int i = 0; name && i < (int)(sizeof dtypes / sizeof dtypes[0]); i++)
        if (strcmp(name, dtypes[i].name) == 0) return i;
    return -1;
}

/* Fails with code when the type is unknown or the shape has no size; the product is
 * checked from left to right, as other readers do. */
static sbn_status tensor_bytes(const sbni_st_tensor *t, sbn_status code, int64_t *bytes)
{
    int dtype = dtype_find(t->dtype);
    SBN_CHECK(dtype >= 0, code, "tensor \"%.80s\": unknown dtype \"%.20s\"", t->name,
              t->dtype ? t->dtype : "");
    *bytes = 1;
    for (int i = 0; i < t->axes; i++) {
        SBN_CHECK(t->shape[i] >= 0, code, "tensor \"%.80s\": negative shape[%d] %" PRId64,
                  t->name, i, t->shape[i]);
        SBN_CHECK(!__builtin_mul_overflow(*bytes, t->shape[i], bytes), code,
                  "tensor \"%.80s\": its shape overflows", t->name);
    }
    SBN_CHECK(!__builtin_mul_overflow(*bytes, dtypes[dtype].bytes, bytes), code,
              "tensor \"%.80s\": its shape overflows", t->name);
    return SBN_OK;
}

/* Takes value, which is NULL when its own text was not UTF-8. */
static sbn_status put(json_t *object, const char *key, json_t *value, const char *what)
{
    if (key && json_object_get(object, key)) {
        json_decref(value);
        return sbni_fail(SBN_E_ARG, "%s \"%.80s\" is given twice", what, key);
    }
    SBN_CHECK(json_object_set_new(object, key, value) == 0, SBN_E_ARG,
              "%s \"%.80s\" is not valid UTF-8", what, key ? key : "");
    return SBN_OK;
}

static sbn_status put_metadata(json_t *header, const char *const (*metadata)[2], int n)
{
    if (n == 0) return SBN_OK;
    json_t *object = json_object();
    SBN_TRY(put(header, METADATA, object, "metadata"));
    for (int i = 0; i < n; i++)
        SBN_TRY(put(object, metadata[i][0], json_string(metadata[i][1]), "metadata"));
    return SBN_OK;
}

static sbn_status put_tensor(json_t *header, const sbni_st_tensor *t, int64_t *offset)
{
    SBN_CHECK(t->name && strcmp(t->name, METADATA) != 0, SBN_E_ARG,
              "\"%s\" is no name of a tensor", t->name ? t->name : "");
    SBN_CHECK(t->axes >= 0 && t->axes <= SBNI_ST_MAX_AXES, SBN_E_ARG,
              "tensor \"%.80s\": expected 0 … %d axes, got %d", t->name, SBNI_ST_MAX_AXES,
              t->axes);
    int64_t bytes, begin = *offset;
    SBN_TRY(tensor_bytes(t, SBN_E_ARG, &bytes));
    SBN_CHECK(t->bytes == bytes && (t->data || bytes == 0), SBN_E_ARG,
              "tensor \"%.80s\": expected %" PRId64 " bytes, got %" PRId64 " at %p",
              t->name, bytes, t->bytes, t->data);
    SBN_CHECK(!__builtin_add_overflow(begin, bytes, offset), SBN_E_ARG,
              "tensor \"%.80s\": the file would be too large", t->name);
    json_t *shape = json_array();
    for (int i = 0; i < t->axes; i++)
        json_array_append_new(shape, json_integer(t->shape[i]));
    return put(header, t->name,
               json_pack("{s:s,s:o,s:[I,I]}", "dtype", t->dtype, "shape", shape,
                         "data_offsets", (json_int_t)begin, (json_int_t)*offset),
               "tensor");
}

/* Length and JSON, padded with spaces so that the data start aligned. An object keeps the
 * order in which its keys were put, so equal arguments give equal text. */
static sbn_status header_text(json_t *json, char **text, int64_t *bytes)
{
    size_t used = json_dumpb(json, NULL, 0, JSON_COMPACT);
    size_t padded = (used + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
    SBN_CHECK(used > 0, SBN_E_MEMORY, "no memory for the header");
    SBN_CHECK(padded <= MAX_HEADER_BYTES, SBN_E_ARG,
              "expected a header of at most %d bytes, got %zu", MAX_HEADER_BYTES, padded);
    *bytes = LENGTH_BYTES + (int64_t)padded;
    SBN_TRY(sbni_alloc(*bytes, 1, "header", text));
    for (int i = 0; i < LENGTH_BYTES; i++) (*text)[i] = (char)(padded >> 8 * i & 255);
    memset(*text + LENGTH_BYTES, ' ', padded);
    json_dumpb(json, *text + LENGTH_BYTES, used, JSON_COMPACT);
    return SBN_OK;
}

sbn_status sbni_st_write(const char *path, const sbni_st_tensor *tensors, int n,
                         const char *const (*metadata)[2], int n_metadata)
{
    return sbni_st_write_keeping(path, NULL, tensors, n, metadata, n_metadata);
}

sbn_status sbni_st_write_keeping(const char *path, const char *previous,
                                 const sbni_st_tensor *tensors, int n,
                                 const char *const (*metadata)[2], int n_metadata)
{
    SBN_CHECK(path && n >= 0 && (tensors || n == 0) && n_metadata >= 0 &&
                  (metadata || n_metadata == 0),
              SBN_E_ARG, "expected a path and arrays, got %d tensors, %d metadata", n,
              n_metadata);
    sbn_status status;
    char *text = NULL;
    int64_t text_bytes = 0, offset = 0;
    sbni_replacement *file = NULL;
    json_t *header = json_object();
    SBN_GOTO(put_metadata(header, metadata, n_metadata));
    for (int i = 0; i < n; i++) SBN_GOTO(put_tensor(header, &tensors[i], &offset));
    SBN_GOTO(header_text(header, &text, &text_bytes));
    SBN_GOTO(sbni_replacement_begin(path, &file));
    SBN_GOTO(sbni_replacement_write(file, text, text_bytes));
    for (int i = 0; i < n; i++)
        SBN_GOTO(sbni_replacement_write(file, tensors[i].data, tensors[i].bytes));
    SBN_GOTO(sbni_replacement_commit(file, previous));
fail:
    sbni_replacement_end(&file);
    sbni_free(text);
    json_decref(header);
    return status;
}

/* Have the disk give bytes of the file: a mapping of those it cannot give would kill the
 * process. They are not kept, since a file with holes claims more than any memory has. */
static sbn_status touch(sbni_st_file *f, int64_t from, int64_t to)
{
    char block[BLOCK_BYTES];
    while (from < to) {
        size_t want = (size_t)(to - from < BLOCK_BYTES ? to - from : BLOCK_BYTES);
        ssize_t got = pread(f->fd, block, want, from);
        if (got < 0 && errno == EINTR) continue;
        SBN_CHECK(got > 0, SBN_E_DATA, "cannot read byte %" PRId64 " of %" PRId64 ": %s",
                  from, f->map_bytes, got ? strerror(errno) : "the file was cut");
        from += got;
    }
    return SBN_OK;
}

static sbn_status map_file(const char *path, sbni_st_file *f)
{
    /* Opening a pipe would otherwise wait for its writer. */
    int fd = f->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    SBN_CHECK(fd >= 0, SBN_E_IO, "cannot open %s: %s", path, strerror(errno));
    struct stat s;
    SBN_CHECK(fstat(fd, &s) == 0, SBN_E_IO, "cannot read %s: %s", path, strerror(errno));
    SBN_CHECK(S_ISREG(s.st_mode), SBN_E_IO, "cannot read %s: %s", path,
              S_ISDIR(s.st_mode) ? strerror(EISDIR) : "Not a regular file");
    SBN_CHECK(s.st_size >= LENGTH_BYTES, SBN_E_DATA,
              "%s: expected at least %d bytes, for the length of a header, got %" PRId64,
              path, LENGTH_BYTES, (int64_t)s.st_size);
    void *map = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    SBN_CHECK(map != MAP_FAILED, SBN_E_IO, "cannot map %s: %s", path, strerror(errno));
    f->map = map;
    f->map_bytes = s.st_size;
    return SBN_OK;
}

static sbn_status parse_header(sbni_st_file *f, int64_t *data_begin)
{
    const unsigned char *length = f->map;
    uint64_t bytes = 0;
    SBN_TRY(touch(f, 0, LENGTH_BYTES));
    for (int i = 0; i < LENGTH_BYTES; i++) bytes |= (uint64_t)length[i] << 8 * i;
    SBN_CHECK(bytes <= MAX_HEADER_BYTES, SBN_E_DATA,
              "the header has %" PRIu64 " bytes, more than %d", bytes, MAX_HEADER_BYTES);
    SBN_CHECK((int64_t)bytes <= f->map_bytes - LENGTH_BYTES, SBN_E_DATA,
              "the header has %" PRIu64 " bytes, the file %" PRId64, bytes, f->map_bytes);
    *data_begin = LENGTH_BYTES + (int64_t)bytes;
    SBN_TRY(touch(f, LENGTH_BYTES, *data_begin));
    const char *text = (const char *)f->map + LENGTH_BYTES;
    SBN_CHECK(bytes > 0 && text[0] == '{', SBN_E_DATA,
              "the header does not begin with {");
    while (text[bytes - 1] == ' ') bytes--;
    /* The parser would also let tabs and line ends pass. */
    SBN_CHECK(text[bytes - 1] == '}', SBN_E_DATA,
              "the header has more than spaces after its last }");
    json_error_t error;
    f->header = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (f->header) return SBN_OK;
    sbn_status code =
        json_error_code(&error) == json_error_out_of_memory ? SBN_E_MEMORY : SBN_E_DATA;
    return sbni_fail(code, "the header is no JSON: %s at byte %d", error.text,
                     error.position);
}

static sbn_status check_metadata(const json_t *metadata)
{
    SBN_CHECK(json_is_object(metadata), SBN_E_DATA, "%s is no object", METADATA);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) SBN_CHECK(
        json_is_string(value), SBN_E_DATA, "%s \"%.80s\" is no string", METADATA, key);
    return SBN_OK;
}

/* A nonnegative integer or -1. */
static int64_t whole(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0
               ? json_integer_value(value)
               : -1;
}

static sbn_status parse_tensor(const char *name, const json_t *json, int64_t data_bytes,
                               entry *e)
{
    sbni_st_tensor *t = &e->tensor;
    t->name = name;
    SBN_CHECK(json_is_object(json), SBN_E_DATA, "tensor \"%.80s\" is no object", name);
    t->dtype = json_string_value(json_object_get(json, "dtype"));
    const json_t *shape = json_object_get(json, "shape"),
                 *offsets = json_object_get(json, "data_offsets");
    SBN_CHECK(t->dtype, SBN_E_DATA, "tensor \"%.80s\": dtype is no string", name);
    SBN_CHECK(json_is_array(shape), SBN_E_DATA, "tensor \"%.80s\": shape is no array",
              name);
    SBN_CHECK(json_array_size(shape) <= SBNI_ST_MAX_AXES, SBN_E_DATA,
              "tensor \"%.80s\": expected at most %d axes, got %zu", name,
              SBNI_ST_MAX_AXES, json_array_size(shape));
    t->axes = (int)json_array_size(shape);
    for (int i = 0; i < t->axes; i++) {
        t->shape[i] = whole(json_array_get(shape, (size_t)i));
        SBN_CHECK(t->shape[i] >= 0, SBN_E_DATA,
                  "tensor \"%.80s\": shape[%d] is no nonnegative integer", name, i);
    }
    SBN_CHECK(json_array_size(offsets) == 2, SBN_E_DATA,
              "tensor \"%.80s\": data_offsets are no pair", name);
    e->begin = whole(json_array_get(offsets, 0));
    int64_t end = whole(json_array_get(offsets, 1));
    SBN_CHECK(e->begin >= 0 && end >= 0, SBN_E_DATA,
              "tensor \"%.80s\": data_offsets are no nonnegative integers", name);
    SBN_CHECK(e->begin <= end, SBN_E_DATA,
              "tensor \"%.80s\" begins at %" PRId64 ", after its end %" PRId64, name,
              e->begin, end);
    SBN_CHECK(end <= data_bytes, SBN_E_DATA,
              "tensor \"%.80s\" ends at %" PRId64 ", but there are %" PRId64
              " bytes of data",
              name, end, data_bytes);
    int64_t bytes;
    SBN_TRY(tensor_bytes(t, SBN_E_DATA, &bytes));
    t->bytes = end - e->begin;
    SBN_CHECK(t->bytes == bytes, SBN_E_DATA,
              "tensor \"%.80s\" has %" PRId64 " bytes, its shape and dtype need %" PRId64,
              name, t->bytes, bytes);
    t->dtype = dtypes[dtype_find(t->dtype)].name;
    return SBN_OK;
}

/* By place of the data; empty tensors come before what begins where they lie. */
static int compare(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->tensor.bytes != y->tensor.bytes)
        return x->tensor.bytes < y->tensor.bytes ? -1 : 1;
    return x->order - y->order;
}

static sbn_status check_places(const sbni_st_file *f, int64_t data_bytes)
{
    int64_t end = 0;
    for (int i = 0; i < f->n; i++) {
        const entry *e = &f->entries[i];
        const sbni_st_tensor *t = &e->tensor;
        SBN_CHECK(e->begin <= end, SBN_E_DATA,
                  "a hole of %" PRId64 " bytes before tensor \"%.80s\"", e->begin - end,
                  t->name);
        SBN_CHECK(e->begin == end, SBN_E_DATA,
                  "tensor \"%.80s\" overlaps the one before it", t->name);
        end += t->bytes;
    }
    SBN_CHECK(end == data_bytes, SBN_E_DATA, "%" PRId64 " bytes after the last tensor",
              data_bytes - end);
    return SBN_OK;
}

static sbn_status place_data(sbni_st_file *f, const char *data)
{
    for (int i = 0; i < f->n; i++) {
        entry *e = &f->entries[i];
        sbni_st_tensor *t = &e->tensor;
        t->data = data + e->begin;
        int64_t align = dtypes[dtype_find(t->dtype)].bytes;
        if ((uintptr_t)t->data % (uintptr_t)align == 0) continue;
        SBN_TRY(sbni_alloc(t->bytes, 1, t->name, &e->copy));
        memcpy(e->copy, t->data, (size_t)t->bytes);
        t->data = e->copy;
    }
    return SBN_OK;
}

static sbn_status parse(sbni_st_file *f)
{
    int64_t data_begin;
    SBN_TRY(parse_header(f, &data_begin));
    int64_t data_bytes = f->map_bytes - data_begin;
    SBN_TRY(sbni_alloc((int64_t)json_object_size(f->header), sizeof(entry), "tensors",
                       &f->entries));
    const char *name;
    json_t *value;
    json_object_foreach(f->header, name, value)
    {
        if (strcmp(name, METADATA) == 0) {
            SBN_TRY(check_metadata(value));
            continue;
        }
        entry *e = &f->entries[f->n];
        e->order = f->n++;
        SBN_TRY(parse_tensor(name, value, data_bytes, e));
    }
    qsort(f->entries, (size_t)f->n, sizeof(entry), compare);
    SBN_TRY(check_places(f, data_bytes));
    SBN_TRY(touch(f, data_begin, f->map_bytes));
    return place_data(f, (const char *)f->map + data_begin);
}

sbn_status sbni_st_open(const char *path, sbni_st_file **file)
{
    *file = NULL;
    sbni_st_file *f = NULL;
    SBN_TRY(sbni_alloc(1, sizeof *f, "safetensors file", &f));
    f->fd = -1;
    sbn_status status;
    SBN_GOTO(map_file(path, f));
    status = parse(f);
    if (status != SBN_OK) {
        sbni_fail_in(status, "%s", path);
        goto fail;
    }
    *file = f;
    return SBN_OK;
fail:
    sbni_st_close(&f);
    return status;
}

void sbni_st_close(sbni_st_file **file)
{
    if (!file || !*file) return;
    sbni_st_file *f = *file;
    for (int i = 0; i < f->n; i++) sbni_free(f->entries[i].copy);
    sbni_free(f->entries);
    json_decref(f->header);
    if (f->map) munmap(f->map, (size_t)f->map_bytes);
    if (f->fd >= 0) close(f->fd);
    sbni_free(f);
    *file = NULL;
}

int sbni_st_count(const sbni_st_file *file)
{
    return file->n;
}

const sbni_st_tensor *sbni_st_at(const sbni_st_file *file, int i)
{
    return &file->entries[i].tensor;
}

const sbni_st_tensor *sbni_st_find(const sbni_st_file *file, const char *name)
{
    for (int i = 0; i < file->n; i++)
        if (strcmp(file->entries[i].tensor.name, name) == 0)
            return &file->entries[i].tensor;
    return NULL;
}

const char *sbni_st_metadata(const sbni_st_file *file, const char *key)
{
    return json_string_value(
        json_object_get(json_object_get(file->header, METADATA), key));
}

void sbni_st_visit_metadata(const sbni_st_file *file,
                            void (*visit)(void *context, const char *key,
                                          const char *value),
                            void *context)
{
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(file->header, METADATA), key, value)
    {
        visit(context, key, json_string_value(value));
    }
}
