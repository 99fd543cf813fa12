"""``patchforge models``: model files of ComfyUI, Ollama and Hugging Face's cache; one command, one file."""
