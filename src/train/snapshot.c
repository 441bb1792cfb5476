#include "train/snapshot.h"

#include <string.h>

#include "core/memory.h"
#include "core/tensor.h"

/* Copy all that a snapshot holds to it or, with bytes NULL, only count. */
static int64_t walk(sbn_model *model, char *bytes, bool restores)
{
    int n, exponents;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    int64_t *exponent = sbn_model_grad_exponents(model, &exponents), at = 0;
    sbn_dtype dtype = sbn_model_input_shape(model).dtype;
    for (int i = 0; i <= n; i++) {
        void *here = i < n ? t[i].data : exponent;
        int64_t size = i < n && !t[i].is_integer ? sbn_dtype_bytes(dtype) : 8,
                count = size * (i < n ? t[i].count : exponents);
        if (i < n && t[i].grad) continue; /* a parameter */
        if (bytes && restores) memcpy(here, bytes + at, (size_t)count);
        if (bytes && !restores) memcpy(bytes + at, here, (size_t)count);
        at += count;
    }
    return at;
}

sbn_status sbni_snapshot_take(sbn_model *model, sbni_snapshot *snapshot)
{
    int64_t bytes = walk(model, NULL, false);
    if (!snapshot->bytes)
        SBN_TRY(sbni_alloc(bytes, 1, "running statistics", &snapshot->bytes));
    walk(model, snapshot->bytes, false);
    return SBN_OK;
}

void sbni_snapshot_restore(const sbni_snapshot *snapshot, sbn_model *model)
{
    walk(model, snapshot->bytes, true);
}

void sbni_snapshot_free(sbni_snapshot *snapshot)
{
    sbni_free(snapshot->bytes);
    snapshot->bytes = NULL;
}
