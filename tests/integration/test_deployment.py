"""What deploy/ says of the server holds of the server: flags of the chart and of the unit, metrics of the rules and the dashboard, and
the commands of deploy/README.md."""

import json
import os
import platform
import re
import shutil
import subprocess

import pytest
import valuescope as vs
import yaml
from callers import ONE, TINY, Tokens
from certificates import Authority
from conftest import BUILD, CACHE, ROOT, Server, await_true
from issuer import Issuer
from test_s3_store import FakeS3
from test_shared_store import own_database, results, submit

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "valuescope"
PROGRAM = BUILD / "server" / "valuescope-server"


def checked(flags):
    """What the server says of a configuration, and nothing is opened."""
    done = subprocess.run(
        [PROGRAM, *flags, "--check_config"], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files as the chart's pods and the unit find them, by what they are called there."""
    folder = tmp_path_factory.mktemp("places")
    authority = Authority(folder / "ca")
    certificate, key = authority.server()
    tokens = Tokens(folder)
    tokens.create("lab", "user")
    tenants = folder / "tenants.txt"
    tenants.write_text("*:queued=1000:tokens_per_minute=60000\nlab:weight=4\n")
    credentials = folder / "credentials"
    credentials.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    models, store = folder / "models", folder / "store"
    store.mkdir()
    for name in ("SmolLM2-135M-Instruct", "Qwen3-8B", "Llama-3.1-8B-Instruct"):
        (models / name).mkdir(parents=True)
        (models / name / "config.json").write_text("{}")
    return {
        "tls.crt": certificate,
        "tls.key": key,
        "client-ca.crt": authority.root,
        "ca.crt": authority.root,
        "tokens.jsonl": tokens.file,
        "tenants.txt": tenants,
        "jwks.json": Issuer(folder).keys,
        "credentials": credentials,
        "models": models,
        "store": store,
    }


def here(argument, places):
    """An argument of a pod or a unit, whose places are those of this machine."""
    argument = argument.replace("$(VALUESCOPE_THREADS)", "2")
    argument = argument.replace("$(VALUESCOPE_STORE)", "postgresql://valuescope@db/valuescope")
    name = re.fullmatch(r"--\w+=/etc/valuescope/(?:.*/)?([^/]+)", argument)
    if name:
        return f"{argument.split('=')[0]}={places[name[1]]}"
    argument = re.sub(r"=(sqlite:)?/var/lib/valuescope/", rf"=\1{places['store']}/", argument)
    return re.sub(r"=(/models|/var/lib/valuescope-models)$", f"={places['models']}", argument)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no helm for this processor")
@pytest.mark.parametrize(
    "example", sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
)
def test_the_server_takes_the_flags_of_every_pool(example, places):
    rendered = subprocess.run(
        [CACHE / "bin" / "helm", "template", "lab", CHART, "-f", CHART / "examples" / f"{example}.yaml"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout  # fmt: skip
    pods = [
        o["spec"]["template"]["spec"]
        for o in yaml.safe_load_all(rendered)
        if o and o["kind"] == "Deployment"
    ]
    assert pods
    for pod in pods:
        (server,) = pod["containers"]
        assert server["command"] == [PROGRAM.name]
        flags = [here(argument, places) for argument in server["args"]]
        assert checked(flags) == (0, "the configuration is valid\n")
        # The check is one: a flag that is none is refused.
        code, told = checked([*flags, "--replicas=2"])
        assert (code, "unknown flag --replicas" in told) == (2, True)


def test_flags_that_the_chart_keeps_for_itself_exist():
    schema = json.loads((CHART / "values.schema.json").read_text())
    kept = schema["$defs"]["flags"]["propertyNames"]["not"]["enum"]
    help_text = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True).stdout
    flags = set(re.findall(r"^  --(\w+)", help_text, re.MULTILINE))
    assert len(kept) > 20
    assert set(kept) <= flags
    # What opens a door, or says where secrets lie, has a value of its own and is no flag to be slipped in.
    doors = {
        f
        for f in flags
        if re.search(
            "listen|^tls|^tokens|^jwt_(keys|issuer|audience)|credential|insecure|^store", f
        )
    }
    assert doors - set(kept) == set()


def series(page):
    """Names on a page of metrics, those of histograms with their suffixes."""
    return set(re.findall(r"^([a-z0-9_]+)(?:\{| )", page, re.MULTILINE))


def named_metrics():
    """Names in the rules and on the dashboard, and by whom."""
    rules = yaml.safe_load((CHART / "rules.yaml").read_text())
    expressions = [
        (r.get("alert", r.get("record")), r["expr"]) for g in rules["groups"] for r in g["rules"]
    ]
    recorded = {r["record"] for g in rules["groups"] for r in g["rules"] if "record" in r}
    dashboard = json.loads((DEPLOY / "grafana" / "valuescope.json").read_text())
    for panel in dashboard["panels"]:
        expressions += [(panel["title"], t["expr"]) for t in panel.get("targets", [])]
    expressions += [
        (v["name"], v["definition"]) for v in dashboard["templating"]["list"] if "definition" in v
    ]
    found = {}
    for where, expression in expressions:
        for name in re.findall(r"\bvaluescope[:\w]+", re.sub(r'"[^"]*"', "", expression)):
            if name not in recorded:
                found.setdefault(name, where)
    return found


def test_every_metric_of_rules_and_dashboard_is_served(tmp_path):
    fake = FakeS3(tmp_path)
    tokens = Tokens(tmp_path)
    token = tokens.create("lab", "user")
    flags = [*TINY, *fake.flags(tmp_path, "metrics"), f"--tokens={tokens.file}", "--keep_jobs=1s"]
    server = Server(tmp_path, *flags)
    try:
        with vs.Client(server.address, token=token, timeout=60) as client:
            client.wait_until_ready(ONE)
            client.generate(ONE, [1, 2, 3], max_tokens=3)
            job = submit(client, 4).name
            seen = series(server.metrics())  # before the job is removed
            client.wait_for_job(job)
            tokens.create("lab", "reader")
            late = {"valuescope_files_reread_total", "valuescope_expired_total"}
            await_true(lambda: late <= series(server.metrics()))
            seen |= series(server.metrics())
        named = named_metrics()
        assert len(named) >= 25
        assert {name: where for name, where in named.items() if name not in seen} == {}
    finally:
        server.stop()
        fake.stop()


def commands_of_the_readme(heading):
    """Blocks of commands below a heading of deploy/README.md."""
    readme = (DEPLOY / "README.md").read_text()
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", readme, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def shell(commands, **variables):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env=os.environ | {name: str(value) for name, value in variables.items()},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def made_here(client):
    """What a restored store must have: a vector, and a finished job with the bytes of its results."""
    job = client.wait_for_job(submit(client, 40).name).name
    vectors = {vector.name: vector.digest for vector in client.vectors()}
    return job, results(client, job), vectors


def check_found(client, made):
    job, bytes_of_results, vectors = made
    assert vectors.items() <= {vector.name: vector.digest for vector in client.vectors()}.items()
    assert results(client, job) == bytes_of_results
    for artifact in client.artifacts():
        client.read_artifact(artifact.name)  # its blob is there
    client.wait_for_job(submit(client, 4).name)


def test_a_copy_of_a_running_sqlite_store_is_one_to_go_on_from(tmp_path):
    backup, restore, _, _ = commands_of_the_readme("Backup and restore")
    state, copy, empty = (tmp_path / name for name in ("state", "copy", "empty"))
    for folder in (state, copy, empty):
        folder.mkdir()
    server = Server(state, *TINY, f"--store=sqlite:{state}/valuescope.db")
    with server.client(ONE) as client:
        made = made_here(client)
        later = submit(client, 2000).name  # runs while the copy is made
        shell(backup, STATE=state, BACKUP=copy)
        client.cancel_job(later)
    server.kill()
    shell(restore, STATE=empty, BACKUP=copy)
    server = Server(empty, *TINY, f"--store=sqlite:{empty}/valuescope.db")
    with server.client(ONE) as client:
        client.cancel_job(later)
        check_found(client, made)
    assert server.stop() == 0


@pytest.fixture
def database(tmp_path_factory):
    with own_database(tmp_path_factory) as database:
        yield database


def test_a_dump_of_postgresql_and_the_blobs_behind_it_are_one_to_go_on_from(database, tmp_path):
    _, _, backup, restore = commands_of_the_readme("Backup and restore")
    first = f"postgresql://postgres@/postgres?host={database.folder}"
    second = f"postgresql://postgres@/restored?host={database.folder}"
    blobs, copied = tmp_path / "blobs", tmp_path / "copied"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    server = Server(tmp_path / "one", *TINY, f"--store={first}", f"--artifacts={blobs}")
    with server.client(ONE) as client:
        made = made_here(client)
        shell(backup, BACKUP=tmp_path, DATABASE=first)
        shutil.copytree(blobs, copied)
    assert server.stop() == 0
    database.script("CREATE DATABASE restored")
    shell(restore, BACKUP=tmp_path, DATABASE=second)
    server = Server(tmp_path / "two", *TINY, f"--store={second}", f"--artifacts={copied}")
    with server.client(ONE) as client:
        check_found(client, made)
    assert server.stop() == 0


def test_the_laptops_server_starts_as_told(tmp_path):
    (commands,) = commands_of_the_readme("A laptop")
    (tmp_path / "build").symlink_to(BUILD)
    shell(
        f"cd {tmp_path}\n{commands.rstrip()} --check_config", HOME=tmp_path, VALUESCOPE_CACHE=CACHE
    )


def test_one_machine_is_set_up_as_told(places, tmp_path):
    (commands,) = commands_of_the_readme("One machine with a GPU")
    root, clone = tmp_path / "root", tmp_path / "clone"
    for folder in ("usr/local/bin", "etc/systemd/system", "var/lib"):
        (root / folder).mkdir(parents=True)
    clone.mkdir()
    (clone / "build").symlink_to(BUILD)
    shutil.copytree(DEPLOY / "systemd", clone / "deploy" / "systemd")
    settings = clone / "deploy" / "systemd" / "server.json"
    settings.write_text(re.sub(r"(?<=[\":])(?=/(etc|srv|var)/)", str(root), settings.read_text()))
    for name in ("tls.crt", "tls.key", "tokens.jsonl"):
        shutil.copy(places[name], clone / name)
    # What needs a machine of its own is left out: its user, who here is who runs this, and systemd.
    left_out = ("useradd", "systemctl")
    here = [line for line in commands.splitlines() if not line.startswith(left_out)]
    assert len(here) == len(commands.splitlines()) - len(left_out)
    script = re.sub(r"(?<=[ =])(?=/(etc|usr|srv|var)/)", str(root), "\n".join(here))
    script = script.replace("-o valuescope", f"-o {os.getuid()}")
    script = script.replace("-g valuescope", f"-g {os.getgid()}")
    script = script.replace("runuser -u valuescope -- ", "")
    path = f"{root}/usr/local/bin:{os.environ['PATH']}"
    shell(f"cd {clone}\n{script}", PATH=path, VALUESCOPE_CACHE=CACHE)
    unit = (root / "etc/systemd/system/valuescope.service").read_text()
    (started,) = re.findall(r"^ExecStart=(\S+) --config=(\S+)$", unit, re.MULTILINE)
    for path in started:
        assert (root / path.removeprefix("/")).is_file(), path


def test_the_unit_is_sound_and_stops_later_than_the_server_drains(places, tmp_path):
    unit = (DEPLOY / "systemd" / "valuescope.service").read_text()
    settings = json.loads((DEPLOY / "systemd" / "server.json").read_text())
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
    assert stop >= int(settings["drain_timeout"].removesuffix("s")) + 5
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    file = tmp_path / "valuescope.service"
    file.write_text(unit.replace("/usr/local/bin/valuescope-server", str(PROGRAM)))
    for arguments in (["verify"], ["security", "--offline=yes", "--threshold=20"]):
        done = subprocess.run(["systemd-analyze", *arguments, file], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "valuescope.service:" not in done.stderr
