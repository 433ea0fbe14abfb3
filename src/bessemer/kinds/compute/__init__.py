"""The kinds of compute."""
