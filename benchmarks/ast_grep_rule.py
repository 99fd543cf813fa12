"""One rule, ``torch.cuda.X``, over every Python file of a tree with ast-grep's Python binding."""

import sys
from pathlib import Path

from ast_grep_py import SgRoot


def count(folder: Path) -> int:
    """How often ``torch.cuda.X`` stands in the tree; each match is replaced in memory, as a rewrite would."""
    replaced = 0
    for path in sorted(folder.rglob("*.py")):
        root = SgRoot(path.read_text(encoding="utf-8"), "python").root()
        matches = root.find_all(pattern="torch.cuda.$NAME")
        root.commit_edits([match.replace(match.text()) for match in matches])
        replaced += len(matches)
    return replaced


if __name__ == "__main__":
    print(count(Path(sys.argv[1])))
