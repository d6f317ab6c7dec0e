"""Measures what scores of neurons cost beside our own forward passes, through the server.

Forwards are captures of one token at one layer, 16 sequences a request, which are hardly more than the passes. Everything takes
turns with them, with new tokens each time, for --rounds rounds; a ratio is the median of the rounds' ratios.

  ablation       --neurons neurons of one block over one response, along the last block: beside so many forwards of the response's
                 tokens, of which the blocks behind the neurons' take their share of all blocks
  contribution   all neurons of all blocks over --responses responses, beside their forwards
  patching       the same, along the last block
  integration    64 steps at blocks 0 and 14 over one response, beside transformers with autograd, which begins behind the block as
                 well; with --peer-python alone

The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import json
import pathlib
import statistics
import tempfile
import time

import model as single  # the bench of one model: the server, and the peer
import numpy as np
import valuescope as vs
from valuescope import v1

PROMPT, RESPONSE, CHUNK, STEPS = 16, 32, 16, 64
ABLATED, INTEGRATED = (0, 14, 27), (0, 14)
MOST = {"ablation": 1.3, "contribution": 1.1, "patching": 3.0, "integration": 0.5}


def parse_arguments():
    parser = single.argument_parser("attribution", __doc__, rounds=3)
    parser.add_argument("--neurons", type=int, default=1000, help="to ablate; default 1000")
    parser.add_argument("--responses", type=int, default=64, help="default 64")
    single.add_peer(parser)
    return single.parsed(parser)


def data_set(generator, count):
    """`count` responses of random tokens, every other one expressing."""
    ids = generator.integers(100, 40_000, (count, PROMPT + RESPONSE)).tolist()
    return [vs.labelled(one[:PROMPT], one[PROMPT:], not i % 2) for i, one in enumerate(ids)]


class Bench:
    def __init__(self, arguments, server, peer):
        self.arguments, self.server, self.peer = arguments, server, peer
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
        response = self.server.client.attribute_neurons(
            self.server.model, responses, vector, **fields
        )
        return time.perf_counter() - started, response.neuron_set

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
        seconds, _ = self.seconds(
            responses, causal_ablation=how, target=self.target, layers=[block]
        )
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
        seconds, _ = self.seconds(responses, **fields)
        fresh = data_set(self.generator, len(looked_at))
        return seconds / self.seconds_of_forwards(fresh), seconds

    def integration(self, block):
        """Also how far the two are apart."""
        (response,) = responses = data_set(self.generator, 1)
        how = v1.IntegratedGradients(steps=STEPS)
        seconds, neuron_set = self.seconds(
            responses,
            integrated_gradients=how,
            target=self.target,
            layers=[block],
            top_k=10_000,
        )
        task = {
            "prompt": list(response.prompt.token_ids.ids),
            "response": list(response.response.token_ids.ids),
            "block": block,
            "top": self.top,
            "vector": self.direction.tolist(),
            "steps": STEPS,
        }
        answer = self.peer.ask(f"integrate {json.dumps(task)}")
        scores = np.zeros(len(answer["scores"]))
        for one in neuron_set.top:
            scores[one.index] = one.score
        apart = np.linalg.norm(scores - answer["scores"]) / np.linalg.norm(answer["scores"])
        return seconds / answer["seconds"], seconds, apart

    def cases(self):
        """By name: the way, and what it measures once."""
        found = {f"ablation block {b}": ("ablation", lambda b=b: self.ablation(b)) for b in ABLATED}
        found["contribution"] = ("contribution", self.contribution)
        found["patching"] = ("patching", self.patching)
        if self.peer:
            for b in INTEGRATED:
                found[f"integration block {b}"] = (
                    "integration",
                    lambda b=b: self.integration(b),
                )
        return found


def main():
    arguments = parse_arguments()
    peer = None
    if arguments.peer_python:
        script = pathlib.Path(__file__).with_name("transformers_peer.py")
        folder = arguments.model_root / arguments.model
        peer = single.Worker(
            [arguments.peer_python, str(script), str(folder), str(arguments.threads)]
        )
        print(peer.started["versions"])
    with tempfile.TemporaryDirectory() as directory:
        server = single.Server(arguments, directory)
        try:
            bench = Bench(arguments, server, peer)
            bench.seconds_a_token()  # warms up
            measured = {name: [] for name in bench.cases()}
            for _ in range(arguments.rounds):
                for name, (_, run) in bench.cases().items():
                    measured[name].append(run())
        finally:
            server.close()
            if peer:
                peer.close()
    ways = {name: way for name, (way, _) in bench.cases().items()}
    for name, rounds in measured.items():
        ratios, most = [one[0] for one in rounds], MOST[ways[name]]
        ratio = statistics.median(ratios)
        apart = f", apart {max(one[2] for one in rounds):.1e}" if len(rounds[0]) > 2 else ""
        print(
            f"{name}: {statistics.median([one[1] for one in rounds]):.2f} s, ratio {ratio:.3f} "
            f"({' '.join(f'{r:.3f}' for r in ratios)}), at most {most}: {'met' if ratio <= most else 'NOT met'}{apart}"
        )
    print(
        json.dumps(
            {"ratios": {name: [one[0] for one in rounds] for name, rounds in measured.items()}}
        )
    )


if __name__ == "__main__":
    main()
