"""Which code it is: a digest of what a module runs, and the revision of the whole.

The digest covers a module and the project modules that it imports. Comments, docstrings and
formatting do not count, nor do modules that cannot change a result, so only an edit that could
change one changes the digest. It is part of the cache key of each stage and of the name of the
pixel cache.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PROJECT_PACKAGES = ("cxrmodel", "tasks")
REVISION_VARIABLE = "CXRMODEL_REVISION"  # set in the Docker image, which has no checkout

# These modules and packages cannot change a result, or a key covers them in another way: settings
# enter a key by value, pixels by their checksums, inputs by their content.
SETTINGS = "cxrmodel.config"
NEUTRAL = (
    "cxrmodel.cluster",
    "cxrmodel.code_digest",
    SETTINGS,
    "cxrmodel.data.files",
    "cxrmodel.data.ledger",
    "cxrmodel.errors",
    "cxrmodel.machine",
    "cxrmodel.places",
    "cxrmodel.progress",
    "cxrmodel.settings",
    "cxrmodel.storage",
    "cxrmodel.threads",
    "cxrmodel.training.checkpoint_copies",
    "cxrmodel.training.speed",
    "tasks.engine",
)


@cache
def code_digest(module: str) -> str:
    """Return the sha256 over the syntax trees of a module and of all it reaches.

    Files of other kinds in a reached package (templates) count by their bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(reachable_modules(module)):
        path = _source(name)
        module_read = _read(path)
        digest.update(f"{name}\n{module_read.code}\n{module_read.values}\n".encode())
        for extra in _data_files(path):
            digest.update(f"{name}/{extra.name}\n".encode() + extra.read_bytes())
    return digest.hexdigest()


def revision() -> str:
    """Return the git revision of the code, or `unknown` outside a checkout and a Docker image."""
    if built_in := os.environ.get(REVISION_VARIABLE):
        return built_in
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return "unknown"
    return answer.stdout.strip() or "unknown"


def reachable_modules(module: str) -> set[str]:
    """Return the project modules that a module's code imports, itself and theirs included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or is_neutral(name):
            continue
        found.add(name)
        waiting += _read(_source(name)).imports
    return found


def is_neutral(module: str) -> bool:
    """Say whether a module, or its package, is declared unable to change a result."""
    return any(module == name or module.startswith(f"{name}.") for name in NEUTRAL)


@dataclass(frozen=True)
class _Module:
    imports: list[str]  # of this project
    code: str  # dump of the syntax tree without comments, docstrings and layout
    values: str  # dump of the values that it takes from neutral modules


@cache  # most modules are reached by several stages
def _read(path: Path) -> _Module:
    tree = _tree(path)
    return _Module(_imports(tree), ast.dump(tree), _values(tree))


@cache
def _tree(path: Path) -> ast.Module:
    """Parse a module and take its docstrings out."""
    tree = ast.parse(path.read_bytes())  # bytes: as UTF-8, whatever the locale
    for block in _blocks(tree):
        block[:] = [statement for statement in block if not _is_bare_string(statement)]
    return tree


def _source(module: str) -> Path:
    """Return a module's file without importing it or its parents."""
    path = _find(module)
    if path is None:
        raise ModuleNotFoundError(f"no source of {module}, which a stage imports")
    return path


@cache
def _find(module: str) -> Path | None:
    package, *names = module.split(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]).joinpath(*names)
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imports(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in _runtime_imports(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in PROJECT_PACKAGES and _find(name)]


def _values(tree: ast.Module) -> str:
    """Dump the constants that a module imports from neutral ones, and the sections it constructs.

    `from cxrmodel.config import LIMIT` shapes a result by the value of LIMIT, and
    `ReportConfig()` by the defaults of that section.
    """
    dumps: list[str] = []
    for node in _runtime_imports(tree):
        if isinstance(node, ast.ImportFrom) and node.module and is_neutral(node.module):
            path = _source(node.module)
            called = _called(tree) if node.module == SETTINGS else set()
            for alias in node.names:
                is_filled = (alias.asname or alias.name) in called
                dumps += _definitions(path, alias.name, with_class=is_filled)
    return "\n".join(dumps)


def _called(tree: ast.Module) -> set[str]:
    """Return the names that a module calls."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def _definitions(path: Path, name: str, *, with_class: bool) -> list[str]:
    """Dump the definition of a name in a module, and of the names that it uses there."""
    top = {key: node for node in _tree(path).body for key in _names_of(node)}
    dumps, waiting, seen = [], [name], set()
    while waiting:
        name = waiting.pop()
        node = top.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if isinstance(node, ast.ClassDef) and not with_class:
            continue
        dumps.append(ast.dump(node))
        waiting += [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]
    return dumps


def _names_of(node: ast.stmt) -> list[str]:
    """Return the names that a statement gives a value or a class."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _runtime_imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    """Return the import statements outside `if TYPE_CHECKING:`, which never run."""
    statements = (statement for block in _blocks(tree, skip=_is_for_types) for statement in block)
    return [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]


def _blocks(
    node: ast.AST, skip: Callable[[ast.AST], bool] = lambda _: False
) -> Iterator[list[ast.stmt]]:
    """Yield every list of statements within a node; it is quick, since expressions have none."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block
            for statement in block:
                if not skip(statement):
                    yield from _blocks(statement, skip)
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield from _blocks(part, skip)


def _is_for_types(node: ast.AST) -> bool:
    test = getattr(node, "test", None)  # TYPE_CHECKING or typing.TYPE_CHECKING
    name = getattr(test, "id", None) or getattr(test, "attr", None)
    return isinstance(node, ast.If) and name == "TYPE_CHECKING"


def _is_bare_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _data_files(path: Path) -> list[Path]:
    folder = path.parent / "templates"
    return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
