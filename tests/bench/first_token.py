"""Measures what users with one system prompt wait for their first token, beside users who have nothing in common.

In each round --users ask at once, with --prompt random tokens of a system prompt and 16 of their own, three times: each behind a
system prompt of his own; all behind one that nobody sent before; and all behind another one, every user with a steering of
his own along all layers, from the prompt's last token on. A time is from the sending of all to a user's first token, and a
ratio the median of the rounds' ratios of the median users. The server counts what it found in its cache
(valuescope_prefix_hit_tokens_total, valuescope_steered_prefix_hit_tokens_total). The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import concurrent.futures
import json
import pathlib
import re
import statistics
import tempfile
import time
import urllib.request

import grpc
import model as single  # the bench of one model: the server
import numpy as np
import valuescope as vs
from valuescope import v1
from valuescope.v1 import generation_pb2_grpc

OWN, NEW = 16, 2
MOST = {"one prompt": 0.06, "one prompt, steered": 0.08}
COUNTERS = ("prefix_hit_tokens_total", "steered_prefix_hit_tokens_total")


def parse_arguments():
    parser = single.argument_parser("first_token", __doc__, rounds=2)
    parser.add_argument("--users", type=int, default=64, help="default 64")
    parser.add_argument("--prompt", type=int, default=1500, help="tokens; default 1500")
    parser.add_argument("--kv_cache_bytes", default="5GiB", help="of the server; default 5GiB")
    return single.parsed(parser)


class Bench:
    def __init__(self, arguments, server, metrics):
        self._arguments, self._metrics = arguments, metrics
        self._model = server.model
        self._generator = np.random.default_rng(1)
        about = server.client.model(server.model)
        self._vocabulary, self._layers = about.vocab_size, about.num_layers
        self._direction = self._generator.normal(size=about.hidden_size).astype(np.float32)
        self._stubs = [
            generation_pb2_grpc.GenerationServiceStub(
                grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(arguments.users)
        ]

    def tokens(self, count):
        return [int(i) for i in self._generator.integers(100, self._vocabulary, count)]

    def request(self, system, steering=()):
        return v1.StreamGenerateRequest(
            model=self._model,
            prompt=v1.Prompt(token_ids=v1.TokenIds(ids=system + self.tokens(OWN))),
            sampling=v1.SamplingParams(max_tokens=NEW, ignore_eos=True, temperature=0),
            interventions=vs.to_interventions(steering),
        )

    def waits(self, requests):
        """Seconds of each user to his first token."""
        began = time.perf_counter()

        def first_token(stub, request):
            waited = None
            for message in stub.StreamGenerate(request, timeout=1800):
                if waited is None and message.HasField("delta"):
                    waited = time.perf_counter() - began
            return waited

        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(first_token, self._stubs, requests))

    def found(self):
        """What the server found in its cache since it started, tokens by counter."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics") as page:
            text = page.read().decode()
        return [
            int(float(re.search(rf"^valuescope_{name} (\S+)$", text, re.MULTILINE)[1]))
            for name in COUNTERS
        ]

    def round(self):
        users, length = self._arguments.users, self._arguments.prompt
        shared, steered = self.tokens(length), self.tokens(length)
        cases = {
            "prompts of their own": [self.request(self.tokens(length)) for _ in range(users)],
            "one prompt": [self.request(shared) for _ in range(users)],
            "one prompt, steered": [
                self.request(steered, [vs.Steer(self._direction, (user + 1) / users)])
                for user in range(users)
            ],
        }
        waits = {}
        for name, requests in cases.items():
            before = self.found()
            waits[name] = statistics.median(self.waits(requests))
            hits = [now - then for now, then in zip(self.found(), before, strict=True)]
            found = f"{hits[0]} tokens found, {hits[1]} of them by steered requests"
            print(f"  {name}: {waits[name]:.2f} s, {found}", flush=True)
        return waits


def main():
    arguments = parse_arguments()
    flags = ["--metrics_listen=127.0.0.1:0", f"--kv_cache_bytes={arguments.kv_cache_bytes}"]
    with tempfile.TemporaryDirectory() as directory:
        server = single.Server(arguments, directory, flags=flags)
        try:
            log = pathlib.Path(directory, "server.log").read_text()
            bench = Bench(arguments, server, re.search(r'"metrics_address":"([^"]+)"', log)[1])
            rounds = [bench.round() for _ in range(arguments.rounds)]
        finally:
            server.close()
    results = {}
    for name, most in MOST.items():
        ratios = [one[name] / one["prompts of their own"] for one in rounds]
        results[name] = statistics.median(ratios)
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{name}: {results[name]:.3f} of the wait without (at most {most}), {spread}")
    print(json.dumps({"ratios": results, "rounds": rounds}))


if __name__ == "__main__":
    main()
