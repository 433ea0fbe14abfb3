"""A hub for tests, which speaks Hugging Face's protocol on loopback."""
