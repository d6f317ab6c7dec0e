"""Times the forward pass, captures, decoding and loading of one model, with Hugging Face transformers beside it.

Everything is float32. The processes that hold the model (forward_bench, which is the bare forward pass, the server, and with
--peer-python transformers) stay loaded and take turns in every round, so that noise from other work on the machine hits all
of them. What is held against something runs right before or behind it, in turns: `ratio` is the median over rounds of (time /
its time); `ratio of CPU` is the same for the CPU seconds that the process spent, which other work on the machine disturbs less.
The last line is JSON.

The server's key/value cache is small and used up before anything is timed. The system clears each page of it at its first use,
which takes a call some 3 % longer until the whole cache was used once; forward_bench finds its own among what it has freed.

Build first: ninja -C build forward_bench valuescope-server
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(
    os.environ.get("VALUESCOPE_CACHE", pathlib.Path.home() / ".cache" / "valuescope")
)
sys.path.insert(0, str(ROOT / "client" / "python"))
subprocess.run([sys.executable, str(ROOT / "client" / "python" / "generate_stubs.py")], check=True)

import valuescope as vs  # noqa: E402
from valuescope import v1  # noqa: E402

PARTS = ("load", "forward", "means", "residuals", "decode")
SEQUENCES, LENGTH, PROMPT = 4, 256, 16
DECODE_ROWS = (1, 16, 64)
DECODE_CONTEXT = 32
CACHED_CALLS = 2  # that the server's key/value cache has room for
TARGETS = {"forward": 0.8, "means": 1.05, "means by gRPC": 1.05, "residuals by gRPC": 1.3}


def argument_parser(name, description, rounds=5):
    """What every bench here takes: which build, model and number of threads, and how often, unless `rounds` is None."""
    parser = argparse.ArgumentParser(
        prog=f"tests/bench/{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", metavar="DIR")
    parser.add_argument("--server", type=pathlib.Path, help="default: the build directory's")
    parser.add_argument("--model_root", type=pathlib.Path, default=CACHE / "models", metavar="DIR")
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", metavar="NAME")
    parser.add_argument("--threads", type=int, default=2, help="of the model; default 2")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    return parser


def add_peer(parser):
    parser.add_argument(
        "--peer-python", metavar="FILE", help="a Python with transformers; without it, no peer"
    )


def parsed(parser):
    arguments = parser.parse_args()
    arguments.server = arguments.server or arguments.build / "server" / "valuescope-server"
    return arguments


def parse_arguments():
    parser = argument_parser("model", __doc__)
    parser.add_argument(
        "--parts", type=lambda text: text.split(","), default=list(PARTS), metavar="PART[,PART]",
        help=f"of {', '.join(PARTS)}; default all of them",
    )  # fmt: skip
    add_peer(parser)
    parser.add_argument(
        "--operators", action="store_true", help="also where forward and means spend their time"
    )
    arguments = parsed(parser)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    return arguments


def processor_seconds(pid):
    """User and system time of all threads of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid):
    """VmHWM (peak), and what is resident now: RssAnon is its own, RssFile is mapped from files."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {
        name: int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024
        for name in ("VmHWM", "RssAnon", "RssFile")
    }


AS_THE_SERVER = {"GOMP_SPINCOUNT": "1000"}  # its own choice for its threads


class Worker:
    """A process that answers each line with one line of JSON."""

    def __init__(self, command, **variables):
        print("$", *(f"{k}={v}" for k, v in variables.items()), shlex.join(command), flush=True)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        self.pid = self._process.pid
        self.started = self._answer()

    def ask(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self):
        self._process.stdin.close()
        self._process.wait()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._process.args[0]} ended with {self._process.wait()}")
        return json.loads(line)


def transformers_peer(arguments, *how, script="transformers_peer.py"):
    """A script of a peer, started with what `add_peer` asked for; `how`: its device and type, where they are not its defaults."""
    script = str(pathlib.Path(__file__).with_name(script))
    folder = str(arguments.model_root / arguments.model)
    return Worker([arguments.peer_python, script, folder, str(arguments.threads), *how])


def seconds_of(run):
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


class Server:
    """The server on a store of its own, and the calls that are timed."""

    def __init__(self, arguments, directory, loaded=True, flags=()):
        self.model = f"models/{arguments.model}"
        command = [
            str(arguments.server),
            "--listen=127.0.0.1:0",
            "--metrics_listen=",
            f"--model_root={arguments.model_root}",
            f"--models={arguments.model if loaded else ''}",
            f"--threads={arguments.threads}",
            f"--store=sqlite:{directory}/bench{'' if loaded else '-empty'}.db",
            *flags,
        ]
        print("$", shlex.join(command), flush=True)
        start = time.perf_counter()
        with open(f"{directory}/server.log", "w") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.pid = self._process.pid
        announced = re.fullmatch(r"listening on (\S+)\n", self._process.stdout.readline())
        if not announced:
            sys.exit(pathlib.Path(directory, "server.log").read_text())
        self.target = announced[1]
        self.client = vs.Client(self.target, timeout=900)
        if loaded:
            self.client.wait_until_ready(self.model)
        self.load_seconds = time.perf_counter() - start
        self._capture = grpc.insecure_channel(self.target).unary_stream(
            "/valuescope.v1.ActivationService/Capture",
            request_serializer=v1.CaptureRequest.SerializeToString,
        )

    def close(self):
        self.client.close()
        self._process.terminate()
        self._process.wait()

    def forward(self):
        """The plain forward pass through the engine: one token generated behind each sequence."""
        self.client.generate(self.model, random_sequences(), max_tokens=1, temperature=0.0)

    def means(self):
        inputs = [(ids[:PROMPT], ids[PROMPT:]) for ids in random_sequences()]
        taps = [
            vs.tap(site, "all", "response", "mean") for site in ("residual_post", "mlp_neurons")
        ]
        self.client.capture(self.model, inputs, taps)

    def residuals(self):
        """Received, counted and thrown away, so that the client's part is small."""
        request = v1.CaptureRequest(model=self.model, taps=[vs.tap("residual_post")])
        for ids in random_sequences():
            request.inputs.add(prompt=v1.Prompt(token_ids=v1.TokenIds(ids=ids)))
        received = sum(len(message) for message in self._capture(request))
        assert received > SEQUENCES * LENGTH * 4, received

    def residual_arrays(self):
        """The same into the arrays of the Python client."""
        self.client.capture(self.model, random_sequences(), [vs.tap("residual_post")])


