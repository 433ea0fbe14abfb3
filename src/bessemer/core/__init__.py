"""The vocabulary of the house. It imports nothing of ours, and every other room imports it."""
