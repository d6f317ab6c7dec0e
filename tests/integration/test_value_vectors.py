"""Several vectors, of many values and conditions, of one pass over their responses: each is what a request for it alone gives, to the bit."""

import contextlib
import json
import re
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server
from google.protobuf import json_format
from test_generated_responses import make_models
from valuescope import v1

MODEL = "models/speaker"
VALUES = ["stimulation", "security", "power"]
CONDITIONS = ["intrinsic", "prompted"]
RESPONSES = 96
VECTORS = [
    "stimulation",
    ("security", "intrinsic"),
    ("security", "prompted"),
    ("power", CONDITIONS),
    "",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


def flags(root):
    return [f"--model_root={root}", "--models=speaker"]


@contextlib.contextmanager
def served(directory, *flags):
    server = Server(directory, *flags)
    with server.client(MODEL) as client:
        yield server, client
    assert server.stop() == 0


@pytest.fixture(scope="module")
def running(root, tmp_path_factory):
    with served(tmp_path_factory.mktemp("store"), *flags(root)) as both:
        yield both


@pytest.fixture(scope="module")
def client(running):
    return running[1]


@pytest.fixture(scope="module")
def small(root, tmp_path_factory):
    """A client of a server that keeps no means."""
    directory = tmp_path_factory.mktemp("small")
    with served(directory, *flags(root), "--extraction_scratch_bytes=0") as (_, client):
        yield client


def made_up(count=RESPONSES, tokens=(1, 9)):
    """Responses of random tokens with labels of all values, some of them missing; some responses are empty."""
    generator = np.random.default_rng(7)
    responses = []
    for index in range(count):
        length = 0 if index % 31 == 30 else int(generator.integers(*tokens))
        labels = {value: bool(generator.integers(2)) for value in VALUES}
        if index % 5 == 3:
            labels["security"] = None
        if index % 7 == 1:
            labels["power"] = float("nan")
        responses.append(
            vs.labelled(
                [int(i) for i in generator.integers(11, 70, 4)],
                [int(i) for i in generator.integers(11, 70, length)],
                bool(generator.integers(2)),
                f"q{index // 3}",
                condition=CONDITIONS[index // 2 % 2],
                labels=labels,
            )
        )
    return responses


@pytest.fixture(scope="module")
def responses():
    return made_up()


def alone(responses, value, conditions=()):
    """What a request for one vector takes: the responses that have its label, which is their only one."""
    conditions = [conditions] if isinstance(conditions, str) else list(conditions)
    chosen = []
    for response in responses:
        labels = {label.value: label.expresses for label in response.labels}
        labels[""] = response.expresses
        if value not in labels or (conditions and response.condition not in conditions):
            continue
        one = v1.LabelledResponse()
        one.CopyFrom(response)
        one.ClearField("labels")
        one.expresses = labels[value]
        chosen.append(one)
    return chosen


def field_of(refused):
    (violation,) = refused.value.violations
    return violation.field


def choices(vectors):
    return [(one, ()) if isinstance(one, str) else one for one in vectors]


def run_job(client, request):
    job = client.wait_for_job(client.create_job(v1.JobSpec(extract_vectors=request)).name)
    return client.job(job.name).result


def data_of(client, vector):
    return client.vector(vector).data.data


def close(one, other):
    """Whether rows of statistics are the same to the rounding of their sums."""
    for ours, theirs in zip(one, other, strict=True):
        assert list(ours.missing) == list(theirs.missing)
        for field, value in ours.ListFields():
            if field.name != "missing":
                assert getattr(theirs, field.name) == pytest.approx(value, rel=1e-8)
    return True


def check_alone(client, made, responses, vectors, to_the_bit=lambda of_one: True, **how):
    """Each is what a request for it alone gives."""
    assert len(made.vectors) == len(vectors)
    for one, (value, conditions) in zip(made.vectors, choices(vectors), strict=True):
        of_one = alone(responses, value, conditions)
        single = client.extract_vectors(MODEL, of_one, **how)
        assert one.value == value
        if to_the_bit(of_one):
            assert data_of(client, one.vector.name) == data_of(client, single.vector.name)
            assert list(one.statistics) == list(single.statistics)
        else:
            rows = [
                np.frombuffer(data_of(client, v.vector.name), np.float32) for v in (one, single)
            ]
            np.testing.assert_allclose(*rows, rtol=1e-6, atol=1e-9)
            assert close(one.statistics, single.statistics)
        assert list(one.warnings) == list(single.warnings)
        ours, theirs = one.vector.provenance, single.vector.provenance
        for field in ("num_expressing", "num_non_expressing", "num_dropped"):
            assert getattr(one, field) == getattr(ours, field) == getattr(theirs, field)
        assert one.num_dropped == single.num_dropped
        for field in ("pooling", "sign_rule", "judge", "site", "model_digest"):
            assert getattr(ours, field) == getattr(theirs, field)
        digests = [{d.name: d.digest for d in p.inputs}["responses"] for p in (ours, theirs)]
        assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pooling": "token_mean"},
        {"pooling": "last_token"},
        {"pooling": "last_prompt_token"},
        {"method": "pca"},
        {"method": "pca_centered", "pooling": "token_mean"},
        {"method": "linear_probe", "inverse_regularization": 0.5},
        {"site": "mlp_neurons", "layers": [0, 2], "bootstrap_samples": 0},
    ],
    ids=lambda how: "-".join(map(str, how.values())) or "default",
)
def test_each_vector_is_that_of_a_request_for_it_alone(client, responses, how):
    made = client.extract_vectors(MODEL, responses, vectors=VECTORS, **how)
    check_alone(client, made, responses, VECTORS, **how)
    unlabelled = sum("security" not in {label.value for label in r.labels} and r.condition == "intrinsic" for r in responses)  # fmt: skip
    assert made.vectors[1].num_unlabelled == unlabelled > 0
    assert made.vectors[0].num_unlabelled == 0
    assert not made.HasField("vector")
    assert not made.statistics


