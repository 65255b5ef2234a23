"""SwarmTrainingJobs on an API server."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarm_api.names import API_VERSION, PLURAL


class Jobs:
    """SwarmTrainingJobs in the namespace `default`, by plain HTTP as an administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._url = f"{cluster['server']}/apis/{API_VERSION}/namespaces/default/{PLURAL}"
        self._headers = {"Authorization": f"Bearer {user['token']}"}
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)

    def create(self, job: Mapping[str, Any], *, dry_run: bool = False) -> tuple[dict[str, Any], str]:
        """The job as the server has it, and what the server complains of: one of them is empty."""
        return self._ask("POST", "?dryRun=All" if dry_run else "", job)

    def get(self, name: str, subresource: str = "") -> dict[str, Any]:
        """The job, or its scale."""
        found, complaint = self._ask("GET", f"/{name}/{subresource}".rstrip("/"))
        assert not complaint
        return found

    def change(
        self, name: str, change: Mapping[str, Any], subresource: str = "", *, dry_run: bool = False
    ) -> tuple[dict[str, Any], str]:
        """Merge a change into the job, its status or its scale; returns as `create` does."""
        path = f"/{name}/{subresource}".rstrip("/")
        return self._ask("PATCH", f"{path}?dryRun=All" if dry_run else path, change)

    def delete(self, name: str) -> None:
        """It is there no longer."""
        self._ask("DELETE", f"/{name}")

    def _ask(self, verb: str, path: str, body: Any = None) -> tuple[dict[str, Any], str]:
        kind = "application/merge-patch+json" if verb == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": kind}
        request = urllib.request.Request(self._url + path, data=data, headers=headers, method=verb)
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=20) as answer:
                return json.loads(answer.read()), ""
        except urllib.error.HTTPError as error:
            with error:
                return {}, json.loads(error.read())["message"]
