"""The environment of a particle and of a synchronizer: the only way the operator speaks to them at start."""

from typing import Final

JOB_NAME: Final = "SWARM_JOB_NAME"
"""metadata.name of the job."""

JOB_UID: Final = "SWARM_JOB_UID"
"""metadata.uid of the job; part of every identity on the wire."""

NAMESPACE: Final = "SWARM_NAMESPACE"
"""metadata.namespace of the job; `default` on one machine."""

PARTICLE_INDEX: Final = "SWARM_PARTICLE_INDEX"
"""0 <= index < maxReplicas. Its absence tells a script that it runs outside a swarm."""

INCARNATION: Final = "SWARM_INCARNATION"
"""Counts the starts of this particle, or of the synchronizer, from 1. The higher one is the real one."""

INSTANCE_UID: Final = "SWARM_INSTANCE_UID"
"""Uid of this pod or process: tells two copies of one incarnation apart."""

SYNCHRONIZER_ADDRESS: Final = "SWARM_SYNCHRONIZER_ADDRESS"
"""`host:port` of the links and the control channel; for a synchronizer, where to listen (port 0: any)."""

SYNCHRONIZER_ADDRESS_FILE: Final = "SWARM_SYNCHRONIZER_ADDRESS_FILE"
"""On one machine: JSON `{"address": "host:port", "report": "host:port"}`, written by each synchronizer at its
start and read again at every attempt to reach it."""

REPORT_ADDRESS: Final = "SWARM_REPORT_ADDRESS"
"""Synchronizer: `host:port` on which report and metrics are served (port 0: any)."""

SECRET_FILE: Final = "SWARM_SECRET_FILE"  # noqa: S105
"""File with the job's link secret, from which both sides of a connection prove themselves."""

REPORT_TOKEN_FILE: Final = "SWARM_REPORT_TOKEN_FILE"  # noqa: S105
"""Synchronizer: file with the token that a reader of the report must show."""

SETTINGS_FILE: Final = "SWARM_SETTINGS_FILE"
"""Synchronizer: file with `Settings` as JSON, replaced atomically and read again when it changes."""

OUTPUT_DIR: Final = "SWARM_OUTPUT_DIR"
"""Folder that outlives the process: the trained model and metrics.jsonl go there."""

CHECKPOINT_DIR: Final = "SWARM_CHECKPOINT_DIR"
"""Synchronizer: folder of the job's checkpoints; unset: none are kept."""

PORT: Final = 29400
"""Links and control on a cluster."""

REPORT_PORT: Final = 29401
"""Report and metrics on a cluster."""

REPORT_TOKEN_HEADER: Final = "X-Swarm-Token"  # noqa: S105
"""A header of our own, since the API server strips Authorization when it proxies."""

ALL: Final = frozenset(
    value
    for name, value in dict(globals()).items()
    if name.isupper() and isinstance(value, str) and value.startswith("SWARM_")
)
"""Every name of this table: a template may set none of them."""
