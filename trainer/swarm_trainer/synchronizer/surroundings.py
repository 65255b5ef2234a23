"""What the operator put around a synchronizer: its environment, read once and checked."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarm_api import env
from swarm_api.settings import Settings
from swarm_trainer.surroundings import required

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Of one incarnation."""

    epoch: int
    settings_file: Path
    secret: bytes
    report_token: str
    listen: Address
    report: Address
    address_file: Path | None
    output: Path | None
    checkpoints: Path | None

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Surroundings":
        """From the environment.

        Raises:
            NotInSwarmError: A variable is missing; the message names it.
        """
        return cls(
            epoch=int(required(environ, env.INCARNATION)),
            settings_file=Path(required(environ, env.SETTINGS_FILE)),
            secret=Path(required(environ, env.SECRET_FILE)).read_bytes().strip(),
            report_token=Path(required(environ, env.REPORT_TOKEN_FILE)).read_text().strip(),
            listen=_address(environ.get(env.SYNCHRONIZER_ADDRESS, f"0.0.0.0:{env.PORT}")),
            report=_address(environ.get(env.REPORT_ADDRESS, f"0.0.0.0:{env.REPORT_PORT}")),
            address_file=_path(environ, env.SYNCHRONIZER_ADDRESS_FILE),
            output=_path(environ, env.OUTPUT_DIR),
            checkpoints=_path(environ, env.CHECKPOINT_DIR),
        )

    def settings(self) -> Settings:
        """The settings as they are now."""
        return Settings.model_validate_json(self.settings_file.read_bytes())

    def announce(self, address: Address, report: Address) -> None:
        """Tell where this synchronizer listens, on a machine where the port was not known before."""
        if self.address_file is not None:
            partial = self.address_file.with_suffix(".partial")
            where = {"address": f"{address[0]}:{address[1]}", "report": f"{report[0]}:{report[1]}"}
            partial.write_text(json.dumps(where))
            partial.replace(self.address_file)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None
