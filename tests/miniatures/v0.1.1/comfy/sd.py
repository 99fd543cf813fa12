import logging

from comfy import model_management


class VAE:
    def __init__(self, first_stage_model):
        self.first_stage_model = first_stage_model

    def decode(self, samples):
        try:
            pixels = self.first_stage_model.decode(samples)
        except model_management.OOM_EXCEPTION as e:
            logging.warning("decoding in tiles: %s", e)
            pixels = self.decode_tiled(samples)
        return pixels

    def encode(self, pixels):
        try:
            return self.first_stage_model.encode(pixels)
        except model_management.OOM_EXCEPTION:
            return self.encode_tiled(pixels)

    def decode_tiled(self, samples):
        return [self.first_stage_model.decode(tile) for tile in samples]

    def encode_tiled(self, pixels):
        return [self.first_stage_model.encode(tile) for tile in pixels]
