"""The kinds of fleet."""
