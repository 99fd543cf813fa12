"""``patchforge arbiter``: one card for ComfyUI and Ollama; one command, one file."""
