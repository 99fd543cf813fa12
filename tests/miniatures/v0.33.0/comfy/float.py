import torch


def manual_stochastic_round_to_float8(x, dtype, generator=None):
    """Rounds up or down by chance, in proportion to the distance."""
    scale = 2.0 ** 7
    sign = torch.sign(x)
    noise = torch.rand(x.size(), generator=generator)
    sign *= torch.floor(x.abs() * scale + noise) / scale
    limits = torch.finfo(dtype)
    torch.clamp(sign, min=limits.min, max=limits.max, out=sign)
    return sign


def stochastic_rounding(value, dtype, seed=0):
    if dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        return manual_stochastic_round_to_float8(value, dtype).to(dtype)
    return value.to(dtype=dtype)
