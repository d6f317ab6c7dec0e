"""Vectors from responses that the server generates and labels itself, on tiny models whose vocabularies are words."""

import hashlib
import json
import math
import shutil
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server
from google.protobuf import json_format
from valuescope import v1

MODEL, JUDGE, GEMMA = "models/speaker", "models/judge", "models/gemma"
# Every token of the judge is a word of the speaker's; some of them are answers here.
ANSWERS = {"w7": "yes", "w8": "no", "w9": "Yes", "w10": "No", "w83": "A", "w84": "B"}
ANSWERS |= {f"w{72 + grade}": str(grade) for grade in range(11)}
FAMILIES = {"speaker": "qwen2", "judge": "llama_tied", "gemma": "gemma2"}
QUERIES = [f"w{11 + i} w{12 + 2 * i} w{40 + i}" for i in range(12)]
# About half of what a random model says has one of them in it.
WORDS = [f"w{i}" for i in range(20, 30)]
SYSTEM = ["w50 w51", "w52", "w53 w54 w55"]
QUESTION = "w60 {query} w61 {response} w62"
DRAWS = {"max_tokens": 9, "temperature": 1.0}
MASK = (1 << 64) - 1


def make_models(root):
    """Folders of the three models beneath `root`, which is returned."""
    for name, family in FAMILIES.items():
        shutil.copytree(ROOT / "tests" / "golden" / "families" / family, root / name)
    file = root / "judge" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {ANSWERS.get(word, word): id for word, id in words.items()}
    file.write_text(json.dumps(tokenizer))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


def flags(root):
    return [f"--model_root={root}", f"--models={','.join(FAMILIES)}"]


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("store"), *flags(root))
    yield server
    assert server.stop() == 0


def connected(server):
    client = vs.Client(server.address, timeout=120)
    for name in FAMILIES:
        client.wait_until_ready(f"models/{name}")
    return client


@pytest.fixture(scope="module")
def client(server):
    with connected(server) as client:
        yield client


def generated(queries=QUERIES, **changes):
    return vs.Generated(queries, **{"judge": vs.WordList(WORDS), **DRAWS, **changes})


def lines_of(client, artifact):
    lines = client.read_artifact(artifact).decode().splitlines()
    return [json_format.Parse(line, v1.LabelledResponse()) for line in lines]


def data_of(client, vector):
    return client.vector(vector).data.data


def run_job(client, request):
    job = client.wait_for_job(client.create_job(v1.JobSpec(extract_vectors=request)).name)
    return client.job(job.name).result


def artifact_of(result, role):
    return next(a.artifact for a in result.artifacts if a.role == role)


# --- Seeds as the contract tells them ---


