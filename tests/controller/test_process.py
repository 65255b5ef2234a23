"""The program itself, as a pod runs it."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from cluster.processes import free_ports


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_text("0" * 32)
    return path


def operator(*arguments):
    command = [sys.executable, "-m", "swarm_operator", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def answer(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def test_it_answers_probes_logs_json_and_ends_when_told_to(server, key):
    health, metrics = free_ports(2)
    login = server.kubeconfig_of_user("swarm")
    ports = ("--liveness-port", health, "--metrics-port", metrics)
    with operator("--kubeconfig", login, "--namespace", "default", "--key-file", key, *ports) as process:
        try:
            deadline = time.monotonic() + 30
            while answer(health, "/readyz")[0] != 200:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
            assert answer(health, "/healthz") == (200, "ok\n")
            assert "swarm_operator_build_info" in answer(metrics, "/metrics")[1]
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            _, log = process.communicate(timeout=20)
            assert time.monotonic() - begun < 10
        finally:
            process.kill()
    assert process.returncode == 0
    assert "told to stop" in [json.loads(line)["message"] for line in log.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [(("--key-file", "/nowhere"), "--key-file"), (("--kubeconfig", "/nowhere"), "--kubeconfig")],
)
def test_without_a_key_or_a_cluster_it_says_what_to_do(key, arguments, remedy):
    with operator("--key-file", key, *arguments) as process:
        _, told = process.communicate(timeout=30)
    assert process.returncode == 2
    assert remedy in told
    assert "Traceback" not in told
