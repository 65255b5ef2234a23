from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from unit.trainer.in_process import World, a_world

# Virtual clocks have no business with the real one, and a machine under load is slow.
settings.register_profile("histories", max_examples=10_000, deadline=None)
settings.register_profile("quick", max_examples=100, deadline=None)
settings.load_profile("quick")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with a_world(tmp_path) as world:
        yield world
    torch.set_num_threads(threads)
