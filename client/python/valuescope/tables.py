"""Data sets as tables: what `read_table` gives back, for pandas, polars and pyarrow.

table = client.read_table("artifacts/ID")
table.to_pandas()                       # int64 stays int64, what is missing is missing
polars.read_ipc(table.data)
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Literal, cast

from . import v1

if TYPE_CHECKING:
    import pandas
    import pyarrow


@dataclasses.dataclass(frozen=True, repr=False)
class Table:
    """A table in one of Arrow's IPC formats.

    Attributes:
        data: its bytes; equal data sets have equal ones.
        num_rows: lines of the data set that are not blank.
        file_format: "arrow", what pandas.read_feather and polars.read_ipc read, or "arrow_stream".
    """

    data: bytes
    num_rows: int
    file_format: Literal["arrow", "arrow_stream"]

    def to_arrow(self) -> pyarrow.Table:
        """The table as pyarrow has it, without a copy. Needs pyarrow (`pip install 'valuescope[arrow]'`)."""
        import pyarrow.ipc

        is_file = self.file_format == "arrow"
        read = pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream
        return read(self.data).read_all()

    def to_pandas(self) -> pandas.DataFrame:
        """The table as pandas has it, with Arrow's types (`int64[pyarrow]`): pandas' own would make floats of integers where one
        is missing. Needs pyarrow and pandas."""
        import pandas

        return self.to_arrow().to_pandas(types_mapper=pandas.ArrowDtype)

    def save(self, path: pathlib.Path | str) -> None:
        """Writes the bytes to a file."""
        pathlib.Path(path).write_bytes(self.data)

    def __repr__(self) -> str:
        return f"Table({self.num_rows} rows, {len(self.data)} bytes of {self.file_format})"


def table_format(name: str) -> v1.TableFormat:
    """A format by its name."""
    full = {"arrow": "ARROW_FILE", "arrow_stream": "ARROW_STREAM"}.get(name)
    if full is None:
        raise ValueError(f'file_format is {name!r}: must be "arrow" or "arrow_stream"')
    return cast("v1.TableFormat", v1.TableFormat.Value(f"TABLE_FORMAT_{full}"))


def line_type(lines: str | v1.LineType) -> v1.LineType:
    """What a line of a data set is, by its name or the contract's number."""
    if not isinstance(lines, str):
        return lines
    return cast("v1.LineType", v1.LineType.Value(f"LINE_TYPE_{lines.upper()}"))
