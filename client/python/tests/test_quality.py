"""The statistics of extracted vectors: arrays with NaN where nothing is known, rows for tables, plots."""

import math

import numpy as np
import pytest

import valuescope as vs
from valuescope import v1


def extracted():
    """Two layers with an interval, the second of which noise alone gives, and one of an earlier server."""
    rows = [
        v1.VectorStatistics(layer=3, norm=2.5, within_noise=False, auroc=0.9, reliability=0.8),
        v1.VectorStatistics(layer=7, norm=2.0, within_noise=True, reliability=-0.2),
        v1.VectorStatistics(layer=9, norm=1.5),
    ]
    for row, lower, upper in ((rows[0], 1.5, 3.0), (rows[1], 0.0, 1.75)):
        row.norm_interval.CopyFrom(v1.Interval(lower=lower, upper=upper, level=0.95))
        row.squared_norm_interval.CopyFrom(v1.Interval(upper=upper**2, level=0.95))
    rows[2].norm_interval.upper = 99.0  # of another kind
    rows[1].missing.add(field="auroc", absence=v1.STATISTIC_ABSENCE_ONE_QUERY)
    for row in rows:
        row.num_expressing, row.num_non_expressing = 12, 10
    return vs.Quality(
        v1.ExtractVectorsResponse(vector=v1.Vector(name="vectors/v"), statistics=rows)
    )


def component():
    """As of PCA, a stored vector: no length, but pairs and a share."""
    row = v1.VectorStatistics(layer=0, norm=1.0, num_pairs=6, explained_variance=0.25)
    for field in ("norm_interval", "within_noise"):
        row.missing.add(field=field, absence=v1.STATISTIC_ABSENCE_METHOD)
    return vs.Quality(v1.Vector(name="vectors/<p>", statistics=[row]))


def test_norms_come_with_the_intervals_that_are_of_the_true_norm():
    quality = extracted()
    assert quality.layers == [3, 7, 9]
    np.testing.assert_array_equal(quality.norms, [2.5, 2.0, 1.5])
    np.testing.assert_array_equal(
        quality.norm_intervals, [[1.5, 3.0], [0.0, 1.75], [np.nan, np.nan]]
    )
    np.testing.assert_array_equal(quality.within_noise, [False, True, False])


def test_records_have_every_column_in_every_row_and_say_why_a_number_is_missing():
    rows = extracted().records() + component().records()
    assert len({tuple(row) for row in rows}) == 1
    first, second, earlier, of_pca = rows
    assert (first["norm_lower"], first["norm_upper"], first["within_noise"]) == (1.5, 3.0, False)
    assert second["missing"] == {"auroc": "one query"} and math.isnan(second["auroc"])
    assert earlier["within_noise"] is None and first["missing"] == {}
    assert (of_pca["num_pairs"], of_pca["explained_variance"]) == (6, 0.25)
    assert math.isnan(of_pca["norm_lower"]) and math.isnan(of_pca["intercept"])
    assert of_pca["missing"] == {"norm_interval": "method", "within_noise": "method"}


def test_an_intercept_of_zero_is_a_number():
    row = v1.VectorStatistics(intercept=0.0)
    assert vs.Quality(v1.Vector(statistics=[row])).records()[0]["intercept"] == 0.0


def test_records_become_a_table_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(extracted().records()).set_index("layer")
    assert table.loc[7, "norm_upper"] == 1.75
    assert table["auroc"].isna().tolist() == [False, True, True]


def test_a_notebook_shows_the_table_escaped():
    shown = component()._repr_html_()
    assert "vectors/&lt;p&gt;" in shown and "<p>" not in shown
    assert "norm_interval: method, within_noise: method" in shown and "nan" not in shown
    assert repr(extracted()) == "Quality(vectors/v, 3 layers)"


def test_a_vector_that_was_not_extracted_has_no_layers():
    quality = vs.Quality(v1.Vector(name="vectors/v"))
    assert quality.layers == [] and quality.records() == []
    assert quality.norm_intervals.shape == (0, 2)
    assert "vectors/v" in quality._repr_html_()


def test_plots_show_norms_with_their_intervals_and_noise_in_grey():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("svg")
    plt = pytest.importorskip("matplotlib.pyplot")
    axes = extracted().plot()
    sure, noise = axes.get_lines()
    np.testing.assert_array_equal(sure.get_xdata(), [3, 9])
    np.testing.assert_array_equal(noise.get_xydata(), [[7, 2.0]])
    assert noise.get_color() == "#888888" != sure.get_color()
    of_sure, of_noise = axes.collections
    np.testing.assert_array_equal(of_sure.get_segments()[0], [[3, 1.5], [3, 3.0]])
    np.testing.assert_array_equal(of_noise.get_segments()[0], [[7, 0.0], [7, 1.75]])
    np.testing.assert_allclose(of_noise.get_color()[0], matplotlib.colors.to_rgba("#888888"))
    assert axes.get_ylim()[0] == 0
    given = plt.subplots()[1]
    assert component().plot_agreement(given) is given
    (line,) = [one for one in given.get_lines() if one.get_label() == "explained variance"]
    np.testing.assert_array_equal(line.get_ydata(), [0.25])
    assert len(given.get_lines()) == 2  # and the line of chance
    labels = [one.get_label() for one in extracted().plot_agreement().get_lines()]
    assert [label.split()[0] for label in labels[:2]] == ["reliability", "AUROC"]
    plt.close("all")
