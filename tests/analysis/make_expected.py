"""Writes expected.json: what numpy says about small random inputs, for the C++ tests to reproduce.

Run by hand when a definition changes (numpy is the only dependency; where scikit-learn is installed too, its PCA and its
LogisticRegression must say the same):
    python tests/analysis/make_expected.py
Inputs are rounded to float32 first, so that both sides start from the same numbers. The code here is
written from the definitions, with numpy.linalg.svd and loops, and shares nothing with the server's.
"""

import itertools
import json
import pathlib

import numpy as np
import squared_norm

try:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
except ModuleNotFoundError:
    PCA = LogisticRegression = None

ROOT = pathlib.Path(__file__).parent


def rows(array):
    return [float(x) for x in np.asarray(array, dtype=np.float64).ravel()]


def float32(array):
    return np.asarray(array, dtype=np.float32).astype(np.float64)


def decomposition(rng, width, scale, normalize):
    common = rng.normal(size=width)
    v_int = float32(common + 0.8 * rng.normal(size=width))
    v_prompt = float32(scale * (common + 0.8 * rng.normal(size=width)))
    columns = np.stack([v_int, v_prompt], axis=1)
    if normalize:
        columns = columns / np.linalg.norm(columns, axis=0)
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    shared = u[:, 0] * np.sign(u[:, 0] @ columns.sum(axis=1))
    difference = u[:, 1] * np.sign(u[:, 1] @ (columns[:, 0] - columns[:, 1]))
    cosine = v_int @ v_prompt / np.linalg.norm(v_int) / np.linalg.norm(v_prompt)
    return {
        "intrinsic": rows(v_int),
        "prompted": rows(v_prompt),
        "normalize": normalize,
        "singular_values": rows(s),
        "explained_share": float(s[0] ** 2 / (s**2).sum()),
        "shared": rows(shared),
        "difference": rows(difference),
        "cosine": float(cosine),
        "retained": float(np.sqrt(1 - cosine**2)),
        "intrinsic_orthogonal": rows(v_int - v_int @ v_prompt / (v_prompt @ v_prompt) * v_prompt),
        "prompted_orthogonal": rows(v_prompt - v_int @ v_prompt / (v_int @ v_int) * v_int),
    }


def mean_delta(rng, width, num_values, unit):
    intrinsic = float32(rng.normal(size=(num_values, width)))
    prompted = float32(
        intrinsic + 0.7 * rng.normal(size=width) + rng.normal(size=(num_values, width))
    )
    deltas = prompted - intrinsic
    lengths = np.linalg.norm(deltas, axis=1, keepdims=True)
    used = deltas / lengths if unit else deltas
    mean = used.mean(axis=0)
    m = mean / np.linalg.norm(mean)
    cosines = (deltas / lengths) @ (deltas / lengths).T
    return {
        "intrinsic": rows(intrinsic),
        "prompted": rows(prompted),
        "num_values": num_values,
        "width": width,
        "unit": unit,
        "direction": rows(m),
        "norm": float(np.linalg.norm(mean)),
        "explained_variance": float(((used @ m) ** 2).sum() / (used**2).sum()),
        "mean_pairwise_cosine": float(cosines[np.triu_indices(num_values, 1)].mean()),
    }


VALUES = {  # the circle's order: angle of ten, angle of nine, domain
    "self-direction": (0, 0, 0),
    "stimulation": (36, 40, 0),
    "hedonism": (72, 80, 0),
    "achievement": (108, 120, 90),
    "power": (144, 160, 90),
    "security": (180, 200, 180),
    "conformity": (216, 240, 180),
    "tradition": (252, 240, 180),
    "benevolence": (288, 280, 270),
    "universalism": (324, 320, 270),
}


def plane(points):
    """Centred points [n, width] on their first two principal components, and the components' share of the variance."""
    u, s, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    return u[:, :2] * s[:2], (s[:2] ** 2).sum() / (s**2).sum()


def procrustes(x, places):
    """R^2 and the aligned points: the best rotation or reflection, scale and shift of x [n, 2] onto places [n, 2]."""
    centre = places.mean(axis=0)
    t = places - centre
    u, s, vt = np.linalg.svd(x.T @ t)
    aligned = s.sum() / (x**2).sum() * x @ u @ vt
    return 1 - ((t - aligned) ** 2).sum() / (t**2).sum(), aligned + centre


