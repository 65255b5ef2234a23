"""`swarm-operator`: the operator of a cluster."""

import asyncio
import gc
import sys
from typing import Final

from swarm_operator.backends.kubernetes.login import LoginError
from swarm_operator.cluster import logs, operator
from swarm_operator.cluster.config import ConfigError, parse

GARBAGE: Final = 20_000
"""Objects after which cycles are looked for; Python's 700 are those of a handful of pods."""


def main() -> int:
    """Run until told to stop; returns the exit code."""
    config = parse()
    logs.configure(config.log_format, config.log_level)
    # What the watches tell is hundreds of small objects a pod, and next to none of them is part of a cycle.
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)
    try:
        asyncio.run(operator.run(config))
    except (ConfigError, LoginError) as error:
        print(f"swarm-operator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
