"""Inference engines: confined processes that serve the OpenAI API behind a unix socket; a folder beside per sort."""
