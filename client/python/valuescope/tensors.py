"""numpy arrays to and from `valuescope.v1.Tensor` (little-endian, row-major).

numpy has no bfloat16. `to_numpy` widens it to float32, which is exact, whatever is installed, so that the same program computes
the same numbers everywhere. The 16 bits themselves are kept by `to_bits`, by `to_numpy(..., widen_bfloat16=False)` (an array of
`ml_dtypes.bfloat16`, from the extra `valuescope[bfloat16]`), and by `from_numpy(array, dtype="bfloat16")`, which gives widened
numbers their old bits back.
"""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import given, v1

Array = npt.NDArray[Any]

_NUMPY: dict[v1.DataType, np.dtype[Any]] = {
    v1.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    v1.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    v1.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    v1.DATA_TYPE_INT32: np.dtype("<i4"),
    v1.DATA_TYPE_INT64: np.dtype("<i8"),
}
_DATA_TYPE = {dtype: data_type for data_type, dtype in _NUMPY.items()}
_SAFETENSORS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
_UNSIGNED: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


def to_numpy(tensor: v1.Tensor, *, widen_bfloat16: bool = True) -> Array:
    """The tensor as an array of its shape and type that belongs to the caller.

    Args:
        tensor: any tensor of the contract.
        widen_bfloat16: turns bfloat16 into float32, without loss; False gives an array of `ml_dtypes.bfloat16`.

    Raises:
        ValueError: unknown dtype, or data whose length does not fit the shape.
        ImportError: widen_bfloat16 is False and ml_dtypes is not installed.
    """
    if tensor.dtype != v1.DATA_TYPE_BFLOAT16:
        return _view(tensor, _dtype(tensor)).copy()
    bits = _view(tensor, _UNSIGNED[2])
    if widen_bfloat16:
        return (bits.astype("<u4") << 16).view("<f4")
    return bits.copy().view(_bfloat16())


def to_bits(tensor: v1.Tensor) -> Array:
    """The elements' bits as unsigned integers of the same width, in the tensor's shape: uint16 for bfloat16 and float16."""
    itemsize = 2 if tensor.dtype == v1.DATA_TYPE_BFLOAT16 else _dtype(tensor).itemsize
    return _view(tensor, _UNSIGNED[itemsize]).copy()


def from_numpy(array: npt.ArrayLike, dtype: str | None = None) -> v1.Tensor:
    """The tensor of an array or nested list.

    Args:
        array: elements of float32, float16, float64, int32, int64 or `ml_dtypes.bfloat16`, of any strides and byte order; also a
            tensor of torch (bfloat16 becomes float32 without loss).
        dtype: converts to one of these first; "bfloat16" rounds to the nearest, ties to even, and gives numbers that are
            bfloat16 already their own bits.

    Raises:
        TypeError: a dtype that the contract lacks.
    """
    array = given.array(array)
    if dtype == "bfloat16" or (dtype is None and array.dtype.name == "bfloat16"):
        return v1.Tensor(
            dtype=v1.DATA_TYPE_BFLOAT16, shape=array.shape, data=_bfloat16_bits(array).tobytes()
        )
    if dtype is not None:
        array = array.astype(dtype)
    wire = array.dtype.newbyteorder("<")
    if wire not in _DATA_TYPE:
        raise TypeError(
            f"dtype {array.dtype} has no counterpart; use float32, float16, bfloat16, float64, int32 or int64"
        )
    return v1.Tensor(
        dtype=_DATA_TYPE[wire],
        shape=array.shape,
        data=array.astype(wire, copy=False).tobytes(),
    )


def read_tensor_file(data: bytes) -> dict[str, Array]:
    """The arrays of a safetensors file by name, such as the columns of a neuron set; they belong to the caller.

    Raises:
        ValueError: not such a file, or a dtype other than F64, F32, I32 and I64.
    """
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        arrays = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            array = np.frombuffer(data[begin:end], _SAFETENSORS[entry["dtype"]])
            arrays[name] = array.reshape(entry["shape"]).copy()
        return arrays
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no safetensors file, or one of another dtype: {error}") from error


def data_type(dtype: str) -> v1.DataType:
    """A `DataType` from its lower-case name, such as "float32" or "bfloat16"."""
    name = f"DATA_TYPE_{dtype.upper()}"
    if name not in v1.DataType.keys() or name == "DATA_TYPE_UNSPECIFIED":
        names = [n.removeprefix("DATA_TYPE_").lower() for n in v1.DataType.keys()[1:]]
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(names)}")
    return cast("v1.DataType", v1.DataType.Value(name))


def _dtype(tensor: v1.Tensor) -> np.dtype[Any]:
    if tensor.dtype not in _NUMPY:
        raise ValueError(f"tensor has no known dtype ({tensor.dtype})")
    return _NUMPY[tensor.dtype]


def _view(tensor: v1.Tensor, dtype: np.dtype[Any]) -> Array:
    return np.frombuffer(tensor.data, dtype).reshape(tuple(tensor.shape))


def _bfloat16_bits(array: Array) -> Array:
    if array.dtype.name == "bfloat16":
        return np.ascontiguousarray(array).view("<u2")
    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype("<u4")) >> 16
    # Rounding could carry a NaN's payload into infinity, so NaNs are cut and kept NaN by their quiet bit.
    cut = (bits >> 16) | np.where(bits & 0xFFFF, np.uint32(0x40), np.uint32(0))
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, cut, rounded).astype("<u2").reshape(array.shape)


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes

        return cast("np.dtype[Any]", np.dtype(ml_dtypes.bfloat16))
    except ImportError:
        raise ImportError(
            "arrays of bfloat16 need ml_dtypes: pip install 'valuescope[bfloat16]'"
        ) from None
