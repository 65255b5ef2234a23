from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unit.trainer.in_process import World, a_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with a_world(tmp_path) as world:
        yield world
    torch.set_num_threads(threads)
