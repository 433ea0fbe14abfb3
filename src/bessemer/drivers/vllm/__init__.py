"""vLLM's server, as a sort of engine."""
