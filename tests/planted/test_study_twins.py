"""Studies of models without the mechanism find something no more often than chance does; check_study_twin.py counts more of them."""

from check_study_twin import most_allowed, study, twins

SEEDS = [0, 1, 2]


def test_studies_of_twins_find_no_more_than_chance(tmp_path):
    with twins(tmp_path, SEEDS) as client:
        found = [study(client, seed) for seed in SEEDS]
    # They say words of the value by chance, and could have found something.
    assert all(one.comparisons > 0 and 0 < one.baseline < 1 for one in found)
    assert sum(one.anything for one in found) <= most_allowed(len(found))