def test_a_vector_is_the_difference_of_means_of_captures(client, responses):
    made = client.extract_vectors(MODEL, responses, vectors=[("power", "prompted")]).vectors[0]
    chosen = [r for r in alone(responses, "power", "prompted") if r.response.token_ids.ids]
    texts = [(list(r.prompt.token_ids.ids), list(r.response.token_ids.ids)) for r in chosen]
    captured = client.capture(MODEL, texts, vs.tap("residual_post", "all", "response"))
    means = np.array([c[0].astype(np.float64).mean(1) for c in captured])
    expresses = np.array([r.expresses for r in chosen])
    wanted = means[expresses].mean(0) - means[~expresses].mean(0)
    rows = client.vector_data(made.vector.name)
    for layer, row in enumerate(wanted):
        np.testing.assert_allclose(rows[layer], row, rtol=1e-4, atol=1e-6)
    assert made.num_expressing == expresses.sum()
    assert made.num_expressing + made.num_non_expressing == len(chosen)


@pytest.mark.parametrize("pooling", ["response_mean", "token_mean", "last_token"])
def test_sums_of_each_vector_are_those_of_a_request_for_it_alone(small, responses, pooling):
    options = {"site": "mlp_neurons", "layers": [0, 2], "pooling": pooling}
    made = small.extract_vectors(MODEL, responses, vectors=VECTORS, **options)
    # Sums of some of the responses are cut in shards where all of them are, not where these alone would be.
    check_alone(small, made, responses, VECTORS, lambda of: len(of) == RESPONSES, **options)
    assert any("sums alone" in warning for warning in made.vectors[0].warnings)
    result = run_job(small, vs.extraction_request(MODEL, responses, vectors=VECTORS, **options))
    assert list(result.vectors) == [one.vector.name for one in made.vectors]


