"""Measures what scores of neurons cost beside forward passes of ours and beside transformers, through the server.

Every case takes turns with what it is held against, with new tokens each time, for --rounds rounds behind a small one that warms up; a ratio
is the median of the rounds' ratios. Responses are of 32 random tokens behind prompts of 48 (--prompt_tokens). Forwards are captures of one token at one layer,
16 sequences a request, which are hardly more than the passes, or of the sum of the response's logits where scores are of those; half of
them run before and half behind what is held against them.

  contribution          all neurons of all blocks over --responses responses, beside forwards of as many
  patching              the same by attribution patching, along the last block, and for the log-probability of the response
  ablation              --neurons neurons of one block over one response, along the last block, beside so many forwards of the response's
                        tokens, of which the blocks behind the neurons' take their share of all blocks
  integrated gradients  all neurons of one block over one response, along the last block, with --steps nodes, beside transformers
                        (transformers_peer.py), which runs the blocks behind alone as well, 16 nodes at once, but of the prompt's tokens too;
                        the scores of both are equal to 1e-3, or the bench ends without a ratio. Left out without --peer-python.
  mixed lengths         all neurons of all blocks over --mixed responses of 4 to 60 tokens behind prompts of 8 to 88, of which each has
                        --answers, as samples of one query do, beside transformers,
                        whose hooks reduce each batch of 16, sorted by length, to a response's means; the means of both are equal to 1e-5,
                        or the bench ends without a ratio. Left out without --peer-python.
  job                   the same as a job, beside the same as a call

The last line is JSON. CPU seconds, which other work on the machine disturbs less, are those of the server and of the peer.

Build first: ninja -C build valuescope-server
"""

import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile

import model as single  # the bench of one model: the server, and processes that answer
import numpy as np
import valuescope as vs
from valuescope import v1

# About what a chat template makes of a question behind a system message, and an answer of two sentences.
PROMPT, RESPONSE, CHUNK = 48, 32, 16
NODES_AT_ONCE = 16  # of the peer
ABLATED, INTEGRATED = (0, 14, 27), (0, 14)
MOST = {"contribution": 1.1, "patching": 3.0, "integrated gradients": 0.5, "ablation": 1.3}
MOST |= {"mixed lengths": 0.65, "job": 1.03}
# Of the peer's scores, and means, from ours.
MOST_DIFFERENCE, MOST_DIFFERENCE_OF_MEANS = 1e-3, 1e-5
MEANS = ("mean_expressing", "mean_non_expressing")
LOGPROB = v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget())


@dataclasses.dataclass
class Load:
    """How much a case looks at."""

    responses: int
    neurons: int
    steps: int
    mixed: int


WARM_UP = Load(responses=CHUNK, neurons=CHUNK, steps=NODES_AT_ONCE, mixed=CHUNK)


def parse_arguments():
    parser = single.argument_parser("attribution", __doc__, rounds=3)
    parser.add_argument("--responses", type=int, default=64, help="default 64")
    parser.add_argument("--neurons", type=int, default=1000, help="to ablate; default 1000")
    parser.add_argument("--prompt_tokens", type=int, default=PROMPT, help=f"default {PROMPT}")
    parser.add_argument("--steps", type=int, default=64, help="of the paths; default 64")
    parser.add_argument("--mixed", type=int, default=256, help="of mixed lengths; default 256")
    parser.add_argument(
        "--answers", type=int, default=1, help="of mixed lengths, to each prompt; default 1"
    )
    parser.add_argument(
        "--cases", type=lambda text: text.split(","), metavar="CASE[,CASE]", default=list(MOST),
        help=f"of {', '.join(MOST)}; default all of them",
    )  # fmt: skip
    single.add_peer(parser)
    return single.parsed(parser)


@dataclasses.dataclass
class Turn:
    """What both took once."""

    seconds: float
    against: float
    processor: tuple = ()  # CPU seconds of both, where they are told

    @property
    def ratio(self):
        return self.seconds / self.against


def processor_seconds_of(process, run):
    """CPU seconds of a process, and what `run` returns."""
    before = single.processor_seconds(process.pid)
    result = run()
    return single.processor_seconds(process.pid) - before, result


