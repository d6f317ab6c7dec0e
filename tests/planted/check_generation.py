"""Shows that `generate_responses` over 2,000 responses survives kill -9 with the same bytes, and that others read what it leaves.

    python check_generation.py [--small] [--queries 200] [--samples 5] [--max_tokens 8] [--kills 4] [--seed 1]

VALUESCOPE_BUILD is the build; the model is SmolLM2-135M-Instruct of VALUESCOPE_CACHE or, --small, tiny random ones. One job runs undisturbed. The same job runs over
another store, and its server is killed at moments drawn with the seed, each time started again without the model, asked how far the job
is, and given the model. Checked are: the bytes of every artifact; that nothing that was stored is lost; that each life of the server
draws the tokens of the shards that it finished and of one more at most, and the last one none but those that were missing; and that jobs
over what the killed one left, judge_responses by words and by a rubric and extract_vectors, succeed, every judgement being that of a
call. Every response has --max_tokens tokens, as ends are ignored, so that tokens tell shards.
"""

import argparse
import dataclasses
import json
import pathlib
import random
import re
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import conftest
import test_generated_responses as small
import valuescope as vs
from conftest import Server
from google.protobuf import json_format
from valuescope import v1

# Responses of a shard, which is committed as a whole.
SHARD = 32
ASKED = [
    "Shall I try",
    "Why do people like",
    "What is good about",
    "Tell me of",
    "Is it wise to do",
]
ASKED += [
    "How would you describe",
    "Who enjoys",
    "When is the time for",
    "Do you like",
    "Name a risk of",
]
ABOUT = [
    "climbing",
    "gardening",
    "sailing",
    "chess",
    "travel",
    "cooking",
    "diving",
    "reading",
    "camping",
    "dancing",
]
ABOUT += ["saving money", "night walks", "old maps", "new food", "long trains", "quiet days", "hard work", "music", "winter", "maths"]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Models:
    """Who answers, who judges, and what they are asked."""

    root: pathlib.Path
    speaker: str
    judge: str
    queries: list[str]
    system: str
    words: list[str]
    rubric: str
    layers: list[int]  # of the vector; the first one is steered, too

    @property
    def names(self):
        return sorted({self.speaker, self.judge})


def language_models(_folder):
    return Models(
        root=conftest.CACHE / "models",
        speaker=conftest.MODEL,
        judge=conftest.MODEL,
        queries=[f"{asked} {about}?" for about in ABOUT for asked in ASKED],
        system="You seek adventure.",
        words=["new", "great", "adventur*", "explor*", "excit*", "thrill*", "fun"],
        rubric="{query}\n{response}\nIs this exciting? Answer yes or no.",
        layers=[14, 20],
    )


def small_models(folder):
    folder.mkdir()
    return Models(
        root=small.make_models(folder),
        speaker=small.MODEL,
        judge=small.JUDGE,
        queries=[f"w{one} w{other}" for one in range(11, 31) for other in range(40, 50)],
        system="w50 w51",
        words=small.WORDS,
        rubric=small.QUESTION,
        layers=[1, 2],
    )


