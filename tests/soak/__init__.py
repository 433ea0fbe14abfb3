"""Long runs in which everything that can be restarted is."""
