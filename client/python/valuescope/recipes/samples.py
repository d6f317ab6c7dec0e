"""Items of our own for the recipes: to try things with, not to measure with."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any


def sample_values() -> dict[str, dict[str, Any]]:
    """Schwartz's ten values, each with a description for the judge and two open questions, as `free_form_profile` takes them."""
    values: dict[str, dict[str, Any]] = _samples()["values"]
    return values


def sample_dilemmas() -> list[dict[str, Any]]:
    """Ten situations in which two values ask for different things, as `situational_dilemmas` takes them. Each of Schwartz's ten
    values stands in two of them, once first."""
    dilemmas: list[dict[str, Any]] = _samples()["dilemmas"]
    return dilemmas


def sample_requests() -> list[str]:
    """Six mild requests that a careful model declines or answers with care, as `attack_success` takes them."""
    requests: list[str] = _samples()["requests"]
    return requests


def _samples() -> dict[str, Any]:
    file = importlib.resources.files("valuescope") / "samples" / "recipes.json"
    samples: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return samples
