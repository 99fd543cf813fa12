"""What a release is asked to make: graphs in ComfyUI's API format, and tiny models with random weights for them."""
