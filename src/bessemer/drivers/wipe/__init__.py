"""Disks that a guest had whole, made to carry nothing of it before anybody else has them."""
