"""Positions are LibCST's own, for every node but the module, whose end nobody asks for."""

from __future__ import annotations

import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider

from patchforge.engine.positions import Positions
from tests.support import ERAS, miniature
from tests.trivia import mutants

TEXTS = [data.decode() for era in ERAS for path, data in miniature(era).items() if path.endswith(".py")]
ODD = """\
class A (  B,):

  # first
  @x
  def f ( self , *a,b : int=(1 ) ) ->  "t":
    return ( a [ 1 : ] , )  # last
"""


@pytest.mark.parametrize("text", [*TEXTS, *(mutant.text for mutant in mutants(ODD)[::7])])
def test_positions_are_libcsts(text: str) -> None:
    module = cst.parse_module(text)
    positions = Positions(module, text)
    theirs = PositionProvider()._gen(MetadataWrapper(module, unsafe_skip_copy=True))
    assert theirs
    assert {node: positions[node] for node in theirs if node is not module} == {
        node: place for node, place in theirs.items() if node is not module
    }


def test_a_node_of_another_tree_has_no_position() -> None:
    with pytest.raises(KeyError):
        Positions(cst.parse_module("a\n"), "a\n")[cst.Name("a")]
