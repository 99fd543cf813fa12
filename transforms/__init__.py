"""What patchforge changes: one gap, one file."""
