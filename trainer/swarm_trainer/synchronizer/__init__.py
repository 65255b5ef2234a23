"""The process that holds the center: who is a member, when a round commits, and what the world is told."""
