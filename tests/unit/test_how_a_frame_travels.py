"""docs/how-a-frame-travels.md names functions that exist, and each calls what the page says."""

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `([\w/]+\.py)` \| `([\w.]+)` \| `([\w.]+)` \|", re.MULTILINE)
ROWS = ROW.findall((REPO / "docs/how-a-frame-travels.md").read_text())


def function(path: str, name: str) -> ast.AST:
    node: ast.AST = ast.parse((REPO / path).read_text())
    for part in name.split("."):
        named = (ast.ClassDef, ast.FunctionDef)
        found = [child for child in ast.iter_child_nodes(node) if isinstance(child, named) and child.name == part]
        assert found, f"{path} has no {name}"
        node = found[0]
    return node


def calls(node: ast.AST) -> set[str]:
    """Return what is called below a node, as written, with every ending: `self.producer.send` also as `producer.send`, `send`."""
    names = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Call):
            parts = ast.unparse(child.func).split(".")
            names |= {".".join(parts[start:]) for start in range(len(parts))}
    return names


def test_the_page_has_the_whole_way() -> None:
    stages = [path for path, _, _ in ROWS if path.endswith("stage.py")]
    assert stages == ["services/detector/stage.py", "services/classifier/stage.py", "services/aggregator/stage.py"]
    assert len({path for path, _, _ in ROWS}) >= 11


@pytest.mark.parametrize(("path", "name", "called"), ROWS)
def test_each_calls_the_next(path: str, name: str, called: str) -> None:
    assert called in calls(function(path, name))
