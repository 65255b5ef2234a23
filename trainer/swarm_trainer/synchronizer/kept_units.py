"""The table of units as a checkpoint keeps it: made on the event loop, so no unit is looked at by itself."""

import zlib
from base64 import b64decode, b64encode

from pydantic import BaseModel

from swarm_trainer.wire.units import Stream

_FASTEST = 1


class KeptStream(BaseModel):
    """One stream that is not settled."""

    stream: Stream
    state: str
    """Of all units; see `pack_state`."""
    entered: list[int]
    through: list[int]
    refused: list[int]


class KeptTable(BaseModel):
    """All of it."""

    floor: int
    calls: dict[int, int]
    settled: list[Stream]
    streams: list[KeptStream]


def pack_state(state: bytes | bytearray) -> str:
    """A byte for each unit, as JSON can hold it: zlib, base64."""
    return b64encode(zlib.compress(state, _FASTEST)).decode()


def unpack_state(packed: str, total: int) -> bytearray:
    """The bytes of that many units.

    Raises:
        ValueError: It is no packed state, or has another length.
    """
    try:
        state = bytearray(zlib.decompress(b64decode(packed, validate=True)))
    except zlib.error as error:
        msg = f"the state of a stream cannot be read: {error}"
        raise ValueError(msg) from error
    if len(state) != total:
        msg = f"the state of a stream of {total} units has {len(state)}"
        raise ValueError(msg)
    return state
