"""Bessemer: racks of accelerators as an AI factory that many tenants share."""

__version__ = "0.1.0"
