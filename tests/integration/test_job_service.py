"""JobService as its users see it: lists, watching over cuts and crashes, cancelling, retrying, deleting, and what is kept how long."""

import collections
import contextlib
import datetime
import itertools
import pathlib
import random
import re
import socket
import sqlite3
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server
from google.protobuf import json_format
from valuescope import v1
from valuescope.v1 import jobs_pb2_grpc

MODEL, OTHER = "models/llama_tied", "models/mistral"
MODELS = (f"--model_root={ROOT / 'tests' / 'golden' / 'families'}", "--models=llama_tied,mistral")
FINISHED = (v1.JOB_STATE_SUCCEEDED, v1.JOB_STATE_FAILED, v1.JOB_STATE_CANCELLED)
SEED = 24


def data_set(count, tokens=24):
    # Without the tokens that end a turn, which a response is cut off at.
    ids = np.random.default_rng(0).integers(3, 90, (count, tokens))
    return [
        vs.labelled([1, 2, 3], row[: 4 + i % (tokens - 3)].tolist(), i % 3 == 0, f"q{i}")
        for i, row in enumerate(ids)
    ]


def make_vector(client, model=MODEL):
    width = client.model(model).hidden_size
    return client.create_vector(model, np.ones((3, width)), layers=range(3)).name


def attribution(client, responses, model=MODEL):
    file = client.write_artifact(responses).name
    return v1.JobSpec(
        attribute_neurons=vs.attribution_request(model, file, make_vector(client, model))
    )


def extraction(client, responses, **fields):
    file = client.write_artifact(responses).name
    return v1.JobSpec(extract_vectors=vs.extraction_request(MODEL, file, **fields))


def ready(server):
    client = vs.Client(server.address, timeout=120)
    for model in (MODEL, OTHER):
        client.wait_until_ready(model)
    return client


