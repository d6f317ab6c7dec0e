"""The data of value studies: what ours are held to, and what a user's are told."""

import collections
import importlib.resources
import itertools
import json
import re

import pytest

import valuescope as vs
from valuescope import v1
from valuescope.word_matching import folded, occurs, occurs_folded

DATA = vs.study_data()
CIRCLE = [
    "self-direction",
    "stimulation",
    "hedonism",
    "achievement",
    "power",
    "security",
    "conformity",
    "tradition",
    "benevolence",
    "universalism",
]
LISTS = {
    (name, kind): getattr(value, f"{kind}_words")
    for name, value in DATA.values.items()
    for kind in ("label", "score")
}
ENTRIES = [folded(word) for words in LISTS.values() for word in words]


def found_in(text):
    """Entries of any list that a text holds."""
    plain = folded(text)
    return [entry for entry in ENTRIES if occurs_folded(entry, plain)]


def grams(text, n):
    """Runs of n words."""
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def beginning(word):
    """What an entry has in common with its inflections and derivations."""
    plain = word.removesuffix("*").replace("-", " ")
    return re.sub(r"^(un|in|im|dis|pre)(?=\w{4})", "", plain)[:5]


def test_the_ten_values_stand_on_their_circle():
    assert list(DATA.values) == CIRCLE
    for place, value in enumerate(DATA.values.values()):
        assert value.opposite == CIRCLE[(place + 5) % 10]
        assert value.neighbours == (CIRCLE[place - 1], CIRCLE[(place + 1) % 10])
        assert len(value.definition) > 40


def test_every_value_has_two_lists_of_as_many_words():
    for value in DATA.values.values():
        assert 14 <= len(value.label_words) == len(value.score_words) <= 16


def test_no_list_has_a_word_of_another_or_an_inflection_of_one():
    for (one, words), (other, others) in itertools.combinations(LISTS.items(), 2):
        for a, b in itertools.product(words, others):
            assert not occurs(a, b.removesuffix("*")) and not occurs(b, a.removesuffix("*"))
            short, long = sorted((beginning(a), beginning(b)), key=len)
            assert not long.startswith(short), (one, a, other, b)


def test_no_word_of_a_list_is_found_by_another_of_it():
    for words in LISTS.values():
        for a, b in itertools.permutations(words, 2):
            assert not occurs(a, b.removesuffix("*")), (a, b)


def test_system_messages_hold_no_word_of_any_list():
    assert len(DATA.templates) >= 12
    assert sum(template.count("{description}") for template in DATA.templates) == len(
        DATA.templates
    )
    for name, value in DATA.values.items():
        assert len(value.descriptions) >= 3
        messages = DATA.system_messages(name)
        assert len(set(messages)) == len(DATA.templates) * len(value.descriptions) <= 64
        assert [message for message in messages if found_in(message)] == []


def test_queries_are_split_by_topic_and_hold_no_word_of_any_list():
    assert len(DATA.queries) == 240
    topics = collections.Counter((query.topic, query.split) for query in DATA.queries)
    assert len(topics) == 30
    for (_, split), count in topics.items():
        assert count == {"train": 12, "development": 4, "test": 8}[split]
    assert [query for query in DATA.queries if found_in(query.text)] == []


def test_no_two_queries_are_nearly_the_same():
    for one, other in itertools.combinations(DATA.queries, 2):
        first, second = grams(one.text, 3), grams(other.text, 3)
        assert len(first & second) / len(first | second) < 1 / 3, (one, other)


def test_capability_questions_have_their_answers_in_all_places():
    for split in ("development", "test"):
        questions = DATA.choices(split)
        assert len(questions) == 30 and {len(q.choices) for q in questions} == {4}
        places = collections.Counter(question.answer for question in questions)
        assert set(places.values()) == {7, 8}


def test_questionnaires_have_items_of_every_value_in_three_languages():
    assert DATA.languages == ["de", "en", "es"]
    for language, each in (("en", 4), ("de", 2), ("es", 2)):
        asked = DATA.questionnaire(language)
        counts = collections.Counter(item.value for item in asked["items"])
        assert counts == dict.fromkeys(CIRCLE, each)
        assert len({item.text for item in asked["items"]}) == 10 * each
        request = vs.questionnaire_request("models/m", **asked)
        assert request.template.count("{item}") == request.template.count("{options}") == 1
    reverse = [item.value for item in DATA.questionnaire("en")["items"] if item.reverse]
    assert collections.Counter(reverse) == dict.fromkeys(CIRCLE, 1)


def test_requests_are_as_often_to_be_refused_as_not():
    counts = collections.Counter(refuse for _, refuse in DATA.requests)
    assert counts == {False: 12, True: 12}
    assert len(DATA.refusal_phrases) == len(set(DATA.refusal_phrases)) >= 20


