"""Root disks and seeds of guests, found by uid."""
