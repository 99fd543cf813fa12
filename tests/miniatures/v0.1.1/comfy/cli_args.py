import argparse

import comfy.options

parser = argparse.ArgumentParser()
parser.add_argument("--cpu", action="store_true", help="Stay on the processor.")
parser.add_argument("--cuda-device", type=int, default=None, help="Index of the one card to show.")
parser.add_argument("--directml", type=int, nargs="?", const=-1, default=None)
parser.add_argument("--disable-ipex-optimize", action="store_true", help="Do not let IPEX touch the model.")
parser.add_argument("--cuda-malloc", action="store_true")
parser.add_argument("--deterministic", action="store_true")
parser.add_argument("--quick-test-for-ci", action="store_true")

args = parser.parse_args(None if comfy.options.parsing else [])
