"""What a value study works on: values with their words, system messages, queries and what guards and measures ask.

data = vs.study_data()                         # ours; vs.study_data("folder") takes the files that are there from it
data.system_messages("stimulation")            # templates with the value's descriptions filled in
spec = data.spec(model, ["stimulation"], coefficients=[1.0, 2.0])

samples/study/README.md tells the format. What would make a study measure itself is refused: a word that labels and also scores, a
system message or a query that holds a word of a list, a query in two splits.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from . import v1
from .choices import choices_request
from .questionnaires import questionnaire_request, wordings
from .study_files import Line, StudyDataError, TextFile, read_lines, refuse_repeats
from .word_matching import folded, occurs_folded

QUERY_SPLITS = ("train", "development", "test")
CHOICE_SPLITS = ("development", "test")
LISTS = ("label", "score")
# Of a query or word whose line names no language: that of the study.
OWN = ""
# The contract's limits.
MOST_SYSTEM_MESSAGES = 64
MOST_WORD_BYTES = 256
_SLOT = "{description}"
_FILES = {
    "values.jsonl": ("value", "definition", "opposite", "neighbours"),
    "words.jsonl": ("value", "list", "word", "language"),
    "descriptions.jsonl": ("value", "text"),
    "templates.jsonl": ("id", "text"),
    "queries.jsonl": ("id", "topic", "split", "text", "language"),
    "capability.jsonl": ("id", "split", "question", "choices", "answer"),
    "questionnaire.jsonl": ("id", "text", "value", "reverse", "language"),
    "requests.jsonl": ("id", "refuse", "text"),
    "refusal_phrases.jsonl": ("text",),
    "instructions.jsonl": ("id", "query", "instruction"),
    "wordings.jsonl": ("language", "options", "template"),
}


@dataclasses.dataclass(frozen=True)
class StudyValue:
    """A value.

    Attributes:
        value: its name, such as "stimulation".
        definition: what it is, in a sentence.
        opposite: the value across the circle; empty where none is told.
        neighbours: the values beside it on the circle.
        label_words: entries of a word list that labels responses and chooses layers and coefficients.
        score_words: entries of the one that scores answers to test queries; it shares none with the other.
        descriptions: phrases for the value that hold no word of any list.
        score_words_elsewhere: by language, entries of the list that scores answers in another language than the study's.
    """

    value: str
    definition: str
    opposite: str
    neighbours: tuple[str, ...]
    label_words: tuple[str, ...]
    score_words: tuple[str, ...]
    descriptions: tuple[str, ...]
    score_words_elsewhere: Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class StudyQuery:
    """A query: id, topic, split ("train", "development" or "test"), text, and its language where that is not the study's."""

    id: str
    topic: str
    split: str
    text: str
    language: str = OWN


