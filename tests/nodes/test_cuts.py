# ruff: noqa: E501 - miniatures are shown as they are
"""Devices whose names are cut, or measured, by the length of CUDA's: no XPU's name goes there."""

from __future__ import annotations

import pytest

from patchforge.errors import CheckFailed
from patchforge.proof.packs.helpers import helpers
from patchforge.proof.packs.pairing import prove
from tests.nodes.test_cases import decided, edits

ASKED = """\
import torch

def f(device, options):
    if {}:
        torch.cuda.empty_cache()
"""


@pytest.mark.parametrize(
    "test",
    [
        "device[:4] == 'cuda'",
        "device[0:4] != 'cuda'",
        "device[:5] == 'cuda:'",
        "'cuda' == device[:4]",
        "str(device)[:4] == 'cuda'",
        "options['device'][:4] in ('cuda', 'gpu')",
        "'cuda' in device[:4]",
        "device.lower()[:4] == 'cuda'",
        "device.startswith('cuda') and int(device[5:]) == 0",
        "device.startswith('cuda:')",
        "device.replace('cuda', 'gpu') == 'gpu'",
        "device.lstrip('cuda:') == '0'",
    ],
)
def test_questions_about_a_part_of_a_name_are_for_a_person(test: str) -> None:
    assert "person" in decided(ASKED.format(test))
    assert not [
        line for line in edits(ASKED.format(test)) if line.startswith("if") and "device[" in line and "xpu" in line
    ]


@pytest.mark.parametrize(
    ("test", "after"),
    [
        ("device.split(':')[0] == 'cuda'", "if device.split(':')[0] == _patchforge_device():"),
        ("device.partition(':')[0] == 'cuda'", "if device.partition(':')[0] == _patchforge_device():"),
        ("'cuda' in device", "if 'cuda' in device or \"xpu\" in device:"),
        ("device.startswith('cuda')", 'if device.startswith(("cuda", "xpu")):'),
    ],
)
def test_questions_about_the_whole_name_are_not(test: str, after: str) -> None:
    assert after in edits(ASKED.format(test))


#: What cuts a device's name, or counts on how long it is.
CUTS = (
    "int(device[5:])",
    "device[5]",
    "device[:4] == kind",
    "len(device) > 4",
    "device.replace('cuda:', '')",
    "device.lstrip('cuda:')",
    "device.removeprefix('cuda:')",
    "device.split('cuda:')[1]",
    "device.partition('cuda')[2]",
    "re.match('cuda:(.*)', device)",
    "re.sub(r'^cuda:', '', str(device))",
)
#: How a device comes to be called so.
GIVEN = (
    "import re, torch\ndef g(kind):\n    main_device = 'cuda:0'\n    own = main_device or kind\n    device = str(own)\n    return {}\n",
    "import re, torch\ndef g(kind):\n    devices = [f'cuda:{{i}}' for i in range(2)]\n    return [{} for device in devices]\n",
    "import re, torch\ndef g(kind):\n    devices = [f'cuda:{{i}}' for i in range(2)]\n    return sorted(devices, key=lambda device: {})\n",
    "import re, torch\nclass A:\n    def __init__(self):\n        self.main_device = 'cuda:0'\n    def g(self, kind):\n        device = self.main_device\n        return {}\n",
    "import re, torch\ndef h(kind, device):\n    return {}\ndef g(kind):\n    own_device = 'cuda:0'\n    return h(kind, own_device)\n",
    "import re, torch\ndef g(kind):\n    device = 'cuda:0'\n    return {}\n",
    "import re, torch\ndef g(kind, device='cuda:0'):\n    return {}\ng(1)\n",
    "import re, torch\ndef g(kind, *, device='cuda:0'):\n    return {}\ng(1)\n",
    "import re, torch\ndef g(device, kind=1):\n    return {}\ng('cuda:0')\n",
    "import re, torch\ndef g(device, kind=1):\n    return {}\ng(device='cuda:0')\n",
    "import re, torch\ndef g(kind):\n    device = 'cuda:0' if torch.cuda.is_available() else 'cpu'\n    return {}\n",
    "import re, torch\ndef g(kind):\n    if torch.cuda.is_available():\n        device = 'cuda:0'\n    else:\n        device = 'cpu'\n    return {}\n",
    "import re, torch\ndef get_device():\n    return 'cuda:0'\ndef g(kind):\n    device = get_device()\n    return {}\n",
    "import re, torch\nclass A:\n    def __init__(self, device):\n        self.n = {}\nA('cuda:0')\n",
)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("cut", CUTS)
def test_no_xpu_goes_where_a_name_is_cut(given: str, cut: str) -> None:
    text = given.format(cut)
    assert not edits(text)
    assert "person" in decided(text)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(
    "whole",
    [
        "torch.zeros(1, device=device)",
        "device.split(':')[0]",
        "int(device[-1])",
        "kind[5:]",
        "device[0]",
        "len(kind) > 4",
    ],
)
def test_an_xpu_goes_where_it_is_not(given: str, whole: str) -> None:
    assert edits(given.format(whole))


@pytest.mark.parametrize("cut", CUTS)
def test_nor_where_another_file_cuts_it(cut: str) -> None:
    helper = f"import re, torch\nclass Part:\n    def __init__(self, kind, device):\n        self.n = {cut}\n        torch.cuda.synchronize()\n"
    for given in ("Part(1, 'cuda:0')", "Part(kind=1, device='cuda:0')", "Part(1, device='cuda:0')"):
        text = f"NODE_CLASS_MAPPINGS = {{}}\nfrom .helper import Part\npart = {given}\n"
        files = {"nodes.py": text, "helper.py": helper}
        assert not [line for line in edits(files) if "Part(" in line]
        files["helper.py"] = helper.replace(cut, "device")
        assert [line for line in edits(files) if "Part(" in line]


@pytest.mark.parametrize("cut", ["int(device[5:])", "int(options['device'][5:])", "int(device.replace('cuda:', ''))"])
def test_a_question_before_a_cut_is_for_a_person(cut: str) -> None:
    for asked in ("'cuda' in device", "device.startswith('cuda')", "options['device'] == 'cuda' or 'cuda' in device"):
        text = f"import torch\ndef f(device, options):\n    if {asked}:\n        torch.cuda.set_device({cut})\n"
        assert not [line for line in edits(text) if line.startswith("if") and cut[4:10] in asked]


def test_the_proof_refuses_a_part_of_a_name_beside_an_xpus() -> None:
    ours = "".join(f"{helpers()[name]}\n" for name in ("_patchforge_xpu", "_patchforge_device"))
    for test in ("device[0:4] != {}", "{} == str(device)[:4]", "x and device[:4] == {}"):
        before, after = (ours + f"ok = {test.format(name)}\n" for name in ("'cuda'", "_patchforge_device()"))
        with pytest.raises(CheckFailed, match="as long as CUDA's"):
            prove("nodes.py", before.encode(), after.encode())
