"""Measures how complete integrated gradients are where nodes adapt, and what that costs.

--prompts questions are answered greedily by --tokens tokens; of each answer the log-probability is attributed to the neurons of every
block, one answer a call, so that every gap is of one answer and block. dL is what the log-probability loses where the block's neurons are
zero. A gap is held against max(|dL|, a tenth of the median |dL| over the answer's blocks), at most 1 %.

The cost is the time of such a call, beside that of a forward of as many tokens (a capture of one token at one layer) before it and another
behind it, and its passes: one a node, forward and backward behind the block, and one a block for dL. With how many nodes a block ended is
known by calls with given steps, untimed: the first with its scores. They take as long again, so --counted answers alone are asked about. The
last line is JSON.

Build first: ninja -C build valuescope-server
"""

import collections
import json
import os
import statistics
import sys
import tempfile
import time

import model as single  # the bench of one model: the server
import numpy as np
import valuescope as vs
from valuescope import v1

MOST_GAP, LEAST_SHARE = 0.01, 0.1
RULES = (12, 36, 108, 324)  # nodes that a block may end with
SAME = 1e-5  # of the norm of scores, where 12 nodes and 36 differ by more unless 4 had been enough
TARGET = v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget())
QUESTIONS = [
    f"{verb} {thing}?"
    for verb in ("What should I know about", "How would you explain")
    for thing in (
        "moving to another city",
        "honesty among friends",
        "a quiet evening",
        "learning an instrument",
        "the weather in spring",
        "saving money",
        "climbing a mountain",
        "cooking for guests",
        "old letters",
        "helping a neighbour",
    )
]


def parse_arguments():
    parser = single.argument_parser("completeness", __doc__, rounds=None)
    parser.add_argument("--prompts", type=int, default=20, help="1 to 20; default 20")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer; default 16")
    parser.add_argument("--counted", type=int, default=4, help="answers, 1 or more; default 4")
    return single.parsed(parser)


class Bench:
    def __init__(self, server):
        self.client, self.model = server.client, server.model
        self.generator = np.random.default_rng(1)

    def of_answer(self, question, tokens, counted):
        """What one answer's blocks come to, and the cost."""
        prompt = vs.chat(question, system="")
        made = self.client.generate(
            self.model, prompt, max_tokens=tokens, temperature=0, ignore_eos=True
        )
        response = vs.labelled(prompt, made.token_ids, True)
        length = made.response.usage.prompt_tokens
        before = self.seconds_of_forward(length, tokens)
        started = time.perf_counter()
        neuron_set = self.attributed(response)
        seconds = time.perf_counter() - started
        after = self.seconds_of_forward(length, tokens)
        return {
            "gaps": gaps(neuron_set),
            "nodes": self.nodes(response, neuron_set) if counted else None,
            "seconds": seconds,
            "forwards": seconds / ((before + after) / 2),
        }

    def attributed(self, response, layers="all", **how):
        return self.client.attribute_neurons(
            self.model,
            [response],
            layers=layers,
            integrated_gradients=v1.IntegratedGradients(**how),
            target=TARGET,
            top_k=0,
        ).neuron_set

    def seconds_of_forward(self, prompt, response):
        ids = self.generator.integers(100, 40_000, prompt + response).tolist()
        tap = vs.tap("residual_post", [0], "last")
        started = time.perf_counter()
        self.client.capture(self.model, [(ids[:prompt], ids[prompt:])], [tap])
        return time.perf_counter() - started

    def scores(self, neuron_set):
        columns = self.client.neuron_columns(neuron_set.name)
        return dict(zip(columns.layers, columns.scores, strict=True))

    def nodes(self, response, adaptive):
        """Of each block as many as it ended with."""
        left, found = self.scores(adaptive), {}
        for steps in RULES:
            given = self.scores(self.attributed(response, list(left), steps=steps))
            for layer, scores in given.items():
                if np.linalg.norm(scores - left[layer]) <= SAME * np.linalg.norm(scores):
                    found[layer] = steps
                    del left[layer]
            if not left:
                return [found[layer] for layer in sorted(found)]
        sys.exit(f"blocks {list(left)} ended with the scores of no rule")


def gaps(neuron_set):
    """Of each block, |gap| over what it is held against."""
    missed = np.array([layer.completeness_gap for layer in neuron_set.layers])
    effects = np.abs(missed + [layer.score_sum for layer in neuron_set.layers])
    return (np.abs(missed) / np.maximum(effects, LEAST_SHARE * np.median(effects))).tolist()


def print_answers(answers):
    found = np.array([one["gaps"] for one in answers])
    met, worst = found <= MOST_GAP, np.unravel_index(found.argmax(), found.shape)
    print(
        f"\n{met.sum()} of {met.size} pairs of answer and block ({100 * met.mean():.1f} %) have a gap of at most {100 * MOST_GAP:.0f} % of "
        f"max(|dL|, .1 median |dL|): {'met' if met.all() else 'NOT met'}"
    )
    print(
        f"largest gap {100 * found.max():.2g} % (answer {worst[0]}, block {worst[1]}), median {100 * np.median(found):.2g} %"
    )
    counted = [one["nodes"] for one in answers if one["nodes"]]
    blocks = collections.Counter(nodes for of_answer in counted for nodes in of_answer)
    print(
        f"an answer: {statistics.median(one['seconds'] for one in answers):.2f} s, as long as "
        f"{statistics.median(one['forwards'] for one in answers):.0f} forwards of it, "
        f"{statistics.median(map(passes, counted)):.0f} passes (medians); nodes of blocks: "
        + ", ".join(f"{nodes} of {blocks[nodes]}" for nodes in sorted(blocks))
    )


def passes(nodes):
    return sum(nodes) + len(nodes)


def main():
    arguments = parse_arguments()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before anything ran")
    answers = []
    with tempfile.TemporaryDirectory() as directory:
        server = single.Server(arguments, directory)
        try:
            bench = Bench(server)
            bench.seconds_of_forward(16, 16)  # warms up
            for number, question in enumerate(QUESTIONS[: arguments.prompts]):
                counted = number < arguments.counted
                answers.append(bench.of_answer(question, arguments.tokens, counted))
                print(
                    f"{question} {answers[-1]['seconds']:.2f} s, largest gap {100 * max(answers[-1]['gaps']):.2g} %",
                    flush=True,
                )
        finally:
            server.close()
    print_answers(answers)
    print(json.dumps({"answers": answers}))


if __name__ == "__main__":
    main()