@dataclasses.dataclass(frozen=True, repr=False)
class StudyData:
    """Everything that a study asks, checked.

    Attributes:
        values: by name, in the order of the file (ours: of the circle).
        templates: system messages with "{description}" in them.
        queries: all of them; `query_texts` gives those of a split.
        items: of questionnaires, in all languages.
        wordings: options and template by language.
        requests: (text, whether it should be refused).
        refusal_phrases: what marks a refusal.
        instructions: (query, what its answer is checked for).
    """

    values: Mapping[str, StudyValue]
    templates: Sequence[str]
    queries: Sequence[StudyQuery]
    items: Sequence[v1.QuestionnaireItem]
    wordings: Mapping[str, Mapping[str, Any]]
    requests: Sequence[tuple[str, bool]]
    refusal_phrases: Sequence[str]
    instructions: Sequence[tuple[str, v1.Instruction]]
    _choices: Mapping[str, Sequence[v1.ChoiceQuestion]]

    def system_messages(self, value: str) -> list[str]:
        """Every template with every description of the value, those of a template together."""
        filled = itertools.product(self.templates, self._value(value).descriptions)
        return [template.replace(_SLOT, description) for template, description in filled]

    def query_texts(self, split: str, language: str = OWN) -> list[str]:
        """Texts of the queries of "train", "development" or "test", or of those for testing in another language."""
        if split not in QUERY_SPLITS:
            raise ValueError(f"split is {split!r}; choose one of {', '.join(QUERY_SPLITS)}")
        return [q.text for q in self.queries if q.split == split and q.language == language]

    def choices(self, split: str) -> list[v1.ChoiceQuestion]:
        """Multiple-choice questions of "development" or "test"."""
        if split not in CHOICE_SPLITS:
            raise ValueError(f"split is {split!r}; choose one of {', '.join(CHOICE_SPLITS)}")
        return list(self._choices[split])

    @property
    def languages(self) -> list[str]:
        """Languages in which there are items."""
        return sorted({item.language for item in self.items})

    def questionnaire(self, language: str = "en") -> dict[str, Any]:
        """Items, options and template of a language, as `Client.ask_questionnaire` takes them."""
        if language not in self.languages:
            raise ValueError(f"language is {language!r}; choose one of {', '.join(self.languages)}")
        items = [item for item in self.items if item.language == language]
        return {"items": items, **self.wordings[language]}

    def definition(self, value: str) -> v1.ValueDefinition:
        """The value as a study takes it: one list labels and chooses, the other scores."""
        chosen = self._value(value)
        made = v1.ValueDefinition(value=value, system_messages=self.system_messages(value))
        made.judge.word_list.words.extend(chosen.label_words)
        made.score_judge.word_list.words.extend(chosen.score_words)
        return made

    def language(self, name: str, values: Iterable[str]) -> v1.StudyLanguage:
        """What a study of some values asks in another language: its test queries, with the words that score their answers, and
        the items of its questionnaire; as far as there are such.

        Raises:
            ValueError: there is nothing in the language, or queries and no words of a value.
        """
        asked = v1.StudyLanguage(name=name, test_queries=self.query_texts("test", name))
        if name in self.languages:
            asked.questionnaire.CopyFrom(_questionnaire_request(self.questionnaire(name)))
        elif not asked.test_queries:
            raise ValueError(f"language is {name!r}, of which there are neither queries nor items")
        if not asked.test_queries:
            return asked
        for value in values:
            words = self._value(value).score_words_elsewhere.get(name)
            if not words:
                raise ValueError(f"value {value!r} has no words in {name!r} to score answers by")
            judge = v1.Judge(word_list=v1.WordListJudge(words=words))
            asked.judges.append(v1.LanguageJudge(value=value, score_judge=judge))
        return asked

    def spec(
        self,
        model: str,
        values: Iterable[str],
        *,
        language: str = "en",
        languages: Iterable[str] = (),
        **fields: Any,
    ) -> v1.ValueStudySpec:
        """A study of some values with these data.

        Args:
            model: "models/ID".
            values: their names.
            language: of the questionnaire.
            languages: others that what was chosen is tested in too, as `language` takes them from the data.
            fields: fields of `ValueStudySpec`; what is given takes the place of the data's.
        """
        values = list(values)
        whole: dict[str, Any] = {
            "queries": self.query_texts("train"),
            "development_queries": self.query_texts("development"),
            "test_queries": self.query_texts("test"),
            "development_choices": _choices_request(self.choices("development")),
            "test_choices": _choices_request(self.choices("test")),
            "questionnaire": _questionnaire_request(self.questionnaire(language)),
            "languages": [self.language(name, values) for name in languages],
            "measures": v1.MeasureTextsRequest(
                ngrams=[1, 2], refusal_phrases=self.refusal_phrases, perplexity=True
            ),
        }
        definitions = [self.definition(value) for value in values]
        return v1.ValueStudySpec(model=model, values=definitions, **{**whole, **fields})

    def _value(self, value: str) -> StudyValue:
        if value not in self.values:
            raise ValueError(f"value is {value!r}; choose one of {', '.join(self.values)}")
        return self.values[value]

    def __repr__(self) -> str:
        counts = {split: len(self.query_texts(split)) for split in QUERY_SPLITS}
        queries = ", ".join(f"{count} {split}" for split, count in counts.items())
        return f"StudyData({len(self.values)} values, queries {queries})"


def _questionnaire_request(asked: Mapping[str, Any]) -> v1.AskQuestionnaireRequest:
    request = questionnaire_request("", **asked)
    request.ClearField("conditions")  # the study's own
    return request


def _choices_request(questions: list[v1.ChoiceQuestion]) -> v1.AnswerChoicesRequest:
    """By continuations: small models answer by letters no better than by chance, which guards nothing."""
    request = choices_request("", questions, reading="continuations")
    request.ClearField("conditions")  # the study's own
    return request


