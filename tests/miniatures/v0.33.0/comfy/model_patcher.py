import logging

import comfy.model_management
import torch


class ModelPatcher:
    def __init__(self, model, load_device):
        self.model, self.load_device = model, load_device

    def get_free_memory(self, device):
        aimdo_device = device.index if getattr(device, "type", None) == "cuda" else None
        logging.debug("asked for the memory of %s", aimdo_device)
        return comfy.model_management.get_free_memory(device)

    def load(self, device_to, lowvram_model_memory=0):
        for name, module in self.model.named_modules():
            module.to(device_to)
            if comfy.model_management.is_device_cuda(device_to):
                torch.cuda.synchronize()
            logging.debug("loaded %s", name)