def cache_bytes(folder):
    """A float32 key/value cache that CACHED_CALLS calls use up: each writes what it has not seen before."""
    config = json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    width = config.get("num_key_value_heads", heads) * head_dim
    a_token = 2 * config["num_hidden_layers"] * width * 4
    return CACHED_CALLS * SEQUENCES * LENGTH * a_token


def random_sequences():
    return [[random.randrange(1000, 20000) for _ in range(LENGTH)] for _ in range(SEQUENCES)]


class Measurements:
    """Seconds and CPU seconds of each case at each of its turns, and their ratios to what it is held against."""

    def __init__(self):
        self.seconds, self.processor = {}, {}
        self._against = {}
        self._ratios = {}  # by case: of seconds and of CPU seconds, pair by pair

    def of_worker(self, case, worker, line):
        before = processor_seconds(worker.pid)
        self._add(case, worker.ask(line)["seconds"], processor_seconds(worker.pid) - before)

    def of_server(self, case, server, call):
        before, start = processor_seconds(server.pid), time.perf_counter()
        call()
        self._add(case, time.perf_counter() - start, processor_seconds(server.pid) - before)

    def pair(self, case, against):
        """What both took last."""
        self._against[case] = against
        self._ratios.setdefault(case, []).append(
            [each[case][-1] / each[against][-1] for each in (self.seconds, self.processor)]
        )

    def _add(self, case, seconds, processor):
        self.seconds.setdefault(case, []).append(seconds)
        self.processor.setdefault(case, []).append(processor)

    def summary(self, case):
        """Ratios are None for what is held against nothing."""
        ratio, cpu_ratio = None, None
        if case in self._ratios:
            ratio, cpu_ratio = map(statistics.median, zip(*self._ratios[case], strict=True))
        target = TARGETS.get(case)
        return {
            "median_seconds": statistics.median(self.seconds[case]),
            "best_seconds": min(self.seconds[case]),
            "median_cpu_seconds": statistics.median(self.processor[case]),
            "against": self._against.get(case),
            "ratio": ratio,
            "cpu_ratio": cpu_ratio,
            "target": target,
            "met": None if ratio is None or target is None else ratio <= target,
        }


