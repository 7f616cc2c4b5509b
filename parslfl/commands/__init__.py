"""What `cli` runs: flags, what they ask for, and the command that does it."""
