"""The manifests, against the schemas of Kubernetes; of KubeRay's kind, which is not among them, the fields we use."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml

FOLDER = Path(__file__).parents[3] / "docker/k8s"
VERSIONS = ("1.33", "1.37")
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS = [
    manifest for name in KUSTOMIZATION["resources"] for manifest in yaml.safe_load_all((FOLDER / name).read_text())
]
RAY_CLUSTER = next(manifest for manifest in MANIFESTS if manifest["kind"] == "RayCluster")
REST = [manifest for manifest in MANIFESTS if manifest["kind"] != "RayCluster"]

# ray.io/v1, as the API reference of KubeRay 1.5 has it: field -> type; a list is of its one element.
RAY_CLUSTER_SPEC = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"upscalingMode": str, "idleTimeoutSeconds": int, "env": list},
    "headGroupSpec": {"serviceType": str, "rayStartParams": {"*": str}, "template": dict},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "rayStartParams": {"*": str},
            "template": dict,
        }
    ],
}


def mismatches(value: Any, shape: Any, where: str) -> Iterator[str]:
    """What of a value is not as the shape has it."""
    if isinstance(shape, type):
        if not isinstance(value, shape):
            yield f"{where}: {value!r} is no {shape.__name__}"
    elif isinstance(shape, list):
        for index, item in enumerate(value):
            yield from mismatches(item, shape[0], f"{where}[{index}]")
    else:
        for name, item in value.items():
            if (inner := shape.get(name, shape.get("*"))) is None:
                yield f"{where}.{name} is not known"
            else:
                yield from mismatches(item, inner, f"{where}.{name}")


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that the manifests ask for."""
    for manifest in REST:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]
    yield "ray-head", RAY_CLUSTER["spec"]["headGroupSpec"]["template"]
    for group in RAY_CLUSTER["spec"]["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


PODS = dict(pods())
CLAIMS = {one["metadata"]["name"]: one["spec"]["volumeClaimTemplates"] for one in REST if one["kind"] == "StatefulSet"}


def title(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", REST, ids=title)
def test_a_manifest_is_one_of_kubernetes(manifest: dict[str, Any], version: str):
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_of_the_ray_cluster_is_one_of_kubernetes(name: str):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": PODS[name]["spec"]}
    kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)


def test_the_ray_cluster_has_the_fields_of_kuberay():
    assert RAY_CLUSTER["apiVersion"] == "ray.io/v1"
    assert list(mismatches(RAY_CLUSTER["spec"], RAY_CLUSTER_SPEC, "spec")) == []


def test_the_ray_cluster_is_of_the_version_in_the_image():
    assert RAY_CLUSTER["spec"]["rayVersion"] == ray.__version__


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_no_root_and_has_limits(name: str):
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"] + spec.get("initContainers", []):
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_mounts_only_what_it_has(name: str):
    spec = PODS[name]["spec"]
    claims = [claim["metadata"]["name"] for claim in CLAIMS.get(name, ())]
    volumes = {volume["name"] for volume in spec.get("volumes", ())} | set(claims)
    mounts = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", ())}
    assert mounts <= volumes


def test_every_setting_and_secret_that_is_named_is_there():
    def keys(path: str) -> set[str]:
        lines = (FOLDER / path).read_text().splitlines()
        return {line.partition("=")[0] for line in lines if line and not line.startswith("#")}

    secrets = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for pod in PODS.values()
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
        for variable in container.get("env", ())
        if "valueFrom" in variable
    }
    assert secrets <= keys("secrets.env.example")
    assert keys("settings.env") >= {"RAY_ADDRESS", "MLFLOW_TRACKING_URI", "CBAM_RAY_NAMESPACE"}


def test_services_find_their_pods():
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    for service in (manifest for manifest in REST if manifest["kind"] == "Service"):
        assert any(service["spec"]["selector"].items() <= one.items() for one in labels), title(service)
