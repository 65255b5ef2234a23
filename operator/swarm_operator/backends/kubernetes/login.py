"""How the API server is found and entered: a pod's service account, or a kubeconfig with all that it may hold."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

Login = Callable[[Configuration], Awaitable[None]]
"""Fills in a configuration, again and again; raises LoginError."""


class LoginError(Exception):
    """No cluster can be found or entered; the message says what to set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrance:
    """Where the API server is, and who asks it."""

    server: str
    authority: str | None
    """File with the certificates that the server's must descend from."""
    verified: bool
    certificate: str | None
    private_key: str | None
    """Files, where the client has a certificate of its own."""
    token: str
    proxy: str | None


def login_by(kubeconfig: str | None) -> Login:
    """By this kubeconfig; None: by the pod's service account, else by the user's own kubeconfig."""

    async def login(configuration: Configuration) -> None:
        try:
            await _load(kubeconfig, configuration)
        except (ConfigException, OSError) as error:
            remedy = "run in a pod, or name a file with --kubeconfig"
            raise LoginError(f"no cluster to work in: {error}: {remedy}") from error
        server = urlsplit(configuration.host)
        if configuration.proxy is None and not proxy_bypass(server.hostname or ""):
            configuration.proxy = getproxies().get(server.scheme)

    return login


async def entrance(login: Login, configuration: Configuration) -> Entrance:
    """How to log in, read again; for whoever keeps connections of its own."""
    await login(configuration)
    header = (await configuration.auth_settings()).get("BearerToken", {}).get("value")
    return Entrance(
        server=configuration.host,
        authority=configuration.ssl_ca_cert,
        verified=bool(configuration.verify_ssl),
        certificate=configuration.cert_file,
        private_key=configuration.key_file,
        token=str(header or "").rpartition(" ")[2],
        proxy=configuration.proxy,
    )


async def _load(kubeconfig: str | None, configuration: Configuration) -> None:
    if kubeconfig is None:
        with contextlib.suppress(ConfigException):
            load_incluster_config(client_configuration=configuration)
            return
    await load_kube_config(config_file=kubeconfig, client_configuration=configuration, persist_config=False)
