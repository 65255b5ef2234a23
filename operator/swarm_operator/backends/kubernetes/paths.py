"""Where the API server keeps what: paths of collections and of single objects."""

from typing import Final

from swarm_api.names import GROUP, PLURAL, VERSION

_CORE: Final = "api/v1"
_JOBS: Final = f"apis/{GROUP}/{VERSION}"


def pods(namespace: str, name: str = "") -> str:
    """Path of pods, or of one; without a namespace of the pods of all."""
    return _path(_CORE, namespace, "pods", name)


def jobs(namespace: str, name: str = "") -> str:
    """Path of jobs, or of one."""
    return _path(_JOBS, namespace, PLURAL, name)


def services(namespace: str, name: str = "") -> str:
    """Path of Services, or of one."""
    return _path(_CORE, namespace, "services", name)


def secrets(namespace: str) -> str:
    """Path of Secrets."""
    return _path(_CORE, namespace, "secrets")


def claims(namespace: str) -> str:
    """Path of PersistentVolumeClaims."""
    return _path(_CORE, namespace, "persistentvolumeclaims")


def events(namespace: str) -> str:
    """Path of events."""
    return _path(_CORE, namespace, "events")


def lease_of_node(name: str) -> str:
    """Path of the Lease by which a node's kubelet says that it lives."""
    return _path("apis/coordination.k8s.io/v1", "kube-node-lease", "leases", name)


def _path(group: str, namespace: str, resource: str, name: str = "") -> str:
    where = f"namespaces/{namespace}/" if namespace else ""
    return f"{group}/{where}{resource}{f'/{name}' if name else ''}"
