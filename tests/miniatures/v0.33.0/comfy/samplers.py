import collections

import comfy.model_management
import torch

thread_result = collections.namedtuple("thread_result", "output mult area chunks which error", defaults=(None,))


def _calc_cond_batch_multigpu(model, conds, x_in, output_device, model_options):
    def _handle_batch(device, batch, results):
        try:
            with comfy.model_management.cuda_device_context(device):
                for x, mult, area, batch_chunks, cond_or_uncond in batch:
                    output = model(x.to(device)).to(output_device).chunk(batch_chunks)
                    results.append(thread_result(output, mult, area, batch_chunks, cond_or_uncond))
        except Exception as e:
            results.append(thread_result(None, None, None, None, None, error=e))
            raise

    results = []
    for device, batch in conds.items():
        _handle_batch(device, batch, results)
    return torch.cat([one.output[0] for one in results])
