import importlib.util
import os

from comfy.cli_args import args

BLOCKED = {"GeForce 940M", "Quadro K620"}


def cuda_malloc_supported(names=()):
    return not BLOCKED.intersection(names)


version = ""
try:
    spec = importlib.util.find_spec("torch")
    for folder in spec.submodule_search_locations:
        with open(os.path.join(folder, "version.py")) as file:
            found = {}
            exec(file.read(), found)
            version = found["__version__"]
except Exception:
    pass

if not args.cuda_malloc:
    try:
        if int(version[0]) >= 2 and "+cu" in version:
            args.cuda_malloc = cuda_malloc_supported()
    except ValueError:
        pass

if args.cuda_malloc:
    os.environ['PYTORCH_CUDA_ALLOC_CONF'] = "backend:cudaMallocAsync"
