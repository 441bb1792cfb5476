/* The input is a file. What is accepted must cover it to the last byte and must survive
 * writing and reading. */
#include "fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "train/safetensors.h"

enum { LENGTH_BYTES = 8, MOST_METADATA = 64 };

/* The linker puts these in the place of the calls in the reader. A map ends with a page;
 * memory that ends with the file shows each read past its end. */
void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int fd,
                    off_t offset);
int __wrap_munmap(void *address, size_t bytes);
void *__real_mmap64(void *address, size_t bytes, int protection, int flags, int fd,
                    off_t offset);
int __real_munmap(void *address, size_t bytes);

static void *map;

void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int fd,
                    off_t offset)
{
    if (fd < 0) return __real_mmap64(address, bytes, protection, flags, fd, offset);
    FUZZ_CHECK(!map, "a second file is mapped, or the first was forgotten");
    FUZZ_CHECK(posix_memalign(&map, 64, bytes) == 0, "no memory");
    FUZZ_CHECK(pread(fd, map, bytes, offset) == (ssize_t)bytes, "cannot read");
    return map;
}

int __wrap_munmap(void *address, size_t bytes)
{
    if (address != map) return __real_munmap(address, bytes);
    free(map);
    map = NULL;
    return 0;
}

void fuzz_mend(uint8_t *data, size_t size)
{
    size_t end = size;
    while (end > LENGTH_BYTES && data[end - 1] != '}') end--;
    if (end == LENGTH_BYTES || size < LENGTH_BYTES) return;
    for (int i = 0; i < LENGTH_BYTES; i++)
        data[i] = (uint8_t)((end - LENGTH_BYTES) >> 8 * i);
}

static size_t header_bytes(const uint8_t *data)
{
    size_t bytes = 0;
    for (int i = 0; i < LENGTH_BYTES; i++) bytes |= (size_t)data[i] << 8 * i;
    return bytes;
}

static int64_t element_bytes(const char *dtype)
{
    static const char *const of_size[] = {[1] = " I8 U8 BOOL ",
                                          [2] = " F16 BF16 I16 U16 ",
                                          [4] = " F32 I32 U32 ",
                                          [8] = " F64 I64 U64 "};
    char word[16];
    snprintf(word, sizeof word, " %.12s ", dtype);
    for (int64_t bytes = 1; bytes <= 8; bytes *= 2)
        if (strstr(of_size[bytes], word)) return bytes;
    fuzz_broken(__FILE__, __LINE__, "unknown dtype %s", dtype);
}

/* Every tensor is what the shape says and lies where the one before it ends. */
static void check_tensors(const sbni_st_file *f, const uint8_t *data, size_t size)
{
    size_t at = LENGTH_BYTES + header_bytes(data);
    for (int i = 0; i < sbni_st_count(f); i++) {
        const sbni_st_tensor *t = sbni_st_at(f, i);
        int64_t one = element_bytes(t->dtype), bytes = 1;
        FUZZ_CHECK(t->axes >= 0 && t->axes <= SBNI_ST_MAX_AXES, "%d axes", t->axes);
        for (int axis = 0; axis < t->axes; axis++)
            FUZZ_CHECK(t->shape[axis] >= 0 &&
                           !__builtin_mul_overflow(bytes, t->shape[axis], &bytes),
                       "shape of %s", t->name);
        /* last, as in the reader: a shape such as 2^62 by 0 has a size */
        FUZZ_CHECK(!__builtin_mul_overflow(bytes, one, &bytes) && t->bytes == bytes,
                   "%s has %lld bytes, expected %lld", t->name, (long long)t->bytes,
                   (long long)bytes);
        FUZZ_CHECK(at <= size && (size_t)bytes <= size - at, "%s leaves the file",
                   t->name);
        FUZZ_CHECK((uintptr_t)t->data % (uintptr_t)one == 0, "%s is not aligned",
                   t->name);
        FUZZ_CHECK(!memcmp(t->data, data + at, (size_t)bytes), "%s has other bytes",
                   t->name);
        FUZZ_CHECK(sbni_st_find(f, t->name) == t, "%s is not found", t->name);
        at += (size_t)bytes;
    }
    FUZZ_CHECK(at == size, "%zu bytes belong to no tensor", size - at);
}

/* The same tensors and the metadata of the header, into a file. */
static void write_again(const char *path, const sbni_st_file *f, json_t *metadata)
{
    const char *pairs[MOST_METADATA][2], *key;
    int n = sbni_st_count(f), n_pairs = 0;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        const char *text = sbni_st_metadata(f, key);
        FUZZ_CHECK(text && !strcmp(text, json_string_value(value)), "metadata %s", key);
        if (n_pairs == MOST_METADATA) continue;
        pairs[n_pairs][0] = key;
        pairs[n_pairs++][1] = text;
    }
    sbni_st_tensor *tensors = calloc((size_t)n + 1, sizeof *tensors);
    FUZZ_CHECK(tensors, "no memory");
    for (int i = 0; i < n; i++) tensors[i] = *sbni_st_at(f, i);
    sbn_status status =
        sbni_st_write(path, tensors, n, (const char *const(*)[2])pairs, n_pairs);
    FUZZ_CHECK(status == SBN_OK, "what was read cannot be written: %s", sbn_last_error());
    free(tensors);
}

static void check_same(const sbni_st_tensor *a, const sbni_st_tensor *b)
{
    FUZZ_CHECK(!strcmp(a->name, b->name) && !strcmp(a->dtype, b->dtype) &&
                   a->axes == b->axes && a->bytes == b->bytes &&
                   !memcmp(a->shape, b->shape, (size_t)a->axes * sizeof a->shape[0]),
               "%s came back as %s", a->name, b->name);
}

/* Writing and reading changes nothing, and the second writing no byte. */
static void check_round_trip(const sbni_st_file *f, const uint8_t *data)
{
    json_t *header =
        json_loadb((const char *)data + LENGTH_BYTES, header_bytes(data), 0, NULL);
    json_t *metadata = json_object_get(header, "__metadata__");
    const char *first = fuzz_path("first"), *second = fuzz_path("second");
    write_again(first, f, metadata);
    sbni_st_file *copy;
    void *outer = map;
    map = NULL;
    FUZZ_CHECK(sbni_st_open(first, &copy) == SBN_OK, "what was written is refused: %s",
               sbn_last_error());
    size_t bytes, again;
    uint8_t *written = fuzz_read(first, &bytes);
    check_tensors(copy, written, bytes);
    FUZZ_CHECK(sbni_st_count(copy) == sbni_st_count(f), "another number of tensors");
    for (int i = 0; i < sbni_st_count(f); i++)
        check_same(sbni_st_at(f, i), sbni_st_at(copy, i));
    write_again(second, copy, metadata);
    uint8_t *rewritten = fuzz_read(second, &again);
    FUZZ_CHECK(bytes == again && !memcmp(written, rewritten, bytes),
               "written again with other bytes");
    free(written);
    free(rewritten);
    sbni_st_close(&copy);
    map = outer;
    json_decref(header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_path("in.safetensors");
    fuzz_write(path, data, size);
    sbni_st_file *f = NULL;
    sbn_status status = sbni_st_open(path, &f);
    if (status == SBN_OK) {
        check_tensors(f, data, size);
        check_round_trip(f, data);
        fuzz_accepted++;
    } else {
        fuzz_check_refusal(status, path);
        FUZZ_CHECK(!f, "a refused file is open");
    }
    sbni_st_close(&f);
    FUZZ_CHECK(!map, "the file is still mapped");
    return 0;
}
