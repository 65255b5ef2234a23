"""Debian's packages: the Docker engine, unpacked into the cache, and the root file system of the base images."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import cache, console
from cluster.errors import CommandError, UnavailableError

SUITE = "bookworm"

_ENGINE = (
    *("docker.io", "containerd", "runc", "tini", "iptables"),
    *("libip4tc2", "libip6tc2", "libxtables12", "libnftnl11", "libmnl0", "libnetfilter-conntrack3", "libnfnetlink0"),
    *("libdevmapper1.02.1", "libseccomp2"),
)
# What the official slim images leave out as well.
_APT = 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
_DPKG = "".join(f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "locale", "man"))
_NONINTERACTIVE = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


def engine() -> Path:
    """A folder that holds dockerd and all that it needs.

    The packages are unpacked and not installed: installing them would start a second engine as a service, in the
    machine's own network, and leave both behind.
    """
    root = cache.home() / f"engine-{cache.fingerprint(_ENGINE)}"
    if not root.exists():
        with console.step("getting the Docker engine", 15), _partial(root) as partial:
            _download(_ENGINE, partial / "debs")
            for package in (partial / "debs").glob("*.deb"):
                console.logged(["dpkg-deb", "--extract", package, partial])
            shutil.rmtree(partial / "debs")
            for name in ("iptables", "ip6tables"):
                (partial / "usr/sbin" / name).unlink(missing_ok=True)
                (partial / "usr/sbin" / name).symlink_to("xtables-nft-multi")
    return root


@contextmanager
def root_file_system() -> Iterator[Path]:
    """A minimal Debian with certificates, in a folder that is removed afterwards.

    It trusts what this machine trusts, so that image builds reach the registries that this machine reaches.
    """
    if not shutil.which("debootstrap"):
        with console.step("installing debootstrap", 10):
            _install("debootstrap")
    with tempfile.TemporaryDirectory(prefix="swarm-cluster-") as folder:
        root = Path(folder) / "root"
        with console.step(f"making a Debian {SUITE}", 65):
            command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(root)]
            try:
                console.logged(command)
            finally:
                subprocess.run(["umount", "--quiet", root / "proc", root / "sys"], capture_output=True, check=False)
        for superfluous in ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(root / superfluous)
        (root / "etc/apt/apt.conf.d/slim").write_text(_APT)
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(_DPKG)
        bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
        if bundle.exists():
            shutil.copyfile(bundle, root / "etc/ssl/certs/ca-certificates.crt")
        yield root


def _download(packages: tuple[str, ...], target: Path) -> None:
    if not shutil.which("apt-get"):
        raise UnavailableError(
            "no apt-get: without a container registry, a cluster can be made on Debian and Ubuntu only"
        )
    target.mkdir()
    command = ["apt-get", "download", "--quiet", *packages]
    try:
        console.logged(command, cwd=target, env=_NONINTERACTIVE)
    except CommandError:
        console.logged(["apt-get", "update"], env=_NONINTERACTIVE)
        console.logged(command, cwd=target, env=_NONINTERACTIVE)


def _install(package: str) -> None:
    command = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    try:
        console.logged(command, env=_NONINTERACTIVE)
    except CommandError:
        console.logged(["apt-get", "update"], env=_NONINTERACTIVE)
        console.logged(command, env=_NONINTERACTIVE)


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        partial = Path(folder) / "partial"
        partial.mkdir()
        yield partial
        partial.rename(target)
