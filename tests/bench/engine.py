"""Times generation through the server, with Hugging Face transformers and the bare forward pass beside it.

Everything is greedy, on the same prompts and threads, on a CPU in float32 unless --device and --dtype say otherwise. The server (asked by C++ clients, one connection),
forward_bench (a loop over the bare forward pass, without engine and gRPC) and with --peer-python transformers' `generate`
stay loaded and take turns in every round, so that noise from other work on the machine hits all of them. `ratio` is the median
over rounds of (tokens/s / tokens/s of what it is held against in the same round). On a GPU there is no bare loop. Steering is compared in pairs, one run
steered and one not, in alternating order; its ratio comes with a 95 % bootstrap interval. The last line is JSON.

Build first: ninja -C build forward_bench generation_bench valuescope-server
"""

import contextlib
import json
import os
import random
import statistics
import tempfile

import model as single  # the bench of one model: processes that answer, and the server
import numpy as np

PROMPT, NEW = 40, 80
ROWS = (1, 16)
ROWS_OF_GPU = (1, 16, 64)
# Of tokens/s: against the peer, and steered against not.
TARGETS = {
    "server, 1 row": 1.7,
    "server, 16 rows": 2.0,
    "engine, 16 rows": 0.92,
    "16 rows, 16 steerings": 0.95,
    "64 rows, 64 steerings": 0.90,
}


def parse_arguments():
    parser = single.argument_parser("engine", __doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:N]; default cpu")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    parser.add_argument(
        "--server-flag", action="append", default=[], metavar="FLAG", help="one more; repeatable"
    )
    parser.add_argument("--pairs", type=int, default=10, help="of steered and not; default 10")
    single.add_peer(parser)
    return single.parsed(parser)


class Generations:
    """Runs of prompts that nobody ran before, so that nothing is answered from a cache."""

    def __init__(self, clients, vocabulary):
        self._clients = clients
        self._vocabulary = vocabulary

    def prompts(self, rows):
        return [
            [random.randrange(100, self._vocabulary) for _ in range(PROMPT)] for _ in range(rows)
        ]

    def run(self, prompts, vectors=()):
        answer = self._clients.ask(
            json.dumps(
                {
                    "prompts": prompts,
                    "new_tokens": NEW,
                    "vectors": list(vectors),
                    "coefficient": 1.0,
                }
            )
        )
        if "error" in answer:
            raise SystemExit(answer["error"])
        return answer


def make_vectors(client, model, count, description):
    generator = np.random.default_rng(1)
    layers, hidden = description.num_layers, description.hidden_size
    return [
        client.create_vector(
            model, generator.standard_normal((layers, hidden)) * 0.01, layers=range(layers)
        ).name
        for _ in range(count)
    ]


def throughput(answer, rows):
    return rows * NEW / answer["seconds"]


def percentile(values, percent):
    return float(np.percentile(values, percent))


def measure_against_peer(arguments, generations, bench, peer):
    """Tokens/s a case and round, and what the clients of the server felt."""
    speeds, felt, same = {}, {}, []

    def note(case, rows, answer):
        speeds.setdefault(f"{case}, {rows} row{'s' * (rows > 1)}", []).append(
            throughput(answer, rows)
        )

    for number in range(arguments.rounds + 1):  # the first warms up
        for rows in ROWS if bench else ROWS_OF_GPU:
            prompts = generations.prompts(rows)
            ours = generations.run(prompts)
            bare = bench and bench.ask(f"generate {rows} {PROMPT} {NEW}")
            theirs = peer and peer.ask(
                "generate " + json.dumps({"prompts": prompts, "new_tokens": NEW})
            )
            if number == 0:
                continue
            note("server", rows, ours)
            if bare:
                note("bare loop", rows, bare)
            feeling = felt.setdefault(
                f"server, {rows} row{'s' * (rows > 1)}", {"first": [], "gap": []}
            )
            feeling["first"] += ours["first_token_seconds"]
            feeling["gap"] += ours["gap_seconds"]
            if theirs:
                note("transformers", rows, theirs)
                same += map(list.__eq__, ours["token_ids"], theirs["token_ids"])
    return speeds, felt, same


def median_ratio(ours, theirs):
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def ratio_case(case, against, ratio, interval=None):
    target = TARGETS.get(case)
    return {
        "against": against,
        "ratio": ratio,
        "interval": interval,
        "target": target,
        "met": None if target is None else ratio >= target,
    }


