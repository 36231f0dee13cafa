"""Check the manifests that `kubectl kustomize` builds against Kubernetes' schemas and rules for every pod."""

import re
import subprocess

import kubernetes_validate
import pytest

from tests.support.commands import fault
from tests.support.infra_files import (
    KUBERNETES,
    KUBERNETES_VERSION,
    OVERLAYS,
    SETTINGS,
    Manifest,
    assert_confined,
    containers,
    manifests,
    of_kind,
    pods,
)
from tests.support.project import ROOT

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def expanded(overlay: str, container: Manifest) -> list[str]:
    """Return the command with $(NAME) replaced, like the kubelet."""
    values = {variable["name"]: variable.get("value", "x") for variable in container["env"]}
    return [re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], word) for word in container["args"]]


@each_overlay
def test_manifests_match_their_schemas(overlay: str) -> None:
    for manifest in manifests(overlay):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    assert {"Deployment", "NetworkPolicy", "Role", "PodDisruptionBudget", "PersistentVolumeClaim"} <= {
        manifest["kind"] for manifest in manifests(overlay)
    }


def test_schemas_detect_a_mistake() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"portz": []}}

    with pytest.raises(kubernetes_validate.ValidationError, match="portz"):
        kubernetes_validate.validate(service, KUBERNETES_VERSION, strict=True)


