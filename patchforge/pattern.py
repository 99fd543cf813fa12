"""What a pattern is made of: the sites that it sees, what it may know of the pack, and its verdict.

A pattern is one file with one class. It looks at one site of a node pack at a time and never changes anything itself.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from patchforge.engine.edits import Splice
from patchforge.rules import Rule
from patchforge.vocabulary import Decision

if TYPE_CHECKING:
    from patchforge.nodes.code import Code
    from patchforge.nodes.cuda_tests import Handed
    from patchforge.nodes.known import Package


class Kind(StrEnum):
    """What names the device."""

    AVAILABLE = "torch.cuda.is_available"
    OWN_QUESTION = "the pack's own question"  #: a call of a function that only returns torch.cuda.is_available()
    API = "torch.cuda"
    AMP = "torch.cuda.amp"
    METHOD = ".cuda()"
    IS_CUDA = ".is_cuda"
    LITERAL = "device string"
    PROVIDER = "ONNX Runtime provider"
    BACKEND = "torch.backends"
    BUILD = "torch.version"
    REPLACED = "torch.cuda replaced"  #: a pack puts something else in its place
    ENVIRONMENT = "environment"
    DISTRIBUTED = "torch.distributed"
    OTHER = "another name of CUDA"  #: see nodes/other_names.py
    LOAD = "torch.load"  #: without map_location; an option
    FP64 = "float64"
    OPERATOR = "operator"  #: names no device, and an XPU may lack it


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One place that names a device. ``text`` is what is named, such as ``torch.cuda.empty_cache`` or ``cuda:0``."""

    node: ast.expr
    kind: Kind
    text: str
    line: int
    function: str  #: dotted name of the enclosing function, or "<module>"


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """A decision about sites. ``reason`` is for people: why they are left, or what to do; nothing else reads it."""

    decision: Decision
    sites: tuple[Site, ...]
    reason: str = ""
    splices: tuple[Splice, ...] = ()
    runs_on_xpu: bool = False  #: whether an XPU may come here after the verdict
    rule: str = ""  #: the pattern's name; "" where the place alone decides
    together: tuple[Site, ...] = ()  #: sites that must be ready for an XPU too, or these are for a person
    otherwise: str = ""  #: what that person reads


def converted(sites: Iterable[Site], *splices: Splice, together: Iterable[Site] = (), otherwise: str = "") -> Verdict:
    """The sites are edited, if those in ``together`` are ready for an XPU too; ``otherwise``: what a person reads."""
    return Verdict(
        Decision.CONVERTED,
        tuple(sites),
        splices=splices,
        runs_on_xpu=True,
        together=tuple(together),
        otherwise=otherwise,
    )


def left(sites: Iterable[Site], reason: str, *, runs_on_xpu: bool = False) -> Verdict:
    """The sites stay on purpose. ``runs_on_xpu``: although an XPU may come here."""
    return Verdict(Decision.LEFT, tuple(sites), reason, runs_on_xpu=runs_on_xpu)


def person(sites: Iterable[Site], suggestion: str) -> Verdict:
    """Somebody must look at the sites."""
    return Verdict(Decision.PERSON, tuple(sites), suggestion)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    comfy: bool = False  #: comfy.model_management where no string is wanted
    fp64: bool = False
    torch_load: bool = False
    half: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """What asks for them on the command line."""
        named = {"--comfy-devices": self.comfy, "--enable fp64": self.fp64, "--enable half": self.half}
        return tuple(flag for flag, on in {**named, "--enable torch-load": self.torch_load}.items() if on)


@dataclass(frozen=True, slots=True)
class PackFacts:
    """What a pattern may know of the rest of the pack."""

    options: Options = Options()
    sites: tuple[Site, ...] = ()  #: of the file
    own_cuda: frozenset[str] = frozenset()  #: classes with a ``cuda`` method of their own
    #: (module, function) of the pack that only say whether CUDA is there
    own_questions: frozenset[tuple[str, str]] = frozenset()
    #: function or class → calls of it in the pack: (number of positional arguments, keywords, takes * or **)
    calls: dict[str, tuple[tuple[int, frozenset[str], bool], ...]] | None = None
    #: function or class of the pack that is given a CUDA device → its parameters; only where one goes by that name
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: function or class of the pack → its parameters, by place and by name, that it cuts by the length of CUDA's name
    cuts: Mapping[str, frozenset[int | str]] = field(default_factory=dict)
    devices: frozenset[str] = frozenset()  #: functions of the pack that give a list of CUDA devices
    #: whether what the pack's other files do with an argument is ready for an XPU
    ready: Callable[[Handed], bool] = field(default=lambda _: True, compare=False)
    #: whether another file than the one of that path may read a name of its module, or an attribute of that name
    elsewhere: Callable[[str, str], bool] = field(default=lambda *_: False, compare=False)
    #: function or class of the pack → its parameters that go to a library with device names of its own
    foreign: Mapping[str, Mapping[str, Package]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PackExample:
    """A miniature in our own words. ``after`` is None where nothing is edited; ``person``: somebody must look."""

    name: str
    before: str
    after: str | None = None
    person: bool = False
    options: Options = Options()


class Pattern(Rule):
    """Base of all patterns."""

    examples: ClassVar[tuple[PackExample, ...]]
    #: where the public documents of what the rule changes are
    source: ClassVar[str] = "https://docs.pytorch.org/docs/stable/notes/get_start_xpu.html"
    listed: ClassVar[bool] = False  #: whether what it leaves is listed with what can be done

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """The verdict on ``site``, or None where the pattern has nothing to say."""

    def verdict_on_test(
        self, site: Site, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]
    ) -> Verdict | None:
        """The verdict on a test for CUDA, once all that runs behind it has one (innermost tests first)."""
