"""Labels of given responses by words and by a served model, as calls and as jobs."""

import json
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, Server
from test_generated_responses import (
    DRAWS,
    JUDGE,
    MODEL,
    QUERIES,
    QUESTION,
    WORDS,
    answer_of,
    artifact_of,
    connected,
    flags,
    lines_of,
    make_models,
)
from valuescope import v1

# A random model has little to say to the question.
pytestmark = pytest.mark.filterwarnings("ignore:the judge answers with one of the labels")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("store"), *flags(root))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with connected(server) as client:
        yield client


@pytest.fixture(scope="module")
def generated(client):
    """The name of a data set, and its lines."""
    job = client.generate_responses(
        MODEL, QUERIES, {"plain": None, "said": vs.EvaluationCondition("w50")}, **DRAWS, seed=8
    )
    client.wait_for_job(job.name)
    name = artifact_of(client.job(job.name).result, "responses")
    return name, lines_of(client, name)


def words_of(client, line):
    """What a judge reads of a response: special tokens are no words."""
    text = client.detokenize(MODEL, list(line.response.token_ids.ids))
    return [word for word in text.split() if not word.startswith("<")]


def run_job(client, request):
    job = client.wait_for_job(client.create_job(v1.JobSpec(judge_responses=request)).name)
    return client.job(job.name).result


def test_words_label_what_a_job_generated(client, generated):
    name, lines = generated
    judged = client.judge_responses(name, vs.WordList(WORDS), model=MODEL)
    wanted = [any(word in WORDS for word in words_of(client, line)) for line in lines]
    assert judged.expresses.tolist() == wanted and {True, False} == set(wanted)
    assert judged.response.expressing_share == sum(wanted) / len(wanted)
    assert np.isnan(judged.probabilities).all() and not judged.response.HasField("label_mass")
    assert {d.name for d in judged.response.digests} == {MODEL, name, "responses"}


def test_a_rubric_answers_from_the_judges_probabilities(client, generated):
    name, lines = generated
    judged = client.judge_responses(name, vs.Rubric(JUDGE, QUESTION), model=MODEL)
    masses = []
    for line, one in zip(lines, judged.response.judgements, strict=True):
        words = words_of(client, line)
        if not words:
            assert not one.expresses and not one.HasField("probability")
            continue
        query = line.prompt.chat.messages[-1].content
        question = QUESTION.replace("{query}", query).replace("{response}", " ".join(words))
        yes, no = answer_of(client, question)
        assert one.probability == pytest.approx(yes / (yes + no), rel=1e-4)
        assert one.label_mass == pytest.approx(yes + no, rel=1e-4)
        assert one.expresses == (one.probability >= 0.5)
        masses.append(one.label_mass)
    assert judged.response.label_mass == pytest.approx(np.mean(masses), rel=1e-12)
    assert judged.response.usage.prompt_tokens > 0
    assert any("says something else" in warning for warning in judged.response.warnings)


@pytest.mark.parametrize("judge", [vs.WordList(WORDS), vs.Rubric(JUDGE, QUESTION, 0.45)])
def test_a_job_labels_as_a_call_does_and_as_generation_does(client, generated, judge):
    name, lines = generated
    call = client.judge_responses(name, judge, model=MODEL)
    request = vs.judging_request(name, judge, model=MODEL)
    result = run_job(client, request)
    labelled = lines_of(client, artifact_of(result, "responses"))
    assert [line.expresses for line in labelled] == call.expresses.tolist()
    for before, after in zip(lines, labelled, strict=True):
        after.ClearField("expresses")
        assert after == before
    summary = json.loads(client.read_artifact(artifact_of(result, "summary")))
    assert summary["expressing_share"] == call.response.expressing_share
    for told, one in zip(summary["judgements"], call.response.judgements, strict=True):
        assert told["expresses"] == one.expresses
        assert told.get("probability") == (one.probability if one.HasField("probability") else None)
    # The same judge at work while the responses are generated.
    job = client.generate_responses(
        MODEL,
        QUERIES,
        {"plain": None, "said": vs.EvaluationCondition("w50")},
        judge=judge,
        **DRAWS,
        seed=8,
    )
    client.wait_for_job(job.name)
    at_once = lines_of(client, artifact_of(client.job(job.name).result, "responses"))
    assert [line.expresses for line in at_once] == call.expresses.tolist()


def probabilities(client, question, labels):
    """p of each label behind the question, from scores of single tokens."""
    return np.exp([s.sum for s in client.score(JUDGE, vs.chat(question, system=""), labels)])