def await_true(condition, seconds=60):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "the condition was not met in time"
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A client of a server with two tiny models."""
    folder = tmp_path_factory.mktemp("tiny")
    server = Server(folder, *MODELS)
    with ready(server) as client:
        client.server = server
        yield client
    assert server.stop() == 0


class CuttingProxy:
    """Passes bytes on to `target`, which may change, and cuts all its connections when told to."""

    def __init__(self, target):
        self.target = target
        self._pairs = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    host, port = self.target.split(":")
                    far = socket.create_connection((host, int(port)))
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._pairs.append((near, far))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        self._close(source, sink)

    def _close(self, *ends):
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self._close(*pair)
        return len(pairs)

    def close(self):
        # Wakes the accept that is under way, which closing alone does not.
        self._close(self._listener)
        self._listener.close()
        self.cut()


@contextlib.contextmanager
def cutting(target):
    proxy = CuttingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


# --- Lists -------------------------------------------------------------------------------------------------------------


def test_lists_filter_and_page_and_name_the_kinds_that_there_are(tiny):
    responses = data_set(12)
    made = {}
    for name, spec in {
        "first a": attribution(tiny, responses),
        "first b": extraction(tiny, responses, layers=[1]),
        "second": attribution(tiny, responses, OTHER),
    }.items():
        made[name] = tiny.create_job(spec, display_name=name)
        tiny.wait_for_job(made[name].name)

    def names(**filters):
        return [job.display_name for job in tiny.jobs(**filters)]

    assert names() == ["second", "first b", "first a"]
    assert names(kind="attribute_neurons") == ["second", "first a"]
    assert names(model=MODEL) == ["first b", "first a"]
    assert names(model=MODEL, kind="extract_vectors") == ["first b"]
    assert names(display_name="first") == ["first b", "first a"]
    assert names(state=["succeeded", "failed"]) == names()
    assert names(state="queued") == []
    middle = made["first b"].create_time.ToDatetime(datetime.UTC)
    assert names(created_after=middle) == ["second", "first b"]
    assert names(created_before=middle) == ["first a"]
    assert [job.revision > 1 and not job.HasField("result") for job in tiny.jobs()] == [True] * 3

    with pytest.raises(vs.InvalidRequest, match=r"attribute_neurons.*extract_vectors") as refused:
        tiny.jobs(kind="attribute_neuron")
    assert "kind" in str(refused.value)
    with grpc.insecure_channel(tiny.server.address) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        page = stub.ListJobs(v1.ListJobsRequest(page_size=2))
        assert [job.display_name for job in page.jobs] == ["second", "first b"]
        rest = stub.ListJobs(v1.ListJobsRequest(page_size=2, page_token=page.next_page_token))
        assert [job.display_name for job in rest.jobs] == ["first a"]
        assert rest.next_page_token == ""
        for wrong, field in (
            (v1.ListJobsRequest(states=[v1.JOB_STATE_QUEUED, 99]), "states[1]"),
            (v1.ListJobsRequest(states=[v1.JOB_STATE_UNSPECIFIED]), "states[0]"),
            (v1.ListJobsRequest(model="llama_tied"), "model"),
            (v1.ListJobsRequest(created_after={"nanos": -1}), "created_after.nanos"),
            (v1.ListJobsRequest(page_token=page.next_page_token, model=MODEL), "page_token"),
        ):
            with pytest.raises(grpc.RpcError, match=r"INVALID_ARGUMENT|OUT_OF_RANGE") as refused:
                stub.ListJobs(wrong)
            assert field in refused.value.details()


def test_what_is_stored_is_listed_by_model(tiny):
    vectors = {model: make_vector(tiny, model) for model in (MODEL, OTHER)}
    job = tiny.wait_for_job(tiny.create_job(attribution(tiny, data_set(6), OTHER)).name)
    for model, other in ((MODEL, OTHER), (OTHER, MODEL)):
        found = [vector.name for vector in tiny.vectors(model=model)]
        assert vectors[model] in found
        assert vectors[other] not in found
        assert {vector.model for vector in tiny.vectors(model=model)} == {model}
    made = set(job.result.neuron_sets)
    assert made <= {one.name for one in tiny.neuron_sets(model=OTHER)}
    assert not made & {one.name for one in tiny.neuron_sets(model=MODEL)}
    artifacts = {one.artifact for one in job.result.artifacts}
    assert artifacts <= {one.name for one in tiny.artifacts(model=OTHER)}
    assert not artifacts & {one.name for one in tiny.artifacts(model=MODEL)}


# --- Watching ----------------------------------------------------------------------------------------------------------


def check_watched(changes):
    """What a watcher was told: revisions that grow, every change of state in its place, one end."""
    for before, after in itertools.pairwise(changes):
        if after.job.revision == before.job.revision:
            assert after.job.waiting_for != before.job.waiting_for, "sent twice"
        else:
            assert after.job.revision > before.job.revision
        assert after.job.progress.done >= before.job.progress.done
    told = [transition for change in changes for transition in change.transitions]
    revisions = [transition.revision for transition in told]
    assert revisions == sorted(set(revisions))
    for change in changes:
        if change.transitions:
            assert change.transitions[-1].state == change.job.state
            assert change.transitions[-1].revision <= change.job.revision
    finals = [change for change in changes if change.job.state in FINISHED]
    assert finals == changes[-1:]
    return [transition.state for transition in told]


def test_a_watcher_that_is_cut_at_random_and_whose_server_is_killed_misses_nothing(
    start_server, tmp_path
):
    generator = random.Random(SEED)
    server = start_server(tmp_path / "watched", *MODELS)
    with cutting(server.address) as proxy, contextlib.ExitStack() as opened:
        with ready(server) as direct:
            name = direct.create_job(attribution(direct, data_set(4000))).name
        watching = opened.enter_context(
            vs.Client(proxy.address, retry=vs.Retry(attempts=30, first=0.02, longest=0.2))
        )
        changes, lost = [], []
        kill_at = generator.randrange(1000, 2000)
        cut_at = sorted(generator.randrange(4000) for _ in range(10))
        for change in watching.follow_job(name, on_lost=lost.append):
            changes.append(change)
            done = change.job.progress.done
            if cut_at and done >= cut_at[0] and change.job.state not in FINISHED:
                cut_at = [at for at in cut_at if at > done]
                proxy.cut()
            if kill_at and done >= kill_at:
                kill_at = None
                server.kill()
                server = start_server(tmp_path / "watched", *MODELS)
                proxy.target = server.address
    assert kill_at is None, "the job ended before the server was killed"
    assert len(lost) > 3, "the watcher was cut"
    assert check_watched(changes) == [
        v1.JOB_STATE_QUEUED,
        v1.JOB_STATE_RUNNING,
        v1.JOB_STATE_SUCCEEDED,
    ]
    assert changes[-1].job.progress.done == 4000
    assert changes[-1].job.result.artifacts
    assert server.stop() == 0


def test_who_was_away_for_all_of_it_hears_of_every_change_of_state_at_once(tiny):
    name = tiny.create_job(attribution(tiny, data_set(3000))).name
    first = next(iter(tiny.follow_job(name)))
    assert first.transitions[0] == v1.JobTransition(revision=1, state=v1.JOB_STATE_QUEUED)
    tiny.cancel_job(name)
    with pytest.raises(vs.JobFailed):
        tiny.wait_for_job(name)
    tiny.retry_job(name)
    tiny.wait_for_job(name)
    (last,) = tiny.follow_job(name, last_revision=first.job.revision)
    seen = [transition.state for transition in (*first.transitions, *last.transitions)]
    steps = [
        v1.JOB_STATE_QUEUED,
        v1.JOB_STATE_RUNNING,
        v1.JOB_STATE_CANCELLING,
        v1.JOB_STATE_CANCELLED,
        v1.JOB_STATE_QUEUED,
        v1.JOB_STATE_RUNNING,
        v1.JOB_STATE_SUCCEEDED,
    ]
    # A job that was cancelled between two shards, or before its first one, has less to tell.
    assert seen[0] == steps[0] and seen[-1] == steps[-1]
    left = iter(steps)
    assert all(state in left for state in seen)
    assert list(tiny.follow_job(name, last_revision=last.job.revision)) == []
    with pytest.raises(vs.ValuescopeError, match="last_revision"):
        list(tiny.follow_job(name, last_revision=last.job.revision + 1))
    with pytest.raises(vs.InvalidRequest, match="last_revision"):
        list(tiny.follow_job(name, last_revision=-1))


def test_a_watcher_sees_statistics_of_what_is_committed(tiny):
    responses = data_set(900)
    for spec in (attribution(tiny, responses), extraction(tiny, responses, layers=[1])):
        name = tiny.create_job(spec).name
        changes = list(tiny.watch_job(name))
        for job in changes:
            seen = {one.name: one for one in job.progress.statistics}
            done = job.progress.done
            if done == 0:
                continue
            assert set(seen) == {"num_expressing", "num_not_expressing", "response_tokens"}
            assert seen["num_expressing"].value + seen["num_not_expressing"].value == done
            assert seen["response_tokens"].count == done
        lengths = [len(one.response.token_ids.ids) for one in responses]
        last = {one.name: one for one in changes[-1].progress.statistics}
        assert last["num_expressing"].value == sum(one.expresses for one in responses)
        assert last["response_tokens"].value == pytest.approx(np.mean(lengths))
        error = np.std(lengths, ddof=1) / np.sqrt(len(lengths))
        assert last["response_tokens"].standard_error == pytest.approx(error)


# --- Cancelling, retrying, deleting ------------------------------------------------------------------------------------


def test_cancelling_takes_two_seconds_and_a_chunk_at_most(tiny):
    long = data_set(64, tokens=60)
    request = vs.attribution_request(
        MODEL,
        tiny.write_artifact(long).name,
        integrated_gradients=v1.IntegratedGradients(steps=512),
        target=v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget()),
    )
    name = tiny.create_job(v1.JobSpec(attribute_neurons=request)).name
    commits = []
    for job in tiny.watch_job(name):
        if not commits or job.progress.done > commits[-1][1]:
            commits.append((time.monotonic(), job.progress.done))
        if len(commits) > 2:
            break
    chunk = commits[2][0] - commits[1][0]
    began = time.monotonic()
    assert tiny.cancel_job(name).state in (v1.JOB_STATE_CANCELLING, v1.JOB_STATE_CANCELLED)
    with pytest.raises(vs.JobFailed, match="cancelled"):
        tiny.wait_for_job(name)
    taken = time.monotonic() - began
    assert taken < 2 + chunk, f"a chunk takes {chunk:.2f} s"
    stopped = tiny.job(name)
    assert 0 < stopped.progress.done < stopped.progress.total


def blobs(folder):
    return {p.name for p in pathlib.Path(folder).rglob("*") if p.is_file() and len(p.name) >= 60}


def rows(database):
    """Rows of every table by its name."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        return collections.Counter(
            {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for (name,) in tables}
        )  # fmt: skip


