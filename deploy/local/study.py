"""One value, studied from end to end through a running server (the method of arXiv 2509.24319), with a report at the end.

    python study.py --server 127.0.0.1:50051 --model models/SmolLM2-135M-Instruct --report DIRECTORY

Responses to neutral queries are generated under an explicitly empty system message (intrinsic) and under value-priority
system messages (prompted), labelled by a word list, and turned into two difference-in-means vectors. The vectors are
decomposed, neurons are classified by geometry and attributed by a durable job, and unseen queries are steered. Layer and
coefficient are chosen on development queries; every number of the result is from test queries, which nothing else has seen.
"""

import argparse
import itertools
import json
import pathlib
import random
import re
import time

import numpy as np
import report
import valuescope as vs
from tqdm.auto import tqdm
from valuescope import v1

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20250924
MAX_TOKENS = 40
# Samples a query and condition, and responses a label and condition that go into a vector.
SAMPLES = 4
LARGEST_CLASS = 60
SMALLEST_CLASS = 10
STEERED_LAYERS = (10, 14, 18, 22)
COEFFICIENTS = (4.0, 6.0, 8.0)
RANDOM_DIRECTIONS = 3
# A steered answer counts only while it is still language: its perplexity under the unsteered model may grow this much.
PERPLEXITY_LIMIT = 3.0
ANSWER_LIMIT = 2.0


class WordList:
    """Labels a text by whole words, without regard to case."""

    def __init__(self, words):
        alternatives = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
        self._pattern = re.compile(rf"\b(?:{alternatives})\b", re.IGNORECASE)

    def count(self, text):
        return len(self._pattern.findall(text))


def distinct_2(token_lists):
    """Distinct bigrams over all bigrams; bigrams never cross from one answer to the next."""
    bigrams = [pair for ids in token_lists for pair in itertools.pairwise(ids)]
    return len(set(bigrams)) / max(1, len(bigrams))


