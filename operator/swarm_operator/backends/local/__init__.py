"""A job as processes of this machine: `swarm run`."""
