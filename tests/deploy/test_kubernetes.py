"""The objects of deploy/kubernetes and deploy/helm: valid in every supported Kubernetes, and true to the server.

kubectl (kustomize) and helm are the real programs: on PATH, or fetched by scripts/kubernetes_tools.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from fastapi.routing import APIRoute

from serving.cli.serve import serve
from serving.gateway import health
from serving.triton.metrics import SPADE

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES, CHART = ROOT / "deploy/kubernetes", ROOT / "deploy/helm/spade-serve"
VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
VARIANTS = {"cpu": [], "gpu": ["-f", str(CHART / "values-gpu.yaml")], "keda": ["--set", "autoscaling=keda"]}
OTHERS = {"ScaledObject", "ServingRuntime", "InferenceService"}  # of KEDA and KServe, whose schemas are not at hand

Object = dict[str, Any]


def tool(name: str) -> str:
    """The path of a program. Skips the test where it is missing."""
    found = shutil.which(name, path=f"{ROOT / 'build/kubernetes_tools'}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"there is no {name}: run scripts/kubernetes_tools")
    return found


def objects(text: str) -> list[Object]:
    return [one for one in yaml.safe_load_all(text) if one]


def rendered(*command: str) -> dict[tuple[str, str], Object]:
    """The objects that a program prints, by kind and name."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {(one["kind"], one["metadata"]["name"]): one for one in objects(done.stdout)}


def files() -> Iterator[Object]:
    """The objects of the base and its autoscaler, as they are written."""
    for folder in ("base", "components/hpa"):
        for path in sorted((KUBERNETES / folder).glob("[!k]*.yaml")):
            yield from objects(path.read_text())


def of_kind(kind: str) -> Object:
    return next(one for one in files() if one["kind"] == kind)


def validate(one: Object) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(one, version, strict=True)


def pod() -> Object:
    spec: Object = of_kind("Deployment")["spec"]["template"]["spec"]
    return spec


def runtime() -> Object:
    found: Object = yaml.safe_load((ROOT / "deploy/kserve/servingruntime.yaml").read_text())
    return found


@pytest.mark.parametrize("kind", [one["kind"] for one in files()])
def test_the_files_are_valid_in_every_version(kind: str) -> None:
    validate(of_kind(kind))


