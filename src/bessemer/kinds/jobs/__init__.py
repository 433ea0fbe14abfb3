"""Work that is run to its end."""
