"""The words of custom-node packs. They know nobody; the rules know only these and ``code``."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from patchforge.engine.edits import Splice

if TYPE_CHECKING:
    from patchforge.nodes.code import Code


class Decision(StrEnum):
    """What becomes of a site. There is no fourth."""

    CONVERTED = "converted"
    LEFT = "left"  #: on purpose, with the reason
    PERSON = "person"  #: somebody must look; there is a suggestion


class Kind(StrEnum):
    """What names the device."""

    AVAILABLE = "torch.cuda.is_available"
    ANSWER = "the pack's own question"  #: a call of a function that returns nothing but torch.cuda.is_available()
    API = "torch.cuda"
    AMP = "torch.cuda.amp"
    METHOD = ".cuda()"
    IS_CUDA = ".is_cuda"
    LITERAL = "device string"
    PROVIDER = "ONNX Runtime provider"
    BACKEND = "torch.backends"
    BUILD = "torch.version"
    ENVIRONMENT = "environment"
    DISTRIBUTED = "torch.distributed"
    LOAD = "torch.load"  #: without map_location; an option
    FP64 = "float64"  #: an option


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
    """A decision about sites, by the rule or the reason of leaving (``rule`` is then empty)."""

    decision: Decision
    sites: tuple[Site, ...]
    rule: str
    reason: str  #: why it is left, or what to do
    splices: tuple[Splice, ...] = ()


def converted(rule: str, sites: Iterable[Site], *splices: Splice, reason: str = "") -> Verdict:
    """The sites are edited."""
    return Verdict(Decision.CONVERTED, tuple(sites), rule, reason, splices)


def left(rule: str, sites: Iterable[Site], reason: str) -> Verdict:
    """The sites stay on purpose."""
    return Verdict(Decision.LEFT, tuple(sites), rule, reason)


def person(rule: str, sites: Iterable[Site], suggestion: str) -> Verdict:
    """Somebody must look at the sites."""
    return Verdict(Decision.PERSON, tuple(sites), rule, suggestion)


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
class Surroundings:
    """What a rule may know of the rest of the pack."""

    options: Options = Options()
    sites: tuple[Site, ...] = ()  #: of the file
    own_cuda: frozenset[str] = frozenset()  #: classes with a ``cuda`` method of their own
    #: (module, function) of the pack that only say whether CUDA is there
    answers: frozenset[tuple[str, str]] = frozenset()
    #: function or class → calls of it in the pack: (number of positional arguments, keywords, takes * or **)
    calls: dict[str, tuple[tuple[int, frozenset[str], bool], ...]] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A miniature in our own words. ``after`` is None where nothing is edited; ``person``: somebody must look."""

    name: str
    before: str
    after: str | None = None
    person: bool = False
    options: Options = Options()


class Rule:
    """Base of all rules. The class docstring says why the pattern matters."""

    id: ClassVar[str]
    title: ClassVar[str]
    order: ClassVar[int] = 50  #: lower sees the sites first
    examples: ClassVar[tuple[Example, ...]]

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """The verdict on ``site``, or None where the rule has nothing to say."""
        raise NotImplementedError

    def gate(self, site: Site, code: Code, around: Surroundings, verdicts: Mapping[Site, Verdict]) -> Verdict | None:
        """The verdict on a test for CUDA, once all that it guards has one (innermost tests first)."""
