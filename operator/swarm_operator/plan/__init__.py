"""What should happen next to a job: pure functions over what was observed, with no clock of their own."""