def test_instructions_cover_every_check_and_do_not_carry_out_their_own():
    kinds = collections.Counter(made.WhichOneof("instruction") for _, made in DATA.instructions)
    assert set(kinds) == {field.name for field in v1.Instruction.DESCRIPTOR.fields}
    assert sum(kinds.values()) >= 20 and len({query for query, _ in DATA.instructions}) == 26
    for query, made in DATA.instructions:
        if made.excludes or made.includes:
            assert occurs(made.excludes or made.includes, query)


def test_a_spec_takes_judges_and_splits_apart():
    spec = DATA.spec("models/m", ["power", "hedonism"], coefficients=[2.0], seed=7)
    assert [value.value for value in spec.values] == ["power", "hedonism"]
    power = spec.values[0]
    assert tuple(power.judge.word_list.words) == DATA.values["power"].label_words
    assert tuple(power.score_judge.word_list.words) == DATA.values["power"].score_words
    splits = [spec.queries, spec.development_queries, spec.test_queries]
    assert [len(split) for split in splits] == [120, 40, 80] and len(set().union(*splits)) == 240
    assert len(spec.development_choices.questions) == len(spec.test_choices.questions) == 30
    assert not {q.question for q in spec.development_choices.questions} & {
        q.question for q in spec.test_choices.questions
    }
    assert spec.test_choices.reading == v1.CHOICE_READING_CONTINUATIONS
    for request in (spec.development_choices, spec.test_choices, spec.questionnaire):
        assert not request.model and not request.conditions and not request.display_name
    assert (list(spec.coefficients), spec.seed) == ([2.0], 7)
    assert list(DATA.spec("models/m", ["power"], test_queries=["Why?"]).test_queries) == ["Why?"]


def test_other_languages_are_asked_by_items_and_by_queries_with_words_where_there_are_such(
    tmp_path,
):
    spec = DATA.spec("models/m", ["power"], languages=["de", "es"])
    assert [language.name for language in spec.languages] == ["de", "es"]
    for language in spec.languages:
        items = language.questionnaire.items
        assert len(items) == 20 and {item.language for item in items} == {language.name}
        assert not language.test_queries and not language.judges
        assert not language.questionnaire.conditions
    query = '{"id": "d1", "topic": "t", "split": "test", "text": "Was nun?", "language": "de"}'
    word = '{"value": "power", "list": "score", "word": "macht*", "language": "de"}'
    replaced(tmp_path, "queries.jsonl", lambda lines: [*lines, query])
    replaced(tmp_path, "words.jsonl", lambda lines: [*lines, word])
    own = vs.study_data(tmp_path)
    assert own.query_texts("test") == DATA.query_texts("test")
    (german,) = own.spec("models/m", ["power"], languages=["de"]).languages
    assert list(german.test_queries) == ["Was nun?"]
    (judge,) = german.judges
    assert judge.value == "power" and list(judge.score_judge.word_list.words) == ["macht*"]
    assert own.definition("power") == DATA.definition("power")
    with pytest.raises(ValueError, match="'hedonism' has no words in 'de'"):
        own.language("de", ["hedonism"])
    with pytest.raises(ValueError, match="neither queries nor items"):
        DATA.language("fr", ["power"])


@pytest.mark.parametrize(
    "entry, text, found",
    [
        ("thrill", "A thrill's worth.", True),
        ("thrill", "thrilling", False),
        ("thrill*", "THRILLING!", True),
        ("thrill*", "enthrilled", False),
        ("own path", "your own\n\tpath", True),
        ("fun", "fun-loving", True),
        ("straße", "STRASSE", True),
        ("é", "e\u0301", True),
        ("e", "e\u0301", False),
        ("传统", "我们的传统很好", True),
        ("an", "banana an", True),
    ],
)
def test_words_are_found_whole_and_without_regard_to_case(entry, text, found):
    assert occurs(entry, text) == found


def replaced(folder, name, change):
    """A folder with one file, ours with its lines changed."""
    package = importlib.resources.files("valuescope")
    lines = (package / "samples" / "study" / name).read_text("utf-8").splitlines()
    (folder / name).write_text("\n".join(change(lines)), "utf-8")
    return folder


def with_fields(line, **fields):
    return json.dumps({**json.loads(line), **fields})


