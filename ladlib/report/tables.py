"""The tables: comparison, per category, departures. A label in every row says what its numbers are of.

Values are x 100, as in the paper. The good + logical images come first (the paper's protocol, inferred from
its accuracies), the full test set beside them. Several seeds of an arm are averaged.
"""

import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from string import Formatter

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ladlib.config import Profile
from ladlib.metrics import score
from ladlib.records import ARMS, NEIGHBOURS, TRIVIAL_ARMS
from ladlib.report import published
from ladlib.report.latex import latex
from ladlib.report.stored import Stored, read_run
from ladlib.runs import RunFolder, write_text
from ladlib.sanitize import escape_csv, strip_control
from ladlib.statistics import wilson

NAMES = {
    "base": "base", "sft": "SFT", "grpo_only": "GRPO only", "sft_grpo": "SFT + GRPO",
    "sft_long": "SFT, longer", "accuracy_only": "SFT + GRPO, accuracy reward only",
    "format_only": "SFT + GRPO, format reward only", "large": "large",
    "always_yes": "always yes", "always_no": "always no", "base_rate": "yes at the base rate",
    "neighbours": "nearest neighbour",
}  # fmt: skip
BLINDED = {
    "blind": ("blind", "shown the reference image twice"),
    "swapped": ("exchanged", "shown the two images exchanged"),
}
EXPECTED = ("base", "sft", "sft_grpo", "large")  # arms that have a row even before they are run
HEADINGS = {
    "method": "method", "accuracy": "Acc", "f1": "F1", "interval": "Acc, 95 %",
    "balanced_accuracy": "balanced acc", "recall": "recall", "specificity": "specificity", "auroc": "AUROC",
    "unparsed": "unparsed", "format": "well formed", "accuracy_all": "Acc, full test",
    "f1_all": "F1, full test", "images": "images", "seeds": "seeds", "label": "label",
}  # fmt: skip
SHORT = {
    "balanced_accuracy": "bal",
    "specificity": "spec",
    "format": "form",
    "accuracy_all": "Acc all",
    "f1_all": "F1 all",
}
PARAMETERS = {
    "writer": ["data.sft_file"], "tuning": ["model.lora_rank"], "vision": ["model.freeze_vision"],
    "sft_length": ["sft.epochs", "sft.steps"], "grpo_length": ["grpo.epochs", "grpo.steps"],
}  # fmt: skip
"""What the words in ``departures.csv`` that are no field of a profile are made from."""
SHARES = ("accuracy", "f1", "balanced_accuracy", "recall", "specificity", "auroc")
MISSING = "–"
UNPRINTED = {
    "comparison": ("well formed", "Acc, full test", "F1, full test", "images", "seeds"),
    "categories": ("images",),
    "calibration": ("images", "seeds"),
    "defects": ("unparsed", "seeds"),
    "sensitivity": ("pairs", "recall", "specificity", "unparsed"),
    "claims": ("on", "interval over"),
    "study-claims": ("of", "on", "interval over"),
    "study-arms": ("Acc", "bal. acc, lenient", "recall", "specificity", "well formed", "unparsed", "images"),
    "study-seeds": ("bal. acc, lenient", "well formed", "images"),
    "study-rationales": ("images compared", "nothing stated", "words", "seeds"),
}  # headings that the csv and the Markdown table have, and the printed one has no room for


def comparison(stored: Stored) -> pd.DataFrame:
    """One row a method: the run's arms, the trivial ones and other baselines, then the paper's.

    Columns are the keys of ``HEADINGS`` and ``block`` (run, trivial, published). Shares are x 100.
    """
    label = stored.profile.label
    present = {row["arm"] for row in stored.metrics}
    arms = [arm for arm in ARMS if arm in present or arm in EXPECTED]
    rows = [_arm_row(stored, arm) | {"block": "run", "label": label} for arm in arms]
    rows += [_arm_row(stored, arm) | {"block": "trivial", "label": label} for arm in TRIVIAL_ARMS]
    rows += [row | {"block": "trivial"} for row in (*_detector_row(stored), *_blinded_rows(stored))]
    frame = pd.DataFrame(rows + _published_rows())
    return frame.reindex(columns=["block", *HEADINGS]).astype({"images": "Int64", "seeds": "Int64"})


def name(arm: str, profile: Profile) -> str:
    """How tables and figures call an arm; the two untrained models with the weights that play them."""
    weights = {"base": profile.model.base, "large": profile.model.large}
    return f"{NAMES.get(arm, arm)} ({weights[arm]})" if arm in weights else NAMES.get(arm, arm)


