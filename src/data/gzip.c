#include "data/gzip.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "core/memory.h"

enum {
    BUFFER_BYTES = 256 * 1024,
    GZIP_WINDOW = 15 + 16, /* zlib: the largest window, gzip header and trailer only */
    DEFLATE_RATIO = 1032   /* one bit for 129 bytes */
};

struct sbni_gzip {
    FILE *stream;
    z_stream z; /* for a plain file only next_in and avail_in are in use */
    bool compressed, inflating;
    bool inside; /* a gzip member has begun and its trailer is not yet read */
    int64_t size_bytes, content_bytes; /* of the file; of what is read of it so far */
    char *path;
    unsigned char *buffer;
};

/* At the end of the file avail_in stays 0. */
static sbn_status refill(sbni_gzip *file)
{
    if (file->z.avail_in > 0) return SBN_OK;
    errno = 0;
    size_t n = fread(file->buffer, 1, BUFFER_BYTES, file->stream);
    SBN_CHECK(n > 0 || !ferror(file->stream), SBN_E_IO, "cannot read %s: %s", file->path,
              strerror(errno));
    file->z.next_in = file->buffer;
    file->z.avail_in = (uInt)n;
    return SBN_OK;
}

static sbn_status open_stream(sbni_gzip *file)
{
    struct stat s;
    SBN_CHECK(stat(file->path, &s) == 0, SBN_E_IO, "cannot open %s: %s", file->path,
              strerror(errno));
    /* Opening a pipe would wait for its writer. */
    SBN_CHECK(S_ISREG(s.st_mode), SBN_E_IO, "cannot read %s: expected a regular file, %s",
              file->path, S_ISDIR(s.st_mode) ? "got a folder" : "got something else");
    file->size_bytes = (int64_t)s.st_size;
    file->stream = fopen(file->path, "rb");
    SBN_CHECK(file->stream != NULL, SBN_E_IO, "cannot open %s: %s", file->path,
              strerror(errno));
    SBN_TRY(refill(file));
    const unsigned char *head = file->z.next_in;
    file->compressed = file->z.avail_in >= 2 && head[0] == 0x1f && head[1] == 0x8b;
    if (!file->compressed) return SBN_OK;
    SBN_CHECK(inflateInit2(&file->z, GZIP_WINDOW) == Z_OK, SBN_E_MEMORY,
              "%s: no memory to decompress", file->path);
    file->inflating = true;
    return SBN_OK;
}

sbn_status sbni_gzip_open(const char *path, sbni_gzip **out)
{
    *out = NULL;
    sbni_gzip *file;
    sbn_status status;
    SBN_TRY(sbni_alloc(1, sizeof *file, "file reader", &file));
    SBN_GOTO(sbni_copy_string(path, &file->path));
    SBN_GOTO(sbni_alloc(BUFFER_BYTES, 1, "file buffer", &file->buffer));
    SBN_GOTO(open_stream(file));
    *out = file;
    return SBN_OK;
fail:
    sbni_gzip_close(&file);
    return status;
}

void sbni_gzip_close(sbni_gzip **out)
{
    if (!out || !*out) return;
    sbni_gzip *file = *out;
    if (file->inflating) inflateEnd(&file->z);
    if (file->stream) fclose(file->stream);
    sbni_free(file->buffer);
    sbni_free(file->path);
    sbni_free(file);
    *out = NULL;
}

int64_t sbni_gzip_capacity(const sbni_gzip *file)
{
    if (!file->compressed) return file->size_bytes;
    int64_t bytes;
    return __builtin_mul_overflow(file->size_bytes, DEFLATE_RATIO, &bytes) ? INT64_MAX
                                                                           : bytes;
}

/* Inflate from the buffer to z.next_out, over the border of members if there are more. */
static sbn_status inflate_buffer(sbni_gzip *file)
{
    if (!file->inside) {
        SBN_CHECK(file->z.next_in[0] == 0x1f, SBN_E_DATA,
                  "%s: foreign bytes follow its compressed data; get the file again",
                  file->path);
        inflateReset(&file->z);
        file->inside = true;
    }
    int code = inflate(&file->z, Z_NO_FLUSH);
    if (code == Z_STREAM_END) file->inside = false;
    SBN_CHECK(code != Z_MEM_ERROR, SBN_E_MEMORY, "%s: no memory to decompress",
              file->path);
    /* Z_BUF_ERROR only says that one of the buffers is used up. */
    SBN_CHECK(code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR, SBN_E_DATA,
              "%s: compressed data are damaged (%s); get the file again", file->path,
              file->z.msg ? file->z.msg : "not gzip");
    return SBN_OK;
}

/* Read up to this many bytes, fewer only at the end of the file. */
static sbn_status read_some(sbni_gzip *file, int64_t bytes, void *out, int64_t *got)
{
    *got = 0;
    while (*got < bytes) {
        SBN_TRY(refill(file));
        if (file->z.avail_in == 0) break;
        uInt room = bytes - *got > BUFFER_BYTES ? BUFFER_BYTES : (uInt)(bytes - *got);
        file->z.next_out = (unsigned char *)out + *got;
        file->z.avail_out = room;
        if (file->compressed) {
            SBN_TRY(inflate_buffer(file));
        } else {
            uInt n = room < file->z.avail_in ? room : file->z.avail_in;
            memcpy(file->z.next_out, file->z.next_in, n);
            file->z.next_in += n, file->z.avail_in -= n;
            file->z.avail_out -= n;
        }
        *got += room - file->z.avail_out;
    }
    file->content_bytes += *got;
    return SBN_OK;
}

sbn_status sbni_gzip_read(sbni_gzip *file, int64_t bytes, void *out)
{
    int64_t want = file->content_bytes + bytes, got;
    SBN_TRY(read_some(file, bytes, out, &got));
    SBN_CHECK(got == bytes, SBN_E_DATA,
              "%s is truncated: expected %" PRId64 " bytes%s, got %" PRId64
              "; get the file again",
              file->path, want, file->compressed ? " after decompression" : "",
              file->content_bytes);
    return SBN_OK;
}

sbn_status sbni_gzip_end(sbni_gzip *file)
{
    unsigned char byte;
    int64_t want = file->content_bytes, got;
    SBN_TRY(read_some(file, 1, &byte, &got));
    SBN_CHECK(got == 0, SBN_E_DATA,
              "%s: expected %" PRId64
              " bytes%s as its header says, got more; get the file "
              "again",
              file->path, want, file->compressed ? " after decompression" : "");
    SBN_CHECK(!file->inside, SBN_E_DATA,
              "%s is truncated: it ends inside its compressed data; get the file again",
              file->path);
    return SBN_OK;
}
