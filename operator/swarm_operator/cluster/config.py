"""How the operator was started."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KEY_FILE: Final = Path("/etc/swarm-operator/key")
SHORTEST_KEY: Final = 32
"""Bytes of the operator's key at least."""


class ConfigError(Exception):
    """It cannot run like this; the message says what to change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The command line."""

    kubeconfig: str | None = None
    """None: the pod's service account, else the user's own kubeconfig."""
    namespaces: tuple[str, ...] = ()
    """Empty: all."""
    key_file: Path = KEY_FILE
    metrics_port: int = 8080
    """0: none."""
    liveness_port: int = 8081
    """0: none."""
    log_format: str = "json"
    log_level: str = "info"
    proxied: bool = False
    """Whether reports are read through the API server, since pods cannot be reached."""

    def key(self) -> bytes:
        """The operator's key.

        Raises:
            ConfigError: it cannot be read or is too short to protect anything.
        """
        try:
            key = self.key_file.read_bytes().strip()
        except OSError as error:
            remedy = f"make one with `head -c 32 /dev/urandom | base64 > {self.key_file}`, or name one with --key-file"
            raise ConfigError(f"no key in {self.key_file}: {error.strerror}: {remedy}") from error
        if len(key) < SHORTEST_KEY:
            raise ConfigError(f"the key in {self.key_file} has {len(key)} bytes, at least {SHORTEST_KEY} are needed")
        return key


def parse(arguments: Sequence[str] | None = None) -> Config:
    """Read the command line, of this process by default."""
    parser = argparse.ArgumentParser(
        prog="swarm-operator", description="Runs SwarmTrainingJobs on a cluster, from inside or from outside of it."
    )
    parser.add_argument("--kubeconfig", metavar="FILE", help="default: the pod's service account, else your own")
    parser.add_argument(
        "--namespace", action="append", default=[], metavar="NAME", help="work in this one only; may be repeated"
    )
    parser.add_argument(
        "--key-file", type=Path, default=KEY_FILE, metavar="FILE", help="secrets of jobs derive from it"
    )
    parser.add_argument("--metrics-port", type=int, default=8080, metavar="PORT", help="0: none")
    parser.add_argument("--liveness-port", type=int, default=8081, metavar="PORT", help="0: none")
    parser.add_argument("--log-format", choices=("json", "plain"), default="json")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument(
        "--reports",
        choices=("auto", "direct", "proxy"),
        default="auto",
        help="how synchronizers are asked: at their pods' addresses, or through the API server; "
        "auto: the latter where the operator runs outside of the cluster",
    )
    given = parser.parse_args(arguments)
    inside = "KUBERNETES_SERVICE_HOST" in os.environ and given.kubeconfig is None
    return Config(
        kubeconfig=given.kubeconfig,
        namespaces=tuple(dict.fromkeys(given.namespace)),
        key_file=given.key_file,
        metrics_port=given.metrics_port,
        liveness_port=given.liveness_port,
        log_format=given.log_format,
        log_level=given.log_level,
        proxied=given.reports == "proxy" or (given.reports == "auto" and not inside),
    )
