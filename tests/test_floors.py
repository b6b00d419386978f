"""Imports go down only, and the low floors stay free of torch."""

import ast
from pathlib import Path

import pytest

import ladlib
from ladlib.runner import TOP_FLOOR

ROOT = Path(ladlib.__file__).parent
FLOORS = {
    0: (
        "errors", "sanitize", "records", "config", "runs", "machine", "checksums", "progress",
        "families",
    ),
    1: (
        "data", "toy", "prompts", "parsing", "sft_data", "leakage", "generations",
    ),
    2: (
        "rewards", "alarms", "metrics", "statistics", "models", "generate", "response", "neighbours",
        "fast", "results", "published", "claims",
    ),
    3: (
        "pretrain", "training", "sft", "grpo", "evaluate", "endpoint", "sft_writer", "launch", "export",
    ),
    4: TOP_FLOOR,
}  # fmt: skip
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
HEAVY = {"torch", "transformers", "trl", "peft", "accelerate"}
LIGHT_ABOVE = {
    "rewards", "alarms", "metrics", "statistics", "neighbours", "endpoint", "evaluate", "results", "published",
    "claims", "response", "sft_writer", "report", "notebook", "pipeline", "study", "bands",
    "verify", "cli", "exercises",
}  # fmt: skip  # beside floors 0 and 1
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "notebooks")


def part(path: Path) -> str:
    """The module or package directly below ladlib that ``path`` belongs to."""
    if path.stem.startswith("pretrain"):
        return "pretrain"  # the one part of ladlib.toy that trains
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be followed"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def at_module_level(tree: ast.Module) -> ast.Module:
    """``tree`` without the bodies of functions."""

    class Shallow(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

    return Shallow().visit(tree)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_from_its_own_floor_or_lower(path):
    own = FLOOR[part(path)]
    parts = {name.split(".")[1] for name in imports(parse(path)) if name.startswith("ladlib.")}
    above = {name for name in parts if name in FLOOR and FLOOR[name] > own}
    assert not above, f"floor {own} imports {above}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_low_floors_and_the_front_door_import_no_torch(path):
    name = part(path)
    if name == "__init__" or FLOOR[name] <= 1:
        tree = parse(path)  # not even inside a function
    elif name in LIGHT_ABOVE:
        tree = at_module_level(parse(path))
    else:
        return
    assert not {one.split(".")[0] for one in imports(tree)} & HEAVY


def names(module: str, alias: str) -> set[Path]:
    """The files that ``from module import alias`` reads."""
    folder = ROOT.joinpath(*module.split(".")[1:])
    inner = (folder / f"{alias}.py", folder / alias / "__init__.py")
    return {path for path in (*inner, folder.with_suffix(".py"), folder / "__init__.py") if path.is_file()} - {
        ROOT / "__init__.py"
    }


def test_no_module_imports_itself_by_way_of_others_not_even_inside_a_function():
    left = {}
    for path in MODULES:
        nodes = [node for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom)]
        own = [node for node in nodes if (node.module or "").split(".")[0] == "ladlib"]
        found = [next(iter(sorted(names(node.module, alias.name), key=lambda f: f.stem == "__init__")), path)
                 for node in own for alias in node.names]  # fmt: skip
        left[path] = set(found) - {path}
    while free := [path for path, others in left.items() if not others & left.keys()]:
        for path in free:
            del left[path]
    assert not {path.relative_to(ROOT).as_posix() for path in left}


def test_the_report_is_imported_by_those_that_end_a_run_and_only_inside_functions():
    users = set()
    for path in MODULES:
        if part(path) != "report":
            tree = parse(path)
            assert not any(name.startswith("ladlib.report") for name in imports(at_module_level(tree)))
            users |= {part(path)} if any(name.startswith("ladlib.report") for name in imports(tree)) else set()
    assert users <= {"cli", "pipeline", "study", "notebook"}


def test_no_module_is_longer_than_300_lines():
    long = {path.name: len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: lines for name, lines in long.items() if lines > 300}
