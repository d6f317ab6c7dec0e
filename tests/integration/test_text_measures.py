"""Measures of texts through the real server on a tiny model whose vocabulary is words, against definitions written out here."""

import collections
import decimal
import json
import math
import subprocess

import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server
from valuescope import v1

MODEL = "models/qwen2"
FAMILIES = ROOT / "tests" / "golden" / "families"
END = "<eos>"
TEXTS = {
    "steered": [
        "w11 w12 w13 w14 w15 w16 w17 w18",
        "w11 w12 w13 w20",
        "w30 w30 w30 w30 w30 w30 w30 w30 w31",
        "w40",
        "w20 w21 w20 w21 w20 w21 w20 w21",
    ],
    "": ["w11 w12 w13 w14 w15", "w11 w12 w13 w14 w15", "", "w50 w51 w52 w53 w54 w55 w56 w57 w58"],
}
PROMPT = "w60 w61 w62"
# Texts with more and with fewer tokens than others.
LENGTHS = "ignore:texts have"
pytestmark = pytest.mark.filterwarnings(LENGTHS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("store"), f"--model_root={FAMILIES}", "--models=qwen2")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with server.client(MODEL) as client:
        yield client


def responses():
    return [
        vs.unlabelled(PROMPT, text, condition=condition)
        for condition, texts in TEXTS.items()
        for text in texts
    ]


def ids_of(client, text):
    """Tokens of a response, which gets no special ones; a word is a token here."""
    return client.tokenize(MODEL, text).token_ids[-len(text.split()) :] if text else []


def ngrams(ids, n):
    return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]


def self_bleu(texts):
    """Every text against every other, as it is defined."""
    scores = []
    for own, text in enumerate(texts):
        others = [other for place, other in enumerate(texts) if place != own]
        orders = min(4, len(text))
        log_sum = 0.0
        for n in range(1, orders + 1):
            counts = collections.Counter(ngrams(text, n))
            references = [collections.Counter(ngrams(other, n)) for other in others]
            matches = sum(min(c, max(r[g] for r in references)) for g, c in counts.items())
            smooth = int(n > 1)
            precision = (matches + smooth) / (sum(counts.values()) + smooth)
            log_sum += math.log(precision) if precision else -math.inf
        closest = min((abs(len(o) - len(text)), len(o)) for o in others)[1]
        scores.append(math.exp(min(0, 1 - closest / len(text)) + log_sum / orders))
    return sum(scores) / len(scores)


def is_coherent(ids):
    def repeats(n):
        found = collections.Counter(ngrams(ids, n))
        return found.most_common(1)[0][1] * 2 > sum(found.values())

    return len(ids) < 8 or not (repeats(1) or repeats(2))


def test_every_measure_is_what_its_definition_says(client):
    phrases = ["w20", "W12 w13"]
    checks = [v1.Instruction(max_words=4), v1.Instruction(includes="w15")]
    measures = client.measure_texts(
        MODEL,
        responses(),
        ngrams=[1, 2, 5],
        vocabulary=1000,
        refusal_phrases=phrases,
        instructions=checks,
    )
    assert measures.conditions == ["steered", ""]
    for condition, all_texts in TEXTS.items():
        texts = [text for text in all_texts if text]
        listed = [list(ids_of(client, text)) for text in texts]
        assert [len(ids) for ids in listed] == [len(text.split()) for text in texts]
        one = measures[condition]
        assert (one.num_texts, one.num_empty) == (len(all_texts), len(all_texts) - len(texts))
        assert one.mean_tokens == pytest.approx(sum(map(len, listed)) / len(texts), rel=1e-15)
        coherent = [is_coherent(ids) for ids in listed]
        assert one.coherent_share == sum(coherent) / len(texts)
        refused = [
            "w20" in text.split() or "w12 w13" in text
            for text, says in zip(texts, coherent, strict=True)
            if says
        ]
        assert one.refusal_rate == sum(refused) / len(refused)
        assert [rate.rate for rate in one.instructions] == [
            sum(len(text.split()) <= 4 for text in texts) / len(texts),
            sum("w15" in text.split() for text in texts) / len(texts),
        ]
        assert one.self_bleu == pytest.approx(self_bleu(listed), rel=1e-13)
        assert one.self_bleu_texts == len(texts)
        for n, found in zip([1, 2, 5], one.diversity, strict=True):
            counts = collections.Counter(g for ids in listed for g in ngrams(ids, n))
            total, distinct = sum(counts.values()), len(counts)
            assert (found.n, found.num_ngrams, found.num_distinct) == (n, total, distinct)
            assert found.distinct == distinct / total
            with decimal.localcontext(prec=50):
                v = decimal.Decimal(1000)
                adjusted = distinct / (v * (1 - ((v - 1) / v) ** total))
            assert found.expectation_adjusted_distinct == pytest.approx(float(adjusted), rel=1e-13)
            entropy = -sum(c / total * math.log2(c / total) for c in counts.values())
            assert found.entropy == pytest.approx(entropy, rel=1e-13)
        assert not one.HasField("perplexity") and one.vocabulary == 1000
    assert {True, False} == {is_coherent(ids_of(client, text)) for text in TEXTS["steered"]}


