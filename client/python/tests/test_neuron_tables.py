"""What calls about neurons give back: arrays with NaN where nothing is known, rows for tables, plots."""

import hashlib
import json
import math

import numpy as np
import pytest

import valuescope as vs
from valuescope import v1
from valuescope.crc32c import crc32c
from valuescope.tensors import read_tensor_file

NONE, UNCLASSIFIED, SHARED, PROMPTED = (
    v1.NeuronClass.Value(f"NEURON_CLASS_{name}")
    for name in ("NONE", "UNCLASSIFIED", "SHARED", "PROMPTED")
)


def tensor_file(**tensors):
    header, data = {}, b""
    for name, array in tensors.items():
        kind = {"<f8": "F64", "<i4": "I32", "<i8": "I64"}[array.dtype.str]
        place = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def classified():
    """Two layers of four neurons."""
    neuron_set = v1.NeuronSet(name="neuronSets/<s>", method="geometric", artifact="artifacts/s")
    tensors = {}
    for layer in (3, 7):
        neuron_set.layers.add(layer=layer, num_neurons=4)
        tensors[f"layer.{layer}.score"] = np.array([2.0, 1.0, 4.0, 0.5]) * layer
        tensors[f"layer.{layer}.class"] = np.array([SHARED, PROMPTED, UNCLASSIFIED, NONE], np.int32)
        tensors[f"layer.{layer}.angle"] = np.array([0.0, 30.0, 90.0, 10.0])
    neuron_set.top.add(layer=7, index=2, score=28.0)
    return neuron_set, tensors


def compared():
    """Three sets of layers 3 and 7; the last two are empty in layer 7."""
    response = v1.CompareNeuronSetsResponse()
    for first, second, layer, both, either in (
        (0, 1, None, 2, 8),
        (0, 1, 3, 2, 4),
        (0, 1, 7, 0, 4),
        (0, 2, None, 1, 10),
        (0, 2, 3, 1, 2),
        (0, 2, 7, 0, 4),
        (1, 2, None, 0, 3),
        (1, 2, 3, 0, 3),
        (1, 2, 7, 0, 0),
    ):
        one = response.overlaps.add(
            first=first,
            second=second,
            layer=layer,
            intersection=both,
            union_size=either,
            expected_intersection=0.5 * both,
        )
        if either:
            one.jaccard = both / either
    shared = v1.NeuronSetFilter(neuron_set="neuronSets/a")
    setattr(shared, "class", SHARED)
    filters = [
        shared,
        v1.NeuronSetFilter(neuron_set="neuronSets/b"),
        v1.NeuronSetFilter(neuron_set="neuronSets/c", top_per_layer=5),
    ]
    return vs.NeuronSetComparison(response, filters)


def selective():
    response = v1.ScoreSelectivityResponse(members_of_value=[2, 1], activity_threshold=0.25)
    response.neuron_set.name = "neuronSets/s"
    response.neuron_set.layers.add(layer=3, num_members=2)
    response.top.add(layer=3, index=5, entropy=0.0, values=[0])
    response.top.add(layer=3, index=1, entropy=0.5, values=[0, 1])
    return vs.Selectivity(response, ["power", "<security>"])


def contexts():
    response = v1.TopContextsResponse()
    one = response.neurons.add(neuron=v1.NeuronId(layer=3, index=5))
    one.contexts.add(
        input_index=4,
        position=7,
        activation=2.5,
        token_ids=[8, 9],
        center=1,
        text="<b> c",
        activations=[0.5, 2.5],
    )
    response.neurons.add(neuron=v1.NeuronId(layer=0, index=1))
    return vs.Contexts(response)


def curve(**fields):
    response = v1.TestNeuronsResponse(full=5.0, num_responses=3, **fields)
    for size, target in ((1, 4.0), (4, 2.0)):
        response.points.add(
            size=size,
            target=target,
            standard_error=0.25,
            random_mean=4.75,
            random_lower=4.5,
            random_upper=5.0,
            p_value=0.5 / size,
        )
    response.points.add(size=8, target=1.0)
    return vs.NeuronTest(response)


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("svg")
    plt = pytest.importorskip("matplotlib.pyplot")
    yield plt
    plt.close("all")


# --- Columns ---


