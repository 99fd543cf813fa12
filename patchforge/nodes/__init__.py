"""Custom-node packs: what is CUDA-only in them, converted, proved and reported."""
