"""The start of the miniature: flags, then the device, then whatever needs torch."""
import comfy.options
comfy.options.enable_args_parsing()

import os
from comfy.cli_args import args, enables_dynamic_vram

if __name__ == "__main__":
    os.environ['TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL'] = '1'
    if args.default_device is not None:
        order = ",".join(map(str, [args.default_device, *(n for n in range(32) if n != args.default_device)]))
        os.environ['CUDA_VISIBLE_DEVICES'] = order
        os.environ['HIP_VISIBLE_DEVICES'] = order

    if args.cuda_device is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
        os.environ['HIP_VISIBLE_DEVICES'] = str(args.cuda_device)
        os.environ["ASCEND_RT_VISIBLE_DEVICES"] = str(args.cuda_device)
        print("shown cards:", args.cuda_device)

    if args.oneapi_device_selector is not None:
        os.environ['ONEAPI_DEVICE_SELECTOR'] = args.oneapi_device_selector

    if args.deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ":4096:8")


class Late:
    """Imports what needs torch when it is asked, so that ``--cpu --quick-test-for-ci`` runs without."""

    @property
    def model_management(self):
        import comfy.model_management
        return comfy.model_management


late = Late()

if args.enable_dynamic_vram or (enables_dynamic_vram() and late.model_management.is_nvidia()):
    print("DynamicVRAM is on")

if __name__ == "__main__" and args.quick_test_for_ci:
    raise SystemExit(0)
