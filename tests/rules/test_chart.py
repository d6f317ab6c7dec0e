"""The Helm chart: what its examples render to, what its schema refuses, and when its alerts fire."""

import json
import os
import pathlib
import platform
import re
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "valuescope"
CACHE = pathlib.Path(
    os.environ.get("VALUESCOPE_CACHE", pathlib.Path.home() / ".cache" / "valuescope")
)
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
NAMES = [path.stem for path in EXAMPLES]

# docker/setup brings helm for this kind of processor alone.
needs_helm = pytest.mark.skipif(platform.machine() != "x86_64", reason="no helm for this processor")


def helm(*arguments):
    return subprocess.run(
        [CACHE / "bin" / "helm", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def rendered(example, *settings):
    """Objects of a release called lab."""
    done = helm(
        "template", "lab", CHART, "-n", "lab", "-f", CHART / "examples" / example, *settings
    )
    assert done.returncode == 0, done.stderr
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def of_kind(objects, kind):
    return [o for o in objects if o["kind"] == kind]


def pods(objects):
    """Pod specifications by the names of their Deployments."""
    return {
        o["metadata"]["name"]: o["spec"]["template"]["spec"] for o in of_kind(objects, "Deployment")
    }


def server_of(pod):
    (container,) = pod["containers"]
    return container


def flags_of(pod):
    arguments = [argument.removeprefix("--") for argument in server_of(pod)["args"]]
    return {a.partition("=")[0]: a.partition("=")[2] for a in arguments}


@pytest.fixture(scope="module")
def releases():
    return {path.stem: rendered(path.name) for path in EXAMPLES}


def test_there_are_examples_for_one_node_a_lab_and_gpus():
    assert set(NAMES) >= {"single-node", "lab", "gpu"}


@needs_helm
@pytest.mark.parametrize("name", NAMES)
def test_the_linter_has_nothing_to_say(name):
    done = helm("lint", "--strict", "--quiet", CHART, "-f", CHART / "examples" / f"{name}.yaml")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@needs_helm
@pytest.mark.parametrize(
    ("example", "setting", "told"),
    [
        ("lab", "pools.small.replicas=-1", "/pools/small/replicas"),
        ("lab", "pools.small.replica=2", "replica"),
        ("lab", "pools.small.models=null", "/pools/small"),
        ("lab", "pools.small.models[0]=../secret", "/pools/small/models/0"),
        ("lab", "pools.small.device=tpu", "/pools/small/device"),
        ("lab", "pools.small.resources.limits.memory=lots", "/pools/small/resources/limits/memory"),
        ("lab", "pools.small.resources.limits.memory=null", "memory"),
        ("lab", "pools.Small.device=cpu", "Small"),
        ("lab", "pools.small.flags.listen=0.0.0.0:1", "listen"),
        ("lab", "flags.tls_key=/key", "tls_key"),
        ("lab", "flags.insecure=true", "insecure"),
        ("lab", "drainSeconds=0", "/drainSeconds"),
        ("lab", "preStopSeconds=soon", "/preStopSeconds"),
        ("lab", "store.postgresql.url=postgresql://a:secret@db/x", "/store/postgresql/url"),
        ("lab", "store.postgresql.url=postgresql://a@db/x?password=s", "/store/postgresql"),
        ("lab", "store.postgresql.password=secret", "password"),
        ("lab", "store.postgresql.urlSecret.name=a", "/store/postgresql"),
        ("lab", "artifacts.s3.secretKey=secret", "secretKey"),
        ("lab", "artifacts.s3.credentialsSecret=null", "credentialsSecret"),
        ("lab", "artifacts.s3.endpoint=https://a:b@s3", "/artifacts/s3/endpoint"),
        ("lab", "artifacts.claim=blobs", "one of artifacts.claim and artifacts.s3"),
        ("lab", "access.token=secret", "token"),
        ("lab", "access.tls.secret=", "tokens are not sent in the clear"),
        ("lab", "access.insecure=true", "leave it false"),
        ("lab", "access.jwt.issuer=", "keysConfigMap and issuer need each other"),
        ("lab", "access.tokens.secret=", "access.jwt.keysConfigMap"),
        ("lab", "access.jwt.audience=", "/access/jwt/audience"),
        ("lab", "flags.jwt_issuer=a", "jwt_issuer"),
        ("lab", "flags.tenants_file=/etc/a", "tenants_file"),
        ("lab", "tenants.secret=a", "secret"),
        ("lab", "connectionSeconds=-1", "/connectionSeconds"),
        ("lab", "audit=sometimes", "/audit"),
        ("lab", "gateway.parentRefs[0].namespace=edge", "/gateway/parentRefs/0"),
        ("lab", "gateway.parentRefs[0].kind=Service", "/gateway/parentRefs/0"),
        ("lab", "gateway.hostnames[0]=https://models", "/gateway/hostnames/0"),
        ("lab", "image.digest=latest", "/image/digest"),
        ("lab", "monitoring.serviceMonitor.interval=often", "/monitoring/serviceMonitor/interval"),
        ("lab", "networkPolicy.clients[0].anybody=true", "anybody"),
        ("lab", "pools.large.maxSurge=0", "maxSurge or maxUnavailable"),
        ("lab", "artifacts.s3=null", "artifacts"),
        ("lab", "pools.small.replicas=3", "pools.small: set one of replicas and autoscaling"),
        ("lab", "pools.small.autoscaling.minReplicas=9", "minReplicas is above maxReplicas"),
        ("single-node", "access.insecure=false", "access.tls.secret and access.tokens.secret"),
        ("single-node", "pools.main.replicas=2", "a SQLite file serves one server"),
        ("single-node", "artifacts.claim=blobs", "store.postgresql alone"),
        ("single-node", "pools=null", "missing property 'pools'"),
        ("single-node", "models.claim=", "models.claim"),
        ("gpu", "pools.gpu.resources.limits.nvidia\\.com/gpu=8", "nvidia.com/gpu"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_path(example, setting, told):
    done = helm("template", "lab", CHART, "-f", CHART / "examples" / f"{example}.yaml",
                "--set", setting)  # fmt: skip
    assert done.returncode != 0, "it was taken"
    assert told in done.stderr


def test_the_schema_knows_no_open_object():
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = []

    def walk(part, path):
        if isinstance(part, dict):
            if "properties" in part:
                known.append(path)
                assert part.get("additionalProperties") is False, path
            for key, inner in part.items():
                walk(inner, f"{path}/{key}")
        elif isinstance(part, list):
            for inner in part:
                walk(inner, path)

    walk(schema, "")
    assert len(known) > 10
    text = (CHART / "values.yaml").read_text()
    assert set(schema["properties"]) - {"global"} == set(yaml.safe_load(text))
    told = text[text.index("# Pools of servers") : text.index("pools: {}")]
    for name in schema["$defs"]["pool"]["properties"]:
        assert re.search(rf"\b{name}\b", told), f"values.yaml does not tell of a pool's {name}"


@needs_helm
@pytest.mark.parametrize("name", NAMES)
def test_pods_have_no_rights(releases, name):
    for pod in pods(releases[name]).values():
        own = server_of(pod)["securityContext"]
        assert own == {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
        assert f"USER {pod['securityContext']['runAsUser']}:" in dockerfile
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert {next(iter(set(v) - {"name"})) for v in pod["volumes"]} <= {
            "persistentVolumeClaim", "emptyDir", "secret", "configMap", "projected",
        }  # fmt: skip


@needs_helm
@pytest.mark.parametrize("name", NAMES)
def test_probes_ask_the_port_that_wants_no_credentials(releases, name):
    for pod in pods(releases[name]).values():
        server, flags = server_of(pod), flags_of(pod)
        asked = {kind: server[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")}  # fmt: skip
        port = int(flags["health_listen"].rsplit(":", 1)[1])
        assert {probe["port"] for probe in asked.values()} == {port}
        assert {kind: probe["service"] for kind, probe in asked.items()} == {
            "startup": "liveness", "readiness": "readiness", "liveness": "liveness",
        }  # fmt: skip
        ports = {p["name"]: p["containerPort"] for p in server["ports"]}
        assert ports == {
            "grpc": int(flags["listen"].rsplit(":", 1)[1]),
            "health": port,
            "metrics": int(flags["metrics_listen"].rsplit(":", 1)[1]),
        }


@needs_helm
@pytest.mark.parametrize("settings", [(), ("--set", "drainSeconds=600,preStopSeconds=30")])
def test_nobody_is_killed_while_it_drains(settings):
    for pod in pods(rendered("lab.yaml", *settings)).values():
        server = server_of(pod)
        ((program, pause),) = [server["lifecycle"]["preStop"]["exec"]["command"]]
        assert program == "sleep"
        drain = int(flags_of(pod)["drain_timeout"].removesuffix("s"))
        # Behind its drain a server has two seconds for each of its last two steps.
        assert pod["terminationGracePeriodSeconds"] >= int(pause) + drain + 5


@needs_helm
@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_named_and_never_shown(releases, name):
    assert not of_kind(releases[name], "Secret")
    for pod in pods(releases[name]).values():
        for variable in server_of(pod).get("env", []):
            told = "value" in variable
            assert told == (variable["name"] == "PGSSLROOTCERT"), variable
        for volume in pod["volumes"]:
            mode = volume.get("secret", volume.get("projected", {})).get("defaultMode", 0o440)
            assert mode == 0o440, volume


@needs_helm
@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_flag_names_is_mounted_and_models_only_to_be_read(releases, name):
    for pod in pods(releases[name]).values():
        server = server_of(pod)
        mounts = {m["mountPath"]: m for m in server["volumeMounts"]}
        assert mounts["/models"]["readOnly"] is True
        (models,) = [v for v in pod["volumes"] if v["name"] == "models"]
        assert models["persistentVolumeClaim"]["readOnly"] is True
        assert {m["name"] for m in mounts.values()} == {v["name"] for v in pod["volumes"]}
        paths = [v.removeprefix("sqlite:") for v in flags_of(pod).values()]
        for path in filter(lambda p: p.startswith("/") and p != "/dev/stderr", paths):
            assert any(path == at or path.startswith(at + "/") for at in mounts), path
        files = {}
        for volume in pod["volumes"]:
            sources = [volume[kind] for kind in ("secret", "configMap") if kind in volume]
            sources += [s["secret"] for s in volume.get("projected", {}).get("sources", [])]
            (at,) = [m["mountPath"] for m in mounts.values() if m["name"] == volume["name"]]
            files |= {f"{at}/{item['path']}": item for s in sources for item in s["items"]}
        asked = {p for p in paths if p.startswith("/etc/")}
        asked |= {v["value"] for v in server.get("env", []) if "value" in v}
        assert asked == set(files)


@needs_helm
def test_one_sqlite_file_is_served_by_one_server_and_outlives_the_release(releases):
    objects = releases["single-node"]
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    (claim,) = of_kind(objects, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (pod,) = pods(objects).values()
    names = [v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]]
    assert claim["metadata"]["name"] in names


@needs_helm
@pytest.mark.parametrize("name", ["lab", "gpu"])
def test_pools_share_database_and_blobs_and_each_has_its_models(releases, name):
    flags = [flags_of(pod) for pod in pods(releases[name]).values()]
    assert len(flags) == 2
    assert flags[0]["store"] == flags[1]["store"]
    assert flags[0]["artifacts"] == flags[1]["artifacts"]
    assert flags[0]["models"] != flags[1]["models"]
    assert not of_kind(releases[name], "PersistentVolumeClaim")


@needs_helm
def test_who_knows_its_callers_is_not_insecure(releases):
    for name in ("lab", "gpu"):
        for pod in pods(releases[name]).values():
            flags = flags_of(pod)
            assert "insecure" not in flags
            assert {"tls_certificate", "tls_key"} <= set(flags)
            assert {"tokens", "tls_client_ca"} & set(flags)


@needs_helm
@pytest.mark.parametrize("name", NAMES)
def test_every_pool_has_a_headless_service_and_a_budget_that_choose_its_pods_alone(releases, name):
    objects = releases[name]
    for deployment in of_kind(objects, "Deployment"):
        own = deployment["metadata"]["name"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        chosen = deployment["spec"]["selector"]["matchLabels"]
        assert chosen.items() <= labels.items()
        (service,) = [s for s in of_kind(objects, "Service") if s["metadata"]["name"] == own]
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["selector"] == chosen
        (budget,) = [
            b for b in of_kind(objects, "PodDisruptionBudget") if b["metadata"]["name"] == own
        ]
        assert budget["spec"]["selector"]["matchLabels"] == chosen
        others = [
            o["spec"]["template"]["metadata"]["labels"]
            for o in of_kind(objects, "Deployment")
            if o["metadata"]["name"] != own
        ]
        assert not any(chosen.items() <= other.items() for other in others)


@needs_helm
def test_the_network_policy_opens_what_is_needed(releases):
    def rules(name):
        (policy,) = of_kind(releases[name], "NetworkPolicy")
        for pod in of_kind(releases[name], "Deployment"):
            chosen = policy["spec"]["podSelector"]["matchLabels"].items()
            assert chosen <= pod["spec"]["template"]["metadata"]["labels"].items()
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        ports = [p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]]
        assert ports == ["grpc", "metrics"]
        assert all(rule["from"] for rule in policy["spec"]["ingress"])
        return [[p["port"] for p in rule["ports"]] for rule in policy["spec"]["egress"]]

    assert rules("single-node") == []
    assert rules("lab") == [[53, 53], [5432, 9000]]
    assert rules("gpu") == [[53, 53], [5432]]


@needs_helm
def test_a_pool_that_scales_leaves_its_replicas_to_the_autoscaler(releases):
    objects = releases["lab"]
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]["name"]
    by_name = {d["metadata"]["name"]: d["spec"] for d in of_kind(objects, "Deployment")}
    assert "replicas" not in by_name[target]
    assert sum("replicas" in spec for spec in by_name.values()) == len(by_name) - 1
    (metric,) = scaler["spec"]["metrics"]
    # What the rules record, by the name and the label that it is served with.
    recorded = metric["external"]["metric"]
    assert recorded["selector"]["matchLabels"] == {"service": target}
    rules = (CHART / "rules.yaml").read_text()
    assert f"record: {recorded['name'].replace('valuescope_', 'valuescope:', 1)}\n" in rules


@needs_helm
def test_a_gateway_is_told_which_pools_have_a_model(releases):
    assert not any(of_kind(objects, "GRPCRoute") for objects in releases.values())
    objects = rendered(
        "lab.yaml",
        *("--set", "gateway.parentRefs[0].name=edge,gateway.parentRefs[0].namespace=edges"),
        *("--set", "gateway.hostnames[0]=models.lab.example"),
        *("--set", "pools.large.models={Qwen3-8B,SmolLM2-135M-Instruct,Llama-3.1-8B}"),
    )
    (route,) = of_kind(objects, "GRPCRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["parentRefs"] == [{"name": "edge", "namespace": "edges"}]
    assert route["spec"]["hostnames"] == ["models.lab.example"]
    told = {}
    for rule in route["spec"]["rules"]:
        backends = {b["name"]: (b["port"], b["weight"]) for b in rule["backendRefs"]}
        models = [h for m in rule.get("matches", []) for h in m["headers"]]
        assert {h["name"] for h in models} <= {"x-valuescope-model"}
        told |= dict.fromkeys([h["value"] for h in models] or ["any"], backends)
    small, large = {"lab-valuescope-small": (50051, 2)}, {"lab-valuescope-large": (50051, 2)}
    assert told == {
        "models/Qwen3-8B": large,
        "models/Llama-3.1-8B": large,
        "models/SmolLM2-135M-Instruct": small | large,
        "any": small | large,
    }
    assert set(small | large) <= {s["metadata"]["name"] for s in of_kind(objects, "Service")}


@needs_helm
def test_many_models_are_several_rules_of_a_route_and_too_many_are_refused():
    def rules(count):
        models = ",".join(f"m{i}" for i in range(count))
        settings = ("--set", "gateway.parentRefs[0].name=edge", "--set", f"pools.large.models={{{models}}}")  # fmt: skip
        return helm("template", "lab", CHART, "-f", CHART / "examples" / "lab.yaml", *settings)

    objects = [o for o in yaml.safe_load_all(rules(100).stdout) if o]
    (route,) = of_kind(objects, "GRPCRoute")
    matches = [len(rule.get("matches", [])) for rule in route["spec"]["rules"]]
    assert len(matches) <= 16 and max(matches) == 8 and sum(matches) == 101
    refused = rules(150)
    assert refused.returncode != 0 and "at most 16 rules" in refused.stderr


@needs_helm
def test_a_pool_with_a_gpu_asks_for_one(releases):
    limits = {
        name: server_of(pod)["resources"]["limits"] for name, pod in pods(releases["gpu"]).items()
    }
    assert limits["lab-valuescope-gpu"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in limits["lab-valuescope-cpu"]
    images = {server_of(pod)["image"] for pod in pods(releases["gpu"]).values()}
    assert len(images) == 2


@needs_helm
def test_a_pools_own_flags_win_and_large_numbers_stay_whole():
    (pod,) = pods(
        rendered(
            "single-node.yaml",
            *("--set", "flags.kv_cache_bytes=1,flags.max_waiting=2000000000"),
            *("--set", "pools.main.flags.batch_invariant=true"),
        )
    ).values()
    flags = flags_of(pod)
    assert flags["kv_cache_bytes"] == "512MiB"
    assert flags["max_waiting"] == "2000000000"
    assert flags["batch_invariant"] == "true"


@needs_helm
def test_the_rules_and_what_is_scraped_are_the_operators_objects(releases):
    (rule,) = of_kind(releases["lab"], "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "rules.yaml").read_text())
    (monitor,) = of_kind(releases["lab"], "ServiceMonitor")
    chosen = monitor["spec"]["selector"]["matchLabels"].items()
    services = of_kind(releases["lab"], "Service")
    assert all(chosen <= service["metadata"]["labels"].items() for service in services)
    ports = {p["name"] for service in services for p in service["spec"]["ports"]}
    assert monitor["spec"]["endpoints"][0]["port"] in ports


def test_alerts_fire_when_they_should_and_only_then(tmp_path):
    promtool = CACHE / "bin" / "promtool"
    cases = (ROOT / "tests" / "rules" / "alerts.yaml").read_text()
    named = {r["alert"] for g in yaml.safe_load((CHART / "rules.yaml").read_text())["groups"]
             for r in g["rules"] if "alert" in r}  # fmt: skip
    tried = yaml.safe_load(cases)["tests"]
    fires = {a["alertname"] for t in tried for a in t["alert_rule_test"] if a.get("exp_alerts")}
    quiet = {a["alertname"] for t in tried for a in t["alert_rule_test"] if not a.get("exp_alerts")}
    assert fires == quiet == named
    file = tmp_path / "alerts.yaml"
    file.write_text(cases.replace("RULES", str(CHART / "rules.yaml")))
    for arguments in (["check", "rules", CHART / "rules.yaml"], ["test", "rules", file]):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_what_the_chart_says_its_version_is_the_servers():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    main = (ROOT / "server" / "main.cc").read_text()
    assert re.findall(r'kVersion\[\] = "([^"]+)"', main) == [chart["appVersion"]]


def test_every_expression_of_the_dashboard_can_be_read_by_prometheus(tmp_path):
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "valuescope.json").read_text())
    expressions = [t["expr"] for p in dashboard["panels"] for t in p.get("targets", [])]
    assert len(expressions) > 30
    rules = [
        {"record": f"panel:{i}", "expr": e.replace("$__rate_interval", "5m")}
        for i, e in enumerate(expressions)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [CACHE / "bin" / "promtool", "check", "rules", file], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