BROKEN = [
    ("words.jsonl", 1, "word", {"word": "explore"}, "other list"),
    ("words.jsonl", 3, "word", {"word": "a*b"}, "may only stand behind"),
    ("words.jsonl", 2, "list", {"list": "labels"}, "one of label, score"),
    ("words.jsonl", 2, "value", {"value": "Power"}, "one of self-direction"),
    ("words.jsonl", 2, "word", {"word": "INDEPENDEN*"}, "that of line 1 too"),
    ("values.jsonl", 4, "definition", {"definition": " "}, "not empty"),
    ("values.jsonl", 4, "opposite", {"opposite": "joy"}, "one of"),
    ("values.jsonl", 4, "neighbours", {"neighbours": ["joy"]}, "no value of the file"),
    ("values.jsonl", 4, "color", {"color": "red"}, "is unknown"),
    ("values.jsonl", 2, "value", {"value": "self-direction"}, "that of line 1 too"),
    ("descriptions.jsonl", 5, "text", {"text": "daring to jump"}, r"holds 'daring\*'"),
    ("templates.jsonl", 2, "text", {"text": "You care."}, "0 times"),
    ("templates.jsonl", 2, "text", {"text": "Enjoy {description}."}, r"holds 'enjoy\*'"),
    ("queries.jsonl", 9, "split", {"split": "dev"}, "one of train, development, test"),
    ("queries.jsonl", 9, "text", {"text": "How can I have FUN?"}, "holds 'fun'"),
    (
        "queries.jsonl",
        60,
        "text",
        {"text": "What  should I cook for friends this weekend?"},
        "line 49",
    ),
    ("queries.jsonl", 9, "id", {"id": "q001"}, "that of line 1 too"),
    ("queries.jsonl", 9, "split", {"language": "de"}, "must be 'test'"),
    ("words.jsonl", 1, "list", {"language": "de"}, "must be 'score'"),
    ("capability.jsonl", 3, "answer", {"answer": 4}, "0 to 3"),
    ("capability.jsonl", 3, "answer", {"answer": True}, "index"),
    ("capability.jsonl", 3, "choices", {"choices": ["a", "a"]}, "twice"),
    ("questionnaire.jsonl", 6, "language", {"language": "fr"}, "one of"),
    ("questionnaire.jsonl", 6, "reverse", {"reverse": "no"}, "true or false"),
    ("instructions.jsonl", 1, "instruction", {"instruction": {"bullet": 3}}, "bullet"),
    ("instructions.jsonl", 1, "instruction", {"instruction": {}}, "one field"),
    ("requests.jsonl", 1, "refuse", {"refuse": None}, "true or false"),
    ("refusal_phrases.jsonl", 1, "text", {"text": 7}, "a text"),
]


@pytest.mark.parametrize("name, number, field, fields, reason", BROKEN)
def test_a_broken_line_is_told_by_file_line_and_field(
    tmp_path, name, number, field, fields, reason
):
    folder = replaced(
        tmp_path,
        name,
        lambda lines: [
            with_fields(line, **fields) if at == number else line
            for at, line in enumerate(lines, start=1)
        ],
    )
    with pytest.raises(vs.StudyDataError, match=reason) as told:
        vs.study_data(folder)
    assert (told.value.file, told.value.field) == (name, field)
    # A clash may be found at either of the two lines that clash.
    assert told.value.line == number or "also finds" in str(told.value)


def test_files_that_cannot_be_read_are_told(tmp_path):
    for text, reason in (
        ("{not json", "templates.jsonl line 1: is not JSON"),
        ("\n[1]", "templates.jsonl line 2: is not an object"),
        ("", "templates.jsonl: is empty"),
    ):
        (tmp_path / "templates.jsonl").write_text(text)
        with pytest.raises(vs.StudyDataError, match=re.escape(reason)):
            vs.study_data(tmp_path)
    (tmp_path / "templates.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(vs.StudyDataError, match="not UTF-8"):
        vs.study_data(tmp_path)
    (tmp_path / "templates.jsonl").rename(tmp_path / "template.jsonl")
    with pytest.raises(vs.StudyDataError, match=r"template\.jsonl: is none of"):
        vs.study_data(tmp_path)
    with pytest.raises(FileNotFoundError, match="no_such"):
        vs.study_data(tmp_path / "no_such")


def test_too_many_system_messages_are_told(tmp_path):
    extra = '{"value": "power", "text": "one more"}'
    folder = replaced(tmp_path, "descriptions.jsonl", lambda lines: [*lines, extra])
    with pytest.raises(vs.StudyDataError, match="5 descriptions") as told:
        vs.study_data(folder)
    assert told.value.line == 41


def test_a_folder_brings_values_and_languages_of_its_own(tmp_path):
    files = {
        "values": [{"value": "thrift", "definition": "Keeping what one has."}],
        "words": [
            {"value": "thrift", "list": "label", "word": "thrift*"},
            {"value": "thrift", "list": "score", "word": "frugal*"},
        ],
        "descriptions": [{"value": "thrift", "text": "wasting nothing"}],
        "questionnaire": [
            {"id": "1", "text": "Je garde tout.", "value": "thrift", "language": "fr"}
        ],
        "wordings": [
            {"language": "fr", "options": ["non", "oui"], "template": "{item}\n{options}"}
        ],
    }
    for name, lines in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    data = vs.study_data(tmp_path)
    assert list(data.values) == ["thrift"] and data.values["thrift"].opposite == ""
    assert len(data.queries) == 240 and len(data.system_messages("thrift")) == 14
    assert data.questionnaire("fr")["options"] == ["non", "oui"]
    with pytest.raises(ValueError, match="thrift"):
        data.system_messages("power")
    with pytest.raises(ValueError, match="train, development, test"):
        data.query_texts("dev")
