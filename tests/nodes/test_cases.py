# ruff: noqa: E501 - miniatures are shown as they are
"""Kinds of code that packs have brought up: what is converted, what is left, and what goes to a person.

Each input stands for its relatives. A decision is asked for by its line; a line without a device says nothing.
"""

from __future__ import annotations

import ast
import difflib
from pathlib import Path
from textwrap import dedent

import pytest

from patchforge.nodes.convert import Converted, convert
from patchforge.nodes.pack import Pack
from patchforge.nodes.requirements import needs
from patchforge.pattern import Options
from patchforge.proof.packs.pairing import prove
from tests.support import without_helpers

PLAIN = Options()
NODE = "NODE_CLASS_MAPPINGS = {}\n"


def done(files: str | dict[str, str], options: Options = PLAIN) -> Converted:
    """A pack after the rules; proved, readable by Python 3.9, and the same after a second run."""
    texts = {"nodes.py": files} if isinstance(files, str) else files
    data = {path: dedent(text).encode() for path, text in texts.items()}
    first = convert(Pack("miniature", Path("miniature"), dict(sorted(data.items()))), options)
    for change in first.changes:
        prove(change.path, change.before or b"", change.after)
        ast.parse(change.after, feature_version=(3, 9))
    after = data | {change.path: change.after for change in first.changes}
    assert not convert(Pack("miniature", Path("miniature"), dict(sorted(after.items()))), options).changes
    return first


def edits(files: str | dict[str, str], options: Options = PLAIN) -> list[str]:
    """The lines that stand in the place of others, without our functions."""
    result = done(files, options)
    assert not result.problems
    lines: list[str] = []
    for change in result.changes:
        before = (change.before or b"").decode()
        after = without_helpers(change.after, before)
        lines += [
            line[1:].strip()
            for line in difflib.unified_diff(before.splitlines(), after.splitlines(), n=0)
            if line[:1] == "+" and line[:3] != "+++"
        ]
    return lines


def decided(files: str | dict[str, str], options: Options = PLAIN) -> set[str]:
    """The decisions about all sites of files that nodes run."""
    return {str(row.decision) for row in done(files, options).sites}


TORCH = "import torch\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        # a question beside CUDA's is asked once, or is CUDA's own and not asked of an XPU
        (
            'd = "cuda" if torch.cuda.is_available() and torch.backends.cudnn.is_available() else "cpu"\n',
            ['d = "cuda" if torch.cuda.is_available() and torch.backends.cudnn.is_available() else "xpu" if _patchforge_xpu() else "cpu"'],
        ),
        (
            'if torch.cuda.is_available() and torch.backends.cudnn.is_available():\n    d = "cuda"\nelse:\n    d = "cpu"\n',
            ["elif _patchforge_xpu():", 'd = "xpu"'],
        ),
        (
            'device = "cuda" if torch.cuda.is_available() and os.environ.get("X") else "cpu"\n',
            ['device = _patchforge_device() if (torch.cuda.is_available() or _patchforge_xpu()) and os.environ.get("X") else "cpu"'],
        ),
        (
            'if torch.cuda.is_available() and wanted():\n    device = "cuda"\nelse:\n    device = "cpu"\n',
            ["if (torch.cuda.is_available() or _patchforge_xpu()) and wanted():", "device = _patchforge_device()"],
        ),
        (
            'if "cuda" in name.lower(): torch.cuda.empty_cache()\n',
            ["if _patchforge_device() in name.lower(): _patchforge_gpu().empty_cache()"],
        ),
        (
            'if torch.device(d).type == "cuda":\n    torch.cuda.empty_cache()\n',
            ["if torch.device(d).type == _patchforge_device():", "_patchforge_gpu().empty_cache()"],
        ),
        # a device by keyword
        ('x = x.cuda(device="cuda:0")\n', ["x = x.to(device=_patchforge_device(0))"]),
        ("x = x.cuda(device=3, non_blocking=True)\n", ["x = x.to(device=_patchforge_device(3), non_blocking=True)"]),
        ("x = x.cuda(non_blocking=True, device=d)\n", ["x = x.to(non_blocking=True, device=_patchforge_device(d))"]),
        # both or neither
        (
            "torch.cuda.is_available() and torch.cuda.empty_cache()\n",
            ["(torch.cuda.is_available() or _patchforge_xpu()) and _patchforge_gpu().empty_cache()"],
        ),
        # quotes in f-strings
        (
            "s = f\"{'cuda' if torch.cuda.is_available() else 'cpu'}\"\n",
            ["s = f\"{'cuda' if torch.cuda.is_available() else 'xpu' if _patchforge_xpu() else 'cpu'}\""],
        ),
        (
            "s = f'{\"cuda:0\" if torch.cuda.is_available() else \"cpu\"}'\n",
            ["s = f'{\"cuda:0\" if torch.cuda.is_available() else \"xpu:0\" if _patchforge_xpu() else \"cpu\"}'"],
        ),
        ('print(f"{torch.cuda.get_device_name(0)} {torch.cuda.device_count()}")\n', ['print(f"{_patchforge_gpu().get_device_name(0)} {_patchforge_gpu().device_count()}")']),
        # the version of CUDA
        ("v = torch.version.cuda.split('.')[0]\n", ["v = (\"0.0\" if _patchforge_xpu() else torch.version.cuda).split('.')[0]"]),
        ("ok = float(torch.version.cuda) > 11\n", ['ok = float(("0.0" if _patchforge_xpu() else torch.version.cuda)) > 11']),
        # the index of a tensor's device
        (
            'd = torch.device(x.get_device()) if x.is_cuda else "cpu"\n',
            ['d = torch.device(x.get_device()) if x.is_cuda or getattr(x, "is_xpu", False) else "cpu"'],
        ),
        # generators
        (
            "with torch.random.fork_rng(devices=[i], enabled=on):\n    f()\n",
            ["with torch.random.fork_rng(**({'device_type': 'xpu'} if _patchforge_xpu() else {}), devices=[i], enabled=on):"],
        ),
        ("with torch.random.fork_rng():\n    f()\n", ["with torch.random.fork_rng(**({'device_type': 'xpu'} if _patchforge_xpu() else {})):"]),
    ],
)  # fmt: skip
def test_it_is_converted(text: str, lines: list[str]) -> None:
    assert edits("import os\n" + TORCH + text) == lines


