"""What a pack needs beside torch, and what of it stands in an XPU's way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from patchforge import effort
from patchforge.effort import TooIntricate
from patchforge.engine.blocks import UnreadableSource, parsed
from patchforge.nodes.pack import Pack

#: Module → what to do about it on an XPU. Only those that are in the way.
BLOCKERS: Mapping[str, str] = {
    "cupy": "CUDA only: no replacement; use a back end of the pack that does without, if there is one",
    "flash_attn": "CUDA only: leave it out, torch's own attention takes over where the import is in a try",
    "xformers": "CUDA only: leave it out, torch's own attention takes over where the import is in a try",
    "sageattention": "CUDA only: leave it out",
    "triton": "needs triton-xpu, and each kernel a check",
    "bitsandbytes": "needs a version with XPU support (0.46 or later), or leave its quantisation out",
    "apex": "CUDA only: torch.nn.LayerNorm and torch.optim do the same",
    "deepspeed": "for training on CUDA: leave it out",
    "nvdiffrast": "CUDA only: no replacement",
    "spconv": "CUDA only: no replacement",
    "torchsparse": "CUDA only: no replacement",
    "tensorrt": "CUDA only: no replacement",
    "nunchaku": "CUDA only: no replacement",
    "pytorch3d": "its kernels are for CUDA and the CPU: runs on the CPU",
    "diff_gaussian_rasterization": "CUDA only: no replacement",
    "mediapipe": "runs on the CPU on every device: nothing to do",
    "onnxruntime": "install onnxruntime-openvino, and no other onnxruntime beside it",
    "insightface": "runs through onnxruntime: install onnxruntime-openvino, and no other onnxruntime beside it",
    "taichi": "its Vulkan back end or the CPU",
    "q8_kernels": "CUDA only: leave it out",
    "vllm": "needs vLLM built for XPUs: pip's wheel is for CUDA",
    "llama_cpp": "pip's wheel runs on the CPU: build it with GGML_SYCL or GGML_VULKAN",
    "pynvml": "asks NVIDIA's driver, which is not there: nothing to do where it is in a try",
}
#: Those that are for CUDA only: a node that imports one for good cannot be loaded.
CUDA_ONLY = frozenset(
    [
        "cupy",
        "flash_attn",
        "xformers",
        "sageattention",
        "apex",
        "nvdiffrast",
        "spconv",
        "torchsparse",
        "tensorrt",
        "nunchaku",
        "diff_gaussian_rasterization",
        "q8_kernels",
    ]
)
#: Distribution → what to do about it in a requirements file.
REPLACES: Mapping[str, str] = {
    "torch": "pip may replace the XPU wheel: take it out, ComfyUI brings torch",
    "torchvision": "pip may replace the XPU wheel: take it out, ComfyUI brings it",
    "torchaudio": "pip may replace the XPU wheel: take it out, ComfyUI brings it",
    "xformers": "pulls in a torch for CUDA: take it out",
    "triton": "takes the place of triton-xpu: take it out",
    "flash-attn": "builds for CUDA only: take it out",
    "sageattention": "CUDA only: take it out",
    "onnxruntime-gpu": "CUDA only, and it shadows the others: install onnxruntime-openvino instead",
    "onnxruntime": "shadows onnxruntime-openvino: install that instead",
    "bitsandbytes": "needs 0.46 or later on an XPU",
    "tensorrt": "CUDA only: take it out",
    "deepspeed": "for training on CUDA: take it out",
    "vllm": "brings a torch for CUDA: take it out, or build it for XPUs",
    "llama-cpp-python": "runs on the CPU: build it with GGML_SYCL or GGML_VULKAN",
}
_CUDA_WHEELS = re.compile(r"^(cupy(-cuda\w+)?|nvidia-[\w-]+|tensorrt[\w-]*|pycuda|flash[-_]attn[\w-]*)$")
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)(?:\s*\[[^\]]*\])?(?=\s*(?:[<>=!~;@]|$)|\s)")
_INSTALLER = re.compile(r"(install|prestartup_script|setup_env)(_\w+)?\.py")
_WHEELS = re.compile(r"(^|[/+\W_])cu1[0-9]\d\b|/whl/cu|pypi\.ngc\.nvidia")
_LONGEST = 2000  #: characters of a line; no requirement has more
_INDEX = re.compile(r"^\s*(--(extra-)?index-url|-f|--find-links)\b.*(cu\d{2,3}|nvidia)")


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """A package that is in an XPU's way. ``blocks``: the node cannot be loaded without it."""

    path: str
    line: int
    package: str
    advice: str
    blocks: bool = False


