"""Coverage and width of the interval of a vector's squared norm, by simulation: a table, and the cells that miss a bar.

    tests/bench/coverage [--data_sets 2000] [--widths 1 64 576] [--responses 10 100]

Every cell draws data sets of normal noise and computes the interval as the server does (tests/analysis/squared_norm.py, whose
numbers the server's equal). `effect` is the true squared norm over the standard error of its estimate. The noise is the same
in all directions, or one direction ("spike") has that many times the variance of the others; the effect lies along it, across
it, or at 45 degrees. Designs: a label a query; pairs, where each query has one response of either label; threes, where each has
three, of both labels in turn. In the latter two half of the variance is the query's.

Two oracles know the covariance. The one that `width` is relative to knows all but the effect: it observes |v|^2, and v along
the spike, and inverts their distributions at 2.5 % a side, |v| +- 1.96 standard errors along one direction and the noncentral
chi-square of the rest, joined as the server joins its parts. The other, for `normal`, even knows the effect: estimate +- 1.96
true standard errors, which depend on where the effect lies; where a spike is across the effect, no interval that must hold
for an effect along the spike too can be as short. Widths are those of what lies above 0.

Bars: coverage at least 93 %; at most 97 % where a label has 100 responses and the effect exceeds 4; width at most 1.5.
"""

import argparse
import math
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "analysis"))
import squared_norm

Z = 1.959963984540054
EFFECTS = (0, 0.5, 1, 2, 3, 4.5, 6, 10, 20)
MEMORY = 2e7  # numbers at a time


def design(name, responses):
    """Labels and queries of all responses, and the share of a query in their variance."""
    if name == "single":
        return np.arange(2 * responses) % 2 == 1, np.arange(2 * responses), 0.0
    each = 2 if name == "pairs" else 3
    queries = np.arange(2 * responses) // each
    return (np.arange(2 * responses) + (queries if each == 3 else 0)) % 2 == 1, queries, 0.5


def directions(width, spike):
    first, rest = np.zeros(width), np.zeros(width)
    first[0] = 1
    rest[-1] = 1
    if spike == 1:
        return {"": rest}
    return {"along": first, "across": rest, "mixed": (first + rest) / math.sqrt(2)}


class Sums:
    """What the intervals of all data sets of one design and noise need; any effect only moves v."""

    def __init__(self, rng, name, responses, variances, count):
        labels, queries, share = design(name, responses)
        width, size = len(variances), len(labels)
        parts, shares = squared_norm.cluster_parts(np.eye(size), labels, queries)
        weights = np.where(labels, 1 / labels.sum(), -1 / (~labels).sum())
        by_query = np.bincount(queries, weights)
        # Of one direction of unit variance: variance of v.
        self.variance = share * (by_query**2).sum() + (1 - share) * (weights**2).sum()
        self.freedom = float(squared_norm.freedom_of((parts**2).sum(axis=(1, 2)), shares))
        self.width, self.us = width, directions(width, variances[0])
        batches = []
        step = max(1, int(MEMORY / (size * (width + size))))
        for begin in range(0, count, step):
            n = min(step, count - begin)
            x = rng.standard_normal((n, size, width)) * math.sqrt(1 - share)
            if share:
                x += rng.standard_normal((n, queries.max() + 1, width))[:, queries] * math.sqrt(
                    share
                )
            x *= np.sqrt(variances)
            batches.append(self._batch(x, weights, parts, shares))
        self.of = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}

    def _batch(self, x, weights, parts, shares):
        v = weights @ x
        e = np.zeros((len(x), parts.shape[1], self.width))
        traces = np.zeros((len(x), 2))
        for flag in (0, 1):
            part = parts[flag] @ x
            traces[:, flag] = (part**2).sum(axis=(1, 2))
            e += part
        gram = e @ e.transpose(0, 2, 1)
        noise = squared_norm.noise_of(gram, squared_norm.freedom_of(traces, shares))
        out = dict(vars(noise))
        along_v = (e @ v[:, :, None])[..., 0]
        out["v v"], out["v first"] = (v * v).sum(axis=1), v[:, 0]
        out["v W v"] = (along_v**2).sum(axis=1)
        turned = (gram @ along_v[..., None])[..., 0]
        out["v WW v"] = (along_v * turned).sum(axis=1)
        for name, u in self.us.items():
            along_u = e @ u
            out[f"{name} u v"] = v @ u
            out[f"{name} u W u"] = (along_u**2).sum(axis=1)
            out[f"{name} u W v"] = (along_u * along_v).sum(axis=1)
            out[f"{name} u WW v"] = (along_u * turned).sum(axis=1)
            out[f"{name} u WW u"] = (along_u * (gram @ along_u[..., None])[..., 0]).sum(axis=1)
        return out

    def interval(self, direction, effect):
        """Bounds, |v|^2 and v along the first axis where the true vector is effect times u."""
        of, u = self.of, direction
        noise = squared_norm.Noise(
            *(of[key] for key in ("freedom", "trace", "trace2", "trace3", "largest"))
        )
        norm2 = of["v v"] + 2 * effect * of[f"{u} u v"] + effect**2
        once = of["v W v"] + 2 * effect * of[f"{u} u W v"] + effect**2 * of[f"{u} u W u"]
        twice = of["v WW v"] + 2 * effect * of[f"{u} u WW v"] + effect**2 * of[f"{u} u WW u"]
        bounds = squared_norm.interval(
            norm2 - noise.trace, norm2, once, twice, noise, self.width, quantiles(noise.freedom)
        )
        return *bounds, norm2, of["v first"] + effect * self.us[u][0]


