"""Questionnaires, choices and tagged responses through the real server on tiny models whose vocabularies are words: every number is what
Capture of the logits and Score say prompt by prompt, put together here anew, and a job comes to the numbers of a call."""

import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server
from valuescope import v1

MODEL, GEMMA, LETTERED = "models/speaker", "models/gemma", "models/lettered"
FAMILIES = {"speaker": "qwen2", "gemma": "gemma2", "lettered": "qwen2"}
# Words of the speaker that are letters to its twin.
LETTERS = {"w90": "A", "w91": "B", "w92": "C", "w93": "D"}
WORDS = json.loads(
    (ROOT / "tests" / "golden" / "families" / "qwen2" / "tokenizer.json").read_text()
)["model"]["vocab"]
VALUES = ["SD", "ST", "HE", "SD", "ST", "HE", "SD"]
REVERSED = [2, 4]
TEMPLATE = "w60 {item} w61 {options} w62"
SCORES = [1.0, 2.0, 4.0, 5.0]
BLOCKS = range(2)

# Random models say what they like.
pytestmark = [
    pytest.mark.filterwarnings("ignore:condition .* the (labels|letters) have"),
    pytest.mark.filterwarnings("ignore:condition .* one label"),
]


def lettered_models(root):
    """Folders of the models beneath `root`, which is returned."""
    for name, family in FAMILIES.items():
        shutil.copytree(ROOT / "tests" / "golden" / "families" / family, root / name)
    file = root / "lettered" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {LETTERS.get(word, word): id for word, id in words.items()}
    file.write_text(json.dumps(tokenizer))
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = lettered_models(tmp_path_factory.mktemp("models"))
    server = Server(
        tmp_path_factory.mktemp("store"), f"--model_root={root}", f"--models={','.join(FAMILIES)}"
    )
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with vs.Client(server.address, timeout=120) as client:
        for name in FAMILIES:
            client.wait_until_ready(f"models/{name}")
        yield client


@pytest.fixture(scope="module")
def vector(client):
    width = client.model(MODEL).hidden_size
    rows = np.random.default_rng(3).normal(size=(len(BLOCKS), width)).astype(np.float32)
    return client.create_vector(MODEL, rows, layers=BLOCKS).name


@pytest.fixture(scope="module")
def conditions(vector):
    steer = vs.Steer(vector, 2.0, layers=BLOCKS)
    return {
        "plain": None,
        "empty": vs.EvaluationCondition(system=""),
        "steered": steer,
        "both": vs.EvaluationCondition(
            system="w50 w51", steer=[steer, vs.ScaleNeurons([(0, 1), (1, 2)], 0.5)]
        ),
    }


def plain(condition):
    """System message and edits of a condition."""
    if isinstance(condition, vs.EvaluationCondition):
        return condition.system, condition.steer
    return None, condition


def items():
    listed = []
    for i, value in enumerate(VALUES):
        text = f"w{11 + i} w{12 + 2 * i} w{40 + i}"
        listed.append({"text": text, "value": value, "reverse": i in REVERSED})
    return listed


def options(labels, texts=True):
    return [
        v1.AnswerOption(label=label, text=f"w{70 + k}" if texts else "", score=score)
        for k, (label, score) in enumerate(zip(labels, SCORES, strict=False))
    ]


def ids_of(text):
    return [WORDS[word] for word in text.split()]


def prompt_ids(client, system, turn, prefix="", model=MODEL):
    chat = vs.chat(turn) if system is None else vs.chat(turn, system=system)
    return [*client.tokenize(model, chat).token_ids, *ids_of(prefix)]


def turn_of(item, options, reverse, template=TEMPLATE):
    texts = [option.text for option in options]
    lines = [
        f"{option.label}: {text}" if text else option.label
        for option, text in zip(options, reversed(texts) if reverse else texts, strict=True)
    ]
    return template.replace("{options}", "\n".join(lines)).replace("{item}", item["text"])


def next_probabilities(client, ids, steer):
    """Of every token [vocabulary], float64."""
    (seen,) = client.capture(MODEL, [ids], vs.tap("logits", tokens="last_prompt"), steer=steer)
    logits = seen[0][0, 0].astype(np.float64)
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def single(client, ids, steer, labels):
    """p(label) of labels that are one word each."""
    shares = next_probabilities(client, ids, steer)
    return np.array([shares[WORDS[label]] for label in labels])


