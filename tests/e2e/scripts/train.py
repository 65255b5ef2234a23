"""A regression for swarms under test: it trains until somebody makes the file /tmp/end in its container."""

import os
import time
from pathlib import Path

import torch

import swarm_trainer as swarm

END = Path("/tmp/end")
torch.set_num_threads(1)
torch.manual_seed(0)
data = torch.randn(96, 8)
target = data.sum(1, keepdim=True)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
particle = swarm.attach(model, optimizer)
print(f"attached as particle {os.environ['SWARM_PARTICLE_INDEX']}", flush=True)
step = 0
for _ in particle.epochs(1):
    while not END.exists():
        loss = (model(data) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        particle.report(loss=loss)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.6f}", flush=True)
        time.sleep(0.02)
print("finished", flush=True)
