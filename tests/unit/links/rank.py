"""One of two ranks that meet by init_process_group: `rank.py RANK STORE_FILE`."""

import sys
import threading
from datetime import timedelta

import torch
import torch.distributed as dist

import swarm_trainer.links
from swarm_trainer.links.group import SwarmProcessGroup

assert swarm_trainer.links, "importing it has registered the backend"
rank, path = int(sys.argv[1]), sys.argv[2]
store = dist.FileStore(path, 2)
dist.init_process_group("swarm", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=30))
assert isinstance(dist.group.WORLD, SwarmProcessGroup)
assert dist.get_backend() == "swarm"

numbers = torch.arange(1000.0)
if rank == 0:
    dist.send(numbers, 1, tag=3)
else:
    room = torch.empty(1000)
    assert dist.recv(room, 0, tag=3) == 0
    assert torch.equal(room, numbers)
    assert dist.recv(room, tag=4) == 0, "the only peer there is"
    assert torch.equal(room, -numbers)
if rank == 0:
    dist.send(-numbers, 1, tag=4)

total = torch.full((5,), rank + 1.0)
dist.all_reduce(total)
assert total.tolist() == [3.0] * 5
best = torch.tensor([float(rank)])
work = dist.all_reduce(best, dist.ReduceOp.MAX, async_op=True)
assert work is not None
work.wait()
assert best.item() == 1.0
word = torch.full((4,), rank)
dist.broadcast(word, src=1)
assert word.tolist() == [1] * 4
dist.barrier()

again = dist.new_group([0, 1], backend="swarm")
dist.all_reduce(total, group=again)
assert total.tolist() == [6.0] * 5
dist.barrier(group=again)
assert [thread.name for thread in threading.enumerate()].count("swarm-links") == 1, "one loop moves all groups"
dist.destroy_process_group()
