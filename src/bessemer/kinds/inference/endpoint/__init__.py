"""Endpoint: a served model (see `spec`)."""