def mixed(state, number):
    z = (state + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def seed_of(seed, *numbers):
    for number in numbers:
        seed = mixed(seed, number)
    return seed


# --- What comes of it ---


def test_an_extraction_equals_the_one_from_its_own_artifact(client):
    for how in ({}, {"method": "pca"}, {"pooling": "token_mean"}, {"site": "mlp_neurons"}):
        request = generated(samples_per_query=3, seed=4)
        made = client.extract_vectors(MODEL, generated=request, **how)
        again = client.extract_vectors(MODEL, made.responses_artifact, **how)
        assert data_of(client, made.vector.name) == data_of(client, again.vector.name)
        assert list(made.statistics) == list(again.statistics)
        listed = lines_of(client, made.responses_artifact)
        counts = [s.num_expressing + s.num_non_expressing for s in made.statistics]
        assert set(counts) == {len(listed)}
        assert len(listed) + made.num_dropped == 3 * len(QUERIES)


def test_call_and_job_are_the_same_to_the_bit(client):
    options = {
        "generated": generated(samples_per_query=4, seed=9),
        "layers": [0, 2],
    }
    call = client.extract_vectors(MODEL, **options)
    request = vs.extraction_request(MODEL, **options)
    result = run_job(client, request)
    # A name is a digest of rows, statistics and provenance.
    assert list(result.vectors) == [call.vector.name]
    responses = client.read_artifact(artifact_of(result, "responses"))
    assert responses == client.read_artifact(call.responses_artifact)
    assert {a.role for a in result.artifacts} == {"responses", "summary"}
    assert {d.name for d in call.digests} == {MODEL, "responses", "data set"}
    assert {d.name: d.digest for d in result.digests} == {d.name: d.digest for d in call.digests}
    data_set = next(d.digest for d in call.digests if d.name == "data set")
    assert data_set == hashlib.sha256(responses).hexdigest()


def test_every_response_is_what_generate_draws_with_its_seed(client):
    conditions = [vs.Condition(SYSTEM), vs.Condition(["", "w56"])]
    request = generated(conditions=conditions, samples_per_query=2, seed=3, draw_seed=8)
    made = client.extract_vectors(MODEL, generated=request)
    listed = iter(lines_of(client, made.responses_artifact))
    asked = set()
    for q, query in enumerate(QUERIES):
        for c, condition in enumerate(conditions):
            messages = list(condition.system_messages)
            system = messages[seed_of(8, c, q) % len(messages)]
            asked.add(system)
            for k in range(2):
                (answer,) = client.generate(
                    MODEL, [vs.chat(query, system=system)], seed=seed_of(3, c, q, k), **DRAWS
                )
                if not answer.token_ids:
                    continue
                line = next(listed)
                assert list(line.response.token_ids.ids) == list(answer.token_ids)
                tokens = client.tokenize(MODEL, vs.chat(query, system=system))
                assert list(line.prompt.token_ids.ids) == list(tokens.token_ids)
                assert line.query_id == str(q)
                assert line.expresses == any(word in WORDS for word in answer.text.split())
    assert next(listed, None) is None
    assert asked == {*SYSTEM, "", "w56"}


def test_the_record_tells_seeds_counts_judge_and_choices(client):
    made = client.extract_vectors(MODEL, generated=generated(seed=3, draw_seed=8))
    record = made.vector.provenance
    assert list(record.seeds) == [3, 8]
    words = hashlib.sha256("\n".join(WORDS).encode()).hexdigest()
    assert record.judge == f"word list, sha256 {words}"
    listed = lines_of(client, made.responses_artifact)
    assert record.num_expressing == sum(line.expresses for line in listed)
    assert record.num_non_expressing == sum(not line.expresses for line in listed)
    assert record.num_dropped == made.num_dropped
    chosen = json.loads(record.options)["generated"]
    assert chosen["sampling"]["max_tokens"] == DRAWS["max_tokens"]
    assert chosen["queries"] == QUERIES
    tokens = sum(len(line.response.token_ids.ids) for line in listed)
    prompts = sum(len(line.prompt.token_ids.ids) for line in listed)
    assert made.usage.generated_tokens >= tokens
    # Generated once, and once more with the response behind it.
    assert made.usage.prompt_tokens >= 2 * prompts + tokens


def test_conditions_may_label_and_then_nobody_judges(client):
    conditions = [vs.Condition(SYSTEM, expresses=True), vs.Condition(expresses=False)]
    made = client.extract_vectors(MODEL, generated=generated(conditions=conditions, judge=None))
    listed = lines_of(client, made.responses_artifact)
    # Of a query stand together: first those of the first condition.
    assert {line.expresses for line in listed} == {True, False}
    assert made.vector.provenance.judge == "caller, by condition"
    mixed_labels = [vs.Condition(SYSTEM, expresses=True), vs.Condition()]
    both = client.extract_vectors(MODEL, generated=generated(conditions=mixed_labels))
    assert both.vector.provenance.judge.startswith("word list, sha256 ")
    assert both.vector.provenance.judge.endswith("; caller, by condition")


def test_queries_of_an_artifact_go_by_their_content_and_keep_their_ids(client):
    listed = [
        v1.LabelledResponse(prompt=v1.Prompt(text=text), query_id=["a", "", "1", ""][i % 4])
        for i, text in enumerate(QUERIES[:8])
    ]
    body = "".join(json_format.MessageToJson(line, indent=None) + "\n" for line in listed).encode()
    names = set()
    for _ in range(2):
        uploaded = client.write_artifact(body, media_type="application/x-ndjson")
        made = client.extract_vectors(
            MODEL, generated=generated(uploaded.name, samples_per_query=2)
        )
        names.add(made.vector.name)
    assert len(names) == 1
    ids = [line.query_id for line in lines_of(client, made.responses_artifact)]
    # Of those without an id each has one that is nobody else's.
    assert set(ids) == {"a", "1", "1'", "3", "5", "7"}
    inputs = {entry.name: entry.digest for entry in made.vector.provenance.inputs}
    assert inputs["queries"] == hashlib.sha256(body).hexdigest()


def test_a_repeated_request_is_answered_from_what_the_first_left(client):
    request_id = "c0ffee00-0000-4000-8000-000000000001"
    first, second = (
        client.extract_vectors(MODEL, generated=generated(seed=77), request_id=request_id)
        for _ in range(2)
    )
    assert second.vector.name == first.vector.name
    assert second.responses_artifact == first.responses_artifact
    assert second.usage.generated_tokens == 0
    # One without an id is worked out again, and equal content has one name.
    third = client.extract_vectors(MODEL, generated=generated(seed=77))
    assert third.usage.generated_tokens > 0
    assert third.responses_artifact == first.responses_artifact


# --- A model as judge ---


def answer_of(client, text):
    """p(yes) and p(no) by the contract, from scores of single tokens. The judge's template inserts a system message where there is
    none."""
    scores = client.score(JUDGE, vs.chat(text, system=""), ["yes", "Yes", "no", "No"])
    p = [math.exp(score.sum) for score in scores]
    return p[0] + p[1], p[2] + p[3]


def test_a_rubric_labels_by_the_judges_probabilities(client):
    threshold = 0.5
    judge = vs.Rubric(JUDGE, QUESTION, threshold)
    options = {"generated": generated(judge=judge, samples_per_query=3, seed=5), "layers": [1]}
    made = client.extract_vectors(MODEL, **options)
    masses = []
    listed = lines_of(client, made.responses_artifact)
    for line in listed:
        words = client.detokenize(MODEL, list(line.response.token_ids.ids)).split()
        response = " ".join(word for word in words if not word.startswith("<"))
        question = QUESTION.replace("{query}", QUERIES[int(line.query_id)])
        yes, no = answer_of(client, question.replace("{response}", response))
        # Rounding may decide where the two are as likely.
        if abs(yes - no) > 1e-5 * (yes + no):
            assert line.expresses == (yes / (yes + no) >= threshold)
        masses.append(yes + no)
    assert {line.expresses for line in listed} == {True, False}
    digest = hashlib.sha256(QUESTION.encode()).hexdigest()
    assert made.vector.provenance.judge == f"rubric of {JUDGE}, sha256 {digest}"
    judges = {d.name: d.digest for d in made.digests}
    assert judges[JUDGE] == client.model(JUDGE).weights_digest
    assert any("answers yes or no with a probability" in warning for warning in made.warnings)

    result = run_job(client, vs.extraction_request(MODEL, **options))
    assert list(result.vectors) == [made.vector.name]
    summary = json.loads(client.read_artifact(artifact_of(result, "summary")))
    assert summary["mean_answer_mass"] == pytest.approx(np.mean(masses), rel=1e-4)


def test_a_judge_that_cannot_say_yes_is_named(client):
    with pytest.raises(vs.FailedPrecondition) as error:
        client.extract_vectors(MODEL, generated=generated(judge=vs.Rubric(MODEL, QUESTION)))
    assert error.value.reason == "UNREADABLE_JUDGE"
    assert "generated.judge.rubric.model" in str(error.value)


def test_a_judge_that_a_job_runs_on_is_not_unloaded(client):
    judge = vs.Rubric(JUDGE, QUESTION)
    request = generated(judge=judge, samples_per_query=64, max_tokens=100)
    spec = v1.JobSpec(extract_vectors=vs.extraction_request(MODEL, generated=request))
    job = client.create_job(spec)
    for state in client.watch_job(job.name):
        if state.progress.shards_done > 0:
            break
    with pytest.raises(vs.FailedPrecondition) as error:
        client.unload_model(JUDGE)
    assert error.value.reason == "JOBS_ARE_RUNNING"
    client.cancel_job(job.name)


# --- Templates without a system role ---


def test_a_template_without_system_role_takes_the_empty_message_for_none(client):
    request = generated(samples_per_query=4, seed=2, max_tokens=3)
    made = client.extract_vectors(GEMMA, generated=request)
    listed = lines_of(client, made.responses_artifact)
    prompts = {tuple(line.prompt.token_ids.ids) for line in listed}
    asked = {tuple(client.tokenize(GEMMA, vs.chat(query)).token_ids) for query in QUERIES}
    assert prompts <= asked


def test_a_template_without_system_role_refuses_any_other(client):
    conditions = [vs.Condition(expresses=False), vs.Condition(["", "w50"], expresses=True)]
    with pytest.raises(vs.InvalidRequest) as error:
        client.extract_vectors(GEMMA, generated=generated(conditions=conditions, judge=None))
    assert error.value.reason == "NO_SYSTEM_MESSAGE"
    (violation,) = error.value.violations
    assert violation.field == "generated.conditions[1].system_messages[1]"


# --- What is refused ---

MANY = vs.Condition(expresses=True)
LONG = "w11 " * 300


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"queries": []}, "queries"),
        ({"queries": ["w11", ""]}, "queries[1]"),
        ({"queries": ["w11", "w12 <eos> w13"]}, "queries[1]"),
        ({"queries": [LONG]}, "queries[0]"),
        ({"conditions": [vs.Condition("<bos>")]}, "conditions[0].system_messages[0]"),
        ({"conditions": [vs.Condition(LONG)]}, "conditions[0].system_messages[0]"),
        ({"conditions": [vs.Condition(), vs.Condition([LONG])]}, "conditions[1].system_messages[0]"),
        ({"queries": ["w11 " * 110], "conditions": [vs.Condition("w50 " * 110)]}, "conditions[0].system_messages[0]"),
        ({"queries": [LONG], "conditions": [vs.Condition(LONG)]}, "queries[0]"),
        ({"conditions": [MANY] * 17, "judge": None}, "conditions"),
        ({"judge": None}, "judge"),
        ({"judge": v1.Judge()}, "judge"),
        ({"judge": vs.WordList([])}, "judge.word_list.words"),
        ({"judge": vs.WordList(["w20", " "])}, "judge.word_list.words[1]"),
        ({"judge": vs.Rubric(JUDGE, "w60 {query}")}, "judge.rubric.rubric"),
        ({"judge": vs.Rubric(JUDGE, "{query} {response} <eos>")}, "judge.rubric.rubric"),
        ({"judge": vs.Rubric(JUDGE, QUESTION + " w1" * 120)}, "judge.rubric.rubric"),
        ({"judge": vs.Rubric(JUDGE, QUESTION, 1.5)}, "judge.rubric.threshold"),
        ({"judge": vs.Rubric("judge", QUESTION)}, "judge.rubric.model"),
        ({"samples_per_query": 65}, "samples_per_query"),
        ({"samples_per_query": 0}, "samples_per_query"),
        ({"top_p": 0.0}, "sampling.top_p"),
        ({"max_tokens": 5000}, "sampling.max_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_names_its_field_in_call_and_job(client, changes, field):
    request = generated(**changes)
    with pytest.raises(vs.InvalidRequest) as error:
        client.extract_vectors(MODEL, generated=request)
    assert [violation.field for violation in error.value.violations] == [f"generated.{field}"]
    spec = v1.JobSpec(extract_vectors=vs.extraction_request(MODEL, generated=request))
    with pytest.raises(vs.InvalidRequest) as error:
        client.create_job(spec)
    assert error.value.violations[0].field == f"spec.extract_vectors.generated.{field}"


def test_a_judge_that_is_not_there_is_not_found(client):
    with pytest.raises(vs.NotFound, match="models/nobody"):
        client.extract_vectors(
            MODEL, generated=generated(judge=vs.Rubric("models/nobody", QUESTION))
        )


def test_responses_come_from_one_place(client):
    request = vs.extraction_request(MODEL, generated=generated())
    request.responses.append(vs.labelled("w11", "w12", True))
    with pytest.raises(vs.InvalidRequest, match="responses"):
        client.create_job(v1.JobSpec(extract_vectors=request))
    with pytest.raises(vs.InvalidRequest, match="judge"):
        client.extract_vectors(MODEL, generated=generated(), judge="a person")


def test_lines_without_a_text_are_named_by_number(client):
    lines = [{"prompt": {"text": "w11"}}, {}, {"prompt": {"token_ids": {"ids": [5]}}}]
    for bad, number in ((lines[:2], 2), ([lines[0], lines[2]], 2)):
        body = "\n".join(json.dumps(line) for line in bad).encode()
        uploaded = client.write_artifact(body, media_type="application/x-ndjson")
        with pytest.raises(vs.InvalidRequest, match=f"line {number}"):
            client.extract_vectors(MODEL, generated=generated(uploaded.name))


@pytest.mark.parametrize(
    "much",
    [{"queries": QUERIES * 3, "samples_per_query": 64}, {"queries": ["w11"] * 2000, "max_tokens": 150}],
    ids=["responses", "tokens"],
)  # fmt: skip
def test_more_than_a_call_makes_is_for_a_job(client, much):
    request = vs.extraction_request(MODEL, generated=generated(**much))
    with pytest.raises(vs.Exhausted) as error:
        client.extract_vectors(MODEL, generated=request.generated)
    assert error.value.reason == "USE_A_JOB"
    estimate = client.estimate_job(v1.JobSpec(extract_vectors=request))
    sampling = request.generated.sampling
    responses = len(request.generated.queries) * max(1, request.generated.samples_per_query)
    assert estimate.forwards == responses * (sampling.max_tokens + 1)
    assert estimate.tokens >= 2 * responses * sampling.max_tokens
    assert estimate.shards == math.ceil(responses / 32)


@pytest.mark.parametrize(
    ("queries", "sampling"),
    [(["w11 <eos>"] + ["w11"] * 1999, {"max_tokens": 150}), (["w11", "w11 <eos>"] + ["w11"] * 1998, {"max_tokens": None})],
    ids=["told", "unset"],
)  # fmt: skip
def test_a_call_that_is_too_large_is_told_so_before_texts_are_looked_at(client, queries, sampling):
    """By counts alone where `max_tokens` is told; else by the first prompt, which tells what room there is."""
    with pytest.raises(vs.Exhausted) as error:
        client.extract_vectors(MODEL, generated=generated(queries, **sampling))
    assert error.value.reason == "USE_A_JOB"
    with pytest.raises(vs.InvalidRequest, match="control token"):
        client.extract_vectors(MODEL, generated=generated(queries[:1000], **sampling))


def test_a_label_without_responses_tells_what_the_judge_found(client):
    request = generated(judge=vs.WordList(["nobody says this"]))
    message = r"it has 0 expressing and \d+ non-expressing"
    with pytest.raises(vs.InvalidRequest, match=message) as error:
        client.extract_vectors(MODEL, generated=request)
    assert error.value.reason == "EMPTY_LABEL"
    spec = v1.JobSpec(extract_vectors=vs.extraction_request(MODEL, generated=request))
    job = client.create_job(spec)
    with pytest.raises(vs.JobFailed, match=message):
        client.wait_for_job(job.name)
    assert client.job(job.name).error.reason == "EMPTY_LABEL"


# --- Jobs that are cut ---


def test_kill_9_in_the_middle_gives_the_same_bytes(client, start_server, root, tmp_path):
    judge = vs.Rubric(JUDGE, QUESTION)
    request = vs.extraction_request(
        MODEL,
        generated=generated(judge=judge, samples_per_query=64, seed=6, max_tokens=40),
        layers=[0, 1],
    )
    whole = run_job(client, request)
    first = start_server(tmp_path / "killed", *flags(root))
    with connected(first) as other:
        job = other.create_job(v1.JobSpec(extract_vectors=request))
        for state in other.watch_job(job.name):
            if state.progress.shards_done >= 3:
                break
        committed = other.job(job.name).progress
    assert 3 <= committed.shards_done < committed.shards_total
    first.kill()
    second = start_server(tmp_path / "killed", *flags(root))
    with connected(second) as other:
        other.wait_for_job(job.name)
        result = other.job(job.name).result
        assert list(result.vectors) == list(whole.vectors)
        for role in ("responses", "summary"):
            after = other.read_artifact(artifact_of(result, role))
            assert after == client.read_artifact(artifact_of(whole, role))
    steps = [
        json.loads(line)
        for line in second.log.read_text().splitlines()
        if '"event":"shard"' in line
    ]
    done = [step["shard"] for step in steps if step["code"] == "OK" and step["shard"] >= 0]
    assert sorted(done) == list(range(committed.shards_total))


# --- The command line ---


def test_the_command_line_generates_and_labels(server, client, tmp_path):
    questions = tmp_path / "questions.txt"
    questions.write_text("\n".join([*QUERIES, "", "  "]))
    command = [str(BUILD / "client" / "cpp" / "valuescope"), "--server", server.address, "vectors"]
    command += ["extract", "--model", "speaker", "--queries", str(questions), "--max_tokens", "9"]

    def run(*arguments):
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=120, check=False
        )

    done = run("--samples", "3", "--seed", "4", "--words", *WORDS)
    assert done.returncode == 0, done.stderr
    vector, artifact = done.stdout.splitlines()[:2]
    wanted = client.extract_vectors(
        MODEL, generated=generated(samples_per_query=3, seed=4, draw_seed=4, conditions=vs.Condition([]), temperature=None)
    )  # fmt: skip
    assert data_of(client, vector) == data_of(client, wanted.vector.name)
    assert lines_of(client, artifact) == lines_of(client, wanted.responses_artifact)
    labelled = ["--expressing", SYSTEM[0], "--expressing", SYSTEM[1], "--not_expressing", ""]
    contrast = run(*labelled, "--seed", "4")
    assert contrast.returncode == 0, contrast.stderr
    conditions = [vs.Condition(SYSTEM[:2], expresses=True), vs.Condition("", expresses=False)]
    wanted = client.extract_vectors(
        MODEL, generated=generated(seed=4, draw_seed=4, conditions=conditions, judge=None, temperature=None)
    )  # fmt: skip
    vector, artifact = contrast.stdout.splitlines()[:2]
    assert data_of(client, vector) == data_of(client, wanted.vector.name)
    assert lines_of(client, artifact) == lines_of(client, wanted.responses_artifact)
    judged = run("--samples", "3", "--rubric", QUESTION, "--judge_model", "judge")
    assert judged.returncode == 0, judged.stderr
    assert "probability" in judged.stderr
    for wrong in (["--rubric", QUESTION, "--words", "w20"], []):
        assert run(*wrong).returncode == 2