def title_of(stored: Stored, arm: str) -> str:
    """The arm's :func:`name`; what an endpoint answered is called by the model, quantisation and engine there."""
    served = sorted({one.served for one in stored.of(arm)} - {""})
    return f"{NAMES.get(arm, arm)} ({'; '.join(served)})" if served else name(arm, stored.profile)


def _detector_row(stored: Stored) -> Iterator[dict]:
    """The detector's row, its label with the number of training images it saw; none where it was not asked."""
    if stored.detections:
        saw = sorted({one.trained_on for one in stored.detections})
        images = f"{saw[0]}–{saw[-1]}" if len(saw) > 1 else str(saw[0])
        label = f"{stored.profile.label}; no language model, sees {images} good training images a category"
        yield _arm_row(stored, NEIGHBOURS) | {"label": label}


def _blinded_rows(stored: Stored) -> Iterator[dict]:
    """Each arm that was judged without seeing the test image, and with the images changed about, on some pairs."""
    for arm in dict.fromkeys(one.arm for one in stored.variations):
        for factor, (title, what) in BLINDED.items():
            rows = [one for one in stored.variations if (one.arm, one.factor) == (arm, factor)]
            images = len({one.id for one in rows})
            label = f"{stored.profile.label}; {what}, {images} of the test pairs"
            found = _scored_row(score(rows), arm, f"{title_of(stored, arm)}, {title}")
            yield found | {"label": label, "accuracy_all": None, "f1_all": None}


def _arm_row(stored: Stored, arm: str) -> dict:
    return _scored_row(stored.metrics, arm, title_of(stored, arm))


def _scored_row(metrics: list[dict], arm: str, title: str) -> dict:
    logical = _pooled(metrics, arm, "logical")
    if logical is None:
        return {"method": f"{title}: not yet"}
    whole = _pooled(metrics, arm, "all") or {}
    low, high = wilson(round(logical["accuracy"] * logical["n"]), round(logical["n"]))
    return {
        "method": title,
        **{key: _percent(logical[key]) for key in SHARES},
        "interval": f"{100 * low:.1f}–{100 * high:.1f}",
        "unparsed": _percent(logical["unparsed"] / logical["n"]),
        "format": _percent(logical["format_rate"]),
        "accuracy_all": _percent(whole.get("accuracy")),
        "f1_all": _percent(whole.get("f1")),
        "images": round(logical["n"]),
        "seeds": logical["seeds"],
    }  # fmt: skip


def _pooled(metrics: list[dict], arm: str, subset: str) -> dict | None:
    """The pooled row of an arm, averaged over its seeds; ``None`` where the arm has no such row."""
    rows = [row for row in metrics if (row["arm"], row["subset"], row["category"]) == (arm, subset, "pooled")]
    if not rows:
        return None
    frame = pd.DataFrame(rows).drop(columns=["arm", "subset", "category", "seed"]).astype(float)
    means = {key: None if pd.isna(value) else float(value) for key, value in frame.mean(skipna=False).items()}
    return means | {"seeds": len(rows)}


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def _published_rows() -> list[dict]:
    kept = ["method", "accuracy", "f1", "recall", "specificity", "balanced_accuracy"]
    rows = published.read("lad_reasoner")[kept].to_dict("records")
    return [row | {"block": "published", "label": published.LABEL, "images": 1136} for row in rows]


def categories(stored: Stored) -> pd.DataFrame:
    """Every category of every arm on good + logical images, and the paper's accuracies of the 72B, x 100."""
    rows = [row for row in stored.metrics if row["subset"] == "logical"]
    ours = pd.DataFrame(rows).groupby(["arm", "category"], sort=False)[["n", *SHARES]].mean().reset_index()
    ours[list(SHARES)] = (100 * ours[list(SHARES)].astype(float)).round(1)
    ours["n"] = ours["n"].round().astype(int)
    ours.insert(0, "method", [title_of(stored, arm) for arm in ours.pop("arm")])
    theirs = published.read("lad_reasoner_categories")[["method", "category", "n", "accuracy"]]
    both = [ours.assign(label=stored.profile.label), theirs.assign(label=published.LABEL)]
    return pd.concat(both, ignore_index=True).rename(columns={"n": "images"})


