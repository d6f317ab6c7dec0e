"""Holds vectors by PCA and by linear probe, extracted by the server, against scikit-learn on the same model's captured activations.

    python check_extraction.py [--scikit_learn_python PYTHON]

PYTHON has scikit-learn; without it an environment is made for this run and scikit-learn 1.9.1 is installed there. VALUESCOPE_BUILD is the
build. The data are those of a planted model, where labels differ in one direction; of its twin, where they differ in noise; and random
words on a model of language, whose rows are wider than there are responses. Of each way the check prints the largest difference over
layers: of unit vectors relative to 1, of a probe relative to its norm, and how far the next best thing, the difference in means, is.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import planted_model as pm
import planted_truth as pt

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
import conftest  # noqa: E402
import valuescope as vs  # noqa: E402

SCIKIT_LEARN = "scikit-learn==1.9.1"
STRENGTHS = ["0.01", "1", "100"]
# Activations are float32 on both sides, pooled in float64, and rows are rounded to float32.
ROUNDING = 1e-4


def install(folder):
    """A Python that has scikit-learn and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", SCIKIT_LEARN], check=True)
    return folder / "bin" / "python"


def planted_responses():
    return [
        vs.labelled(
            pm.to_ids(pm.prompt_text(one.question, one.system)),
            pm.to_ids(one.answer),
            one.expresses,
            one.query,
        )
        for one in pt.examples("intrinsic")
    ]


def random_responses(count=48):
    """Three responses a query, of both labels in turn; some queries have one label, which PCA leaves out."""
    random = np.random.default_rng(8)
    labels = random.random(count) < 0.5
    return [
        vs.labelled(
            [int(i) for i in random.integers(1000, 40000, 6)],
            [int(i) for i in random.integers(1000, 40000, random.integers(3, 12))],
            bool(label),
            f"q{place // 3}",
        )
        for place, label in enumerate(labels)
    ]


def pooled(client, model, responses):
    """[layers, responses, width] float64: means over the tokens of responses."""
    seen = client.capture(
        model,
        [(one.prompt, one.response) for one in responses],
        vs.tap("residual_post", "all", "response"),
    )
    return np.stack([one[0].mean(axis=1, dtype=np.float64) for one in seen], axis=1)


def rows_of(client, response):
    rows = client.vector_data(response.vector.name)
    return np.stack([rows[layer] for layer in sorted(rows)]).astype(np.float64)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def relative(found, expected):
    """The largest difference of a row, relative to the row."""
    return float(
        (np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max()
    )


def check(client, model, title, responses, python, folder):
    files = [folder / "responses.npz", folder / "found.npz"]
    expresses = np.array([one.expresses for one in responses])
    queries = np.array([one.query_id for one in responses])
    x = pooled(client, model, responses)
    np.savez(files[0], x=x, expresses=expresses, queries=queries)
    subprocess.run([python, HERE / "scikit_learn_peer.py", *files, *STRENGTHS], check=True)
    theirs = np.load(files[1])
    means = x[:, expresses].mean(1) - x[:, ~expresses].mean(1)
    print(f"{title}: {x.shape[1]} responses, {x.shape[0]} layers of width {x.shape[2]}")

    def extracted(**how):
        made = client.extract_vectors(model, responses, layers="all", **how)
        return rows_of(client, made), made.statistics

    for method in ("pca", "pca_centered"):
        rows, statistics = extracted(method=method)
        expected = theirs[method] * np.sign((theirs[method] * rows).sum(-1, keepdims=True))
        share = np.array([row.explained_variance for row in statistics])
        off = relative(rows, expected)
        off_share = float(np.abs(share / theirs[f"{method}_share"] - 1).max())
        signs = np.sign((unit(means) * expected).sum(-1, keepdims=True))
        beside = relative(unit(means) * signs, expected)
        print(
            f"  {method}: {off:.2g}, share of variance {off_share:.2g} (means would be {beside:.2g})"
        )
        assert off < ROUNDING and off_share < ROUNDING
    for c in STRENGTHS:
        rows, statistics = extracted(method="linear_probe", inverse_regularization=float(c))
        expected = theirs[f"probe {c}"]
        intercepts = np.array([row.intercept for row in statistics])
        # An intercept is as exact as the sum <w, x> + b that it is part of.
        size = np.abs(expected[:, None] * x).sum(-1).mean(-1)
        off = relative(rows, expected)
        off_intercept = float((np.abs(intercepts - theirs[f"probe {c} intercept"]) / size).max())
        beside = relative(unit(means), unit(expected))
        print(
            f"  probe, C = {c}: {off:.2g}, intercept {off_intercept:.2g} (means would be {beside:.2g})"
        )
        assert off < ROUNDING and off_intercept < ROUNDING


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scikit_learn_python", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        python = options.scikit_learn_python or install(folder / "scikit-learn")
        weights = pm.Builder(0)
        models = {"planted": weights.planted, "planted_twin": weights.twin}
        for name, of_model in models.items():
            pm.write_model(folder / "models" / name, of_model)
        server = conftest.Server(
            folder, f"--model_root={folder / 'models'}", f"--models={','.join(models)}"
        )
        for name in models:
            with server.client(f"models/{name}") as client:
                check(client, f"models/{name}", name, planted_responses(), python, folder)
        assert server.stop() == 0
        (folder / "language").mkdir()
        server = conftest.Server(folder / "language")
        with server.client() as client:
            check(client, conftest.MODEL, conftest.MODEL, random_responses(), python, folder)
        assert server.stop() == 0


if __name__ == "__main__":
    main()
