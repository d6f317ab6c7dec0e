"""What a study finds over all ten of Schwartz's values, held against numpy: mean delta, cross-value cosine and circumplex, with intervals
jackknifed over the values; on a tiny model."""

import math

import numpy as np
import pytest
from test_value_study import DEVELOPMENT, TEST, client, root, server, spec_of  # noqa: F401
from valuescope import v1

pytestmark = pytest.mark.filterwarnings("ignore")
# In the order of the circle, 36 degrees each.
VALUES = "self-direction stimulation hedonism achievement power security conformity tradition benevolence universalism".split()  # fmt: skip
# Student's, at .975 with nine degrees of freedom.
STUDENT = 2.2621571627409915
WORDS = 94
# Of numbers between 0 and 1 that are made of rows in float32.
ROUNDING = 1e-5


def words(first, count):
    return [f"w{7 + (first + i) % WORDS}" for i in range(count)]


def value_of(number):
    judges = [v1.Judge(word_list=v1.WordListJudge(words=words(9 * number + of, 14))) for of in (0, 40)]  # fmt: skip
    return v1.ValueDefinition(
        value=VALUES[number],
        system_messages=words(9 * number + 70, 2),
        judge=judges[0],
        score_judge=judges[1],
    )


@pytest.fixture(scope="module")
def result(client):  # noqa: F811
    spec = spec_of(
        values=[value_of(number) for number in range(10)],
        min_responses=1,
        coefficients=[2.0],
        directions=[v1.STUDY_DIRECTION_SHARED],
        random_directions=0,
        neurons=v1.StudyNeurons(attribute=False),
        development_queries=DEVELOPMENT[:2],
        test_queries=TEST[:2],
        measures=v1.MeasureTextsRequest(),
        development_choices=None,
        questionnaire=None,
    )
    handle = client.value_study(spec)
    handle.wait()
    study = handle.result().study
    assert [value.value for value in study.values if not value.failure] == VALUES
    return study


@pytest.fixture(scope="module")
def rows(client, result):  # noqa: F811
    """By what they are, [values, layers, width]."""

    def stacked(names):
        data = [client.vector_data(name) for name in names]
        return np.array([[one[layer.layer] for layer in result.layers] for one in data], np.float64)

    return {
        "intrinsic": stacked([value.vectors[0].vector for value in result.values]),
        "prompted": stacked([value.vectors[1].vector for value in result.values]),
        "shared": stacked([value.decomposition.shared for value in result.values]),
    }


def explained_variance(deltas):
    mean = deltas.mean(axis=0)
    return ((deltas @ (mean / np.linalg.norm(mean))) ** 2).sum() / (deltas**2).sum()


def mean_pairwise_cosine(deltas):
    unit = deltas / np.linalg.norm(deltas, axis=1, keepdims=True)
    cosines = unit @ unit.T
    return cosines[np.triu_indices(len(deltas), 1)].mean()


def r_squared(axes, kept):
    """Of the plane of the axes laid on the places of the values that are kept."""
    centred = axes - axes.mean(axis=0)
    left, s, _ = np.linalg.svd(centred, full_matrices=False)
    x = left[:, :2] * s[:2]
    angles = np.radians(36 * np.array(kept))
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    places -= places.mean(axis=0)
    singular = np.linalg.svd(x.T @ places, compute_uv=False)
    return singular.sum() ** 2 / ((x**2).sum() * (places**2).sum())


def jackknifed(number):
    """Estimate and interval of a function of the values that are kept."""
    every = list(range(10))
    estimate = number(every)
    without = np.array([number([v for v in every if v != left]) for left in every])
    error = math.sqrt(9 / 10 * ((without - without.mean()) ** 2).sum())
    return estimate, estimate - STUDENT * error, estimate + STUDENT * error


def numbers_of(rows, layer):
    deltas = rows["prompted"][:, layer] - rows["intrinsic"][:, layer]
    axes = rows["shared"][:, layer]
    return {
        "explained_variance": lambda kept: explained_variance(deltas[kept]),
        "mean_pairwise_cosine": lambda kept: mean_pairwise_cosine(deltas[kept]),
        "circumplex_r_squared": lambda kept: r_squared(axes[kept], kept),
    }


def check(told, interval, expected):
    np.testing.assert_allclose([told, interval.lower, interval.upper], expected, atol=ROUNDING)
    assert interval.level == 0.95


def test_each_layer_has_its_numbers_and_intervals(result, rows):
    assert len(result.mean_deltas) == len(result.circumplexes) == len(result.layers) > 1
    assert len(result.value_intervals) == len(result.layers)
    for place, layer in enumerate(result.layers):
        told = result.value_intervals[place]
        assert told.layer == result.circumplexes[place].layer == layer.layer
        found = {
            "explained_variance": result.mean_deltas[place].explained_variance,
            "mean_pairwise_cosine": result.mean_deltas[place].mean_pairwise_cosine,
            "circumplex_r_squared": result.circumplexes[place].r_squared,
        }
        for name, number in numbers_of(rows, place).items():
            check(found[name], getattr(told, name), jackknifed(number))


def test_the_paper_is_held_against_means_over_the_layers(result, rows):
    told = {quantity.name: quantity for quantity in result.paper if not quantity.value}
    assert [quantity.name for quantity in result.paper][-3:] == list(told)
    layers = [numbers_of(rows, place) for place in range(len(result.layers))]

    def over_layers(name):
        return jackknifed(lambda kept: np.mean([numbers[name](kept) for numbers in layers]))

    variance = told["mean_delta_explained_variance"]
    check(variance.found, variance.interval, over_layers("explained_variance"))
    cosine = told["cross_value_cosine"]
    check(cosine.found, cosine.interval, over_layers("mean_pairwise_cosine"))
    null = result.circumplexes[0].null_95th_percentile
    circle = told["circumplex_r_squared"]
    expected = np.array(over_layers("circumplex_r_squared")) - null
    check(circle.found, circle.interval, expected)
    sides = {
        v1.PAPER_AGREEMENT_SUPPORTED: expected[1] > 0,
        v1.PAPER_AGREEMENT_CONTRADICTED: expected[2] < 0,
        v1.PAPER_AGREEMENT_UNDECIDED: expected[1] <= 0 <= expected[2],
    }
    assert sides[circle.agreement]


def test_the_null_of_the_circle_is_that_of_random_directions(result, rows):
    draw = np.random.default_rng(3)
    width = rows["shared"].shape[-1]
    null = []
    for _ in range(3000):
        axes = draw.normal(size=(10, width))
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        null.append(r_squared(axes, list(range(10))))
    told = result.circumplexes[0]
    # 1000 draws of the server: five standard errors of a quantile, and of a mean.
    assert np.quantile(null, 0.915) < told.null_95th_percentile < np.quantile(null, 0.985)
    assert abs(told.null_mean - np.mean(null)) < 5 * np.std(null) / math.sqrt(1000)