def departures(profile: Profile) -> pd.DataFrame:
    """What the paper says, what its siblings do, what this profile does instead, and which of its values change it.

    The last two columns come from the profile's own values and their names, so they cannot go stale.
    """
    frame = published.read("departures").fillna("")
    sections = {name: getattr(profile, name) for name in ("data", "model", "sft", "grpo", "evaluate", "parallel")}
    lora, file = profile.model.lora, profile.data.sft_file
    words = {
        "writer": f"from {Path(file).name}; each line says who wrote it"
        if file
        else "built from MMAD's annotations by rules; no language model writes and no person reviews them",
        "tuning": f"LoRA of rank {lora.rank}" if lora else "full-parameter",
        "vision": "frozen" if profile.model.freeze_vision else "trained",
        "sft_length": _length(profile.sft.steps, profile.sft.epochs),
        "grpo_length": _length(profile.grpo.steps, profile.grpo.epochs),
    }
    texts = frame["ours"]
    ours = [text.format(**sections, **words) for text in texts]
    return frame.assign(ours=ours, parameter=[", ".join(_parameters(text)) for text in texts])


def _parameters(text: str) -> list[str]:
    """The fields of a profile that a row of ``departures.csv`` is filled from."""
    named = [name for _, name, _, _ in Formatter().parse(text) if name]
    fields = [field for name in named for field in PARAMETERS.get(name, [name])]
    return list(dict.fromkeys(field.split("[")[0] for field in fields))


def _length(steps: int, epochs: float) -> str:
    return f"{steps} steps" if steps else f"{epochs:g} epochs"


def blocks(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The comparison in its three parts, as text, each with its heading."""
    titles = {"run": "{}", "trivial": "{}, baselines", "published": "{}"}
    parts = frame.groupby("block", sort=False)
    return [(titles[block].format(part["label"].iloc[0]), readable(part)) for block, part in parts]


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table as text: headings for keys, one decimal, a dash where there is no value."""
    shown = frame.drop(columns="block", errors="ignore")
    return shown.map(_cell).rename(
        columns=HEADINGS | {"ours": "here", "sibling": "sibling projects", "parameter": "changed by"}
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return MISSING if pd.isna(value) else f"{value:.1f}"
    return MISSING if value is None or value is pd.NA else str(value)


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table of a frame of text; pipes and line ends in cells are escaped."""
    lines = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    safe = [[_literal(str(cell)) for cell in line] for line in lines]
    return "".join("| " + " | ".join(line) + " |\n" for line in safe)


def _literal(cell: str) -> str:
    """The backslash first: one that the text brings would take the effect of those that are added."""
    for mark in ("\\", "|", "<"):
        cell = cell.replace(mark, f"\\{mark}")
    return cell.replace("](", "]\\(").replace("\n", " ")


def write(frame: pd.DataFrame, folder: Path, name: str, shown: pd.DataFrame | None = None) -> None:
    """Write ``name``.csv with plain keys and numbers, and ``name``.md and ``name``.tex for reading.

    ``shown`` is the frame as text; without one, :func:`readable` makes it. Columns that a printed page is too
    narrow for (``UNPRINTED``) are left out of the last.
    """
    shown = (readable(frame) if shown is None else shown).map(_safe)
    write_text(folder / f"{name}.csv", csv(frame))
    write_text(folder / f"{name}.md", markdown(shown))
    write_text(folder / f"{name}.tex", latex(shown, UNPRINTED.get(name, ())))


def csv(frame: pd.DataFrame) -> str:
    """``frame`` as CSV whose texts no spreadsheet takes for formulas, and no terminal for commands."""
    texts = frame.select_dtypes(["object", "string"])
    safe = texts.map(lambda cell: escape_csv(_safe(cell)) if isinstance(cell, str) else cell)
    changed = [name for name in texts if not safe[name].equals(texts[name])]
    return frame.assign(**safe[changed]).to_csv(index=False, lineterminator="\n")


def _safe(cell: object) -> object:
    return strip_control(cell) if isinstance(cell, str) else cell


def comparison_text(run: RunFolder, width: int = 0) -> str:
    """The comparison table for a terminal of ``width`` columns; 0: as wide as this one, else 120."""
    stored = read_run(run)
    keys = [key for key in HEADINGS if key not in ("interval", "images", "seeds", "label")]
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, title_justify="left")
    table.title = f"{run.root}: x 100 on good + logical images; positive is anomalous"
    for key in keys:
        table.add_column(SHORT.get(key, HEADINGS[key]), justify="left" if key == "method" else "right")
    for title, rows in blocks(comparison(stored)[["block", "label", *keys]]):
        table.add_section()
        table.add_row(Text(title, style="bold"))
        for row in rows.drop(columns="label").to_numpy().tolist():
            table.add_row(*(Text(cell) for cell in ("  " + row[0], *row[1:])))
    text = StringIO()
    columns = width or shutil.get_terminal_size(fallback=(120, 24)).columns
    Console(file=text, width=columns).print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
