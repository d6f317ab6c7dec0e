"""Stores that earlier versions of the server filled: what they hold is listed, read and used as it was then.

tests/golden/stores/version_N is such a store with what its own server answered; make_store.py beside it tells how it came about.
"""

import json
import shutil
import sqlite3

import grpc
import pytest
import valuescope as vs
from conftest import ROOT, Server
from google.protobuf.json_format import MessageToDict
from valuescope import v1
from valuescope.v1 import neurons_pb2_grpc, vectors_pb2_grpc

STORES = ROOT / "tests" / "golden" / "stores"
FAMILIES = ROOT / "tests" / "golden" / "families"
MODEL = "models/llama_tied"
REQUEST_IDS = [f"7c3c1c5e-93d2-4c8b-8f5c-0000000000{number:02}" for number in range(6)]
# Fields that the contract has got since the first store was made.
ADDED = {"topK"}
LABELS = [
    vs.labelled(
        [3 + index % 5, 11, 40],
        [20 + (7 * index) % 60, 5 + index, 90 - 3 * index],
        index % 2 == 0,
        f"q{index // 2}",
    )
    for index in range(12)
]


def open_store(directory, folder):
    """The store of `folder` as files that a server opens."""
    database = sqlite3.connect(directory / "store.db")
    database.executescript((folder / "store.sql").read_text())
    database.close()
    shutil.copytree(folder / "artifacts", directory / "store.db.artifacts", dirs_exist_ok=True)


def start(directory):
    # What is in them finished long ago.
    forever = [f"--keep_{what}=never" for what in ("jobs", "partials", "request_ids")]
    models = [f"--model_root={FAMILIES}", f"--models={MODEL.split('/')[1]}"]
    return Server(directory, *models, *forever)


def extractions():
    """Requests of the vectors "intrinsic" and "prompted"."""
    for number, responses in enumerate((LABELS[:8], LABELS[2:])):
        yield v1.ExtractVectorsRequest(
            model=MODEL,
            responses=responses,
            judge='a "coin", für alle',
            seed=7 + number,
            bootstrap_samples=20,
            display_name=("intrinsic", "prompted")[number],
            request_id=REQUEST_IDS[number],
        )


def told(message):
    """A message, less what not every store's own server could tell."""
    return without_added(MessageToDict(message))


def without_added(value):
    if isinstance(value, list):
        return [without_added(one) for one in value]
    if isinstance(value, dict):
        return {key: without_added(one) for key, one in value.items() if key not in ADDED}
    return value


def pair(client):
    names = {vector.display_name: vector.name for vector in client.vectors()}
    return names["intrinsic"], names["prompted"]


def classification(client):
    intrinsic, prompted = pair(client)
    return v1.ClassifyNeuronsRequest(
        model=MODEL,
        vectors=v1.ConditionVectors(intrinsic=intrinsic, prompted=prompted),
        top_percent=20,
        top_k=5,
        request_id=REQUEST_IDS[2],
    )


def attribution(client):
    return v1.AttributeNeuronsRequest(
        model=MODEL,
        responses=LABELS,
        vector=pair(client)[0],
        direct_contribution=v1.DirectContribution(),
        top_k=4,
        request_id=REQUEST_IDS[3],
    )


def requests(client):
    """Every request of the store's making with its method, in order; a later one names what the earlier ones made."""
    channel = grpc.insecure_channel(client._target)
    vectors = vectors_pb2_grpc.VectorServiceStub(channel)
    neurons = neurons_pb2_grpc.NeuronServiceStub(channel)
    for request in extractions():
        yield vectors.ExtractVectors, request
    yield neurons.ClassifyNeurons, classification(client)
    yield neurons.AttributeNeurons, attribution(client)


def summary_of_job(client):
    """Of an attribution of an uploaded file."""
    request = attribution(client)
    del request.responses[:]
    request.artifact = client.write_artifact(LABELS).name
    request.request_id = ""
    job = client.wait_for_job(client.create_job(v1.JobSpec(attribute_neurons=request)).name)
    roles = {made.role: made.artifact for made in client.job(job.name).result.artifacts}
    return client.read_artifact(roles["summary"]).decode()


