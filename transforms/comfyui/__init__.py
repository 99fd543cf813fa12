"""The transforms of ComfyUI: one gap, one file."""