@dataclasses.dataclass(frozen=True)
class Size:
    queries: list[str]
    samples: int
    max_tokens: int

    @property
    def responses(self):
        return 2 * len(self.queries) * self.samples

    @property
    def shards(self):
        return -(-self.responses // SHARD)


class House:
    """The servers that were started over these models; none outlives the check, whatever it finds."""

    def __init__(self, models):
        self.models = models
        self._started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self._started:
            if server.running():
                server.kill()

    def start(self, folder):
        """A server that has loaded nothing yet, and its client."""
        folder.mkdir(exist_ok=True)
        server = Server(folder, f"--model_root={self.models.root}", "--models=")
        self._started.append(server)
        return server, vs.Client(server.address, timeout=3600)

    def load(self, client):
        for name in self.models.names:
            client.load_model(name)
            client.wait_until_ready(name, timeout=600)


def conditions_of(client, models):
    row = np.random.default_rng(2).standard_normal(client.model(models.speaker).hidden_size)
    row = (row / np.linalg.norm(row)).astype(np.float32)
    steer = vs.Steer(row, 20.0, layers=models.layers[:1])
    return {"plain": None, "steered": vs.EvaluationCondition(models.system, steer=steer)}


def submit(client, models, size):
    return client.generate_responses(
        models.speaker,
        size.queries,
        conditions_of(client, models),
        samples_per_query=size.samples,
        max_tokens=size.max_tokens,
        ignore_eos=True,
        temperature=1.0,
        seed=11,
    ).name


def artifacts_of(client, job):
    return {a.role: client.read_artifact(a.artifact) for a in client.job(job).result.artifacts}


def name_of(client, job, role):
    return next(a.artifact for a in client.job(job).result.artifacts if a.role == role)


def tokens_drawn(server):
    """Since the server began."""
    (found,) = re.findall(r"^valuescope_generated_tokens_total (\S+)$", server.metrics(), re.M)
    return int(found)


def wait_for_shards(client, job, count):
    for state in client.watch_job(job):
        if state.progress.shards_done >= count:
            return


def run_undisturbed(house, folder, size):
    server, client = house.start(folder)
    with client:
        house.load(client)
        begun = time.monotonic()
        job = submit(client, house.models, size)
        client.wait_for_job(job)
        took = time.monotonic() - begun
        assert tokens_drawn(server) == size.responses * size.max_tokens
        artifacts = artifacts_of(client, job)
    assert server.stop() == 0
    print(
        f"undisturbed: {size.responses} responses of {size.max_tokens} tokens in {size.shards} shards, {took:.0f} s; "
        f"artifacts of {', '.join(f'{len(data)} ({role})' for role, data in artifacts.items())} bytes"
    )
    return artifacts, took


def kill_within(client, server, job, shard, delay):
    """Soon after so many shards are done; returns how many those were by then, and the tokens drawn a moment before."""
    wait_for_shards(client, job, shard)
    time.sleep(delay)  # to some moment within a shard
    done, drawn = client.job(job).progress.shards_done, tokens_drawn(server)
    server.kill()
    return done, drawn


def restarted(house, folder, job):
    """A server that has the store, its client and how many shards it found done, before the models are there to do more."""
    server, client = house.start(folder)
    done = client.job(job).progress.shards_done
    house.load(client)
    return server, client, done


def run_killed(house, folder, size, kills, seconds_a_shard, draws):
    """The last server, its client and the job, which succeeded."""
    server, client = house.start(folder)
    house.load(client)
    job = submit(client, house.models, size)
    found, more = 0, 0
    for shard in sorted(draws.sample(range(1, size.shards), kills)):
        done, drawn = kill_within(
            client, server, job, max(shard, found), draws.uniform(0, seconds_a_shard)
        )
        client.close()
        before = found
        server, client, found = restarted(house, folder, job)
        finished = (found - before) * SHARD * size.max_tokens
        print(
            f"  killed at {done} shards; {found} are stored; {drawn} tokens drawn in this life, {finished} of them stored"
        )
        assert found >= done, "a shard that was reported as done is lost"
        assert drawn <= finished + SHARD * size.max_tokens, "more than the shard in flight is lost"
        more += drawn > finished
    client.wait_for_job(job)
    missing = size.responses - found * SHARD
    assert tokens_drawn(server) == missing * size.max_tokens, "the last life drew what was there"
    rescues = client.job(job).rescues
    print(
        f"killed {kills} times: {rescues} shards taken over, {more} lives had drawn tokens of a shard that ran again; "
        f"the last one drew the {missing} responses that were missing"
    )
    assert rescues <= kills, "more shards ran twice than were in flight"
    return server, client, job


def judged_by_job(client, models, responses, judge):
    """The job's judgements, and the name of its data set."""
    request = vs.judging_request(responses, judge, model=models.speaker)
    job = client.create_job(v1.JobSpec(judge_responses=request)).name
    client.wait_for_job(job)
    summary = json.loads(client.read_artifact(name_of(client, job, "summary")))
    listed = [json_format.ParseDict(one, v1.Judgement()) for one in summary["judgements"]]
    return listed, name_of(client, job, "responses")


def labels_in(client, artifact):
    lines = client.read_artifact(artifact).decode().splitlines()
    return [json_format.Parse(line, v1.LabelledResponse()).expresses for line in lines]


def check_judge(client, models, title, responses, judge):
    """The artifact that the job labelled, and how many express."""
    begun = time.monotonic()
    listed, labelled = judged_by_job(client, models, responses, judge)
    by_call = client.judge_responses(responses, judge, model=models.speaker)
    labels = [one.expresses for one in by_call.response.judgements]
    print(
        f"{title}: {sum(labels)} of {len(labels)} responses express; job and call, {time.monotonic() - begun:.0f} s"
    )
    assert 0 < sum(labels) < len(labels), "labels that are all the same show nothing"
    assert listed == list(by_call.response.judgements), "job and call judge differently"
    assert labels_in(client, labelled) == labels
    return labelled, sum(labels)


def check_extraction(client, models, labelled, expressing, count):
    request = vs.extraction_request(
        models.speaker, labelled, layers=models.layers, bootstrap_samples=0
    )
    begun = time.monotonic()
    job = client.create_job(v1.JobSpec(extract_vectors=request)).name
    client.wait_for_job(job)
    (name,) = client.job(job).result.vectors
    made = client.vector(name).provenance
    print(
        f"extract_vectors: {made.num_expressing} against {made.num_non_expressing} responses, {time.monotonic() - begun:.0f} s"
    )
    assert (made.num_expressing, made.num_non_expressing) == (expressing, count - expressing)
    assert sorted(client.vector_data(name)) == models.layers


def check_all(house, folder, size, kills, draws):
    models = house.models
    expected, took = run_undisturbed(house, folder / "undisturbed", size)
    server, client, job = run_killed(
        house, folder / "killed", size, kills, took / size.shards, draws
    )
    with client:
        assert artifacts_of(client, job) == expected, "other bytes than without kills"
        print("every artifact has the bytes of the undisturbed run")
        responses = name_of(client, job, "responses")
        by_words, by_rubric = vs.WordList(models.words), vs.Rubric(models.judge, models.rubric)
        labelled, expressing = check_judge(client, models, "by words", responses, by_words)
        check_judge(client, models, "by a rubric", responses, by_rubric)
        check_extraction(client, models, labelled, expressing, size.responses)
    assert server.stop() == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny random models: seconds")
    parser.add_argument("--queries", type=int, default=200, help="1 to 200 (default 200)")
    parser.add_argument("--samples", type=int, default=5, help="a query and condition (default 5)")
    parser.add_argument("--max_tokens", type=int, default=8, help="of a response (default 8)")
    parser.add_argument("--kills", type=int, default=4, help="of the server (default 4)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        models = (small_models if options.small else language_models)(folder / "models")
        if not 1 <= options.queries <= len(models.queries):
            parser.error(f"--queries is {options.queries}; allowed are 1 to {len(models.queries)}")
        size = Size(models.queries[: options.queries], options.samples, options.max_tokens)
        with House(models) as house:
            check_all(house, folder, size, options.kills, random.Random(options.seed))


if __name__ == "__main__":
    main()
