"""Flags, variables, device choice and detection."""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from patchforge.transforms.runtime import patchforge_xpu as pf
from patchforge.transforms.runtime.patchforge_xpu import machine
from patchforge.transforms.runtime.patchforge_xpu.choice import chosen
from patchforge.transforms.runtime.patchforge_xpu.devices import active, available
from patchforge.transforms.runtime.patchforge_xpu.help import _devices, choice
from patchforge.transforms.runtime.patchforge_xpu.settings import (
    LEVELS,
    OPT_INS,
    VARIABLES,
    _parse_bytes,
    configure,
    reset,
)

PACKAGE = Path(pf.__file__).parent
PRECISION_FLAGS = ("force_fp32", "force_fp16", "fp16_unet", "bf16_unet", "fp32_unet", "fp32_vae", "bf16_vae")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    reset()
    yield
    reset()
    os.environ.clear()
    os.environ.update(before)


def flags(*argv: str, **release: Any) -> argparse.Namespace:
    """The arguments of a release that has ``release``'s attributes, parsed from ``argv``."""
    parser = argparse.ArgumentParser()
    pf.add_flags(parser)
    pf.add_oneapi_flag(parser)
    return argparse.Namespace(**{**vars(parser.parse_args(argv)), **dict.fromkeys(PRECISION_FLAGS, False), **release})


class Xpu:
    """torch.xpu with two devices."""

    def __init__(self, *, available: bool = True) -> None:
        self.available = available
        self.current: list[int] = []

    def is_available(self) -> bool:
        return self.available

    def device_count(self) -> int:
        return 2

    def current_device(self) -> int:
        return 0

    def set_device(self, index: int) -> None:
        self.current.append(index)


def host(monkeypatch: pytest.MonkeyPatch, *, xpu: bool = True, cuda: bool | None = None, build: str = "cuda") -> Xpu:
    """A torch with an XPU or not, and with CUDA (or what ``build`` names) built in and usable, built in, or neither."""
    fake = Xpu(available=xpu)
    monkeypatch.setattr(torch, "xpu", fake)
    built_for_xpu(monkeypatch, yes=xpu)
    monkeypatch.setattr(torch.version, build, None if cuda is None else "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    return fake


def built_for_xpu(monkeypatch: pytest.MonkeyPatch, *, yes: bool) -> None:
    for module in ("start", "choice"):
        monkeypatch.setattr(sys.modules[f"{pf.__name__}.{module}"], "built_for_xpu", lambda: yes)


# --- The files themselves


def test_syntax_is_that_of_python_3_9() -> None:
    for file in PACKAGE.glob("*.py"):
        ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_importing_it_imports_no_torch() -> None:
    code = "import patchforge_xpu, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0


# --- Levels, opt-ins, limits


@pytest.mark.parametrize(
    ("argv", "env", "level"),
    [
        ((), None, 1),
        ((), "O2", 2),
        ((), "", 1),
        (("--xpu-level", "O3"), "O0", 3),
        (("--xpu-level", "o0"), "O2", 0),
    ],
)
def test_level_comes_from_flag_then_environment(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], env: str | None, level: int
) -> None:
    if env is not None:
        monkeypatch.setenv("PATCHFORGE_XPU_LEVEL", env)
    pf.start(flags(*argv))
    assert configure().level == level


def test_opt_ins_come_from_flag_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHFORGE_XPU_ENABLE", "fp64, triton")
    pf.start(flags())
    assert configure().enable == {"fp64", "triton"}
    pf.start(flags("--xpu-enable", "compile"))
    assert configure().enable == {"compile"}


