#!/usr/bin/env python3
"""Installs the chart before this one with every values file that ships into a real API server, and upgrades it to this one.

    check.py [--before REVISION]

The chart before is the one of a git revision: by default the last one whose chart is another than the working tree's.

tests/cluster/setup brings etcd, the API server and the controllers, docker/setup brings helm and kubectl. There is no scheduler and
no kubelet: objects are admitted, in namespaces that enforce the pod security standard restricted, and controllers create the pods,
which stay pending. The commands of deploy/README.md for a cluster are run as they stand. Where there is a build (VALUESCOPE_BUILD,
by default build), its server is shown tokens of the cluster's service accounts.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "valuescope"
CACHE = pathlib.Path(
    os.environ.get("VALUESCOPE_CACHE", pathlib.Path.home() / ".cache" / "valuescope")
)
KUBERNETES = next(CACHE.glob("cluster/kubernetes-*"), None)
GRPC_ROUTES = next(CACHE.glob("cluster/grpcroutes-*.yaml"), None)


def say(line):
    print(f"{time.monotonic() - BEGAN:6.1f} s  {line}", flush=True)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def await_true(condition, what, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"in time: {what}"
        time.sleep(0.2)


class Cluster:
    def __init__(self, folder, stack):
        self._folder = folder
        self._environment = os.environ | {
            "KUBECONFIG": str(folder / "kubeconfig"),
            "PATH": f"{CACHE / 'bin'}:{os.environ['PATH']}",
            "HELM_CACHE_HOME": str(folder / "helm"),
            "HELM_CONFIG_HOME": str(folder / "helm"),
            "HELM_DATA_HOME": str(folder / "helm"),
        }
        client, peer, api, controllers = free_ports(4)
        key, token = folder / "accounts.key", secrets.token_hex(16)
        self.run("openssl", "genrsa", "-out", key, "2048")
        (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        etcd = f"http://127.0.0.1:{client}"
        self._start(
            stack, CACHE / "cluster" / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
        )  # fmt: skip
        self._start(
            stack, KUBERNETES / "kube-apiserver", f"--etcd-servers={etcd}", f"--secure-port={api}",
            "--bind-address=127.0.0.1", f"--cert-dir={folder / 'certificates'}",
            "--authorization-mode=RBAC", f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-cluster-ip-range=10.0.0.0/24", "--service-account-issuer=https://cluster.test",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        )  # fmt: skip
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": f"https://127.0.0.1:{api}", "insecure-skip-tls-verify": True}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }  # fmt: skip
        (folder / "kubeconfig").write_text(json.dumps(config))
        await_true(
            lambda: self.try_run("kubectl", "get", "--raw", "/readyz"), "the API server", 300
        )
        self._start(
            stack, KUBERNETES / "kube-controller-manager", f"--kubeconfig={folder / 'kubeconfig'}",
            f"--service-account-private-key-file={key}", "--leader-elect=false",
            "--bind-address=127.0.0.1", f"--secure-port={controllers}",
            f"--cert-dir={folder / 'controllers'}",
        )  # fmt: skip
        self.version = self.json("kubectl", "version")["serverVersion"]["gitVersion"]

    def _start(self, stack, program, *flags):
        log = (self._folder / f"{program.name}.log").open("wb")
        process = subprocess.Popen([program, *map(str, flags)], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)

    def try_run(self, *command, **options):
        done = subprocess.run(
            [str(word) for word in command], env=self._environment, capture_output=True, text=True, **options
        )  # fmt: skip
        self.told = done.stdout + done.stderr
        return done.returncode == 0

    def run(self, *command, **options):
        assert self.try_run(*command, **options), f"{command}: {self.told}"
        return self.told

    def json(self, *command):
        return json.loads(self.run(*command, "-o", "json"))

    def objects(self, namespace, kind, *more):
        return self.json("kubectl", "-n", namespace, "get", kind, *more)["items"]


def pods_are_created(cluster, namespace):
    """Whether every Deployment has the pods that it asks for, of its newest set, and none was refused."""
    for deployment in cluster.objects(namespace, "deployments"):
        status = deployment.get("status", {})
        if status.get("observedGeneration") != deployment["metadata"]["generation"]:
            return False
        for condition in status.get("conditions", []):
            assert condition["type"] != "ReplicaFailure", condition
        # Nothing becomes ready here: an update makes what maxSurge lets it make.
        if status.get("updatedReplicas", 0) < 1:
            return False
    return True


def check_objects(cluster, namespace, release):
    """Every object of the release is there, as it was sent."""
    manifest = cluster.run("helm", "-n", namespace, "get", "manifest", release)
    kinds = {}
    for kind, name in re.findall(
        r"^kind: (\w+)\nmetadata:\n  name: (\S+)$", manifest, re.MULTILINE
    ):
        cluster.run("kubectl", "-n", namespace, "get", kind, name)
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def chart_of(revision, folder):
    """The chart of a revision, in the folder; the bytes that make it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    archive = ("git", "-C", ROOT, "archive", f"{revision}:{CHART.relative_to(ROOT)}")
    packed = subprocess.run(archive, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    return content_of(folder)


def content_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def chart_before(folder, revision):
    """The chart that this one is an upgrade of, in the folder; this one where no other is known."""
    if revision:
        chart_of(revision, folder)
        return folder
    history = ("git", "-C", ROOT, "log", "-20", "--format=%h", "--", CHART)
    told = subprocess.run(history, capture_output=True, text=True)
    for commit in told.stdout.split():
        if chart_of(commit, folder) != content_of(CHART):
            say(f"the chart before is that of {commit}")
            return folder
    say("no chart before this one is known: it is upgraded from itself")
    return CHART


def install_and_upgrade(cluster, before, example):
    namespace = example.stem
    cluster.run("kubectl", "create", "namespace", namespace)
    cluster.run(
        "kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
    )
    earlier = before / "examples" / example.name
    chart, values = (before, earlier) if earlier.exists() else (CHART, example)
    told = cluster.run("helm", "install", "valuescope", chart, "-n", namespace, "-f", values)
    assert "NOTES:" in told and "violate" not in told, told
    await_true(lambda: pods_are_created(cluster, namespace), f"pods of {namespace}")
    kinds = check_objects(cluster, namespace, "valuescope")
    say(f"{namespace}: installed {kinds}, pods created")
    told = cluster.run("helm", "upgrade", "valuescope", CHART, "-n", namespace, "-f", example,
                       "--set", "drainSeconds=90,flags.log_level=debug",
                       "--set", "gateway.parentRefs[0].name=edge,gateway.hostnames[0]=lab.example")  # fmt: skip
    await_true(
        lambda: pods_are_created(cluster, namespace), f"pods of {namespace} after an upgrade"
    )
    for pod in cluster.objects(namespace, "pods"):
        assert pod["spec"]["serviceAccountName"] == "valuescope", pod
    arguments = [
        " ".join(pod["spec"]["containers"][0]["args"]) for pod in cluster.objects(namespace, "pods")
    ]
    assert any("--log_level=debug" in a and "--drain_timeout=90s" in a for a in arguments), (
        arguments
    )
    routes = check_objects(cluster, namespace, "valuescope").get("GRPCRoute")
    assert routes == 1, routes
    say(f"{namespace}: upgraded, new pods created, a route for a gateway admitted")
    cluster.run("helm", "uninstall", "valuescope", "-n", namespace)
    left = [c["metadata"]["name"] for c in cluster.objects(namespace, "persistentvolumeclaims")]
    assert left == (["valuescope-store"] if kinds.get("PersistentVolumeClaim") else []), left
    say(f"{namespace}: removed, claims left: {left}")


def run_the_readme(cluster, folder):
    readme = (ROOT / "deploy" / "README.md").read_text()
    (commands,) = re.findall(
        r"^## A cluster\n.*?^```sh\n(.*?)^```", readme, re.DOTALL | re.MULTILINE
    )
    folder.mkdir()
    (folder / "deploy").symlink_to(ROOT / "deploy")
    cluster.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-subj", "/CN=lab", "-keyout", "tls.key", "-out", "tls.crt", cwd=folder)  # fmt: skip
    shutil.copy(folder / "tls.crt", folder / "ca.crt")
    for name in ("tokens.jsonl", "tenants.txt", "password", "credentials"):
        (folder / name).write_text("of a test\n")
    cluster.run("bash", "-euo", "pipefail", "-c", commands, cwd=folder)
    await_true(lambda: pods_are_created(cluster, "lab"), "pods of the README's lab")
    kinds = check_objects(cluster, "lab", "valuescope")
    graces = {p["spec"]["terminationGracePeriodSeconds"] for p in cluster.objects("lab", "pods")}
    assert 180 + 5 + 10 in graces, graces
    say(f"deploy/README.md: its {len(commands.splitlines())} commands ran: {kinds}")
    # Every secret that pods name is one that the README made.
    made = {s["metadata"]["name"] for s in cluster.objects("lab", "secrets")}
    text = json.dumps(cluster.objects("lab", "pods"))
    named = set(re.findall(r'"secretName": "([^"]+)"', text))
    named |= set(re.findall(r'"(?:secret|secretKeyRef)": \{[^}]*?"name": "([^"]+)"', text))
    assert named and named <= made, named - made
    cluster.run("kubectl", "delete", "namespace", "lab", "--wait=false")


def check_that_restricted_is_enforced(cluster):
    """Else the rest would show nothing."""
    refused = not cluster.try_run(
        "kubectl", "-n", "restricted", "run", "careless", "--image=valuescope"
    )
    assert refused and "violates PodSecurity" in cluster.told, cluster.told
    say("a pod with more rights is refused: violates PodSecurity")


def check_that_service_accounts_are_known(cluster, folder):
    """By a real server: of two accounts one has a line of its own, and of a token for somebody else's ears nothing is heard."""
    build = pathlib.Path(os.environ.get("VALUESCOPE_BUILD", ROOT / "build"))
    if not (build / "server" / "valuescope-server").exists():
        return say("service accounts: there is no build to show their tokens to")
    folder.mkdir()
    (folder / "jwks.json").write_text(cluster.run("kubectl", "get", "--raw", "/openid/v1/jwks"))
    lines = [
        {"sub": "system:serviceaccount:restricted:gate", "tenant": "lab", "role": "user"},
        {"sub": "system:serviceaccount:restricted:*", "tenant": "lab", "role": "reader"},
    ]
    (folder / "tokens.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cluster.run("kubectl", "-n", "restricted", "create", "serviceaccount", "gate")
    audit = folder / "audit.jsonl"
    server = subprocess.Popen(
        [
            build / "server" / "valuescope-server", "--listen=127.0.0.1:0", "--metrics_listen=",
            f"--store=sqlite:{folder / 'store.db'}", f"--model_root={ROOT / 'tests/golden/families'}",
            f"--tokens={folder / 'tokens.jsonl'}", f"--jwt_keys={folder / 'jwks.json'}",
            "--jwt_issuer=https://cluster.test", f"--audit_log={audit}",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        address = server.stdout.readline().split()[-1]

        def calls(account, audience):
            token = cluster.run("kubectl", "-n", "restricted", "create", "token", account,
                                f"--audience={audience}")  # fmt: skip
            (folder / "token").write_text(token)
            return cluster.try_run(
                build / "client" / "cpp" / "valuescope", "--server", address,
                "--token_file", folder / "token", "models",
            )  # fmt: skip

        for account in ("gate", "default"):
            assert calls(account, "valuescope"), cluster.told
        assert not calls("gate", "https://cluster.test")
        assert "`aud`" in cluster.told, cluster.told
    finally:
        server.terminate()
        server.wait()
    known = [json.loads(line) for line in audit.read_text().splitlines()]
    told = [(line.get("caller"), line.get("role"), line["code"]) for line in known]
    accounts = "system:serviceaccount:restricted:"
    assert (f"{accounts}gate", "user", "OK") in told, told
    assert (f"{accounts}default", "reader", "OK") in told, told
    say("tokens of service accounts say who calls, and one for another audience says nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--before", metavar="REVISION", help="whose chart is upgraded")
    options = parser.parse_args()
    if KUBERNETES is None or GRPC_ROUTES is None or not (CACHE / "bin" / "helm").exists():
        sys.exit("check: run docker/setup and tests/cluster/setup first")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        cluster = Cluster(folder, stack)
        say(f"Kubernetes {cluster.version} answers")
        cluster.run("kubectl", "create", "namespace", "restricted")
        cluster.run("kubectl", "label", "namespace", "restricted",
                    "pod-security.kubernetes.io/enforce=restricted")  # fmt: skip
        account = ("kubectl", "-n", "restricted", "get", "serviceaccount", "default")
        await_true(lambda: cluster.try_run(*account), "the controllers")
        check_that_restricted_is_enforced(cluster)
        check_that_service_accounts_are_known(cluster, folder / "accounts")
        operators = pathlib.Path(__file__).parent / "operators.yaml"
        cluster.run("kubectl", "apply", "-f", operators, "-f", GRPC_ROUTES)
        cluster.run(
            "kubectl", "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"
        )
        run_the_readme(cluster, folder / "readme")
        await_true(
            lambda: not cluster.try_run("kubectl", "get", "namespace", "lab"), "the namespace's end"
        )
        before = chart_before(folder / "before", options.before)
        for example in sorted((CHART / "examples").glob("*.yaml")):
            install_and_upgrade(cluster, before, example)
    say("all admitted")


BEGAN = time.monotonic()
if __name__ == "__main__":
    main()