def circumplex(rng, values, width, angles):
    """`angles`: 0 ten, 1 nine, 2 four domains."""
    degrees = np.array([VALUES[value][angles] for value in values])
    place = np.array([VALUES[value][0] for value in values])
    axes = rng.normal(size=(len(values), width))
    axes[:, 0] += 1.5 * np.cos(np.radians(place))
    axes[:, 1] += 1.5 * np.sin(np.radians(place))
    axes = float32(axes / np.linalg.norm(axes, axis=1, keepdims=True))
    at = sorted(set(degrees)) if angles == 2 else degrees
    mean = np.array(
        [(degrees == d) / (degrees == d).sum() for d in at] if angles == 2 else np.eye(len(values))
    )
    places = np.stack([np.cos(np.radians(at)), np.sin(np.radians(at))], axis=1)
    x, share = plane(mean @ axes)
    r_squared, points = procrustes(x, places)
    every = [
        procrustes(x, places[list(order)])[0] for order in itertools.permutations(range(len(at)))
    ]
    null = []
    for _ in range(4000):
        random = rng.normal(size=axes.shape)
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        null.append(procrustes(plane(mean @ random)[0], places)[0])
    return {
        "values": values,
        "width": width,
        "angles": angles,
        "axes": rows(axes),
        "r_squared": float(r_squared),
        "share": float(share),
        "points": rows(points),
        "permutation_p_value": float(np.mean(np.array(every) >= r_squared - 1e-12)),
        "null_mean": float(np.mean(null)),
        "null_mean_error": float(np.std(null) / np.sqrt(len(null))),
        "null_below_95th": float(np.quantile(null, 0.94)),
        "null_above_95th": float(np.quantile(null, 0.96)),
    }


def cosines(rng, num_vectors, width):
    vectors = float32(rng.normal(size=(num_vectors, width)) + rng.normal(size=width))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return {
        "vectors": rows(vectors),
        "num_vectors": num_vectors,
        "width": width,
        "cosines": rows((unit @ unit.T)[np.triu_indices(num_vectors, 1)]),
    }


def brute_auroc(positive, negative):
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return float(np.mean(wins))


def halves(labels, queries):
    """Queries alternate within each composition of labels; single labels begin where both would go on."""
    labels_of = {}
    for label, query in zip(labels, queries, strict=True):
        labels_of.setdefault(query, set()).add(bool(label))
    both = sum(len(found) == 2 for found in labels_of.values())
    half, counts = {}, {}
    for query, found in labels_of.items():
        kind = tuple(sorted(found))
        begin = 0 if len(found) == 2 else both
        half[query] = (begin + counts.get(kind, 0)) % 2
        counts[kind] = counts.get(kind, 0) + 1
    return np.array([half[query] for query in queries])


def difference_in_means(rng, labels, queries, num_layers, width, tokens=()):
    """With tokens, those of each response, means are over tokens."""
    labels = np.array(labels)
    weights = np.array(tokens if tokens else [1] * len(labels), float)
    shift = rng.normal(size=(num_layers, width))
    a = float32(
        rng.normal(size=(len(labels), num_layers, width)) + 0.6 * labels[:, None, None] * shift
    )
    half = halves(list(labels), queries)

    def mean(x, of):
        return (weights[of][:, None] * x[of]).sum(axis=0) / weights[of].sum()

    def noise(x, of):
        share = weights[of] / weights[of].sum()
        squares = ((x[of] - mean(x, of)) ** 2).sum(axis=1)
        return float((share**2 / (1 - share) * squares).sum())

    layers = []
    for layer in range(num_layers):
        x = a[:, layer]
        v = mean(x, labels) - mean(x, ~labels)
        by_half = [mean(x, labels & (half == h)) - mean(x, ~labels & (half == h)) for h in (0, 1)]
        measured = held_out(x, labels, half, by_half)
        r = measured["split_half_cosine"]
        numbers = [list(dict.fromkeys(queries)).index(query) for query in queries]
        clustered, lower, upper = squared_norm.interval_of(x, labels, numbers, weights=weights)
        traces = [float(x[labels == flag].var(axis=0, ddof=1).sum()) for flag in (True, False)]
        layers.append(
            {
                "vector": rows(v),
                "norm": float(np.linalg.norm(v)),
                "relative_norm": float(np.linalg.norm(v) / np.linalg.norm(x, axis=1).mean()),
                **measured,
                "reliability": float(2 * r / (1 + r)),
                "expressing_trace": traces[0],
                "non_expressing_trace": traces[1],
                "debiased": float(v @ v - noise(x, labels) - noise(x, ~labels)),
                "clustered": float(clustered),
                "squared_norm_interval": [lower, upper],
            }
        )
    return {
        "labels": [bool(label) for label in labels],
        "queries": queries,
        "tokens": list(tokens),
        "num_layers": num_layers,
        "width": width,
        "activations": rows(a),
        "layers": layers,
    }