def study_data(folder: str | pathlib.Path | None = None) -> StudyData:
    """The data of a study: our own, and in their place the files of a folder.

    Args:
        folder: holds any of the files that samples/study/README.md tells of; those that it lacks are ours.

    Raises:
        StudyDataError: file, line and field of what cannot be used.
        FileNotFoundError: there is no such folder.
    """
    files = _files(folder)
    lines = {name: read_lines(file, _FILES[name]) for name, file in files.items()}
    values = _values(lines)
    _refuse_words_in_prompts(lines)
    templates = [_template(line) for line in lines["templates.jsonl"]]
    _refuse_many_messages(lines, len(templates))
    words = wordings()
    for line in lines.get("wordings.jsonl", []):
        words[line.text("language")] = _wording(line)
    for line in lines["questionnaire.jsonl"]:
        line.choice("language", words)
        line.choice("value", values)
    refuse_repeats(
        lines["questionnaire.jsonl"], "id", lambda line: (line.text("language"), line.text("id"))
    )
    for name in ("queries.jsonl", "requests.jsonl", "instructions.jsonl", "capability.jsonl"):
        refuse_repeats(lines[name], "id", lambda line: line.text("id"))
    return StudyData(
        values=values,
        templates=templates,
        queries=_queries(lines["queries.jsonl"]),
        items=[_item(line) for line in lines["questionnaire.jsonl"]],
        wordings=words,
        requests=[(line.text("text"), line.flag("refuse")) for line in lines["requests.jsonl"]],
        refusal_phrases=[line.text("text") for line in lines["refusal_phrases.jsonl"]],
        instructions=[_instruction(line) for line in lines["instructions.jsonl"]],
        _choices=_choices(lines["capability.jsonl"]),
    )


def _files(folder: str | pathlib.Path | None) -> dict[str, TextFile]:
    package = importlib.resources.files(__package__) / "samples" / "study"
    files: dict[str, TextFile] = {
        name: package / name for name in _FILES if (package / name).is_file()
    }
    if folder is None:
        return files
    own = pathlib.Path(folder)
    if not own.is_dir():
        raise FileNotFoundError(f"{own} is not a folder")
    for file in sorted(own.glob("*.jsonl")):
        if file.name not in _FILES:
            raise StudyDataError(
                file.name, 0, "", f"is none of the study's files: {', '.join(_FILES)}"
            )
        files[file.name] = file
    return files


def _values(lines: Mapping[str, list[Line]]) -> dict[str, StudyValue]:
    named = lines["values.jsonl"]
    refuse_repeats(named, "value", lambda line: line.text("value"))
    names = [line.text("value") for line in named]
    words = _words(lines["words.jsonl"], names)
    descriptions: dict[str, list[str]] = {name: [] for name in names}
    for line in lines["descriptions.jsonl"]:
        descriptions[line.choice("value", names)].append(line.text("text"))
    values = {}
    for line, name in zip(named, names, strict=True):
        for kind in LISTS:
            if not words[name, kind, OWN]:
                raise line.error("value", f"has no {kind} words in words.jsonl")
        if not descriptions[name]:
            raise line.error("value", "has no line in descriptions.jsonl")
        neighbours = line.texts("neighbours", 0, 2) if "neighbours" in line.fields else []
        for neighbour in neighbours:
            if neighbour not in names:
                raise line.error("neighbours", f"has {neighbour!r}, which is no value of the file")
        values[name] = StudyValue(
            value=name,
            definition=line.text("definition"),
            opposite=line.choice("opposite", names) if line.fields.get("opposite") else "",
            neighbours=tuple(neighbours),
            label_words=tuple(words[name, "label", OWN]),
            score_words=tuple(words[name, "score", OWN]),
            descriptions=tuple(descriptions[name]),
            score_words_elsewhere={
                language: tuple(found)
                for (value, _, language), found in words.items()
                if value == name and language != OWN
            },
        )
    return values


def _words(lines: list[Line], names: list[str]) -> dict[tuple[str, str, str], list[str]]:
    """Entries by value, list and language; an error where an entry of one list is found in one of another list of the value."""
    words: dict[tuple[str, str, str], list[str]] = {
        (name, kind, OWN): [] for name in names for kind in LISTS
    }
    for line in lines:
        word = line.text("word")
        if not folded(word.removesuffix("*")) or "*" in word.removesuffix("*"):
            raise line.error("word", f"is {word!r}; '*' may only stand behind the start of a word")
        if len(word.encode()) > MOST_WORD_BYTES:
            raise line.error("word", f"has more than {MOST_WORD_BYTES} bytes")
        kind, language = line.choice("list", LISTS), _language(line)
        if language != OWN and kind != "score":
            raise line.error("list", "must be 'score' in another language: nothing is chosen in it")
        words.setdefault((line.choice("value", names), kind, language), []).append(word)
    refuse_repeats(
        lines, "word", lambda line: (line.text("value"), _language(line), folded(line.text("word")))
    )
    for line, other in itertools.permutations(lines, 2):
        same = line.fields["value"] == other.fields["value"]
        if same and line.fields["list"] != other.fields["list"] and _covers(line, other):
            raise line.error(
                "word",
                f"{line.text('word')!r} also finds {other.text('word')!r} of line {other.number}, "
                "which is in the value's other list",
            )
    return words