def test_call_job_and_file_give_the_same_vectors(client, responses):
    file = client.write_artifact(responses).name
    made = client.extract_vectors(MODEL, file, vectors=VECTORS, display_name="all")
    names = [one.vector.name for one in made.vectors]
    assert [one.vector.display_name for one in made.vectors] == [
        "stimulation",
        "security (intrinsic)",
        "security (prompted)",
        "power (intrinsic, prompted)",
        "all",
    ]
    request = vs.extraction_request(MODEL, file, vectors=VECTORS, display_name="all")
    job = client.wait_for_job(client.create_job(v1.JobSpec(extract_vectors=request)).name)
    result = client.job_handle(job.name).result()
    assert result.vectors == names
    values = result.summary["values"]
    assert [one["vector"] for one in values] == names
    for one, entry in zip(made.vectors, values, strict=True):
        assert [layer["norm"] for layer in entry["layers"]] == [s.norm for s in one.statistics]
        for field in ("num_expressing", "num_non_expressing", "num_dropped", "num_unlabelled"):
            assert entry[field] == getattr(one, field)
    head = result.job.result.summary
    assert list(head["vectors"]) == names
    assert [one["value"] for one in head["values"]] == [one.value for one in made.vectors]
    # The same of another selection: the vector that is in both has one name.
    again = client.extract_vectors(MODEL, file, vectors=VECTORS[1:2])
    assert again.vectors[0].vector.name == names[1]
    inline = client.extract_vectors(MODEL, responses, vectors=VECTORS)
    for one, other in zip(made.vectors, inline.vectors, strict=True):
        assert one.vector.data.data == other.vector.data.data
        assert list(one.statistics) == list(other.statistics)


def test_the_result_of_a_job_is_a_table_by_value_and_layer(client, responses):
    pytest.importorskip("pandas")
    request = vs.extraction_request(MODEL, responses, vectors=VECTORS)
    job = client.wait_for_job(client.create_job(v1.JobSpec(extract_vectors=request)).name)
    table = client.job_handle(job.name).result()["summary"]
    made = client.extract_vectors(MODEL, responses, vectors=VECTORS)
    assert len(table) == sum(len(one.statistics) for one in made.vectors)
    of = table[(table["value"] == "security") & (table["conditions"] == "prompted")]
    assert set(of["vector"]) == {made.vectors[2].vector.name}
    assert of["norm"].tolist() == [row.norm for row in made.vectors[2].statistics]


def prompt_tokens(server):
    text = server.metrics()
    ran = re.search(r"^valuescope_prompt_tokens_total (\S+)$", text, re.M)
    found = re.search(r"^valuescope_prefix_hit_tokens_total (\S+)$", text, re.M)
    return float(ran[1]) + float(found[1])


def test_ten_values_cost_what_one_does(running):
    server, client = running
    responses = made_up(count=64)
    generator = np.random.default_rng(3)
    values = [f"value {i}" for i in range(10)]
    labels = {value: generator.integers(2, size=len(responses)) for value in values}
    before = prompt_tokens(server)
    one = client.extract_vectors(MODEL, alone(responses, ""))
    cost = prompt_tokens(server) - before
    before = prompt_tokens(server)
    ten = client.extract_vectors(MODEL, responses, labels=labels)
    assert prompt_tokens(server) - before == cost > 0
    assert ten.usage.prompt_tokens == one.usage.prompt_tokens
    assert [made.value for made in ten.vectors] == values
    assert len({made.vector.name for made in ten.vectors}) == 10
    estimate = client.estimate_job(
        v1.JobSpec(extract_vectors=vs.extraction_request(MODEL, responses, labels=labels))
    )
    assert estimate.forwards == sum(bool(r.response.token_ids.ids) for r in responses)
    # What counts in no vector does not run.
    half = client.extract_vectors(MODEL, responses, vectors=[("power", "intrinsic")])
    assert 0 < half.usage.prompt_tokens < one.usage.prompt_tokens


