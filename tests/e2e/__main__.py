"""`python -m e2e up` and `python -m e2e down`: the cluster with this repository's operator, and every trace of it."""

import os
import sys

from cluster import CommandError, UnavailableError, kind
from cluster.__main__ import main as cluster_main
from e2e import deploy


def main() -> int:
    """Run one command; returns the exit code of `python -m cluster`."""
    match sys.argv[1:]:
        case ["up"]:
            try:
                deploy.up()
            except UnavailableError as error:
                print(f"cluster: UNAVAILABLE: {error}", file=sys.stderr)
                return os.EX_UNAVAILABLE
            except CommandError as error:
                print(f"cluster: FAILED: {error}", file=sys.stderr)
                return 1
            print(
                "# The cluster is up, the operator runs. To use it, run what follows; then README.md, 'On Kubernetes':"
            )
            sys.argv[1:] = ["env"]
            return cluster_main()
        case ["down"]:
            kind.down()
            return 0
        case _:
            print("usage: python -m e2e up | down", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