@pytest.mark.parametrize("name", ["all", "tritn", "fp64,nonsense"])
def test_unknown_opt_in_is_an_error_that_lists_the_names(name: str) -> None:
    with pytest.raises(SystemExit) as error:
        pf.start(flags("--xpu-enable", name))
    assert name.rsplit(",", maxsplit=1)[-1] in str(error.value)
    assert all(known in str(error.value) for known in OPT_INS)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LEVEL", "O4"), ("PRECISION", "fp8"), ("ENABLE", "x"), ("ATTENTION_LIMIT", "many"), ("ATTENTION_LIMIT", "-1")],
)
def test_wrong_variable_stops_start_and_not_a_hook(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"PATCHFORGE_XPU_{variable}", value)
    with pytest.raises(SystemExit, match=f"PATCHFORGE_XPU_{variable} '{value}'"):
        pf.start(flags())
    reset()
    settings = configure()
    assert (settings.level, settings.precision, settings.enable) == (1, None, frozenset())
    assert settings.attention_limit is None
    assert f"PATCHFORGE_XPU_{variable}" in caplog.text


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1000", 1000), ("512M", 512 << 20), ("2g", 2 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert _parse_bytes(text) == size


def test_levels_and_names_enable_opt_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch)
    on = {}
    for level in LEVELS:
        reset()
        monkeypatch.setenv("PATCHFORGE_XPU_LEVEL", level)
        on[level] = {name for name in OPT_INS if active(name)}
    assert on["O0"] == on["O1"] == set()
    assert on["O2"] == {"channels-last", "async-offload", "non-blocking", "triton"}
    assert on["O3"] == on["O2"] | {"compile"}
    monkeypatch.setenv("PATCHFORGE_XPU_ENABLE", "fp64")
    for level, expected in (("O0", False), ("O1", True)):
        reset()
        monkeypatch.setenv("PATCHFORGE_XPU_LEVEL", level)
        assert active("fp64") is expected


def test_level_o0_says_that_it_leaves_opt_ins_off(caplog: pytest.LogCaptureFixture) -> None:
    pf.start(flags("--xpu-level", "O0", "--xpu-enable", "fp64"))
    assert "O0 leaves fp64 off" in caplog.text


def test_start_takes_arguments_of_a_release_without_any_of_the_flags() -> None:
    pf.start(argparse.Namespace())
    pf.select_devices(argparse.Namespace())
    pf.set_oneapi_selector(argparse.Namespace())
    assert configure().level == 1
    assert not os.environ.keys() & {"ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR"}


def test_without_start_the_parsed_flags_of_comfyui_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comfy.cli_args", types.SimpleNamespace(args=flags("--xpu-level", "O2", cpu=True)))
    host(monkeypatch)
    assert configure().level == 2
    assert chosen() is False


# --- Device choice before torch


@pytest.mark.parametrize(
    ("value", "mask"),
    [
        (0, "0"),
        (1, "1"),
        ("0,1", "0,1"),
        ("1, 0", "1,0"),
        ([0, 2], "0,2"),
        ("all", None),
        (None, None),
        ("GPU-ab", None),
    ],
)
def test_cuda_device_filters_intel_gpus(monkeypatch: pytest.MonkeyPatch, value: Any, mask: str | None) -> None:
    built_for_xpu(monkeypatch, yes=True)
    pf.select_devices(flags(cuda_device=value))
    assert os.environ.get("ZE_AFFINITY_MASK") == mask


