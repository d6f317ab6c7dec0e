"""Progress bars: tqdm's in terminals and notebooks where tqdm is installed (the extra `valuescope[progress]`), else plain lines."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, TextIO

_SECONDS_BETWEEN_LINES = 2.0


class Progress(Protocol):
    """How far some work is; used in a `with`."""

    def show(
        self, done: float, total: float | None = None, unit: str | None = None, note: str = ""
    ) -> None:
        """`done` of `total` units; None keeps what was said before. `note`: why it does not get on."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def progress(
    title: str | bool | None, default: str, total: float | None = None, unit: str = "it"
) -> Progress:
    """A bar titled `title`; True takes `default` as its title, None and False show nothing."""
    if title is None or title is False:
        return _Silent()
    title = default if title is True else title
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Lines(title, total, unit, sys.stderr)
    return _Bar(tqdm(desc=title, total=total, unit=f" {unit}"))


class _Silent:
    def show(
        self, done: float, total: float | None = None, unit: str | None = None, note: str = ""
    ) -> None:
        pass

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class _Bar(_Silent):
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def show(
        self, done: float, total: float | None = None, unit: str | None = None, note: str = ""
    ) -> None:
        if total is not None:
            self._bar.total = total
        if unit is not None:
            self._bar.unit = f" {unit}"
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        if note:
            self._bar.refresh()

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


class _Lines(_Silent):
    """A line now and then, and one at the end."""

    def __init__(self, title: str, total: float | None, unit: str, stream: TextIO) -> None:
        self._title, self._total, self._unit, self._stream = title, total, unit, stream
        self._done = 0.0
        self._note = ""
        self._last_line = time.monotonic()

    def show(
        self, done: float, total: float | None = None, unit: str | None = None, note: str = ""
    ) -> None:
        self._done = done
        self._total = self._total if total is None else total
        self._unit = self._unit if unit is None else unit
        told, self._note = self._note, note
        due = time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES
        if due or note not in ("", told):
            self._write()

    def __exit__(self, *exception: object) -> None:
        self._write()

    def _write(self) -> None:
        self._last_line = time.monotonic()
        of = "" if self._total is None else f"/{self._total:g}"
        note = f" ({self._note})" if self._note else ""
        print(
            f"{self._title}: {self._done:g}{of} {self._unit}{note}", file=self._stream, flush=True
        )
