"""Measures what scores of neurons cost beside our own forward passes, through the server.

Forwards are captures of one token at one layer, 16 sequences a request, which are hardly more than the passes. Everything takes
turns with them, with new tokens each time, for --rounds rounds; a ratio is the median of the rounds' ratios.

  ablation       --neurons neurons of one block over one response, along the last block: beside so many forwards of the response's
                 tokens, of which the blocks behind the neurons' take their share of all blocks
  contribution   all neurons of all blocks over --responses responses, beside their forwards
  patching       the same, along the last block

The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import json
import statistics
import tempfile
import time

import model as single  # the bench of one model: the server
import numpy as np
import valuescope as vs
from valuescope import v1

PROMPT, RESPONSE, CHUNK = 16, 32, 16
ABLATED = (0, 14, 27)
MOST = {"ablation": 1.3, "contribution": 1.1, "patching": 3.0}


def parse_arguments():
    parser = single.argument_parser("attribution", __doc__, rounds=3)
    parser.add_argument("--neurons", type=int, default=1000, help="to ablate; default 1000")
    parser.add_argument("--responses", type=int, default=64, help="default 64")
    return single.parsed(parser)


def data_set(generator, count):
    """`count` responses of random tokens, every other one expressing."""
    ids = generator.integers(100, 40_000, (count, PROMPT + RESPONSE)).tolist()
    return [vs.labelled(one[:PROMPT], one[PROMPT:], not i % 2) for i, one in enumerate(ids)]


class Bench:
    def __init__(self, arguments, server):
        self.arguments, self.server = arguments, server
        self.generator = np.random.default_rng(1)
        about = server.client.model(server.model)
        self.blocks, self.top = about.num_layers, about.num_layers - 1
        self.direction = self.generator.normal(size=about.hidden_size).astype(np.float32)
        rows = np.tile(self.direction, (self.blocks, 1))
        self.vector = server.client.create_vector(
            server.model, rows, layers=range(self.blocks)
        ).name
        self.target = v1.AttributionTarget(
            vector_projection=v1.VectorProjectionTarget(vector=self.vector, layer=self.top)
        )

    def seconds(self, responses, vector="", **fields):
        """Of one call of AttributeNeurons."""
        started = time.perf_counter()
        self.server.client.attribute_neurons(self.server.model, responses, vector, **fields)
        return time.perf_counter() - started

    def seconds_of_forwards(self, responses):
        tap = vs.tap("residual_post", [0], "last")
        started = time.perf_counter()
        for first in range(0, len(responses), CHUNK):
            chunk = responses[first : first + CHUNK]
            self.server.client.capture(
                self.server.model, [(one.prompt, one.response) for one in chunk], [tap]
            )
        return time.perf_counter() - started

    def seconds_a_token(self):
        return self.seconds_of_forwards(data_set(self.generator, 2 * CHUNK)) / (
            2 * CHUNK * (PROMPT + RESPONSE)
        )

    def ablation(self, block):
        chosen = range(self.arguments.neurons)
        how = v1.CausalAblation(
            candidates=[v1.NeuronId(layer=block, index=index) for index in chosen]
        )
        responses = data_set(self.generator, 1)
        before = self.seconds_a_token()
        seconds = self.seconds(responses, causal_ablation=how, target=self.target, layers=[block])
        a_token = (before + self.seconds_a_token()) / 2
        share = (self.blocks - 1 - block) / self.blocks
        return seconds / (self.arguments.neurons * RESPONSE * a_token * share), seconds

    def contribution(self):
        return self._beside_forwards(vector=self.vector)

    def patching(self):
        return self._beside_forwards(
            attribution_patching=v1.AttributionPatching(), target=self.target
        )

    def _beside_forwards(self, **fields):
        # Patching looks at the expressing responses alone.
        count = self.arguments.responses * (1 if "vector" in fields else 2)
        responses = data_set(self.generator, count)
        looked_at = [one for one in responses if "vector" in fields or one.expresses]
        seconds = self.seconds(responses, **fields)
        fresh = data_set(self.generator, len(looked_at))
        return seconds / self.seconds_of_forwards(fresh), seconds

    def cases(self):
        """By name: the way, and what it measures once."""
        found = {f"ablation block {b}": ("ablation", lambda b=b: self.ablation(b)) for b in ABLATED}
        found["contribution"] = ("contribution", self.contribution)
        found["patching"] = ("patching", self.patching)
        return found


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as directory:
        server = single.Server(arguments, directory)
        try:
            bench = Bench(arguments, server)
            bench.seconds_a_token()  # warms up
            measured = {name: [] for name in bench.cases()}
            for _ in range(arguments.rounds):
                for name, (_, run) in bench.cases().items():
                    measured[name].append(run())
                    print(name, *(f"{number:.4g}" for number in measured[name][-1]), flush=True)
        finally:
            server.close()
    ways = {name: way for name, (way, _) in bench.cases().items()}
    for name, rounds in measured.items():
        ratios, most = [one[0] for one in rounds], MOST[ways[name]]
        ratio = statistics.median(ratios)
        print(
            f"{name}: {statistics.median([one[1] for one in rounds]):.2f} s, ratio {ratio:.3f} "
            f"({' '.join(f'{r:.3f}' for r in ratios)}), at most {most}: {'met' if ratio <= most else 'NOT met'}"
        )
    print(
        json.dumps(
            {"ratios": {name: [one[0] for one in rounds] for name, rounds in measured.items()}}
        )
    )


if __name__ == "__main__":
    main()