def removed(server, what):
    prefix = f'valuescope_expired_total{{what="{what}"}} '
    found = [line for line in server.metrics().splitlines() if line.startswith(prefix)]
    return float(found[0].removeprefix(prefix)) if found else 0.0


def test_a_deleted_job_leaves_no_byte_of_its_own(start_server, tmp_path):
    server = start_server(tmp_path, *MODELS, "--keep_orphaned_blobs=1s")
    database, folder = tmp_path / "store.db", tmp_path / "store.db.artifacts"
    with ready(server) as client, grpc.insecure_channel(server.address) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        spec = attribution(client, data_set(48))
        vectors = extraction(client, data_set(48), layers=[1])

        def make(*requests):
            # Without a request_id, which is remembered for longer than the job.
            return [stub.CreateJob(v1.CreateJobRequest(spec=one)).job.name for one in requests]

        # The vector and the set that these make stay, and the others make them again.
        first = make(spec, vectors)
        results = [client.wait_for_job(name).result for name in first]
        for name in first:
            client.delete_job(name)
        marked = rows(database)["orphaned_blobs"]
        assert marked > 1
        await_true(lambda: removed(server, "blobs") >= marked, seconds=20)
        before, files = rows(database), blobs(folder)

        made = make(spec, vectors, spec)
        client.cancel_job(made[-1])
        for name in made:
            with contextlib.suppress(vs.JobFailed):
                client.wait_for_job(name)
        assert rows(database)["jobs"] == before["jobs"] + 3
        assert blobs(folder) > files
        for name in made:
            client.delete_job(name)
        await_true(lambda: blobs(folder) == files, seconds=20)
        after = rows(database)
        assert after - before == before - after == collections.Counter()
        for result in results:
            assert all(client.vector(name).name == name for name in result.vectors)
            assert all(client.neuron_columns(name).scores.size for name in result.neuron_sets)
    assert server.stop() == 0


