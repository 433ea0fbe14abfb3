"""What a machine has: cores, memory, devices and their topology, and what it can run."""
