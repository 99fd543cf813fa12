import comfy.ops
import torch
from torch import einsum

from comfy import model_management


def attention_split(q, k, v, heads, mask=None):
    steps = 1
    while True:
        try:
            out = []
            for part in q.chunk(steps, dim=1):
                with torch.autocast(enabled=False, device_type = 'cuda'):
                    scores = einsum("b i d, b j d -> b i j", part.float(), k.float())
                out.append(scores.softmax(-1) @ v)
            return torch.cat(out, dim=1)
        except Exception as e:
            if not model_management.is_oom(e) or steps > 64:
                raise
            model_management.soft_empty_cache(True)
            steps *= 2


def attention_pytorch(q, k, v, heads, mask=None):
    b, _, inner = q.shape
    q, k, v = (t.view(b, -1, heads, inner // heads).transpose(1, 2) for t in (q, k, v))
    out = comfy.ops.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=0.0, is_causal=False)
    return out.transpose(1, 2).reshape(b, -1, inner)