def test_a_tensor_file_is_read_with_its_types_and_shapes():
    given = {
        "a": np.arange(6, dtype="<f8").reshape(2, 3),
        "b": np.array([1, -2], "<i4"),
        "c": np.array([1 << 62], "<i8"),
    }
    read = read_tensor_file(tensor_file(**given))
    assert list(read) == ["a", "b", "c"]
    for name, array in given.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype and read[name].flags.writeable
    for damaged in (b"", b"x" * 20, tensor_file(**given).replace(b"F64", b"F16")):
        with pytest.raises(ValueError):
            read_tensor_file(damaged)


def test_columns_are_arrays_by_layer(both, fake):
    neuron_set, tensors = classified()
    data = tensor_file(**tensors)
    fake.answers["NeuronService/GetNeuronSet"] = lambda request, context: v1.GetNeuronSetResponse(
        neuron_set=neuron_set
    )
    artifact = v1.Artifact(
        name="artifacts/s", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    fake.answers["ArtifactService/GetArtifact"] = lambda request, context: v1.GetArtifactResponse(
        artifact=artifact
    )
    chunk = v1.ArtifactChunk(data=data, crc32c=crc32c(data))
    fake.answers["ArtifactService/ReadArtifact"] = lambda request, context: [
        v1.ReadArtifactResponse(chunk=chunk)
    ]
    columns = both.run(lambda client: client.neuron_columns("neuronSets/s"))
    assert columns.layers == [3, 7]
    np.testing.assert_array_equal(columns.scores, [[6, 3, 12, 1.5], [14, 7, 28, 3.5]])
    assert columns.column("class").dtype == np.int32
    with pytest.raises(KeyError):
        columns.column("mean_expressing")
    assert repr(columns) == "NeuronColumns(neuronSets/<s>, geometric, 2 layers)"


def test_the_plane_shows_kept_neurons_beside_their_nearest_axis(pyplot):
    axes = vs.NeuronColumns(*classified()).plot_plane(3)
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["shared, 1"].get_xydata(), [[6, 0]])
    np.testing.assert_allclose(
        lines["prompted, 1"].get_xydata(), [[3 * math.cos(math.pi / 6), 1.5]]
    )
    np.testing.assert_allclose(lines["unclassified, 1"].get_xydata(), [[0, 12]], atol=1e-12)
    assert not any(label.startswith(("none", "intrinsic")) for label in lines)


def test_scores_by_layer_show_all_neurons_and_the_top_ones(pyplot):
    given = pyplot.subplots()[1]
    assert vs.NeuronColumns(*classified()).plot(given) is given
    whole, _ = given.collections
    corners = whole.get_paths()[0].vertices
    assert corners[:, 1].min() == 1.5 and corners[:, 1].max() == 28
    (top,) = [line for line in given.get_lines() if line.get_label() == "top members"]
    np.testing.assert_array_equal(top.get_xydata(), [[7, 28]])


# --- Overlaps ---


def test_overlaps_are_symmetric_matrices():
    comparison = compared()
    assert comparison.layers == [3, 7]
    assert comparison.names == ["neuronSets/a=shared", "neuronSets/b", "neuronSets/c, top 5"]
    np.testing.assert_array_equal(comparison.jaccard(), [[1, 0.25, 0.1], [0.25, 1, 0], [0.1, 0, 1]])
    np.testing.assert_array_equal(comparison.jaccard(3)[0], [1, 0.5, 0.5])
    assert np.isnan(comparison.jaccard(7)[1, 2])
    np.testing.assert_array_equal(comparison.intersections()[0], [np.nan, 2, 1])
    np.testing.assert_array_equal(comparison.expected_intersections(3)[:, 0], [np.nan, 1, 0.5])


def test_overlaps_become_rows_and_a_table():
    records = compared().records()
    assert len(records) == 9 and len({tuple(row) for row in records}) == 1
    assert records[0]["layer"] is None and records[2]["layer"] == 7
    assert math.isnan(records[8]["jaccard"])
    shown = compared()._repr_html_()
    assert shown.count("<tr>") == 4 and "neuronSets/a=shared" in shown


def test_the_matrix_of_overlaps_tells_both_numbers(pyplot):
    axes = compared().plot()
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), compared().jaccard())
    assert {text.get_text() for text in axes.texts} == {"2\n(1.0)", "1\n(0.5)", "0\n(0.0)"}
    assert "layer 3" in compared().plot(layer=3).get_title()


