"""Measures a value study beside the same study as a transformers script with hooks.

One value is studied with the texts of vs.study_data(), but for common words in place of its word lists: generate under both conditions, label,
extract, classify and attribute neurons, steer development queries along every direction and random ones over a grid of layers and
coefficients, steer test queries at the best points, and score: words, Distinct-2, perplexity, questionnaire, multiple choice. The server does
it as a job value_study, of which a stage is from the last end of the parts of the stage before to the last end of its own. transformers
(study_peer.py) does the same with the same queries, samples, grid and sizes, in float32 with as many threads:

  batched         16 sequences a batch, neighbours in length together, only logits that are needed
  one at a time   as most people write it; of every list of prompts, responses and questions each --every-th is run and the seconds are
                  multiplied accordingly

Answers are drawn, so each chooses its own points; the guard's bound is one that everything keeps, so that both test every direction. The script
extracts and attributes from the server's own labelled responses: its vectors and the scores of its neurons must have a cosine above .9999
with the server's in every layer, and both must find the same accuracy and score of the questionnaire of the unsteered model, or the bench
ends without a ratio. Times of the script leave out its start, and what it is told and tells.

The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time

import model as single  # the bench of one model: the server, and processes that answer
import numpy as np
import valuescope as vs
from google.protobuf import json_format
from study_script import CONDITIONS, Script, Work, centred_score
from valuescope import v1

LEAST_COSINE, LEAST_RATIO = 0.9999, 2.2
AT_ONCE = 16
# Of what the script finds from what the server does: a share, and a difference of mean scores from 1 to 6, whose six probabilities agree to
# 1e-3 because the server counts labels with a space before them too.
MOST_DIFFERENCE = {"choices_accuracy": 1e-6, "questionnaire": 0.018}
VALUE = "hedonism"
# Words that a small model says often, so that few short answers have both labels; the system messages have none of them.
LABEL_WORDS = ("I", "should", "their", "or", "new")
SCORE_WORDS = ("with", "great", "best", "important", "sure", "here")
STAGES = {
    "generate": ("generate",),
    "label": ("judge",),
    "extract": ("extract",),
    "neurons": ("attribute",),
    "steer": ("sweep", "select"),
    "test": ("test",),
    "score": ("score", "measure", "ask", "choose"),
}


def parse_arguments():
    def numbers(kind):
        return lambda text: [kind(one) for one in text.split(",")]

    parser = single.argument_parser("study", __doc__, rounds=None)
    parser.add_argument("--queries", type=int, default=32, help="of training; default 32")
    parser.add_argument("--samples", type=int, default=2, help="a query and condition; default 2")
    parser.add_argument("--development", type=int, default=16, help="queries; default 16")
    parser.add_argument("--test", type=int, default=16, help="queries; default 16")
    parser.add_argument("--random", type=int, default=2, help="random directions; default 2")
    parser.add_argument("--layers", type=numbers(int), default=[14], help="steered; default 14")
    parser.add_argument(
        "--coefficients", type=numbers(float), default=[1.0, 2.0], help="default 1,2"
    )
    parser.add_argument("--max_tokens", type=int, default=32, help="of an answer; default 32")
    parser.add_argument(
        "--items",
        type=int,
        default=6,
        help="of the questionnaire, those of the value first; default 6",
    )
    parser.add_argument("--questions", type=int, default=6, help="multiple choice; default 6")
    parser.add_argument(
        "--every", type=int, default=8, help="of one at a time; 0 leaves it out; default 8"
    )
    single.add_peer(parser)
    arguments = single.parsed(parser)
    if not arguments.peer_python:
        parser.error("--peer-python is needed: there is nothing to hold it against otherwise")
    return arguments


def spec_of(arguments):
    data, model = vs.study_data(), f"models/{arguments.model}"
    sampling = v1.SamplingParams(max_tokens=arguments.max_tokens, temperature=1.0, seed=1)
    kept_by_all = v1.SweepBound(evaluation="responses", measure="distinct_2", at_least=0.0)
    spec = data.spec(
        model,
        [VALUE],
        queries=data.query_texts("train")[: arguments.queries],
        development_queries=data.query_texts("development")[: arguments.development],
        test_queries=data.query_texts("test")[: arguments.test],
        sampling=sampling,
        samples_per_query=arguments.samples,
        min_responses=2,
        steered_layers=v1.Layers(list=v1.LayerList(layers=arguments.layers)),
        coefficients=arguments.coefficients,
        random_directions=arguments.random,
        guard=[kept_by_all],
        measures=v1.MeasureTextsRequest(ngrams=[2], perplexity=True),
    )
    for choices in (spec.development_choices, spec.test_choices):
        del choices.questions[arguments.questions :]
    items = sorted(spec.questionnaire.items, key=lambda item: item.value != VALUE)
    spec.questionnaire.ClearField("items")
    spec.questionnaire.items.extend(items[: arguments.items])
    judges = (spec.values[0].judge, LABEL_WORDS), (spec.values[0].score_judge, SCORE_WORDS)
    for judge, words in judges:
        judge.word_list.words[:] = words
    return spec


# --- By the server -------------------------------------------------------------------------------


def lines_of(client, job, role="responses"):
    name = next(one.artifact for one in job.result.artifacts if one.role == role)
    lines = client.read_artifact(name).decode().splitlines()
    return [json_format.Parse(line, v1.LabelledResponse()) for line in lines]


@dataclasses.dataclass
class Served:
    """A study that the server made: its parts by phase, and seconds by stage."""

    result: v1.ValueStudyResult
    parts: dict
    seconds: dict
    total: float


def time_of(stamp):
    return stamp.seconds + stamp.nanos / 1e9


def study_by_server(server, spec):
    client = server.client
    started = time.perf_counter()
    handle = client.value_study(spec)
    handle.wait()
    total = time.perf_counter() - started
    job = handle.get()
    parts = {child.phase: client.job(child.job) for child in job.children}
    seconds, last = {}, time_of(job.create_time)
    for stage, phases in STAGES.items():
        ends = [time_of(p.end_time) for name, p in parts.items() if name.split("/")[0] in phases]
        seconds[stage] = max(ends) - last
        last = max(ends)
    seconds["the rest"] = total - sum(seconds.values())
    return Served(handle.result().study, parts, seconds, total)


def tokens_generated(client, served):
    return sum(
        len(line.response.token_ids.ids)
        for phase, part in served.parts.items()
        if phase.split("/")[0] in ("generate", "sweep", "test")
        for line in lines_of(client, part)
    )


def work_of(client, peer, spec, served):
    def encoded(lines):
        prompts = [
            [message.content for message in line.prompt.chat.messages[-2:]] for line in lines
        ]
        return peer.ask(f"encode {json.dumps(prompts)}")["ids"]

    def of_queries(queries):
        return peer.ask(f"encode {json.dumps([['', query] for query in queries])}")["ids"]

    labelled = {}
    for condition in CONDITIONS:
        lines = lines_of(client, served.parts[f"judge/{spec.values[0].value}/{condition}"])
        labelled[condition] = sorted(
            (
                [prompt, list(line.response.token_ids.ids), line.expresses]
                for prompt, line in zip(encoded(lines), lines, strict=True)
                if line.response.token_ids.ids
            ),
            key=lambda one: not one[2],
        )
    tested = lines_of(client, served.parts[f"test/{spec.values[0].value}"])
    prompted = [line for line in tested if line.condition == "system_message"]
    return Work(
        spec=spec,
        labelled=labelled,
        development=of_queries(spec.development_queries),
        test={"baseline": of_queries(spec.test_queries), "system_message": encoded(prompted)},
        system=spec.values[0].system_messages[0],
    )


# --- Both ----------------------------------------------------------------------------------------


def rows_of(vector):
    return vs.to_numpy(vector.data).astype(np.float64)


def check_equal(client, served, vectors, scores):
    """The least cosines of vectors and of scores of neurons with the script's over all layers and conditions."""
    value = served.result.values[0]
    if value.failure:
        sys.exit(f"the study found no vectors: {value.failure}")

    def least(ours, theirs):
        norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
        return float(((ours * theirs).sum(-1) / norms).min())

    ours = [rows_of(client.vector(one.vector)) for one in value.vectors]
    found = {
        "vectors": min(least(*pair) for pair in zip(ours, vectors, strict=True)),
        "scores of neurons": min(
            least(client.neuron_columns(one.neuron_set).scores, theirs)
            for one, theirs in zip(value.attributions, scores, strict=True)
        ),
    }
    for name, cosine in found.items():
        print(f"{name}: the script's have a cosine of at least {cosine:.8f} with the server's")
        if not cosine > LEAST_COSINE:
            sys.exit(f"that is not above {LEAST_COSINE}")
    return found