def measure(arguments, bench, peer, server):
    shape = f"{SEQUENCES} {LENGTH}"
    measured = Measurements()

    def worker(case, process, line):
        return case, lambda: measured.of_worker(case, process, line)

    def call(case, method):
        return case, lambda: measured.of_server(case, server, method)

    forward = worker("forward", bench, f"forward {shape}")
    pairs = []
    if peer and "forward" in arguments.parts:
        pairs.append((forward, worker("transformers forward", peer, f"forward {shape}")))
    served = call("forward by gRPC", server.forward)
    if "forward" in arguments.parts:
        pairs.append((served, forward))
    if "means" in arguments.parts:
        pairs.append((worker("means", bench, f"means {shape} {PROMPT}"), forward))
        pairs.append((call("means by gRPC", server.means), served))
    if "residuals" in arguments.parts:
        pairs.append((worker("residuals", bench, f"residuals {shape}"), forward))
        pairs.append((call("residuals by gRPC", server.residuals), forward))
        pairs.append((call("residuals as arrays", server.residual_arrays), forward))

    def one_round(number):
        for case, reference in pairs:
            for _, run in (case, reference) if number % 2 else (reference, case):
                run()
            measured.pair(case[0], reference[0])

    for _ in range(CACHED_CALLS):
        server.forward()
    one_round(0)  # warms caches and thread pools
    measured = Measurements()
    for number in range(arguments.rounds):
        one_round(number)
    return {case: measured.summary(case) for case in measured.seconds}


def measure_decoding(bench, rounds):
    speeds = {rows: [] for rows in DECODE_ROWS}
    for _ in range(rounds):
        for rows in DECODE_ROWS:
            steps = 32 if rows == 1 else 8
            seconds = bench.ask(f"decode {rows} {DECODE_CONTEXT} {steps}")["seconds"]
            speeds[rows].append(rows * steps / seconds)
    return {
        str(rows): {"median_tokens_per_second": statistics.median(s), "best": max(s)}
        for rows, s in speeds.items()
    }


def memory_of_empty(arguments, directory):
    """What the program and its libraries take, which the size of a model has no part in."""
    server = Server(arguments, directory, loaded=False)
    try:
        return memory_bytes(server.pid)
    finally:
        server.close()


def measure_loading(arguments, directory, bench, bench_memory, peer, server):
    """Called before anything ran, so that what is resident is what loading leaves."""
    folder = arguments.model_root / arguments.model
    file_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    loading = {
        "weight_file_bytes": file_bytes,
        "server": {"load_seconds": server.load_seconds, **memory_bytes(server.pid)},
        "server without a model": {"load_seconds": None, **memory_of_empty(arguments, directory)},
        "forward_bench": {"load_seconds": bench.started["load_seconds"], **bench_memory},
    }
    if peer:
        loading["transformers"] = {
            "load_seconds": peer.started["load_seconds"], **memory_bytes(peer.pid)
        }  # fmt: skip
    return loading


def number(value, digits=3):
    return "-" if value is None else f"{value:.{digits}f}"


def print_table(header, rows):
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    print()