class Bench:
    def __init__(self, server, peer, arguments):
        self.server, self.peer, self.answers = server, peer, arguments.answers
        self.client, self.model = server.client, server.model
        self.prompt_tokens = arguments.prompt_tokens
        self.generator = np.random.default_rng(1)
        about = self.client.model(self.model)
        self.blocks = about.num_layers
        self.direction = self.generator.normal(size=about.hidden_size).astype(np.float32)
        rows = np.tile(self.direction, (self.blocks, 1))
        self.vector = self.client.create_vector(self.model, rows, layers=range(self.blocks)).name
        along = v1.VectorProjectionTarget(vector=self.vector, layer=self.blocks - 1)
        self.projection = v1.AttributionTarget(vector_projection=along)

    def cases(self, load, number):
        """Of round `number`, by name: what measures a case once."""
        found = {
            "contribution": lambda: self.contribution(load.responses),
            "patching, projection": lambda: self.patching(load.responses, self.projection),
            "patching, log-probability": lambda: self.patching(load.responses, LOGPROB),
        }
        for block in INTEGRATED if self.peer else ():
            found[f"integrated gradients, block {block}"] = lambda block=block: self.integration(
                block, load.steps, peer_first=number % 2 == 1
            )
        for block in ABLATED:
            found[f"ablation, block {block}"] = lambda block=block: self.ablation(
                block, load.neurons
            )
        if self.peer:
            found["mixed lengths"] = lambda: self.mixed_lengths(load.mixed, number % 2 == 1)
        found["job"] = lambda: self.job(load.mixed, number % 2 == 1)
        return found

    def contribution(self, count):
        responses = self.responses(count)
        for one in responses[::2]:
            one.expresses = False
        return self.beside_forwards(count, lambda: self.attribute(responses, self.vector))

    def patching(self, count, target):
        responses = self.responses(count)
        how = {"attribution_patching": v1.AttributionPatching(), "target": target}
        # What reads logits is held against forwards that make them.
        reads = "logits" if target is LOGPROB else "residual_post"
        return self.beside_forwards(count, lambda: self.attribute(responses, **how), reads)

    def ablation(self, block, neurons):
        candidates = [v1.NeuronId(layer=block, index=index) for index in range(neurons)]
        how = v1.CausalAblation(candidates=candidates)
        responses = self.responses(1)

        def run():
            self.attribute(responses, causal_ablation=how, target=self.projection, layers=[block])

        count = 2 * CHUNK
        turn = self.beside_forwards(count, run)
        a_token = turn.against / (count * (self.prompt_tokens + RESPONSE))
        share = (self.blocks - 1 - block) / self.blocks
        return Turn(turn.seconds, neurons * RESPONSE * a_token * share)

    def integration(self, block, steps, peer_first):
        responses = self.responses(1)
        how = v1.IntegratedGradients(steps=steps)
        made = {}

        def ours():
            made["set"] = self.attribute(
                responses, integrated_gradients=how, target=self.projection, layers=[block]
            )

        def theirs():
            made["peer"] = self.integrated_by_peer(responses[0], block, steps)

        if peer_first:
            theirs()
        seconds = single.seconds_of(ours)
        if not peer_first:
            theirs()
        scores = self.client.neuron_columns(made["set"].name).scores[0]
        difference = np.linalg.norm(scores - made["peer"]["scores"]) / np.linalg.norm(scores)
        if not difference < MOST_DIFFERENCE:
            sys.exit(f"block {block}: the peer's scores differ by {difference:.2g} of their norm")
        return Turn(seconds, made["peer"]["seconds"])

    def mixed_lengths(self, count, peer_first):
        responses = self.mixed(count)
        given = [
            [list(one.prompt.token_ids.ids), list(one.response.token_ids.ids), one.expresses]
            for one in responses
        ]
        line = f"contribute {json.dumps({'responses': given, 'at_once': CHUNK})}"
        made = {}

        def ours():
            made["set"] = self.attribute(responses, self.vector)

        def theirs():
            made["processor"], made["peer"] = processor_seconds_of(
                self.peer, lambda: self.peer.ask(line)
            )

        if peer_first:
            theirs()
        processor, seconds = processor_seconds_of(self.server, lambda: single.seconds_of(ours))
        if not peer_first:
            theirs()
        self.check_means(made["set"], made["peer"]["means"])
        return Turn(seconds, made["peer"]["seconds"], (processor, made["processor"]))

    def check_means(self, neuron_set, peer):
        """Of the expressing responses and of the others, all blocks' together."""
        columns = self.client.neuron_columns(neuron_set.name)
        for name, theirs in zip(MEANS, peer, strict=True):
            ours = columns.column(name)
            difference = np.linalg.norm(ours - np.array(theirs)) / np.linalg.norm(ours)
            print(f"  {name}: the peer's differ by {difference:.1g} of their norm")
            if not difference < MOST_DIFFERENCE_OF_MEANS:
                sys.exit("that is too much")

    def job(self, count, call_first):
        """Behind an upload, as of jobs that are large."""
        responses = self.client.write_artifact(self.mixed(count)).name
        request = vs.attribution_request(self.model, responses, self.vector)

        def run_job():
            self.client.wait_for_job(
                self.client.create_job(v1.JobSpec(attribute_neurons=request)).name
            )

        measured = {}
        for call in (call_first, not call_first):
            run = (lambda: self.attribute(responses, self.vector)) if call else run_job
            measured[call] = processor_seconds_of(
                self.server, lambda run=run: single.seconds_of(run)
            )
        (job_processor, job), (processor, seconds) = measured[False], measured[True]
        return Turn(job, seconds, (job_processor, processor))

    def mixed(self, count):
        """Half of them express."""
        draws, responses, prompt = self.generator, [], []
        for index in range(count):
            if index % self.answers == 0:
                prompt = draws.integers(100, 40_000, draws.integers(8, 89)).tolist()
            response = draws.integers(100, 40_000, draws.integers(4, 61)).tolist()
            responses.append(vs.labelled(prompt, response, index % 2 == 0))
        return responses

    def integrated_by_peer(self, response, block, steps):
        arguments = {
            "prompt": list(response.prompt.token_ids.ids),
            "response": list(response.response.token_ids.ids),
            "vector": self.direction.tolist(),
            "block": block,
            "steps": steps,
            "at_once": NODES_AT_ONCE,
        }
        return self.peer.ask(f"integrate {json.dumps(arguments)}")

    def responses(self, count):
        """Expressing, of random tokens."""
        first = self.prompt_tokens
        ids = self.generator.integers(100, 40_000, (count, first + RESPONSE)).tolist()
        return [vs.labelled(one[:first], one[first:], True) for one in ids]

    def attribute(self, responses, vector="", **how):
        return self.client.attribute_neurons(self.model, responses, vector, **how).neuron_set

    def beside_forwards(self, count, run, reads="residual_post"):
        before = single.seconds_of(lambda: self.forwards(count // 2, reads))
        seconds = single.seconds_of(run)
        return Turn(
            seconds, before + single.seconds_of(lambda: self.forwards(count - count // 2, reads))
        )

    def forwards(self, count, reads):
        if reads == "logits":
            tap = vs.tap("logits", tokens="response", reduction="sum")
        else:
            tap = vs.tap("residual_post", [0], "last")
        given = [(one.prompt, one.response) for one in self.responses(count)]
        for first in range(0, count, CHUNK):
            self.client.capture(self.model, given[first : first + CHUNK], [tap])


def measure(bench, arguments):
    """By case the turns of all rounds."""

    def cases(load, number):
        found = bench.cases(load, number).items()
        return {case: run for case, run in found if case.partition(",")[0] in arguments.cases}

    for run in cases(WARM_UP, 0).values():
        run()
    load = Load(arguments.responses, arguments.neurons, arguments.steps, arguments.mixed)
    turns = {}
    for number in range(arguments.rounds):
        for case, run in cases(load, number).items():
            turn = run()
            turns.setdefault(case, []).append(turn)
            print(
                f"round {number}, {case}: {turn.seconds:.2f} s, ratio {turn.ratio:.3f}", flush=True
            )
            if turn.processor:
                print(f"  CPU seconds {' against '.join(f'{s:.1f}' for s in turn.processor)}")
    return turns


def summary(case, turns):
    ratio = statistics.median(turn.ratio for turn in turns)
    most = MOST[case.partition(",")[0]]
    return {
        "seconds": [turn.seconds for turn in turns],
        "against_seconds": [turn.against for turn in turns],
        "cpu_seconds": [turn.processor for turn in turns],
        "ratios": [turn.ratio for turn in turns],
        "ratio": ratio,
        "most": most,
        "met": ratio <= most,
    }


def print_cases(cases):
    rows = [
        [
            case,
            single.number(statistics.median(found["seconds"]), 2),
            single.number(statistics.median(found["against_seconds"]), 2),
            single.number(found["ratio"]),
            " ".join(single.number(ratio) for ratio in found["ratios"]),
            single.number(found["most"], 1),
            "met" if found["met"] else "NOT met",
        ]
        for case, found in cases.items()
    ]
    single.print_table(["case", "s", "against s", "ratio", "rounds", "at most", ""], rows)


def main():
    arguments = parse_arguments()
    results = {"threads": arguments.threads, "load_average_before": single.begin()}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as started:
        server = single.Server(arguments, directory)
        started.callback(server.close)
        peer = None
        if arguments.peer_python:
            peer = single.transformers_peer(arguments)
            started.callback(peer.close)
        else:
            print("no --peer-python: integrated gradients are held against nothing and left out")
        turns = measure(Bench(server, peer, arguments), arguments)
    results |= {
        "peer": peer.started["versions"] if peer else None,
        "cases": {case: summary(case, of_case) for case, of_case in turns.items()},
        "load_average_after": os.getloadavg()[0],
    }
    single.say_load(results["load_average_after"])
    print_cases(results["cases"])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
