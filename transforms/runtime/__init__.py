"""The module that patched ComfyUI releases are given, as comfy/patchforge_xpu.py."""