@pytest.mark.parametrize(
    ("version_file", "mask"),
    [
        ("__version__ = '2.9.0+xpu'\n", "1"),
        ("__version__ = '2.9.0'\nxpu: Optional[str] = '20250301'\n", "1"),
        ("__version__ = '2.9.0+cu130'\nxpu: Optional[str] = None\n", None),
        ("__version__ = '2.9.0+rocm7.1'\n", None),
        ("__version__ = '2.9.0+cpu'\n", None),
        (None, None),
    ],
)
def test_cuda_device_leaves_other_builds_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version_file: str | None, mask: str | None
) -> None:
    """Torch is not imported to find out: its version file is read."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError('torch was imported')\n")
    if version_file is not None:
        (tmp_path / "torch" / "version.py").write_text(version_file)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(str(tmp_path))
    pf.select_devices(flags(cuda_device=1))
    assert os.environ.get("ZE_AFFINITY_MASK") == mask


@pytest.mark.parametrize("argv", [("--intel-device", "2"), ("--oneapi-device-selector", "level_zero:0")])
def test_explicit_choice_comes_before_cuda_device(argv: tuple[str, ...]) -> None:
    pf.select_devices(flags(*argv, cuda_device=1))
    assert "ZE_AFFINITY_MASK" not in os.environ


@pytest.mark.parametrize(("argv", "mask"), [((), None), (("--cuda-device", "0"), "0"), (("--cuda-dev=0",), "0")])
def test_what_upstream_chooses_for_nvidia_on_windows_hides_no_intel_gpu(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], mask: str | None
) -> None:
    built_for_xpu(monkeypatch, yes=True)
    monkeypatch.setattr(sys.modules[f"{pf.__name__}.start"], "WINDOWS", True)
    monkeypatch.setattr(sys, "argv", ["main.py", *argv])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    pf.select_devices(flags(cuda_device="0"))
    assert os.environ.get("ZE_AFFINITY_MASK") == mask


def test_users_mask_stays(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("ZE_AFFINITY_MASK", "3")
    pf.select_devices(flags(cuda_device=1))
    pf.start(flags("--intel-device", "2"))
    assert os.environ["ZE_AFFINITY_MASK"] == "3"
    assert "ZE_AFFINITY_MASK=3" in caplog.text


@pytest.mark.parametrize("devices", ["0", "0,1", "0.1"])
def test_intel_device_sets_the_mask(devices: str) -> None:
    pf.start(flags("--intel-device", devices))
    assert os.environ["ZE_AFFINITY_MASK"] == devices


@pytest.mark.parametrize("devices", ["A770", "", "-1", "0,"])
def test_wrong_intel_device_is_an_error(devices: str) -> None:
    with pytest.raises(SystemExit, match="--intel-device"):
        pf.start(flags(f"--intel-device={devices}"))
    assert "ZE_AFFINITY_MASK" not in os.environ


def test_oneapi_selector_is_handed_over() -> None:
    pf.set_oneapi_selector(flags("--oneapi-device-selector", "level_zero:1"))
    assert os.environ["ONEAPI_DEVICE_SELECTOR"] == "level_zero:1"


@pytest.mark.parametrize(
    ("version", "allowed"), [("2.5.1+xpu", False), ("2.5.1+cu124", True), ("2.5.1", True), ("", True)]
)
def test_cuda_malloc_is_not_for_xpu_wheels(version: str, allowed: bool) -> None:
    assert pf.cuda_malloc_allowed(version) is allowed


# --- Precision


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("fp32", {"force_fp32"}), ("fp16", {"force_fp16", "fp16_unet"}), ("BF16", {"bf16_unet", "bf16_vae"})],
)
def test_precision_sets_the_flags_of_the_release(
    monkeypatch: pytest.MonkeyPatch, precision: str, expected: set[str]
) -> None:
    host(monkeypatch)
    args = flags("--xpu-precision", precision)
    pf.start(args)
    assert not any(vars(args)[name] for name in PRECISION_FLAGS)  # nothing before the device is known
    assert pf.choose_device(True) is True
    assert {name for name in PRECISION_FLAGS if vars(args)[name]} == expected


def test_bf16_covers_text_encoders_where_the_release_can(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch)
    monkeypatch.setenv("PATCHFORGE_XPU_PRECISION", "bf16")
    args = flags(bf16_text_enc=False)
    pf.start(args)
    pf.choose_device(True)
    assert args.bf16_text_enc is True


def test_a_release_with_an_int8_flag_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch)
    args = flags("--xpu-precision", "int8", int8_unet=False)
    pf.start(args)
    pf.choose_device(True)
    assert args.int8_unet is True


def test_precision_the_release_lacks_is_an_error_that_says_what_there_is() -> None:
    with pytest.raises(SystemExit, match="precision int8") as error:
        pf.start(flags("--xpu-precision", "int8"))
    assert "--bf16-unet" in str(error.value)
    args = flags("--xpu-precision", "bf16")
    del args.bf16_vae
    with pytest.raises(SystemExit, match="precision bf16"):
        pf.start(args)


@pytest.mark.parametrize(
    ("precision", "given"),
    [
        ("fp32", "force_fp16"),
        ("bf16", "fp16_unet"),
        ("bf16", "fp32_vae"),
        ("fp16", "bf16_unet"),
        ("fp16", "fp8_e5m2_unet"),
    ],
)
def test_precision_against_a_given_flag_is_an_error(precision: str, given: str) -> None:
    with pytest.raises(SystemExit, match="--" + given.replace("_", "-")):
        pf.start(flags("--xpu-precision", precision, **{given: True}))


def test_precision_beside_a_flag_of_another_group_is_fine() -> None:
    pf.start(flags("--xpu-precision", "fp16", bf16_vae=True, fp32_text_enc=True))
    pf.start(flags("--xpu-precision", "fp16", fp16_unet=True))


@pytest.mark.parametrize("other", [{"cpu": True}, {"directml": 0}])
def test_precision_is_ignored_elsewhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, other: dict[str, Any]
) -> None:
    host(monkeypatch)
    args = flags("--xpu-precision", "bf16", **other)
    pf.start(args)
    pf.choose_device(True)
    assert not any(vars(args)[name] for name in PRECISION_FLAGS)
    assert "Precision bf16 is for Intel GPUs and is ignored" in caplog.text


def test_precision_is_ignored_without_an_xpu(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    host(monkeypatch, xpu=False, cuda=True)
    args = flags("--xpu-precision", "bf16")
    pf.start(args)
    pf.choose_device(False)
    assert not any(vars(args)[name] for name in PRECISION_FLAGS)
    assert "is ignored" in caplog.text


def test_detection_in_two_steps_settles_on_the_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before v0.1.2 the answer of ``detect`` is what ``usable`` is given."""
    host(monkeypatch)
    args = flags("--xpu-precision", "bf16", "--force-intel-xpu")
    pf.start(args)
    assert pf.choose_device(pf.detect(False)) is True
    assert args.bf16_unet is True
    assert caplog.text == ""