def pair_differences(x, labels, queries, weights, of):
    """Of each query of `of` with both labels: mean of its expressing responses minus that of the others."""
    out = []
    for query in dict.fromkeys(queries):
        here = of & np.array([other == query for other in queries])
        if (here & labels).any() and (here & ~labels).any():
            means = [
                np.average(x[here & side], axis=0, weights=weights[here & side])
                for side in (labels, ~labels)
            ]
            out.append(means[0] - means[1])
    return np.array(out)


def first_component(d, centered):
    """The component and its share of the squares, as a PCA of the differences gives them: repeng calls the centred one
    pca_diff; its pca_center, the PCA of both ends of every pair less their middle, is the one that is not centred."""
    mean = d.mean(axis=0)
    train = d - mean if centered else d
    _, s, vt = np.linalg.svd(train, full_matrices=False)
    u = vt[0] * (1 if vt[0] @ mean >= 0 else -1)
    ends = np.concatenate([d / 2, -d / 2])
    if PCA is not None:
        model = PCA(n_components=1, svd_solver="full").fit(d if centered else ends)
        theirs = model.components_[0]
        np.testing.assert_allclose(u * np.sign(u @ theirs), theirs, atol=1e-12)
    return u, float(s[0] ** 2 / (s**2).sum())


def held_out(x, labels, half, by_half):
    r = by_half[0] @ by_half[1] / np.linalg.norm(by_half[0]) / np.linalg.norm(by_half[1])
    areas = [
        brute_auroc(
            x[labels & (half == h)] @ by_half[1 - h], x[~labels & (half == h)] @ by_half[1 - h]
        )
        for h in (0, 1)
    ]
    return {"split_half_cosine": float(r), "auroc": float(np.mean(areas))}


def labelled(rng, labels, width):
    labels = np.array(labels)
    shift = rng.normal(size=width)
    return labels, float32(rng.normal(size=(len(labels), width)) + 0.9 * labels[:, None] * shift)


def principal_direction(rng, labels, queries, width, centered, tokens=()):
    labels, x = labelled(rng, labels, width)
    weights = np.array(tokens if tokens else [1] * len(labels), float)
    half = halves(list(labels), queries)
    d = pair_differences(x, labels, queries, weights, np.ones(len(x), bool))
    u, share = first_component(d, centered)
    by_half = [
        first_component(pair_differences(x, labels, queries, weights, half == h), centered)[0]
        for h in (0, 1)
    ]
    return {
        "labels": [bool(label) for label in labels],
        "queries": queries,
        "tokens": list(tokens),
        "width": width,
        "centered": centered,
        "activations": rows(x),
        "num_pairs": len(d),
        "vector": rows(u),
        "explained_variance": share,
        **held_out(x, labels, half, by_half),
    }


