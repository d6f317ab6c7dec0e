"""Responses that a job generates under conditions, steered or not, for other work to read."""

import json

import numpy as np
import pytest
import valuescope as vs
from conftest import Server
from test_generated_responses import (
    DRAWS,
    GEMMA,
    JUDGE,
    MODEL,
    QUERIES,
    QUESTION,
    WORDS,
    artifact_of,
    connected,
    flags,
    lines_of,
    make_models,
    seed_of,
)
from valuescope import v1


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def client(root, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("store"), *flags(root))
    with connected(server) as client:
        yield client
    assert server.stop() == 0


def steering(client, scale=6.0):
    width = client.model(MODEL).hidden_size
    row = np.random.default_rng(3).normal(size=width).astype(np.float32)
    return vs.Steer(row * scale, 1.0, layers=[1])


def conditions(client):
    return {
        "plain": None,
        "prompted": vs.EvaluationCondition(system="w50 w51"),
        "steered": vs.EvaluationCondition(system="", steer=steering(client)),
    }


def run(client, queries=QUERIES, how=None, **fields):
    job = client.generate_responses(MODEL, queries, how, **{**DRAWS, **fields})
    client.wait_for_job(job.name)
    return client.job(job.name).result


def test_every_line_is_what_generate_draws_under_its_condition(client):
    how = conditions(client)
    result = run(client, how=how, samples_per_query=2, seed=3)
    lines = iter(lines_of(client, artifact_of(result, "responses")))
    texts = {name: [] for name in how}
    for q, query in enumerate(QUERIES):
        for c, (name, condition) in enumerate(how.items()):
            condition = condition or vs.EvaluationCondition()
            prompt = vs.chat(query, system=condition.system)
            for k in range(2):
                answer = client.generate(
                    MODEL, prompt, seed=seed_of(3, c, q, k), steer=condition.steer, **DRAWS
                )
                line = next(lines)
                assert list(line.response.token_ids.ids) == list(answer.token_ids)
                assert line.condition == name and line.query_id == str(q)
                assert line.prompt.chat.messages[-1].content == query
                ids = client.tokenize(MODEL, prompt).token_ids
                assert list(client.tokenize(MODEL, line.prompt).token_ids) == list(ids)
                assert not line.HasField("expresses")
                texts[name].append(answer.text)
    assert next(lines, None) is None
    assert texts["steered"] != texts["plain"] != texts["prompted"]


def test_the_summary_counts_by_condition_and_tells_where_steering_acted(client):
    result = run(client, how=conditions(client), seed=4)
    listed = lines_of(client, artifact_of(result, "responses"))
    summary = json.loads(client.read_artifact(artifact_of(result, "summary")))
    assert summary["num_responses"] == len(listed) == 3 * len(QUERIES)
    for row in summary["conditions"]:
        lengths = [
            len(line.response.token_ids.ids)
            for line in listed
            if line.condition == row["condition"]
        ]
        assert (row["num_responses"], row["num_tokens"]) == (len(lengths), sum(lengths))
        assert row["num_empty"] == lengths.count(0)
        # From the last prompt token on: one position a token that was drawn, at least.
        touched = sum(row["touched_positions"])
        assert (touched >= sum(lengths)) if row["condition"] == "steered" else touched == 0
    assert summary["provenance"]["seeds"] == [4]
    assert {d.name for d in result.digests} == {MODEL}


def test_a_judge_labels_and_measures_are_by_condition(client):
    judge = vs.WordList(WORDS)
    result = run(client, how=conditions(client), judge=judge, samples_per_query=3, seed=5)
    name = artifact_of(result, "responses")
    listed = lines_of(client, name)
    for line in listed:
        text = client.detokenize(MODEL, list(line.response.token_ids.ids))
        assert line.expresses == any(word in WORDS for word in text.split())
    summary = json.loads(client.read_artifact(artifact_of(result, "summary")))
    assert sum(row["num_expressing"] for row in summary["conditions"]) == sum(
        line.expresses for line in listed
    )
    measures = client.measure_texts(MODEL, name, perplexity=True)
    assert measures.conditions == ["plain", "prompted", "steered"]
    assert sum(one.num_texts for one in measures.response.measures) == len(listed)
    # Of what the model itself would hardly say.
    assert measures["steered"].perplexity > measures["plain"].perplexity
    made = client.extract_vectors(MODEL, name)
    assert made.vector.provenance.num_expressing == sum(line.expresses for line in listed)


