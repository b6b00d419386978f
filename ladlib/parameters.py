"""Notebook parameters, checked by name and type before anything runs.

papermill only warns about a misspelt name and passes any type on, so both are checked here against the literals of
the cell tagged ``parameters``.
"""

import ast
import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from ladlib.errors import UserError, read_json

RESTORE = "Restore it from the repository."
Scalar = str | int | float | bool
OPTIONS = ("profile", "data", "run", "seed")  # given as options of the command line, not with -p
NOUNS = {bool: "true or false", int: "a whole number", float: "a number"}


def cells(notebook: Path) -> list[dict]:
    """The cells of ``notebook`` as stored, each with ``source`` as one string."""
    if not notebook.exists():
        raise UserError(f"There is no notebook {notebook}.", RESTORE)
    try:
        return [cell | {"source": "".join(cell["source"])} for cell in read_json(notebook, RESTORE)["cells"]]
    except (TypeError, KeyError) as error:
        raise UserError(f"{notebook} is not a notebook.", RESTORE) from error


def declared(notebook: Path) -> dict[str, Scalar]:
    """Names and default values of the cell tagged ``parameters``, in its order.

    Raises :class:`UserError` where the cell is missing or holds anything but ``name = literal``.
    """
    tagged = [cell["source"] for cell in cells(notebook) if "parameters" in cell.get("metadata", {}).get("tags", ())]
    if not tagged:
        raise UserError(f"{notebook} has no cell tagged 'parameters'.", "Tag its first code cell so.")
    try:
        lines = ast.parse(tagged[0]).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"{notebook}: the parameters cell is not valid Python: {error}.", RESTORE) from error
    return dict(_assignment(line, notebook) for line in lines)


def _assignment(line: ast.stmt, notebook: Path) -> tuple[str, Scalar]:
    match line:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            try:
                return name, ast.literal_eval(value)
            except ValueError:
                pass
    raise UserError(
        f"{notebook}: the parameters cell holds {ast.unparse(line)!r}.", "Only `name = literal` may stand there."
    )


def check(given: Iterable[str], notebooks: Mapping[str, Path]) -> dict[str, dict[str, Scalar]]:
    """Each notebook's parameters: its defaults, replaced by those of ``given`` (``name=value``) that it declares.

    Values are read as YAML scalars and must be of the default's type; an int passes for a float. Text is taken as it
    is. Raises :class:`UserError` for a name that no notebook declares, and for a wrong type.
    """
    values = {stage: declared(path) for stage, path in notebooks.items()}
    known = {name for parameters in values.values() for name in parameters}
    for pair in given:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            raise UserError(f"-p {pair!r} is not of the form name=value.", "For example: -p grpo_steps=20")
        _refuse_unknown(name, known)
        for parameters in values.values():
            if name in parameters:
                parameters[name] = convert(name, text, parameters[name])
    return values


def _refuse_unknown(name: str, known: set[str]) -> None:
    if name in OPTIONS:
        raise UserError(f"-p {name}=… is an option of its own.", f"Give --{name} instead.")
    if name not in known:
        free = sorted(known - set(OPTIONS))
        close = difflib.get_close_matches(name, free, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Use one of {', '.join(free)}."
        raise UserError(f"No notebook has a parameter {name!r}.", hint)


def convert(name: str, text: str, default: Scalar) -> Scalar:
    """``text`` as a value of the type of ``default``. Raises :class:`UserError` where it is none."""
    wanted = type(default)
    value = text if wanted is str else _scalar(text, wanted)
    if type(value) is not wanted:
        raise UserError(f"Parameter {name}={text!r} is not {NOUNS[wanted]}.", f"Its default is {default!r}.")
    return value


def _scalar(text: str, wanted: type) -> object:
    """``text`` as YAML reads a word without quotes: nothing else of YAML, no lists and no tags."""
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))
        if wanted is not float or isinstance(value, bool | None):
            return value
        number = float(value)  # YAML 1.1 reads 1e-4 as text for want of a dot; a learning rate is written so
        return number if math.isfinite(number) else text
    except (yaml.YAMLError, ValueError, TypeError, OverflowError):
        return text