def fill(client):
    for method, request in requests(client):
        method(request)
    client.decompose_pairs({"a": pair(client)})
    client.create_vector(MODEL, [float(i) for i in range(36)], layers=[1], display_name="given")
    summary_of_job(client)


def told_of_job(job):
    """A job without what servers of the first store left out of it."""
    record = told(job)
    assert record["result"].pop("digests", True)
    for artifact in record["result"]["artifacts"]:
        assert artifact.pop("displayName", True)
        assert artifact.pop("sizeBytes", True)
    assert record.pop("revision", True)
    assert record.pop("transitions", True)
    return record


def kept(client):
    """What is read from the store."""
    return {
        "vectors": [told(one) for one in client.vectors()],
        "whole vectors": [told(client.vector(one.name)) for one in client.vectors()],
        "neuron sets": [told(one) for one in client.neuron_sets()],
        "whole neuron sets": [told(client.neuron_set(one.name)) for one in client.neuron_sets()],
        "artifacts": [told(one) for one in client.artifacts()],
        "jobs": [told_of_job(client.job(one.name)) for one in client.jobs()],
        "replayed": [told(method(request)) for method, request in requests(client)],
    }


def used(client):
    """What is computed with what is in the store."""
    intrinsic, prompted = pair(client)
    neurons = {one.method: one.name for one in client.neuron_sets()}
    steer = [
        vs.Steer(intrinsic, coefficient=2.0),
        vs.ScaleNeurons(neurons["geometric"], factor=0.0, neuron_class="unclassified"),
    ]
    generation = client.generate(
        MODEL, [3, 11, 40], steer=steer, max_tokens=8, temperature=0, seed=1
    )
    return {
        "steered": told(generation.response),
        "decomposed": told(client.decompose_pairs({"a": (intrinsic, prompted)})),
    }


def made_again(client):
    """What the requests that made the store give under no request_id."""
    responses = []
    for method, request in requests(client):
        request.request_id = ""
        responses.append(told(method(request)))
    return {"responses": responses, "summary": summary_of_job(client)}


@pytest.fixture(scope="module", params=sorted(folder.name for folder in STORES.glob("*")))
def store(request, tmp_path_factory):
    """A client of a server over an earlier store, and what its own server answered."""
    directory = tmp_path_factory.mktemp(request.param)
    open_store(directory, STORES / request.param)
    server = start(directory)
    with server.client(MODEL) as client:
        yield (
            client,
            without_added(json.loads((STORES / request.param / "answers.json").read_text())),
        )
    assert server.stop() == 0


def test_what_is_kept_is_read_as_it_was(store):
    client, answers = store
    assert kept(client) == answers["kept"]


def test_what_is_kept_is_used_as_it_was(store):
    client, answers = store
    assert used(client) == answers["used"]


def numbers(responses):
    """What decides a name and is the processor's as well: rows of vectors, scores of neurons, what computed them."""
    all_of_it = []
    for response in responses:
        made = response.get("vector") or response["neuronSet"]
        scores = [layer["scoreSum"] for layer in made.get("layers", []) if isinstance(layer, dict)]
        all_of_it.append((made.get("data"), scores, made["provenance"]["hardwareClass"]))
    return all_of_it


def without_estimates(response):
    """An extraction without the statistics, which are estimated in a better way than at that time, and its name, which is their digest too."""
    if "vector" not in response:
        return response
    rest = {key: value for key, value in response.items() if key not in ("statistics", "warnings")}
    rest["vector"] = {
        key: value
        for key, value in response["vector"].items()
        if key not in ("name", "digest", "createTime")
    }
    rest["vector"]["provenance"] = {
        key: value for key, value in response["vector"]["provenance"].items() if key != "seeds"
    }
    return rest


def test_what_is_made_again_has_the_name_it_had(store):
    client, answers = store
    made, then = made_again(client), answers["made again"]
    if numbers(made["responses"]) != numbers(then["responses"]):
        pytest.skip("this processor rounds otherwise than the one of that time")
    for of in (made, then):
        of["responses"] = [without_estimates(response) for response in of["responses"]]
    assert made == then
