"""Devices of the host handed into guests, and given back to it."""
