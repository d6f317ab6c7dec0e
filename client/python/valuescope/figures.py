"""Numbers of the contract's messages in arrays, cells and plots."""

from __future__ import annotations

from typing import Any

import numpy as np

# Colour-blind safe; those of the demo's page.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
GREY = "#888888"


def optional(message: Any, field: str) -> float:
    """A field's number, NaN where it is unset."""
    return float(getattr(message, field)) if message.HasField(field) else float("nan")


def shown(cell: object) -> str:
    """A cell of a table: three digits, nothing for NaN."""
    if isinstance(cell, float):
        return "" if np.isnan(cell) else f"{cell:.3g}"
    return str(cell)


def new_axes(width: float, height: float) -> Any:
    """Matplotlib's axes of a new figure of this size, inches."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as missing:
        raise ImportError("plots need matplotlib: pip install matplotlib") from missing
    return plt.subplots(figsize=(width, height))[1]