# --- Detection


@pytest.mark.parametrize("build", ["cuda", "hip"])
@pytest.mark.parametrize(
    ("cuda", "forced", "expected"),
    [(None, False, True), (False, False, True), (True, False, False), (True, True, True)],
)
def test_cuda_comes_before_xpu_unless_forced(
    monkeypatch: pytest.MonkeyPatch, build: str, cuda: bool | None, forced: bool, expected: bool
) -> None:
    host(monkeypatch, cuda=cuda, build=build)
    pf.start(flags(*(["--force-intel-xpu"] * forced)))
    assert pf.choose_device(True) is expected
    assert pf.choose_device(pf.detect(False)) is expected
    assert chosen() is expected


def test_prefer_xpu_variable_is_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, cuda=True)
    monkeypatch.setenv("PATCHFORGE_PREFER_XPU", "1")
    assert pf.choose_device(True) is True


def test_detect_finds_native_xpu_or_returns_what_ipex_found(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch)
    assert pf.choose_device(pf.detect(False)) is True
    reset()
    host(monkeypatch, xpu=False)
    assert pf.choose_device(pf.detect(False)) is False
    assert pf.detect(True) is True


def test_forcing_an_absent_xpu_stops_with_cause_and_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, xpu=False, cuda=True)
    pf.start(flags("--force-intel-xpu"))
    with pytest.raises(SystemExit, match=r"built for CUDA 12\.8.*XPU wheel"):
        pf.choose_device(False)
    assert choice(torch)[0] == "nothing"


def test_preferring_an_absent_xpu_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    host(monkeypatch, xpu=False, cuda=True)
    monkeypatch.setenv("PATCHFORGE_PREFER_XPU", "1")
    assert pf.choose_device(False) is False
    assert "another device is used" in caplog.text
    assert choice(torch)[0] == "cuda"


def test_forcing_beside_the_cpu_flag_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, xpu=False)
    pf.start(flags("--force-intel-xpu", cpu=True))
    assert pf.choose_device(False) is False
    assert choice(torch)[0] == "cpu"


