"""Jobs whose model is not loaded wait without holding anybody up; requests sent twice are answered from the store; and what a
job keeps of its spec fits every reply. On two tiny models."""

import contextlib
import time
import uuid

import grpc
import numpy as np
import pytest
import valuescope as vs
from conftest import ROOT
from valuescope import v1
from valuescope.crc32c import crc32c
from valuescope.v1 import artifacts_pb2_grpc, jobs_pb2_grpc, neurons_pb2_grpc, vectors_pb2_grpc

ONE, OTHER = "models/llama_tied", "models/mistral"
ROOT_OF_MODELS = f"--model_root={ROOT / 'tests' / 'golden' / 'families'}"
BOTH = (ROOT_OF_MODELS, "--models=llama_tied,mistral")
MANY = 10_000  # responses: enough that a job is still running when a test has looked at it


@contextlib.contextmanager
def connected(server, *models):
    with vs.Client(server.address, timeout=120) as client:
        for model in models:
            client.wait_until_ready(model)
        yield client


def data_set(count, tokens=4):
    ids = np.random.default_rng(0).integers(1, 90, (count, tokens))
    return [
        vs.labelled([1, 2, 3], [int(i) for i in row], bool(i % 2), f"q{i}")
        for i, row in enumerate(ids)
    ]


def make_vector(client, model):
    width = client.model(model).hidden_size
    return client.create_vector(model, np.ones((3, width)), layers=range(3)).name


def spec_of(client, model, count):
    responses = client.write_artifact(data_set(count)).name
    request = vs.attribution_request(model, responses, make_vector(client, model))
    return v1.JobSpec(attribute_neurons=request)


def submit(client, model, count):
    return client.create_job(spec_of(client, model, count)).name


def await_job(client, name, condition):
    until = time.monotonic() + 60
    while not condition(job := client.job(name)):
        assert job.state in (v1.JOB_STATE_QUEUED, v1.JOB_STATE_RUNNING), job
        assert time.monotonic() < until, job
    return job


def results(client, name):
    return {a.role: client.read_artifact(a.artifact) for a in client.job(name).result.artifacts}


def test_a_job_without_its_model_waits_says_so_and_goes_on_where_it_was(start_server, tmp_path):
    server = start_server(tmp_path, *BOTH)
    with connected(server, ONE, OTHER) as client:
        spec = spec_of(client, ONE, MANY)
        job, behind = (client.create_job(spec).name for _ in range(2))
        await_job(client, job, lambda j: j.progress.done > 0)
        client.unload_model(ONE, force=True)
        waiting = await_job(client, job, lambda j: j.waiting_for)
        assert waiting.state == v1.JOB_STATE_RUNNING
        assert ONE in waiting.waiting_for
        assert 0 < waiting.progress.done < MANY
        client.wait_for_job(submit(client, OTHER, 32), timeout=60)
        assert client.cancel_job(behind).state == v1.JOB_STATE_CANCELLED
        listed = {j.name: j.waiting_for for j in client.jobs()}
        assert listed[job] == waiting.waiting_for
        assert listed[behind] == ""
    assert server.stop() == 0

    server = start_server(tmp_path, ROOT_OF_MODELS, "--models=mistral")
    with connected(server, OTHER) as client:
        client.wait_for_job(submit(client, OTHER, 32), timeout=60)
        waiting = client.job(job)
        assert ONE in waiting.waiting_for
        client.load_model(ONE)
        finished = client.wait_for_job(job, timeout=120)
        assert (finished.progress.done, finished.rescues, finished.waiting_for) == (MANY, 0, "")
        undisturbed = client.create_job(spec).name
        client.wait_for_job(undisturbed, timeout=120)
        assert results(client, job) == results(client, undisturbed)
    assert server.stop() == 0


