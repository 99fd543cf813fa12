"""Watching what runs: metrics, health, upkeep, and whether an update may stay."""
