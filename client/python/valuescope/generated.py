"""Responses that the server generates and labels before it works on them, and who labels them.

judge = vs.WordList(["thrill", "adventur*"])   # or vs.Rubric("models/ID", "... {query} ... {response} ... Yes or no?")
client.extract_vectors(model, generated=vs.Generated(queries, judge=judge, max_tokens=64))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from . import given, v1
from .sampling import to_sampling


@dataclasses.dataclass(frozen=True)
class WordList:
    """Labels a response by words: expressing where at least one is in it, whole and without regard to case.

    Attributes:
        words: words or phrases, one or several; one that ends in "*" stands for every word that begins so.
    """

    words: str | Iterable[str]

    def to_message(self) -> v1.Judge:
        return v1.Judge(word_list=v1.WordListJudge(words=given.strings(self.words, "words")))


@dataclasses.dataclass(frozen=True)
class Rubric:
    """Labels a response by a served model's answer to a yes/no question, read from its logits.

    Attributes:
        model: "models/ID" of the judge.
        question: holds "{query}" and "{response}", in whose place they are put.
        threshold: expressing where p(yes) / (p(yes) + p(no)) is at least this. Default 0.5.
    """

    model: str
    question: str
    threshold: float | None = None

    def to_message(self) -> v1.Judge:
        return v1.Judge(
            rubric=v1.RubricJudge(
                model=self.model, rubric=self.question, threshold=given.plain(self.threshold)
            )
        )


Judge = WordList | Rubric | v1.Judge


@dataclasses.dataclass(frozen=True)
class Condition:
    """System messages under which queries are answered.

    Attributes:
        system_messages: one or several, of which each query gets one that is drawn; default an empty one, the intrinsic
            condition, which is not the same as none.
        expresses: the label of all its responses; default: the judge labels each.
    """

    system_messages: str | Iterable[str] = ""
    expresses: bool | None = None

    def to_message(self) -> v1.GenerationCondition:
        return v1.GenerationCondition(
            system_messages=given.strings(self.system_messages, "system_messages"),
            expresses=self.expresses,
        )


class Generated:
    """Every query answered under every condition, and labelled.

    Args:
        queries: what is asked, one or several, or the name of an artifact that holds them ("artifacts/ID", JSON Lines of
            `LabelledResponse`, of which prompt.text and query_id are used).
        conditions: one or several; default one with an empty system message.
        judge: a `WordList` or a `Rubric`; needed where a condition has no label of its own.
        samples_per_query: responses a query and condition. Default 1.
        draw_seed: of the draw of system messages. Default 0.
        sampling: fields of `SamplingParams`, as `Client.generate` takes them: max_tokens, temperature, seed (default 0), ...
    """

    def __init__(
        self,
        queries: str | Iterable[str],
        *,
        conditions: Condition | Iterable[Condition] = (),
        judge: Judge | None = None,
        samples_per_query: int | None = None,
        draw_seed: int = 0,
        **sampling: Any,
    ):
        message = v1.GeneratedResponses(sampling=to_sampling(**sampling), seed=draw_seed)
        if isinstance(queries, str) and queries.startswith("artifacts/"):
            message.queries_artifact = queries
        else:
            message.queries.extend(given.strings(queries, "queries"))
        one = isinstance(conditions, Condition)
        for condition in [conditions] if one else given.items(conditions, "conditions"):
            message.conditions.append(condition.to_message())
        if judge is not None:
            message.judge.CopyFrom(judge if isinstance(judge, v1.Judge) else judge.to_message())
        if samples_per_query is not None:
            message.samples_per_query = given.whole(samples_per_query, "samples_per_query")
        self._message = message

    def to_message(self) -> v1.GeneratedResponses:
        """As the contract has it."""
        return self._message
