"""A Kubernetes cluster for tests and for trying out, on machines with and without a container registry in reach.

`python -m cluster up` with `tests` on the path makes one (see README.md beside this file); `Cluster` drives it from a
test, `apiserver.ApiServer` is the smaller thing for tests that need no kubelet.
"""

from cluster.errors import CommandError, UnavailableError
from cluster.kind import Cluster

__all__ = ["Cluster", "CommandError", "UnavailableError"]
