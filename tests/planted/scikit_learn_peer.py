"""What scikit-learn makes of pooled responses: principal components of the differences of pairs, and a linear probe.

    python scikit_learn_peer.py RESPONSES.npz FOUND.npz C...

RESPONSES has `x` [layers, responses, width] float64, `expresses` and `queries` [responses]. FOUND gets, by layer, "pca" and "pca_centered"
[layers, width] of unit norm with their "_share" [layers] of the variance, and for each C "probe C" [layers, width] and "probe C intercept"
[layers]. Run by check_extraction.py with a Python that has scikit-learn.
"""

import sys

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression


def differences(x, expresses, queries):
    """[pairs, width]: of every query with responses of both labels, the difference of their means."""
    found = []
    for query in dict.fromkeys(queries):
        of_query = queries == query
        sides = [x[of_query & (expresses == side)] for side in (True, False)]
        if all(len(side) for side in sides):
            found.append(sides[0].mean(0) - sides[1].mean(0))
    return np.array(found)


def component(points):
    model = PCA(n_components=1, svd_solver="full").fit(points)
    return model.components_[0], model.explained_variance_ratio_[0]


def main(responses, out, *strengths):
    given = np.load(responses)
    found = {}

    def keep(name, value):
        found.setdefault(name, []).append(value)

    for x in given["x"]:
        d = differences(x, given["expresses"], given["queries"])
        # Both ends of every pair about their middle have no mean that PCA could take away.
        for name, points in (("pca", np.concatenate([d / 2, -d / 2])), ("pca_centered", d)):
            direction, share = component(points)
            keep(name, direction)
            keep(f"{name}_share", share)
        for c in strengths:
            model = LogisticRegression(
                C=float(c), solver="newton-cholesky", tol=1e-12, max_iter=1000
            )
            model.fit(x, given["expresses"])
            keep(f"probe {c}", model.coef_[0])
            keep(f"probe {c} intercept", model.intercept_[0])
    np.savez(out, **{name: np.array(values) for name, values in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
