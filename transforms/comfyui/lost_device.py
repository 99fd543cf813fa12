"""To /system_stats a lost device looks like a working one."""

import libcst as cst

from patchforge.structure import dotted
from patchforge.transform import At, Example, Findings, Mismatch, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose


class LostDevice(Transform):
    """After its driver has reset a GPU, the server answers as before, and every prompt fails until a restart.

    What watches the server asks /system_stats. The hook adds a line to the entries of XPUs once a loss was seen; until
    then, and on other devices, it hands back the object that it was given.
    """

    id = "lost-device"
    title = "a lost GPU is told"
    purpose = Purpose.MEMORY
    issues = ("ComfyUI#7753", "AI-Playground#355", "intel-extension-for-pytorch#780")
    files = ("server.py",)
    needles = ("/system_stats",)
    hooks = ("lost_device",)
    retires = "/system_stats tells the state of each device"
    opt_in = "exit-when-lost"
    examples = (
        Example(
            "the answer is refined before it is sent",
            """\
            from aiohttp import web

            class Server:
                def __init__(self, routes):
                    @routes.get("/system_stats")
                    async def get_queue(request):
                        system_stats = {"devices": []}
                        return web.json_response(system_stats)
            """,
            """\
            from aiohttp import web
            from comfy import patchforge_xpu

            class Server:
                def __init__(self, routes):
                    @routes.get("/system_stats")
                    async def get_queue(request):
                        system_stats = {"devices": []}
                        return web.json_response(patchforge_xpu.lost_device(system_stats))
            """,
        ),
        Example(
            "another answer needs a person",
            '@routes.get("/system_stats")\nasync def system_stats(request):\n    return render(request)\n',
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Return(self, node: cst.Return, at: At) -> Findings:
        """What the route answers."""
        function = next((item for item in reversed(at.ancestors) if isinstance(item, cst.FunctionDef)), None)
        if function is None or node.value is None or not _answers_stats(function, at):
            return
        answer = node.value
        if isinstance(answer, cst.Call) and at.calls(answer, "json_response") and len(answer.args) == 1:
            stats = answer.args[0].value
            if dotted(stats):
                yield rewrite(node, wrap(stats, "lost_device"))
                return
        yield Mismatch(node, "return web.json_response(system_stats)")


def _answers_stats(function: cst.FunctionDef, at: At) -> bool:
    """Whether a function is the route's; its name is another route's in releases before v0.2.0."""
    return any("/system_stats" in at.strings(decorator) for decorator in function.decorators)
