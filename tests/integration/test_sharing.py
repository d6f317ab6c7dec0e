"""What tenants share and what they used, through the real server, on a tiny model."""

import contextlib
import datetime
import json
import subprocess

import numpy as np
import pytest
import valuescope as vs
from callers import ONE, TINY, Tokens
from conftest import BUILD, Server
from valuescope import v1

RESPONSES = [vs.labelled([1, 2, 3], [4, 10 + i], bool(i % 2), f"q{i}") for i in range(4)]
PROMPT = [1, 2, 3]


class Lab:
    """A server with the tenants a and b."""

    def __init__(self, folder, *flags):
        self.folder = folder
        self.tokens = Tokens(folder)
        for tenant, role in [("a", "user"), ("a", "admin"), ("b", "user"), ("b", "reader")]:
            self.tokens.create(tenant, role)
        self.audit = folder / "audit.jsonl"
        self._flags = (*TINY, f"--tokens={self.tokens.file}", f"--audit_log={self.audit}", *flags)
        self.start()

    def start(self):
        self.server = Server(self.folder, *self._flags)
        with self.calling("b", "reader") as client:
            client.wait_until_ready(ONE)

    def stop(self):
        assert self.server.stop() == 0

    @contextlib.contextmanager
    def calling(self, tenant, role="user"):
        token = self.tokens.token[tenant, role]
        with vs.Client(self.server.address, token=token, timeout=60) as client:
            yield client

    def command_line(self, tenant, *arguments):
        program = [BUILD / "client" / "cpp" / "valuescope", "--server", self.server.address]
        token = self.tokens.token[tenant, "user"]
        return subprocess.run(
            [*program, "--token", token, *arguments], capture_output=True, text=True, timeout=60
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()


def make(client, seed):
    """A vector, a data set and a neuron set, unlike those of another seed."""
    rows = np.random.default_rng(seed).normal(size=(3, client.model(ONE).hidden_size))
    vector = client.create_vector(ONE, rows, layers=range(3), display_name=f"v{seed}").name
    artifact = client.write_artifact(RESPONSES).name
    neurons = client.attribute_neurons(ONE, RESPONSES, vector).neuron_set.name
    return vector, artifact, neurons


def steered(client, vector):
    steer = vs.Steer(vector, 8.0, layers=1)
    return client.generate(ONE, PROMPT, steer=steer, max_tokens=4, temperature=0).token_ids


def ablated(client, neurons):
    edits = vs.AblateNeurons(neurons)
    return client.generate(ONE, PROMPT, steer=edits, max_tokens=4, temperature=0).token_ids


def test_what_one_tenant_publishes_another_reads_lists_steers_with_and_runs_jobs_on(lab):
    with lab.calling("a") as a, lab.calling("b") as b:
        vector, artifact, neurons = make(a, 1)
        for name in (vector, artifact, neurons):
            shared = a.publish(name)
            assert (shared.name, shared.publisher) == (name, "a")
            age = datetime.datetime.now(datetime.UTC) - shared.publish_time.ToDatetime(datetime.UTC)
            assert age < datetime.timedelta(minutes=5)
        assert [v.owner for v in (b.vector(vector), b.neuron_set(neurons))] == ["a", "a"]
        assert b.artifact(artifact).owner == "a"
        assert vector in [v.name for v in b.vectors(shared=True)]
        assert neurons in [n.name for n in b.neuron_sets(shared=True)]
        assert artifact in [f.name for f in b.artifacts(shared=True)]
        assert b.vectors() == b.neuron_sets() == b.artifacts() == []
        assert steered(b, vector) == steered(a, vector)
        assert ablated(b, neurons) == ablated(a, neurons)
        assert b.read_artifact(artifact) == a.read_artifact(artifact)
        assert b.read_table(artifact).data == a.read_table(artifact).data
        assert np.array_equal(b.neuron_columns(neurons).scores, a.neuron_columns(neurons).scores)
        assert b.export_vectors([vector]) == a.export_vectors([vector])
        assert b.compare_vectors([vector, vector]).cosines.shape[1:] == (2, 2)
        request = vs.attribution_request(ONE, artifact, vector)
        job = b.create_job(v1.JobSpec(attribute_neurons=request)).name
        assert b.wait_for_job(job).state == v1.JOB_STATE_SUCCEEDED
        # What b made of it is b's own.
        (made,) = b.neuron_sets()
        assert made.owner == "b"
        with pytest.raises(vs.NotFound):
            a.job(job)


def test_publishing_again_changes_nothing_and_other_collections_have_no_such_names(lab):
    with lab.calling("a") as a, lab.calling("b") as b:
        vector, artifact, neurons = make(a, 2)
        first = a.publish(vector)
        assert a.publish(vector) == first == b.publish(vector)
        with pytest.raises(vs.NotFound):
            b.publish(artifact)
        for name in ("jobs/j", ONE, "vectors/", vector.split("/")[1]):
            with pytest.raises(vs.InvalidRequest, match="name"):
                a.publish(name)
        with pytest.raises(vs.InvalidRequest, match="neuron set"):
            a.publish(a.neuron_set(neurons).artifact)


def test_who_deletes_deletes_ones_own_and_who_withdraws_ends_it_for_all(lab):
    with lab.calling("a") as a, lab.calling("b") as b:
        vector, artifact, neurons = make(a, 3)
        names = (vector, artifact, neurons)
        for name in names:
            a.publish(name)
        assert steered(b, vector) and ablated(b, neurons)  # whose members are kept from now on
        for client, gone in ((b, vs.NotFound), (a, None), (a, vs.NotFound)):
            for delete, name in (
                (client.delete_vector, vector),
                (client.delete_artifact, artifact),
                (client.delete_neuron_set, neurons),
            ):
                with pytest.raises(gone) if gone else contextlib.nullcontext():
                    delete(name)
        assert b.vector(vector).owner == a.vector(vector).owner == "a"
        for name in names:
            with pytest.raises(vs.AccessDenied, match="published by `a`"):
                b.withdraw(name)
        with lab.calling("a", "admin") as admin:
            for name in names:
                (admin if name == vector else a).withdraw(name)
        for attempt in (
            lambda: b.vector(vector),
            lambda: steered(b, vector),
            lambda: ablated(b, neurons),
            lambda: b.neuron_set(neurons),
            lambda: b.read_artifact(artifact),
            lambda: a.vector(vector),
            lambda: a.withdraw(vector),
            lambda: b.create_job(
                v1.JobSpec(attribute_neurons=vs.attribution_request(ONE, artifact, vector))
            ),
        ):
            with pytest.raises(vs.NotFound):
                attempt()
        assert not {vector} & {v.name for v in b.vectors(shared=True)}


def test_an_admin_withdraws_what_a_waiting_job_would_read_and_the_job_hears_of_it(lab):
    model = "models/qwen2"
    with lab.calling("a") as a, lab.calling("b") as b, lab.calling("a", "admin") as admin:
        admin.load_model(model)
        admin.wait_until_ready(model)
        rows = np.ones((2, a.model(model).hidden_size))
        vector = a.create_vector(model, rows, layers=range(2)).name
        a.publish(vector)
        many = [vs.labelled([1, 2, 3], [4, 5] * 9, bool(i % 2), f"q{i}") for i in range(4000)]
        request = vs.attribution_request(model, b.write_artifact(many).name, vector)
        job = b.create_job(v1.JobSpec(attribute_neurons=request)).name
        admin.unload_model(model, force=True)
        with pytest.raises(vs.FailedPrecondition, match=r"a job of some tenant.*admin.*`force`"):
            a.withdraw(vector)
        with pytest.raises(vs.AccessDenied, match=r"role admin.*role user"):
            a.withdraw(vector, force=True)
        admin.withdraw(vector, force=True)
        assert b.job(job).state in (v1.JOB_STATE_QUEUED, v1.JOB_STATE_RUNNING)
        admin.load_model(model)
        with pytest.raises(vs.JobFailed, match=f"NOT_FOUND.*{vector}"):
            b.wait_for_job(job)
        admin.unload_model(model)


def test_the_audit_log_tells_who_published_and_who_withdrew(lab):
    with lab.calling("a") as a:
        vector, *_ = make(a, 4)
        a.publish(vector)
        a.withdraw(vector)
    lines = [json.loads(line) for line in lab.audit.read_text().splitlines()]
    keys = ("tenant", "caller", "method", "code")
    assert [
        tuple(line[key] for key in keys)
        for line in lines
        if vector in line.get("resources", "") and "TenantService" in line["method"]
    ] == [
        ("a", "a's user", "TenantService.PublishResource", "OK"),
        ("a", "a's user", "TenantService.WithdrawResource", "OK"),
    ]


def test_the_command_line_publishes_lists_and_withdraws(lab):
    with lab.calling("a") as a:
        vector, artifact, _ = make(a, 5)
    for name, collection in ((vector, "vectors"), (artifact, "artifacts")):
        published = lab.command_line("a", "publish", name)
        assert published.returncode == 0 and "by a since" in published.stdout, published
        listed = lab.command_line("b", collection, "list", "--shared")
        (row,) = [line for line in listed.stdout.splitlines() if line.startswith(name + " ")]
        assert "a" in row.split()
        assert name not in lab.command_line("b", collection, "list").stdout
        refused = lab.command_line("b", "withdraw", name)
        assert refused.returncode == 3 and "published by `a`" in refused.stderr
        assert lab.command_line("a", "withdraw", name).returncode == 0
        assert name not in lab.command_line("b", collection, "list", "--shared").stdout
    usage = lab.command_line("a", "--json", "usage", "--start", "2h", "--by_hour")
    assert usage.returncode == 0, usage
    assert {json.loads(line)["tenant"] for line in usage.stdout.splitlines()} <= {"a"}
    assert "CALLS" in lab.command_line("a", "usage").stdout
    assert lab.command_line("a", "usage", "--start", "soon").returncode == 2
    token = lab.command_line("a", "tokens", "create", "--tenant", "shared", "--role", "user")
    assert token.returncode == 2 and "shared" in token.stderr


def test_what_is_published_has_a_quota_of_its_own(tmp_path):
    lab = Lab(tmp_path, "--tenants=shared:stored=2000")
    with lab.calling("a") as a, lab.calling("b") as b:
        size = a.model(ONE).hidden_size
        names = [
            a.create_vector(ONE, np.full((1, size), value), layers=[0]).name for value in (1.0, 2.0)
        ]
        large = a.write_artifact(b"x" * 3000, media_type="text/plain").name
        with pytest.raises(vs.Exhausted, match="withdraw some") as refused:
            a.publish(large)
        assert refused.value.reason == "STORAGE_QUOTA"
        a.publish(names[0])
        assert b.vector(names[0]).owner == "a"
        with pytest.raises(vs.NotFound):
            b.artifact(large)
    lab.stop()


def test_nobody_is_the_tenant_of_all(tmp_path):
    tokens = tmp_path / "tokens.jsonl"
    tokens.write_text(json.dumps({"sha256": "0" * 64, "tenant": "shared", "role": "admin"}) + "\n")
    program = [BUILD / "server" / "valuescope-server", "--listen=127.0.0.1:0", "--metrics_listen="]
    program += [f"--store=sqlite:{tmp_path / 's.db'}", f"--tokens={tokens}"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--tokens: line 1 must have another tenant than shared" in done.stderr


def test_usage_is_told_by_tenant_and_outlives_the_server(tmp_path):
    lab = Lab(tmp_path)
    with lab.calling("a") as a, lab.calling("b") as b:
        vector, artifact, _ = make(a, 6)
        told = [
            b.generate(ONE, PROMPT, max_tokens=5, temperature=0).response.usage for _ in range(2)
        ]
        request = vs.attribution_request(ONE, artifact, vector)
        job = a.create_job(v1.JobSpec(attribute_neurons=request)).name
        a.wait_for_job(job)
        with pytest.raises(vs.AccessDenied):
            b.usage(tenant="a")
        with pytest.raises(vs.AccessDenied):
            b.usage(tenant="*")
        with pytest.raises(vs.InvalidRequest, match="start_time"):
            now = datetime.datetime.now(datetime.UTC)
            b.usage(start=now - datetime.timedelta(days=32), by_hour=True)
    lab.stop()
    lab.start()
    with lab.calling("b") as b:
        (row,) = b.usage().records()
    assert row["tenant"] == "b"
    assert row["prompt_tokens"] == sum(usage.prompt_tokens for usage in told)
    assert row["generated_tokens"] == sum(usage.generated_tokens for usage in told)
    assert row["calls"] >= 5 and row["job_seconds"] == 0
    with lab.calling("a", "admin") as admin:
        rows = admin.usage(tenant="*").records()
        assert [row["tenant"] for row in rows] == ["a", "b"]
        assert rows[0]["job_seconds"] > 0
        # The call and the job that attribute have run the responses, of three and two tokens each.
        assert rows[0]["prompt_tokens"] == 2 * len(RESPONSES) * 5
        (alone,) = admin.usage(tenant="a").records()
        assert alone["prompt_tokens"] == rows[0]["prompt_tokens"]
        assert {row["tenant"] for row in admin.usage(tenant="*", by_hour=True).records()} == {
            "a",
            "b",
        }
    lab.stop()
