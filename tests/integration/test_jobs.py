"""The durable queue through the real server: progress, results as artifacts, and death in the middle."""

import json

import numpy as np
import pytest
import valuescope as vs
from conftest import MODEL, Server
from valuescope import v1

RESPONSES = 160


@pytest.fixture(scope="module")
def data_set():
    """Labelled responses of random words; what they say does not matter here, only that there are enough of them."""
    generator = np.random.default_rng(0)
    return [
        vs.labelled(
            vs.chat(f"Question {index // 4}?", system=""),
            [int(i) for i in generator.integers(1000, 40000, 24)],
            bool(index % 2),
            f"q{index // 4}",
        )
        for index in range(RESPONSES)
    ]


def submit(client, data_set):
    vector = client.create_vector(
        MODEL, np.random.default_rng(1).standard_normal((30, 576)), layers=range(30)
    )
    artifact = client.write_artifact(data_set)
    spec = v1.JobSpec(attribute_neurons=vs.attribution_request(MODEL, artifact.name, vector.name))
    return client.create_job(spec, display_name="test")


def results(client, job):
    return {a.role: client.read_artifact(a.artifact) for a in client.job(job).result.artifacts}


@pytest.fixture(scope="module")
def uninterrupted(client, data_set):
    job = submit(client, data_set)
    states = [j.progress.done for j in client.watch_job(job.name)]
    assert client.job(job.name).state == v1.JOB_STATE_SUCCEEDED
    return states, results(client, job.name), client.job(job.name).result


def test_progress_rises_to_the_total_and_the_result_is_there(uninterrupted):
    done, artifacts, _ = uninterrupted
    assert done == sorted(done)
    assert done[-1] == RESPONSES
    assert len(set(done)) > 3
    assert set(artifacts) == {"scores", "summary"}
    summary = json.loads(artifacts["summary"])
    assert len(summary["layers"]) == 30


def test_a_job_equals_the_attribution_at_once(client, data_set, uninterrupted):
    vector = client.create_vector(
        MODEL, np.random.default_rng(1).standard_normal((30, 576)), layers=range(30)
    )
    response = client.attribute_neurons(MODEL, client.write_artifact(data_set).name, vector.name)
    assert list(uninterrupted[2].neuron_sets) == [response.neuron_set.name]
    summary = json.loads(uninterrupted[1]["summary"])
    for layer, entry in zip(response.neuron_set.layers, summary["layers"], strict=True):
        assert layer.score_sum == pytest.approx(entry["score_sum"], rel=1e-9)


def test_a_job_extracts_the_vector_of_the_call_to_the_bit(client, data_set):
    options = {"bootstrap_samples": 20, "seed": 3}
    file = client.write_artifact(data_set[:40]).name
    call = client.extract_vectors(MODEL, file, **options)
    request = vs.extraction_request(MODEL, file, **options)
    job = client.wait_for_job(client.create_job(v1.JobSpec(extract_vectors=request)).name)
    result = client.job(job.name).result
    # A name is a digest of rows, statistics and provenance.
    assert list(result.vectors) == [call.vector.name]
    made = client.vector(result.vectors[0])
    assert made.data.data == call.vector.data.data
    assert list(made.statistics) == list(call.statistics)
    summary = json.loads(client.read_artifact(result.artifacts[0].artifact))
    assert [layer["norm"] for layer in summary["layers"]] == [s.norm for s in call.statistics]
    assert result.summary["num_expressing"] == 20


