"""Measures a questionnaire under several steerings, through the server, beside transformers with hooks.

--items statements are asked in both orders of six options under --steerings additions of a vector of their own behind one block, which act
on every token, or from the last token of the prompt on. Transformers (transformers_peer.py) reads the options' logits from one forward of
each prompt, 16 at once, sorted by length, with a hook that adds the vector at the same tokens. Both are given the same texts in each round,
which no round before had, and must agree on every probability to 1e-3, or the bench ends without a ratio. They take turns for --rounds
rounds behind a small one that warms up; a ratio, how many times as fast the server is, is the median of the rounds' ratios.

The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import warnings

import model as single  # the bench of one model: the server, and processes that answer
import numpy as np
import valuescope as vs

BLOCK, NORM = 14, 6.0
AT_ONCE = 16  # of the peer
MOST_DIFFERENCE = 1e-3
SCOPES = {"all tokens": "all", "from the last of the prompt": "from_last_prompt"}
LEAST = {"all tokens": 1.4, "from the last of the prompt": 3.0}
OPTIONS = [
    "not like me at all",
    "not like me",
    "a little like me",
    "somewhat like me",
    "like me",
    "very much like me",
]
TEMPLATE = (
    "Here is a short description of a person. Please read it and think about how much this person is like you. "
    "Answer with the number of one option and nothing else.\n\n{item}\n\nHow much like you is this person?\n{options}"
)
WHO = ("a neighbour", "a colleague", "a cousin", "a teacher", "a friend", "a stranger")
WHAT = (
    "always looks for new things to do",
    "thinks that everybody should be treated alike",
    "wants to be the one who decides",
    "would give up comfort to keep a promise",
    "keeps the house clean and in order",
    "likes to be praised for what was achieved",
)


def parse_arguments():
    parser = single.argument_parser("questionnaire", __doc__, rounds=2)
    parser.add_argument("--items", type=int, default=40, help="default 40")
    parser.add_argument("--steerings", type=int, default=8, help="default 8")
    single.add_peer(parser)
    arguments = single.parsed(parser)
    if not arguments.peer_python:
        parser.error("--peer-python is needed: there is nothing to hold it against otherwise")
    return arguments


@dataclasses.dataclass
class Turn:
    """What both took once."""

    seconds: float
    peer_seconds: float

    @property
    def ratio(self):
        return self.peer_seconds / self.seconds


class Bench:
    def __init__(self, server, peer):
        self.client, self.model, self.peer = server.client, server.model, peer
        self.generator = np.random.default_rng(2)
        self.hidden = self.client.model(self.model).hidden_size

    def turn(self, scope, num_items, num_steerings, peer_first):
        items = self.items(num_items)
        directions = self.generator.normal(size=(num_steerings, self.hidden))
        directions *= NORM / np.linalg.norm(directions, axis=1, keepdims=True)
        directions = directions.astype(np.float32)
        conditions = [
            vs.Steer(row, 1.0, layers=[BLOCK], tokens=SCOPES[scope]) for row in directions
        ]
        made = {}

        def ours():
            made["asked"] = self.client.ask_questionnaire(
                self.model, items, OPTIONS, TEMPLATE, conditions=conditions
            )

        def theirs():
            made["peer"] = self.peer.ask(
                "choose "
                + json.dumps(
                    {
                        "turns": [turn_of(item, order) for item in items for order in (1, -1)],
                        "labels": [str(k + 1) for k in range(len(OPTIONS))],
                        "block": BLOCK,
                        "vectors": directions.tolist(),
                        "last_alone": scope != "all tokens",
                        "at_once": AT_ONCE,
                    }
                )
            )

        if peer_first:
            theirs()
        seconds = single.seconds_of(ours)
        if not peer_first:
            theirs()
        difference = np.abs(probabilities(made["asked"]) - made["peer"]["probabilities"]).max()
        if not difference < MOST_DIFFERENCE:
            sys.exit(f"{scope}: a probability of the peer's differs by {difference:.2g}")
        return Turn(seconds, made["peer"]["seconds"])

    def items(self, count):
        """No two alike, now or before."""
        made = []
        for _ in range(count):
            who, what, other = (
                choices[self.generator.integers(len(choices))] for choices in (WHO, WHAT, WHAT)
            )
            age = self.generator.integers(18, 1_000_000)
            made.append(
                f"This is {who} of {age} days' acquaintance, who {what} and, most of the time, {other}."
            )
        return made


def turn_of(item, order):
    """The user's turn, options in their order or in the reversed one."""
    listed = [f"{k}: {text}" for k, text in enumerate(OPTIONS[::order], start=1)]
    return TEMPLATE.replace("{options}", "\n".join(listed)).replace("{item}", item)


def probabilities(asked):
    """[steerings, prompts, options], options by their label's place."""
    return np.array(
        [
            [
                answer.probabilities[::-1] if answer.reversed else list(answer.probabilities)
                for item in result.items
                for answer in item.answers
            ]
            for result in asked.response.results
        ]
    )


def measure(bench, arguments):
    """By scope the turns of all rounds."""
    for scope in SCOPES:
        bench.turn(scope, 4, 2, peer_first=False)
    turns = {}
    for number in range(arguments.rounds):
        for scope in SCOPES:
            turn = bench.turn(scope, arguments.items, arguments.steerings, number % 2 == 1)
            turns.setdefault(scope, []).append(turn)
            print(
                f"round {number}, {scope}: {turn.seconds:.2f} s, transformers {turn.peer_seconds:.2f} s, {turn.ratio:.2f} times as fast",
                flush=True,
            )
    return turns


def summary(scope, turns):
    ratio = statistics.median(turn.ratio for turn in turns)
    return {
        "seconds": [turn.seconds for turn in turns],
        "peer_seconds": [turn.peer_seconds for turn in turns],
        "ratios": [turn.ratio for turn in turns],
        "ratio": ratio,
        "least": LEAST[scope],
        "met": ratio >= LEAST[scope],
    }


def print_scopes(scopes):
    rows = [
        [
            scope,
            single.number(statistics.median(found["seconds"]), 2),
            single.number(statistics.median(found["peer_seconds"]), 2),
            single.number(found["ratio"]),
            " ".join(single.number(ratio) for ratio in found["ratios"]),
            single.number(found["least"], 1),
            "met" if found["met"] else "NOT met",
        ]
        for scope, found in scopes.items()
    ]
    single.print_table(["steered", "s", "peer s", "ratio", "rounds", "at least", ""], rows)


def main():
    arguments = parse_arguments()
    warnings.simplefilter("ignore")  # a model so small says much else, to both alike
    results = {"threads": arguments.threads, "load_average_before": single.begin()}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as started:
        server = single.Server(arguments, directory)
        started.callback(server.close)
        peer = single.transformers_peer(arguments)
        started.callback(peer.close)
        turns = measure(Bench(server, peer), arguments)
        versions = peer.started["versions"]
    results |= {
        "peer": versions,
        "scopes": {scope: summary(scope, of_scope) for scope, of_scope in turns.items()},
        "load_average_after": os.getloadavg()[0],
    }
    single.say_load(results["load_average_after"])
    print_scopes(results["scopes"])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