def whole(client, ids, steer, labels):
    """p(label) of labels of several words, those that go on as another taken out."""
    scores = client.score(MODEL, ids, [ids_of(label) for label in labels], steer=steer)
    p = dict(zip(labels, np.exp([score.sum for score in scores]), strict=True))
    # Of those that go on, the ones that do not go on as another in turn.
    taken = {}
    for label in labels:
        longer = [one for one in labels if one.startswith(label + " ")]
        first = [o for o in longer if not any(o.startswith(other + " ") for other in longer)]
        taken[label] = sum(p[one] for one in first)
    return np.array([p[label] - taken[label] for label in labels])


def named(text, options, reverse):
    """Index of the option that an answer names, by words."""
    words = text.split()
    texts = [o.text for o in options]
    places = {o.label: k for k, o in enumerate(options)}
    found = {word for word in words if word in places}
    if not found:
        places = {t: k for k, t in enumerate(reversed(texts) if reverse else texts) if t}
        found = {word for word in words if word in places}
    if len(found) != 1:
        return None
    k = places[found.pop()]
    return len(options) - 1 - k if reverse else k


def expected_answers(client, condition, options, reverse, read=single, prefix="", words=0):
    """By item: p of the options in their own order, mass, and what is said."""
    system, steer = plain(condition)
    labels = [option.label for option in options]
    for item in items():
        ids = prompt_ids(client, system, turn_of(item, options, reverse), prefix)
        p = read(client, ids, steer, labels)
        text = None
        if words:
            text = client.generate(MODEL, ids, steer=steer, temperature=0.0, max_tokens=words).text
        yield (p[::-1] if reverse else p) / p.sum(), p.sum(), text


def check_questionnaire(client, result, condition, options, orders, **how):
    scores = np.array([option.score for option in options])
    by_order = {
        reverse: list(expected_answers(client, condition, options, reverse, **how))
        for reverse in orders
    }
    found, masses, tops = [], [], []
    for i, item in enumerate(result.items):
        sums, texts = [], []
        for answer, reverse in zip(item.answers, orders, strict=True):
            p, mass, text = by_order[reverse][i]
            assert answer.reversed == reverse
            np.testing.assert_allclose(answer.probabilities, p, atol=1e-5)
            assert answer.label_mass == pytest.approx(mass, rel=1e-4)
            assert answer.score == pytest.approx(p @ scores, abs=1e-4)
            sums.append(p @ scores)
            masses.append(mass)
            top = int(np.argmax(p))
            tops.append(len(p) - 1 - top if reverse else top)
            assert answer.HasField("text") == (text is not None)
            if text is not None:
                assert answer.text == text
                option = named(text, options, reverse)
                assert (answer.text_option if answer.HasField("text_option") else None) == option
                texts.append(None if option is None else scores[option])
        score = np.mean(sums)
        if i in REVERSED:
            score = scores[0] + scores[-1] - score
        assert item.score == pytest.approx(score, abs=1e-4)
        assert item.item == str(i + 1)
        assert item.value == VALUES[i]
        if len(orders) == 2:
            assert item.order_spread == pytest.approx((sums[0] - sums[1]) / 2, abs=1e-4)
        assert item.HasField("order_spread") == (len(orders) == 2)
        assert item.HasField("text_score") == bool(texts and None not in texts)
        found.append(score)
    assert result.mean == pytest.approx(np.mean(found), abs=1e-4)
    assert result.label_mass == pytest.approx(np.mean(masses), rel=1e-4)
    assert result.most_frequent_share == np.bincount(tops).max() / len(tops)
    assert [value.value for value in result.values] == ["SD", "ST", "HE"]
    for value in result.values:
        of = [s for s, v in zip(found, VALUES, strict=True) if v == value.value]
        assert value.score == pytest.approx(np.mean(of), abs=1e-4)
        assert value.centred == pytest.approx(np.mean(of) - np.mean(found), abs=1e-4)
        error = np.std(of, ddof=1) / math.sqrt(len(of))
        assert value.standard_error == pytest.approx(error, abs=1e-4)
        assert value.num_items == len(of)


ORDERS = {"both": [False, True], "given": [False], "reversed": [True]}


