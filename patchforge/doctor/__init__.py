"""Examines a machine on which ComfyUI is to run on an Intel GPU: facts are gathered, then judged by pure functions."""
