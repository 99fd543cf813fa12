"""Turn ComfyUI releases into ones that work well on Intel GPUs."""

__version__ = "0.1.0"
