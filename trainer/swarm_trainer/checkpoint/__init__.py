"""What a synchronizer keeps on disk, so that the swarm outlives all of its processes."""
