"""Imports go down only, and the low floors stay free of torch."""

import ast
from pathlib import Path

import ladlib
from ladlib.runner import TOP_FLOOR

ROOT = Path(ladlib.__file__).parent
FLOORS = {
    0: (
        "errors", "sanitize", "records", "config", "runs", "checksums", "progress",
        "families",
    ),
    1: (
        "data", "toy", "prompts", "parsing", "sft_data", "leakage", "generations",
    ),
    2: (
        "rewards", "metrics", "statistics", "models", "generate", "response", "neighbours",
        "fast", "results", "published", "claims",
    ),
    3: (
        "pretrain", "resume", "training", "sft", "grpo", "evaluate", "endpoint", "sft_writer", "launch", "export",
    ),
    4: TOP_FLOOR,
}  # fmt: skip
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
HEAVY = {"torch", "transformers", "trl", "peft", "accelerate"}
LOADS_HEAVY = {"models", "generate", "fast", "resume", "training", "sft", "grpo", "export", "bench", "pretrain"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "notebooks")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


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


def at_module_level(tree: ast.Module) -> set[str]:
    """What ``tree`` imports outside functions."""
    return imports(ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)], []))


def test_a_module_imports_from_its_own_floor_or_lower():
    wrong = {}
    for path, tree in TREES.items():
        parts = {name.split(".")[1] for name in imports(tree) if name.startswith("ladlib.")}
        if above := {name for name in parts if FLOOR.get(name, 0) > FLOOR[part(path)]}:
            wrong[path.name] = above
    assert wrong == {}


def test_low_floors_import_no_torch_and_others_only_inside_functions_but_where_it_is_their_work():
    wrong = {}
    for path, tree in TREES.items():
        low = FLOOR[part(path)] <= 1 or part(path) == "__init__"  # not even inside a function
        names = {name.split(".")[0] for name in (imports(tree) if low else at_module_level(tree))}
        if names & HEAVY and part(path) not in LOADS_HEAVY:
            wrong[path.name] = names & HEAVY
    assert wrong == {}


def files(module: str, alias: str) -> Path | None:
    """The file that ``from module import alias`` reads first of all beside ``ladlib/__init__.py``."""
    folder = ROOT.joinpath(*module.split(".")[1:])
    paths = [folder / f"{alias}.py", folder / alias / "__init__.py", folder.with_suffix(".py"), folder / "__init__.py"]
    return next((path for path in paths if path.is_file() and path != ROOT / "__init__.py"), None)


def test_no_module_imports_itself_by_way_of_others_not_even_inside_a_function():
    left = {}
    for path, tree in TREES.items():
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        own = [node for node in nodes if (node.module or "").split(".")[0] == "ladlib"]
        left[path] = {files(node.module, alias.name) for node in own for alias in node.names} - {path, None}
    while free := [path for path, others in left.items() if not others & left.keys()]:
        for path in free:
            del left[path]
    assert not {path.relative_to(ROOT).as_posix() for path in left}


def test_the_report_is_imported_by_those_that_end_a_run_and_only_inside_functions():
    others = {path: tree for path, tree in TREES.items() if part(path) != "report"}
    users = {part(path) for path, tree in others.items() if "ladlib.report" in " ".join(imports(tree))}
    assert users <= {"cli", "pipeline", "study", "notebook"}
    assert "ladlib.report" not in " ".join(name for tree in others.values() for name in at_module_level(tree))


def test_no_module_is_longer_than_300_lines():
    lengths = {path.name: len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: lines for name, lines in lengths.items() if lines > 300}