def quantiles(freedom):
    """Student's, of an array: between those of a fine grid, which is near to linear in 1 / freedom."""
    grid = np.linspace(1 / freedom.max(), 1 / freedom.min(), 64)
    return [
        np.interp(1 / freedom, grid, [squared_norm.student_quantile(p, 1 / one) for one in grid])
        for p in (0.975, 0.95)
    ]


def noncentral_limits(observed, directions_left):
    """Limits of the noncentrality of a chi-square: three moments (Pearson), its quantile by Wilson and Hilferty."""
    true = np.concatenate([[0], np.geomspace(0.01, 1e8, 4000)])
    second, third = 2 * (directions_left + 2 * true), 8 * (directions_left + 3 * true)
    freedom = 8 * second**3 / third**2
    limits = []
    for z in (Z, -Z):
        cube = freedom * (1 - 2 / (9 * freedom) + z * np.sqrt(2 / (9 * freedom))) ** 3
        quantile = directions_left + true + (cube - freedom) * np.sqrt(second / (2 * freedom))
        limits.append(np.where(observed <= quantile[0], 0, np.interp(observed, quantile, true)))
    return limits


def oracle(width, spike, variance, norm2, first):
    """Bounds where the covariance is known, and the effect is not."""
    if spike == 1 and width > 1:
        low, high = noncentral_limits(norm2 / variance, width)
        return low * variance, high * variance
    own = spike * variance
    reach = 2 * Z * np.abs(first) * math.sqrt(own)
    estimate = first**2 - own
    below = np.maximum((Z**2 - 1) * own, reach - (Z**2 + 1) * own)
    above = reach + (Z**2 + 1) * own
    if width > 1:
        low, high = noncentral_limits((norm2 - first**2) / variance, width - 1)
        rest = norm2 - first**2 - (width - 1) * variance
        below = np.hypot(below, rest - low * variance)
        above = np.hypot(above, high * variance - rest)
        estimate = estimate + rest
    return estimate - below, estimate + above


def cells(name, responses, width, spike, count, seed):
    variances = np.ones(width)
    variances[0] = spike
    sums = Sums(np.random.default_rng(seed), name, responses, variances, count)
    total = 2 * (sums.variance**2) * (variances**2).sum() * (1 + 1 / sums.freedom)
    for direction, u in sums.us.items():
        own = sums.variance * (u**2 * variances).sum()
        for effect in EFFECTS:
            # The squared norm that is `effect` of its standard errors sqrt(4 own square + total).
            square = 2 * own * effect**2
            square += math.sqrt(square**2 + effect**2 * total)
            low, high, norm2, first = sums.interval(direction, math.sqrt(square))
            known = oracle(width, spike, sums.variance, norm2, first)
            length = (np.maximum(high, 0) - np.maximum(low, 0)).mean()
            yield {
                "design": name,
                "width": width,
                "n": responses,
                "noise": "even" if spike == 1 else f"spike {spike:g} {direction}",
                "effect": effect,
                "coverage": 100 * ((low <= square) & (square <= high)).mean(),
                "too high": 100 * (low > square).mean(),
                "too low": 100 * (high < square).mean(),
                "width / oracle": length
                / (np.maximum(known[1], 0) - np.maximum(known[0], 0)).mean(),
                "/ normal": length / (2 * Z * math.sqrt(4 * own * square + total)),
                "oracle's coverage": 100 * ((known[0] <= square) & (square <= known[1])).mean(),
            }


def faults(cell):
    found = []
    if cell["coverage"] < 93:
        found.append("COVERS TOO LITTLE")
    if cell["coverage"] > 97 and cell["n"] >= 100 and cell["effect"] > 4:
        found.append("COVERS TOO MUCH")
    if cell["width / oracle"] > 1.5:
        found.append("TOO WIDE")
    return found


def main():
    parser = argparse.ArgumentParser(
        "coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_sets", type=int, default=2000)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 64, 576])
    parser.add_argument("--responses", type=int, nargs="+", default=[10, 100], help="of a label")
    parser.add_argument("--designs", nargs="+", default=["single", "pairs", "threes"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    headings, missed, seen = None, [], 0
    for name in options.designs:
        for width in options.widths:
            for responses in options.responses:
                for spike in [1] if width == 1 else [1, 10, width, 10 * width]:
                    for cell in cells(
                        name, responses, width, spike, options.data_sets, options.seed
                    ):
                        if headings is None:
                            headings = list(cell)
                            print("  ".join(headings))
                        seen += 1
                        row = [
                            f"{value:.2f}".rjust(len(key))
                            if isinstance(value, float)
                            else str(value).rjust(len(key))
                            for key, value in cell.items()
                        ]
                        row += faults(cell)
                        if faults(cell):
                            missed.append(row)
                        print("  ".join(row), flush=True)
    print(f"{seen} cells, {len(missed)} miss a bar:")
    for row in missed:
        print("  ".join(row))


if __name__ == "__main__":
    main()
