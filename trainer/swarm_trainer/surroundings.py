"""What the operator put around this process: the SWARM_* environment, read once and checked."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarm_api import env
from swarm_trainer.errors import LinkError, NotInSwarmError
from swarm_trainer.wire.auth import Identity


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Of a particle."""

    identity: Identity
    secret: bytes
    address: str
    """`host:port` of the synchronizer; empty where a file tells it."""
    address_file: Path | None

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Surroundings":
        """From the environment of a particle.

        Raises:
            NotInSwarmError: A variable is missing; the message names it.
        """
        address_file = environ.get(env.SYNCHRONIZER_ADDRESS_FILE)
        return cls(
            identity=Identity(
                job_uid=required(environ, env.JOB_UID),
                index=int(required(environ, env.PARTICLE_INDEX)),
                incarnation=int(required(environ, env.INCARNATION)),
                instance_uid=required(environ, env.INSTANCE_UID),
            ),
            secret=Path(required(environ, env.SECRET_FILE)).read_bytes().strip(),
            address="" if address_file else required(environ, env.SYNCHRONIZER_ADDRESS),
            address_file=Path(address_file) if address_file else None,
        )

    def synchronizer(self) -> tuple[str, int]:
        """Host and port of the synchronizer as they are now.

        Raises:
            LinkError: No synchronizer has told its address yet, or it is no address.
        """
        address = self.address
        if self.address_file is not None:
            try:
                address = str(json.loads(self.address_file.read_text())["address"])
            except (OSError, ValueError, KeyError) as error:
                msg = f"no synchronizer's address in {self.address_file}: {error}"
                raise LinkError(msg) from error
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            msg = f"the synchronizer's address is {address!r}, and host:port is needed"
            raise LinkError(msg)
        return host.strip("[]"), int(port)


def in_swarm(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started as a particle."""
    return env.PARTICLE_INDEX in environ


def required(environ: Mapping[str, str], name: str) -> str:
    """The variable's value.

    Raises:
        NotInSwarmError: It is not set.
    """
    value = environ.get(name, "")
    if not value:
        msg = f"{name} is not set: start this process by `swarm run` or by the operator"
        raise NotInSwarmError(msg)
    return value
