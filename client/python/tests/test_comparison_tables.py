"""What comparisons give back: arrays with NaN where nothing is known, rows for tables, plots."""

import math

import numpy as np
import pytest

import valuescope as vs
from valuescope import v1

NAMES = ["vectors/a", "vectors/b", "vectors/c"]
LAYERS = [3, 7]


def compared(with_tokens=False):
    response = v1.CompareVectorsResponse()
    for first in range(3):
        for second in range(first + 1, 3):
            for layer in LAYERS:
                cosine = response.cosines.add(first=NAMES[first], second=NAMES[second], layer=layer)
                if second < 2:
                    cosine.cosine = 0.1 * layer
                    cosine.disattenuated_cosine = 0.2 * layer
                if first == 0:
                    cosine.noise_floor = 0.01 * layer
    if with_tokens:
        response.tokens.add(
            vector="vectors/a", layer=3, top=[v1.TokenScore(token_id=5, piece="<b>", score=2)]
        )
    return vs.Comparison(response, NAMES)


def values(with_circle=True):
    response = v1.DecomposeVectorsResponse()
    for layer in LAYERS:
        response.mean_deltas.add(layer=layer, norm=layer, explained_variance=0.5)
    if with_circle:
        circle = response.circumplexes.add(
            layer=7,
            r_squared=0.9,
            null_mean=0.5,
            null_95th_percentile=0.8,
            permutation_p_value=1 / 3,
            distinct_permutations=3,
            plane_variance_share=0.75,
            null_p_value=0.01,
        )
        for angle in (0, 90, 180, 270):
            turn = math.radians(angle)
            circle.points.add(
                value=f"at {angle}", x=math.cos(turn), y=math.sin(turn), expected_angle=angle
            )
    return vs.ValueComparison(response)


def test_cosines_are_symmetric_matrices_and_nan_where_there_are_none():
    comparison = compared()
    assert comparison.layers == LAYERS
    cosines = comparison.cosines
    assert cosines.shape == (2, 3, 3)
    np.testing.assert_allclose(cosines[:, 0, 1], [0.3, 0.7])
    np.testing.assert_array_equal(cosines, np.swapaxes(cosines, 1, 2))
    np.testing.assert_array_equal(cosines[:, range(3), range(3)], 1)
    assert np.isnan(cosines[:, 0, 2]).all()
    np.testing.assert_allclose(comparison.disattenuated_cosines[:, 1, 0], [0.6, 1.4])
    np.testing.assert_allclose(comparison.noise_floors[:, 0], [0.03, 0.07])
    assert np.isnan(comparison.noise_floors[:, 1:]).all()


def test_records_have_every_column_in_every_row():
    rows = compared().records()
    assert len(rows) == 6
    assert {tuple(row) for row in rows} == {
        ("first", "second", "layer", "cosine", "disattenuated_cosine", "noise_floor")
    }
    assert rows[0]["cosine"] == pytest.approx(0.3)
    assert math.isnan(rows[-1]["cosine"])
    rows = values().records()
    assert [row["layer"] for row in rows] == LAYERS
    assert math.isnan(rows[0]["r_squared"]) and rows[1]["r_squared"] == 0.9
    assert set(rows[0]) == set(rows[1])


def test_tokens_are_found_by_their_row_and_shown_escaped():
    comparison = compared(with_tokens=True)
    assert comparison.tokens("vectors/a", 3).top[0].token_id == 5
    with pytest.raises(KeyError, match="top_tokens"):
        comparison.tokens("vectors/a", 7)
    assert "&lt;b&gt;" in comparison._repr_html_()
    assert "<b>" not in comparison._repr_html_()
    assert repr(comparison) == "Comparison(3 vectors, 2 layers, 1 rows of tokens)"


def test_values_have_their_points_and_angles():
    comparison = values()
    assert comparison.layers == [7]
    assert comparison.values == ["at 0", "at 90", "at 180", "at 270"]
    assert comparison.points.shape == (1, 4, 2)
    np.testing.assert_array_equal(comparison.expected_angles, [0, 90, 180, 270])
    assert "0.9" in comparison._repr_html_()
    without = values(with_circle=False)
    assert without.values == [] and without.r_squared.size == 0
    assert len(without.records()) == 2


def test_plots_show_what_was_compared():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("svg")
    plt = pytest.importorskip("matplotlib.pyplot")
    lines = compared().plot().get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), [0.3, 0.7])
    np.testing.assert_allclose(lines[1].get_ydata(), [0.6, 1.4])
    axes = values().plot()
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.9])
    given = plt.subplots()[1]
    assert values().plot_circle(7, given) is given
    assert "R² 0.90, random 0.50 to 0.80" in given.get_title()
    plt.close("all")


def test_values_are_asked_for_by_name(both, fake):
    name = "VectorService/DecomposeVectors"
    fake.answers[name] = lambda request, context: v1.DecomposeVectorsResponse()
    pairs = {"power": ("vectors/i", "vectors/p")}
    both.run(
        lambda client: client.compare_values(
            pairs, angles="nine", null_samples=200, seed=3, layers=[1], unit_deltas=True
        )
    )
    asked = fake.requests[name][0]
    assert asked.circumplex == v1.CircumplexOptions(
        angles=v1.CIRCUMPLEX_ANGLES_NINE, null_samples=200, seed=3
    )
    assert asked.unit_deltas and list(asked.layers.list.layers) == [1]
    assert asked.pairs[0] == v1.VectorPair(
        value="power", intrinsic="vectors/i", prompted="vectors/p"
    )
    both.run(lambda client: client.compare_values(pairs, angles=None))
    assert not fake.requests[name][-1].HasField("circumplex")
