import logging

from comfy import model_management


class VAE:
    def __init__(self, first_stage_model):
        self.first_stage_model = first_stage_model

    def decode(self, samples):
        try:
            return self.first_stage_model.decode(samples)
        except Exception as e:
            if not model_management.is_oom(e):
                raise
            logging.warning("decoding in tiles: %s", e)
        return [self.first_stage_model.decode(tile) for tile in samples]
