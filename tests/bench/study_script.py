"""A value study, phase by phase, as somebody who writes a script for transformers does it; study_peer.py runs the phases."""

import collections
import dataclasses
import itertools
import json

import numpy as np
from valuescope import v1

CONDITIONS = ("intrinsic", "prompted")
TOP_PERCENT, MAX_ANGLE = 1.0, 30.0  # the defaults of a study


@dataclasses.dataclass
class Work:
    """What both study: prompts are token ids, labelled responses [prompt, response, expresses] by condition, those that express first."""

    spec: v1.ValueStudySpec
    labelled: dict
    development: list
    test: dict
    system: str

    @property
    def value(self):
        return self.spec.values[0]


def directions_of(intrinsic, prompted, num_random):
    """Along what a study steers, each [layers, hidden] and of one norm a layer, and the planes [layers, 2, hidden]."""
    norms = np.linalg.norm([intrinsic, prompted], axis=-1).mean(axis=0)[:, None]
    left, _, _ = np.linalg.svd(np.stack([intrinsic, prompted], axis=-1), full_matrices=False)
    shared, difference = left[..., 0], left[..., 1]
    shared = shared * np.sign((shared * (intrinsic + prompted)).sum(-1, keepdims=True))
    difference = difference * np.sign((difference * (intrinsic - prompted)).sum(-1, keepdims=True))

    def without(vector, other):
        along = (vector * other).sum(-1, keepdims=True) / (other * other).sum(-1, keepdims=True)
        return vector - along * other

    made = {
        "intrinsic": intrinsic,
        "prompted": prompted,
        "intrinsic_orthogonal": without(intrinsic, prompted),
        "prompted_orthogonal": without(prompted, intrinsic),
        "shared": shared,
        "intrinsic_unique": difference,
        "prompted_unique": -difference,
    }
    draws = np.random.default_rng(1)
    made |= {f"random_{r}": draws.normal(size=intrinsic.shape) for r in range(num_random)}
    scaled = {
        name: norms * rows / np.linalg.norm(rows, axis=-1, keepdims=True)
        for name, rows in made.items()
    }
    return scaled, np.stack([shared, difference], axis=1)


