"""`python -m swarm_operator.cli`, where the program `swarm` is not on the path."""

import sys

from swarm_operator.cli import main

sys.exit(main())
