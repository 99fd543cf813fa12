import logging

import comfy.model_management
import torch


class ModelPatcher:
    def __init__(self, model, load_device):
        self.model, self.load_device = model, load_device

    def load(self, device_to, lowvram_model_memory=0):
        for name, module in self.model.named_modules():
            module.to(device_to)
            if comfy.model_management.is_device_cuda(device_to):
                torch.cuda.synchronize()
            logging.debug("loaded %s", name)
