"""Whose turn it is: requests wait here until the card has room, and the other program's models are unloaded for them.

Why requests wait and are not only watched: ComfyUI begins a job, and Ollama loads a model, in the moment in which it is
asked. Whoever only looks at queues comes too late, and the card is full. So requests that need the card come through a
proxy (``proxy.py``), and are held until this module lets them on. What goes round it is seen afterwards, and said.

Nothing that runs is interrupted: the other side is unloaded when it has nothing to do, by its own means, and the next
one comes on when the memory is seen free. What a program says about itself decides nothing that the card contradicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from patchforge.arbiter.card import Memory, MemoryLook
from patchforge.arbiter.metrics import Metrics
from patchforge.arbiter.services import Loaded, Reach, SharedComfyUI, SharedOllama, follows, full_name, texts

_LOOK = 0.05  #: seconds between looks while somebody waits
_IDLE = 2.0  #: the same while nobody does
_STABLE = 0.5  #: seconds for which the free memory does not change, once a program has unloaded
_SLACK = 0.02  #: of the card, that may be missing from what should be free
_RISEN = 0.6  #: of what was expected to come back, that must have
_LOAD = 600.0  #: seconds that loading a model may take
_MODELS = ("checkpoints", "diffusion_models", "text_encoders", "vae", "loras", "controlnet")
_WEIGHTS = 1.5  #: memory of a job that was not seen yet, of the sizes of its files


class CardSide(StrEnum):
    """Who wants the card."""

    COMFYUI = "comfyui"
    OLLAMA = "ollama"

    @property
    def other(self) -> CardSide:
        return CardSide.OLLAMA if self is CardSide.COMFYUI else CardSide.COMFYUI


class Policy(StrEnum):
    """Who comes first, and what is unloaded: in ``fit`` only what must go, in the others all of the other side's."""

    COMFYUI_FIRST = "comfyui-first"
    OLLAMA_FIRST = "ollama-first"
    FAIR = "fair"
    FIT = "fit"


class Closing(Exception):
    """The arbiter ends; who waits is sent away."""


class Absent(Exception):
    """Nobody listens where the request is to go; who waits is sent away, and nothing is unloaded for it."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that waits. ``model``: of Ollama. ``asks_ollama``: whether a job of ComfyUI's will.

    ``files``: the models that a job names; ``guess``: bytes that it may take, from their sizes, or 0.
    """

    side: CardSide
    model: str = ""
    asks_ollama: bool = False
    files: frozenset[str] = frozenset()
    guess: int = 0
    arrived: float = field(default_factory=time.monotonic)
    ready: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Guest:
    """A request to Ollama out of a job of ComfyUI's. ``last``: whether the job has no more of the kind behind it."""

    model: str
    last: bool


@dataclass(slots=True)
class _BothSeen:
    """How things are at one look. ``jobs`` and ``models``: None where that is not known."""

    memory: Memory | None
    jobs: int | None
    held: int  #: bytes that torch holds for ComfyUI
    models: tuple[Loaded, ...] | None


@dataclass(slots=True)
class _Warm:
    """A model that was unloaded, and until when its user wanted it loaded."""

    vram: int
    until: float  #: of time.monotonic, infinite for ever