def test_sets_are_compared_by_name_class_and_filter(both, fake):
    name = "NeuronService/CompareNeuronSets"
    fake.answers[name] = lambda request, context: compared().response
    given = v1.NeuronSetFilter(neuron_set="neuronSets/c")
    comparison = both.run(
        lambda client: client.compare_neuron_sets(
            ["neuronSets/a=shared", "neuronSets/b", given], top_per_layer=4
        )
    )
    sent = fake.requests[name][0].sets
    assert [one.neuron_set for one in sent] == ["neuronSets/a", "neuronSets/b", "neuronSets/c"]
    assert [getattr(one, "class") for one in sent] == [SHARED, 0, 0]
    assert [one.top_per_layer for one in sent] == [4, 4, 0]
    assert comparison.names[0] == "neuronSets/a=shared, top 4"
    with pytest.raises(ValueError, match="choose one of"):
        vs.Client("127.0.0.1:1").compare_neuron_sets(["neuronSets/a=grand"])
    with pytest.raises(TypeError, match="item 1 of sets"):
        vs.Client("127.0.0.1:1").compare_neuron_sets(["neuronSets/a", 3])


# --- Selectivity ---


def test_selectivity_goes_by_the_names_of_the_values(both, fake):
    name = "NeuronService/ScoreSelectivity"
    fake.answers[name] = lambda request, context: selective().response
    sets = {"power": "neuronSets/p", "security": "neuronSets/s"}
    found = both.run(lambda client: client.score_selectivity(sets, top_percent=5.0, top_k=7))
    sent = fake.requests[name][0]
    assert list(sent.neuron_sets) == ["neuronSets/p", "neuronSets/s"]
    assert (sent.top_percent, sent.top_k) == (5.0, 7) and not sent.HasField("activity_percentile")
    assert len(sent.request_id) == 36
    assert found.members_of_value == {"power": 2, "security": 1}
    listed = both.run(lambda client: client.score_selectivity(list(sets.values())))
    assert list(listed.values) == ["neuronSets/p", "neuronSets/s"]


def test_selective_neurons_become_rows_and_a_table():
    first, second = selective().records()
    assert first == {"layer": 3, "index": 5, "entropy": 0, "power": True, "<security>": False}
    assert second["power"] and second["<security>"]
    assert repr(selective()) == "Selectivity(neuronSets/s, 2 values, 2 members)"
    assert "power, &lt;security&gt;" in selective()._repr_html_()


# --- Contexts ---


def test_contexts_become_rows_and_an_escaped_table():
    found = contexts()
    (row,) = found.records()
    assert (row["layer"], row["index"], row["rank"], row["input_index"]) == (3, 5, 0, 4)
    np.testing.assert_array_equal(row["activations"], [0.5, 2.5])
    assert found.neurons == [(3, 5), (0, 1)]
    assert found.of(3, 5)[0].center == 1 and found.of(0, 1) == []
    with pytest.raises(KeyError, match="not asked for"):
        found.of(9, 9)
    assert "&lt;b&gt; c" in found._repr_html_()
    assert repr(found) == "Contexts(2 neurons, 1 contexts)"


def test_contexts_are_asked_for_by_neurons(both, fake):
    name = "NeuronService/TopContexts"
    fake.answers[name] = lambda request, context: contexts().response
    text = vs.labelled("a", "b", False)
    both.run(
        lambda client: client.top_contexts(
            "models/m", np.array([[3, 5], [0, 1]]), [text], tokens="all", top_k=2, window=0
        )
    )
    sent = fake.requests[name][0]
    assert [(n.layer, n.index) for n in sent.neurons] == [(3, 5), (0, 1)]
    assert (sent.top_k, sent.window, sent.HasField("window")) == (2, 0, True)
    assert sent.tokens.kind == v1.TOKEN_KIND_ALL and list(sent.responses) == [text]


# --- Causal curves ---


def test_a_causal_curve_shows_the_band_of_random_sets(pyplot):
    axes = curve(empty=0.5).plot()
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_array_equal(lines["random sets, mean"].get_ydata()[:2], [4.75, 4.75])
    assert lines["nothing changed"].get_ydata()[0] == 5
    assert lines["all ablated"].get_ydata()[0] == 0.5
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 4.5 and band[:, 1].max() == 5
    bare = v1.TestNeuronsResponse(full=1.0, points=[v1.NeuronTestPoint(size=1, target=0.5)])
    labels = [line.get_label() for line in vs.NeuronTest(bare).plot().get_lines()]
    assert "random sets, mean" not in labels and "all ablated" not in labels
