"""Makes sampling.json: which tokens Hugging Face transformers' logits processors leave to be drawn, and how likely each is.

Rows of logits with many ties, with every filter alone and in company. Run with torch and transformers:

    python tests/golden/make_sampling.py

The processors come in the order in which generate() applies them. How torch.sort orders equal logits depends on the processor of
the machine; here it is stable, so that top_p keeps the highest ids of them. A setting whose threshold is within rounding of a token's
probability is left out, except where all numbers are exact.
"""

import functools
import json
import pathlib

import numpy as np
import torch
from transformers.generation import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

HERE = pathlib.Path(__file__).parent
LEAST_GAP = 1e-5  # between a threshold and what it is compared with
NUM_SETTINGS = 40  # of each row


def rows():
    """Name -> logits, float32. Multiples of 1/8 are exact, and tie."""
    random = np.random.RandomState(5)
    yield "normal", random.standard_normal(64)
    yield "few values", np.round(random.standard_normal(96) * 2) / 2
    yield "ties at the top", np.minimum(np.round(random.standard_normal(80) * 4) / 4, 0.75)
    yield "two values", random.randint(0, 2, 32).astype(float)
    yield "negative", np.round(random.standard_normal(48) * 4) / 4 - 9
    yield "equal", np.full(16, 0.25)
    yield "wide", np.array([(i * 7919 % 97) / 16 for i in range(1500)])


def settings(random):
    pick = lambda values: values[random.randint(len(values))]  # noqa: E731
    while True:
        yield {
            "repetition_penalty": pick([1.0, 1.0, 1.25, 2.0, 0.5]),
            "temperature": pick([1.0, 1.0, 0.5, 2.0, 0.7, 1.9]),
            "top_k": int(pick([0, 0, 1, 2, 3, 5, 8, 20, 50])),
            "top_p": pick([1.0, 1.0, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.01]),
            "min_p": pick([0.0, 0.0, 0.02, 0.1, 0.3, 0.9]),
        }


def processors_of(setting):
    processors = LogitsProcessorList()
    if setting["repetition_penalty"] != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(setting["repetition_penalty"]))
    if setting["temperature"] != 1:
        processors.append(TemperatureLogitsWarper(setting["temperature"]))
    if setting["top_k"] > 0:
        processors.append(TopKLogitsWarper(setting["top_k"]))
    if setting["top_p"] < 1:
        processors.append(TopPLogitsWarper(setting["top_p"]))
    if setting["min_p"] > 0:
        processors.append(MinPLogitsWarper(setting["min_p"]))
    return processors


def is_exact(logits):
    return len(set(logits)) == 1 and len(logits) & (len(logits) - 1) == 0


def is_clear(logits, seen, setting):
    """Whether no token is so near to a threshold that rounding decides."""
    before = {**setting, "top_p": 1.0, "min_p": 0.0}
    scores = processors_of(before)(torch.tensor([seen]), torch.tensor([logits]))[0].double()
    probabilities = torch.softmax(scores, -1)
    sums = torch.sort(probabilities)[0].cumsum(-1)
    gaps = [(sums - (1 - setting["top_p"])).abs().min()] if setting["top_p"] < 1 else []
    if setting["min_p"] > 0:
        gaps.append((probabilities / probabilities.max() - setting["min_p"]).abs().min())
    return all(gap > LEAST_GAP for gap in gaps)


def case(name, logits, seen, setting):
    scores = processors_of(setting)(torch.tensor([seen]), torch.tensor([logits]))[0]
    kept = torch.isfinite(scores).nonzero().flatten()
    probabilities = torch.softmax(scores.double(), -1)[kept]
    return {
        "row": name,
        "seen": seen,
        **setting,
        "kept": kept.tolist(),
        "probabilities": [float(f"{p:.7g}") for p in probabilities.tolist()],
    }


def main():
    torch.sort = functools.partial(torch.sort, stable=True)
    random = np.random.RandomState(11)
    golden = {"rows": {}, "cases": []}
    for name, row in rows():
        logits = row.astype(np.float32).tolist()
        golden["rows"][name] = logits
        count = 4 if len(logits) > 1000 else NUM_SETTINGS
        for setting in settings(random):
            seen = random.randint(0, len(logits), 6).tolist()
            if is_exact(logits):
                setting = {**setting, "repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}
                setting["top_p"] = [0.75, 0.5, 0.25, 1.0][count % 4]
            elif not is_clear(logits, seen, setting):
                continue
            golden["cases"].append(case(name, logits, seen, setting))
            count -= 1
            if count == 0:
                break
    lines = [json.dumps(one) for one in golden["cases"]]
    text = f'{{"rows": {json.dumps(golden["rows"])},\n"cases": [\n' + ",\n".join(lines) + "\n]}\n"
    (HERE / "sampling.json").write_text(text)


if __name__ == "__main__":
    main()
