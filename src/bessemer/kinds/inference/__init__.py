"""The kinds of inference."""
