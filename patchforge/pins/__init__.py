"""Pins: the revisions, versions and hashes of what patchforge tracks, kept as JSON that the Nix expressions read."""
