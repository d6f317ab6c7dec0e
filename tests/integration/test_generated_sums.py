"""Vectors of generated responses on a server without room for their means: made of sums, they are what numpy makes of the activations of
the very responses, what the same responses give as a data set, and what a job gives that was killed."""

import json
from collections import Counter

import numpy as np
import pytest
import valuescope as vs
from conftest import Server
from test_generated_responses import (
    JUDGE,
    MODEL,
    QUERIES,
    QUESTION,
    SYSTEM,
    artifact_of,
    connected,
    data_of,
    flags,
    generated,
    lines_of,
    make_models,
    run_job,
)
from valuescope import v1

LAYERS = [0, 2]
# Generated responses and those that run once more are apart.
CONDITIONS = [vs.Condition(""), vs.Condition(SYSTEM)]
LOST = {"auroc", "clustered_squared_norm", "squared_norm_interval", "norm_interval"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


def small_flags(root):
    return [*flags(root), "--extraction_scratch_bytes=0"]


@pytest.fixture(scope="module")
def client(root, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("store"), *small_flags(root))
    with connected(server) as client:
        yield client
    assert server.stop() == 0


def halves_of(lines):
    """Half of each response: queries alternate in order of appearance among those with both labels, and among those with one alone from
    where the next of the former would be."""
    labels = {}
    for line in lines:
        labels.setdefault(line.query_id, set()).add(line.expresses)
    with_both = sum(len(both) == 2 for both in labels.values())
    seen, half = Counter(), {}
    for query, of in labels.items():
        kind = tuple(sorted(of))
        half[query] = (seen[kind] + (with_both if len(of) == 1 else 0)) % 2
        seen[kind] += 1
    return np.array([half[line.query_id] for line in lines])


def test_sums_are_those_of_the_activations_of_the_responses(client):
    made = client.extract_vectors(
        MODEL,
        generated=generated(conditions=CONDITIONS, samples_per_query=2, seed=11),
        site="mlp_neurons",
        layers=LAYERS,
    )
    lines = lines_of(client, made.responses_artifact)
    assert len(lines) + made.num_dropped == 4 * len(QUERIES)
    texts = [(list(line.prompt.token_ids.ids), list(line.response.token_ids.ids)) for line in lines]
    captured = client.capture(MODEL, texts, vs.tap("mlp_neurons", LAYERS, "response"))
    means = np.array([c[0].astype(np.float64).mean(1) for c in captured])
    expresses, half = np.array([line.expresses for line in lines]), halves_of(lines)
    assert {len(set(expresses[half == h])) for h in (0, 1)} == {2}

    def difference(chosen):
        return means[chosen & expresses].mean(0) - means[chosen & ~expresses].mean(0)

    wanted, of_half = difference(half >= 0), [difference(half == h) for h in (0, 1)]
    rows = client.vector_data(made.vector.name)
    for row, layer in enumerate(LAYERS):
        np.testing.assert_allclose(rows[layer], wanted[row], rtol=1e-4, atol=1e-6)
        statistics = made.statistics[row]
        assert statistics.norm == pytest.approx(np.linalg.norm(wanted[row]), rel=1e-5)
        one, other = of_half[0][row], of_half[1][row]
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert statistics.split_half_cosine == pytest.approx(cosine, abs=1e-5)
        noise = sum(
            means[chosen, row].var(0, ddof=1).sum() / chosen.sum()
            for chosen in (expresses, ~expresses)
        )
        debiased = np.linalg.norm(wanted[row]) ** 2 - noise
        assert statistics.debiased_squared_norm == pytest.approx(debiased, rel=1e-4)
        assert {missing.field for missing in statistics.missing} == LOST
        assert {m.absence for m in statistics.missing} == {v1.STATISTIC_ABSENCE_TOO_LARGE}
    assert any("sums alone" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"samples_per_query": 5}, {}),
        ({"samples_per_query": 5}, {"pooling": "token_mean"}),
        ({"conditions": CONDITIONS, "samples_per_query": 2}, {"pooling": "last_token"}),
        ({"judge": vs.Rubric(JUDGE, QUESTION), "samples_per_query": 3}, {}),
        (
            {"judge": None, "samples_per_query": 2, "conditions": [vs.Condition(SYSTEM, expresses=True), vs.Condition("", expresses=False)]},
            {"pooling": "last_prompt_token"},
        ),
    ],
    ids=["words", "token_mean", "last_token", "rubric", "conditions"],
)  # fmt: skip
def test_call_job_and_data_set_give_the_same_vector(client, changes, how):
    options = {"generated": generated(seed=7, **changes), "layers": LAYERS, **how}
    call = client.extract_vectors(MODEL, **options)
    again = client.extract_vectors(MODEL, call.responses_artifact, layers=LAYERS, **how)
    assert data_of(client, call.vector.name) == data_of(client, again.vector.name)
    assert list(call.statistics) == list(again.statistics)
    # What the rubric's answers are worth is known of generated ones alone.
    assert set(again.warnings) <= set(call.warnings)
    result = run_job(client, vs.extraction_request(MODEL, **options))
    assert list(result.vectors) == [call.vector.name]
    responses = client.read_artifact(artifact_of(result, "responses"))
    assert responses == client.read_artifact(call.responses_artifact)


def test_queries_that_share_an_id_far_apart_are_one(client):
    lines = [{"prompt": {"text": query}, "query_id": f"q{i % 5}"} for i, query in enumerate(QUERIES)]  # fmt: skip
    body = "\n".join(json.dumps(line) for line in lines).encode()
    uploaded = client.write_artifact(body, media_type="application/x-ndjson").name
    call = client.extract_vectors(MODEL, generated=generated(uploaded, samples_per_query=4))
    again = client.extract_vectors(MODEL, call.responses_artifact)
    assert {line.query_id for line in lines_of(client, call.responses_artifact)} == {f"q{i}" for i in range(5)}  # fmt: skip
    assert data_of(client, call.vector.name) == data_of(client, again.vector.name)
    assert list(call.statistics) == list(again.statistics)


def test_methods_that_look_at_every_response_again_need_the_room(client):
    with pytest.raises(vs.Exhausted, match="extraction_scratch_bytes") as refused:
        client.extract_vectors(MODEL, generated=generated(), method="pca")
    assert refused.value.reason == "MEANS_TOO_LARGE"


def test_kill_9_in_the_middle_gives_the_same_bytes(client, start_server, root, tmp_path):
    request = vs.extraction_request(
        MODEL, generated=generated(samples_per_query=14, seed=6, max_tokens=20), layers=LAYERS
    )
    whole = run_job(client, request)
    first = start_server(tmp_path / "killed", *small_flags(root))
    with connected(first) as other:
        job = other.create_job(v1.JobSpec(extract_vectors=request))
        # 168 responses: 6 shards generate, 11 sum up.
        for state in other.watch_job(job.name):
            if state.progress.shards_done >= 8:
                break
        committed = other.job(job.name).progress
    assert 8 <= committed.shards_done < committed.shards_total == 17
    first.kill()
    second = start_server(tmp_path / "killed", *small_flags(root))
    with connected(second) as other:
        other.wait_for_job(job.name)
        result = other.job(job.name).result
        assert list(result.vectors) == list(whole.vectors)
        for role in ("responses", "summary"):
            after = other.read_artifact(artifact_of(result, role))
            assert after == client.read_artifact(artifact_of(whole, role))
    assert second.stop() == 0
