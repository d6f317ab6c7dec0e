"""Offers a server with a small queue several times what it can do, and measures what becomes of it.

Every round first measures capacity, with as many clients as fit the batch and half the queue, each asking again as soon as
it is answered; then requests are offered at --times that rate whatever the answers are, and nobody retries. Goodput is what
was answered with a result in a second, over capacity of the same round; both leave out the first quarter, in which the server
fills. Rejections and health checks are timed at the client, the latter on a connection of their own. The clients run on the
same machine as the server and take time from it. The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import json
import os
import random
import statistics
import sys
import tempfile

import grpc
import model as single  # the bench of one model: the server
import numpy as np

sys.path.insert(0, str(single.ROOT / "tests" / "load"))
from offered_load import HealthProbe, at_rate, closed_loop, completed_a_second
from valuescope import v1

TARGETS = {
    "rejection p99, ms": (50, "below"),
    "health p99, ms": (100, "below"),
    "goodput / capacity": (0.8, "at least"),
}


def parse_arguments():
    parser = single.argument_parser("overload", __doc__, rounds=3)
    parser.add_argument("--rows", type=int, default=8, help="requests in a step; default 8")
    parser.add_argument("--waiting", type=int, default=16, help="size of the queue; default 16")
    parser.add_argument("--prompt", type=int, default=32, help="tokens; default 32")
    parser.add_argument("--new", type=int, default=16, help="tokens generated; default 16")
    parser.add_argument("--times", type=float, default=4, help="capacity offered; default 4")
    parser.add_argument("--seconds", type=float, default=12, help="of a measurement; default 12")
    return single.parsed(parser)


def request_maker(arguments):
    """Prompts that nobody sent before."""

    def request(_):
        ids = [random.randrange(100, 40_000) for _ in range(arguments.prompt)]
        return v1.GenerateRequest(
            model=f"models/{arguments.model}",
            prompt=v1.Prompt(token_ids=v1.TokenIds(ids=ids)),
            sampling=v1.SamplingParams(max_tokens=arguments.new, ignore_eos=True, temperature=0),
        )

    return request


def milliseconds(seconds, quantile):
    return float(np.quantile(seconds, quantile)) * 1e3 if len(seconds) else None


def one_round(arguments, channel, address):
    request = request_maker(arguments)
    clients = arguments.rows + arguments.waiting // 2
    warm_up = arguments.seconds / 4
    capacity = completed_a_second(
        *closed_loop(channel, request, clients, arguments.seconds), arguments.seconds, warm_up
    )
    with HealthProbe(address) as health:
        began, outcomes = at_rate(channel, request, arguments.times * capacity, arguments.seconds)
    rejections = [
        each.seconds for each in outcomes if each.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    ]
    answers = [each.seconds for each in outcomes if each.code is grpc.StatusCode.OK]
    others = [
        each
        for each in outcomes
        if each.code not in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
    ]
    goodput = completed_a_second(began, outcomes, arguments.seconds, warm_up)
    return {
        "capacity, requests/s": capacity,
        "offered, requests/s": len(outcomes) / arguments.seconds,
        "goodput, requests/s": goodput,
        "goodput / capacity": goodput / capacity,
        "rejected": len(rejections),
        "other errors": len(others),
        "without RetryInfo": sum(
            each.retry_seconds is None
            for each in outcomes
            if each.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        ),
        "rejection median, ms": milliseconds(rejections, 0.5),
        "rejection p99, ms": milliseconds(rejections, 0.99),
        "answer p99, ms": milliseconds(answers, 0.99),
        "health p99, ms": milliseconds(health.seconds, 0.99),
        "health most, ms": milliseconds(health.seconds, 1),
        "health failures": len(health.failures),
        "load average": os.getloadavg()[0],
    }


def verdict(name, value):
    if name not in TARGETS or value is None:
        return "-"
    target, direction = TARGETS[name]
    met = value < target if direction == "below" else value >= target
    return f"{'met' if met else 'missed'} ({direction} {target})"


def main():
    arguments = parse_arguments()
    random.seed(1)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before anything ran\n")
    with tempfile.TemporaryDirectory() as directory:
        flags = (f"--max_batch_rows={arguments.rows}", f"--max_waiting={arguments.waiting}")
        server = single.Server(arguments, directory, flags=flags)
        try:
            with grpc.insecure_channel(server.target) as channel:
                rounds = [
                    one_round(arguments, channel, server.target) for _ in range(arguments.rounds)
                ]
        finally:
            server.close()
    medians = {
        name: statistics.median([each[name] for each in rounds])
        if all(each[name] is not None for each in rounds)
        else None
        for name in rounds[0]
    }
    rows = [
        [
            name,
            single.number(median, 2),
            " ".join(single.number(each[name], 2) for each in rounds),
            verdict(name, median),
        ]
        for name, median in medians.items()
    ]
    single.print_table(["at overload", "median", "rounds", "target"], rows)
    print(json.dumps({"times": arguments.times, "medians": medians, "rounds": rounds}))


if __name__ == "__main__":
    main()