def gpus(monkeypatch: pytest.MonkeyPatch, folder: Path, *vendors: str) -> None:
    """A system whose sysfs tells of GPUs of these vendors."""
    for number, vendor in enumerate(vendors):
        device = folder / f"card{number}" / "device"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"0x{vendor}\n", encoding="ascii")
    monkeypatch.setattr(machine, "DRM", str(folder))


@pytest.mark.parametrize(
    ("vendors", "build", "stops"),
    [
        (("8086",), "cuda", True),
        (("8086", "8086"), "hip", True),
        (("1002", "8086"), "cuda", True),
        (("8086", "1234"), "cuda", True),
        (("8086", "10de"), "hip", True),
        (("8086", "10de"), "cuda", False),
        (("1002", "8086"), "hip", False),
        (("10de",), "cuda", False),
        ((), "cuda", False),
    ],
)
def test_a_torch_for_others_on_an_intel_machine_ends_in_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendors: tuple[str, ...], build: str, stops: bool
) -> None:
    host(monkeypatch, xpu=False, cuda=False, build=build)
    gpus(monkeypatch, tmp_path, *vendors)
    if stops:
        with pytest.raises(SystemExit, match="XPU wheel"):
            pf.no_accelerator()
    else:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
        assert pf.no_accelerator() is False
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device, why = choice(torch)
    assert device == "nothing"
    assert "would stop" in why
    assert ("XPU wheel" in why) is ("8086" in vendors)


@pytest.mark.parametrize(
    ("version", "vendors", "cure"),
    [("2.13.0+cpu", ("8086",), "XPU wheel"), ("2.13.0+cpu", ("10de",), ""), ("2.13.0+xpu", (), "compute runtime")],
)
def test_without_an_accelerator_the_cpu_is_used_and_the_cure_is_named(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    version: str,
    vendors: tuple[str, ...],
    cure: str,
) -> None:
    host(monkeypatch, xpu=False)
    monkeypatch.setattr(torch, "__version__", version)
    gpus(monkeypatch, tmp_path, *vendors)
    assert pf.no_accelerator() is True
    assert choice(torch)[0] == "cpu"
    for said in (caplog.text, choice(torch)[1]):
        assert cure in said
        assert bool(cure) is ("is built for" in said)


def cards(monkeypatch: pytest.MonkeyPatch, *integrated: bool) -> Xpu:
    """An XPU host with these devices."""
    fake = host(monkeypatch)
    properties = [
        types.SimpleNamespace(name=f"GPU {n}", is_integrated_gpu=shared) for n, shared in enumerate(integrated)
    ]
    monkeypatch.setattr(fake, "device_count", lambda: len(properties))
    monkeypatch.setattr(fake, "get_device_properties", lambda index: properties[index], raising=False)
    return fake


@pytest.mark.parametrize(
    ("integrated", "extra", "variables", "expected"),
    [
        ((True, False), {}, {}, 1),
        ((True, True, False, False), {}, {}, 2),
        ((False, True), {}, {}, None),
        ((True, True), {}, {}, None),
        ((True,), {}, {}, None),
        ((True, False), {"default_device": 0}, {}, 0),
        ((True, False), {"cuda_device": "0"}, {}, None),
        ((True, False), {"oneapi_device_selector": "level_zero:*"}, {}, None),
        ((True, False), {}, {"ZE_AFFINITY_MASK": "0,1"}, None),
        ((True, False), {}, {"ONEAPI_DEVICE_SELECTOR": "level_zero:*"}, None),
    ],
)
def test_a_card_comes_before_an_integrated_gpu(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    integrated: tuple[bool, ...],
    extra: dict[str, Any],
    variables: dict[str, str],
    expected: int | None,
) -> None:
    fake = cards(monkeypatch, *integrated)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    caplog.set_level("INFO", "patchforge.xpu")
    pf.start(flags(**extra))
    assert choice(torch)[0] == ("xpu" if expected is None else f"xpu:{expected}"), "--help-gpu says what the start does"
    assert pf.choose_device(True) is True
    assert fake.current == ([] if expected is None else [expected])
    assert (f"xpu:{expected} (GPU {expected}) is used" in caplog.text) is (expected is not None)


