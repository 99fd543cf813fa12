import logging

import torch

from comfy.cli_args import args

try:
    import comfy_kitchen as ck
    from comfy_kitchen.tensor import QuantizedTensor

    if torch.version.cuda is None:
        ck.registry.disable("cuda")

    ck.registry.disable("triton")
    for name, backend in ck.list_backends().items():
        logging.info("kitchen back end %s: %s", name, backend)
except ImportError:
    logging.warning("comfy-kitchen is not installed")