def test_a_way_back_to_the_cpu_takes_xpus_in() -> None:
    assert edits(
        """\
        import torch

        def pick(cpu):
            cuda = torch.cuda.is_available()
            if not cuda or cpu:
                device = "cpu"
            else:
                device = "cuda"
            return device
        """
    ) == ["cuda = torch.cuda.is_available() or _patchforge_xpu()", "device = _patchforge_device()"]
    text = """\
        import torch

        def run(x, cpu, device="cuda"):
            if not torch.cuda.is_available() or cpu:
                device = torch.device("cpu")
            {after}
            return x.to(device)

        run(1, False)
        """
    assert edits(text.replace("{after}", "pass")) == [
        "def run(x, cpu, device=_patchforge_device()):",
        "device = _patchforge_choice(device)",
        "if not (torch.cuda.is_available() or _patchforge_xpu()) or cpu:",
    ]
    refused = done(text.replace("{after}", "fast = kernel(x) if device == 'cuda' else slow(x)"))
    assert "person" in {str(row.decision) for row in refused.sites}
    assert not any("_patchforge_choice(device)" in change.after.decode() for change in refused.changes)


@pytest.mark.parametrize("condition", ["", "x and "])
@pytest.mark.parametrize("use", ["use_cuda_kernel", "self.flash"])
def test_flags_for_kernels_are_those_of_mps(condition: str, use: str) -> None:
    text = f"""\
        import torch
        if other:
            self.device = other
        elif {condition}torch.cuda.is_available():
            self.device = "cuda:0"
            self.fp16 = fp16
            {use} = wanted is None or wanted
        elif hasattr(torch, "mps") and torch.backends.mps.is_available():
            self.device = "mps"
            self.fp16 = False
            {use} = False
        else:
            self.device = "cpu"
        """
    assert edits(text) == [
        f'elif {condition}hasattr(torch, "xpu") and torch.xpu.is_available():',
        'self.device = "xpu:0"',
        "self.fp16 = False",
        f"{use} = False",
    ]


def test_a_device_among_flags_for_kernels_is_no_silent_cpu() -> None:
    text = 'import torch\nif torch.cuda.is_available():\n    device = "cuda"\n    flash = True\nelse:\n    device = "cpu"\n    flash = False\n'
    assert decided(text) == {"person"}