def probe(x, labels, c):
    """Newton's method over weights and intercept until no step makes the gradient smaller."""
    y = labels.astype(float)
    features = np.column_stack([x, np.ones(len(x))])
    penalty = np.diag([1.0] * x.shape[1] + [0.0])

    def of(w):
        f = features @ w
        objective = w @ penalty @ w / 2 + c * np.logaddexp(0, np.where(labels, -f, f)).sum()
        p = 1 / (1 + np.exp(-f))
        return objective, penalty @ w + c * features.T @ (p - y), p

    w = np.zeros(features.shape[1])
    objective, gradient, p = of(w)
    for _ in range(200):
        hessian = penalty + c * features.T @ ((p * (1 - p))[:, None] * features)
        step, length = np.linalg.solve(hessian, -gradient), 1.0
        while of(w + length * step)[0] > objective + 1e-12 * abs(objective) and length > 1e-9:
            length /= 2
        after = of(w + length * step)
        if np.linalg.norm(after[1]) >= np.linalg.norm(gradient):
            break
        w = w + length * step
        objective, gradient, p = after
    if LogisticRegression is not None:
        model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000)
        model.fit(x, labels)
        np.testing.assert_allclose(w[:-1], model.coef_[0], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(w[-1], model.intercept_[0], rtol=1e-7, atol=1e-9)
    return w[:-1], float(w[-1])


def linear_probe(rng, labels, queries, width, c):
    labels, x = labelled(rng, labels, width)
    half = halves(list(labels), queries)
    w, intercept = probe(x, labels, c)
    by_half = [probe(x[half == h], labels[half == h], c)[0] for h in (0, 1)]
    return {
        "labels": [bool(label) for label in labels],
        "queries": queries,
        "width": width,
        "inverse_regularization": c,
        "activations": rows(x),
        "vector": rows(w),
        "norm": float(np.linalg.norm(w)),
        "intercept": intercept,
        **held_out(x, labels, half, by_half),
    }


def geometry(rng, hidden, intermediate, signed, relative):
    w = float32(rng.normal(size=(hidden, intermediate)) * rng.uniform(0.5, 2, size=intermediate))
    shared = float32(rng.normal(size=hidden))
    difference = float32(rng.normal(size=hidden))
    u_shared = shared / np.linalg.norm(shared)
    rest = difference - difference @ u_shared * u_shared
    u_diff = rest / np.linalg.norm(rest)
    p = np.stack([u_shared, u_diff], axis=1) @ (np.stack([u_shared, u_diff]) @ w)
    norms = np.linalg.norm(p, axis=0)
    scores = norms / np.linalg.norm(w, axis=0) if relative else norms
    axes = [("SHARED", u_shared), ("INTRINSIC", u_diff), ("PROMPTED", -u_diff)]
    if signed:
        axes.append(("SHARED_NEGATIVE", -u_shared))
    kept = sorted(range(intermediate), key=lambda i: (-scores[i], i))[: intermediate // 2]
    classes, angles = [], []
    for i in range(intermediate):
        angle = [np.degrees(np.arccos(np.clip(p[:, i] @ u / norms[i], -1, 1))) for _, u in axes]
        nearest = int(np.argmin(angle))
        angles.append(float(angle[nearest]))
        inside = axes[nearest][0] if angle[nearest] < 30 else "UNCLASSIFIED"
        classes.append(inside if i in kept else "NONE")
    return {
        "weights": rows(w),
        "hidden": hidden,
        "intermediate": intermediate,
        "shared": rows(shared),
        "difference": rows(difference),
        "signed": signed,
        "relative": relative,
        "scores": rows(scores),
        "angles": angles,
        "classes": classes,
        "members": kept,
    }


def main():
    rng = np.random.default_rng(20240917)
    later = np.random.default_rng(20240918)  # so that what was there first keeps its numbers
    one_each = [f"q{i}" for i in range(14)]
    labels = [bool(b) for b in rng.permutation([True] * 8 + [False] * 6)]
    grouped = [f"q{i // 3}" for i in range(24)]
    grouped_labels = [i % 3 == 1 or i % 5 == 0 for i in range(24)]
    repeated = ["q0", *one_each[:13]]
    mixed = [f"q{i * 5 % 11}" for i in range(40)]
    mixed_labels = [i % 3 == 0 or i % 7 == 1 for i in range(40)]
    latest = np.random.default_rng(20240919)
    many = [f"q{i * 7 % 300}" for i in range(330)]
    many_labels = [bool(b) for b in later.integers(0, 2, size=330)]
    # Of its own, so that the numbers of one do not depend on how many another draws.
    circle = np.random.default_rng(20250112)
    ten = list(VALUES)
    expected = {
        "circumplexes": [
            circumplex(circle, ten[:7], 12, 0),
            circumplex(circle, ["tradition", "power", "conformity", "hedonism", "security"], 40, 1),
            circumplex(circle, ten[::-1], 25, 2),
        ],
        "cosines": cosines(circle, 5, 9),
        "decompositions": [
            decomposition(rng, 12, 1.0, False),
            decomposition(rng, 9, 6.0, False),
            decomposition(rng, 9, 6.0, True),
        ],
        "mean_deltas": [mean_delta(rng, 8, 5, False), mean_delta(rng, 8, 5, True)],
        "difference_in_means": [
            difference_in_means(rng, labels, one_each, 2, 5),
            difference_in_means(rng, grouped_labels, grouped, 1, 4),
            difference_in_means(later, labels, repeated, 1, 1),
            difference_in_means(later, [i < 2 for i in range(5)], list("abcde"), 1, 40),
            difference_in_means(later, many_labels, many, 1, 2),
            difference_in_means(
                later, grouped_labels, grouped, 2, 6, [1 + i * 5 % 17 for i in range(24)]
            ),
        ],
        "principal_direction": [
            principal_direction(latest, mixed_labels, mixed, 5, False),
            principal_direction(latest, mixed_labels, mixed, 30, False),
            principal_direction(
                latest, mixed_labels, mixed, 4, False, [1 + i % 9 for i in range(40)]
            ),
            principal_direction(latest, mixed_labels, mixed, 3, True),
            principal_direction(latest, mixed_labels, mixed, 30, True),
        ],
        "linear_probe": [
            linear_probe(latest, mixed_labels, mixed, 4, 1.0),
            linear_probe(latest, mixed_labels, mixed, 60, 1.0),
            linear_probe(latest, labels, one_each, 20, 0.01),
            linear_probe(latest, mixed_labels, mixed, 3, 1000.0),
            linear_probe(latest, labels, one_each, 20, 100.0),
        ],
        "geometry": [
            geometry(rng, 6, 20, False, False),
            geometry(rng, 6, 20, True, True),
        ],
    }
    (ROOT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
