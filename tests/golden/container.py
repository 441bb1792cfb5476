"""Writes safetensors files whose bytes depend on their contents alone: names are sorted,
where the safetensors package leaves the order of the metadata to a hash table."""

import json
import struct

import numpy as np

DTYPES = {"float64": "F64", "float32": "F32", "int64": "I64", "uint8": "U8"}


def write(path, tensors, metadata):
    """tensors: name -> array; metadata: name -> str. Wide types come first, so all align."""
    arrays = {k: np.ascontiguousarray(v).reshape(np.shape(v)) for k, v in tensors.items()}
    header, offset = {"__metadata__": dict(sorted(metadata.items()))}, 0
    order = sorted(arrays, key=lambda k: (-arrays[k].itemsize, k))
    for name in order:
        a = arrays[name]
        header[name] = {
            "dtype": DTYPES[a.dtype.name],
            "shape": list(a.shape),
            "data_offsets": [offset, offset + a.nbytes],
        }
        offset += a.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(
                arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes()
            )