def test_a_retry_is_refused_where_it_would_fail_and_waits_where_it_would_wait(
    start_server, tmp_path
):
    server = start_server(tmp_path, *MODELS)
    with ready(server) as client:
        inline = vs.attribution_request(MODEL, data_set(3000), make_vector(client))
        name = client.create_job(v1.JobSpec(attribute_neurons=inline)).name
        client.cancel_job(name)
        with contextlib.suppress(vs.JobFailed):
            client.wait_for_job(name)
        kept = {
            p: p.read_bytes() for p in (tmp_path / "store.db.artifacts").rglob("*") if p.is_file()
        }
        for path in kept:
            if len(path.name) >= 60:
                path.unlink()
        with pytest.raises(vs.FailedPrecondition, match="create a new job") as refused:
            client.retry_job(name)
        assert refused.value.reason == "INPUT_DELETED"
        for path, content in kept.items():
            if len(path.name) >= 60:
                path.write_bytes(content)
        client.retry_job(name)
        client.cancel_job(name)
        with contextlib.suppress(vs.JobFailed):
            client.wait_for_job(name)
    assert server.stop() == 0

    # What may be here again is waited for.
    server = start_server(tmp_path, MODELS[0], "--models=llama_tied", "--dtype=bfloat16")
    with vs.Client(server.address, timeout=120) as client:
        client.wait_until_ready(MODEL)
        waiting = client.retry_job(name)
        assert waiting.state == v1.JOB_STATE_QUEUED
        assert "computes in another way" in waiting.waiting_for
        assert client.cancel_job(name).state == v1.JOB_STATE_CANCELLED
    assert server.stop() == 0


# --- What is kept, and what is counted ---------------------------------------------------------------------------------


