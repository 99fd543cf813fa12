import torch

from comfy import model_management


def _summarize_chunk(query, key_t, value, scale, upcast_attention):
    if upcast_attention:
        with torch.autocast(enabled=False, device_type = 'cuda'):
            weights = torch.bmm(query.float(), key_t.float()) * scale
    else:
        weights = torch.bmm(query, key_t) * scale
    return weights.softmax(-1) @ value


def _get_attention_scores_no_kv_chunking(query, key_t, value, scale, upcast_attention):
    if upcast_attention:
        with torch.autocast(enabled=False, device_type = 'cuda'):
            scores = torch.bmm(query.float(), key_t.float()) * scale
    else:
        scores = torch.bmm(query, key_t) * scale
    try:
        probs = scores.softmax(dim=-1)
    except Exception as e:
        model_management.raise_non_oom(e)
        probs = torch.cat([row.softmax(dim=-1) for row in scores.split(1)])
    return probs @ value
