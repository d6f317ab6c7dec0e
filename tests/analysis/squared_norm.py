"""The interval of a squared norm in numpy: what difference_in_means.cc computes, from its definition and for many data sets at once.

make_expected.py takes single data sets from here, tests/bench/coverage.py simulates with it.
"""

import dataclasses
import functools
import math

import numpy as np

MOST_CLUSTERS = 256
STEPS = 50


@functools.cache
def student_quantile(probability, freedom):
    """Quantile of Student's distribution: with t = sqrt(freedom) tan(u) its density is cos(u)^(freedom - 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(400)

    def below(angle):  # share of the mass between 0 and the angle
        u = angle / 2 * (nodes + 1)
        constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
        return (
            math.exp(constant)
            / math.sqrt(math.pi)
            * angle
            / 2
            * (weights @ np.cos(u) ** (freedom - 1))
        )

    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < probability - 0.5 else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


@dataclasses.dataclass
class Noise:
    """Of W = sum_c e_c e_c', an estimate of the covariance of v: [data sets] each."""

    freedom: float | np.ndarray  # all at most 1, all between 1 and 2, or all above 2
    trace: np.ndarray
    trace2: np.ndarray  # tr W^2
    trace3: np.ndarray  # tr W^3
    largest: np.ndarray  # eigenvalue


def noise_of(gram, freedom):
    """gram [data sets, clusters, clusters]: <e_c, e_d>."""
    square = gram @ gram
    widest = np.diagonal(gram, axis1=1, axis2=2).argmax(axis=1)
    w = gram[np.arange(len(gram)), :, widest][..., None]
    for _ in range(STEPS):
        w = gram @ (w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-300))
    w = w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-300)
    return Noise(
        freedom,
        np.trace(gram, axis1=1, axis2=2),
        (gram * gram).sum(axis=(1, 2)),
        (gram * square).sum(axis=(1, 2)),
        (w * (gram @ w)).sum(axis=(1, 2)),
    )


def possible_traces(noise, width):
    """tr V, tr V^2 and tr V^3 of the covariance V: without bias for a Wishart matrix, then made possible."""
    n, t1 = noise.freedom, noise.trace
    if np.min(n) <= 1:
        return t1, t1**2, t1**3
    t2 = (noise.trace2 - t1**2 / n) * n**2 / ((n - 1) * (n + 2))
    t2 = np.clip(t2, t1**2 / width, t1**2)
    if np.min(n) <= 2:
        return t1, t2, t2**1.5
    t3 = noise.trace3 - 3 * noise.trace2 * t1 / n + 2 * t1**3 / n**2
    t3 = t3 * n**4 / ((n - 1) * (n - 2) * (n + 2) * (n + 4))
    return t1, t2, np.clip(t3, t2**2 / t1, t2**1.5)


