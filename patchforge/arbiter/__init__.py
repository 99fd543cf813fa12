"""One card for ComfyUI and Ollama: who has it, who waits, and what is unloaded in between."""
