"""Runs real ComfyUI trees; nothing here is installed with patchforge."""
