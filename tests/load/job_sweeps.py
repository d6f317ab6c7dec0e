"""Jobs of several kinds over a tiny model, each of so many units, and what is counted while they run."""

import dataclasses
import re
import warnings

import numpy as np
import valuescope as vs
from conftest import ROOT
from valuescope import v1

FAMILIES = ROOT / "tests" / "golden" / "families"
ID = "qwen2"
MODEL = f"models/{ID}"
EVERY_CHUNK = ["--job_commit_interval=0s"]  # is committed, and seen
WORDS = 84  # of the vocabulary, "w0" to
RESPONSE, NEW = 40, 8  # tokens of a given response, and of one that is drawn

# A random model's answers hardly ever are labels.
warnings.filterwarnings("ignore", message="condition .* the labels have")


def responses(count, seed=0):
    """Labelled ones of random tokens, all of one length."""
    ids = np.random.default_rng(seed).integers(3, 90, (count, RESPONSE)).tolist()
    return [vs.labelled([3, 11], one, index % 2 == 0, f"q{index}") for index, one in enumerate(ids)]


def texts(count):
    """Distinct, of three words each."""
    return [f"w{i % WORDS} w{i // WORDS % WORDS} w{(7 * i + 3) % WORDS}" for i in range(count)]


def vector(client, model=MODEL):
    about = client.model(model)
    rows = np.random.default_rng(1).standard_normal((about.num_layers, about.hidden_size))
    return client.create_vector(model, rows, layers=range(about.num_layers)).name


def attribution(client, count, model=MODEL):
    data = client.write_artifact(responses(count)).name
    request = vs.attribution_request(model, data, vector(client, model))
    return v1.JobSpec(attribute_neurons=request)


def extraction(client, count):
    data = client.write_artifact(responses(count)).name
    request = vs.extraction_request(MODEL, data, bootstrap_samples=0)
    return v1.JobSpec(extract_vectors=request)


def generation(client, count):
    conditions = {"plain": None, "steered": vs.Steer(vector(client), 2.0, layers=1)}
    sampling = {"max_tokens": NEW, "ignore_eos": True, "temperature": 1.0, "seed": 11}
    spec = vs.generation_spec(MODEL, texts(count // 2), conditions, **sampling)
    return v1.JobSpec(generate_responses=spec)


def questionnaire(client, count):
    # Long and in one order, so that none finds in the cache what another one left there.
    words = np.random.default_rng(3).integers(0, WORDS, (count, 24))
    items = [
        {"text": " ".join(f"w{word}" for word in row), "value": f"V{i % 3}"}
        for i, row in enumerate(words)
    ]
    options = [v1.AnswerOption(label=f"w{80 + i}", text=f"w{70 + i}", score=i) for i in range(2)]
    template = "w60 {item} w61 {options} w62"
    request = vs.questionnaire_request(MODEL, items, options, template, order="given")
    return v1.JobSpec(ask_questionnaire=request)


def captures(client, count):
    data = client.write_artifact(responses(count)).name
    taps = [vs.tap("residual_post"), vs.tap("mlp_neurons", dtype="bfloat16", reduction="mean")]
    spec = vs.capture_spec(MODEL, artifact=data, taps=taps, max_file_bytes=1 << 20)
    return v1.JobSpec(capture=spec)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A kind of job. `counter`: of the tokens that its units take, equally many each. `chunk`: units that run together."""

    name: str
    spec: object  # of client and units
    counter: str
    chunk: int


PROMPT_TOKENS, NEW_TOKENS = "valuescope_prompt_tokens_total", "valuescope_generated_tokens_total"
SWEEPS = [
    Sweep("attribute_neurons", attribution, PROMPT_TOKENS, 16),
    Sweep("extract_vectors", extraction, PROMPT_TOKENS, 16),
    Sweep("generate_responses", generation, NEW_TOKENS, 32),
    Sweep("ask_questionnaire", questionnaire, PROMPT_TOKENS, 128),
    Sweep("capture", captures, PROMPT_TOKENS, 16),
]


def counted(server, counter, kind=int):
    """What a metric without labels says; counters count since the server began."""
    (found,) = re.findall(rf"^{counter} (\S+)$", server.metrics(), re.MULTILINE)
    return kind(float(found))


def artifacts_of(client, job):
    made = client.job(job).result.artifacts
    return {a.display_name: client.read_artifact(a.artifact) for a in made}
