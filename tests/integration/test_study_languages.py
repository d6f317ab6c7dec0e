"""A value study carried over to other languages: what was chosen in its own answers their queries and items too, and what is told of
that is what the parts left; on a tiny model, to which a language is other words."""

import numpy as np
import pytest
import valuescope as vs
from google.protobuf import json_format
from test_generated_responses import SYSTEM, lines_of
from test_value_study import (  # noqa: F401
    LABELS,
    SCORES,
    artifact_of,
    client,
    measure_of,
    part_of,
    root,
    server,
    spec_of,
)
from valuescope import v1

pytestmark = pytest.mark.filterwarnings("ignore")
GERMAN = [f"w{15 + i} w{72 + i}" for i in range(5)]
WORDS = {"care": [f"w{i}" for i in range(56, 68)], "power": [f"w{i}" for i in range(60, 72)]}
PLAIN = {"random_directions": 2, "neurons": v1.StudyNeurons(attribute=False)}


def judge_of(value, words=None):
    judge = v1.Judge(word_list=v1.WordListJudge(words=words or WORDS[value]))
    return v1.LanguageJudge(value=value, score_judge=judge)


def language_of(name="de", **changes):
    # The judges in another order than the values.
    fields = {"test_queries": GERMAN, "judges": [judge_of("power"), judge_of("care")]}
    return v1.StudyLanguage(name=name, **(fields | changes))


def items_of(first):
    items = [v1.QuestionnaireItem(text=f"w{first + i}", value=["care", "power"][i % 2]) for i in range(4)]  # fmt: skip
    options = [v1.AnswerOption(label=f"w{70 + i}", score=i) for i in range(3)]
    return v1.AskQuestionnaireRequest(items=items, options=options, template="{item} w61 {options}")


@pytest.fixture(scope="module")
def studied(client):  # noqa: F811
    german = language_of(questionnaire=items_of(24))
    spanish = v1.StudyLanguage(name="es", questionnaire=items_of(28))
    handle = client.value_study(spec_of(languages=[german, spanish], **PLAIN))
    handle.wait()
    return handle.get(), handle.result().study


def names_of(outcomes):
    return [outcome.name for outcome in outcomes if not outcome.name.startswith("random_")]


def test_every_way_but_the_random_ones_is_tested_in_each_language(studied):
    _, result = studied
    for value in result.values:
        assert [transfer.language for transfer in value.transfers] == ["de", "es"]
        assert len(value.outcomes) > len(names_of(value.outcomes)) > 2
        for transfer in value.transfers:
            assert [one.name for one in transfer.outcomes] == names_of(value.outcomes)
            for own, there in zip(value.outcomes, transfer.outcomes, strict=False):
                chosen = (own.subject, own.layers, own.coefficient)
                assert (there.subject, there.layers, there.coefficient) == chosen


def test_answers_are_scored_by_the_words_of_their_language(client, studied):  # noqa: F811
    job, result = studied
    for value in result.values:
        german, spanish = value.transfers
        score = part_of(client, job, f"score/{value.value}/de")
        lines = lines_of(client, artifact_of(score, "responses"))
        assert {line.prompt.chat.messages[-1].content for line in lines} == set(GERMAN)
        shares = {}
        for outcome in german.outcomes:
            own = [line for line in lines if line.condition == outcome.name]
            words = [{f"w{i}" for i in line.response.token_ids.ids} for line in own]
            assert [line.expresses for line in own] == [bool(w & set(WORDS[value.value])) for w in words]  # fmt: skip
            told = measure_of(outcome, "expressing_share")
            shares[outcome.name] = np.mean([line.expresses for line in own])
            assert told.value == pytest.approx(shares[outcome.name])
            if outcome.name != "baseline":
                assert told.difference == pytest.approx(told.value - shares["baseline"])
                assert told.num_clusters == len(GERMAN)
        assert len(set(shares.values())) > 1
        assert [one.query for one in german.answers] == GERMAN[:2]
        for outcome in spanish.outcomes:
            assert {one.name for one in outcome.measures} == {"questionnaire", "questionnaire_label_mass"}  # fmt: skip
        assert not spanish.answers and spanish.num_comparisons == 0


def test_items_are_those_of_the_language(client, studied):  # noqa: F811
    job, result = studied
    for value in result.values:
        for transfer in value.transfers:
            part = part_of(client, job, f"ask/{value.value}/{transfer.language}")
            summary = client.read_artifact(artifact_of(part, "summary"))
            asked = json_format.Parse(
                summary, v1.AskQuestionnaireResponse(), ignore_unknown_fields=True
            )
            scores = {one.condition: one for one in asked.results}
            for outcome in transfer.outcomes:
                (own,) = [v for v in scores[outcome.name].values if v.value == value.value]
                told = measure_of(outcome, "questionnaire")
                assert told.value == pytest.approx(own.centred, abs=1e-12)
                if outcome.name == "baseline":
                    continue
                (base,) = [v for v in scores["baseline"].values if v.value == value.value]
                assert told.difference == pytest.approx(own.centred - base.centred, abs=1e-12)


