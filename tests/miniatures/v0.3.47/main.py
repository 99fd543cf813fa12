import comfy.options
comfy.options.enable_args_parsing()

import os
from comfy.cli_args import args

if __name__ == "__main__":
    if args.default_device is not None:
        order = [args.default_device, *(n for n in range(32) if n != args.default_device)]
        os.environ['CUDA_VISIBLE_DEVICES'] = ",".join(map(str, order))

    if args.cuda_device is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
        os.environ['HIP_VISIBLE_DEVICES'] = str(args.cuda_device)
        print("shown card:", args.cuda_device)

    if args.oneapi_device_selector is not None:
        os.environ['ONEAPI_DEVICE_SELECTOR'] = args.oneapi_device_selector

    if args.quick_test_for_ci:
        raise SystemExit(0)