@pytest.mark.parametrize("order", ORDERS)
def test_a_questionnaire_is_what_the_logits_say(client, conditions, order):
    listed = options(["w81", "w82", "w83", "w84"])
    asked = client.ask_questionnaire(
        MODEL, items(), listed, TEMPLATE, conditions=conditions, order=order
    )
    assert asked.conditions == list(conditions)
    for result, condition in zip(asked.response.results, conditions.values(), strict=True):
        check_questionnaire(client, result, condition, listed, ORDERS[order])
        counts = [len(VALUES) * len(ORDERS[order])] * len(result.receipts)
        assert [receipt.positions for receipt in result.receipts] == counts
    assert asked.response.usage.prompt_tokens > 0
    assert asked.values.shape == (4, 3)
    assert np.abs(asked.values[0] - asked.values[2]).max() > 1e-3
    total = asked.centred @ [3, 2, 2]
    np.testing.assert_allclose(total, 0, atol=1e-12)


def test_labels_of_several_words_are_read_by_their_sequences(client, conditions):
    listed = options(["w81", "w81 w82", "w83 w84 w85", "w81 w82 w86"], texts=False)
    asked = client.ask_questionnaire(MODEL, items(), listed, TEMPLATE, conditions=conditions)
    for result, condition in zip(asked.response.results, conditions.values(), strict=True):
        check_questionnaire(client, result, condition, listed, ORDERS["both"], read=whole)


@pytest.mark.parametrize(
    "labels", [["w81", "w82", "w83"], ["w81", "w81 w82"]], ids=["single", "sequences"]
)
def test_answers_in_words_are_greedy_and_read_strictly(client, conditions, labels):
    """Labels are what the model says now and then, so that some answers name one and others none or two."""
    said = [
        text
        for _, _, text in expected_answers(
            client, None, options(["w81", "w82"]), reverse=False, words=6
        )
    ]
    common = [
        word
        for word, _ in sorted(
            ((w, sum(w in text.split() for text in said)) for w in set(" ".join(said).split())),
            key=lambda pair: (-pair[1], pair[0]),
        )
    ]
    words = dict(zip(["w81", "w82", "w83"], common, strict=False))
    labels = [" ".join(words[word] for word in label.split()) for label in labels]
    listed = options(labels, texts=False)
    chosen = {name: conditions[name] for name in ("plain", "both")}
    asked = client.ask_questionnaire(
        MODEL, items(), listed, TEMPLATE, conditions=chosen, max_answer_tokens=6
    )
    read = single if all(" " not in label for label in labels) else whole
    for result, condition in zip(asked.response.results, chosen.values(), strict=True):
        if read is single:
            check_questionnaire(
                client, result, condition, listed, ORDERS["both"], read=read, words=6
            )
        unparsable = sum(
            not answer.HasField("text_option") for item in result.items for answer in item.answers
        )
        assert result.num_unparsable == unparsable
    assert asked.response.usage.generated_tokens > 0


def test_what_the_answer_begins_with_stands_before_the_label(client, conditions):
    listed = options(["w81", "w82", "w83"])
    asked = client.ask_questionnaire(
        MODEL, items(), listed, TEMPLATE, conditions=conditions, answer_prefix=" w33 w34"
    )
    for result, condition in zip(asked.response.results, conditions.values(), strict=True):
        check_questionnaire(client, result, condition, listed, ORDERS["both"], prefix="w33 w34")
    assert asked.response.example_prompt.endswith(" w33 w34")


# --- Choices and tagged responses ---


def questions():
    random = np.random.default_rng(7)
    return [
        {
            "question": f"w{20 + i} w{30 + i}",
            "choices": [
                " ".join(f"w{w}" for w in random.integers(12, 90, 1 + (i + k) % 3))
                for k in range(2 + i % 3)
            ],
            "answer": int(random.integers(2)),
        }
        for i in range(9)
    ]


