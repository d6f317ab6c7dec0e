"""The study by hand, a notebook, on the planted model: it finds the axes and what they cause, and its numbers are what numpy makes of what the
server keeps."""

import numpy as np
import planted_model as pm
import pytest
from test_planted import BLOCK, PLANTED, Server, cosine
from test_planted_study import CUED, LABELS, NEUTRAL, SCORES, SYSTEM, row_of

# The folder of the integration tests is on the path by now.
from test_notebooks import found  # isort: skip

PARAMETERS = {
    "queries": [*CUED[:10], *NEUTRAL[:14]],
    "test_queries": NEUTRAL[20:26],
    "system_messages": SYSTEM,
    "label_words": LABELS,
    "score_words": SCORES,
    "samples": 4,
    "max_tokens": 6,
    "temperature": 0.5,
    "top_percent": 50.0,
    "layer": BLOCK,
    "strength": 0.65,
}
ASKED = """{
    "vectors": [pair.intrinsic, pair.prompted],
    "shared": parts.shared.name,
    "counts": counts,
    "expected": expected,
    "kept": sum(of_layer.num_members for of_layer in classified.layers),
    "set": attributed.name,
    "top": [[one.layer, one.index] for one in attributed.top],
    "labels": {name: [one.expresses for one in of_one] for name, of_one in responses.items()},
    "texts": {name: [list(one.response.token_ids.ids) for one in of_one] for name, of_one in responses.items()},
    "scored": scored,
    "measured": [told.condition for told in measures],
    "titles": [axes.get_title() for axes in figure.axes],
    "drawn": [len(axes.lines) for axes in figure.axes],
}"""


@pytest.fixture(scope="module")
def builder():
    return pm.Builder(0)


@pytest.fixture(scope="module")
def server(builder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    pm.write_model(folder / "planted", builder.planted)
    server = Server(folder, f"--model_root={folder}", "--models=planted")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with server.client(PLANTED) as connected:
        yield connected


@pytest.fixture(scope="module")
def told(server, client):
    """What the notebook found."""
    notebook = "value_study_by_hand.ipynb"
    return found(notebook, server.address, PLANTED, "", PARAMETERS, ASKED)


def test_labels_are_those_of_the_words_in_the_answers(told):
    words = pm.words()
    for condition, labels in told["labels"].items():
        assert len(labels) == 24 * 4
        said = [{words[id] for id in ids} for ids in told["texts"][condition]]
        assert labels == [bool(some & set(LABELS)) for some in said]


def test_the_axes_are_those_that_were_planted(client, builder, told):
    intrinsic, prompted = (row_of(client, name) for name in told["vectors"])
    assert cosine(intrinsic, builder.vectors()["intrinsic"]) > 0.99
    left, _, _ = np.linalg.svd(np.stack([intrinsic, prompted], axis=1), full_matrices=False)
    axis = left[:, 0] * np.sign(left[:, 0] @ (intrinsic + prompted))
    np.testing.assert_allclose(row_of(client, told["shared"]), axis, atol=1e-5)


def test_the_most_contributing_neurons_are_planted_ones(client, builder, told):
    columns = client.neuron_columns(told["set"]).scores
    first = np.argsort(-np.abs(columns), axis=None, kind="stable")[:10]
    assert told["top"] == np.stack(np.unravel_index(first, columns.shape), axis=1).tolist()
    planted = {n.index for n in builder.neurons if n.role in ("shared", "intrinsic", "prompted")}
    in_block = [index for layer, index in told["top"] if layer == BLOCK]
    assert in_block[0] in planted
    assert sum(told["counts"].values()) == told["kept"]
    assert sum(told["expected"].values()) == pytest.approx(told["kept"])


def test_what_is_steered_along_what_was_planted_expresses_the_value(told):
    share = {name: np.mean(hits) for name, hits in told["scored"].items()}
    assert list(share) == told["measured"]
    assert share["unsteered"] < 0.1 and share["random"] < 0.5
    assert min(share[name] for name in ("intrinsic", "prompted", "shared")) > 0.9


def test_the_figure_has_both_vectors_and_every_way_to_steer(told):
    assert told["titles"] == ["stimulation, with 95 % intervals", f"steered at layer {BLOCK}"]
    assert told["drawn"] == [2, 2 * len(told["scored"])]
