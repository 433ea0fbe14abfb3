"""The embedded micro-guest: an image built from the distribution's kernel and busybox packages."""