def check_choices(result, expected, bins):
    """`expected`: probabilities by question."""
    right = [q["answer"] for q in questions()]
    tops = np.array([int(np.argmax(p)) for p in expected])
    hits = tops == right
    for answer, p, top, hit in zip(result.answers, expected, tops, hits, strict=True):
        np.testing.assert_allclose(answer.probabilities, p, atol=1e-5)
        assert (answer.choice, answer.correct) == (top, hit)
    n, share, z = len(right), hits.mean(), 1.959963984540054
    assert result.accuracy == pytest.approx(share)
    centre, half = share + z * z / 2 / n, z * math.sqrt(share * (1 - share) / n + z * z / 4 / n / n)
    interval = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    found = result.accuracy_interval
    np.testing.assert_allclose([found.lower, found.upper], interval, atol=1e-9)
    brier = [
        sum((q - (k == r)) ** 2 for k, q in enumerate(p))
        for p, r in zip(expected, right, strict=True)
    ]
    assert result.brier_score == pytest.approx(np.mean(brier), abs=1e-4)
    assert result.mean_probability == pytest.approx(
        np.mean([p[r] for p, r in zip(expected, right, strict=True)]), abs=1e-4
    )
    confidence = np.array([p.max() for p in expected])
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    error = sum(
        abs(hits[places == b].mean() - confidence[places == b].mean()) * (places == b).mean()
        for b in set(places)
    )
    assert result.calibration_error == pytest.approx(error, abs=1e-4)


def test_choices_are_the_letters_that_the_logits_say(client, conditions):
    # Vectors belong to weights, which the twin has too.
    asked = client.answer_choices(LETTERED, questions(), conditions=conditions)
    for result, condition in zip(asked.response.results, conditions.values(), strict=True):
        system, steer = plain(condition)
        expected, masses = [], []
        for one in questions():
            lines = [f"{letter}. {c}" for letter, c in zip("ABCD", one["choices"], strict=False)]
            turn = "\n".join([one["question"], *lines])
            ids = prompt_ids(client, system, turn, model=LETTERED)
            p = single(client, ids, steer, list(LETTERS)[: len(lines)])
            expected.append(p / p.sum())
            masses.append(p.sum())
        check_choices(result, expected, bins=10)
        found = [answer.label_mass for answer in result.answers]
        np.testing.assert_allclose(found, masses, rtol=1e-4)
        assert result.label_mass == pytest.approx(np.mean(masses), rel=1e-4)


def test_letters_that_a_vocabulary_lacks_are_told(client):
    """All of them are the unknown token, which tells none apart."""
    with pytest.raises(vs.FailedPrecondition, match="tell the label") as refused:
        client.answer_choices(MODEL, questions())
    assert refused.value.reason == "UNREADABLE_LABELS"


def test_choices_as_continuations_are_scored_a_byte(client, conditions):
    asked = client.answer_choices(
        MODEL, questions(), conditions=conditions, reading="continuations", calibration_bins=4
    )
    for result, condition in zip(asked.response.results, conditions.values(), strict=True):
        system, steer = plain(condition)
        expected = []
        for one in questions():
            ids = prompt_ids(client, system, one["question"])
            scores = client.score(MODEL, ids, [ids_of(c) for c in one["choices"]], steer=steer)
            logs = np.array([s.sum / len(c) for s, c in zip(scores, one["choices"], strict=True)])
            expected.append(np.exp(logs) / np.exp(logs).sum())
        check_choices(result, expected, bins=4)
        assert not result.HasField("label_mass")
    assert asked.accuracy_intervals.shape == (4, 2)


def tagged():
    weights = [{"A": 0.5, "B": -1.0}, {"B": 2.0}, {"A": 0.05}, {}, {"A": -1.0}, {"C": 1.0}]
    return [
        {
            "query": f"w{i + 20} w{i + 12}",
            "response": f"w{i + 13} w{2 * i + 40} w{i + 35}"[: 3 + 4 * i],
            "weights": one,
        }
        for i, one in enumerate(weights)
    ]


