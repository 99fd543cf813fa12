import torch
from torch import einsum

from comfy import model_management


def attention_basic(q, k, v, heads, mask=None):
    return einsum("b i j, b j d -> b i d", einsum("b i d, b j d -> b i j", q, k).softmax(-1), v)


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
        except model_management.OOM_EXCEPTION as e:
            if steps > 64:
                raise e
            model_management.soft_empty_cache(True)
            steps *= 2


def attention_pytorch(q, k, v, heads, mask=None):
    b, _, inner = q.shape
    q, k, v = (t.view(b, -1, heads, inner // heads).transpose(1, 2) for t in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=0.0, is_causal=False)
    return out.transpose(1, 2).reshape(b, -1, inner)
