"""Proofs that a patched release leaves every device but Intel's as it was."""
