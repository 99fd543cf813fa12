"""Model files of ComfyUI, Ollama and Hugging Face's cache: one copy of each, under every name that a program wants."""