class Script:
    """The study by transformers, `at_once` sequences a batch, each `every`-th of what there is."""

    def __init__(self, peer, work, at_once, every=1):
        self.peer, self.work, self.at_once, self.every = peer, work, at_once, every
        self.seconds = collections.Counter()
        self.tokens = 0
        self.answers = {}  # by name of what is tested: choices, and probabilities of the questionnaire's labels by turn

    def ask(self, stage, command, name, items, **fields):
        taken = items[:: self.every]
        given = {name: taken, "at_once": self.at_once, **fields}
        reply = self.peer.ask(f"{command} {json.dumps(given)}")
        self.seconds[stage] += reply["seconds"] * len(items) / len(taken)
        return reply

    def study(self, vectors=None):
        """`vectors`: what it steers along, where it is not what it extracts, [layers, hidden] each; returns them and the scores of neurons."""
        labelled = self.work.labelled
        for number, condition in enumerate(CONDITIONS):
            prompts = [prompt for prompt, _, _ in labelled[condition]]
            self.label(self.sample("generate", prompts, None, number))
        extracted = [self.extract(labelled[condition]) for condition in CONDITIONS]
        vectors = vectors or extracted
        directions, planes = directions_of(*vectors, self.work.spec.random_directions)
        scores = [
            self.ask(
                "neurons", "attribute", "responses", labelled[condition], vectors=rows.tolist()
            )["scores"]
            for condition, rows in zip(CONDITIONS, vectors, strict=True)
        ]
        self.classify(planes)
        self.test(self.sweep(directions))
        return vectors, np.array(scores)

    def sample(self, stage, prompts, steer, seed):
        """[prompt, answer] of those that it takes."""
        how = self.work.spec.sampling
        answers = self.ask(
            stage, "sample", "prompts", prompts, max_tokens=how.max_tokens, temperature=how.temperature, seed=seed,
            steer=steer,
        )["answers"]  # fmt: skip
        self.tokens += sum(map(len, answers))
        return [list(pair) for pair in zip(prompts[:: self.every], answers, strict=True)]

    def label(self, answered):
        given = {
            "responses": [answer for _, answer in answered],
            "words": list(self.work.value.judge.word_list.words),
        }
        self.seconds["label"] += self.peer.ask(f"label {json.dumps(given)}")["seconds"]

    def extract(self, labelled):
        means = self.ask("extract", "contribute", "responses", labelled, of="residual")["means"]
        expressing, others = np.array(means)
        return expressing - others

    def classify(self, planes):
        given = {"axes": planes.tolist(), "top_percent": TOP_PERCENT, "max_angle": MAX_ANGLE}
        self.seconds["neurons"] += self.peer.ask(f"classify {json.dumps(given)}")["seconds"]

    def sweep(self, directions):
        """The best point of each direction, as a steering."""
        spec = self.work.spec
        grid = list(itertools.product(spec.steered_layers.list.layers, spec.coefficients))
        points = {"baseline": [None]} | {
            name: [{"block": b, "vector": (factor * rows[b]).tolist()} for b, factor in grid]
            for name, rows in directions.items()
        }
        return {name: max(of_one, key=self.point) for name, of_one in points.items()}

    def point(self, steer):
        """The share of answers to development queries that express the value."""
        answered = self.sample("steer", self.work.development, steer, seed=2)
        self.choose("steer", self.work.spec.development_choices, "", steer)
        words = self.work.value.judge.word_list.words
        return self.measure("steer", answered, words)["share"]

    def test(self, best):
        for name, steer in {"system_message": None, **best}.items():
            prompted = name == "system_message"
            prompts = self.work.test["system_message" if prompted else "baseline"]
            system = self.work.system if prompted else ""
            answered = self.sample("test", prompts, steer, seed=3)
            self.measure("score", answered, self.work.value.score_judge.word_list.words)
            chosen = self.choose("score", self.work.spec.test_choices, system, steer)["chosen"]
            self.answers[name] = chosen, self.answer_questionnaire(system, steer)

    def measure(self, stage, answered, words):
        given = {"responses": answered, "words": list(words), "at_once": self.at_once}
        reply = self.peer.ask(f"measure {json.dumps(given)}")
        self.seconds[stage] += reply["seconds"] * self.every
        return reply["measures"]

    def choose(self, stage, request, system, steer):
        questions = [[one.question, list(one.choices)] for one in request.questions]
        return self.ask(stage, "choices", "questions", questions, system=system, steer=steer)

    def answer_questionnaire(self, system, steer):
        asked = self.work.spec.questionnaire
        turns = [turn_of(asked, item, order) for item in asked.items for order in (1, -1)]
        steer = steer or {"block": 0, "vector": [0.0]}
        return self.ask(
            "score", "choose", "turns", turns, labels=[option.label for option in asked.options], system=system,
            block=steer["block"], vectors=[steer["vector"]], last_alone=True,
        )["probabilities"][0]  # fmt: skip


def turn_of(asked, item, order):
    """The user's turn, options in their order or in the reversed one."""
    texts = [option.text for option in asked.options][::order]
    labels = [option.label for option in asked.options]
    listed = "\n".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
    return asked.template.replace("{options}", listed).replace("{item}", item.text)


def centred_score(asked, value, probabilities):
    """A value's mean score less that of all items, probabilities [2 items, labels] as of `turn_of`."""
    scores = np.array([option.score for option in asked.options])
    given, turned = np.array(probabilities)[::2], np.array(probabilities)[1::2]
    items = (given @ scores + turned @ scores[::-1]) / 2
    reverse = np.array([item.reverse for item in asked.items])
    items = np.where(reverse, scores[0] + scores[-1] - items, items)
    of_value = np.array([item.value == value for item in asked.items])
    return items[of_value].mean() - items.mean()
