"""What the pages say of writing a rule is done as they say, in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

#: Page → the folder of the rule that it has whole, and the line that proves it there.
PAGES = {
    "developer": ("transforms/comfyui", "## spare-units: spare units are counted"),
    "nodes": ("transforms/nodes", "## pack-spare-units: spare units"),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What of the repository the commands need."""
    for name in ("patchforge", "transforms", "templates", "upstream", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(checkout: Path, words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words.split()[1:]]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def printed(text: str, what: str) -> str:
    """The one command of a page that has these words."""
    (line,) = [line for line in text.splitlines() if line.startswith("python -m ") and what in line]
    return line


@pytest.mark.parametrize("page", PAGES)
def test_the_rule_of_a_page(page: str, checkout: Path) -> None:
    folder, heading = PAGES[page]
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    (rule,) = re.findall(r"^```python\n([^`]*?class SpareUnits.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert f"`{folder}/spare_units.py`" in text
    (checkout / folder / "spare_units.py").write_text(rule, "utf-8")
    explained = run(checkout, printed(text, "explain "))
    assert (explained.returncode, explained.stdout.splitlines()[0]) == (0, heading), explained.stderr
    tested = run(checkout, printed(text, "pytest ") + " -q -p no:cacheprovider")
    assert tested.returncode == 0, tested.stdout
    assert "passed" in tested.stdout
    if page == "developer":
        tried = run(checkout, "python -m patchforge apply --from tests/miniatures/v0.33.0 --dry-run")
        assert "no such place in this release" in tried.stderr
        (checkout / folder / "spare_units.py").write_text(
            rule.replace("import Already,", "import Span, Already,").replace(
                "    retires", "    absent = (Span(),)\n    retires"
            ),
            "utf-8",
        )
        tried = run(checkout, "python -m patchforge apply --from tests/miniatures/v0.33.0 --dry-run")
        assert tried.returncode == 0, tried.stderr
