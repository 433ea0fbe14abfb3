"""Second implementations, which import nothing of ours."""