def check_answers(served, script):
    """What is asked without drawing has the same answers."""
    spec = script.work.spec
    right = [question.answer for question in spec.test_choices.questions]
    for outcome in served.result.values[0].outcomes[:2]:
        ours = {measure.name: measure.value for measure in outcome.measures}
        chosen, probabilities = script.answers[outcome.name]
        theirs = {
            "choices_accuracy": np.mean(np.equal(chosen, right)),
            "questionnaire": centred_score(spec.questionnaire, VALUE, probabilities),
        }
        for name, value in theirs.items():
            print(f"{outcome.name}: {name} {ours[name]:.4f}, by the script {value:.4f}")
            if not abs(ours[name] - value) < MOST_DIFFERENCE[name]:
                sys.exit("that is another number")


def print_stages(served, scripts):
    rows = []
    for stage in [*served.seconds, "all"]:
        ours = served.total if stage == "all" else served.seconds[stage]
        row = [stage, single.number(ours, 2)]
        for script in scripts.values():
            seconds = script.seconds.total() if stage == "all" else script.seconds.get(stage)
            ratio = None if seconds is None else seconds / ours
            row += [single.number(seconds, 2), single.number(ratio, 2)]
        rows.append(row)
    header = ["stage", "server s"]
    for name in scripts:
        header += [f"{name} s", "ratio"]
    single.print_table(header, rows)


