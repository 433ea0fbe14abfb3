"""Somebody's bucket, into which something of theirs is put."""
