"""The files that a study's data are made of: JSON Lines, one thing a line, with errors that say where they are.

`StudyDataError` names file, line and field, so that whoever replaces a file by their own finds what is wrong in it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from . import given


class TextFile(Protocol):
    """A file of a folder or of the package."""

    @property
    def name(self) -> str: ...

    def read_text(self, encoding: str) -> str: ...


class StudyDataError(ValueError):
    """Data of a study that cannot be used.

    Attributes:
        file: name of the file.
        line: number of the line, from 1; 0 where the file as a whole is meant.
        field: which of its fields; empty where the line as a whole is meant.
    """

    def __init__(self, file: str, line: int, field: str, reason: str) -> None:
        where = file + (f" line {line}" if line else "") + (f", {field}" if field else "")
        super().__init__(f"{where}: {reason}")
        self.file, self.line, self.field = file, line, field


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a file: an object whose fields are checked as they are read."""

    file: str
    number: int
    fields: dict[str, Any]

    def error(self, field: str, reason: str) -> StudyDataError:
        return StudyDataError(self.file, self.number, field, reason)

    def text(self, field: str) -> str:
        """A string that is not empty."""
        value = self.fields.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.error(field, f"is {_shown(value)}; it must be a text that is not empty")
        return value

    def choice(self, field: str, allowed: Iterable[str]) -> str:
        """One of a few strings."""
        value, known = self.text(field), list(allowed)
        if value not in known:
            raise self.error(field, f"is {_shown(value)}; it must be one of {', '.join(known)}")
        return value

    def flag(self, field: str, default: bool | None = None) -> bool:
        """true or false; required where there is no default."""
        value = self.fields.get(field, default)
        if not isinstance(value, bool):
            raise self.error(field, f"is {_shown(value)}; it must be true or false")
        return value

    def texts(self, field: str, fewest: int, most: int) -> list[str]:
        """A list of different strings, none empty."""
        value = self.fields.get(field)
        if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
            raise self.error(field, f"is {_shown(value)}; it must be a list of texts, none empty")
        if not fewest <= len(value) <= most:
            raise self.error(field, f"has {len(value)} entries; it must have {fewest} to {most}")
        if len(set(value)) < len(value):
            raise self.error(field, "has an entry twice")
        return value


def read_lines(file: TextFile, known: Iterable[str]) -> list[Line]:
    """The lines of a file, empty ones left out.

    Args:
        known: fields that a line may have; any other is an error, since it is likely a slip.
    """
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise StudyDataError(
            file.name, 0, "", f"is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    allowed = list(known)
    lines = []
    # Not splitlines(): JSON strings may hold characters that it takes for ends of lines.
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not raw.strip():
            continue
        try:
            fields = json.loads(raw)
        except json.JSONDecodeError as error:
            raise StudyDataError(
                file.name, number, "", f"is not JSON: {error.msg} at column {error.colno}"
            ) from None
        if not isinstance(fields, dict):
            raise StudyDataError(file.name, number, "", "is not an object in braces")
        for field in fields:
            if field not in allowed:
                raise StudyDataError(
                    file.name, number, field, f"is unknown; fields are {', '.join(allowed)}"
                )
        lines.append(Line(file.name, number, fields))
    if not lines:
        raise StudyDataError(file.name, 0, "", "is empty")
    return lines


def refuse_repeats(lines: Iterable[Line], field: str, key: Callable[[Line], object]) -> None:
    """An error at the first line whose key an earlier line has."""
    first: dict[object, int] = {}
    for line in lines:
        earlier = first.setdefault(key(line), line.number)
        if earlier != line.number:
            raise line.error(field, f"is that of line {earlier} too")


def _shown(value: object) -> str:
    return "missing" if value is None else given.shown(value)
