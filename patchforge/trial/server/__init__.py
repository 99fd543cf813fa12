"""A release's own server: its environment, its devices, and a client of its API."""
