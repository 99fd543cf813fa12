"""Runs a patched release for real, on the hardware at hand or an emulated XPU, and says what that proves."""