def test_tagged_responses_are_scored_over_wordings(client, conditions):
    listed = [
        {**one, "response": " ".join(w for w in one["response"].split() if w in WORDS)}
        for one in tagged()
    ]
    templates = ["{query}", "w70 {query}", "{query} w71 w72"]
    scored = client.score_tagged_responses(
        MODEL, listed, conditions=conditions, templates=templates, min_weight=0.1
    )
    assert scored.value_names == ["A", "B", "C"]
    for result, condition in zip(scored.response.results, conditions.values(), strict=True):
        system, steer = plain(condition)
        logs = np.array(
            [
                [
                    client.score(
                        MODEL,
                        prompt_ids(client, system, template.replace("{query}", one["query"])),
                        [ids_of(one["response"])],
                        steer=steer,
                    )[0].sum
                    for template in templates
                ]
                for one in listed
            ]
        )
        means = logs.mean(axis=1)
        np.testing.assert_allclose([r.logprob for r in result.responses], means, rtol=1e-5)
        spreads = [r.template_spread for r in result.responses]
        np.testing.assert_allclose(spreads, logs.std(axis=1, ddof=1), atol=1e-4)
        weighed = [
            i for i, one in enumerate(listed) if any(abs(w) >= 0.1 for w in one["weights"].values())
        ]
        deviations = means - means[weighed].mean()
        expected = []
        for name in scored.value_names:
            w = np.array([one["weights"].get(name, 0.0) for one in listed])
            w[np.abs(w) < 0.1] = 0
            expected.append(w @ deviations / np.abs(w).sum())
        np.testing.assert_allclose([v.score for v in result.values], expected, atol=1e-4)
        centred = np.array(expected) - np.mean(expected)
        np.testing.assert_allclose([v.centred for v in result.values], centred, atol=1e-4)
        assert [v.num_items for v in result.values] == [2, 2, 1]


# --- Jobs, files, refusals ---


def job_summary(client, **spec):
    job = client.wait_for_job(client.create_job(v1.JobSpec(**spec)).name)
    (artifact,) = client.job(job.name).result.artifacts
    assert artifact.role == "summary"
    return client.read_artifact(artifact.artifact)


def results_of(response):
    return [result.SerializeToString(deterministic=True) for result in response.results]


def test_a_job_says_what_a_call_says(client, conditions):
    request = vs.questionnaire_request(
        MODEL,
        items(),
        options(["w81", "w82"]),
        TEMPLATE,
        conditions=conditions,
        max_answer_tokens=3,
    )
    call = client.ask_questionnaire(
        MODEL,
        items(),
        options(["w81", "w82"]),
        TEMPLATE,
        conditions=conditions,
        max_answer_tokens=3,
    )
    left = vs.Questionnaire.from_summary(job_summary(client, ask_questionnaire=request))
    assert results_of(left.response) == results_of(call.response)
    assert left.response.example_prompt == call.response.example_prompt
    request = vs.choices_request(MODEL, questions(), reading="continuations")
    call = client.answer_choices(MODEL, questions(), reading="continuations")
    left = vs.Choices.from_summary(job_summary(client, answer_choices=request))
    assert results_of(left.response) == results_of(call.response)
    listed = [{"query": "w81", "response": "w82 w83", "weights": {"A": 1.0}}]
    call = client.score_tagged_responses(MODEL, listed)
    left = vs.TaggedScores.from_summary(
        job_summary(client, score_tagged_responses=vs.tagged_request(MODEL, listed))
    )
    assert results_of(left.response) == results_of(call.response)


def test_inputs_are_told_with_their_digests(client, conditions, vector):
    asked = client.ask_questionnaire(
        MODEL, items(), options(["w81", "w82"]), TEMPLATE, conditions=conditions
    )
    digests = {one.name: one.digest for one in asked.response.digests}
    assert {MODEL, vector} <= set(digests)
    assert digests[vector] == client.vector(vector).digest
    inputs = {one.name: one.digest for one in asked.response.provenance.inputs}
    assert inputs[vector] == digests[vector]
    assert re.fullmatch("[0-9a-f]{64}", inputs["items"])


def upload(client, lines):
    data = "\n".join(lines).encode()
    return client.write_artifact(data, media_type="application/x-ndjson").name