def test_what_was_kept_for_long_enough_goes_by_itself_and_is_counted(start_server, tmp_path):
    server = start_server(
        tmp_path,
        *MODELS,
        "--keep_jobs=2s",
        "--keep_request_ids=1s",
        "--keep_orphaned_blobs=1s",
    )
    with ready(server) as client:
        vector = make_vector(client)
        request = vs.attribution_request(MODEL, data_set(16), vector)
        job = client.wait_for_job(client.create_job(v1.JobSpec(attribute_neurons=request)).name)
        kept = job.expire_time.ToNanoseconds() - job.end_time.ToNanoseconds()
        assert kept == 2_000_000_000
        await_true(lambda: removed(server, "jobs") == 1, seconds=20)
        with pytest.raises(vs.NotFound):
            client.job(job.name)
        assert client.vector(vector).name == vector
        assert client.neuron_set(job.result.neuron_sets[0])
        await_true(lambda: removed(server, "request_ids") >= 2, seconds=20)
        await_true(lambda: removed(server, "blobs") >= 2, seconds=20)
        assert '"event":"expired"' in server.log.read_text()
    assert server.stop() == 0


def test_metrics_tell_how_old_the_queue_is_and_who_waits_in_it_hears_heartbeats(
    start_server, tmp_path
):
    server = start_server(tmp_path, *MODELS, "--heartbeat=100ms")

    def metric(name):
        found = [line for line in server.metrics().splitlines() if line.startswith(f"{name} ")]
        return float(found[0].split()[1])

    with ready(server) as client:
        assert metric("valuescope_oldest_queued_job_seconds") == 0
        assert metric("valuescope_oldest_job_lease_seconds") == 0
        spec = attribution(client, data_set(8000))
        running, queued = (client.create_job(spec).name for _ in range(2))
        await_true(lambda: client.job(running).state == v1.JOB_STATE_RUNNING)
        await_true(lambda: metric("valuescope_oldest_queued_job_seconds") > 0)
        assert 0 < metric("valuescope_oldest_job_lease_seconds") < 30
        with grpc.insecure_channel(server.address) as channel:
            stub = jobs_pb2_grpc.JobServiceStub(channel)
            stream = stub.WatchJob(v1.WatchJobRequest(name=queued, last_revision=1))
            assert next(stream) == v1.WatchJobResponse(heartbeat=v1.Heartbeat())
            stream.cancel()
        page = server.metrics()
        assert 'valuescope_jobs{kind="attribute_neurons",state="queued"} 1' in page
        assert 'valuescope_jobs{kind="attribute_neurons",state="running"} 1' in page
        for name in (queued, running):
            client.cancel_job(name)
    assert server.stop() == 0


# --- The README --------------------------------------------------------------------------------------------------------


