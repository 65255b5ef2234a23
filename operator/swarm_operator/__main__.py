"""`swarm-operator`: the operator of a cluster."""

import asyncio
import sys

from swarm_operator.backends.kubernetes.login import LoginError
from swarm_operator.cluster import logs, operator
from swarm_operator.cluster.config import ConfigError, parse


def main() -> int:
    """Run until told to stop; returns the exit code."""
    config = parse()
    logs.configure(config.log_format, config.log_level)
    try:
        asyncio.run(operator.run(config))
    except (ConfigError, LoginError) as error:
        print(f"swarm-operator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