def test_a_grade_is_the_expected_number(client, generated):
    name, lines = generated
    request = vs.judging_request(name, vs.Grade(JUDGE, QUESTION), model=MODEL)
    judged = client.judge_responses(name, vs.Grade(JUDGE, QUESTION), model=MODEL)
    assert not any(one.HasField("expresses") for one in judged.response.judgements)
    for line, one in zip(lines, judged.response.judgements, strict=True):
        words = words_of(client, line)
        if not words:
            assert not one.HasField("grade")
            continue
        query = line.prompt.chat.messages[-1].content
        question = QUESTION.replace("{query}", query).replace("{response}", " ".join(words))
        p = probabilities(client, question, [str(grade) for grade in range(11)])
        assert one.grade == pytest.approx(p @ np.arange(11) / p.sum(), rel=1e-4)
        assert one.label_mass == pytest.approx(p.sum(), rel=1e-4)
    graded = judged.grades[~np.isnan(judged.grades)]
    assert judged.response.mean_grade == pytest.approx(graded.mean(), rel=1e-12)
    result = run_job(client, request)
    assert lines_of(client, artifact_of(result, "responses")) == lines
    summary = json.loads(client.read_artifact(artifact_of(result, "summary")))
    assert summary["mean_grade"] == judged.response.mean_grade


PAIRS = [("w11", f"w{20 + i} w12", f"w{40 + i}") for i in range(9)]
WHICH = "w60 {query} w61 {a} w62 {b} w63"


