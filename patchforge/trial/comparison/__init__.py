"""Upstream's tree beside the patched one: whether it has the same bytes, time and memory."""
