import pytest

from swarm_operator.backends.local.machine import Gpus, cores, detect_gpus


@pytest.mark.parametrize(
    ("visible", "found"),
    [("0,1", ("0", "1")), (" 3 , GPU-ab12 ", ("3", "GPU-ab12")), ("", ()), ("-1", ()), ("2,-1,3", ("2",))],
)
def test_cuda_visible_devices_limits_what_is_dealt(visible, found):
    assert detect_gpus({"CUDA_VISIBLE_DEVICES": visible}) == found


def test_nvidia_smi_is_asked_where_nothing_limits(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "GPU 0: NVIDIA (UUID: a)"; echo "  MIG 1g.5gb Device 0:"; echo "GPU 1: NVIDIA"')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert detect_gpus({}) == ("0", "1")
    program.write_text("#!/bin/sh\necho no driver; exit 9")
    assert detect_gpus({}) == ()


def test_gpus_are_dealt_lowest_first_and_come_back():
    gpus = Gpus(("0", "1", "2"))
    assert gpus.take(2) == ("0", "1")
    assert gpus.take(2) is None
    assert gpus.lacking(2) == "needs 2 GPUs, 1 of 3 free"
    assert gpus.take(0) == ()
    gpus.give_back(("0",))
    assert gpus.take(2) == ("0", "2")


def test_there_is_a_core():
    assert cores() >= 1
