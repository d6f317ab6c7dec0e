"""What the command line and the tasks of lm-evaluation-harness say, turned into steering and sampling."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from lm_eval.models.utils import normalize_gen_kwargs

from . import v1
from .prompts import Steer, Steering, Tokens

_DEFAULT_NEW_TOKENS = 256
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def parse_steering(text: str, tokens: Tokens = "from_last_prompt") -> Steering:
    """Steering as `--model_args` has it.

    Args:
        text: "VECTOR:COEFFICIENT@LAYERS", such as "vectors/ID:6@14", with layers "14", "10-14" or "all", several joined by "+"; or the
            name of a file, "*.json", that holds a list of the contract's Interventions.
        tokens: scope of what is not read from a file.

    Raises:
        ValueError: it is neither.
    """
    if text.endswith(".json"):
        listed = json.loads(pathlib.Path(text).read_text())
        return [json_format.ParseDict(one, v1.Intervention()) for one in listed]
    steers = []
    for one in text.split("+"):
        match = re.fullmatch(rf"(.+):({_NUMBER})@(all|(\d+)(?:-(\d+))?)", one)
        if match is None:
            raise ValueError(f"steer is {one!r}; write vectors/ID:COEFFICIENT@LAYERS or FILE.json")
        vector, coefficient, layers, first, last = match.groups()
        blocks = layers if layers == "all" else range(int(first), int(last or first) + 1)
        steers.append(Steer(vector, float(coefficient), layers=blocks, tokens=tokens))
    return steers


def sampling_of(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fields of SamplingParams, and all stop strings: the server takes 16 of them."""
    given = normalize_gen_kwargs(dict(arguments), _DEFAULT_NEW_TOKENS)
    stops = [stop for stop in given.pop("until") if stop]
    sampling = {"temperature": 0.0, "max_tokens": given.pop("max_gen_toks")}
    given.pop("do_sample", None)
    for name, value in given.items():
        if name not in _SAMPLING:
            raise ValueError(f"generation argument {name!r}; known are {', '.join(_SAMPLING)}")
        sampling[name] = value
    return sampling, stops


def before_stops(text: str, stops: Iterable[str]) -> str:
    """The text up to the first of them."""
    for stop in stops:
        text = text.split(stop)[0]
    return text