def test_a_vector_that_cannot_be_made_does_not_lose_the_others(client, responses):
    count = len(responses)
    labels = {"all": [True] * count, "one": [True] + [False] * (count - 1), "none": [None] * count}
    labels["none"][30] = True  # of an empty response
    request = {"labels": labels | {"power": [i % 2 for i in range(count)]}}
    made = client.extract_vectors(MODEL, responses, vectors=["all", "one", "none", "power"], **request)  # fmt: skip
    assert [one.absence for one in made.vectors] == ["EMPTY_LABEL", "", "EMPTY_LABEL", ""]
    assert [one.HasField("vector") for one in made.vectors] == [False, True, False, True]
    assert "0 non-expressing" in made.vectors[0].warnings[0]
    assert made.vectors[2].num_dropped == 1
    assert made.vectors[2].num_unlabelled == count - 1
    assert any("2 of 4 vectors are not made" in warning for warning in made.warnings)
    job = vs.extraction_request(MODEL, responses, vectors=["all", "one", "none", "power"], **request)  # fmt: skip
    result = run_job(client, job)
    assert list(result.vectors) == [made.vectors[1].vector.name, made.vectors[3].vector.name]
    assert ["absence" in one and one["absence"] for one in result.summary["values"]] == ["EMPTY_LABEL", False, "EMPTY_LABEL", False]  # fmt: skip
    # Of pairs: a value whose queries never have both labels.
    by_query = [index // 3 % 2 for index in range(count)]
    made = client.extract_vectors(MODEL, responses, labels={"by query": by_query, "power": request["labels"]["power"]}, method="pca")  # fmt: skip
    assert [one.absence for one in made.vectors] == ["TOO_FEW_PAIRS", ""]
    with pytest.raises(vs.InvalidRequest) as refused:
        client.extract_vectors(MODEL, responses, vectors=["all", "none"], labels=labels)
    assert field_of(refused) == "vectors"
    assert refused.value.reason == "EMPTY_LABEL"


def test_a_probe_takes_as_many_responses_as_alone(client):
    responses = made_up(count=2200, tokens=(1, 2))
    labels = {"all": [i % 2 for i in range(2200)], "some": [i % 2 if i < 90 else None for i in range(2200)]}  # fmt: skip
    file = client.write_artifact(vs.with_labels(responses, labels)).name
    options = {"layers": [0], "method": "linear_probe", "vectors": ["all", "some"]}
    result = run_job(client, vs.extraction_request(MODEL, file, **options))
    entries = result.summary["values"]
    assert entries[0]["absence"] == "TOO_MANY_RESPONSES"
    single = client.extract_vectors(
        MODEL, alone(vs.with_labels(responses[:90], {"some": labels["some"][:90]}), "some"),
        layers=[0], method="linear_probe",
    )  # fmt: skip
    assert data_of(client, entries[1]["vector"]) == single.vector.data.data


def many(count, conditions=1):
    return [
        v1.ValueVector(value=f"v{i // conditions}", conditions=[f"c{i % conditions}"])
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("vectors", "field", "reason"),
    [
        (["stimulation", "stimulation"], "vectors[1]", "INVALID_FIELD"),
        ([("power", CONDITIONS), ("power", CONDITIONS[::-1])], "vectors[1]", "INVALID_FIELD"),
        ([("power", ["intrinsic", "intrinsic"])], "vectors[0].conditions[1]", "INVALID_FIELD"),
        (["v" * 129], "vectors[0].value", "INVALID_FIELD"),
        ([("power", "c" * 257)], "vectors[0].conditions[0]", "INVALID_FIELD"),
        ([v1.ValueVector(value="power", display_name="n" * 257)], "vectors[0].display_name", "INVALID_FIELD"),
        (many(65), "vectors", "INVALID_FIELD"),
        (many(17, conditions=17), "vectors", "INVALID_FIELD"),
        (many(257, conditions=16), "vectors", "INVALID_FIELD"),
        (["power", "hedonism"], "vectors[1].value", "UNKNOWN_VALUE"),
        ([("power", ["intrinsic", ""])], "vectors[0].conditions[1]", "UNKNOWN_CONDITION"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_named(client, responses, vectors, field, reason):
    with pytest.raises(vs.InvalidRequest) as refused:
        client.extract_vectors(MODEL, responses, vectors=vectors)
    assert field_of(refused) == field
    assert refused.value.reason == reason


def test_labels_that_are_none_are_named_with_their_place(client, responses):
    twice = [v1.LabelledResponse() for _ in range(2)]
    for copy, one in zip(twice, responses[:2], strict=True):
        copy.CopyFrom(one)
    twice[1].labels.append(twice[1].labels[0])
    with pytest.raises(vs.InvalidRequest) as refused:
        client.extract_vectors(MODEL, twice, vectors=["power"])
    assert re.fullmatch(r"responses\[1\]\.labels\[\d\]\.value", field_of(refused))
    line = json_format.MessageToDict(responses[0], preserving_proto_field_name=True)
    line["labels"] = [{"value": "power", "expresses": "yes"}]
    body = f"{json.dumps(line)}\n".encode()
    file = client.write_artifact(body, media_type="application/x-ndjson").name
    for call in (lambda: client.extract_vectors(MODEL, file, vectors=["power"]), lambda: client.read_table(file)):  # fmt: skip
        with pytest.raises(vs.InvalidRequest, match=r"line 1 has a `labels\.expresses`"):
            call()
    with pytest.raises(vs.InvalidRequest) as refused:
        client.extract_vectors(MODEL, generated=vs.Generated(["w11"], judge=vs.WordList(["w1"])), vectors=["power"])  # fmt: skip
    assert field_of(refused) == "vectors"
    assert "judge_responses" in str(refused.value)
    with pytest.raises(vs.Exhausted) as refused:
        client.extract_vectors(MODEL, responses, vectors=[(f"v{i % 64}", CONDITIONS[i // 64]) for i in range(65)])  # fmt: skip
    assert refused.value.reason == "USE_A_JOB"


def test_a_request_that_is_repeated_is_answered_from_what_it_left(client, responses):
    labels = {"all": [True] * len(responses), "half": [i % 2 for i in range(len(responses))]}
    options = {"labels": labels, "request_id": "0b94d0a4-4a3c-4ad5-8f0c-0e7e6c2f5a11"}
    first = client.extract_vectors(MODEL, responses, **options)
    again = client.extract_vectors(MODEL, responses, **options)
    assert list(again.vectors) == list(first.vectors)
    assert list(again.warnings) == list(first.warnings)
    assert again.num_dropped == first.num_dropped > 0
    assert again.usage.prompt_tokens == 0
    client.delete_vector(first.vectors[1].vector.name)
    with pytest.raises(vs.NotFound):
        client.extract_vectors(MODEL, responses, **options)


def test_generated_once_judged_for_each_value_and_extracted_at_once(client):
    queries = [f"w{11 + i} w{12 + 2 * i}" for i in range(12)]
    words = {"first": ["w20", "w21", "w22", "w23"], "second": ["w24", "w25", "w26", "w27", "w28"]}
    conditions = {"intrinsic": vs.EvaluationCondition(""), "prompted": vs.EvaluationCondition("w50 w51")}  # fmt: skip
    job = client.generate_responses(MODEL, queries, conditions, samples_per_query=2, max_tokens=9, temperature=1.0, seed=5)  # fmt: skip

    def left(job):
        client.wait_for_job(job.name)
        artifacts = client.job(job.name).result.artifacts
        return next(a.artifact for a in artifacts if a.role == "responses")

    file = left(job)
    for value, listed in words.items():
        request = vs.judging_request(file, vs.WordList(listed), model=MODEL, value=value)
        file = left(client.create_job(v1.JobSpec(judge_responses=request)))
    lines = [json_format.Parse(line, v1.LabelledResponse()) for line in client.read_artifact(file).decode().splitlines()]  # fmt: skip
    assert all([label.value for label in line.labels] == list(words) for line in lines)
    assert not any(line.HasField("expresses") for line in lines)
    for line in lines:
        said = client.detokenize(MODEL, list(line.response.token_ids.ids)).split()
        for label in line.labels:
            assert label.expresses == bool(set(said) & set(words[label.value]))
    vectors = [(value, condition) for value in words for condition in conditions]
    made = client.extract_vectors(MODEL, file, vectors=vectors)
    check_alone(client, made, lines, vectors)
    # A judge that is asked again says it in place of the first.
    request = vs.judging_request(file, vs.WordList(words["second"]), model=MODEL, value="first")
    again = left(client.create_job(v1.JobSpec(judge_responses=request)))
    for line in client.read_artifact(again).decode().splitlines():
        labels = {label["value"]: label["expresses"] for label in json.loads(line)["labels"]}
        assert labels["first"] == labels["second"]
    with pytest.raises(vs.InvalidRequest) as refused:
        client.create_job(v1.JobSpec(judge_responses=vs.judging_request(file, vs.Grade(MODEL, "w1 {query} {response}"), value="first")))  # fmt: skip
    assert field_of(refused) == "spec.judge_responses.value"
    check_table(client, file, lines)


def check_table(client, file, lines):
    """Labels of several values are a column of lists."""
    pytest.importorskip("pandas")
    frame = client.read_table(file).to_pandas()
    wanted = [{label.value: label.expresses for label in line.labels} for line in lines]
    assert [{one["value"]: one["expresses"] for one in row} for row in frame["labels"]] == wanted


def test_kill_9_in_the_middle_gives_the_same_bytes(small, root, tmp_path, start_server):
    responses = made_up(count=1600)
    labels = {"odd": [i % 2 for i in range(1600)], "third": [i % 3 == 0 for i in range(1600)]}
    request = vs.extraction_request(MODEL, responses, labels=labels, pooling="token_mean")
    whole = run_job(small, request)
    tiny = [*flags(root), "--extraction_scratch_bytes=0"]
    first = start_server(tmp_path / "killed", *tiny)
    with first.client(MODEL) as other:
        job = other.create_job(v1.JobSpec(extract_vectors=request))
        for state in other.watch_job(job.name):
            if state.progress.shards_done >= 3:
                break
        committed = other.job(job.name).progress
    assert 3 <= committed.shards_done < committed.shards_total == 25
    first.kill()
    second = start_server(tmp_path / "killed", *tiny)
    with second.client(MODEL) as other:
        other.wait_for_job(job.name)
        result = other.job(job.name).result
        assert list(result.vectors) == list(whole.vectors)
        after, before = (
            c.read_artifact(r.artifacts[0].artifact) for c, r in ((other, result), (small, whole))
        )
        assert after == before
    assert second.stop() == 0


def test_sums_that_never_fit_are_refused_before_there_is_a_job(root, tmp_path):
    responses = made_up(count=16)
    for response in responses:
        del response.labels[:]
    labels = {f"v{i}": [r % 2 for r in range(16)] for i in range(64)}
    options = ["--extraction_scratch_bytes=0", "--capture_memory_bytes=1MiB"]
    with served(tmp_path, *flags(root), *options) as (_, client):
        request = vs.extraction_request(MODEL, responses, labels=labels, site="mlp_neurons")
        with pytest.raises(vs.Exhausted) as refused:
            client.create_job(v1.JobSpec(extract_vectors=request))
        assert refused.value.reason == "CAPTURES_TOO_LARGE"
        assert not list(client.jobs())
        del request.vectors[1:]
        assert len(run_job(client, request).vectors) == 1


def test_the_command_line_makes_several_vectors(running, responses, tmp_path):
    server, client = running
    (tmp_path / "labelled.jsonl").write_bytes(vs.to_json_lines(responses))
    command = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address]
    words = ["vectors", "extract", "--model", "speaker", "labelled.jsonl"]
    values = ["--value", "stimulation", "--value", "security@intrinsic", "--value", "power@intrinsic,prompted"]  # fmt: skip
    done = subprocess.run([*command, *words, *values], cwd=tmp_path, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    vectors = ["stimulation", ("security", "intrinsic"), ("power", CONDITIONS)]
    made = client.extract_vectors(MODEL, client.write_artifact(responses).name, vectors=vectors)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][:3] == ["VALUE", "CONDITIONS", "VECTOR"]
    names = [next(word for word in row if word.startswith("vectors/")) for row in rows[1:]]
    # Of other names: the records tell the options as they were given.
    assert [client.vector(name).data for name in names] == [one.vector.data for one in made.vectors]


def test_what_the_readme_says_of_several_vectors_is_so(client, responses):
    pandas = pytest.importorskip("pandas")
    readme = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(labels = pandas.*?)```", readme, re.DOTALL)
    generator = np.random.default_rng(1)
    marks = {value: generator.integers(2, size=RESPONSES) for value in VALUES}
    names = {"pandas": pandas, "vs": vs, "v1": v1, "client": client, "model": MODEL}
    ran = names | {"responses": responses, "marks": marks}
    exec(code, ran)
    assert set(ran["by_value"]) == {(value, c) for value in VALUES for c in CONDITIONS}
    assert len(ran["decomposed"].decompositions) == len(VALUES)
    result = ran["job"].result()
    assert set(result.vectors) == set(ran["by_value"].values())
    assert set(result["summary"]["value"]) == set(VALUES)