def test_threads_that_begin_with_torchs_first_device_get_the_chosen_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = cards(monkeypatch, True, False)
    pf.start(flags())
    pf.choose_device(True)
    indices: list[Any] = [pf.current_device(1)]
    thread = threading.Thread(target=lambda: indices.extend([pf.current_device(0), pf.current_device(0)]))
    thread.start()
    thread.join()
    assert indices == [1, 1, 0], "a thread that chooses for itself later is left alone"
    assert fake.current == [1, 1]


def test_without_a_choice_the_current_device_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = cards(monkeypatch, False, False)
    pf.start(flags())
    pf.choose_device(True)
    assert pf.current_device(0) == 0
    assert fake.current == []


@pytest.mark.parametrize(
    ("level", "xpu", "given", "expected"),
    [("O1", True, None, "1"), ("O0", True, None, None), ("O1", False, None, None), ("O1", True, "0", "0")],
)
def test_operators_that_xpu_lacks_fall_back_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, level: str, xpu: bool, given: str | None, expected: str | None
) -> None:
    built_for_xpu(monkeypatch, yes=xpu)
    if given is not None:
        monkeypatch.setenv("PYTORCH_ENABLE_XPU_FALLBACK", given)
    pf.start(flags("--xpu-level", level))
    assert os.environ.get("PYTORCH_ENABLE_XPU_FALLBACK") == expected


def test_availability_is_asked_once_and_errors_are_no(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def is_available() -> bool:
        calls.append(1)
        raise RuntimeError("driver")

    monkeypatch.setattr(torch, "xpu", types.SimpleNamespace(is_available=is_available))
    assert (available(), available(), len(calls)) == (False, False, 1)


def test_ipex_may_add_torch_xpu_after_the_first_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "xpu")
    assert available() is False
    monkeypatch.setattr(torch, "xpu", Xpu(), raising=False)
    assert available() is True


@pytest.mark.parametrize(
    ("extra", "index", "expected"),
    [
        ({}, 1, [1]),
        ({}, 2, []),
        ({}, None, []),
        ({"cuda_device": "0"}, 1, []),
        ({"intel_device": "0"}, 1, []),
        ({"cpu": True}, 1, []),
    ],
)
def test_default_device_is_set_once_the_xpu_is_chosen(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], index: int | None, expected: list[int]
) -> None:
    fake = host(monkeypatch)
    pf.start(flags(**{"default_device": index, **extra}))
    pf.choose_device(True)
    pf.choose_device(True)
    assert fake.current == expected


def test_no_accelerator_on_a_cpu_build(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    host(monkeypatch, xpu=False)
    assert pf.no_accelerator() is True
    assert "runs on the CPU" in caplog.text


@pytest.mark.parametrize(
    "doubt", ["xpu", "cuda", "hip", "spoof", "npu", "corex", "directml", "mps", "private", "raises"]
)
def test_any_doubt_is_an_accelerator(monkeypatch: pytest.MonkeyPatch, doubt: str) -> None:
    host(monkeypatch, xpu=doubt == "xpu", cuda=None)
    if doubt in ("cuda", "hip"):
        monkeypatch.setattr(torch.version, doubt, "1")
    elif doubt in ("npu", "corex"):
        monkeypatch.setattr(torch, doubt, object(), raising=False)
    elif doubt == "spoof":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    elif doubt == "directml":
        monkeypatch.setitem(sys.modules, "torch_directml", types.ModuleType("torch_directml"))
    elif doubt == "mps":
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    elif doubt == "private":
        monkeypatch.setattr(torch._C, "_get_privateuse1_backend_name", lambda: "vendor")
    elif doubt == "raises":
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: 1 // 0)
    assert pf.no_accelerator() is False


@pytest.mark.parametrize(
    ("active", "device", "expected"),
    [
        (True, torch.device("xpu", 0), True),
        (True, torch.device("cpu"), False),
        (True, torch.device("cuda", 0), False),
        (False, torch.device("xpu", 0), False),
        (False, torch.device("cuda", 0), False),
        (True, "xpu:1", True),
        (True, "cuda:0", False),
        (False, "xpu", False),
        (True, None, True),
        (False, None, False),
        (True, 1, True),
        (False, 0, False),
    ],
)
def test_memory_queries_answer_by_device(
    monkeypatch: pytest.MonkeyPatch, active: bool, device: Any, expected: bool
) -> None:
    host(monkeypatch)
    assert pf.asked(active, device) is expected


def test_an_xpu_beside_cuda_answers_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, cuda=True)
    assert pf.choose_device(True) is False, "CUDA comes first"
    assert pf.asked(False, torch.device("xpu", 0)) is True
    assert pf.asked(False, torch.device("cuda", 0)) is False


