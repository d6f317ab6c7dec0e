"""Turns `async def` methods over a blocking transport into plain ones: they never suspend, so one `send` runs them to the end."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")
SelfT = TypeVar("SelfT")


def run(awaitable: Awaitable[T]) -> T:
    """The result of something that never suspends."""
    stepper = awaitable.__await__()
    try:
        next(stepper)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("suspended although its transport blocks")


def blocking(
    method: Callable[Concatenate[SelfT, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """The plain method of an `async def` one, with its signature and documentation."""

    @functools.wraps(method)
    def plain(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self._api, *args, **kwargs))

    return _unmarked(plain)


def blocking_iterator(
    method: Callable[Concatenate[SelfT, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """The plain generator method of an asynchronous one; closing the generator closes the other."""

    @functools.wraps(method)
    def plain(self: Any, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(self._api, *args, **kwargs)
        try:
            while True:
                try:
                    item = run(anext(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            run(items.aclose())

    return _unmarked(plain)


def _unmarked(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps the signature for `help`, and drops the link by which tools would take the method for a coroutine function."""
    plain.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
    del plain.__wrapped__  # type: ignore[attr-defined]
    return plain