def test_a_file_is_asked_as_its_items_are_and_bad_lines_are_numbered(client):
    listed = options(["w81", "w82"])
    lines = [json.dumps(item) for item in items()]
    call = client.ask_questionnaire(MODEL, items(), listed, TEMPLATE)
    left = client.ask_questionnaire(MODEL, upload(client, lines), listed, TEMPLATE)
    assert results_of(left.response) == results_of(call.response)
    for bad in [
        '{"text": "w81"',
        '{"text": 3}',
        '{"words": "w81"}',
        '{"text": ""}',
        "[]",
        '{"text": "w81", "id": "1"}',
        '{"text": "w81 <eos>"}',
        '{"text": "w81", "reverse": 1}',
    ]:
        name = upload(client, [*lines, "", bad])
        with pytest.raises(vs.InvalidRequest, match=f"line {len(lines) + 2}") as refused:
            client.ask_questionnaire(MODEL, name, listed, TEMPLATE)
        assert refused.value.violations[0].field == "artifact"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        (
            "language",
            {"items": [{"text": "w81", "language": "en"}, {"text": "w82", "language": "ko"}]},
        ),
        ("language", {"language": "fr"}),
        ("items[1].id", {"items": [{"text": "w81", "id": "a"}, {"text": "w82", "id": "a"}]}),
        ("options[1].label", {"options": [v1.AnswerOption(label="w81"), v1.AnswerOption(score=1)]}),
        ("options", {"options": []}),
        ("template", {"template": "w81 {item}"}),
        (
            "conditions[0].interventions[0].add.vector",
            {"conditions": [vs.Steer("vectors/none", 1, layers=0)]},
        ),
        (
            "conditions[1].system_message",
            {"conditions": [None, vs.EvaluationCondition("w81 <eos>")]},
        ),
        (
            "conditions[1].system_message",
            {"conditions": [None, vs.EvaluationCondition("w81 " * 300)]},
        ),
        (
            "conditions[0].system_message",
            {"items": ["w81 " * 80], "conditions": [vs.EvaluationCondition("w81 " * 110)]},
        ),
        ("max_answer_tokens", {"max_answer_tokens": 250}),
        ("items[0]", {"items": ["w81 " * 300]}),
    ],
)
def test_what_is_wrong_is_named(client, field, changes):
    arguments = {
        "items": items(),
        "options": options(["w81", "w82"]),
        "template": TEMPLATE,
        **changes,
    }
    with pytest.raises((vs.InvalidRequest, vs.NotFound)) as refused:
        client.ask_questionnaire(MODEL, **arguments)
    if isinstance(refused.value, vs.InvalidRequest):
        assert refused.value.violations[0].field == field


def test_what_touches_nothing_is_refused(client, vector):
    steer = vs.Steer(vector, 1.0, layers=0, tokens="generated")
    with pytest.raises(vs.InvalidRequest, match="touch"):
        client.ask_questionnaire(
            MODEL, items(), options(["w81", "w82"]), TEMPLATE, conditions={"a": steer}
        )


def test_a_template_without_system_messages_takes_an_empty_one_for_none(client):
    listed = options(["w81", "w82"])
    asked = client.ask_questionnaire(
        GEMMA, items(), listed, TEMPLATE, conditions=[None, vs.EvaluationCondition("")]
    )
    np.testing.assert_array_equal(asked.item_scores[0], asked.item_scores[1])
    with pytest.raises(vs.InvalidRequest, match="system message") as refused:
        client.ask_questionnaire(
            GEMMA, items(), listed, TEMPLATE, conditions=[vs.EvaluationCondition("w81")]
        )
    assert refused.value.reason == "NO_SYSTEM_MESSAGE"


def test_the_command_line_shows_what_the_client_says(server, client, vector, tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(json.dumps(item) for item in items()))
    command = [
        BUILD / "client" / "cpp" / "valuescope", "--server", server.address, "--json",
        "questionnaire", "--model", "speaker", "--template", TEMPLATE,
        "--option", "w70", "--option", "w71",
        "--condition", "plain", "--condition", f"steered=add:{vector}:2@0-1", str(file),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # "1" and "2" are no words of the vocabulary.
    assert done.returncode == 3
    assert "tell the label" in done.stderr
    file.write_text("\n".join(json.dumps(one) for one in questions()))
    command = [
        BUILD / "client" / "cpp" / "valuescope", "--server", server.address, "choices", "--model",
        "speaker", "--reading", "continuations", "--condition", "plain",
        "--condition", f"steered=add:{vector}:2@0-1", str(file),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = client.answer_choices(
        MODEL, questions(), reading="continuations",
        conditions={"plain": None, "steered": vs.Steer(vector, 2.0, layers=BLOCKS)},
    )  # fmt: skip
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:]}
    assert rows == {
        name: f"{accuracy:.3f}"
        for name, accuracy in zip(asked.conditions, asked.accuracies, strict=True)
    }
