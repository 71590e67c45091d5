"""A Dask cluster whose scheduler and workers are pods, made by Dask's Kubernetes operator for one run."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flows.cluster.settings import ClusterSettings
from store.errors import BadInput, ServiceUnavailable

if TYPE_CHECKING:
    from distributed import Client
    from kr8s.objects import APIObject

API_VERSION = "kubernetes.dask.org/v1"
CLUSTER_LABEL = "dask.org/cluster-name"
NEEDED_PARTS = ("metadata.name", "spec.worker", "spec.scheduler.service")
POLL_INTERVAL_S = 1.0


def check_kubernetes(settings: ClusterSettings) -> None:
    """Raise BadInput if dask-kubernetes is not installed, or there is no DaskCluster in the file of the settings."""
    if find_spec("dask_kubernetes") is None:
        raise BadInput(
            "--cluster.kind kubernetes: dask-kubernetes is not installed; "
            "run `pip install 'spectrogram-one[kubernetes]'`"
        )
    read_spec(Path(settings.kubernetes.spec))


@contextmanager
def kubernetes_client(settings: ClusterSettings) -> "Iterator[Client]":
    """Return a client of a Dask cluster that is created in Kubernetes, and deleted with the block.

    Raises: BadInput if there is no spec or no access; ServiceUnavailable if no worker starts in time.

    dask-kubernetes' KubeCluster connects by plain TCP only, so its resources are created here and the
    operator, which does the rest, is the same.
    """
    check_kubernetes(settings)
    from distributed import Client

    from flows.security.dask_tls import read_security

    # Without a folder of certificates, Dask's own configuration (DASK_CONFIG) names them.
    security = read_security(Path(settings.certificates)) if settings.certificates else None
    until = time.monotonic() + settings.start_timeout_s
    resources = make_resources(read_spec(Path(settings.kubernetes.spec)), settings)
    name = resources[0]["metadata"]["name"]
    namespace = settings.kubernetes.namespace
    address = settings.kubernetes.address.replace("{name}", name).replace("{namespace}", namespace)
    with _created(resources, settings) as cluster:
        _wait_until_running(cluster, settings, until)
        try:
            client = Client(address, timeout=max(1.0, until - time.monotonic()), security=security)
        except (OSError, ValueError) as why:
            raise ServiceUnavailable(
                f"{address}: the scheduler of DaskCluster {name} does not respond ({why}); see `kubectl -n "
                f"{namespace} logs deploy/{name}-scheduler`, and --cluster.kubernetes.address"
            ) from None
        with client:
            _wait_for_worker(client, name, settings, until)
            yield client


def read_spec(path: Path) -> dict[str, Any]:
    """Return the DaskCluster of a YAML file. Raises: BadInput if there is none."""
    import yaml

    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as why:
        reason = " ".join(str(why).split())
        raise BadInput(f"{path}: cannot be read ({reason}); see --cluster.kubernetes.spec") from None
    found = [each for each in documents if isinstance(each, dict) and each.get("kind") == "DaskCluster"]
    if len(found) != 1:
        raise BadInput(
            f"{path}: has {len(found)} resources of kind DaskCluster; --cluster.kubernetes.spec needs one"
        )
    spec: dict[str, Any] = found[0]
    for part in NEEDED_PARTS:
        where: Any = spec
        for name in part.split("."):
            where = where.get(name) if isinstance(where, dict) else None
        if not where:
            raise BadInput(f"{path}: its DaskCluster has no {part}; see --cluster.kubernetes.spec")
    return spec


def make_resources(spec: dict[str, Any], settings: ClusterSettings) -> list[dict[str, Any]]:
    """Return the cluster, under a name of its own, and its autoscaler.

    If this process is killed, the operator deletes the cluster once it has been idle.
    """
    name = f"{spec['metadata']['name']}-{uuid4().hex[:8]}"
    namespace = settings.kubernetes.namespace
    scheduler = spec["spec"]["scheduler"]
    service = scheduler["service"]
    service = service | {"selector": service.get("selector", {}) | {CLUSTER_LABEL: name}}
    cluster = spec | {
        "metadata": spec["metadata"] | {"name": name, "namespace": namespace},
        "spec": {"idleTimeout": 2 * round(settings.idle_s)}
        | spec["spec"]
        | {
            "worker": spec["spec"]["worker"] | {"replicas": settings.min_jobs},
            "scheduler": scheduler | {"service": service},
        },
    }
    autoscaler = {
        "apiVersion": API_VERSION,
        "kind": "DaskAutoscaler",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"cluster": name, "minimum": settings.min_jobs, "maximum": settings.max_jobs},
    }
    return [cluster, autoscaler]


@contextmanager
def _created(resources: list[dict[str, Any]], settings: ClusterSettings) -> "Iterator[APIObject]":
    """Create the resources; delete them, whatever happens. Raises: BadInput if Kubernetes refuses them."""
    with ExitStack() as created:
        made = []
        for resource in resources:
            made.append(_create(resource, settings))
            created.callback(_delete, made[-1])
        yield made[0]


def _create(resource: dict[str, Any], settings: ClusterSettings) -> "APIObject":
    from kr8s.objects import new_class

    try:
        kind = new_class(resource["kind"], API_VERSION, asyncio=False)
        made: APIObject = kind(resource, namespace=settings.kubernetes.namespace)
        made.create()
    except _api_errors() as why:
        raise BadInput(
            f"--cluster.kind kubernetes: {resource['kind']} {resource['metadata']['name']} cannot be created "
            f"in namespace {settings.kubernetes.namespace} ({_one_line(why)}); check the access (`kubectl auth can-i "
            "create daskclusters`), the namespace, and that Dask's operator is installed"
        ) from None
    return made


def _delete(made: "APIObject") -> None:
    import kr8s

    with suppress(kr8s.NotFoundError):
        made.delete()


def _api_errors() -> tuple[type[Exception], ...]:
    """Return what is raised if Kubernetes refuses a request, or cannot be found or reached."""
    import httpx
    import kr8s

    return kr8s.ServerError, kr8s.NotFoundError, kr8s.APITimeoutError, httpx.HTTPError, OSError, ValueError


def _one_line(why: Exception) -> str:
    return " ".join(f"{type(why).__name__}: {why}".split())


def _wait_until_running(cluster: "APIObject", settings: ClusterSettings, until: float) -> None:
    """Raise ServiceUnavailable if the operator does not bring the cluster up in time."""
    while True:
        try:
            cluster.refresh()
        except _api_errors() as why:
            raise ServiceUnavailable(
                f"DaskCluster {cluster.name}: its state cannot be read ({_one_line(why)}); see `kubectl -n "
                f"{settings.kubernetes.namespace} get daskclusters`, then run the same command again"
            ) from None
        state: dict[str, Any] = cluster.raw
        phase = state.get("status", {}).get("phase", "")
        if phase == "Running":
            return
        if time.monotonic() > until:
            raise ServiceUnavailable(
                f"DaskCluster {cluster.name}: is {phase or 'not touched by the operator'} after "
                f"{settings.start_timeout_s:g} s (--cluster.start-timeout-s); see `kubectl -n "
                f"{settings.kubernetes.namespace} get pods`, and the log of Dask's operator"
            )
        time.sleep(POLL_INTERVAL_S)


def _wait_for_worker(client: "Client", name: str, settings: ClusterSettings, until: float) -> None:
    try:
        client.wait_for_workers(1, timeout=max(1.0, until - time.monotonic()))
    except TimeoutError:
        raise ServiceUnavailable(
            f"DaskCluster {name}: no worker after {settings.start_timeout_s:g} s (--cluster.start-timeout-s); see "
            f"`kubectl -n {settings.kubernetes.namespace} describe pods`: the requests of the spec may not fit any node"
        ) from None