def needs(pack: Pack) -> tuple[Need, ...]:
    """Imports that lead to CUDA-only packages, and requirements that would replace torch for XPUs; sorted."""
    packages = {need for path in pack.reachable for need in _imports(path, pack.files[path])}
    packages |= {need for path, data in pack.files.items() for need in _required(path, data)}
    return tuple(sorted(packages))


def _imports(path: str, data: bytes) -> Iterator[Need]:
    if not any(name.encode() in data for name in BLOCKERS):
        return
    try:
        with effort.at_most(effort.FILE):
            yield from _blockers(path, parsed(data))
    except (SyntaxError, ValueError, UnreadableSource, TooIntricate):
        return  # the driver says so


def _blockers(path: str, tree: ast.Module) -> Iterator[Need]:
    outer, seen = set(map(id, tree.body)), set[str]()
    for node in effort.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in {name.partition(".")[0] for name in names} & BLOCKERS.keys() - seen:
            seen.add(name)
            blocks = id(node) in outer and name in CUDA_ONLY
            yield Need(path, getattr(node, "lineno", 1), name, BLOCKERS[name], blocks=blocks)


def _installed(path: str, data: bytes) -> Iterator[Need]:
    """What an installer chooses: texts that name a package or an index of wheels for CUDA."""
    try:
        with effort.at_most(effort.FILE):
            texts = [node for node in effort.walk(parsed(data)) if isinstance(node, ast.Constant)]
    except (SyntaxError, ValueError, UnreadableSource, TooIntricate):
        return
    for node in texts:
        if not isinstance(node.value, str) or len(node.value) > _LONGEST:
            continue
        match = _REQUIREMENT.fullmatch(node.value.partition("=")[0].rstrip("<>=!~"))
        package = canonicalize_name(match[1]) if match else ""
        if package in REPLACES or _CUDA_WHEELS.match(package):
            yield Need(
                path, node.lineno, package, f"installed by {path}: {REPLACES.get(package, 'CUDA only: take it out')}"
            )
        elif _WHEELS.search(node.value):
            yield Need(path, node.lineno, node.value.strip()[:80], f"wheels for CUDA, chosen by {path}: leave them out")


def _required(path: str, data: bytes) -> Iterator[Need]:
    name = path.rpartition("/")[2]
    if _INSTALLER.fullmatch(name):
        yield from _installed(path, data)
        return
    if name.startswith("requirements") and name.endswith(".txt"):
        lines = list(enumerate(data.decode(errors="replace").splitlines(), 1))
    elif path == "pyproject.toml":
        lines = list(_dependencies(data.decode(errors="replace")))
    elif re.fullmatch(r"comfy-env(-root)?\.toml", name):
        yield from _for_cuda(path, data.decode(errors="replace"))
        return
    else:
        return
    for number, text in lines:
        if len(text) > _LONGEST:
            yield Need(path, number, f"{text[:40].strip()}…", f"a line of {len(text)} characters: look at it")
            continue
        if _INDEX.search(text):
            yield Need(path, number, text.strip(), "an index of CUDA wheels: take it out")
        match = _REQUIREMENT.match(text)
        package = canonicalize_name(match[1]) if match else ""
        if package in REPLACES or _CUDA_WHEELS.match(package):
            yield Need(path, number, package, REPLACES.get(package, "CUDA only: take it out"))


def _for_cuda(path: str, text: str) -> Iterator[Need]:
    """The wheels that comfy-env fetches for CUDA: all in ``packages`` of its ``[cuda]``."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        table = line.strip() if line.lstrip().startswith("[") else table
        if table == "[cuda]" and len(line) <= _LONGEST:
            for name in re.findall(r"[\"']([A-Za-z0-9][\w.-]*)[\"']", line.partition("#")[0]):
                package = canonicalize_name(name)
                advice = REPLACES.get(package, "a wheel for CUDA only: no replacement")
                yield Need(path, number, package, f"fetched by comfy-env for CUDA: {advice}")


def _dependencies(text: str) -> Iterator[tuple[int, str]]:
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        inside = inside or line.replace(" ", "").startswith("dependencies=[")
        if inside:
            yield from ((number, requirement) for requirement in re.findall(r"[\"']([^\"']+)[\"']", line))
        if inside and "]" in re.sub(r"[\"'][^\"']*[\"']", "", line):
            inside = False
