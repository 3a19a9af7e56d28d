"""What trainings change: each attaches to a base and leaves it bitwise as it was."""