@pytest.mark.parametrize(
    "choice",
    [
        {"method": "pca", "pooling": "last_token"},
        {"method": "linear_probe", "inverse_regularization": 0.1},
        {"pooling": "token_mean"},
    ],
    ids=lambda choice: "-".join(str(word) for word in choice.values()),
)
def test_a_job_makes_the_vector_of_the_call_in_every_way(client, data_set, choice):
    file = client.write_artifact(data_set[:40]).name
    call = client.extract_vectors(MODEL, file, layers=[3, 14], **choice)
    request = vs.extraction_request(MODEL, file, layers=[3, 14], **choice)
    job = client.wait_for_job(client.create_job(v1.JobSpec(extract_vectors=request)).name)
    assert list(client.job(job.name).result.vectors) == [call.vector.name]
    made = client.vector(call.vector.name)
    assert made.data.data == call.vector.data.data
    assert list(made.statistics) == list(call.statistics)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A client of a server that keeps no means."""
    server = Server(tmp_path_factory.mktemp("small"), "--extraction_scratch_bytes=0")
    with server.client() as client:
        yield client
    assert server.stop() == 0


@pytest.mark.parametrize("pooling", ["response_mean", "token_mean", "last_token"])
def test_where_the_disk_is_too_small_a_vector_is_made_of_sums(client, small, data_set, pooling):
    responses = data_set[:40]
    options = {"site": "mlp_neurons", "layers": [3, 14], "pooling": pooling}
    of_means = client.extract_vectors(MODEL, responses, **options)
    file = small.write_artifact(responses).name
    call = small.extract_vectors(MODEL, file, **options)
    spec = v1.JobSpec(extract_vectors=vs.extraction_request(MODEL, file, **options))
    job = small.wait_for_job(small.create_job(spec).name)
    assert list(small.job(job.name).result.vectors) == [call.vector.name]
    made, wanted = small.vector_data(call.vector.name), client.vector_data(of_means.vector.name)
    with pytest.raises(vs.Exhausted, match="extraction_scratch_bytes") as refused:
        small.extract_vectors(MODEL, file, **{**options, "method": "pca"})
    assert refused.value.reason == "MEANS_TOO_LARGE"
    for layer in (3, 14):
        np.testing.assert_allclose(made[layer], wanted[layer], rtol=1e-6, atol=1e-9)
    assert any("sums alone" in warning for warning in call.warnings)
    lost = {"auroc", "clustered_squared_norm", "squared_norm_interval", "norm_interval"}
    if pooling == "token_mean":
        lost.add("debiased_squared_norm")
    for one, of_all in zip(call.statistics, of_means.statistics, strict=True):
        assert {missing.field for missing in one.missing} == lost
        assert {m.absence for m in one.missing} == {v1.STATISTIC_ABSENCE_TOO_LARGE}
        for field, value in of_all.ListFields():
            if field.name in lost or field.name == "within_noise":
                assert not one.HasField(field.name)
            elif field.name != "missing":
                assert getattr(one, field.name) == pytest.approx(value, rel=1e-9)


def test_means_of_a_shard_that_never_fit_are_refused_before_there_is_a_job(
    start_server, data_set, tmp_path
):
    server = start_server(tmp_path / "narrow", "--capture_memory_bytes=1MiB")
    with server.client() as client:
        request = vs.extraction_request(MODEL, client.write_artifact(data_set[:16]).name)
        with pytest.raises(vs.Exhausted) as refused:
            client.create_job(v1.JobSpec(extract_vectors=request))
        assert refused.value.reason == "CAPTURES_TOO_LARGE"
        assert not list(client.jobs())
        request.layers.list.layers.extend([3, 14])
        assert client.estimate_job(v1.JobSpec(extract_vectors=request)).shards == 1
    assert server.stop() == 0


def test_kill_9_in_the_middle_loses_at_most_the_shard_in_flight(
    start_server, data_set, tmp_path, uninterrupted
):
    first = start_server(tmp_path / "killed")
    with first.client() as client:
        job = submit(client, data_set)
        for state in client.watch_job(job.name):
            if state.progress.shards_done >= 3:
                break
        committed = client.job(job.name).progress
    assert 3 <= committed.shards_done < committed.shards_total
    first.kill()

    second = start_server(tmp_path / "killed")
    with second.client() as client:
        resumed = next(iter(client.watch_job(job.name))).progress
        assert resumed.shards_done >= committed.shards_done
        client.wait_for_job(job.name)
        finished = client.job(job.name)
        assert finished.progress.done == RESPONSES
        assert finished.rescues <= 1
        after = results(client, job.name)
    # Both processes log into one file: every shard was committed by exactly one of them.
    steps = [
        json.loads(line)
        for line in second.log.read_text().splitlines()
        if '"event":"shard"' in line
    ]
    committed_shards = [s["shard"] for s in steps if s["code"] == "OK" and s["shard"] >= 0]
    # Of what the first one had done, the last may have been committed and not yet logged when it was killed.
    missing = set(range(committed.shards_total)) - set(committed_shards)
    assert len(committed_shards) + len(missing) == committed.shards_total
    assert missing <= {committed.shards_done - 1, committed.shards_done}
    assert after == uninterrupted[1]
    assert second.stop() == 0


def test_a_cancelled_job_stops_and_says_so(client, data_set):
    job = submit(client, data_set * 2)
    for state in client.watch_job(job.name):
        if state.progress.done > 0:
            break
    asked = client.cancel_job(job.name).state
    assert asked in (v1.JOB_STATE_CANCELLING, v1.JOB_STATE_CANCELLED)
    with pytest.raises(RuntimeError, match="cancelled"):
        client.wait_for_job(job.name)
    stopped = client.job(job.name)
    assert stopped.state == v1.JOB_STATE_CANCELLED
    assert 0 < stopped.progress.done < stopped.progress.total


def test_the_same_request_id_makes_one_job(client, data_set):
    vector = client.create_vector(MODEL, np.ones((1, 576)), layers=[3])
    artifact = client.write_artifact(data_set[:8])
    spec = v1.JobSpec(
        attribute_neurons=vs.attribution_request(MODEL, artifact.name, vector.name, layers=[3])
    )
    request_id = "3f1c7a52-7d0e-4b0e-9a58-0c8a4e6f1b2d"
    first = client.create_job(spec, request_id=request_id)
    assert client.create_job(spec, request_id=request_id).name == first.name
    spec.attribute_neurons.top_k = 3
    with pytest.raises(vs.ValuescopeError) as caught:
        client.create_job(spec, request_id=request_id)
    assert caught.value.code.name == "ALREADY_EXISTS"
    client.wait_for_job(first.name)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('{"prompt": 3}', "line 2 is not"),
        # A parser that takes words for true would make a label of "no" as of "yes".
        ('{"prompt": {"text": "a"}, "response": {"text": "b"}, "expresses": "yes"}', "`expresses`"),
        (
            '{"prompt": {"text": "a"}, "response": {"tokenIds": {"ids": [-1]}}, "expresses": true}',
            "line 2: `response.response.token_ids.ids",
        ),
        (
            '{"prompt": {"tokenIds": {}}, "response": {"text": "b"}, "expresses": true}',
            "line 2: `response.prompt",
        ),
    ],
)
def test_a_bad_line_of_a_data_set_is_named(client, line, wrong):
    good = '{"prompt": {"text": "a"}, "response": {"text": "b"}, "expresses": true}'
    artifact = client.write_artifact(
        f"{good}\n{line}\n".encode(), media_type="application/x-ndjson"
    )
    vector = client.create_vector(MODEL, np.ones((1, 576)), layers=[3])
    spec = v1.JobSpec(
        attribute_neurons=vs.attribution_request(MODEL, artifact.name, vector.name, layers=[3])
    )
    with pytest.raises(vs.InvalidRequest, match=wrong):
        client.create_job(spec)


def test_a_job_that_makes_what_another_made_names_it_too(client, data_set):
    jobs = [client.wait_for_job(submit(client, data_set[:16]).name) for _ in range(2)]
    results = [client.job(job.name).result for job in jobs]
    assert len(results[0].neuron_sets) == 1
    assert list(results[1].neuron_sets) == list(results[0].neuron_sets)
    for made in results[1].artifacts:
        artifact = client.artifact(made.artifact)
        assert artifact.provenance.model_digest == client.model(MODEL).weights_digest