def test_is_xpu() -> None:
    devices: list[Any] = [torch.device("xpu"), "xpu:1", torch.device("cpu"), "cuda", None, 0]
    assert [pf.is_xpu(device) for device in devices] == [True, True, False, False, False, False]


# --- Help

HELP = """
import argparse, sys
if sys.argv[2] == "without":
    sys.modules["torch"] = None
sys.path.insert(0, sys.argv[1])
import patchforge_xpu
parser = argparse.ArgumentParser()
patchforge_xpu.add_flags(parser)
args = parser.parse_args(sys.argv[3:])
args.cuda_device = "1"
patchforge_xpu.start(args)
print("went on")
"""


def run_help(torch_state: str, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HELP, str(PACKAGE.parent), torch_state, *argv]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_help_gpu_on_a_cpu_only_torch() -> None:
    result = run_help("with", "--help-gpu", "--xpu-level", "O2")
    assert result.returncode == 0, result.stderr
    assert f"torch {torch.__version__}" in result.stdout
    assert "Intel XPU devices:\n  none" in result.stdout
    assert "Chosen: cpu, because torch finds no accelerator." in result.stdout
    assert "Level: O2" in result.stdout
    assert "ZE_AFFINITY_MASK=1" not in result.stdout, "a CPU build has no XPU to choose"
    assert "went on" not in result.stdout


def test_help_gpu_says_that_an_impossible_precision_stops_the_start() -> None:
    result = run_help("with", "--help-gpu", "--xpu-precision", "int8")
    assert result.returncode == 0
    assert "Chosen: nothing, because the start would stop: patchforge: precision int8" in result.stdout
    assert "v0.27.0" in result.stdout


def test_help_gpu_without_torch() -> None:
    result = run_help("without", "--help-gpu")
    assert result.returncode == 1
    assert "torch cannot be imported" in result.stderr


def test_start_needs_no_torch() -> None:
    result = run_help("without", "--xpu-level", "O3", "--intel-device", "0")
    assert (result.returncode, result.stdout) == (0, "went on\n"), result.stderr


@pytest.mark.parametrize(
    ("argv", "cuda", "extra", "expected"),
    [
        ((), None, {}, ("xpu", "torch can use it")),
        ((), True, {}, ("cuda", "CUDA and ROCm come before XPU (--force-intel-xpu changes that)")),
        (("--force-intel-xpu",), True, {}, ("xpu", "it was asked for")),
        ((), True, {"cpu": True}, ("cpu", "--cpu was given")),
    ],
)
def test_help_names_the_choice_that_is_made(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], cuda: bool | None, extra: Any, expected: tuple[str, str]
) -> None:
    host(monkeypatch, cuda=cuda)
    pf.start(flags(*argv, **extra))
    assert choice(torch) == expected
    assert (expected[0] == "xpu") == chosen()


def test_help_lists_devices_and_those_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = host(monkeypatch)
    card = types.SimpleNamespace(name="Intel(R) Arc(TM) B580 Graphics", total_memory=12 << 30)
    fake.get_device_properties = lambda index: card if index == 0 else 1 // 0
    first, second = _devices(torch, "xpu")
    assert first == "xpu:0 Intel(R) Arc(TM) B580 Graphics, 12.0 GiB, discrete"
    assert second.startswith("xpu:1 cannot be asked")