def test_queries_of_an_artifact_keep_their_ids(client):
    lines = [
        v1.LabelledResponse(prompt=v1.Prompt(text=q), query_id=f"q{i}")
        for i, q in enumerate(QUERIES)
    ]
    uploaded = client.write_artifact(vs.to_json_lines(lines), media_type="application/x-ndjson")
    listed = lines_of(client, artifact_of(run(client, uploaded.name), "responses"))
    assert [line.query_id for line in listed] == [f"q{i}" for i in range(len(QUERIES))]
    assert {line.condition for line in listed} == {"0"}
    (message, user) = listed[0].prompt.chat.messages
    assert (message.role, message.content, user.role) == ("system", "", "user")


def test_an_empty_message_is_none_where_the_template_takes_none(client):
    job = client.generate_responses(GEMMA, QUERIES[:2], **DRAWS)
    client.wait_for_job(job.name)
    listed = lines_of(client, artifact_of(client.job(job.name).result, "responses"))
    assert [len(line.prompt.chat.messages) for line in listed] == [1, 1]


def test_kill_9_in_the_middle_gives_the_same_bytes(client, start_server, root, tmp_path):
    fields = {"judge": vs.Rubric(JUDGE, QUESTION), "samples_per_query": 8, "seed": 6}

    def submit(connection):
        return connection.generate_responses(
            MODEL, QUERIES, conditions(connection), **DRAWS, **fields
        )

    job = submit(client)
    client.wait_for_job(job.name)
    result = client.job(job.name).result
    undisturbed = {a.role: client.read_artifact(a.artifact) for a in result.artifacts}
    first = start_server(tmp_path / "killed", *flags(root))
    with connected(first) as connection:
        job = submit(connection)
        for state in connection.watch_job(job.name):
            if state.progress.shards_done >= 2:
                break
        assert connection.job(job.name).progress.shards_done < state.progress.shards_total
    first.kill()
    second = start_server(tmp_path / "killed", *flags(root))
    with connected(second) as connection:
        connection.wait_for_job(job.name)
        again = connection.job(job.name).result
        assert {
            a.role: connection.read_artifact(a.artifact) for a in again.artifacts
        } == undisturbed
    assert second.stop() == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"queries": []}, "queries"),
        ({"queries": ["w11", "w12 <eos>"]}, r"queries\[1\]"),
        ({"how": [vs.EvaluationCondition(system="<bos>")]}, r"conditions\[0\].system_message"),
        ({"how": [None, vs.EvaluationCondition(system="w50 " * 300)]}, r"conditions\[1\].system_message"),
        ({"how": [None] * 65}, "conditions"),
        ({"how": [None, vs.Steer(np.ones(3, np.float32), 1.0, layers=[1])]}, r"conditions\[1\].interventions\[0\].add.tensor.shape"),
        ({"how": [None, vs.Steer("vectors/none", 1.0, layers=[99])]}, r"conditions\[1\].interventions\[0\].layers.list.layers\[0\]"),
        ({"samples_per_query": 65}, "samples_per_query"),
        ({"judge": vs.WordList([])}, "judge.word_list.words"),
        ({"top_p": 0.0}, "sampling.top_p"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_names_its_field(client, changes, field):
    with pytest.raises(vs.InvalidRequest, match=f"`spec.generate_responses.{field}`"):
        run(client, **changes)


def test_conditions_of_one_name_are_refused(client):
    spec = vs.generation_spec(MODEL, QUERIES, {"a": None, "b": None})
    spec.conditions[1].name = "a"
    with pytest.raises(vs.InvalidRequest, match=r"conditions\[1\].name"):
        client.create_job(v1.JobSpec(generate_responses=spec))


def test_a_steering_that_a_job_needs_is_an_input_of_it(client):
    width = client.model(MODEL).hidden_size
    vector = client.create_vector(MODEL, np.ones((1, width), np.float32), layers=[1])
    how = {"steered": vs.Steer(vector.name, 1.0, layers=[1])}
    result = run(client, QUERIES[:2], how)
    assert {d.name for d in result.digests} == {MODEL, vector.name}
