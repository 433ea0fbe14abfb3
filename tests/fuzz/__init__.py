"""Readers of hostile bytes, fed by a fuzzer that sees which lines they reach."""
