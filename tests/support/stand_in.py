"""Stands in for a synchronizer where a test is about processes only: starts in milliseconds and trains nothing.

Particles tell it how they are by files (`PARTICLE` below); it serves the report that a real one would. It ends with 0
and a model when all finished, and also when it is told to stop after some attached.
"""

import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

PARTICLE = """
import json, os, signal, sys, time
def tell(presence="Attached", step=1, progress=0.0):
    folder = os.path.join(os.environ["SWARM_OUTPUT_DIR"], "particles")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, os.environ["SWARM_PARTICLE_INDEX"])
    with open(path + ".new", "w") as file:
        json.dump({
            "index": int(os.environ["SWARM_PARTICLE_INDEX"]), "incarnation": int(os.environ["SWARM_INCARNATION"]),
            "instanceUid": os.environ["SWARM_INSTANCE_UID"], "presence": presence, "step": step, "loss": 1 / step,
            "contributions": 1, "pid": os.getpid(), "progress": progress,
        }, file)
    os.replace(path + ".new", path)
"""
"""Beginning of a particle's script."""


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def report() -> dict:
    told = [json.loads(path.read_text()) for path in Path(os.environ["SWARM_OUTPUT_DIR"]).glob("particles/?")]
    progress = max((particle.pop("progress") for particle in told), default=0.0)
    for particle in told:
        if not alive(particle.pop("pid")) and particle["presence"] == "Attached":
            particle["presence"] = "Detached"
    settings = json.loads(Path(os.environ["SWARM_SETTINGS_FILE"]).read_text())
    finished = {particle["index"] for particle in told if particle["presence"] == "Finished"}
    done = bool(finished) and finished >= set(range(settings["replicas"])) - set(settings["givenUp"])
    present = [particle for particle in told if particle["presence"] != "Detached"]
    return {
        "protocol": 1,
        "uid": os.environ["SWARM_JOB_UID"],
        "incarnation": int(os.environ["SWARM_INCARNATION"]),
        "state": "Finished" if done else "Training" if len(present) >= settings["minReplicas"] else "Waiting",
        "round": max((particle["step"] for particle in told), default=0),
        "bestLoss": min((particle["loss"] for particle in told), default=None),
        "progress": progress,
        "settingsGeneration": settings["generation"],
        "particles": told,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(report()).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def end(*_: object) -> None:
    folder = Path(os.environ["SWARM_OUTPUT_DIR"])
    if (folder / "particles").exists():  # Without any, there was no swarm and so there is no model.
        (folder / "model.safetensors").touch()
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    Path(os.environ["SWARM_SYNCHRONIZER_ADDRESS_FILE"]).write_text(json.dumps({"address": address, "report": address}))
    while report()["state"] != "Finished":
        time.sleep(0.05)
    time.sleep(0.2)
    end()


if __name__ == "__main__":
    sys.exit(main())
