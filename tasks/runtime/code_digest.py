"""Digest of the code that a stage runs: its modules, and ours that they import."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

from headrace.tasks.runtime.json_files import digest_of

OURS = ("headrace.tasks", "headrace.serving", "headrace.modeling", "headrace.configs")
"""Packages whose code counts toward a stage's digest."""


@cache
def code_digest(modules: tuple[str, ...]) -> str:
    """Return the digest of the code of `modules_behind`; comments and docstrings do not count."""
    return digest_of(
        {
            name: ast.dump(_without_docstrings(tree))
            for name, tree in modules_behind(modules).items()
        }
    )


def modules_behind(modules: Sequence[str]) -> dict[str, ast.Module]:
    """Return, by name, the modules and all that they import of ours or of their own packages.

    Import statements count wherever they stand. A module that is loaded by a name built at run time
    must be among those given.
    """
    packages = {
        *OURS,
        *(name.split(".")[0] for name in modules if not name.startswith("headrace.")),
    }
    trees: dict[str, ast.Module] = {}
    queue = list(modules)
    while queue:
        name = queue.pop()
        source = _source(name, packages)
        if name in trees or source is None:
            continue
        trees[name] = ast.parse(source.read_text(encoding="utf-8"))
        queue += _imports(trees[name], name, is_package=source.name == "__init__.py")
    return trees


def _source(module: str, packages: Collection[str]) -> Path | None:
    """Return the file of one of our modules; None for any other module or a name in a module."""
    if not any(f"{module}.".startswith(f"{package}.") for package in packages):
        return None
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _imports(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[str]:
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _running(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes of a tree but those under `if TYPE_CHECKING:`, which never run."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        todo += (
            node.orelse if isinstance(node, ast.If) and types_only else ast.iter_child_nodes(node)
        )


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                line
                for line in body
                if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            ]
    return tree
