"""The static proof of no interference: taking our hooks out of a patched file gives upstream's syntax tree.

It knows nothing of the engine and works on ``ast`` alone. Upstream's tree and the patched tree are walked side by side;
where they differ, the difference must be one of a closed set:

=========== ==================================================================================
import      an import of the hooks' module, and of nothing else
statement   ``hook(…)`` or ``hook(E)(…)``
refinement  ``x = hook(…, x, …)``
branch      an ``if`` or ``elif`` that asks a hook or for an XPU, with nothing but ours in it
wrap        ``hook(E, …)`` where upstream has ``E``
operand     ``A and hook(…)`` or ``A or hook(…)`` where upstream has ``A``
replaced    a declared replacement, in an XPU arm
=========== ==================================================================================

Anything else fails with its line and both fragments. So do edits that strip cleanly and change other devices all the
same: a name made local, a function made a generator, a docstring that is no longer first, a hook before its import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from patchforge.proof.alignment import Alignment, HookedFile, StrippedNote
from patchforge.proof.differences import Replacement, StaticProof
from patchforge.proof.hooks import HOOKS
from patchforge.proof.reading import failure


def prove(
    path: str, upstream: str | bytes, patched: str | bytes, replacements: Iterable[Replacement] = ()
) -> StaticProof:
    """The proof for one Python file. CheckFailed names the file, the line and both fragments.

    ``replacements`` are all declared ones; those of other files are ignored.
    """
    alignment = Alignment(path, HookedFile(path, upstream), HookedFile(path, patched), _declared(path, replacements))
    try:
        if alignment.upstream.hook_lines:
            raise failure(path, alignment.upstream.hook_lines[0], f"upstream's file mentions {HOOKS} already")
        alignment.run()
        _check_imports(path, alignment.notes)
    except RecursionError:
        raise failure(path, 1, "an expression is nested too deeply to be proved") from None
    stripped = tuple(sorted(note.stripped for note in alignment.notes))
    return StaticProof(path, sum(note.hooks for note in alignment.notes), stripped, tuple(sorted(alignment.replaced)))


def _declared(path: str, replacements: Iterable[Replacement]) -> list[tuple[ast.expr, ast.expr, Replacement]]:
    declared = []
    for replacement in sorted({replacement for replacement in replacements if replacement.path == path}):
        try:
            before, after = (ast.parse(text, mode="eval").body for text in (replacement.before, replacement.after))
        except (SyntaxError, ValueError):
            problem = "a declared replacement is not an expression"
            raise failure(path, 1, problem, replacement.before, replacement.after) from None
        declared.append((before, after, replacement))
    return declared


def _check_imports(path: str, notes: Sequence[StrippedNote]) -> None:
    """CheckFailed where a hook is used and its module's import does not come before it: a NameError on every device."""
    imports = [note for note in notes if note.stripped.rule == "import"]
    for use in notes:
        if use.hooks and not any(
            (known.place.top or known.place.function is use.place.function) and known.stripped.line < use.stripped.line
            for known in imports
        ):
            raise failure(path, use.stripped.line, f"{HOOKS} is used before it is imported", found=use.stripped.text)
