"""The kinds of billing."""
