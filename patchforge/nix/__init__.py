"""Nix expressions: how values are written, and what is generated from templates and pins."""
