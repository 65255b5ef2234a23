"""`python -m swarm_api.crd`: write everything that is made from the models into the repository."""

import sys
from pathlib import Path

from swarm_api.crd.generate import generated


def main() -> int:
    """Write the files under the working directory, the repository's root, and say which have changed."""
    if not Path("api/swarm_api").is_dir():
        print("swarm_api.crd: run this in the repository's root", file=sys.stderr)
        return 2
    for name, content in generated().items():
        path = Path(name)
        if not path.exists() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