class Turns:
    """Who is on the card. ``say`` gets one line for each decision. One event loop uses it."""

    def __init__(
        self,
        comfyui: SharedComfyUI,
        ollama: SharedOllama,
        card: MemoryLook,
        policy: Policy = Policy.FAIR,
        *,
        by_kernel: bool = False,
        patience: float = 30.0,
        settle: float = 5.0,
        say: Callable[[str], None] = print,
    ) -> None:
        """``by_kernel``: ``card`` tells of the memory without asking a program.

        ``patience``: seconds in which memory must be seen free; ``settle``: of quiet, before models are warmed.
        """
        self._by_kernel = by_kernel
        self._looks: set[asyncio.Task[_BothSeen]] = set()  #: that nobody waits for any more
        self.comfyui, self.ollama, self.policy = comfyui, ollama, policy
        self._services = {CardSide.COMFYUI: comfyui, CardSide.OLLAMA: ollama}
        self.metrics = Metrics()
        self._card, self._patience, self._settle, self._say = card, patience, settle, say
        self._waiting: list[Ticket] = []
        self._flight = {CardSide.COMFYUI: 0, CardSide.OLLAMA: 0}
        self._guests = 0  #: requests to Ollama out of a job of ComfyUI's
        self._dirty = {CardSide.COMFYUI: True, CardSide.OLLAMA: True}  #: may hold memory of the card
        self._clear: dict[CardSide, int] = {}  #: bytes that were free when the side held none
        self._sizes: dict[str, int] = {}  #: of models of Ollama's that were seen
        self._jobs: dict[frozenset[str], int] = {}  #: bytes that torch held for ComfyUI in jobs with these models
        self._job: Ticket | None = None  #: the last one that was let on
        self._peak = 0  #: bytes that torch held since
        self._used: set[str] = set()  #: models that were asked for through here since Ollama was unloaded
        self._warm: dict[str, _Warm] = {}
        self._quiet_since = time.monotonic()
        self._reached: dict[str, Reach] = {}
        self._said = ""
        self._wake = asyncio.Event()
        self._card_lock = asyncio.Lock()
        self._closing = False
        self._loading: asyncio.Task[None] | None = None

    # --- For the proxy

    @asynccontextmanager
    async def turn(self, side: CardSide, *, model: str = "", graph: object = None) -> AsyncIterator[None]:
        """Inside, the request may go on to its program. Closing where the arbiter ends before that, Absent where the
        program is not there.
        """
        ticket = await self._ticket(side, full_name(model) if model else "", graph)
        if self._closing:
            raise Closing
        self._waiting.append(ticket)
        self._wake.set()
        try:
            await ticket.ready
        except asyncio.CancelledError:
            if ticket.ready.done() and not ticket.ready.cancelled() and not ticket.ready.exception():
                self._flight[side] -= 1  # let on, and gone in the same moment
            self._wake.set()
            raise
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self.metrics.waited(side, time.monotonic() - ticket.arrived)
        try:
            yield
        finally:
            self._flight[side] -= 1
            self._wake.set()

    async def _ticket(self, side: CardSide, model: str, graph: object) -> Ticket:
        """What is known of a request: sizes of what was not seen loaded yet are asked for where they decide."""
        ticket = Ticket(side, model)
        named = set(texts(graph))
        if not named and (self.policy is not Policy.FIT or model in self._sizes):
            return ticket
        known = await asyncio.to_thread(self.ollama.known)
        if known.get(model):
            self._sizes.setdefault(model, int(known[model] * _WEIGHTS))
        ticket.asks_ollama = bool(known.keys() & {full_name(text) for text in named})
        if side is CardSide.COMFYUI and self.policy is Policy.FIT:
            sizes: dict[str, int] = {}
            for folder in _MODELS:
                sizes |= await asyncio.to_thread(self.comfyui.sizes, folder)
            ticket.files = frozenset(named & sizes.keys())
            ticket.guess = int(sum(sizes[name] for name in ticket.files) * _WEIGHTS)
        return ticket

    async def is_guest(self, model: str, prompt: str = "") -> Guest | None:
        """Whether a request to Ollama may come out of a job that ComfyUI works on: its graph names the model."""
        if await asyncio.to_thread(self.comfyui.remaining) in (0, None):
            return None
        for graph in await asyncio.to_thread(self.comfyui.running):
            if full_name(model) in set(map(full_name, texts(graph))):
                return Guest(full_name(model), last=not follows(graph, prompt))
        return None

    @asynccontextmanager
    async def guest(self, guest: Guest) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """For a request out of a job of ComfyUI's, which waits for it. What is yielded is awaited before the answer's
        end is passed on: the job gets its memory back first, unless it will ask again at once.
        """
        self._guests += 1
        self._used.add(guest.model)
        self._dirty[CardSide.OLLAMA] = True
        self._say(f"{guest.model} answers within a job of ComfyUI's")

        async def leave() -> None:
            if guest.last and self._guests == 1 and not self._flight[CardSide.OLLAMA]:
                async with self._card_lock:
                    seen = await self._look()
                    if self.policy is not Policy.FIT or not self._fits(CardSide.COMFYUI, self._job, seen):
                        await self._evict(CardSide.OLLAMA, seen, CardSide.COMFYUI)

        try:
            yield leave
        finally:
            self._guests -= 1

    def close(self) -> None:
        """Sends away who waits. What was let on goes on."""
        self._closing = True
        for ticket in self._waiting:
            if not ticket.ready.done():
                ticket.ready.set_exception(Closing())
        self._wake.set()

    def status(self) -> Mapping[str, object]:
        """For people and tests."""
        return {
            "policy": self.policy,
            "waiting": {side: sum(ticket.side is side for ticket in self._waiting) for side in CardSide},
            "in_flight": dict(self._flight),
            "reach": {"comfyui": self.comfyui.reach, "ollama": self.ollama.reach},
            "to_warm": sorted(self._warm),
        }

    # --- The loop

    async def run(self) -> None:
        """Until ``close``."""
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK if self._waiting else _IDLE)
            self._wake.clear()
            if not self._closing:
                try:
                    async with self._card_lock:
                        while await self._step():
                            pass
                except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are not left alone
                    self._say(f"a mistake in patchforge: {type(error).__name__}: {error}; it goes on")
                    await asyncio.sleep(1)

    async def _step(self) -> bool:
        """Lets one request on, if one may; whether another look is worth it at once."""
        here = tuple(self._waiting)
        seen = await self._look()
        self._learn(seen)
        self.metrics.show(
            seen.memory, {side: sum(waiting.side is side for waiting in self._waiting) for side in CardSide}
        )
        absent = {side for side, service in self._services.items() if service.reach is Reach.GONE}
        for gone in here:
            if gone.side in absent and not gone.ready.done():
                gone.ready.set_exception(Absent())
        ticket = self._next()
        if ticket is None:
            await self._warm_up(seen)
            return False
        if ticket.side in absent:  # it came during the look: whether its program is there is asked once more
            return True
        other = ticket.side.other
        self._quiet_since = time.monotonic()
        if self._may_stay(ticket, seen):
            self._let_on(ticket, seen)
            return True
        if self._is_busy(other, seen):
            self._tell_why(ticket, seen)
            return False
        began = time.monotonic()
        if not await self._make_room(ticket, seen):
            return False
        self.metrics.handed_over(ticket.side, time.monotonic() - began)
        self._let_on(ticket, await self._seen_now(ticket.side))
        return True

    def _next(self) -> Ticket | None:
        first = {Policy.COMFYUI_FIRST: CardSide.COMFYUI, Policy.OLLAMA_FIRST: CardSide.OLLAMA}.get(self.policy)
        waiting = [ticket for ticket in self._waiting if not ticket.ready.done()]
        return min(
            waiting, key=lambda ticket: (first is not None and ticket.side is not first, ticket.arrived), default=None
        )

    def _let_on(self, ticket: Ticket, seen: _BothSeen) -> None:
        if ticket.ready.done():  # gone, or sent away, in the meantime
            return
        if not any(self._dirty.values()) and seen.memory is not None:
            self._clear[ticket.side] = seen.memory.free
        self._dirty[ticket.side] = True
        if ticket.side is CardSide.COMFYUI:
            self._job, self._peak = ticket, seen.held
        if ticket.model:
            self._used.add(ticket.model)
            self._warm.pop(ticket.model, None)
        self._flight[ticket.side] += 1
        self._waiting.remove(ticket)
        self.metrics.let_on(ticket.side)
        self._said = ""
        ticket.ready.set_result(None)

    async def _seen_now(self, side: CardSide) -> _BothSeen:
        """How things are for a side whose other one was unloaded.

        ComfyUI collects its garbage for a second or two after it was, and answers nobody meanwhile: where the kernel
        tells of the memory, nothing else that it could say is needed.
        """
        if not self._by_kernel or side is CardSide.COMFYUI:
            return await self._look()
        models, memory = await asyncio.gather(asyncio.to_thread(self.ollama.loaded), asyncio.to_thread(self._card))
        return _BothSeen(memory, 0, 0, models)

    async def _look_for_room(self, goal: int | None) -> _BothSeen | Memory:
        """Both programs and the card; or the card alone as soon as that has room, where the kernel tells of it."""
        look = asyncio.create_task(self._look())
        while self._by_kernel and goal is not None and not look.done():
            memory = await asyncio.to_thread(self._card)
            if memory is not None and memory.free >= goal - _SLACK * memory.total:
                self._looks.add(look)
                look.add_done_callback(self._looks.discard)
                return memory
            await asyncio.wait({look}, timeout=_LOOK)
        return await look

    async def _look(self) -> _BothSeen:
        """Asks both programs, and then the card."""
        jobs, models, reserved = await asyncio.gather(
            asyncio.to_thread(self.comfyui.remaining),
            asyncio.to_thread(self.ollama.loaded),
            asyncio.to_thread(self.comfyui.memory),
        )
        memory = await asyncio.to_thread(self._card)  # afterwards: what was taken meanwhile is not counted as free
        held = reserved.held if reserved else 0
        if self.policy is Policy.FIT and held:
            again = await asyncio.to_thread(self.comfyui.memory)
            held = min(held, again.held) if again else held
        for name, service in (("ComfyUI", self.comfyui), ("Ollama", self.ollama)):
            if self._reached.get(name) is not service.reach:
                self._reached[name] = service.reach
                how = {Reach.THERE: "answers", Reach.GONE: "is not there", Reach.ODD: "answers too late, or nonsense"}
                self._say(f"{name} {how[service.reach]}")
                self.metrics.reach(name.lower(), service.reach)
        return _BothSeen(memory, jobs, held, models)

    def _learn(self, seen: _BothSeen) -> None:
        """What both hold; jobs and models that came round the proxy too."""
        self._peak = max(self._peak, seen.held)
        if self._job and self._peak and not self._is_busy(CardSide.COMFYUI, seen):
            self._jobs[self._job.files] = max(self._peak, self._jobs.get(self._job.files, 0))
        for model in seen.models or ():
            if model.size:
                self._sizes[model.name] = model.size
        for side, works in ((CardSide.OLLAMA, seen.models), (CardSide.COMFYUI, seen.jobs)):
            if works and not self._dirty[side]:
                self._say(f"{side} was asked by somebody who does not come through here")
            self._dirty[side] |= bool(works)
        if seen.jobs:
            self._quiet_since = time.monotonic()
        for side, reach in ((CardSide.COMFYUI, self.comfyui.reach), (CardSide.OLLAMA, self.ollama.reach)):
            if reach is Reach.GONE:
                self._dirty[side] = False

    def _is_busy(self, side: CardSide, seen: _BothSeen) -> bool:
        """Whether a program works, or may: one that does not say is not taken for one that rests."""
        if side is CardSide.OLLAMA:
            return self._flight[side] + self._guests > 0
        return self._flight[side] > 0 or seen.jobs is None or seen.jobs > 0

    # --- Room

    def _may_stay(self, ticket: Ticket, seen: _BothSeen) -> bool:
        """Whether a request can go on without anything being unloaded."""
        if self.policy is Policy.FIT:
            return not self._dirty[ticket.side.other] or self._fits(ticket.side, ticket, seen)
        return not self._dirty[ticket.side.other] and not self._begins_empty(ticket, seen)

    def _begins_empty(self, ticket: Ticket, seen: _BothSeen) -> bool:
        """Whether ComfyUI's own models go as well: the job will ask Ollama, and cannot unload them then."""
        return ticket.asks_ollama and self._dirty[CardSide.COMFYUI] and not self._is_busy(CardSide.COMFYUI, seen)

    def _fits(self, side: CardSide, ticket: Ticket | None, seen: _BothSeen) -> bool:
        """Whether there is room for a request beside what is loaded, and for what the other side may still take."""
        need = self._need(side, ticket, seen)
        if need is None or seen.memory is None:
            return False
        growth: int | None = 0
        if self._is_busy(side.other, seen):
            growth = self._need(side.other, self._job if side.other is CardSide.COMFYUI else None, seen)
        return growth is not None and seen.memory.free - growth >= need + _SLACK * seen.memory.total

    def _need(self, side: CardSide, ticket: Ticket | None, seen: _BothSeen) -> int | None:
        """Bytes that a side will take more than it holds; None where nothing is known of it."""
        if side is CardSide.COMFYUI:
            need = (self._jobs.get(ticket.files) or ticket.guess) if ticket else 0
            return max(need - seen.held, 0) if need else None
        loaded = {model.name for model in seen.models or ()}
        if ticket is None:
            return max((self._sizes.get(name, 0) for name in self._used - loaded), default=0)
        return 0 if ticket.model in loaded else self._sizes.get(ticket.model)

    async def _make_room(self, ticket: Ticket, seen: _BothSeen) -> bool:
        """Unloads what is in the way; False where the other side began to work in the meantime."""
        other = ticket.side.other
        if self.policy is not Policy.FIT and self._begins_empty(ticket, seen):
            if not await self._evict(CardSide.COMFYUI, seen, ticket.side):
                return False
            seen = await self._look()
        if not self._dirty[other]:
            return True
        if self.policy is not Policy.FIT or other is CardSide.COMFYUI:
            return await self._evict(other, seen, ticket.side)
        for model in sorted(seen.models or (), key=lambda model: model.expires):
            if not await self._evict(other, seen, ticket.side, only=model.name):
                return False
            seen = await self._look()
            if self._fits(ticket.side, ticket, seen):
                return True
        return await self._evict(other, seen, ticket.side) if self._dirty[other] else True

    async def _evict(self, side: CardSide, seen: _BothSeen, to: CardSide, *, only: str = "") -> bool:
        """Unloads one side, or one model of it, and waits until the memory is seen free.

        False where the side began to work. Where the memory is not seen free in time, that is said and counted, and
        the next one comes on all the same: whether there is room is then for the program to find out.
        """
        before, began = seen.memory, time.monotonic()
        names: list[str] = []
        if side is CardSide.OLLAMA:
            loaded = {model.name: model for model in seen.models or ()}
            names = [only] if only else sorted(loaded.keys() | self._used)
            if not names:
                self._dirty[side] = False
                return True
            for name in names:
                if (model := loaded.get(name)) is not None and model.expires > 0:
                    self._warm[name] = _Warm(model.vram, time.monotonic() + model.expires)
            await asyncio.gather(*(asyncio.to_thread(self.ollama.unload, name) for name in names))
            claimed = sum(model.vram for model in loaded.values() if model.name in names)
        else:
            await asyncio.to_thread(self.comfyui.free)
            claimed = seen.held
        self.metrics.unloaded(side)
        what = ", ".join(names) if names else "ComfyUI's models"
        clear = None if self._dirty[side.other] else self._clear.get(side)
        freed = await self._seen_free(side, before, _goal(before, claimed, clear), names, began)
        if freed is None:
            self._say(f"{side} began to work while it was to be unloaded; {to} waits on")
            return False
        took = time.monotonic() - began
        if freed is math.inf:
            self._say(f"unloaded {what} for {to} in {took:.2f} s; the card's memory cannot be seen")
        elif freed < 0:
            self.metrics.unseen(side)
            self._say(
                f"asked {side} to unload {what}; after {took:.0f} s the memory is not seen free, and {to} comes on"
                f" all the same ({self._told(side)})"
            )
            self._clear.pop(side, None)
        else:
            self._say(f"unloaded {what} for {to} in {took:.2f} s; {freed / 2**20:.0f} MiB came back")
        self._used -= set(names)
        self._dirty[side] = bool(only)
        return True

    async def _seen_free(
        self, side: CardSide, before: Memory | None, goal: int, names: Iterable[str], began: float
    ) -> float | None:
        """Bytes that came back; infinite where nobody sees them, below 0 where they did not come in time.

        None where the side began to work.
        """
        last, since = -1, time.monotonic()
        while time.monotonic() - began < self._patience:
            seen = await self._look_for_room(goal if before else None)
            if isinstance(seen, Memory):
                return float(max(seen.free - before.free, 0)) if before else math.inf  # before it has answered
            if side is CardSide.COMFYUI and (self._flight[side] or seen.jobs):
                return None
            gone = self._says_unloaded(side, seen, names)
            if seen.memory is None or before is None:
                if gone:
                    return math.inf
            else:
                free = seen.memory.free
                if free >= goal - _SLACK * seen.memory.total:
                    return float(max(free - before.free, 0))
                if abs(free - last) > _SLACK * seen.memory.total / 10:
                    last, since = free, time.monotonic()
                risen = free - before.free >= _RISEN * (goal - before.free)
                if gone and risen and time.monotonic() - since > _STABLE:
                    return float(free - before.free)
            await asyncio.sleep(_LOOK)
        return -1.0

    def _says_unloaded(self, side: CardSide, seen: _BothSeen, names: Iterable[str]) -> bool:
        if side is CardSide.OLLAMA:
            return seen.models is not None and not {model.name for model in seen.models} & set(names)
        return self.comfyui.reach is Reach.GONE or (seen.jobs == 0 and seen.held <= self._peak * (1 - _RISEN))

    def _told(self, side: CardSide) -> str:
        reach = self.comfyui.reach if side is CardSide.COMFYUI else self.ollama.reach
        return {Reach.THERE: f"{side} says that it did", Reach.GONE: "it is not there"}.get(reach, f"{side} is slow")

    def _tell_why(self, ticket: Ticket, seen: _BothSeen) -> None:
        """Says why somebody waits, once for each reason."""
        other = ticket.side.other
        count = self._flight[other] + self._guests if other is CardSide.OLLAMA else seen.jobs
        why = "does not say whether it works" if count is None else "is at work"
        if (said := f"{ticket.side} waits: {other} {why}") != self._said:
            self._said = said
            self._say(said)

    # --- Warming

    async def _warm_up(self, seen: _BothSeen) -> None:
        """Loads again what was unloaded, where its user wanted it still, when nobody needs the card."""
        now = time.monotonic()
        self._warm = {name: warm for name, warm in self._warm.items() if warm.until > now + 1}
        quiet = now - self._quiet_since > self._settle and not self._flight[CardSide.OLLAMA] and not self._guests
        if not self._warm or not quiet or self._is_busy(CardSide.COMFYUI, seen) or self.ollama.reach is not Reach.THERE:
            return
        name, warm = max(self._warm.items(), key=lambda pair: pair[1].until)
        room = seen.memory is not None and seen.memory.free >= warm.vram + _SLACK * seen.memory.total
        if not room and self.policy is Policy.OLLAMA_FIRST and self._dirty[CardSide.COMFYUI]:
            room = await self._evict(CardSide.COMFYUI, seen, CardSide.OLLAMA)
        if not room:
            return
        del self._warm[name]
        self._used.add(name)
        self._dirty[CardSide.OLLAMA] = True
        self._flight[CardSide.OLLAMA] += 1
        self._loading = asyncio.create_task(self._load(name, warm.until - now))

    async def _load(self, name: str, keep: float) -> None:
        """In the place of a request: who comes meanwhile waits for its end."""
        try:
            done = await asyncio.to_thread(self.ollama.load, name, keep, _LOAD)
            self._say(f"loaded {name} again" if done else f"{name} could not be loaded again")
            self.metrics.warmed()
        finally:
            self._flight[CardSide.OLLAMA] -= 1
            self._wake.set()


def _goal(before: Memory | None, claimed: int, clear: int | None) -> int:
    """Bytes that should be free: as many as when the side held none, or else with what it says that it holds."""
    if before is None:
        return 0
    return min(max(before.free, clear if clear is not None else before.free + claimed), before.total)
