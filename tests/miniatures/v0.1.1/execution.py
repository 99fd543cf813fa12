import logging

import comfy.model_management


def execute(node, inputs):
    try:
        return node.run(**inputs)
    except Exception as ex:
        logging.error("a node failed: %s", ex)
        if isinstance(ex, comfy.model_management.OOM_EXCEPTION):
            logging.error("out of memory, everything is unloaded")
            comfy.model_management.unload_all_models()
        raise
