"""Instance: a virtual machine (see `spec`)."""
