"""``patchforge packs``: the commands for custom-node packs; one command, one file."""