@pytest.mark.parametrize(
    "text",
    [
        "from ultralytics import YOLO\nr = YOLO('a').predict(x, device='cuda' if torch.cuda.is_available() else 'cpu')\n",
        "import ultralytics as u\nm = u.YOLO('a')\nr = m(x, device='cuda:0' if torch.cuda.is_available() else 'cpu')\n",
        "from faster_whisper import WhisperModel\nw = WhisperModel('a', device='cuda' if torch.cuda.is_available() else 'cpu')\n",
        "import ctranslate2\nd = 'cuda' if torch.cuda.is_available() else 'cpu'\nt = ctranslate2.Translator('p', device=d)\n",
        "import whisperx\nif torch.cuda.is_available():\n    d = 'cuda'\nelse:\n    d = 'cpu'\nt = whisperx.load_model('p', d)\n",
        "import paddle\npaddle.device.set_device('cuda' if torch.cuda.is_available() else 'cpu')\n",
        "import warp as wp\nd = str('cuda:0' if torch.cuda.is_available() else 'cpu')\na = wp.zeros(3, device=d)\n",
        """\
from faster_whisper import WhisperModel

def pick():
    if torch.cuda.is_available():
        return 'cuda'
    return 'cpu'

w = WhisperModel('a', device=pick())
""",
        """\
from faster_whisper import WhisperModel

class Node:
    def __init__(self):
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'

    def run(self):
        return WhisperModel('a', device=self.device)
""",
        """\
from faster_whisper import WhisperModel

def make(path, device):
    return WhisperModel(path, device=device)

w = make('a', 'cuda' if torch.cuda.is_available() else 'cpu')
""",
    ],
)
def test_a_device_for_a_library_with_names_of_its_own_stays(text: str) -> None:
    assert decided(TORCH + text) == {"left"}
    assert not edits(TORCH + text)


@pytest.mark.parametrize(
    "text",
    [
        "p = ['CUDAExecutionProvider'] if torch.cuda.is_available() else ['CPUExecutionProvider']\n",
        "if torch.cuda.is_available():\n    p = ['CUDAExecutionProvider']\nelse:\n    p = ['CPUExecutionProvider']\n",
        "if d == 'cuda':\n    p = ['CUDAExecutionProvider']\nelse:\n    p = ['CPUExecutionProvider']\n",
    ],
)
@pytest.mark.parametrize("session", ["ort.InferenceSession(f, providers=p)", "ort.InferenceSession(f, options, p)"])
def test_providers_for_onnx_runtime_are_no_devices_of_a_library(text: str, session: str) -> None:
    assert decided(TORCH + "import onnxruntime as ort\n" + text + f"s = {session}\n") == {"converted"}


def test_an_arm_beside_mps_has_openvinos_provider() -> None:
    text = """\
        if torch.cuda.is_available():
            d = "cuda:0"
            p = ["CUDAExecutionProvider"]
        elif torch.backends.mps.is_available():
            d = "mps"
            p = None
        else:
            d = "cpu"
            p = ["CPUExecutionProvider"]
        """
    assert edits(TORCH + dedent(text)) == [
        'elif hasattr(torch, "xpu") and torch.xpu.is_available():',
        'd = "xpu:0"',
        'p = ["OpenVINOExecutionProvider"]',
    ]


@pytest.mark.parametrize("value", ["torch.float16", "torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.half"])
def test_calls_beside_a_choice_of_half_precision_are_no_arm_for_xpus(value: str) -> None:
    text = f"def f():\n    if torch.cuda.is_available():\n        return {value}\n    return torch.float32\n"
    assert decided(TORCH + text) == {"person"}
    assert not edits(TORCH + text)


def test_a_device_of_onnx_runtimes_own_values_stays() -> None:
    text = "import onnxruntime as ort\nd = 'cuda' if torch.cuda.is_available() else 'cpu'\nv = ort.OrtValue.ortvalue_from_numpy(x, d, 0)\n"
    assert decided(TORCH + text) == {"left"}


