"""The frame of the swarm backend: a fixed header, then the tensor's own bytes, little-endian.

    magic "SWRM" | version u8 | dtype u8 | 2 unused | tag i32 | numel u64 | sequence u64 | numel elements

No shape, no pickle, nothing of variable length: the receiver knows what it asked for, and the header only proves
that the sender agrees.
"""

import struct
from dataclasses import dataclass
from typing import Self

import torch

from swarm_trainer.errors import LinkError

_MAGIC = b"SWRM"
_VERSION = 1
_LAYOUT = struct.Struct("<4sBBxxiQQ")
_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.float16,
    4: torch.bfloat16,
    5: torch.int8,
    6: torch.uint8,
    7: torch.int16,
    8: torch.int32,
    9: torch.int64,
    10: torch.bool,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

HEADER_BYTES = _LAYOUT.size


@dataclass(frozen=True, slots=True)
class Header:
    """What one frame carries: `numel` elements of `dtype`, the `sequence`-th frame in this direction."""

    dtype: torch.dtype
    numel: int
    tag: int
    sequence: int

    def __str__(self) -> str:
        return f"frame {self.sequence}: {self.numel} x {str(self.dtype).removeprefix('torch.')}, tag {self.tag}"

    def pack(self) -> bytes:
        """HEADER_BYTES bytes."""
        return _LAYOUT.pack(_MAGIC, _VERSION, _CODES[self.dtype], self.tag, self.numel, self.sequence)

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> Self:
        """Read a header of HEADER_BYTES bytes.

        Raises:
            LinkError: It is not one, or of another version.
        """
        magic, version, code, tag, numel, sequence = _LAYOUT.unpack(raw)
        if magic != _MAGIC:
            raise LinkError(f"the peer sent {bytes(raw[:8])!r}..., which is no frame of the swarm backend")
        if version != _VERSION:
            raise LinkError(f"the peer speaks frame version {version}, this side {_VERSION}: install one version")
        if code not in _DTYPES:
            raise LinkError(f"the peer sent the unknown dtype code {code}")
        return cls(_DTYPES[code], numel, tag, sequence)

    def require(self, expected: "Header") -> None:
        """Check a header that came against the one that was expected.

        Raises:
            LinkError: They differ.
        """
        if self != expected:
            raise LinkError(f"expected {expected}; the peer sent {self}")


def check_tensor(tensor: torch.Tensor) -> None:
    """Check that a tensor's memory can go on the wire as it is.

    Raises:
        ValueError: It is not dense and contiguous on the CPU, or its dtype cannot travel.
    """
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or not tensor.is_contiguous():
        raise ValueError(
            f"a link carries contiguous CPU tensors, not shape {tuple(tensor.shape)}, stride {tensor.stride()} on "
            f"{tensor.device}: pass tensor.contiguous().cpu()"
        )
    if tensor.dtype not in _CODES:
        raise ValueError(f"a link does not carry {tensor.dtype}: convert it to one of {', '.join(map(str, _CODES))}")


def memory(tensor: torch.Tensor) -> memoryview:
    """The bytes of a checked tensor, shared and kept alive, not copied."""
    return tensor.detach().view(-1).view(torch.uint8).numpy().data
