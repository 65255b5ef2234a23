"""Training scripts for swarms of real processes: small, observable, and as long as the test wants them to be."""

import textwrap

_SCRIPT = '''
import hashlib, json, logging, math, os, signal, sys, time
import torch
from torch.utils.data import DataLoader, TensorDataset
import swarm_trainer as swarm

logging.basicConfig(level=logging.INFO, format="%(message)s")


def say(**fields):
    os.write(1, (json.dumps(fields) + "\\n").encode())  # In one piece, whoever else writes.


def digest():
    """Of the model as it is now."""
    parts = (tensor.numpy().tobytes() for _, tensor in sorted(model.state_dict().items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


index = int(os.environ["SWARM_PARTICLE_INDEX"])
torch.manual_seed(index)
model = torch.nn.Linear(8, 1)
with torch.no_grad():
    model.weight.fill_(10.0)  # The truth is 1: the loss begins at about 600.
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
data = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
loader = DataLoader(TensorDataset(data, data.sum(1, keepdim=True)), batch_size=8)
SETUP
particle = swarm.attach(model, optimizer, state=REGISTERED)
ATTACHED
step = 0
for epoch in particle.epochs(EPOCHS):
    over = False
    while not over:
        over = ONE_PASS or os.path.exists(f"end-{epoch}")
        for x, y in particle.batches(loader):
            loss = (model(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            REPORT
            BEFORE_STEP
            optimizer.step()
            step += 1
            AFTER_STEP
            say(step=step, epoch=epoch, loss=loss.item())
            time.sleep(PAUSE)
END
say(done=True, progress=particle.progress)
'''

REPORT = "particle.report(loss=loss)"


def training(
    *,
    epochs: int = 1,
    one_pass: bool = False,
    pause: float = 0.01,
    setup: str = "",
    registered: str = "None",
    attached: str = "",
    report: str = REPORT,
    before_step: str = "",
    after_step: str = "",
    end: str = "",
) -> str:
    """A regression that prints a line of JSON for every step; 12 batches a pass, shared by the particles.

    Args:
        epochs: How many; epoch e ends at the end of a pass, once the test has made the file `end-e`.
        one_pass: Epochs end after one pass by themselves.
        pause: Seconds of sleep in a step.
        setup: Lines before the particle attaches; others likewise.
        registered: What it attaches as `state`.
    """
    places = {
        "SETUP": setup,
        "ATTACHED": attached,
        "REPORT": report,
        "BEFORE_STEP": before_step,
        "AFTER_STEP": after_step,
        "END": end,
    }
    lines = []
    for line in _SCRIPT.splitlines():
        name = line.strip()
        if name in places:
            indentation = line[: len(line) - len(line.lstrip())]
            lines.append(textwrap.indent(textwrap.dedent(places[name]).strip(), indentation))
        else:
            lines.append(line)
    script = "\n".join(lines)
    words = {"EPOCHS": epochs, "ONE_PASS": one_pass, "PAUSE": pause, "REGISTERED": registered}
    for name, value in words.items():
        script = script.replace(name, str(value))
    return script
