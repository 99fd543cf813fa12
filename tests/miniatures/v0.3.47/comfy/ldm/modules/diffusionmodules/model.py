import torch

from comfy import model_management


def slice_attention(q, k, v):
    out = torch.zeros_like(k)
    steps = 1
    while True:
        try:
            for index in range(0, q.shape[1], q.shape[1] // steps):
                out[:, :, index] = (q[:, index] @ k).softmax(-1) @ v
            return out
        except model_management.OOM_EXCEPTION as e:
            model_management.soft_empty_cache(True)
            steps *= 2
            if steps > 128:
                raise e


def pytorch_attention(q, k, v):
    try:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0)
    except model_management.OOM_EXCEPTION:
        out = slice_attention(q, k, v)
    return out
