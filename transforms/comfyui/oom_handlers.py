"""Handlers that catch only torch's own out-of-memory class."""

import libcst as cst

from patchforge.structure import dotted, same
from patchforge.transform import At, Example, Findings, Mismatch, Span, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose

_TYPE = "OOM_EXCEPTION"


class OomHandlers(Transform):
    """Before v0.17.0 the retry paths are ``except OOM_EXCEPTION`` clauses; v0.20.0 brought two of them back.

    Python evaluates the expression of an ``except`` clause while the exception is being handled, so a hook around it can
    widen the clause for just that exception. Without an XPU the hook returns upstream's class itself: the clause, the
    traceback and the handler's body are upstream's.
    """

    id = "oom-handlers"
    aliases = ("T03b",)
    title = "out-of-memory handlers that see Level Zero"
    purpose = Purpose.MEMORY
    issues = ("pytorch#177714", "ComfyUI-GGUF#282")
    files = ("comfy/*", "comfy_extras/*", "execution.py", "nodes.py")
    needles = (_TYPE,)
    hooks = ("oom_types",)
    absent = (Span("v0.17.0", "v0.19.3"),)
    retires = "no handler outside model_management names OOM_EXCEPTION"
    examples = (
        Example(
            "the clause is widened where it is evaluated",
            """\
            from comfy import model_management

            def decode(x):
                try:
                    return run(x)
                except model_management.OOM_EXCEPTION as e:
                    return tiled(x)
            """,
            """\
            from comfy import model_management
            from comfy import patchforge_xpu

            def decode(x):
                try:
                    return run(x)
                except patchforge_xpu.oom_types(model_management.OOM_EXCEPTION) as e:
                    return tiled(x)
            """,
            path="comfy/sd.py",
            version="v0.3.47",
        ),
        Example(
            "a test of the class",
            """\
            import comfy.model_management

            def execute(ex):
                if isinstance(ex, comfy.model_management.OOM_EXCEPTION):
                    free()
            """,
            """\
            import comfy.model_management
            from comfy import patchforge_xpu

            def execute(ex):
                if isinstance(ex, patchforge_xpu.oom_types(comfy.model_management.OOM_EXCEPTION, ex)):
                    free()
            """,
            path="execution.py",
            version="v0.3.47",
        ),
        Example(
            "the class's own module is oom-level-zero's",
            "def is_oom(e):\n    return isinstance(e, OOM_EXCEPTION)\n",
            outcome=Outcome.ABSENT,
            path="comfy/model_management.py",
            version="v0.17.0",
        ),
    )

    def visit_ExceptHandler(self, node: cst.ExceptHandler, at: At) -> Findings:
        """``except …OOM_EXCEPTION``, alone or in a tuple."""
        if node.type is not None and at.path != "comfy/model_management.py" and at.mentions(node.type, _TYPE):
            yield rewrite(node.type, wrap(node.type, "oom_types"))

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """``isinstance(error, …OOM_EXCEPTION)``."""
        if at.path == "comfy/model_management.py" or not same(node.func, "isinstance") or len(node.args) != 2:
            return
        error, kind = (argument.value for argument in node.args)
        if not at.mentions(kind, _TYPE):
            return
        if name := dotted(error):
            yield rewrite(node, wrap(kind, "oom_types", name))
        else:
            yield Mismatch(node, f"isinstance(error, {_TYPE})")
