"""Processes on this host: the parts of the product itself, and the confined processes of tenants."""