@pytest.mark.parametrize(
    ("before", "decision"),
    [
        ("torch.manual_seed(s)\n", "left"),
        ("if s:\n    torch.manual_seed(s)\n", "converted"),
        ("for s in seeds:\n    torch.manual_seed(s)\n", "converted"),
        ("try:\n    f()\nexcept OSError:\n    torch.manual_seed(s)\n", "converted"),
        ("with g(torch.manual_seed(s)):\n    f()\n", "left"),
        ("def other():\n    torch.manual_seed(s)\n", "converted"),
    ],
)
def test_a_seed_elsewhere_seeds_an_xpu_only_where_it_is_come_to(before: str, decision: str) -> None:
    assert decided(TORCH + before + "torch.cuda.manual_seed(s)\n") == {decision}


def test_a_device_for_such_a_library_and_for_torch_is_for_a_person() -> None:
    text = "from faster_whisper import WhisperModel\nd = 'cuda' if torch.cuda.is_available() else 'cpu'\nw = WhisperModel('a', device=d)\nn = net.to(d)\n"
    assert decided(TORCH + text) == {"person"}
    assert decided(TORCH + "from ultralytics import YOLO\nm = YOLO('a').to('cuda')\n") == {"person"}


def test_what_else_a_file_with_such_a_library_does_is_converted() -> None:
    text = "from ultralytics import YOLO\nm = YOLO('a')\ny = m(torch.zeros(1, device='cuda'))\nz = net.cuda()\n"
    assert edits(TORCH + text) == [
        "y = m(torch.zeros(1, device=_patchforge_device()))",
        "z = net.to(_patchforge_device())",
    ]


def test_a_library_is_reached_through_another_file() -> None:
    files = {
        "nodes.py": NODE
        + TORCH
        + "from .lib import make\nm = make('a', device='cuda' if torch.cuda.is_available() else 'cpu')\n",
        "lib.py": "from faster_whisper import WhisperModel  # cuda\n\ndef make(p, device):\n    return WhisperModel(p, device=device)\n",
    }
    assert decided(files) == {"left"}


YOLO = """\
import torch
DEVICES = ("auto", "cuda", "cpu")

class Node:
    CACHE = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"device": (DEVICES, {"default": "auto"})}}

    FUNCTION = "run"

    def pick(self, wish):
        if wish == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return wish

    def model(self, path):
        model = self.CACHE.get(path)
        if model is None:
            from ultralytics import YOLO
            model = self.CACHE[path] = YOLO(path)
        return model

    def run(self, path, image, device):
        return self.model(path)(image, device=self.pick(device))
"""


def test_a_library_is_known_by_what_a_function_gives() -> None:
    assert decided(YOLO) <= {"left", "person"}
    named = YOLO.replace("return self.model(path)(image", "net = self.model(path)\n        return net(image")
    assert decided(named) <= {"left", "person"}
    assert "converted" in decided(YOLO.replace("from ultralytics import YOLO", "from .own import YOLO"))


def test_what_stands_beside_compiled_kernels_stays() -> None:
    text = "try:\n    from cpm_kernels.kernels.base import LazyKernelCModule\n    kernels = make(LazyKernelCModule)\nexcept Exception:\n    kernels = None\n\ndef f(w):\n    with torch.cuda.device(w.device):\n        kernels.run(w, torch.cuda.current_stream())\n\ndef g(w):\n    return w.cuda()\n"
    assert edits(TORCH + text) == ["return w.to(_patchforge_device())"]


def test_kernels_for_cuda_keep_their_stream() -> None:
    text = "try:\n    from cpm_kernels.kernels import k\nexcept ImportError:\n    k = None\n\ndef f(x):\n    k(x, torch.cuda.current_stream())\n    torch.cuda.synchronize()\n"
    assert edits(TORCH + text) == ["_patchforge_gpu().synchronize()"]
    whole = done(TORCH + "from cpm_kernels.library import cudart\ny = f(torch.cuda.current_stream())\n")
    assert not whole.changes


LOAD = """\
import torch
from ultralytics import YOLO

class Load:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"device": (["cuda", "cpu"],)}}

    FUNCTION = "load"

    def load(self, device):
        return (BODY,)

def run(device):
    REST
"""


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        ("YOLO('a').to(device)", "pass"),
        ("run(device)", "return 64 if device == 'cuda' else 1"),
        ("run(device=str(device))", "return 'gpu' if device == 'cuda' else 'cpu'"),
        ("{'cuda': 1, 'cpu': 2}[device]", "pass"),
    ],
)
def test_a_choice_is_offered_only_where_the_way_to_the_device_is_converted(body: str, rest: str) -> None:
    result = done(LOAD.replace("BODY", body).replace("REST", rest))
    assert not any('["xpu"]' in change.after.decode() for change in result.changes)
    assert {str(row.decision) for row in result.sites if row.line == 7} == {"person"}


