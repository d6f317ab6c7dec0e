"""Measures what a crowd of waiting calls takes from a generation, and how long silent calls live.

A round times Generate alone and then beside --watchers streams of WatchJob on a job that waits for its model. The ratio is of
their medians, the result the median of the rounds' ratios. With --silence, one Generate is then left alone for that long by a
client that pings every 10 s, and beside it a watcher behind a proxy that drops connections after 30 s without a byte; neither
may end before. The clients run on the same machine as the server and take time from it. The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import grpc
import model as single  # the bench of one model: the server
import numpy as np
import valuescope as vs

sys.path.insert(0, str(single.ROOT / "tests" / "load"))
from idle_proxy import IdleProxy
from valuescope import v1
from valuescope.v1 import generation_pb2_grpc, jobs_pb2_grpc

MOST_RATIO = 1.15
WAITED_FOR = "qwen2"  # a small model of the tests, which the job waits for
PINGS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def parse_arguments():
    parser = single.argument_parser("idle_calls", __doc__, rounds=10)
    parser.add_argument("--watchers", type=int, default=1000, help="default 1000")
    parser.add_argument("--calls", type=int, default=12, help="of Generate a time; default 12")
    parser.add_argument("--new", type=int, default=8, help="tokens generated; default 8")
    parser.add_argument("--silence", type=float, default=0, help="seconds; default 0: not tried")
    return single.parsed(parser)


def both_models(arguments, root):
    """A model root with the bench's model and the small one."""
    source, copy = arguments.model_root / arguments.model, pathlib.Path(root, arguments.model)
    copy.mkdir()
    for file in source.iterdir():
        shutil.copy2(file.resolve(), copy / file.name)
    shutil.copytree(
        single.ROOT / "tests" / "golden" / "families" / WAITED_FOR, pathlib.Path(root, WAITED_FOR)
    )


def waiting_job(client):
    """A job that waits until its model is loaded again."""
    name = f"models/{WAITED_FOR}"
    client.load_model(name)
    client.wait_until_ready(name)
    model = client.model(name)
    rows = np.ones((model.num_layers, model.hidden_size), np.float32)
    vector = client.create_vector(name, rows, layers=range(model.num_layers))
    responses = [vs.labelled([3, 4], [5, 6, 7], bool(i % 2), f"q{i // 2}") for i in range(20_000)]
    spec = vs.attribution_request(name, client.write_artifact(responses).name, vector.name)
    job = client.create_job(v1.JobSpec(attribute_neurons=spec))
    client.unload_model(name, force=True)
    return job.name


def generation(arguments, new, n=1):
    return v1.GenerateRequest(
        model=f"models/{arguments.model}",
        prompt=v1.Prompt(token_ids=v1.TokenIds(ids=range(400, 416))),
        sampling=v1.SamplingParams(max_tokens=new, ignore_eos=True, temperature=0),
        n=n,
    )


def median_seconds(arguments, stub):
    seconds = []
    for _ in range(arguments.calls):
        start = time.perf_counter()
        stub.Generate(generation(arguments, arguments.new))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def one_round(arguments, channel, watch_channel, job):
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    alone = median_seconds(arguments, stub)
    watch = jobs_pb2_grpc.JobServiceStub(watch_channel).WatchJob
    calls = [watch(v1.WatchJobRequest(name=job)) for _ in range(arguments.watchers)]
    for call in calls:
        next(call)
    beside = median_seconds(arguments, stub)
    assert not any(call.done() for call in calls), "a watcher ended"
    for call in calls:
        call.cancel()
    return {"alone, ms": alone * 1e3, "beside, ms": beside * 1e3, "ratio": beside / alone}


def silent_calls(arguments, server, job):
    """What ended too early."""
    ended = []
    with (
        grpc.insecure_channel(server.target, PINGS) as channel,
        IdleProxy(server.target, 30) as proxy,
        vs.Client(proxy.address) as client,
    ):
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        call = stub.Generate.future(generation(arguments, 8000, n=16))
        try:
            client.wait_for_job(job, timeout=arguments.silence)
        except vs.DeadlineExceeded:
            pass
        except vs.ValuescopeError as error:
            ended.append(f"watcher: {error}")
        if proxy.dropped:
            ended.append("the proxy dropped the watcher's connection")
        if call.done():
            ended.append(f"generation: {call.code()}: {call.details()}")
        call.cancel()
    return ended


def main():
    arguments = parse_arguments()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before anything ran\n")
    with tempfile.TemporaryDirectory() as directory:
        both_models(arguments, directory)
        arguments.model_root = pathlib.Path(directory)
        server = single.Server(arguments, directory)
        try:
            job = waiting_job(server.client)
            with (
                grpc.insecure_channel(server.target) as channel,
                grpc.insecure_channel(
                    server.target, [("grpc.use_local_subchannel_pool", 1)]
                ) as watch_channel,
            ):
                rounds = [
                    one_round(arguments, channel, watch_channel, job)
                    for _ in range(arguments.rounds)
                ]
            ended = silent_calls(arguments, server, job) if arguments.silence else []
        finally:
            server.close()
    medians = {name: statistics.median([each[name] for each in rounds]) for name in rounds[0]}
    rows = [
        [
            name,
            single.number(median),
            " ".join(single.number(each[name]) for each in rounds),
        ]
        for name, median in medians.items()
    ]
    single.print_table(["Generate", "median", "rounds"], rows)
    verdict = "met" if medians["ratio"] <= MOST_RATIO else "missed"
    print(f"\nbeside {arguments.watchers} watchers at most {MOST_RATIO} times as long: {verdict}")
    for line in ended:
        print(f"ended too early: {line}")
    print(json.dumps({"medians": medians, "rounds": rounds, "ended_too_early": ended}))


if __name__ == "__main__":
    main()
