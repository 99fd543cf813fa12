import comfy.options
comfy.options.enable_args_parsing()

import os
from comfy.cli_args import args

if __name__ == "__main__":
    if args.cuda_device is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
        print("shown card:", args.cuda_device)

    if args.deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

    if args.quick_test_for_ci:
        raise SystemExit(0)