@pytest.mark.parametrize(
    ("lib", "offered"),
    [
        ("def run(device):\n    return 64 if device == 'cuda' else 1\n", False),
        (
            "def run(device):\n    return inner(device)\n\ndef inner(name):\n    return {'cuda': 1, 'cpu': 2}[name]  # cuda\n",
            False,
        ),
        (
            "class run:\n    def __init__(self, device):\n        self.device = device\n\n    def go(self):\n        return 64 if self.device == 'cuda' else 1\n",
            False,
        ),
        (
            "import torch\ndef run(device):\n    if device == 'cuda':\n        torch.cuda.empty_cache()\n    return torch.device(device)\n",
            True,
        ),
        (
            "import torch\ndef run(device):\n    return torch.zeros(1, device=device), torch.zeros(1, device='cuda')\n",
            True,
        ),
    ],
)
def test_a_choice_is_followed_into_other_files(lib: str, *, offered: bool) -> None:
    node = (
        LOAD.replace("BODY", "run(device)")
        .partition("def run(")[0]
        .replace("from ultralytics import YOLO", "from .lib import run")
    )
    result = done({"nodes.py": node, "lib.py": lib})
    assert any('["xpu"]' in change.after.decode() for change in result.changes) is offered


def test_a_choice_is_offered_where_the_way_to_the_device_is_converted() -> None:
    result = edits(
        LOAD.replace("BODY", "run(device)").replace(
            "REST", "return torch.device('cuda') if device == 'cuda' else torch.device('cpu')"
        )
    )
    assert any('["xpu"]' in line for line in result)


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        (
            "VALID = {'auto', 'cuda', 'mps', 'cpu'}\ndef f(d):\n    if d not in VALID:\n        raise ValueError(d)\n",
            True,
        ),
        ("VALID = ['auto', 'cuda', 'cpu']\ndef f(d):\n    return d in VALID\n", True),
        (
            "VALID = ('auto', 'cuda', 'cpu')\ndef f(d):\n    assert d in VALID\n    return 64 if d == 'cuda' else 1\n",
            False,
        ),
        ("VALID = {'auto', 'cuda', 'cpu'}\nshow(VALID)\n", False),
    ],
)
def test_a_check_takes_xpus_where_what_follows_does(text: str, *, offered: bool) -> None:
    assert any('["xpu"]' in line for line in edits(text)) is offered
    assert ("person" in decided(text)) is not offered


@pytest.mark.parametrize("asked", ["d.startswith('cuda')", "'cuda' in d"])
@pytest.mark.parametrize(
    "around", ["[d for d in LIST if ASKED]", "next((d for d in LIST if ASKED), 'cpu')", "any(ASKED for d in LIST)"]
)
def test_lists_of_devices_are_looked_through(asked: str, around: str) -> None:
    made = (
        "import torch\ndef devices():\n    return ['cpu'] + [f'cuda:{i}' for i in range(torch.cuda.device_count())]\n"
    )
    text = around.replace("LIST", "devices()").replace("ASKED", asked)
    assert any('"xpu"' in line for line in edits(f"{made}def f():\n    return {text}\n"))
    named = f"import torch\ndef f():\n    found = [f'cuda:{{i}}' for i in range(3)]\n    return {around.replace('LIST', 'found').replace('ASKED', asked)}\n"
    assert any('"xpu"' in line for line in edits(named))
    other = f"def f(names):\n    return {around.replace('LIST', 'names').replace('ASKED', asked)}\n"
    assert decided(other) == {"person"}


def test_own_functions_and_classes_are_known_by_their_parameters() -> None:
    files = {
        "__init__.py": NODE
        + "from .move import move, Net\nx = move(1, 'cuda')\ny = Net('a', 'cuda:0')\nz = Net('cuda', 'cpu')\n",
        "move.py": "def move(x, device):\n    return x.to(device)\n\nclass Net:\n    def __init__(self, name, device):\n        self.device = device\n",
    }
    assert edits(files) == ["x = move(1, _patchforge_device())", "y = Net('a', _patchforge_device(0))"]
    two = "def move(x, device): pass\nclass A:\n    def move(self, kind, name): pass\nx = move(1, 'cuda')\n"
    assert decided(two) == {"person"}