def test_what_the_readme_says_of_jobs_is_so(tiny, tmp_path):
    pytest.importorskip("pyarrow")
    readme = (ROOT / "README.md").read_text()
    (section,) = re.findall(r"### Jobs\n(.*?)\n### ", readme, re.DOTALL)
    (commands,) = re.findall(r"```\n(build/.*?)```", section, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    spec = attribution(tiny, data_set(16))
    (tmp_path / "spec.json").write_text(json_format.MessageToJson(spec))
    name = tiny.create_job(spec, display_name="another").name
    tiny.wait_for_job(name)
    for line in commands.splitlines():
        words = line.split("#")[0].split()
        assert words[0] == "build/client/cpp/valuescope"
        words = [{"jobs/ID": name, "SmolLM2-135M-Instruct": "llama_tied"}.get(w, w) for w in words]
        process = command_line(tiny.server.address, *words[1:], cwd=tmp_path)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, f"{line}\n{stderr}"
        if words[2] == "list":
            assert "night" in stdout, line
    yesterday = datetime.datetime.now() - datetime.timedelta(days=1)
    names = {"client": tiny, "spec": spec, "yesterday": yesterday}
    exec(code, names)
    assert names["job"].get().display_name == "night"
    assert names["result"].neuron_sets
    with pytest.raises(vs.NotFound):
        tiny.job(name)


# --- The command line and Python ---------------------------------------------------------------------------------------


def command_line(server_address, *arguments, **options):
    program = BUILD / "client" / "cpp" / "valuescope"
    return subprocess.Popen(
        [str(program), "--server", server_address, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_the_command_line_watches_over_a_restart_and_says_so(start_server, tmp_path):
    server = start_server(tmp_path, *MODELS)
    with cutting(server.address) as proxy:
        with ready(server) as client:
            name = client.create_job(attribution(client, data_set(4000))).name
            watching = command_line(proxy.address, "jobs", "watch", name)
            await_true(lambda: client.job(name).progress.done > 500)
        server.kill()
        server = start_server(tmp_path, *MODELS)
        proxy.target = server.address
        stdout, stderr = watching.communicate(timeout=120)
        assert watching.returncode == 0, stderr
    lines = stderr.splitlines()
    assert any("the server is away" in line for line in lines)
    assert "\r" not in stderr and "\x1b" not in stderr, "it is no terminal"
    done = [int(line.split()[1].split("/")[0]) for line in lines if "responses" in line]
    assert done == sorted(done) and done[-1] == 4000
    assert len(done) > 3
    assert any("ETA" in line for line in lines)
    assert "num_expressing 1334" in lines[-1]
    assert "scores: artifacts/" in stdout
    assert server.stop() == 0


def test_the_command_line_lists_what_fits(tiny):
    jobs = [job.name for job in tiny.jobs(kind="extract_vectors")]

    def listed(*flags, code=0):
        process = command_line(tiny.server.address, "jobs", "list", *flags)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        return stdout, stderr

    table, _ = listed("--kind", "extract_vectors", "--state", "succeeded,failed", "--model", "llama_tied",
                      "--created_after", "1d", "--created_before", "2126-01-01")  # fmt: skip
    assert [line.split()[0] for line in table.splitlines()[1:]] == jobs
    assert table.splitlines()[0].split()[:5] == ["JOB", "KIND", "STATE", "DONE", "CREATED"]
    assert listed("--display_name", "no such")[0].count("\n") == 1
    assert "queued, running" in listed("--state", "waiting", code=2)[1]
    assert "--created_after" in listed("--created_after", "noon", code=2)[1]
    assert "attribute_neurons" in listed("--kind", "nonsense", code=3)[1]


def test_python_waits_over_a_restart_and_reads_tables(start_server, tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    server = start_server(tmp_path, *MODELS)
    with cutting(server.address) as proxy:
        with ready(server) as client:
            spec = attribution(client, data_set(4000))
            name = client.create_job(spec).name
            kill = threading.Event()

            def restart():
                nonlocal server
                kill.wait(60)
                server.kill()
                server = start_server(tmp_path, *MODELS)
                proxy.target = server.address

            restarting = threading.Thread(target=restart)
            restarting.start()
            await_true(lambda: client.job(name).progress.done > 100)
        patient = vs.Retry(attempts=30, first=0.02, longest=0.2)
        with vs.Client(proxy.address, retry=patient) as client:
            kill.set()
            job = client.job_handle(name)
            assert job.wait(progress=True).state == v1.JOB_STATE_SUCCEEDED
            restarting.join()
            result = job.result()
            scores, summary = result["scores"], result["summary"]
            sizes = client.model(MODEL)
            assert len(scores) == sizes.num_layers * sizes.intermediate_size
            assert scores.dtypes[["layer", "index", "score"]].tolist() == [
                "int32",
                "int32",
                "float64",
            ]
            assert list(summary["layer"]) == list(range(sizes.num_layers))
            assert pandas.api.types.is_integer_dtype(summary["layer"])
            assert result.neuron_sets == list(result.job.result.neuron_sets)
            assert set(result) == {"scores", "summary"}
            assert set(job.result(roles=["summary"])) == {"summary"}
            assert scores["score"].sum() == pytest.approx(summary["score_sum"].sum())
            job.delete()
            with pytest.raises(vs.NotFound):
                job.get()
    assert "4000/4000" in capsys.readouterr().err
    assert server.stop() == 0


def test_python_reads_judged_responses_as_tables_whose_types_are_right(tiny):
    pytest.importorskip("pyarrow")
    texts = ["an adventure", "a nap", "no adventure"]
    responses = [vs.unlabelled("Question?", text, query_id=f"q{i}") for i, text in enumerate(texts)]
    request = vs.judging_request(responses, vs.WordList(["adventure"]))
    job = tiny.job_handle(tiny.create_job(v1.JobSpec(judge_responses=request)))
    job.wait()
    result = job.result()
    table = result["responses"]
    assert table["response.text"].tolist() == texts
    assert table["expresses"].tolist() == result["summary"]["expresses"].tolist()
    assert str(table["expresses"].dtype) == "bool[pyarrow]"
    assert result["summary"]["expresses"].tolist() == [True, False, True]
    assert result.summary["expressing_share"] == pytest.approx(2 / 3)
