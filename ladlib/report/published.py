"""The published numbers: committed csv files, a source for every row. Values are x 100, as printed there.

Every row carries how well it is supported: P the paper's own text, S a third-party summary of it, I inferred
(the source says how), R read in a public repository, N a second-hand note, ? not known.
"""

from pathlib import Path

import pandas as pd

import ladlib
from ladlib.errors import UserError

LABEL = "published, other data"


def path() -> Path:
    """The folder of the csv files: of the installed package, else ``results/published`` of the checkout."""
    package = Path(ladlib.__file__).parent
    installed = package / "published"
    return installed if installed.is_dir() else package.parent / "results" / "published"


def read(name: str) -> pd.DataFrame:
    """The table ``name``, without its ending. Raises :class:`UserError` where there is none."""
    file = path() / f"{name}.csv"
    if not file.is_file():
        raise UserError(f"There is no published table {file}.", f"Use one of {', '.join(names())}.")
    return pd.read_csv(file, keep_default_na=False, na_values=[""])


def names() -> list[str]:
    """The tables there are."""
    return sorted(file.stem for file in path().glob("*.csv"))
