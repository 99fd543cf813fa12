"""A codemod that changes nothing: what LibCST's own command line costs before anybody's rules."""

import libcst as cst
from libcst.codemod import VisitorBasedCodemodCommand


class Noop(VisitorBasedCodemodCommand):
    """Parses, visits and prints every file as it was."""

    DESCRIPTION = "Changes nothing."

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:  # noqa: ARG002, N802
        """The module as it is."""
        return updated_node
