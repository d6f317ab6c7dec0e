"""Measures how complete integrated gradients are where nodes adapt, and what that costs.

--prompts questions are answered greedily by --tokens tokens; of each answer the log-probability is attributed to the neurons of every
block, one answer a call, so that every gap is of one answer and block. dL is what the log-probability loses where the block's neurons are
zero. A gap is held against max(|dL|, a tenth of the median |dL| over the answer's blocks), at most 1 %. The cost is the time of a call
beside that of one with the plain rule of 4 steps, in both turns, and of a Score of the same answer. The last line is JSON.

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

MOST_GAP, LEAST_SHARE = 0.01, 0.1
QUESTIONS = [
    f"{verb} {thing}?"
    for verb in ("What should I know about", "How would you explain")
    for thing in (
        "moving to another city",
        "honesty among friends",
        "a quiet evening",
        "learning an instrument",
        "the weather in spring",
        "saving money",
        "climbing a mountain",
        "cooking for guests",
        "old letters",
        "helping a neighbour",
    )
]


def parse_arguments():
    parser = single.argument_parser("completeness", __doc__)
    parser.add_argument("--prompts", type=int, default=20, help="1 to 20; default 20")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer; default 16")
    return single.parsed(parser)


def answered(server, question, tokens):
    prompt = vs.chat(question, system="")
    made = server.client.generate(
        server.model, prompt, max_tokens=tokens, temperature=0, ignore_eos=True
    )
    return vs.labelled(prompt, made.token_ids, True)


def attributed(server, response, **how):
    target = v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget())
    started = time.perf_counter()
    made = server.client.attribute_neurons(
        server.model,
        [response],
        integrated_gradients=v1.IntegratedGradients(**how),
        target=target,
        top_k=0,
    )
    return made.neuron_set.layers, time.perf_counter() - started


def shares(layers):
    """Of each block, |gap| over what it is held against."""
    gaps = np.array([layer.completeness_gap for layer in layers])
    effects = np.abs(gaps + [layer.score_sum for layer in layers])
    return np.abs(gaps) / np.maximum(effects, LEAST_SHARE * np.median(effects))


def main():
    arguments = parse_arguments()
    adaptive, plain, times, plain_times, forwards = [], [], [], [], []
    with tempfile.TemporaryDirectory() as directory:
        server = single.Server(arguments, directory)
        try:
            for question in QUESTIONS[: arguments.prompts]:
                response = answered(server, question, arguments.tokens)
                layers, seconds = attributed(server, response)
                adaptive.append(shares(layers))
                times.append(seconds)
                layers, seconds = attributed(server, response, steps=4)
                plain.append(shares(layers))
                plain_times.append(seconds)
                started = time.perf_counter()
                server.client.score(server.model, response.prompt, [response.response])
                forwards.append(time.perf_counter() - started)
        finally:
            server.close()
    adaptive, plain = np.array(adaptive), np.array(plain)
    for name, found in (("adaptive", adaptive), ("4 steps", plain)):
        worst = np.unravel_index(found.argmax(), found.shape)
        print(
            f"{name}: gap / max(|dL|, .1 median |dL|) median {np.median(found):.2g}, 99 % {np.quantile(found, 0.99):.2g}, largest "
            f"{found.max():.2g} (answer {worst[0]}, block {worst[1]})"
        )
    met = bool(adaptive.max() <= MOST_GAP)
    cost = statistics.median(a / b for a, b in zip(times, plain_times, strict=True))
    print(
        f"at most {MOST_GAP}: {'met' if met else 'NOT met'}; adaptive {statistics.median(times):.2f} s an answer, {cost:.2f} x that of 4 "
        f"steps, {statistics.median(times) / statistics.median(forwards):.0f} x a Score of it"
    )
    print(
        json.dumps(
            {
                "largest": float(adaptive.max()),
                "met": met,
                "seconds": times,
                "seconds_4_steps": plain_times,
                "seconds_score": forwards,
            }
        )
    )


if __name__ == "__main__":
    main()