def test_a_preference_is_the_mean_of_both_orders(client):
    compared = client.compare_responses(JUDGE, PAIRS, WHICH)
    wins = 0
    for (query, first, second), one in zip(PAIRS, compared.response.preferences, strict=True):
        preferred, masses = [], []
        for a, b, mine in ((first, second, 0), (second, first, 1)):
            question = WHICH.replace("{query}", query).replace("{a}", a).replace("{b}", b)
            p = probabilities(client, question, ["A", "B"])
            preferred.append(p[mine] / p.sum())
            masses.append(p.sum())
        assert one.probability == pytest.approx(np.mean(preferred), rel=1e-4)
        spread = (preferred[0] - preferred[1]) / 2
        assert one.order_spread == pytest.approx(spread, rel=1e-3, abs=1e-6)
        assert one.label_mass == pytest.approx(np.mean(masses), rel=1e-4)
        wins += one.probability > 0.5
    n, z = len(PAIRS), 1.959963984540054
    assert compared.win_rate == wins / n
    middle = (wins + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(wins * (n - wins) / n + z * z / 4)
    assert compared.win_rate_interval == pytest.approx((middle - half, middle + half), rel=1e-12)
    assert compared.response.win_rate_interval.level == 0.95
    swapped = client.compare_responses(JUDGE, [(q, b, a) for q, a, b in PAIRS], WHICH)
    assert swapped.probabilities == pytest.approx(1 - compared.probabilities, rel=1e-12)
    assert swapped.response.order_agreement == compared.response.order_agreement


def test_a_warning_points_at_the_line_that_asked(client):
    with pytest.warns(UserWarning, match="the judge answers") as told:
        client.compare_responses(JUDGE, PAIRS, WHICH)
    assert [one.filename for one in told] == [__file__] * len(told)


def test_a_job_compares_as_a_call_does_from_a_file_too(client):
    lines = "".join(json.dumps({"query": q, "first": a, "second": b}) + "\n" for q, a, b in PAIRS)
    uploaded = client.write_artifact(lines.encode(), media_type="application/x-ndjson")
    call = client.compare_responses(JUDGE, PAIRS, WHICH)
    again = client.compare_responses(JUDGE, uploaded.name, WHICH)
    assert again.probabilities.tolist() == call.probabilities.tolist()
    request = vs.comparison_request(JUDGE, PAIRS, WHICH)
    job = client.wait_for_job(client.create_job(v1.JobSpec(compare_responses=request)).name)
    assert (job.progress.unit, job.progress.total) == ("pairs", len(PAIRS))
    (artifact,) = client.job(job.name).result.artifacts
    summary = json.loads(client.read_artifact(artifact.artifact))
    told = [one["probability"] for one in summary["preferences"]]
    assert told == call.probabilities.tolist()
    assert summary["win_rate"] == call.win_rate


@pytest.mark.parametrize(
    ("pairs", "rubric", "field"),
    [
        ([], WHICH, "pairs"),
        ([("", "a", "b")], WHICH, r"pairs\[0\].query"),
        (PAIRS, "w60 {query} {a}", "rubric"),
        (PAIRS, WHICH + " <eos>", "rubric"),
    ],
)
def test_a_comparison_that_cannot_be_names_its_field(client, pairs, rubric, field):
    with pytest.raises(vs.InvalidRequest, match=f"`{field}`"):
        client.compare_responses(JUDGE, pairs, rubric)


def test_a_model_without_the_labels_cannot_judge(client):
    for call in (
        lambda: client.compare_responses(MODEL, PAIRS, WHICH),
        lambda: client.judge_responses([vs.unlabelled("w1", "w2")], vs.Grade(MODEL, QUESTION)),
    ):
        with pytest.raises(vs.FailedPrecondition):
            call()


def test_prompts_are_read_as_their_last_users_turn(client):
    chat = [
        {"role": "user", "content": "w11"},
        {"role": "assistant", "content": "w12"},
        {"role": "user", "content": "w13"},
    ]
    judge = vs.Rubric(JUDGE, QUESTION)
    judged = client.judge_responses(
        [vs.unlabelled(prompt, "w20") for prompt in (chat, "w13", vs.chat("w13", system="w14"))],
        judge,
    )
    assert len(set(judged.probabilities)) == 1
    other = client.judge_responses([vs.unlabelled("w11", "w20")], judge)
    assert other.probabilities[0] != judged.probabilities[0]


@pytest.mark.parametrize(
    ("responses", "judge", "field"),
    [
        ([vs.unlabelled("w11", [5])], vs.WordList("w20"), "model"),
        ([vs.unlabelled([{"role": "system", "content": "w"}], "w12")], vs.WordList("w20"), r"responses\[0\].prompt.chat.messages"),
        ([vs.unlabelled("w11", "w12")], v1.Judge(), "judge"),
        ([vs.unlabelled("w11", "w12")], vs.Rubric(JUDGE, "w60 {query}"), "judge.rubric.rubric"),
        ([vs.unlabelled("w11", "w12")], vs.Rubric(JUDGE, QUESTION + " w1" * 120), "judge.rubric.rubric"),
        ([vs.unlabelled("w11", "w12")], vs.Rubric(JUDGE, QUESTION, -1.0), "judge.rubric.threshold"),
        ([], vs.WordList("w20"), "responses"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_its_field(client, responses, judge, field):
    with pytest.raises(vs.InvalidRequest, match=f"`{field}`"):
        client.judge_responses(responses, judge)
    request = vs.judging_request(responses, judge)
    with pytest.raises(vs.InvalidRequest, match=f"`spec.judge_responses.{field}`"):
        client.create_job(v1.JobSpec(judge_responses=request))


def test_a_line_that_cannot_be_judged_is_named_by_its_number(client):
    lines = vs.to_json_lines([vs.unlabelled("w11", "w12"), vs.unlabelled("w11", [7])])
    uploaded = client.write_artifact(lines, media_type="application/x-ndjson")
    with pytest.raises(vs.InvalidRequest, match="`artifact`: line 2: `model`"):
        client.judge_responses(uploaded.name, vs.WordList("w20"))
    bad = client.write_artifact(lines + b"[]", media_type="application/x-ndjson")
    with pytest.raises(vs.InvalidRequest, match="`artifact`: line 3"):
        client.judge_responses(bad.name, vs.WordList("w20"), model=MODEL)


def test_more_than_a_call_takes_wants_a_job(client):
    many = [vs.unlabelled("w11", "w12")] * 2001
    with pytest.raises(vs.Exhausted) as info:
        client.judge_responses(many, vs.WordList("w12"))
    assert info.value.reason == "USE_A_JOB"
    result = run_job(client, vs.judging_request(many, vs.WordList("w12")))
    assert len(lines_of(client, artifact_of(result, "responses"))) == 2001


def test_the_command_line_labels(server, client, tmp_path):
    responses = [vs.unlabelled("w11", "w20 w12"), vs.unlabelled("w11", "w12")]
    file = tmp_path / "responses.jsonl"
    file.write_bytes(vs.to_json_lines(responses))

    def run(*arguments):
        program = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address]
        return subprocess.run(
            [*program, "judge", file, *arguments], capture_output=True, text=True, timeout=120
        )

    done = run("--words", "w20", "--each")
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert table[1].split() == ["2", "0.5"]
    assert [row.split()[1] for row in table[-2:]] == ["yes", "no"]
    told = json.loads(run("--rubric", QUESTION, "--judge_model", "judge", "--json").stdout)
    wanted = client.judge_responses(responses, vs.Rubric(JUDGE, QUESTION))
    assert [one["probability"] for one in told["judgements"]] == wanted.probabilities.tolist()
    assert run().returncode == 2
