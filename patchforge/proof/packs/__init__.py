"""The proof that a converted node pack does on CUDA what it did, and names no CUDA device beside an Intel GPU."""
