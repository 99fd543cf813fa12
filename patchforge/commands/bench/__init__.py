"""``patchforge bench``: what a release costs on a device; one command, one file."""
