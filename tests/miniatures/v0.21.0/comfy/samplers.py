import torch


def calc_cond_batch(model, conds, x_in, timestep):
    out = torch.zeros_like(x_in)
    for cond in conds:
        out += model(x_in, timestep, cond)
    return out / len(conds)
