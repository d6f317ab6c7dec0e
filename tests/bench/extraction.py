"""Measures what extracting a vector costs beside its forwards, in time and memory.

Time: --responses random responses of 64 tokens behind prompts of 16, extracted at all layers by a call, statistics included, beside
Capture of one token at one layer of the same sequences, 16 a request, which is hardly more than the forwards. Both take turns,
with new tokens each time, for --rounds rounds; the ratio is the median of the rounds' ratios.

Memory: a job over --few short responses and one over --many, each on a server of its own; the most resident memory that is seen
from the job's creation to its end, over that before the data set is sent. The last line is JSON.

Build first: ninja -C build valuescope-server
"""

import json
import pathlib
import re
import statistics
import tempfile
import time

import model as single  # the bench of one model: the server
import numpy as np
import valuescope as vs
from valuescope import v1

MIB = 1 << 20
MOST_RATIO, MOST_MORE = 1.05, 50 * MIB
PROMPT, RESPONSE, CHUNK = 16, 64, 16


def parse_arguments():
    parser = single.argument_parser("extraction", __doc__)
    parser.add_argument("--responses", type=int, default=320, help="to time; default 320")
    parser.add_argument("--few", type=int, default=200, help="of the small job; default 200")
    parser.add_argument("--many", type=int, default=20_000, help="of the large one; default 20,000")
    return single.parsed(parser)


def data_set(generator, count, prompt, response):
    """`count` responses of random tokens, two to a query, one of each label."""
    for index in range(count):
        ids = [int(i) for i in generator.integers(100, 40_000, prompt + response)]
        yield v1.LabelledResponse(
            prompt=v1.Prompt(token_ids=v1.TokenIds(ids=ids[:prompt])),
            response=v1.Response(token_ids=v1.TokenIds(ids=ids[prompt:])),
            expresses=bool(index % 2),
            query_id=f"q{index // 2}",
        )


def seconds_of_extraction(server, responses):
    started = time.perf_counter()
    server.client.extract_vectors(server.model, responses)
    return time.perf_counter() - started


def seconds_of_forwards(server, responses):
    tap = v1.Tap(
        site=v1.SITE_RESIDUAL_POST,
        layers=v1.Layers(list=v1.LayerList(layers=[0])),
        tokens=v1.TokenSelection(kind=v1.TOKEN_KIND_LAST),
    )
    started = time.perf_counter()
    for first in range(0, len(responses), CHUNK):
        chunk = responses[first : first + CHUNK]
        server.client.capture(server.model, [(one.prompt, one.response) for one in chunk], tap)
    return time.perf_counter() - started


def times(arguments):
    generator = np.random.default_rng(1)
    ways = {"extraction": seconds_of_extraction, "forwards": seconds_of_forwards}
    with tempfile.TemporaryDirectory() as directory:
        server = single.Server(arguments, directory)
        try:
            rounds = []
            for number in range(arguments.rounds + 1):
                order = list(ways) if number % 2 else list(ways)[::-1]
                rounds.append({})
                for way in order:
                    responses = list(data_set(generator, arguments.responses, PROMPT, RESPONSE))
                    rounds[-1][way] = ways[way](server, responses)
        finally:
            server.close()
    return rounds[1:]  # the first warms up


def resident(server):
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


def most_memory(arguments, count):
    """Bytes over those before, and the largest part of the scratch that the estimate promised."""
    with tempfile.TemporaryDirectory() as directory:
        server = single.Server(arguments, directory)
        try:
            warm = list(data_set(np.random.default_rng(2), CHUNK, 2, 3))
            server.client.extract_vectors(server.model, warm)
            before = resident(server)
            file = server.client.write_artifact(data_set(np.random.default_rng(3), count, 2, 3))
            request = vs.extraction_request(server.model, file.name)
            spec = v1.JobSpec(extract_vectors=request)
            scratch = server.client.estimate_job(spec).scratch_bytes
            job, most, done = server.client.create_job(spec).name, before, False
            while not done:
                state = server.client.job(job).state
                assert state not in (v1.JOB_STATE_FAILED, v1.JOB_STATE_CANCELLED), state
                done = state == v1.JOB_STATE_SUCCEEDED
                most = max(most, resident(server))
                time.sleep(0.02)
            return most - before, scratch
        finally:
            server.close()


def main():
    arguments = parse_arguments()
    rounds = times(arguments)
    ratios = [one["extraction"] / one["forwards"] for one in rounds]
    ratio = statistics.median(ratios)
    print(
        f"{arguments.responses} responses: extraction {statistics.median([r['extraction'] for r in rounds]):.2f} s, forwards "
        f"{statistics.median([r['forwards'] for r in rounds]):.2f} s, ratio {ratio:.3f} ({' '.join(f'{r:.3f}' for r in ratios)}), "
        f"at most {MOST_RATIO}: {'met' if ratio <= MOST_RATIO else 'NOT met'}"
    )
    memory = {}
    for count in (arguments.few, arguments.many):
        memory[count], scratch = most_memory(arguments, count)
        print(
            f"{count} responses: {memory[count] / MIB:.1f} MiB more resident memory, {scratch / MIB:.0f} MiB of disk promised",
            flush=True,
        )
    more = memory[arguments.many] - memory[arguments.few]
    print(
        f"difference {more / MIB:.1f} MiB, at most {MOST_MORE / MIB:.0f}: {'met' if more <= MOST_MORE else 'NOT met'}"
    )
    print(json.dumps({"ratios": ratios, "resident_bytes": memory, "difference_bytes": more}))


if __name__ == "__main__":
    main()