def test_perplexity_is_that_of_scores_behind_the_prompt(client):
    measures = client.measure_texts(MODEL, responses(), perplexity=True)
    used = 0
    for condition, texts in TEXTS.items():
        texts = [text for text in texts if text]
        scores = client.score(MODEL, PROMPT, texts)
        total = sum(score.sum for score in scores)
        count = sum(len(score.token_logprobs) for score in scores)
        assert measures[condition].perplexity == pytest.approx(math.exp(-total / count), rel=1e-12)
        prompt = len(client.tokenize(MODEL, PROMPT).token_ids)
        used += count + prompt * len(texts)
    assert measures.response.usage.prompt_tokens == used
    names = {digest.name for digest in measures.response.digests}
    assert names == {MODEL, "responses"}


def test_tokens_that_end_a_turn_are_not_counted_and_ids_are_texts(client):
    ids = list(ids_of(client, "w11 w12"))
    end = client.tokenize(MODEL, END).token_ids[-1]
    as_ids = [
        vs.unlabelled(PROMPT, [*ids, end]),
        vs.unlabelled(PROMPT, [end]),
    ]
    measures = client.measure_texts(MODEL, as_ids, refusal_phrases="w12")[""]
    assert (measures.num_texts, measures.num_empty, measures.mean_tokens) == (2, 1, 2)
    assert measures.refusal_rate == 1


def test_texts_by_condition_need_no_prompts(client):
    by_condition = client.measure_texts(MODEL, TEXTS)
    with_prompts = client.measure_texts(MODEL, responses())
    assert list(by_condition.response.measures) == list(with_prompts.response.measures)
    with pytest.raises(vs.InvalidRequest, match=r"responses\[0\].prompt"):
        client.measure_texts(MODEL, TEXTS, perplexity=True)