def compare_speeds(speeds):
    cases = {}
    for case, ours in speeds.items():
        who, rows = case.split(", ")
        if who != "server":
            continue
        if f"transformers, {rows}" in speeds:
            ratio = median_ratio(ours, speeds[f"transformers, {rows}"])
            cases[f"server, {rows}"] = ratio_case(f"server, {rows}", f"transformers, {rows}", ratio)
        if f"bare loop, {rows}" in speeds:
            ratio = median_ratio(ours, speeds[f"bare loop, {rows}"])
            cases[f"engine, {rows}"] = ratio_case(f"engine, {rows}", f"bare loop, {rows}", ratio)
    return cases


def bootstrap(values, draws=2000):
    generator = np.random.default_rng(1)
    medians = np.median(generator.choice(values, (draws, len(values))), axis=1)
    return [percentile(medians, 2.5), percentile(medians, 97.5)]


def measure_steering(arguments, generations, vectors, rows):
    ratios = []
    for number in range(arguments.pairs + 1):  # the first warms up
        prompts = generations.prompts(rows)
        seconds = {}
        for steered in (number % 2 == 0, number % 2 == 1):
            seconds[steered] = generations.run(prompts, vectors[:rows] if steered else ())[
                "seconds"
            ]
            prompts = generations.prompts(rows)
        if number > 0:
            ratios.append(seconds[False] / seconds[True])
    case = f"{rows} rows, {rows} steerings"
    return ratio_case(
        case, f"{rows} rows, none", statistics.median(ratios), bootstrap(np.array(ratios))
    )


def print_results(results):
    rows = [
        [case, single.number(statistics.median(s), 1), single.number(max(s), 1)]
        for case, s in results["tokens_per_second"].items()
    ]
    single.print_table(["greedy, 40 + 80 tokens", "median tokens/s", "best"], rows)
    rows = [
        [case]
        + [single.number(1e3 * f[key][p], 1) for key in ("first", "gap") for p in ("p50", "p99")]
        for case, f in results["felt_seconds"].items()
    ]
    header = ["ms", "first token p50", "p99", "between tokens p50", "p99"]
    single.print_table(header, rows)
    rows = [
        [
            case,
            c["against"],
            single.number(c["ratio"]),
            "-" if c["interval"] is None else "{:.3f} .. {:.3f}".format(*c["interval"]),
            single.number(c["target"], 2),
            {None: "-", True: "met", False: "missed"}[c["met"]],
        ]
        for case, c in results["ratios"].items()
    ]
    single.print_table(["tokens/s of", "against", "ratio", "95 %", "target", ""], rows)
    if results["same_as_peer"] is not None:
        print(f"greedy answers equal to the peer's: {100 * results['same_as_peer']:.0f} %\n")


def main():
    arguments = parse_arguments()
    random.seed(1)
    folder = str(arguments.model_root / arguments.model)
    threads = str(arguments.threads)
    single.begin()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as started:
        place = [f"--device={arguments.device}", f"--dtype={arguments.dtype}"]
        server = single.Server(arguments, directory, flags=place + arguments.server_flag)
        started.callback(server.close)
        programs = arguments.build / "tests"
        clients = single.Worker([str(programs / "generation_bench"), server.target, server.model])
        started.callback(clients.close)
        bench = peer = None
        if arguments.device == "cpu":
            bench = single.Worker(
                [str(programs / "forward_bench"), folder, threads], **single.AS_THE_SERVER
            )
            started.callback(bench.close)
        if arguments.peer_python:
            peer = single.transformers_peer(arguments, arguments.device, arguments.dtype)
            started.callback(peer.close)
        description = server.client.model(server.model)
        generations = Generations(clients, description.vocab_size)
        speeds, felt, same = measure_against_peer(arguments, generations, bench, peer)
        ratios = compare_speeds(speeds)
        vectors = make_vectors(server.client, server.model, 64, description)
        for rows in (16, 64):
            case = measure_steering(arguments, generations, vectors, rows)
            ratios[f"{rows} rows, {rows} steerings"] = case
        results = {
            "device": arguments.device,
            "dtype": arguments.dtype,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "pairs": arguments.pairs,
            "peer": peer.started["versions"] if peer else None,
            "tokens_per_second": speeds,
            "felt_seconds": {
                case: {
                    key: {"p50": percentile(values, 50), "p99": percentile(values, 99)}
                    for key, values in f.items()
                }
                for case, f in felt.items()
            },
            "ratios": ratios,
            "same_as_peer": statistics.mean(same) if same else None,
            "load_average_after": os.getloadavg()[0],
        }
    single.say_load(results["load_average_after"])
    print_results(results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