def test_a_request_sent_twice_is_answered_from_what_the_first_one_stored(start_server, tmp_path):
    server = start_server(tmp_path, *BOTH)
    with connected(server, ONE, OTHER) as client, grpc.insecure_channel(server.address) as channel:
        vectors = vectors_pb2_grpc.VectorServiceStub(channel)
        neurons = neurons_pb2_grpc.NeuronServiceStub(channel)
        jobs = jobs_pb2_grpc.JobServiceStub(channel)
        artifacts = artifacts_pb2_grpc.ArtifactServiceStub(channel)
        rows, again = (
            make_vector(client, ONE),
            client.create_vector(ONE, np.eye(3, 36), layers=range(3)),
        )
        attribution = vs.attribution_request(ONE, data_set(8), rows)
        content = b"some bytes"
        header = client.artifact(client.write_artifact(content).name)
        header = v1.WriteArtifactHeader(size_bytes=len(content), sha256=header.sha256)
        chunk = v1.ArtifactChunk(data=content, crc32c=crc32c(content))

        def write(header):
            requests = [
                v1.WriteArtifactRequest(header=header),
                v1.WriteArtifactRequest(chunk=chunk),
            ]
            return artifacts.WriteArtifact(iter(requests))

        given = v1.Vector(
            model=ONE,
            site=v1.SITE_RESIDUAL_POST,
            layers=[1],
            data=vs.from_numpy(np.ones((1, 36), np.float32)),
        )
        calls = [
            (vectors.CreateVector, v1.CreateVectorRequest(vector=given), "vector"),
            (vectors.ExtractVectors, v1.ExtractVectorsRequest(model=ONE, responses=data_set(8)), "vector"),
            (
                vectors.DecomposeVectors,
                v1.DecomposeVectorsRequest(pairs=[v1.VectorPair(intrinsic=rows, prompted=again.name)]),
                "decompositions",
            ),
            (neurons.AttributeNeurons, attribution, "neuron_set"),
            (
                neurons.ClassifyNeurons,
                v1.ClassifyNeuronsRequest(
                    model=ONE, vectors=v1.ConditionVectors(intrinsic=rows, prompted=again.name)
                ),
                "neuron_set",
            ),
            (jobs.CreateJob, v1.CreateJobRequest(spec=v1.JobSpec(attribute_neurons=attribution)), "job"),
            (write, header, "artifact"),
        ]  # fmt: skip
        first = []
        for call, request, _ in calls:
            request.request_id = str(uuid.uuid4())
            first.append(call(request))
        client.wait_for_job(first[5].job.name, timeout=60)
        client.unload_model(ONE, force=True)
        for (call, request, field), answer in zip(calls, first, strict=True):
            replayed = call(request)
            if field == "job":
                assert replayed.job.name == answer.job.name
                assert replayed.job.state == v1.JOB_STATE_SUCCEEDED
                assert replayed.job.spec == answer.job.spec
                assert replayed.estimate == answer.estimate
                continue
            assert getattr(replayed, field) == getattr(answer, field), field
            for name in ("statistics", "seed", "num_dropped", "num_expressing", "digests"):
                assert getattr(replayed, name, None) == getattr(answer, name, None), (field, name)
            if hasattr(replayed, "usage"):
                assert replayed.usage.prompt_tokens == 0
            if field == "artifact":
                request.display_name = "another"
            elif field == "decompositions":
                request.unit_deltas = True
            else:
                (
                    request.vector if field == "vector" and request is calls[0][1] else request
                ).display_name = "another"
            with pytest.raises(grpc.RpcError) as error:
                call(request)
            assert error.value.code() == grpc.StatusCode.ALREADY_EXISTS, field
    assert server.stop() == 0


def test_a_job_keeps_of_its_spec_what_every_client_can_read(start_server, tmp_path):
    server = start_server(tmp_path, *BOTH)
    with connected(server, ONE, OTHER) as client, grpc.insecure_channel(server.address) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)  # with gRPC's defaults
        vector = make_vector(client, OTHER)
        request = vs.attribution_request(OTHER, data_set(4), vector)
        claimed = v1.JobSpec(attribute_neurons=request, omitted=[v1.OmittedField(count=1)])
        with pytest.raises(grpc.RpcError) as error:
            stub.CreateJob(v1.CreateJobRequest(spec=claimed))
        assert "spec.omitted" in error.value.details()

        for count, tokens in ((20, 8), (12_000, 400)):
            request = vs.attribution_request(OTHER, data_set(count, tokens), vector)
            created = stub.CreateJob(
                v1.CreateJobRequest(spec=v1.JobSpec(attribute_neurons=request))
            )
            job = stub.GetJob(v1.GetJobRequest(name=created.job.name)).job
            stub.CancelJob(v1.CancelJobRequest(name=job.name))
            assert job.spec == created.job.spec
            assert job.spec.ByteSize() < 1 << 20
            omitted = [(o.field, o.count) for o in job.spec.omitted]
            if request.ByteSize() < 1 << 20:
                assert job.spec.attribute_neurons == request
                assert omitted == []
            else:
                assert omitted == [("attribute_neurons.responses", count)]
                request.ClearField("responses")
                assert job.spec.attribute_neurons == request
    assert server.stop() == 0


def test_a_job_whose_vector_was_deleted_is_not_retried(start_server, tmp_path):
    server = start_server(tmp_path, ROOT_OF_MODELS, "--models=llama_tied")
    with connected(server, ONE) as client:
        job = submit(client, ONE, MANY)
        vector = client.job(job).spec.attribute_neurons.vector
        client.cancel_job(job)
        with contextlib.suppress(RuntimeError):
            client.wait_for_job(job, timeout=60)
        client.delete_vector(vector)
        with pytest.raises(vs.FailedPrecondition, match=vector) as error:
            client.retry_job(job)
        assert error.value.reason == "INPUT_DELETED"
        assert client.job(job).state == v1.JOB_STATE_CANCELLED
    assert server.stop() == 0