class Study:
    def __init__(self, client, model, value, queries):
        self.client, self.model, self.value, self.queries = client, model, value, queries
        self.words = WordList(value["words"])
        self.started = time.monotonic()
        self.timings = {}

    def timed(self, name, function):
        start = time.monotonic()
        result = function()
        self.timings[name] = time.monotonic() - start
        return result

    # --- Responses and vectors -------------------------------------------------------------------------------------

    def conversations(self, condition, queries):
        """Conversations of one condition; the prompted one draws a system message a query from the pool, seeded."""
        if condition == "intrinsic":
            return [vs.chat(query, system="") for query in queries]
        draw = random.Random(SEED)
        return [vs.chat(q, system=draw.choice(self.value["system_messages"])) for q in queries]

    def labelled_responses(self, condition):
        """Generated, labelled responses: (label, conversation, token ids, query id, text)."""
        conversations = self.conversations(condition, self.queries["extraction"])
        generations = self.client.generate(
            self.model,
            conversations,
            n=SAMPLES,
            max_tokens=MAX_TOKENS,
            temperature=0.9,
            top_p=0.95,
            seed=[SEED + i for i in range(len(conversations))],
            progress=f"{condition} responses",
        )
        return [
            (self.words.count(c.text) > 0, conversation, list(c.token_ids), f"q{i}", c.text)
            for i, (conversation, g) in enumerate(zip(conversations, generations, strict=True))
            for c in g.completions
        ]

    def balanced(self, responses, condition):
        """At most LARGEST_CLASS responses of each label, in order; too few of one label ends the study with a reason."""
        chosen = []
        for label in (True, False):
            of_label = [r for r in responses if r[0] == label]
            if len(of_label) < SMALLEST_CLASS:
                raise SystemExit(
                    f"study: only {len(of_label)} {condition} responses "
                    f"{'with' if label else 'without'} a word of the list, {SMALLEST_CLASS} are needed"
                )
            chosen += random.Random(SEED).sample(of_label, min(LARGEST_CLASS, len(of_label)))
        return [
            vs.labelled(conversation, ids, label, query)
            for label, conversation, ids, query, _ in chosen
        ]

    def extract(self, data_set, condition):
        artifact = self.client.write_artifact(data_set, display_name=f"{condition}.jsonl")
        with tqdm(total=len(data_set), desc=f"{condition} vector", unit=" responses") as bar:
            extracted = self.client.extract_vectors(
                self.model,
                artifact.name,
                display_name=f"{self.value['value']} {condition}",
                judge="word list",
                bootstrap_samples=200,
                seed=SEED,
            )
            bar.update(len(data_set))
        return artifact.name, extracted

    # --- Neurons ---------------------------------------------------------------------------------------------------

    def attribute(self, artifact, vector):
        spec = v1.JobSpec(
            attribute_neurons=vs.attribution_request(self.model, artifact, vector, top_k=100)
        )
        job = self.client.create_job(spec, display_name=f"{self.value['value']} neurons")
        done = self.client.wait_for_job(job.name, progress="neuron attribution (job)")
        by_role = {a.role: a.artifact for a in done.result.artifacts}
        return done, json.loads(self.client.read_artifact(by_role["summary"]))

    # --- Steering --------------------------------------------------------------------------------------------------

    def answers(self, settings, queries, title):
        """Greedy answers to every query under every setting, all in one list so that they share the server's batches.

        `settings` maps a name to a `Steer` or None; the result maps it to a list of completions.
        """
        conversations = self.conversations("intrinsic", queries)
        names = [name for name in settings for _ in queries]
        generations = self.client.generate(
            self.model,
            conversations * len(settings),
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            steer=[[settings[name]] if settings[name] else [] for name in names],
            progress=title,
        )
        answers = {name: [] for name in settings}
        for name, generation in zip(names, generations, strict=True):
            answers[name].append(generation.completions[0])
        return answers

    def perplexities(self, answers, queries, title):
        """Perplexity of each setting's answers under the unsteered model: exp of the mean token surprisal."""
        conversations = self.conversations("intrinsic", queries)
        surprisal = {name: [0.0, 0] for name in answers}
        with tqdm(total=len(conversations), desc=title, unit=" queries") as bar:
            for index, conversation in enumerate(conversations):
                named = [(n, a[index].token_ids) for n, a in answers.items() if a[index].token_ids]
                scores = self.client.score(self.model, conversation, [ids for _, ids in named])
                for (name, _), score in zip(named, scores, strict=True):
                    surprisal[name][0] -= score.sum
                    surprisal[name][1] += len(score.token_logprobs)
                bar.update(1)
        return {
            name: float(np.exp(total / max(1, count))) for name, (total, count) in surprisal.items()
        }

    def measured(self, answers, perplexities):
        counts = {
            name: [self.words.count(c.text) for c in group] for name, group in answers.items()
        }
        return {
            name: {
                "answers": len(group),
                "answers_with_word": sum(c > 0 for c in counts[name]),
                "words": sum(counts[name]),
                "distinct_2": distinct_2([list(c.token_ids) for c in group]),
                "perplexity": perplexities[name],
                "receipt_positions": sum(
                    r.positions * max(1, len(r.layers)) for c in group for r in c.receipts
                ),
            }
            for name, group in answers.items()
        }

    def choose(self, vectors):
        """Layer and coefficient of each vector with the most value words on development queries while the answers are still
        language (bounds on perplexity and on Distinct-2)."""
        queries = self.queries["development"]
        settings = {("unsteered", None, 0.0): None}
        for kind, name in vectors.items():
            for layer in STEERED_LAYERS:
                for coefficient in COEFFICIENTS:
                    settings[kind, layer, coefficient] = vs.Steer(name, coefficient, layer)
        answers = self.answers(settings, queries, "choosing layer and strength")
        table = self.measured(answers, self.perplexities(answers, queries, "scoring the choices"))
        baseline = table["unsteered", None, 0.0]
        chosen = {}
        for kind in vectors:
            language = [
                key
                for key, row in table.items()
                if key[0] == kind
                and row["perplexity"] <= PERPLEXITY_LIMIT * baseline["perplexity"]
                and row["distinct_2"] * ANSWER_LIMIT >= baseline["distinct_2"]
            ]
            chosen[kind] = max(
                language, key=lambda key: (table[key]["answers_with_word"], table[key]["words"])
            )
        return table, chosen

    def test_settings(self, chosen, vectors, derived):
        """Everything that is compared on test queries: the chosen settings, the decomposition's parts and random directions at
        the intrinsic setting, each scaled to the norm of what the intrinsic vector adds."""
        settings = {"unsteered": None}
        for kind, (_, layer, coefficient) in chosen.items():
            settings[kind] = vs.Steer(vectors[kind], coefficient, layer)
        _, layer, coefficient = chosen["intrinsic"]
        added = coefficient * np.linalg.norm(self.client.vector_data(vectors["intrinsic"])[layer])
        for kind, name in derived.items():
            row = self.client.vector_data(name)[layer]
            settings[kind] = vs.Steer(row * (added / np.linalg.norm(row)), 1.0, layer)
        generator = np.random.default_rng(SEED)
        for index in range(RANDOM_DIRECTIONS):
            row = generator.standard_normal(row.shape)
            settings[f"random {index + 1}"] = vs.Steer(
                row * (added / np.linalg.norm(row)), 1.0, layer
            )
        return settings

    # --- The whole -------------------------------------------------------------------------------------------------

    def run(self):
        client = self.client
        data_sets, artifacts, extracted, responses = {}, {}, {}, {}
        for condition in ("intrinsic", "prompted"):
            responses[condition] = self.timed(
                f"{condition} responses", lambda c=condition: self.labelled_responses(c)
            )
            data_sets[condition] = self.balanced(responses[condition], condition)
            artifacts[condition], extracted[condition] = self.timed(
                f"{condition} vector", lambda c=condition: self.extract(data_sets[c], c)
            )
        vectors = {condition: e.vector.name for condition, e in extracted.items()}
        pair = self.timed(
            "decomposition",
            lambda: client.decompose_vectors(vectors["intrinsic"], vectors["prompted"]),
        )
        neurons = self.timed(
            "classification",
            lambda: client.classify_neurons(self.model, vectors["intrinsic"], vectors["prompted"]),
        )
        job, attribution = self.timed(
            "attribution job", lambda: self.attribute(artifacts["intrinsic"], vectors["intrinsic"])
        )

        development, chosen = self.timed("choosing", lambda: self.choose(vectors))
        derived = {
            "shared axis": pair.shared.name,
            "intrinsic unique": pair.intrinsic_orthogonal.name,
            "prompted unique": pair.prompted_orthogonal.name,
        }
        settings = self.test_settings(chosen, vectors, derived)
        queries = self.queries["test"]
        answers = self.timed(
            "steering unseen queries",
            lambda: self.answers(settings, queries, "steering unseen queries"),
        )
        table = self.measured(
            answers,
            self.timed(
                "scoring", lambda: self.perplexities(answers, queries, "scoring the answers")
            ),
        )
        return {
            "value": self.value,
            "model": client.model(self.model),
            "queries": {name: len(group) for name, group in self.queries.items()},
            "responses": {
                condition: {
                    "generated": len(group),
                    "with_word": sum(r[0] for r in group),
                    "distinct_2": distinct_2([r[2] for r in group]),
                }
                for condition, group in responses.items()
            },
            "statistics": {condition: list(e.statistics) for condition, e in extracted.items()},
            "pair": pair,
            "neurons": neurons,
            "attribution": attribution,
            "job": job,
            "development": development,
            "chosen": chosen,
            "test": table,
            "examples": [
                (
                    query,
                    {
                        name: answers[name][i].text
                        for name in ("unsteered", "intrinsic", "prompted", "random 1")
                    },
                )
                for i, query in enumerate(queries[:6])
            ],
            "vectors": {condition: e.vector for condition, e in extracted.items()},
            "timings": self.timings,
            "seconds": time.monotonic() - self.started,
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct")
    parser.add_argument(
        "--value",
        type=pathlib.Path,
        default=HERE / "stimulation.json",
        help="words and system messages",
    )
    parser.add_argument("--queries", type=pathlib.Path, default=HERE / "queries.json")
    parser.add_argument(
        "--report",
        type=pathlib.Path,
        default=HERE / "report",
        help="directory of index.html and results.json",
    )
    arguments = parser.parse_args()
    with vs.Client(arguments.server) as client:
        client.wait_until_ready(arguments.model)
        study = Study(
            client,
            arguments.model,
            json.loads(arguments.value.read_text()),
            json.loads(arguments.queries.read_text()),
        )
        results = study.run()
    page = report.write(results, arguments.report)
    test, words = results["test"], "answers with a value word"
    print(f"\n{words}, {test['unsteered']['answers']} unseen queries:")
    for name, row in test.items():
        print(
            f"  {name:18} {row['answers_with_word']:3}   value words {row['words']:4}   Distinct-2 {row['distinct_2']:.2f}   "
            f"perplexity {row['perplexity']:.1f}"
        )
    print(f"\nreport: {page}")


if __name__ == "__main__":
    main()