def interval(estimate, norm2, once, twice, noise, width, quantiles):
    """Bounds of the squared norm of the true vector, [data sets] each; there is noise.

    estimate: |v|^2 less its noise; norm2: |v|^2; once: v'Wv; twice: v'W^2 v; quantiles: Student's
    with the noise's freedom, of half of what the level leaves at either end and of all of it at one.
    """
    n = noise.freedom
    z, z_lower = quantiles
    t1, t2, t3 = possible_traces(noise, width)
    rest = 0 * t1
    if np.min(n) > 1:
        twice = (twice - once * t1 / n) * n**2 / ((n - 1) * (n + 2))
        rest = (t1 - noise.largest) / (n - 1)

    def deviations(largest):
        mean = once / np.where(norm2 > 0, norm2, 1)
        lam = np.maximum(np.clip(largest, t3 / t2, np.cbrt(t3)), mean)
        h = np.maximum(np.minimum(t3 / lam**3, t2 / lam**2), 1)
        # Of v: the squared length in the noisiest directions, and the variance of the rest of it.
        gap = lam * norm2 - once
        inside = gap <= 1e-6 * lam * norm2
        gap, length = np.where(inside, 1, gap), np.where(inside, 1, norm2)
        spread = np.clip(twice - once * mean, 0, mean * gap)
        mu = np.where(inside, 0, np.maximum(mean - spread / gap, 0))
        outside = np.where(inside, 0, gap**2 / (gap**2 / length + spread))
        within = np.maximum(norm2 - outside, 0)
        effect = np.maximum(norm2 - within - np.maximum(t1 - h * lam, 0), 0)
        along = z * np.sqrt(np.maximum(4 * lam * within - 2 * (h - 1) * lam**2, 0))
        across = z * np.sqrt(4 * mu * effect + 2 * np.maximum(t2 - h * lam**2, 0))
        return lam, h, along, across

    lam, _, along, across = deviations(noise.largest - rest)
    upper = estimate + np.hypot(along + (z**2 + 1) * lam, across)

    lam, h, along, across = deviations(noise.largest - 2 * rest)
    up, down = along + (z**2 + 1) * lam, along - (z**2 + 1) * lam
    none = lam * np.hypot(z**2 - 1, z * np.sqrt(2 * (h - 1)))
    one_end = up**2 / (up**2 + across**2) * none / np.maximum(none, down)
    one_end = one_end * across / np.hypot(none, across)
    reach = np.hypot(np.maximum(none, down), across)
    return estimate - reach * (1 - (1 - z_lower / z) * one_end), upper


def cluster_parts(x, labels, queries, weights=None):
    """What either label gives to e, [2, clusters, width], and the shares of its weight, [2, clusters].

    e_c e_c' sums to an estimate of the covariance of v: the responses of cluster c less the mean of
    their label, scaled (Bell and McCaffrey) so that it has no bias if all responses are alike.
    weights: what each response counts in the mean of its label; by default the same.
    """
    labels, queries = np.asarray(labels, bool), np.asarray(queries)
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    parts = np.zeros((2, queries.max() + 1, x.shape[1]))
    shares = np.zeros(parts.shape[:2])
    for flag in (0, 1):
        of = labels == flag
        total = weights[of].sum()
        shares[flag] = np.bincount(queries[of], weights[of], parts.shape[1]) / total
        deviations = x[of] - np.average(x[of], axis=0, weights=weights[of])
        np.add.at(parts[flag], queries[of], weights[of][:, None] * deviations / total)
        parts[flag] *= (2 * flag - 1) / np.sqrt(1 - shares[flag])[:, None]
    return parts, shares


def freedom_of(traces, shares):
    """Degrees of freedom (Satterthwaite); traces [..., 2]: of the sums of squares of either part."""
    weights = traces @ (shares**2 / (shares**2).sum(axis=1, keepdims=True))
    return weights.sum(axis=-1) ** 2 / (weights**2 / (1 - shares.max(axis=0))).sum(axis=-1)


def interval_of(x, labels, queries, level=0.95, weights=None):
    """The estimate and its interval for one data set; queries are numbered by first appearance."""
    labels, queries = np.asarray(labels, bool), np.asarray(queries)
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    v = np.average(x[labels], axis=0, weights=weights[labels])
    v = v - np.average(x[~labels], axis=0, weights=weights[~labels])
    e = cluster_parts(x, labels, queries, weights)[0].sum(axis=0)
    estimate = v @ v - (e**2).sum()
    of_label = [set(queries[labels == flag].tolist()) for flag in (False, True)]
    rank = [(q in of_label[0]) - (q in of_label[1]) for q in range(len(e))]
    place = np.argsort(np.argsort(rank, kind="stable"))
    parts, shares = cluster_parts(x, labels, place[queries] % MOST_CLUSTERS, weights)
    e, freedom = parts.sum(axis=0), float(freedom_of((parts**2).sum(axis=(1, 2)), shares))
    noise = noise_of((e @ e.T)[None], freedom)
    a = e @ v
    quantiles = student_quantile((1 + level) / 2, freedom), student_quantile(level, freedom)
    twice = (e.T @ a) @ (e.T @ a)
    lower, upper = interval(estimate, v @ v, a @ a, twice, noise, x.shape[1], quantiles)
    return estimate, float(lower[0]), float(upper[0])
