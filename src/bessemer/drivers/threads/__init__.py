"""Which hardware threads what runs on this host may use: what is somebody's own is kept from everybody else."""