def test_a_draw_for_self_bleu_follows_its_seed(client):
    texts = {"": [f"w{10 + i} w{10 + i % 3} w{10 + i % 5}" for i in range(40)]}
    all_texts = client.measure_texts(MODEL, texts)[""]
    drawn = [client.measure_texts(MODEL, texts, self_bleu_texts=9, seed=s)[""] for s in (3, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len({one.self_bleu for one in drawn} | {all_texts.self_bleu}) == 3
    # Output i of SplitMix64 for text i: those with the smallest are drawn.
    from test_generated_responses import mixed

    chosen = sorted(sorted(range(40), key=lambda i: mixed(3, i))[:9])
    listed = [list(ids_of(client, texts[""][i])) for i in chosen]
    assert drawn[0].self_bleu == pytest.approx(self_bleu(listed), rel=1e-13)


def test_a_job_comes_to_the_numbers_of_a_call_from_an_artifact_too(client):
    fields = {"perplexity": True, "refusal_phrases": ["w20"], "seed": 7}
    checks = [v1.Instruction(script="Latn")]
    uploaded = client.write_artifact(
        vs.to_json_lines(responses()), media_type="application/x-ndjson"
    )
    call = client.measure_texts(MODEL, responses(), instructions=checks, **fields).response
    again = client.measure_texts(MODEL, uploaded.name, instructions=checks, **fields).response
    assert list(again.measures) == list(call.measures)
    request = vs.measurement_request(MODEL, uploaded.name, instructions=checks, **fields)
    job = client.wait_for_job(client.create_job(v1.JobSpec(measure_texts=request)).name)
    assert job.progress.unit == "texts" and job.progress.total == len(responses())
    (artifact,) = client.job(job.name).result.artifacts
    summary = json.loads(client.read_artifact(artifact.artifact))
    assert summary["provenance"]["seeds"] == [7]
    for told, measured in zip(summary["measures"], call.measures, strict=True):
        for field in ("perplexity", "self_bleu", "refusal_rate", "mean_tokens", "coherent_share"):
            assert told[field] == getattr(measured, field), field
        for row, diversity in zip(told["diversity"], measured.diversity, strict=True):
            assert row.get("distinct") == (
                diversity.distinct if diversity.HasField("distinct") else None
            )
    assert summary["warnings"] == list(call.warnings)


def test_a_job_whose_head_would_be_long_tells_its_length_and_leaves_all_in_the_artifact(
    server, client
):
    texts = [
        vs.unlabelled(PROMPT, "w11 w12", condition=f"{'long' * 60} {number}")
        for number in range(3000)
    ]
    uploaded = client.write_artifact(vs.to_json_lines(texts), media_type="application/x-ndjson")
    spec = v1.JobSpec(measure_texts=vs.measurement_request(MODEL, uploaded.name))
    job = client.wait_for_job(client.create_job(spec).name)
    result = client.job(job.name).result
    assert list(result.summary) == ["left_out_bytes"]
    assert result.summary["left_out_bytes"] > 1 << 20
    summary = json.loads(client.read_artifact(result.artifacts[0].artifact))
    assert len(summary["measures"]) == len(texts)
    told = subprocess.run(
        [BUILD / "client/cpp/valuescope", "--server", server.address, "jobs", "get", job.name],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0 and f"{len(texts)}/{len(texts)}" in told.stdout, told.stderr


REFUSED = [
    ({"texts": []}, "responses"),
    ({"ngrams": [1, 9]}, r"ngrams\[1\]"),
    ({"ngrams": [2, 1, 2]}, r"ngrams\[2\]"),
    ({"vocabulary": 0}, "vocabulary"),
    ({"self_bleu_texts": 1}, "self_bleu_texts"),
    ({"refusal_phrases": ["w1", "*"]}, r"refusal_phrases\[1\]"),
    ({"instructions": [v1.Instruction(script="Jpan")]}, r"instructions\[0\].script"),
    ({"instructions": [v1.Instruction(bullets=-1)]}, r"instructions\[0\].bullets"),
    ({"instructions": [v1.Instruction()]}, r"instructions\[0\].instruction"),
    ({"texts": [vs.unlabelled(PROMPT, [5, 10_000])]}, r"responses\[0\].response.token_ids.ids\[1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "field"), REFUSED)
def test_a_mistake_is_refused_by_the_name_of_its_field(client, changes, field):
    fields = {"texts": responses(), **changes}
    texts = fields.pop("texts")
    with pytest.raises(vs.InvalidRequest, match=f"`{field}`"):
        client.measure_texts(MODEL, texts, **fields)
    request = vs.measurement_request(MODEL, texts, **fields)
    with pytest.raises(vs.InvalidRequest, match=f"`spec.measure_texts.{field}`"):
        client.create_job(v1.JobSpec(measure_texts=request))


def test_a_bad_line_is_named_by_its_number(client):
    good = vs.to_json_lines(responses()[:1])
    for bad in (b"{", b'{"prompt": {"text": "w1"}}', b'{"response": {"token_ids": {"ids": [-1]}}}'):
        uploaded = client.write_artifact(good + bad, media_type="application/x-ndjson")
        with pytest.raises(vs.InvalidRequest, match="`artifact`: line 2"):
            client.measure_texts(MODEL, uploaded.name)


def test_more_texts_than_a_call_takes_want_a_job(client):
    with pytest.raises(vs.Exhausted, match="2000; create a job") as info:
        client.measure_texts(MODEL, {"": ["w11"] * 2001})
    assert info.value.reason == "USE_A_JOB"


def test_the_command_line_measures_a_file(server, client, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_bytes(vs.to_json_lines(responses()))
    program = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address]

    def run(*flags, code=0):
        what = ["measure", "--model", "qwen2", file, "--phrase", "w20", "--ngrams", "1,2"]
        done = subprocess.run(
            [*program, *what, *flags], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    checks = ["--instruction", "max_words:4", "--instruction", "is_json:false", "--perplexity"]
    told = json.loads(run("--json", *checks))
    call = client.measure_texts(
        MODEL,
        responses(),
        refusal_phrases="w20",
        ngrams=[1, 2],
        perplexity=True,
        instructions=[v1.Instruction(max_words=4), v1.Instruction(is_json=False)],
    )
    assert [one["perplexity"] for one in told["measures"]] == [
        one.perplexity for one in call.response.measures
    ]
    table = run(*checks).splitlines()
    assert table[0].split()[:2] == ["CONDITION", "TEXTS"]
    assert table[1].split()[:3] == ["steered", "5", "0"]
    assert "must be NAME:VALUE with one of min_words" in run("--instruction", "words:4", code=2)
    assert "whole number" in run("--instruction", "max_words:x", code=2)


def test_any_job_can_be_submitted_from_a_file(server, client, tmp_path):
    file = tmp_path / "spec.json"
    spec = {"measure_texts": {"model": MODEL, "responses": [{"response": {"text": "w11 w12"}}]}}
    file.write_text(json.dumps(spec))

    def run(*flags):
        program = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address]
        return subprocess.run(
            [*program, "jobs", "submit", file, *flags], capture_output=True, text=True, timeout=120
        )

    done = run("--watch")
    assert done.returncode == 0 and "summary: artifacts/" in done.stdout, done.stderr
    assert "shards" in run("--validate_only").stdout
    file.write_text('{"measure_text": {}}')
    done = run()
    assert done.returncode == 2 and "is not the JSON mapping of JobSpec" in done.stderr
