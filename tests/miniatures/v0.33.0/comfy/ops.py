import torch


def scaled_dot_product_attention(q, k, v, *args, **kwargs):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, *args, **kwargs)


try:
    if torch.cuda.is_available():
        from torch.nn.attention import SDPBackend, sdpa_kernel

        ORDER = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]

        def scaled_dot_product_attention(q, k, v, *args, **kwargs):
            with sdpa_kernel(ORDER, set_priority=True):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, *args, **kwargs)
except (ModuleNotFoundError, TypeError):
    pass
