"""Measures what a request with as many edits as one may have costs its neighbour.

A neighbour decodes a greedy completion by streaming, and the gaps between its tokens are recorded: alone, beside a request for
--completions plain completions, and beside the same request with 16,384 edits: 8 vectors added at 16 layers, at positions of
the prompt where every set of the 8 acts somewhere. The request is sent once the neighbour has its first token, and gaps count
from then to its last, so they hold the prompt, whatever is made of the edits, and the decoding. The three take turns in every
round, in an order that goes round; prompts and vectors are new each time. A ratio is the median of the rounds' ratios. The
clients run on the same machine as the server and take time from it. The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import json
import os
import random
import statistics
import tempfile
import time

import grpc
import model as single  # the bench of one model: the server
import numpy as np
import valuescope as vs
from valuescope import v1
from valuescope.v1 import generation_pb2_grpc

MOST_RATIO = 1.5
VECTORS, LAYERS, SETS = 8, 16, 256  # the sum of their sizes over all sets x layers: 16,384 edits
PROMPT = SETS + 16
CONDITIONS = ("alone", "beside plain", "beside edits")
QUANTILES = {"p50": 0.5, "p99": 0.99, "most": 1}


def parse_arguments():
    parser = single.argument_parser("steering_neighbour", __doc__)
    parser.add_argument(
        "--completions", type=int, default=64, help="of the request beside it; default 64"
    )
    parser.add_argument("--new", type=int, default=64, help="tokens of each of them; default 64")
    parser.add_argument(
        "--server-flag", action="append", default=[], metavar="FLAG", help="one more; repeatable"
    )
    return single.parsed(parser)


def prompt(length):
    ids = [random.randrange(100, 40_000) for _ in range(length)]
    return v1.Prompt(token_ids=v1.TokenIds(ids=ids))


def sampling(new):
    return v1.SamplingParams(max_tokens=new, ignore_eos=True, temperature=0)


def edits(width):
    """Vector i acts at the positions whose number has bit i."""
    generator = np.random.default_rng(random.randrange(1 << 30))
    for bit in range(VECTORS):
        vector = generator.standard_normal(width).astype(np.float32) * 0.01
        yield v1.Intervention(
            site=v1.SITE_RESIDUAL_POST,
            layers=v1.Layers(list=v1.LayerList(layers=range(LAYERS))),
            tokens=v1.TokenSelection(
                kind=v1.TOKEN_KIND_POSITIONS,
                positions=[position for position in range(SETS) if position >> bit & 1],
            ),
            add=v1.AddVector(tensor=vs.tensors.from_numpy(vector)),
        )


def gaps(stub, model, new, request):
    """Seconds between the neighbour's tokens once `request`, if any, was sent."""
    stream = stub.StreamGenerate(
        v1.StreamGenerateRequest(model=model, prompt=prompt(16), sampling=sampling(new))
    )
    beside, times = None, []
    for message in stream:
        if not message.HasField("delta"):
            continue
        times += [time.perf_counter()] * len(message.delta.token_ids)
        if beside is None and request is not None:
            beside = stub.Generate.future(request)
    if beside is not None:
        completions = beside.result().completions
        assert len(completions) == request.n, completions
    return np.diff(times)


def one_round(arguments, stub, server, width, number):
    felt = {}
    for turn in range(len(CONDITIONS)):
        condition = CONDITIONS[(number + turn) % len(CONDITIONS)]
        request = None
        if condition != "alone":
            request = v1.GenerateRequest(
                model=server.model,
                prompt=prompt(PROMPT),
                sampling=sampling(arguments.new),
                n=arguments.completions,
                interventions=edits(width) if condition == "beside edits" else (),
            )
        seconds = gaps(stub, server.model, arguments.new, request)
        for name, quantile in QUANTILES.items():
            felt[f"{condition} {name}, ms"] = float(np.quantile(seconds, quantile)) * 1e3
    for name in QUANTILES:
        edited = felt[f"beside edits {name}, ms"]
        felt[f"{name}, edits / plain"] = edited / felt[f"beside plain {name}, ms"]
        felt[f"{name}, edits / alone"] = edited / felt[f"alone {name}, ms"]
    return felt


def main():
    arguments = parse_arguments()
    random.seed(1)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before anything ran\n")
    with tempfile.TemporaryDirectory() as directory:
        server = single.Server(arguments, directory, flags=arguments.server_flag)
        try:
            width = server.client.model(server.model).hidden_size
            with grpc.insecure_channel(server.target) as channel:
                stub = generation_pb2_grpc.GenerationServiceStub(channel)
                rounds = [
                    one_round(arguments, stub, server, width, number)
                    for number in range(arguments.rounds + 1)
                ][1:]  # the first warms up
        finally:
            server.close()
    medians = {name: statistics.median([each[name] for each in rounds]) for name in rounds[0]}
    rows = [
        [name, single.number(median), " ".join(single.number(each[name]) for each in rounds)]
        for name, median in medians.items()
    ]
    single.print_table(["between tokens", "median", "rounds"], rows)
    verdict = "met" if medians["p99, edits / plain"] <= MOST_RATIO else "missed"
    print(f"\np99 beside edits at most {MOST_RATIO} times that beside none: {verdict}")
    print(json.dumps({"medians": medians, "rounds": rounds}))


if __name__ == "__main__":
    main()
