"""The patterns of node packs: one pattern, one file."""