@pytest.mark.parametrize(
    "call", ["autocast('cuda', dtype=torch.float16)", "autocast('cuda')", "autocast(device_type='cuda')"]
)
def test_autocast_under_two_imports(call: str) -> None:
    text = f"import torch\ntry:\n    from torch.amp import autocast\nexcept ImportError:\n    from torch.cuda.amp import autocast\nwith {call}:\n    f()\n"
    assert edits(text) == [
        f"with _patchforge_autocast(autocast){call.removeprefix('autocast')}:".replace("'cuda'", "_patchforge_device()")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "dt = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16\n",
        "dt = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float16\n",
        "def f():\n    if torch.cuda.is_bf16_supported():\n        return torch.bfloat16\n    return torch.float16\n",
        "def can():\n    return torch.cuda.is_bf16_supported()\n",
        "ok = torch.cuda.is_bf16_supported()\nkind = torch.bfloat16 if ok else torch.float16\n",
    ],
)
def test_a_dtype_changes_only_with_the_option(text: str) -> None:
    assert decided(TORCH + text) == {"person"}
    assert any("_patchforge_gpu().is_bf16_supported" in line for line in edits(TORCH + text, Options(half=True)))


@pytest.mark.parametrize(
    "text",
    [
        "def f(x, d):\n    if d == 'cuda' and not torch.cuda.is_available():\n        raise RuntimeError('no CUDA')\n    return x.to(d)\n",
        "def f(x, d):\n    if d.startswith('cuda') and not torch.cuda.is_available():\n        raise RuntimeError('no CUDA')\n    return x.to(d)\n",
    ],
)
def test_a_refusal_of_cuda_by_name_stays(text: str) -> None:
    assert not edits(TORCH + text)


@pytest.mark.parametrize(
    "gate", ["if not torch.cuda.is_available():\n        raise RuntimeError", "assert torch.cuda.is_available()"]
)
def test_a_refusal_opens_with_what_stands_behind_it(gate: str) -> None:
    opened = edits(f"{TORCH}def f(x):\n    {gate}\n    return x.cuda()\n")
    assert any("or _patchforge_xpu()" in line for line in opened)
    kept = edits(f"{TORCH}def f(x):\n    {gate}\n    return g(x, frob('cuda'))\n")
    assert not any("or _patchforge_xpu()" in line for line in kept)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("move = x.cuda\n", "to(device)"),
        ("import torch\nys = map(torch.Tensor.cuda, xs)\n", "to(device)"),
        ("moves = [m.cuda for m in ms]\n", "to(device)"),
        ("import torch\nw = torch.load(f)\n", "--enable torch-load"),
        ("import torch\nd = torch.half if torch.cuda.is_available() else torch.float\n", "--enable half"),
        ("import torch\nt = torch.cuda.FloatTensor(3)\n", "torch.empty"),
    ],
)
def test_nothing_is_silent(text: str, word: str) -> None:
    rows = done(text).sites
    assert rows
    assert any(word in row.reason for row in rows)


def test_names_imported_from_torch_cuda_are_sites() -> None:
    text = "try:\n    from torch.cuda import set_device, device_count\nexcept ImportError:\n    pass\n\ndef f(i):\n    set_device(i)\n    return device_count()\n"
    assert edits(text) == ["_patchforge_gpu().set_device(i)", "return _patchforge_gpu().device_count()"]


# --- what nodes can come to


SITE = "import torch\ndef f(x):\n    return x.cuda()\n"


