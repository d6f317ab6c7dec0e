"""What test_neurons sends, and the arrays of what comes back: NaN where nothing is known."""

import numpy as np
import pytest

import valuescope as vs
from valuescope import v1

TARGET = v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget())


def example():
    response = v1.TestNeuronsResponse(full=-3.0, empty=-9.0, num_responses=12)
    response.points.add(size=1, target=-4.0)
    response.points.add(
        size=2,
        target=-5.0,
        standard_error=0.5,
        faithfulness=0.25,
        random_mean=-3.5,
        random_lower=-4.0,
        random_upper=-3.0,
        p_value=0.01,
        num_unmatched=1,
    )
    return vs.NeuronTest(response)


def test_points_are_arrays_with_nan_where_nothing_is_known():
    test = example()
    assert (test.full, test.empty) == (-3, -9)
    np.testing.assert_array_equal(test.sizes, [1, 2])
    np.testing.assert_array_equal(test.targets, [-4, -5])
    np.testing.assert_array_equal(test.standard_errors, [np.nan, 0.5])
    np.testing.assert_array_equal(test.faithfulness, [np.nan, 0.25])
    np.testing.assert_array_equal(test.random_means, [np.nan, -3.5])
    np.testing.assert_array_equal(test.random_intervals, [[np.nan, np.nan], [-4, -3]])
    np.testing.assert_array_equal(test.p_values, [np.nan, 0.01])
    np.testing.assert_array_equal(test.num_unmatched, [0, 1])
    assert np.isnan(vs.NeuronTest(v1.TestNeuronsResponse()).empty)


def test_records_have_every_column_in_every_row():
    one, other = example().records()
    assert list(one) == list(other)
    assert (other["size"], other["p_value"]) == (2, 0.01)
    assert np.isnan(one["faithfulness"])


def test_it_is_shown_as_a_table():
    test = example()
    assert repr(test) == "NeuronTest(2 sizes, 12 responses, full -3, empty -9)"
    assert test._repr_html_().count("<tr>") == 3


def test_tests_of_several_rankings_go_by_their_labels():
    response = v1.TestNeuronsResponse(full=-3.0, empty=-9.0, num_responses=12)
    for label, target in (("a", -4.0), ("b", -5.0)):
        response.rankings.add(label=label).points.add(size=1, target=target)
    tests = vs.NeuronTests(response)
    assert list(tests) == ["a", "b"] and len(tests) == 2
    assert (tests["b"].targets[0], tests["b"].full, tests["a"].empty) == (-5, -3, -9)
    assert [(row["ranking"], row["target"]) for row in tests.records()] == [("a", -4), ("b", -5)]
    assert repr(tests) == "NeuronTests(a, b; 12 responses)"
    assert tests._repr_html_().count("<tr>") == 3
    request = vs.neuron_test_request(
        "models/m",
        "artifacts/a",
        {"set": "neuronSets/s", "pairs": [(1, 5)]},
        TARGET,
        neuron_class="shared",
    )
    assert [(r.label, r.neuron_set, len(r.neurons)) for r in request.rankings] == [
        ("set", "neuronSets/s", 0),
        ("pairs", "", 1),
    ]
    assert not request.neuron_set and not request.neurons


def test_a_request_ranks_pairs_or_a_set():
    pairs = vs.neuron_test_request(
        "models/m", "artifacts/a", [(1, 5), (0, 2)], TARGET, test="scale", factor=2.0
    )
    assert [(n.layer, n.index) for n in pairs.neurons] == [(1, 5), (0, 2)]
    assert (pairs.test, pairs.factor) == (v1.NEURON_TEST_SCALE, 2)
    assert pairs.layers.all and not pairs.HasField("tokens")
    by_set = vs.neuron_test_request(
        "models/m",
        [vs.labelled("a", "b", True)],
        "neuronSets/s",
        TARGET,
        test="keep_only",
        neuron_class="shared",
        layers=[3],
        tokens="response",
        sizes=[1, 8],
    )
    assert by_set.neuron_set == "neuronSets/s"
    assert getattr(by_set, "class") == v1.NEURON_CLASS_SHARED
    assert by_set.tokens.kind == v1.TOKEN_KIND_RESPONSE
    assert list(by_set.sizes) == [1, 8] and len(by_set.responses) == 1
    with pytest.raises(ValueError, match="remove, keep_only, scale"):
        vs.neuron_test_request("models/m", "artifacts/a", [(1, 5)], TARGET, test="silence")