@each_overlay
def test_one_namespace_with_restricted_pods(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace").values()

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {manifest["metadata"]["namespace"] for manifest in manifests(overlay) if manifest["kind"] != "Namespace"} == {
        namespace["metadata"]["name"]
    }


@each_overlay
def test_pods_are_confined(overlay: str) -> None:
    assert set(pods(overlay)) == {"mlflow", "prefect", f"worker-{overlay}"}
    for pod in pods(overlay).values():
        assert_confined(pod["spec"])


@each_overlay
def test_servers_and_workers_have_probes(overlay: str) -> None:
    for pod in pods(overlay).values():
        (container,) = pod["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports


@pytest.mark.slow
@each_overlay
def test_commands_exist_in_the_image(overlay: str) -> None:
    for name, container in containers(overlay).items():
        assert fault(expanded(overlay, container)) is None, name


@each_overlay
def test_references_of_containers_exist(overlay: str) -> None:
    keys = {("ConfigMap", name): set(manifest["data"]) for name, manifest in of_kind(overlay, "ConfigMap").items()}
    keys |= {("Secret", name): set(manifest["data"]) for name, manifest in of_kind(overlay, "Secret").items()}
    references = 0
    for name, container in containers(overlay).items():
        for source in [variable["valueFrom"] for variable in container["env"] if "valueFrom" in variable]:
            for kind, how in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if how in source:
                    references += 1
                    assert source[how]["key"] in keys[kind, source[how]["name"]], name
    assert references > 30
    accounts = of_kind(overlay, "ServiceAccount")
    assert all(pod["spec"]["serviceAccountName"] in accounts for pod in pods(overlay).values())
    for pod in pods(overlay).values():
        mounted = {volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume}
        assert mounted <= set(of_kind(overlay, "ConfigMap"))


@each_overlay
def test_secrets_are_only_in_the_secret(overlay: str) -> None:
    for name, container in containers(overlay).items():
        literal = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
        named = {key for key in literal if re.search(r"PASSWORD|(?<!STRING_)SECRET_KEY|ACCESS_KEY|AUTH_STRING$|DATABASE_URL", key)}
        assert named == set(), name
    for settings in of_kind(overlay, "ConfigMap").values():
        assert not [key for key in settings["data"] if re.search(r"PASSWORD|SECRET|_KEY$|_AUTH$|RETUNE_DATABASE", key)]


def test_example_lists_every_used_secret_without_values() -> None:
    text = (KUBERNETES / "base/secrets.example.env").read_text(encoding="utf-8")
    example = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    used = {
        match
        for path in KUBERNETES.rglob("*.*")
        for match in re.findall(r"secretKeyRef\W+name\W+retune-secrets\W+key\W+(\w+)", path.read_text())
    }

    assert set(example) == used
    assert all("REPLACE" in value for value in example.values() if "S3" not in value)
    ignored = subprocess.run(["git", "check-ignore", "--quiet", KUBERNETES / "base/secrets.env"], cwd=ROOT)
    assert ignored.returncode == 0


def test_retune_variables_are_settings() -> None:
    files = [path for path in KUBERNETES.rglob("*.*") if path.name != "kustomization.yaml"]
    named = {match for path in files for match in re.findall(r"\bRETUNE_[A-Z0-9_]+\b", path.read_text(encoding="utf-8"))}

    assert len(named) >= 10
    assert named <= SETTINGS


@each_overlay
def test_only_workers_may_access_kubernetes(overlay: str) -> None:
    with_token = {name for name, pod in pods(overlay).items() if pod["spec"]["automountServiceAccountToken"]}
    (role,) = of_kind(overlay, "Role").values()
    (binding,) = of_kind(overlay, "RoleBinding").values()

    assert with_token == {f"worker-{overlay}"}
    assert not of_kind(overlay, "ClusterRole")
    assert [subject["name"] for subject in binding["subjects"]] == ["worker"]
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {"jobs", "pods", "pods/log", "pods/status"}
    assert "*" not in {verb for rule in role["rules"] for verb in rule["verbs"]}
    written = {resource for rule in role["rules"] for resource in rule["resources"] if {"create", "patch", "delete"} & set(rule["verbs"])}
    assert written == {"jobs"}


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(labels.get(expression["key"]) in expression["values"] for expression in selector.get("matchExpressions", []))


def allows(peer: Manifest, labels: dict[str, str]) -> bool:
    return "podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], labels)


def may_connect(overlay: str, source: dict[str, str], target: dict[str, str], port: int) -> bool:
    """Return whether the policies let a pod with the labels `source` reach `port` of a pod with the labels `target`."""
    policies = [policy["spec"] for policy in of_kind(overlay, "NetworkPolicy").values()]

    def permits(labels: dict[str, str], rules: str, peers: str, other: dict[str, str]) -> bool:
        own = [rule for policy in policies if selects(policy["podSelector"], labels) for rule in policy.get(rules, [])]
        return any(port in [entry["port"] for entry in rule["ports"]] and any(allows(peer, other) for peer in rule[peers]) for rule in own)

    return permits(source, "egress", "to", target) and permits(target, "ingress", "from", source)


@each_overlay
def test_allowed_connections_between_pods(overlay: str) -> None:
    labels = {name.partition("-")[0]: pod["metadata"]["labels"] for name, pod in pods(overlay).items()}
    labels["run"] = {"app.kubernetes.io/component": "run", "app.kubernetes.io/name": "retrain", "app.kubernetes.io/part-of": "prefect"}
    ports = {"mlflow": 5000, "prefect": 4200, "worker": 8080, "run": 8080}
    allowed = {
        (source, target) for source in labels for target in labels if may_connect(overlay, labels[source], labels[target], ports[target])
    }

    assert allowed == {("run", "mlflow"), ("run", "prefect"), ("worker", "prefect")}
    everything = of_kind(overlay, "NetworkPolicy")["default-deny"]["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@each_overlay
def test_pods_cannot_reach_node_credentials(overlay: str) -> None:
    blocks = [
        peer["ipBlock"]
        for policy in of_kind(overlay, "NetworkPolicy").values()
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]

    assert len(blocks) == 3
    assert all("169.254.0.0/16" in block["except"] for block in blocks)


@each_overlay
def test_services_select_pods_and_drain_leaves_a_worker(overlay: str) -> None:
    for name, service in of_kind(overlay, "Service").items():
        assert service["spec"]["selector"].items() <= pods(overlay)[name]["metadata"]["labels"].items()
    (budget,) = of_kind(overlay, "PodDisruptionBudget").values()
    worker = of_kind(overlay, "Deployment")[f"worker-{overlay}"]

    assert budget["spec"]["selector"]["matchLabels"].items() <= worker["spec"]["template"]["metadata"]["labels"].items()
    assert worker["spec"]["replicas"] - budget["spec"]["maxUnavailable"] >= 1


@each_overlay
def test_tables_are_upgraded_by_one_pod(overlay: str) -> None:
    for name in ("mlflow", "prefect"):
        spec = of_kind(overlay, "Deployment")[name]["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        assert all("upgrade" in container["args"] for container in spec["template"]["spec"]["initContainers"])


def test_overlays_can_share_a_cluster() -> None:
    common = [{(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests(overlay)} for overlay in OVERLAYS]
    shared = set(common[0]) & set(common[1])

    assert all(common[0][key] == common[1][key] for key in shared)
    workers = [of_kind(overlay, "Deployment")[f"worker-{overlay}"]["spec"]["selector"]["matchLabels"] for overlay in OVERLAYS]
    assert workers[0] != workers[1]