@pytest.mark.parametrize(
    ("first", "path"),
    [
        ("from scripts.swapper import f\n", "scripts/swapper.py"),
        ("from .train.helpers import f\n", "train/helpers.py"),
        ("from .tools import demo\n", "tools/demo.py"),
        ("import os, importlib.util\nd = os.path.dirname(__file__)\ns = importlib.util.spec_from_file_location('m', os.path.join(d, 'base', 'base_node.py'))\n", "base/base_node.py"),
        ("import importlib.util\nfrom pathlib import Path\ns = importlib.util.spec_from_file_location('m', Path(__file__).parent / 'base' / 'base_node.py')\n", "base/base_node.py"),
        ("import importlib\nfor n in ('a', 'b'):\n    importlib.import_module(f'.nodes.{n}', __name__)\n", "nodes/a.py"),
        ("import importlib\nm = importlib.import_module('.py.' + 'deep', __package__)\n", "py/deep.py"),
        ("import importlib, glob\nfor n in glob.glob('*.py'):\n    importlib.import_module(n)\n", "beside.py"),
        ("REGISTRY = {'qwen': 'engines.adapters.qwen.Adapter'}\n", "engines/adapters/qwen.py"),
        ("import subprocess, sys\nsubprocess.Popen([sys.executable, str(ROOT / 'workers' / 'fish_worker.py')])\n", "workers/fish_worker.py"),
        ("SCRIPT = 'utils/workers/fish.py'\n", "utils/workers/fish.py"),
        ("import os, importlib\nfor n in os.listdir('modules'):\n    importlib.import_module('modules.' + n)\n", "modules/one.py"),
    ],
)  # fmt: skip
def test_a_file_that_a_node_reaches_is_production(first: str, path: str) -> None:
    result = done(
        {
            "__init__.py": first + NODE,
            path: SITE,
            "elsewhere/orphan.py": SITE,
            "setup.py": SITE,
            "tests/test_it.py": NODE + SITE,
        }
    )
    assert [change.path for change in result.changes] == [path]
    assert {row.path for row in result.skipped} == {
        "elsewhere/orphan.py",
        "setup.py",
        "tests/test_it.py",
    }


def test_a_configuration_leads_to_a_file_of_the_pack() -> None:
    result = done({"__init__.py": NODE, "config.yaml": "target: .lib.model.Net\n", "lib/model.py": SITE})
    assert [change.path for change in result.changes] == ["lib/model.py"]


# --- one line never costs a file


def test_what_cannot_be_proved_costs_its_own_place_alone() -> None:
    lines = "".join(f"y{n} = x{n}.to('cuda')\nz{n} = {{**a, 'k': b.cuda, 'd': ('cuda', {n})}}\n" for n in range(30))
    result = done(TORCH + lines)
    assert not result.problems
    assert sum(str(row.decision) == "converted" for row in result.sites) >= 30


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("z = f\"{torch.version.cuda.split('.')[0]}\"\n", "z = f\"{('0.0' if _patchforge_xpu() else torch.version.cuda).split('.')[0]}\""),
        ("z = f'{torch.version.cuda.split(\".\")[0]}'\n", "z = f'{(\"0.0\" if _patchforge_xpu() else torch.version.cuda).split(\".\")[0]}'"),
        ("z = f\"\"\"{torch.version.cuda.split('.')[0]}\"\"\"\n", "z = f\"\"\"{(\"0.0\" if _patchforge_xpu() else torch.version.cuda).split('.')[0]}\"\"\""),
        ("device = f\"{f'cuda:{i}'}\"\n", "device = f\"{f'{_patchforge_device()}:{i}'}\""),
        ("y = f\"{x.cuda(device='cuda:0')}\"\n", 'y = f"{x.to(device=_patchforge_device(0))}"'),
    ],
)  # fmt: skip
def test_edits_in_f_strings_use_other_quotes(text: str, line: str) -> None:
    assert edits(TORCH + text + "x = w.cuda()\n") == [line, "x = w.to(_patchforge_device())"]


def test_an_f_string_without_room_for_quotes_costs_itself_alone() -> None:
    result = done(TORCH + "z = f\"{f'{torch.version.cuda.split(sep)}'}\"\nx = w.cuda()\n")
    assert not result.problems
    assert {(site.line, str(site.decision)) for site in result.sites} == {(2, "person"), (3, "converted")}


def test_a_place_that_would_not_compile_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from patchforge.transforms.nodes import cuda_calls

    monkeypatch.setattr(
        cuda_calls, "_forked", lambda site, call, code: cuda_calls.converted([site], code.replace(call, "("))
    )
    result = convert(
        Pack("m", Path("m"), {"a.py": b"import torch\ntorch.random.fork_rng()\nx = y.cuda()\n"}), Options()
    )
    assert not result.problems
    assert {(row.line, str(row.decision)) for row in result.sites} == {(2, "person"), (3, "converted")}
    assert next(row.reason for row in result.sites if row.line == 2).startswith("its conversion would not compile")