def warm_up(server, peer):
    """Sixteen answers of both."""
    prompt = list(range(1000, 1040))
    server.client.generate(server.model, [prompt] * AT_ONCE, max_tokens=8, seed=1)
    given = {"prompts": [prompt] * AT_ONCE, "max_tokens": 8, "temperature": 1.0, "seed": 1}
    peer.ask(f"sample {json.dumps(given | {'steer': None, 'at_once': AT_ONCE})}")


def main():
    arguments = parse_arguments()
    results = {"threads": arguments.threads, "load_average_before": single.begin()}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as started:
        server = single.Server(arguments, directory)
        started.callback(server.close)
        peer = single.transformers_peer(arguments, script="study_peer.py")
        started.callback(peer.close)
        warm_up(server, peer)
        spec = spec_of(arguments)
        processor = single.processor_seconds(server.pid)
        served = study_by_server(server, spec)
        processor = single.processor_seconds(server.pid) - processor
        tokens = tokens_generated(server.client, served)
        print(f"server: {served.total:.1f} s, {tokens} tokens generated", flush=True)
        work = work_of(server.client, peer, spec, served)
        scripts = {"batched": Script(peer, work, AT_ONCE)}
        before = single.processor_seconds(peer.pid)
        vectors, scores = scripts["batched"].study()
        peer_processor = single.processor_seconds(peer.pid) - before
        cosines = check_equal(server.client, served, vectors, scores)
        check_answers(served, scripts["batched"])
        print(f"batched: {scripts['batched'].tokens} tokens generated", flush=True)
        if arguments.every:
            scripts["one at a time"] = Script(peer, work, 1, arguments.every)
            scripts["one at a time"].study(vectors)
    ratio = scripts["batched"].seconds.total() / served.total
    results |= {
        "peer": peer.started["versions"],
        "cosines": cosines,
        "server_seconds": served.seconds | {"all": served.total},
        "server_tokens": tokens,
        "cpu_seconds": {"server": processor, "batched": peer_processor},
        "scripts": {
            name: {"seconds": dict(script.seconds), "all": script.seconds.total()}
            for name, script in scripts.items()
        },
        "batched_tokens": scripts["batched"].tokens,
        "ratio": ratio,
        "least": LEAST_RATIO,
        "met": ratio >= LEAST_RATIO,
        "load_average_after": os.getloadavg()[0],
    }
    single.say_load(results["load_average_after"])
    print_stages(served, scripts)
    print(
        f"{ratio:.2f} times as fast as the batched script, at least {LEAST_RATIO}: {'met' if results['met'] else 'NOT met'}"
    )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
