"""What a stage depends on, as one hash; a stage runs again when it differs from the recorded one.

The parts: the notebook's code, its parameters with the contents of files that they name, the profile (its
endpoint and evaluate.large only where the notebook may ask the large model; of data.sft_file the contents),
every module of ladlib that the notebook imports (and what those import, with the files beside them), the
shipped models, the dataset folder (names and sizes of its files), and the outputs of the stages before it.
Where the run folder lies and which versions of other packages are installed are not part of it.
"""

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ladlib.config import Profile
from ladlib.data import FOLDERS
from ladlib.data.images import sha256
from ladlib.errors import UserError
from ladlib.pipeline.parameters import OPTIONS, Scalar, cells
from ladlib.pipeline.stages import PACKAGE
from ladlib.runs import from_root


def inputs_sha256(
    notebook: Path,
    parameters: Mapping[str, Scalar],
    profile: Profile,
    data: str,
    upstream: Mapping[str, str],
) -> str:
    """The hash of everything listed above; ``upstream`` maps earlier stages to their outputs' hashes."""
    modules = modules_of(notebook)
    meets_large = PACKAGE / "endpoint" / "__init__.py" in modules
    unused = {"data": {"sft_file"}} | ({} if meets_large else {"endpoint": True, "evaluate": {"large"}})
    models = [profile.model.base, *([profile.model.large] if meets_large and profile.evaluate.large else [])]
    parts = {
        "notebook": _code(notebook),
        "parameters": {name: parameters[name] for name in parameters if name not in ("run", "data", "profile")},
        "files": _named_files(parameters) | _sft_file(profile),
        "profile": profile.model_dump(exclude=unused),
        "package": digest(PACKAGE, modules),
        "model": digest(PACKAGE / "assets", [PACKAGE / "assets" / name for name in models]),
        "data": _fingerprint(Path(data)) if data else "",
        "upstream": dict(upstream),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest(root: Path, paths: Iterable[Path]) -> str:
    """Hash of the contents of ``paths`` (files, or folders with all below them) under names relative to root."""
    total = hashlib.sha256()
    for file in sorted({file for path in paths for file in _files(path)}):
        total.update(f"{file.relative_to(root).as_posix()}\0".encode())
        with file.open("rb") as opened:
            total.update(hashlib.file_digest(opened, "sha256").digest())
    return total.hexdigest()


def modules_of(notebook: Path) -> set[Path]:
    """The files of ladlib that ``notebook`` imports, directly or through other modules."""
    found: set[Path] = set()
    waiting = list(_imported(_code(notebook), notebook))
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.name == "__init__.py" and path.parent != PACKAGE:
            found.update(_beside(path.parent))
        waiting.extend(_imported(path.read_text(encoding="utf-8"), path))
    return found


def imported_names(source: str) -> Iterator[str]:
    """Dotted names of everything that ``source`` imports, wherever in it; ``a.b`` and ``a`` for ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _imported(source: str, where: Path) -> Iterator[Path]:
    try:
        names = set(imported_names(source))
    except SyntaxError as error:
        raise UserError(f"{where} is not valid Python: {error.msg}.", "Correct it and run again.") from error
    for name in names:
        if name.split(".")[0] == PACKAGE.name:
            path = PACKAGE.joinpath(*name.split(".")[1:])
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    yield file


def _beside(folder: Path) -> Iterator[Path]:
    """Templates and tables that lie in a package beside its modules."""
    return (path for path in _files(folder) if path.suffix not in (".py", ".pyc"))


def _code(notebook: Path) -> str:
    sources = (cell["source"] for cell in cells(notebook) if cell["cell_type"] == "code")
    return "\n".join(line for source in sources for line in source.splitlines() if line[:1] not in "%!")


def _named_files(parameters: Mapping[str, Scalar]) -> dict[str, str]:
    """Parameter to hash, where its value names a file; an option's own file is read elsewhere."""
    texts = {name: value for name, value in parameters.items() if name not in OPTIONS and isinstance(value, str)}
    files = {name: from_root(value) for name, value in texts.items() if value}
    return {name: sha256(file) for name, file in files.items() if file.is_file()}


def _sft_file(profile: Profile) -> dict[str, str]:
    """What it holds counts, not where it lies."""
    file = Path(profile.data.sft_file or "")
    return {"data.sft_file": sha256(file)} if file.is_file() else {}


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif path.is_file():
        yield path


def _fingerprint(data: Path) -> str:
    """Names and sizes of the files of the datasets below ``data``: contents would take minutes to read."""
    folders = [data / name for name in FOLDERS.values() if (data / name).is_dir()] or [data]
    total = hashlib.sha256()
    for folder in folders:
        for parent, children, names in os.walk(folder):
            children.sort()
            for name in sorted(names):
                file = Path(parent, name)
                total.update(f"{file.relative_to(data).as_posix()}\0{file.stat().st_size}\n".encode())
    return total.hexdigest()
