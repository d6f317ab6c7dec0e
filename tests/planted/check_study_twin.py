"""Counts the value studies that find something where nothing is: whole studies, through the public API, of twins that lack the planted
mechanism, each with its own noise, answers and random directions.

    python check_study_twin.py [--seeds 100] [--first 0]

VALUESCOPE_BUILD is the build. A study finds something where any direction's or class's share of expressing answers differs from the
baseline with a p-value, adjusted over all comparisons of the study, of at most .05: of studies without any effect that is one in twenty
at most. Answers are drawn at temperature 1, at which twins say the words of the value by chance. A study whose twin says them too seldom
to make vectors of finds nothing; how many there are is printed. Exit code 1 where more find something than 10 of 100, or than chance
leaves of fewer once in a thousand times.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator

import planted_model as pm

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import conftest  # noqa: F401 - the client on the path, its stubs fresh
import valuescope as vs
from conftest import Server
from test_planted_study import CUED, NEUTRAL, spec_of
from valuescope import v1

LEVEL = 0.05
# At most so many of a hundred.
MOST_OF_100 = 10
DRAWS = v1.SamplingParams(max_tokens=6, temperature=1.0)


@dataclasses.dataclass(frozen=True)
class Found:
    """What one study came to.

    Attributes:
        seed: of the twin and the study.
        comparisons: how many p-values were held against each other; 0 where no vector could be made.
        smallest: the smallest adjusted p-value; 1 without comparisons.
        baseline: share of the unsteered test answers that hold a word of the value.
        largest: the largest difference of a share from it.
        seconds: that the study took.
    """

    seed: int
    comparisons: int
    smallest: float
    baseline: float
    largest: float
    seconds: float

    @property
    def anything(self) -> bool:
        return self.smallest <= LEVEL


def most_allowed(studies: int) -> int:
    """The most studies that may find something: 10 of 100, and of fewer what is exceeded once in a thousand times at one in twenty."""
    if studies >= 100:
        return MOST_OF_100 * studies // 100
    beyond, most = 1.0, -1
    while beyond > 0.001:
        most += 1
        beyond -= math.comb(studies, most) * LEVEL**most * (1 - LEVEL) ** (studies - most)
    return most


@contextlib.contextmanager
def twins(folder: pathlib.Path, seeds: list[int]) -> Iterator[vs.Client]:
    """A client of a server with the twin of each seed."""
    for seed in seeds:
        pm.write_model(folder / "models" / f"twin_{seed}", pm.Builder(seed).twin)
    names = ",".join(f"twin_{seed}" for seed in seeds)
    (folder / "store").mkdir()
    # A hundred models share the machine's memory, and none of them needs much.
    bounds = ("kv_cache", "capture_memory", "intervention_memory", "request_memory")
    flags = [f"--{bound}_bytes=64MiB" for bound in bounds]
    server = Server(
        folder / "store", f"--model_root={folder / 'models'}", f"--models={names}", *flags
    )
    with vs.Client(server.address, timeout=120) as client:
        for seed in seeds:
            client.wait_until_ready(f"models/twin_{seed}")
        yield client
    assert server.stop() == 0


def study(client: vs.Client, seed: int) -> Found:
    """A whole study of the twin of that seed."""
    started = time.monotonic()
    draws = v1.SamplingParams(seed=seed + 1)
    draws.MergeFrom(DRAWS)
    spec = spec_of(
        f"models/twin_{seed}",
        sampling=draws,
        steered_sampling=draws,
        # To a twin a cue is a word like any other.
        test_queries=[*NEUTRAL[20:], *CUED[10:]],
        steered_samples_per_query=2,
        random_directions=2,
        min_responses=2,
        neurons=v1.StudyNeurons(factors=[0.0, 3.0], top_percents=[50], max_angles=[45], random_sets=0, attribute=False),
        bootstrap_samples=200,
        seed=seed,
    )  # fmt: skip
    handle = client.value_study(spec)
    try:
        handle.wait()
    except vs.JobFailed as failed:
        if failed.job.error.reason != "TOO_FEW_RESPONSES":
            raise
        return Found(seed, 0, 1.0, 0.0, 0.0, time.monotonic() - started)
    result = handle.result().study
    (value,) = result.values
    shares = [
        measure
        for outcome in value.outcomes
        for measure in outcome.measures
        if measure.name == "expressing_share"
    ]
    adjusted = [share.adjusted_p_value for share in shares if share.HasField("adjusted_p_value")]
    assert len(adjusted) == result.num_comparisons > 0
    largest = max(abs(share.difference) for share in shares)
    seconds = time.monotonic() - started
    return Found(seed, len(adjusted), min(adjusted), shares[0].value, largest, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100, help="how many studies")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    seeds = list(range(arguments.first, arguments.first + arguments.seeds))
    found = []
    with tempfile.TemporaryDirectory() as folder, twins(pathlib.Path(folder), seeds) as client:
        for seed in seeds:
            found.append(study(client, seed))
            one = found[-1]
            print(
                f"seed {seed}: {one.comparisons} comparisons, smallest adjusted p {one.smallest:.4f}, "
                f"baseline {one.baseline:.2f}, largest difference {one.largest:.2f}, {one.seconds:.1f} s",
                flush=True,
            )
    anything = sum(one.anything for one in found)
    empty = sum(one.comparisons == 0 for one in found)
    most = most_allowed(len(found))
    print(
        f"{anything} of {len(found)} studies find something at family-wise {LEVEL}; at most {most} may. "
        f"{empty} had too few answers with a word of the value to make vectors of"
    )
    return 0 if anything <= most else 1


if __name__ == "__main__":
    sys.exit(main())