def test_p_values_are_adjusted_in_each_language_by_itself(studied):
    _, result = studied
    german = [value.transfers[0] for value in result.values]
    told = [measure_of(outcome, "expressing_share") for transfer in german for outcome in transfer.outcomes if outcome.subject.HasField("direction")]  # fmt: skip
    assert {transfer.num_comparisons for transfer in german} == {len(told)}
    p = np.array([one.p_value for one in told])
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(np.minimum(1, p[order] * (len(p) - np.arange(len(p)))))
    np.testing.assert_allclose([told[i].adjusted_p_value for i in order], adjusted, rtol=1e-12)


def test_the_guard_of_the_own_language_holds_in_others(studied):
    _, result = studied
    for value in result.values:
        own = {outcome.name: outcome for outcome in value.outcomes}
        for transfer in value.transfers:
            base = {one.name: one.value for one in transfer.outcomes[0].measures}
            for outcome in transfer.outcomes:
                here = {one.name: one.value for one in outcome.measures}
                kept = "distinct_2" not in here or here["distinct_2"] >= 0.3 * base["distinct_2"]
                assert outcome.keeps_guard == (kept and own[outcome.name].keeps_guard)
    assert any("de: 5 test queries are too few" in warning for warning in result.warnings)


def test_languages_cost_at_most_what_they_are_estimated_at(client, studied):  # noqa: F811
    job, result = studied
    parts = [client.job(child.job) for child in job.children]
    of_languages = [part.estimate.forwards for part in parts if part.phase.endswith(("/de", "/es"))]
    german = language_of(questionnaire=items_of(24))
    spanish = v1.StudyLanguage(name="es", questionnaire=items_of(28))
    estimates = [
        client.estimate_job(v1.JobSpec(value_study=spec_of(languages=languages, **PLAIN))).forwards
        for languages in ([german, spanish], [])
    ]
    assert len(of_languages) == 2 * (4 + 1)
    # Ways of which no point keeps the guard are not tested: of two values two unsteered ways and eight directions.
    tested = sum(len(value.transfers[0].outcomes) for value in result.values)
    expected = sum(of_languages) * 20 / tested
    assert 0.95 * expected < estimates[0] - estimates[1] < 2 * expected


@pytest.mark.parametrize(
    ("languages", "field"),
    [
        ([language_of(f"l{i}", test_queries=[f"w{20 + i}", f"w{40 + i}"]) for i in range(9)], "languages"),
        ([language_of(""), ], "languages[0].name"),
        ([language_of("de/at")], "languages[0].name"),
        ([language_of(), language_of(test_queries=["w1", "w2"])], "languages[1].name"),
        ([v1.StudyLanguage(name="de")], "languages[0]"),
        ([language_of(test_queries=GERMAN[:1])], "languages[0].test_queries"),
        ([language_of(test_queries=[*GERMAN, "w13 w60"])], "languages[0].test_queries[5]"),
        ([language_of(test_queries=[*GERMAN, ""])], "languages[0].test_queries[5]"),
        ([language_of(judges=[judge_of("care")])], "languages[0].judges"),
        ([language_of(judges=[judge_of("care"), judge_of("care")])], "languages[0].judges[1].value"),
        ([language_of(test_queries=[], questionnaire=items_of(24))], "languages[0].judges"),
        ([language_of(judges=[judge_of("care", LABELS), judge_of("power")])], "languages[0].judges[0].score_judge"),
        ([language_of(judges=[judge_of("care", ["w90", LABELS[0]]), judge_of("power")])], "languages[0].judges[0].score_judge.word_list.words[1]"),
        ([language_of(judges=[judge_of("care", [SYSTEM[1]]), judge_of("power")])], "values[0].system_messages[1]"),
        ([v1.StudyLanguage(name="de", questionnaire=v1.AskQuestionnaireRequest(model="models/m"))], "languages[0].questionnaire.model"),
        ([v1.StudyLanguage(name="de", questionnaire=v1.AskQuestionnaireRequest(template="{item}"))], "languages[0].questionnaire.options"),
    ],
)  # fmt: skip
def test_bad_languages_name_their_field(client, languages, field):  # noqa: F811
    with pytest.raises(vs.InvalidRequest) as refused:
        client.estimate_job(v1.JobSpec(value_study=spec_of(languages=languages, **PLAIN)))
    assert f"spec.value_study.{field}" in str(refused.value)
