"""What people hold, as plain Python: lists, tuples, generators, numpy arrays, pandas columns and torch tensors become lists, their
scalars become numbers.

Nothing here imports pandas or torch: such values know how to become a list (`tolist`). What could be read in two ways is refused
in words: a string is never a list of letters, a number with a fraction never a whole one, a table never a list of its columns' names.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60


def shown(value: object) -> str:
    """`value` for an error message: at most a line of it."""
    return _SHOWN.repr(value)


def plain(value: Any) -> Any:
    """A list for an array, a column or a tensor, a Python number for a scalar of theirs; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def items(value: Any, what: str) -> list[Any]:
    """The items of a sequence or generator; `what` names it in the error.

    Raises:
        TypeError: a string, a mapping, a table, a message or a scalar.
    """
    if hasattr(value, "columns"):
        raise TypeError(f"{what} is a table; pass one of its columns")
    listed = plain(value)
    if isinstance(listed, (str, bytes, bytearray, Mapping, Message)) or not isinstance(
        listed, Iterable
    ):
        raise TypeError(f"{what} is {shown(value)}; it must be a list")
    return list(listed)


def whole(value: Any, what: str) -> int:
    """A whole number; `what` names it in the error.

    Raises:
        TypeError: anything else, 3.0 and True too: the one is a column with gaps, the other a mask.
    """
    number = plain(value)
    try:
        if not isinstance(number, bool):
            return operator.index(number)
    except TypeError:
        pass
    raise TypeError(f"{what} is {shown(value)}; it must be a whole number")


def wholes(value: Any, what: str) -> list[int]:
    """Several whole numbers, or one by itself."""
    listed = plain(value)
    if not isinstance(listed, Iterable):
        return [whole(listed, what)]
    return [whole(one, f"item {place} of {what}") for place, one in enumerate(items(listed, what))]


def strings(value: Any, what: str) -> list[str]:
    """Several strings, or one by itself."""
    if isinstance(value, str):
        return [value]
    listed = items(value, what)
    for place, one in enumerate(listed):
        if not isinstance(one, str):
            raise TypeError(f"item {place} of {what} is {shown(one)}; it must be a string")
    return listed


def array(value: Any, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """A numpy array of an array, a nested list or a tensor, also one that has gradients, lies on a GPU or is bfloat16."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # exact; numpy has no bfloat16
    return np.asarray(value, dtype)