FLAG = f"{NODE}import torch\n\nclass A:\n    def __init__(self):\n        self.gpu = torch.cuda.is_available()\n\n    def f(self, x):\n        return x.cuda() if self.gpu else x\n"


@pytest.mark.parametrize(
    ("more", "other"),
    [
        ("", "def g(a, x):\n    return fast(x) if a.gpu else x\n"),  # another file reads it
        ("    def g(self, n):\n        self.gpu = n\n", ""),  # it is given something else
        ("    def g(self):\n        return self.gpu\n", ""),  # it goes elsewhere
        ("def g(a):\n    return a.gpu\n", ""),
        ("def g(a):\n    return getattr(a, 'gpu')\n", ""),
        ("    def g(self, q):\n        return flash_attn(q) if self.gpu else q\n", ""),  # it chooses kernels, too
    ],
)
def test_a_flag_stays_where_not_all_is_known_that_it_decides(more: str, other: str) -> None:
    assert edits(FLAG) == [
        "self.gpu = torch.cuda.is_available() or _patchforge_xpu()",
        "return x.to(_patchforge_device()) if self.gpu else x",
    ]
    assert not any(
        "self.gpu =" in line for line in edits({"nodes.py": FLAG + more, "other.py": f"import nodes\n{other}"})
    )


def test_a_flag_of_the_module_stays_where_another_file_imports_it() -> None:
    text = f"{NODE}import torch\nHAS = torch.cuda.is_available()\n\ndef free():\n    if HAS:\n        torch.cuda.empty_cache()\n"
    assert edits(text)[0] == "HAS = torch.cuda.is_available() or _patchforge_xpu()"
    assert not any("HAS" in line for line in edits({"nodes.py": text, "other.py": "from .nodes import HAS\n"}))


def test_what_an_installer_chooses_is_no_edit() -> None:
    done_ = done(
        {
            "nodes.py": NODE + "from . import install\n",
            "install.py": 'import torch\ndef f():\n    d = "cuda" if torch.cuda.is_available() else "cpu"\n    run(["pip", "install", d])\n',
        }
    )
    assert not done_.changes
    assert {row.reason for row in done_.sites} == {"runs pip: what is chosen for CUDA is listed with the packages"}


def test_wheels_that_comfy_env_fetches_for_cuda_are_listed() -> None:
    text = b'[cuda]\npackages = ["flash-attn", "cumesh"]  # "none"\n\n[pypi-dependencies]\n"timm" = "*"\n'
    listed = needs(Pack("p", Path("p"), {"nodes.py": NODE.encode(), "nodes/comfy-env.toml": text}))
    assert [(need.line, need.package) for need in listed] == [(2, "cumesh"), (2, "flash-attn")]


def test_a_device_behind_another_value_is_listed() -> None:
    assert decided(f'{NODE}text = f"{{a}}" f"cuda:{{i}}"\n') == {"person"}
    assert decided(f'{NODE}text = f"{{a}} on cuda:{{i}}"\n') == set()


PIPE = """\
import torch

class Pipe:
    def to(self, device):
        for part in self.parts:
            part.to(device)

    def cuda(self):
        self.to(torch.device("cuda"))

Pipe().cuda()
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("part.to(device)", "part.on = device"),
        ('self.to(torch.device("cuda"))', 'self.to(torch.device("cuda"))\n        self.on = True'),
        ("def to(self, device):", "def move(self, device):"),
    ],
)
def test_a_cuda_of_ones_own_that_only_calls_to_is_tos(old: str, new: str) -> None:
    assert "Pipe().to(_patchforge_device())" in edits(f"{NODE}{PIPE}")
    assert not any("Pipe()" in line for line in edits(f"{NODE}{PIPE.replace(old, new)}"))


def test_a_packs_own_code_for_xpus_is_left() -> None:
    files = {
        "nodes.py": NODE + "from .ipex import hijacks\n",
        "ipex/hijacks.py": "import torch\nx = y.cuda() if is_xpu(y) else y\n",
    }
    assert {row.reason for row in done(files).sites} == {"the pack's own code for XPUs"}
