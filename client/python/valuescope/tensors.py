"""numpy arrays to and from `valuescope.v1.Tensor` (little-endian, row-major)."""

from __future__ import annotations

import numpy as np

from . import v1

_NUMPY = {
    v1.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    v1.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    v1.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    v1.DATA_TYPE_INT32: np.dtype("<i4"),
    v1.DATA_TYPE_INT64: np.dtype("<i8"),
}
_DATA_TYPE = {dtype: data_type for data_type, dtype in _NUMPY.items()}


def to_numpy(tensor: v1.Tensor) -> np.ndarray:
    """The tensor as an array of its shape. bfloat16, which numpy lacks, becomes float32 without loss."""
    shape = tuple(tensor.shape)
    if tensor.dtype == v1.DATA_TYPE_BFLOAT16:
        bits = np.frombuffer(tensor.data, "<u2").astype("<u4") << 16
        return bits.view("<f4").reshape(shape)
    if tensor.dtype not in _NUMPY:
        raise ValueError(f"tensor has no known dtype ({tensor.dtype})")
    return np.frombuffer(tensor.data, _NUMPY[tensor.dtype]).reshape(shape)


def from_numpy(array) -> v1.Tensor:
    """The tensor of an array or nested list of float32, float16, float64, int32 or int64."""
    array = np.ascontiguousarray(array)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _DATA_TYPE:
        raise TypeError(
            f"dtype {array.dtype} has no counterpart; use float32, float16, float64, int32 or int64"
        )
    return v1.Tensor(
        dtype=_DATA_TYPE[dtype], shape=array.shape, data=array.astype(dtype, copy=False).tobytes()
    )
