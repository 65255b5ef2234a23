"""Who has no right to be in the swarm, or no longer: it stays outside, and harms nobody."""

import contextlib
import json
import random
import signal
import socket
import struct
from pathlib import Path

import pytest

from support.processes import eventually
from support.tallied import Tallied, tallied
from support.tally import ROWS
from swarm_api import env, exits
from swarm_trainer.wire.channel import HANDSHAKE_LIMIT

pytestmark = pytest.mark.faults


def visit(scene: Tallied, *pieces: bytes) -> bytes:
    """Say this to the synchronizer, each piece after an answer to the one before; its last words."""
    host, _, port = json.loads((scene.swarm.folder / "where.json").read_text())["address"].rpartition(":")
    heard = b""
    with socket.create_connection((host, int(port)), timeout=20) as sock, contextlib.suppress(ConnectionError):
        for piece in pieces:
            sock.sendall(piece)
            heard = sock.recv(1 << 16)
        while more := sock.recv(1 << 16):
            heard += more
    return heard


def test_garbage_and_half_a_frame_are_hung_up_on(tmp_path: Path) -> None:
    frames = [
        b"GET / HTTP/1.1\r\nHost: synchronizer\r\n\r\n",
        random.Random(1).randbytes(4 * HANDSHAKE_LIMIT),
        struct.pack("!I", HANDSHAKE_LIMIT + 1),
        struct.pack("!I", 2**32 - 1) + b"{",
        struct.pack("!I", 100) + b'{"purpose":',
        struct.pack("!I", 2) + b"{}",
        b"\0",
    ]
    with tallied(tmp_path) as scene:
        assert [visit(scene, frame) for frame in frames] == [b""] * len(frames)


def test_a_handshake_that_was_recorded_opens_no_door(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        hello, proof = scene.cable.opening
        heard = visit(scene, hello, proof)
        assert b"accepted" not in heard
        assert "a connection without the job's secret" in scene.swarm.log("synchronizer-1")
        scene.goes_on(1)
        assert "replaced by a newer connection" not in scene.swarm.log("synchronizer-1")


def test_a_particle_with_another_secret_stays_outside(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        (tmp_path / "forged").write_text("another secret")
        stranger = scene.particle(1, 2, **{env.SECRET_FILE: str(tmp_path / "forged")})
        eventually(lambda: scene.swarm.log("synchronizer-1").count("connection refused") > 2, "it knocks")
        stranger.signal(signal.SIGKILL)


def test_an_old_incarnation_and_a_copy_are_fenced(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        frozen = scene.particles[1]
        frozen.signal(signal.SIGSTOP)
        scene.replace(1)
        scene.goes_on()
        frozen.signal(signal.SIGCONT)
        assert frozen.wait() == exits.FENCED
        for incarnation in (1, 2):
            assert scene.particle(1, incarnation, **{env.INSTANCE_UID: "copy"}).wait() == exits.FENCED


def test_a_replacement_with_another_model_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        scene.kill(1)
        scene.incarnations[1] = 2
        wrong = scene.particle(1, 2, ROWS=str(ROWS + 1))
        assert wrong.wait() == exits.REFUSED
        assert f"'trained' has shape ({ROWS + 1}, " in scene.swarm.log("particle-1-2")
        scene.goes_on(0, 2)
        scene.replace(1)
