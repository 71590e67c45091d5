"""A Dask cluster made through the Kubernetes API (a double of it): created for a run, adaptive, always deleted."""

from pathlib import Path

import pytest
from distributed import LocalCluster

from flows.checks import check_cluster
from flows.cluster.client import open_cluster
from flows.cluster.kubernetes import read_spec
from flows.cluster.settings import ClusterSettings, KubernetesSettings
from store.errors import BadInput, ServiceUnavailable
from tests.support.kubernetes_api import kubernetes_api

SPEC = "deploy/kubernetes/dask-cluster.yaml"


@pytest.fixture
def api(tmp_path, monkeypatch):
    with kubernetes_api(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
        yield api


def settings(address="tcp://127.0.0.1:1", timeout_s=20.0, spec=SPEC):
    return ClusterSettings(
        kind="kubernetes",
        min_jobs=2,
        max_jobs=5,
        start_timeout_s=timeout_s,
        kubernetes=KubernetesSettings(spec=spec, namespace="music", address=address),
    )


def test_a_cluster_is_created_for_the_block_and_deleted_with_it(api):
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as up,
        open_cluster(settings(up.scheduler_address)) as cluster,
    ):
        assert cluster.client.submit(sum, (1, 2)).result() == 3
        made = dict(api.resources)
    (name,) = (key.removeprefix("daskclusters/") for key in made if key.startswith("daskclusters/"))
    created = made[f"daskclusters/{name}"]
    assert name != read_spec(Path(SPEC))["metadata"]["name"], "two runs would share one"
    assert created["metadata"]["namespace"] == "music"
    assert created["spec"]["worker"]["replicas"] == 2
    assert created["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == name
    assert created["spec"]["idleTimeout"] > 0, "left for ever if the flow is killed"
    assert made[f"daskautoscalers/{name}"]["spec"] == {"cluster": name, "minimum": 2, "maximum": 5}
    assert sorted(api.deleted) == sorted(made)
    assert api.resources == {}


def test_without_the_operator_the_run_ends_and_deletes_what_it_created(api):
    api.operator_is_up = False
    with (
        pytest.raises(ServiceUnavailable, match="not touched by the operator after 1 s"),
        open_cluster(settings(timeout_s=1)) as cluster,
    ):
        _ = cluster.client
    assert api.resources == {}
    assert len(api.deleted) == 2


def test_what_kubernetes_refuses_is_one_line(api):
    api.refused = "daskclusters is forbidden"
    with (
        pytest.raises(BadInput, match=r"namespace music .*daskclusters is forbidden.*kubectl auth can-i"),
        open_cluster(settings()) as cluster,
    ):
        _ = cluster.client


def test_an_api_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    with kubernetes_api(tmp_path) as gone:
        monkeypatch.setenv("KUBECONFIG", str(gone.kubeconfig))
    with (
        pytest.raises(BadInput, match=r"cannot be created in namespace music .*ConnectError.*check"),
        open_cluster(settings()) as cluster,
    ):
        _ = cluster.client


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("a: [", "cannot be read"),
        ("kind: Pod", "has 0 resources of kind DaskCluster"),
        ("{kind: DaskCluster, metadata: {name: one}, spec: 1}", "its DaskCluster has no spec.worker"),
    ],
)
def test_a_spec_that_cannot_be_used_is_found_before_anything_starts(tmp_path, content, message):
    spec = tmp_path / "spec.yaml"
    if content is not None:
        spec.write_text(content)
    with pytest.raises(BadInput, match=message):
        check_cluster(settings(spec=str(spec)))