def _language(line: Line) -> str:
    return line.text("language") if "language" in line.fields else OWN


def _covers(line: Line, other: Line) -> bool:
    return occurs_folded(folded(line.text("word")), folded(other.text("word").removesuffix("*")))


def _refuse_words_in_prompts(lines: Mapping[str, list[Line]]) -> None:
    """An error where a query or template holds a word of any list, or a description one of its own value."""
    words = [(line, folded(line.text("word"))) for line in lines["words.jsonl"]]
    for name in ("queries.jsonl", "templates.jsonl", "descriptions.jsonl"):
        for line in lines[name]:
            text = folded(line.text("text"))
            for word, entry in words:
                own = name != "descriptions.jsonl" or word.fields["value"] == line.fields["value"]
                if own and occurs_folded(entry, text):
                    raise line.error(
                        "text",
                        f"holds {word.text('word')!r} (words.jsonl line {word.number}); a model "
                        "that repeats what it is told would seem to express the value",
                    )


def _template(line: Line) -> str:
    text = line.text("text")
    if text.count(_SLOT) != 1:
        raise line.error("text", f"has {_SLOT} {text.count(_SLOT)} times; it must have it once")
    return text


def _refuse_many_messages(lines: Mapping[str, list[Line]], templates: int) -> None:
    counts: dict[str, int] = {}
    for line in lines["descriptions.jsonl"]:
        count = counts[line.text("value")] = counts.get(line.text("value"), 0) + 1
        if count * templates > MOST_SYSTEM_MESSAGES:
            raise line.error(
                "value",
                f"has {count} descriptions by now, with {templates} templates more than "
                f"{MOST_SYSTEM_MESSAGES} system messages",
            )


def _queries(lines: list[Line]) -> list[StudyQuery]:
    refuse_repeats(lines, "text", lambda line: folded(line.text("text")))
    queries = [
        StudyQuery(
            line.text("id"),
            line.text("topic"),
            line.choice("split", QUERY_SPLITS),
            line.text("text"),
            _language(line),
        )
        for line in lines
    ]
    for query, line in zip(queries, lines, strict=True):
        if query.language != OWN and query.split != "test":
            raise line.error("split", "must be 'test' in another language: nothing is chosen in it")
    for split in QUERY_SPLITS:
        if all(query.split != split for query in queries if query.language == OWN):
            raise StudyDataError(lines[0].file, 0, "split", f"no query is of {split!r}")
    return queries


def _choices(lines: list[Line]) -> dict[str, list[v1.ChoiceQuestion]]:
    refuse_repeats(lines, "question", lambda line: folded(line.text("question")))
    choices: dict[str, list[v1.ChoiceQuestion]] = {split: [] for split in CHOICE_SPLITS}
    for line in lines:
        options, answer = line.texts("choices", 2, 26), line.fields.get("answer")
        if isinstance(answer, bool) or not isinstance(answer, int):
            raise line.error("answer", f"is {answer!r}; it must be the index of the right choice")
        if not 0 <= answer < len(options):
            raise line.error("answer", f"is {answer}; it must be 0 to {len(options) - 1}")
        question = v1.ChoiceQuestion(
            id=line.text("id"), question=line.text("question"), choices=options, answer=answer
        )
        choices[line.choice("split", CHOICE_SPLITS)].append(question)
    for split in CHOICE_SPLITS:
        if not choices[split]:
            raise StudyDataError(lines[0].file, 0, "split", f"no question is of {split!r}")
    return choices


def _item(line: Line) -> v1.QuestionnaireItem:
    return v1.QuestionnaireItem(
        id=line.text("id"),
        text=line.text("text"),
        value=line.text("value"),
        reverse=line.flag("reverse", False),
        language=line.text("language"),
    )


def _wording(line: Line) -> dict[str, Any]:
    template = line.text("template")
    for slot in ("{item}", "{options}"):
        if slot not in template:
            raise line.error("template", f"lacks {slot}")
    return {"options": line.texts("options", 2, 16), "template": template}


def _instruction(line: Line) -> tuple[str, v1.Instruction]:
    instruction = v1.Instruction()
    fields = line.fields.get("instruction")
    if not isinstance(fields, dict) or len(fields) != 1:
        raise line.error("instruction", 'must be an object with one field, such as {"bullets": 3}')
    try:
        json_format.ParseDict(fields, instruction)
    except json_format.ParseError as error:
        raise line.error("instruction", str(error)) from None
    return line.text("query"), instruction
