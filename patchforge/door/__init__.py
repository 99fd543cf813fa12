"""The door: which roles may use which routes of ComfyUI and Ollama, and nginx's configuration for that."""
