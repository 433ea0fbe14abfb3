"""Who wraps data keys: files on this machine, or a key management system that joins by the same small protocol."""
