import argparse

import comfy.options

parser = argparse.ArgumentParser()
parser.add_argument("--cpu", action="store_true", help="Stay on the processor.")
parser.add_argument("--cuda-device", type=str, default=None, help="Indices of the cards to show.")
parser.add_argument("--default-device", type=int, default=None)
parser.add_argument("--directml", type=int, nargs="?", const=-1, default=None)
parser.add_argument("--oneapi-device-selector", type=str, default=None, help="What SYCL may use.")
parser.add_argument("--cuda-malloc", action="store_true")
parser.add_argument("--async-offload", type=int, nargs="?", const=2, default=None)
parser.add_argument("--disable-async-offload", action="store_true")
parser.add_argument("--deterministic", action="store_true")
parser.add_argument("--enable-dynamic-vram", action="store_true")
parser.add_argument("--disable-dynamic-vram", action="store_true")
parser.add_argument("--enable-triton-backend", action="store_true")
parser.add_argument("--quick-test-for-ci", action="store_true")

args = parser.parse_args(None if comfy.options.parsing else [])


def enables_dynamic_vram():
    return not (args.disable_dynamic_vram or args.cpu)
