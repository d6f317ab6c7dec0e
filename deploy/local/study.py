"""One value, or two, studied from end to end on a server of one's own (the method of arXiv 2509.24319), with a report at the end.

    python study.py --program build/server/valuescope-server --state FOLDER --report FOLDER

What is asked are the samples of `valuescope.study_data`, what runs is one job of the kind value_study. The server's store lies in the
folder of --state, so that whoever starts this again after Ctrl-C, a crash or a power cut goes on where it was, and is told the
findings at once where the job is done.
"""

import argparse
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import shutil
import signal
import sys
import textwrap
import uuid

import valuescope as vs
from local_server import ENDING, ServerEnded, last_lines, local_server, log_of
from tqdm.auto import tqdm
from valuescope import v1

SEED = 20250924
RANDOM_DIRECTIONS = 20
# The samples' value of which a small model's own answers hold most label words, 13 of 100 (samples/study/README.md): its vectors
# are made of more answers than others'.
VALUE = "hedonism"
_CACHE = pathlib.Path(
    os.environ.get("VALUESCOPE_CACHE", pathlib.Path.home() / ".cache" / "valuescope")
)
_BAR = "{percentage:3.0f} % |{bar:20}| {rate_fmt}, {remaining} left{postfix}"
_ENDED_BADLY = (v1.JOB_STATE_FAILED, v1.JOB_STATE_CANCELLED)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a study asks.

    Attributes:
        samples: answers a training query and condition.
        tokens: of an answer to a training query.
        steered_tokens: of an answer to a development or test query.
        development, tested: queries of these kinds.
        depths: layers that are steered, as parts of the model's depth.
        coefficients: multiples of the common norm.
        directions: that are steered; none for all.
        capability: whether multiple-choice questions guard what a steered model still knows.
        neurons: what is done with neurons.
    """

    samples: int
    tokens: int
    steered_tokens: int
    development: int
    tested: int
    depths: tuple[float, ...]
    coefficients: tuple[float, ...]
    directions: tuple[int, ...]
    capability: bool
    neurons: v1.StudyNeurons


# The layers and strengths are some at which SmolLM2-135M-Instruct still speaks, by answers to development queries.
SMALL = Size(
    samples=2,
    tokens=48,
    steered_tokens=24,
    development=12,
    tested=60,
    depths=(0.28, 0.55),
    coefficients=(2.0, 4.0),
    directions=(
        v1.STUDY_DIRECTION_INTRINSIC,
        v1.STUDY_DIRECTION_PROMPTED,
        v1.STUDY_DIRECTION_INTRINSIC_ORTHOGONAL,
        v1.STUDY_DIRECTION_PROMPTED_ORTHOGONAL,
        v1.STUDY_DIRECTION_SHARED,
    ),
    capability=False,
    neurons=v1.StudyNeurons(attribute=False),
)
FULL = Size(
    samples=2,
    tokens=48,
    steered_tokens=32,
    development=20,
    tested=80,
    depths=(0.28, 0.41, 0.55, 0.68),
    coefficients=(2.0, 4.0),
    directions=(),
    capability=True,
    neurons=v1.StudyNeurons(factors=[0.0, 2.0], removed=[8, 64], random_sets=10),
)


def study_spec(data, model, values, size):
    """The study of some values of `data` (a StudyData) on `model` (a Model)."""
    depths = (int(depth * model.num_layers) for depth in size.depths)
    fields = {
        "development_queries": data.query_texts("development")[: size.development],
        "test_queries": data.query_texts("test")[: size.tested],
        "sampling": v1.SamplingParams(
            max_tokens=size.tokens, temperature=0.9, top_p=0.95, seed=SEED
        ),
        "steered_sampling": v1.SamplingParams(max_tokens=size.steered_tokens, temperature=0.0),
        "samples_per_query": size.samples,
        "steered_layers": v1.Layers(list=v1.LayerList(layers=dict.fromkeys(depths))),
        "coefficients": size.coefficients,
        "directions": size.directions,
        "random_directions": RANDOM_DIRECTIONS,
        "neurons": size.neurons,
        "seed": SEED,
    }
    spec = data.spec(model.name, values, **fields)
    if not size.capability:
        spec.ClearField("development_choices")
        spec.ClearField("test_choices")
    return spec


def begin(client, spec):
    """The job of this study: the one that has begun already, or a new one."""
    digest = hashlib.sha256(spec.SerializeToString(deterministic=True)).digest()
    names = ", ".join(value.value for value in spec.values)
    job = client.create_job(
        v1.JobSpec(value_study=spec),
        display_name=f"study of {names}",
        request_id=str(uuid.UUID(bytes=digest[:16], version=4)),
    )
    if job.state in _ENDED_BADLY:
        job = client.retry_job(job.name)
    if job.state == v1.JOB_STATE_SUCCEEDED:
        say(f"{names}: done before")
    elif job.progress.done:
        say(f"{names}: goes on where it was (--fresh begins anew)")
    else:
        say(f"{names}: {job.estimate.tokens:,} tokens to read and to generate, at most")
    return job


def follow(client, job):
    """Waits for the job; tells of each of its parts when it is done and, in a terminal, how far the whole is."""
    told = set()
    # disable=None: only in a terminal.
    with tqdm(unit=" passes", leave=False, disable=None, bar_format=_BAR) as bar:
        for change in client.follow_job(job.name):
            job = change.job
            if bar.total is None:
                bar.initial = bar.n = job.progress.done
            bar.total = job.progress.total
            bar.update(job.progress.done - bar.n)
            running = [part.phase for part in job.children if part.state == v1.JOB_STATE_RUNNING]
            bar.set_postfix_str(", ".join(running))
            for part in job.children:
                if part.state == v1.JOB_STATE_SUCCEEDED and part.phase not in told:
                    told.add(part.phase)
                    bar.write(_part_line(client.job(part.job), part.phase), file=sys.stderr)
    if job.state != v1.JOB_STATE_SUCCEEDED:
        raise vs.JobFailed(job, v1.JobState.Name(job.state).removeprefix("JOB_STATE_").lower())


def _part_line(part, phase):
    seconds = (part.end_time.ToNanoseconds() - part.start_time.ToNanoseconds()) / 1e9
    done = f"{part.progress.done:,} {part.progress.unit}"
    if seconds >= 1:
        done += f" in {seconds:.0f} s, {part.progress.done / seconds:.1f} a second"
    return f"  {phase:32} {done}"


def tell(client, job, folder):
    """Writes the report and the results beside it; prints the findings and where the report is."""
    folder.mkdir(parents=True, exist_ok=True)
    artifacts = client.job(job.name).result.artifacts
    results = client.read_artifact(next(a.artifact for a in artifacts if a.role == "results"))
    partial = folder / ".results.json.partial"
    partial.write_bytes(results)
    os.replace(partial, folder / "results.json")
    page = vs.study_report(results, folder / "index.html")
    for number, finding in enumerate(vs.study_findings(results), start=1):
        # No line begins with the sign of a number that ends the one before.
        joined = f"{number}. {finding}".replace(" %", "\N{NO-BREAK SPACE}%")
        filled = textwrap.fill(joined, 100, subsequent_indent="   ")
        print(filled.replace("\N{NO-BREAK SPACE}", " "))
    print(f"\nreport: {page}")


def say(text):
    print(f"study: {text}", file=sys.stderr, flush=True)


def chosen(arguments):
    """The data, and the names of the values that are studied."""
    try:
        data = vs.study_data(arguments.data)
        data.definition(arguments.value)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"study: {error}")
    if not arguments.full:
        return data, [arguments.value]
    return data, [arguments.value, data.values[arguments.value].opposite]


def run(arguments):
    data, values = chosen(arguments)
    server = local_server(arguments.program, arguments.models, arguments.model, arguments.state)
    # A server of one's own that is away does not come back.
    patience = vs.Retry(attempts=1)
    with server as address, vs.connect(address, wait=60, retry=patience) as client:
        name = f"models/{arguments.model}"
        client.wait_until_ready(name)
        size = FULL if arguments.full else SMALL
        job = begin(client, study_spec(data, client.model(name), values, size))
        if job.state != v1.JOB_STATE_SUCCEEDED:
            follow(client, job)
        tell(client, job, arguments.report)


def parsed():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", required=True, help="valuescope-server")
    parser.add_argument("--state", type=pathlib.Path, required=True, help="folder of the store")
    parser.add_argument("--report", type=pathlib.Path, required=True, help="folder of the report")
    parser.add_argument("--models", type=pathlib.Path, default=_CACHE / "models", help="folder")
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="name of the model")
    parser.add_argument("--data", type=pathlib.Path, help="folder as vs.study_data takes it")
    parser.add_argument("--value", default=VALUE, help=f"which is studied; default {VALUE}")
    parser.add_argument(
        "--full", action="store_true", help="with the value across the circle, on the whole grid"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    return parser.parse_args()


def main():
    arguments = parsed()
    for one in ENDING:
        signal.signal(one, signal.default_int_handler)
    arguments.state.mkdir(parents=True, exist_ok=True)
    # Beside the store and not in it: --fresh takes that away.
    with arguments.state.with_name(f"{arguments.state.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("study: it runs already, on the same store")
        if arguments.fresh:
            shutil.rmtree(arguments.state)
            arguments.state.mkdir()
        try:
            run(arguments)
        except KeyboardInterrupt:
            say("stopped; the same command goes on from here")
            sys.exit(130)
        except (ServerEnded, vs.ValuescopeError) as error:
            say(f"{error}\n\nThe end of {log_of(arguments.state)}:")
            print(last_lines(log_of(arguments.state), 20), end="", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
