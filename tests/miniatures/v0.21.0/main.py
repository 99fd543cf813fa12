import comfy.options
comfy.options.enable_args_parsing()

import os
from comfy.cli_args import args, enables_dynamic_vram

if __name__ == "__main__":
    if args.cuda_device is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
        os.environ['HIP_VISIBLE_DEVICES'] = str(args.cuda_device)

    if args.oneapi_device_selector is not None:
        os.environ['ONEAPI_DEVICE_SELECTOR'] = args.oneapi_device_selector

    if args.quick_test_for_ci:
        raise SystemExit(0)

import comfy.model_management

if args.enable_dynamic_vram or (enables_dynamic_vram() and comfy.model_management.is_nvidia()):
    print("DynamicVRAM is on")