def test_a_wrong_field_is_noticed() -> None:
    wrong = of_kind("Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["startupProbe"]["failureTreshold"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="failureTreshold"):
        validate(wrong)


@pytest.mark.parametrize("variant", VARIANTS)
def test_overlays_are_valid_and_the_chart_renders_the_same_objects(variant: str) -> None:
    overlay = rendered(tool("kubectl"), "kustomize", str(KUBERNETES / "overlays" / variant))
    chart = rendered(tool("helm"), "template", "spade", str(CHART), *VARIANTS[variant])
    assert chart == overlay
    for (kind, _), one in overlay.items():
        if kind not in OTHERS:
            validate(one)
    autoscaler = "ScaledObject" if variant == "keda" else "HorizontalPodAutoscaler"
    assert sorted(kind for kind, _ in overlay) == sorted(
        ["ServiceAccount", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", autoscaler]
    )
    assert "replicas" not in overlay["Deployment", "spade-serve"]["spec"], "the autoscaler owns the number"
    container = overlay["Deployment", "spade-serve"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"registry.example.org/spade-serve:{'gpu' if variant == 'gpu' else 'cpu'}"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (variant == "gpu")


def test_the_chart_with_weights_and_without_an_autoscaler() -> None:
    values = ["--set", "autoscaling=none,replicas=3,weightsClaim=coco,args={--weights,/weights/a.safetensors}"]
    chart = rendered(tool("helm"), "template", "spade", str(CHART), *values)
    for one in chart.values():
        validate(one)
    assert not {kind for kind, _ in chart} & {"ScaledObject", "HorizontalPodAutoscaler"}
    deployment = chart["Deployment", "spade-serve"]["spec"]
    assert deployment["replicas"] == 3
    spec = deployment["template"]["spec"]
    assert spec["containers"][0]["args"][-2:] == ["--weights", "/weights/a.safetensors"]
    mounts = {one["name"] for one in spec["containers"][0]["volumeMounts"]}
    assert mounts == {one["name"] for one in spec["volumes"]} == {"keys", "shm", "tmp", "weights"}
    lint = subprocess.run([tool("helm"), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout


@pytest.mark.parametrize("of", ["deployment", "kserve"])
def test_the_server_knows_its_arguments_and_variables(of: str, tmp_path: Path) -> None:
    container = (pod() if of == "deployment" else runtime()["spec"])["containers"][0]
    command, *arguments = container["args"]
    assert command == "serve"
    for mounted in ("/etc/spade/keys.txt", "/mnt/models/model.safetensors"):
        (tmp_path / Path(mounted).name).touch()
        arguments = [str(tmp_path / Path(mounted).name) if one == mounted else one for one in arguments]
    serve.make_context("serve", arguments)  # raises for an unknown option
    options = {f"SPADE_SERVE_{parameter.name.upper()}" for parameter in serve.params if parameter.name}
    assert {one["name"] for one in container["env"]} <= options


def test_probes_ask_routes_of_the_gateway() -> None:
    routes = {route.path for route in health.router.routes if isinstance(route, APIRoute)}
    for container in (pod()["containers"][0], runtime()["spec"]["containers"][0]):
        paths = {one: container[one]["httpGet"]["path"] for one in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert paths == {"startupProbe": "/readyz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
        assert set(paths.values()) <= routes


def test_a_pod_ends_after_its_drain() -> None:
    spec, container = pod(), pod()["containers"][0]
    drain = int(container["args"][container["args"].index("--drain") + 1])
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > before + drain + 5


def test_nothing_in_the_pod_needs_a_right() -> None:
    for spec in (pod(), runtime()["spec"]):
        container = spec["containers"][0]
        context = spec.get("securityContext", {}) | container["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["readOnlyRootFilesystem"]) == (True, 10001, True)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert (context["allowPrivilegeEscalation"], context["seccompProfile"]["type"]) == (False, "RuntimeDefault")
        volumes = {one["name"]: one for one in spec["volumes"]}
        mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
        assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        assert "emptyDir" in mounts["/tmp"]


def test_selectors_and_ports_meet() -> None:
    deployment, service, policy = of_kind("Deployment"), of_kind("Service"), of_kind("NetworkPolicy")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"], policy["spec"]["podSelector"]["matchLabels"]]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in (deployment, of_kind("PodDisruptionBudget"))]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors += [one["labelSelector"]["matchLabels"] for one in spread]
    assert all(selector.items() <= labels.items() for selector in selectors)
    ports = {one["name"]: one["containerPort"] for one in pod()["containers"][0]["ports"]}
    default = {parameter.name: parameter.default for parameter in serve.params}
    assert ports == {name: default[f"{name}_port"] for name in ("http", "grpc", "metrics")}
    assert {one["targetPort"] for one in service["spec"]["ports"]} == set(ports)
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == set(ports)


def test_the_autoscalers_read_a_metric_of_the_server() -> None:
    metric = of_kind("HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    keda = yaml.safe_load((KUBERNETES / "components/keda/scaledobject.yaml").read_text())
    assert metric in {one.name for one in SPADE}
    assert f"sum({metric}{{" in keda["spec"]["triggers"][0]["metadata"]["query"]


def test_the_pods_of_kserve_are_valid() -> None:
    """KServe's own kinds have no schema here; the pod in its runtime has."""
    found = runtime()["spec"]
    spec = {key: found[key] for key in ("containers", "volumes")}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "spade"}, "spec": spec})
    service = yaml.safe_load((ROOT / "deploy/kserve/inferenceservice.yaml").read_text())
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime()["metadata"]["name"]
    assert model["modelFormat"]["name"] in {one["name"] for one in found["supportedModelFormats"]}
    assert model["protocolVersion"] in found["protocolVersions"]