def print_results(results):
    if cases := results.get("cases"):
        rows = [
            [
                case,
                number(r["median_seconds"]),
                number(r["best_seconds"]),
                number(r["median_cpu_seconds"], 2),
                r["against"] or "-",
                "absent" if r["against"] and r["ratio"] is None else number(r["ratio"]),
                number(r["cpu_ratio"]),
                number(r["target"], 2),
                {None: "-", True: "met", False: "missed"}[r["met"]],
            ]
            for case, r in cases.items()
        ]
        header = "case|median s|best s|CPU s|against|ratio|ratio of CPU|target|".split("|")
        print_table(header, rows)
    if decode := results.get("decode"):
        rows = [
            [f"decode, {rows} rows", number(d["median_tokens_per_second"], 1), number(d["best"], 1)]
            for rows, d in decode.items()
        ]
        print_table(["case", "median tokens/s", "best"], rows)
    if load := results.get("load"):
        size = load["weight_file_bytes"]
        above = load["server"]["VmHWM"] - load["server without a model"]["VmHWM"]
        rows = [
            [
                f"{name}, idle",
                number(load[name]["load_seconds"], 2),
                number(load[name]["VmHWM"] / 1e6, 0),
                number(load[name]["VmHWM"] / size, 2),
                number(load[name]["RssAnon"] / 1e6, 0),
                number(load[name]["RssFile"] / 1e6, 0),
            ]
            for name in ("server", "server without a model", "forward_bench", "transformers")
            if name in load
        ]
        print_table(
            ["loaded", "load s", "peak MB", f"peak / {size / 1e6:.0f} MB", "own MB", "mapped MB"],
            rows,
        )
        print(f"the model takes the server {above / size:.2f} times its file\n")
    for command, milliseconds in results.get("operators", {}).items():
        slowest = sorted(milliseconds.items(), key=lambda item: -item[1])[:10]
        rows = [[name, number(value, 1)] for name, value in slowest]
        print_table([f"operators of {command}", "ms a call"], rows)


def begin():
    """Says how busy the machine is, and returns that load average. Ended from outside, the bench still ends what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = os.getloadavg()[0]
    print(f"load average {load:.1f} on {os.cpu_count()} cores before anything ran")
    return load


def say_load(load):
    """How busy the machine was at the end."""
    print(f"\nload average now {load:.1f}: more than the threads is other people's work\n")


def main():
    arguments = parse_arguments()
    random.seed(1)
    folder = str(arguments.model_root / arguments.model)
    threads = str(arguments.threads)
    load_before = begin()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as started:
        bench = Worker(
            [str(arguments.build / "tests" / "forward_bench"), folder, threads], **AS_THE_SERVER
        )
        started.callback(bench.close)
        bench_memory = memory_bytes(bench.pid)
        cache = cache_bytes(arguments.model_root / arguments.model)
        server = Server(arguments, directory, flags=[f"--kv_cache_bytes={cache}"])
        started.callback(server.close)
        peer = None
        if arguments.peer_python:
            peer = transformers_peer(arguments)
            started.callback(peer.close)
        results = {
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "peer": peer.started["versions"] if peer else None,
            "load_average_before": load_before,
        }
        if "load" in arguments.parts:
            results["load"] = measure_loading(
                arguments, directory, bench, bench_memory, peer, server
            )
        if {"forward", "means", "residuals"} & set(arguments.parts):
            results["cases"] = measure(arguments, bench, peer, server)
        if "decode" in arguments.parts:
            results["decode"] = measure_decoding(bench, arguments.rounds)
        if arguments.operators:
            results["operators"] = {
                command: bench.ask(f"operators {arguments.rounds} {command}")["milliseconds"]
                for command in (
                    f"forward {SEQUENCES} {LENGTH}",
                    f"means {SEQUENCES} {LENGTH} {PROMPT}",
                )
            }
        results["load_average_after"] = os.getloadavg()[0]
    say_load(results["load_average_after"])
    print_results(results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
