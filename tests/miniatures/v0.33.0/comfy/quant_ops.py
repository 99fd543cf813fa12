import logging

import torch

from comfy.cli_args import args

try:
    import comfy_kitchen as ck
    from comfy_kitchen.tensor import QuantizedTensor

    if torch.version.cuda is None:
        ck.registry.disable("cuda")

    if torch.version.hip is not None or args.enable_triton_backend:
        try:
            import triton
            logging.info("Triton %s serves the quantised layers", triton.__version__)
        except ImportError as e:
            logging.error("Triton cannot be imported: %s", e)
            ck.registry.disable("triton")
    else:
        ck.registry.disable("triton")
    for name, backend in ck.list_backends().items():
        logging.info("kitchen back end %s: %s", name, backend)
except ImportError:
    logging.warning("comfy-kitchen is not installed")
