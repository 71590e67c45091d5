"""The files of deploy/kubernetes against the schemas of Kubernetes and of Dask's operator, and what they promise."""

from importlib.resources import files
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

LOADER = yaml.CSafeLoader  # the definition of a DaskCluster has 280 kB: 4 s in Python alone
FOLDER = Path("deploy/kubernetes")
RESOURCES = [
    pytest.param(resource, id=f"{path.name}-{resource['kind']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    for resource in yaml.load_all(path.read_text(), LOADER)
]
KUBERNETES_VERSION = "1.33"


def pods(resource):
    """Return the pod specs within a resource."""
    if resource["kind"] == "Deployment":
        return [resource["spec"]["template"]["spec"]]
    if resource["kind"] == "DaskCluster":
        return [resource["spec"][part]["spec"] for part in ("scheduler", "worker")]
    return []


@pytest.mark.parametrize("resource", RESOURCES)
def test_each_resource_is_valid(resource):
    if resource["apiVersion"].startswith("kubernetes.dask.org"):
        name = f"operator/deployment/helm/dask-kubernetes-operator/crds/{resource['kind'].lower()}.yaml"
        definition = yaml.load(files("dask_kubernetes").joinpath(name).read_text(), LOADER)
        (version,) = definition["spec"]["versions"]
        jsonschema.Draft202012Validator(version["schema"]["openAPIV3Schema"]).validate(resource)
        for pod in pods(resource):
            pod_of = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod}
            kubernetes_validate.validate(pod_of, KUBERNETES_VERSION, strict=True)
    else:
        kubernetes_validate.validate(resource, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("resource", RESOURCES)
def test_pods_are_restricted_and_ask_for_resources(resource):
    for pod in pods(resource):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("resource", RESOURCES)
def test_secrets_are_named_and_never_contained(resource):
    assert resource["kind"] != "Secret"
    for pod in pods(resource):
        for variable in (it for container in pod["containers"] for it in container["env"]):
            secret = any(
                word in variable["name"] for word in ("AUTH", "PASSWORD", "CONNECTION_URL", "SECRET")
            )
            assert ("valueFrom" in variable) == secret, variable["name"]
