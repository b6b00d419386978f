"""Tables of a run, as frames, as text, and as files. A label in every row says what its numbers are of.

Values are x 100, as in the paper. The good + logical images come first (the paper's protocol, inferred from its
accuracies), the full test set after them. Seeds of an arm are averaged.
"""

import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from string import Formatter

import pandas as pd
from pandas.io.formats.style import Styler

from ladlib import claims, published
from ladlib.config import Profile
from ladlib.metrics import score
from ladlib.records import ARMS, NEIGHBOURS, TRIVIAL_ARMS
from ladlib.report import analysis, formats
from ladlib.results import RunResults, load_run
from ladlib.runs import RunFolder, write_text
from ladlib.sanitize import strip_control
from ladlib.statistics import wilson

WITHHELD = {
    "blind": ("blind", "shown the reference image twice"),
    "swapped": ("exchanged", "shown the two images exchanged"),
}
EXPECTED = ("base", "sft", "sft_grpo", "large")  # arms that have a row even before they are run
COMPARISON = {
    "method": "method", "accuracy": "Acc", "f1": "F1", "interval": "Acc, 95 %",
    "balanced_accuracy": "balanced acc", "recall": "recall", "specificity": "specificity", "auroc": "AUROC",
    "unparsed": "unparsed", "format": "well formed", "accuracy_all": "Acc, full test",
    "f1_all": "F1, full test", "images": "images", "seeds": "seeds", "label": "label",
}  # fmt: skip
HEADINGS = COMPARISON | {
    "average_precision": "average precision", "f1_max_tuned_on_test": "F1-max, tuned on test", "ece": "ECE",
    "mcc": "MCC", "ours": "here", "sibling": "sibling projects", "parameter": "changed by", "rule": "kind of rule",
}  # fmt: skip
SHORT = ("method", "accuracy", "interval", "f1", "balanced_accuracy", "recall", "specificity", "auroc", "unparsed")
SHARES = ["accuracy", "f1", "balanced_accuracy", "recall", "specificity", "auroc"]
PARAMETERS = {
    "writer": ["data.sft_file"], "tuning": ["model.lora_rank"], "vision": ["model.freeze_vision"],
    "sft_length": ["sft.epochs", "sft.steps"], "grpo_length": ["grpo.epochs", "grpo.steps"],
}  # fmt: skip
"""What the words in ``departures.csv`` that are no field of a profile are made from."""
UNPRINTED = {
    "comparison": ("well formed", "Acc, full test", "F1, full test", "images", "seeds"),
    "categories": ("images",),
    "calibration": ("images", "seeds"),
    "defects": ("unparsed", "seeds"),
    "sensitivity": ("pairs", "recall", "specificity", "unparsed"),
    "claims": ("on", "interval over"),
    "study-arms": ("Acc", "bal. acc, lenient", "recall", "specificity", "well formed", "unparsed", "images"),
    "study-rationales": ("images compared", "nothing stated", "words", "seeds"),
}  # headings that the csv and the Markdown table have, and the printed one has no room for


def comparison(results: RunResults) -> pd.DataFrame:
    """A row a method: the run's arms, the trivial ones and other baselines, then the paper's.

    Columns: block (run, trivial, published) and the keys of ``COMPARISON``.
    """
    label = results.profile.label
    present = set(results.metrics["arm"])
    rows = [_arm_row(results, arm) | {"block": "run"} for arm in ARMS if arm in present or arm in EXPECTED]
    rows += [_arm_row(results, arm) | {"block": "trivial"} for arm in TRIVIAL_ARMS]
    rows = [row | {"label": label} for row in rows]
    rows += [row | {"block": "trivial"} for row in (*_detector_row(results), *_withheld_rows(results))]
    printed = published.read("lad_reasoner")[["method", "accuracy", "f1", "recall", "specificity", "balanced_accuracy"]]
    rows += printed.assign(block="published", label=published.LABEL, images=1136).to_dict("records")
    return pd.DataFrame(rows, columns=["block", *COMPARISON]).astype({"images": "Int64", "seeds": "Int64"})


def _detector_row(results: RunResults) -> Iterator[dict]:
    """The detector's row, its label with the number of its training images; none where it was not asked."""
    if len(results.detections):
        trained_on = sorted(results.detections["trained_on"].unique())
        images = f"{trained_on[0]}–{trained_on[-1]}" if len(trained_on) > 1 else str(trained_on[0])
        label = f"{results.profile.label}; no language model, sees {images} good training images a category"
        yield _arm_row(results, NEIGHBOURS) | {"label": label}


def _withheld_rows(results: RunResults) -> Iterator[dict]:
    """Each arm with the test image withheld, and with the images swapped, on some pairs."""
    for arm, answers in results.variations.groupby("arm", sort=False):
        for factor, (title, what) in WITHHELD.items():
            rows = answers[answers["factor"] == factor]
            label = f"{results.profile.label}; {what}, {rows['id'].nunique()} of the test pairs"
            row = _scored_row(pd.DataFrame(score(rows)), f"{results.title(arm)}, {title}")
            yield row | {"label": label, "accuracy_all": None, "f1_all": None}


def _arm_row(results: RunResults, arm: str) -> dict:
    return _scored_row(results.metrics[results.metrics["arm"] == arm], results.title(arm))


def _scored_row(rows: pd.DataFrame, title: str) -> dict:
    """Of the metrics of one arm, averaged over its seeds."""
    pooled = rows[rows["category"] == "pooled"]
    if "logical" not in set(pooled["subset"]):
        return {"method": f"{title}: not yet"}
    numbers = pooled.drop(columns=["arm", "category", "seed"]).set_index("subset").astype(float)
    means = numbers.groupby("subset").mean(skipna=False)
    logical, whole = means.loc["logical"], means.loc["all"]
    low, high = wilson(round(logical["accuracy"] * logical["n"]), round(logical["n"]))
    shares = {key: logical[key] for key in SHARES} | {"format": logical["format_rate"]}
    shares |= {"unparsed": logical["unparsed"] / logical["n"], "accuracy_all": whole["accuracy"], "f1_all": whole["f1"]}
    row = {key: None if pd.isna(share) else round(100 * share, 1) for key, share in shares.items()}
    row |= {"method": title, "interval": f"{100 * low:.1f}–{100 * high:.1f}"}
    return row | {"images": round(logical["n"]), "seeds": int((pooled["subset"] == "logical").sum())}


def categories(results: RunResults) -> pd.DataFrame:
    """Every category of every arm on good + logical images, and the paper's accuracies of the 72B."""
    rows = results.metrics.query("subset == 'logical'").astype(dict.fromkeys(SHARES, float))
    ours = rows.groupby(["arm", "category"], sort=False)[["n", *SHARES]].mean().reset_index()
    ours[SHARES] = (100 * ours[SHARES]).round(1)
    ours["n"] = ours["n"].round().astype(int)
    ours.insert(0, "method", [results.title(arm) for arm in ours.pop("arm")])
    theirs = published.read("lad_reasoner_categories")[["method", "category", "n", "accuracy"]]
    both = [ours.assign(label=results.profile.label), theirs.assign(label=published.LABEL)]
    return pd.concat(both, ignore_index=True).rename(columns={"n": "images"})


def departures(profile: Profile) -> pd.DataFrame:
    """What the paper says, what sibling projects do, what ``profile`` does instead, and the fields that change it.

    The last two columns come from the profile's own values and their names, so they cannot go stale.
    """
    frame = published.read("departures").fillna("")
    sections = {name: getattr(profile, name) for name in ("data", "model", "sft", "grpo", "evaluate", "parallel")}
    rank, file = profile.model.lora_rank, profile.data.sft_file
    by_rules = "built from MMAD's annotations by rules; no language model writes and no person reviews them"
    words = {
        "writer": f"from {Path(file).name}; each line says who wrote it" if file else by_rules,
        "tuning": f"LoRA of rank {rank}" if rank else "full-parameter",
        "vision": "frozen" if profile.model.freeze_vision else "trained",
    }
    for stage in ("sft", "grpo"):
        steps, epochs = sections[stage].steps, sections[stage].epochs
        words[f"{stage}_length"] = f"{steps} steps" if steps else f"{epochs:g} epochs"
    named = [[name.split("[")[0] for _, name, _, _ in Formatter().parse(text) if name] for text in frame["ours"]]
    fields = [dict.fromkeys(field for name in names for field in PARAMETERS.get(name, [name])) for names in named]
    ours = [text.format(**sections, **words) for text in frame["ours"]]
    return frame.assign(ours=ours, parameter=[", ".join(names) for names in fields])


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Any frame of this module, :mod:`analysis` or :mod:`ladlib.claims` as text that is safe to print.

    Headings stand for keys, numbers have one decimal, and control characters are made visible.
    """
    makers = {
        "expected": claims.readable, "flips": analysis.sensitivity_text, "p_holm": analysis.differences_text,
        "auroc_low": analysis.bands_text, "words_mean_low": analysis.bands_text,
    }  # fmt: skip
    if maker := next((maker for column, maker in makers.items() if column in frame), None):
        shown = maker(frame)
    else:
        hidden = ["block", *(["arm"] if "method" in frame else [])]
        shown = frame.drop(columns=hidden, errors="ignore").map(formats.cell_text).rename(columns=HEADINGS)
    return shown.map(lambda cell: strip_control(cell) if isinstance(cell, str) else cell)


def blocks(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The comparison in its parts, as text, each with its heading."""
    parts = frame.groupby("block", sort=False)
    suffix = {"run": "", "trivial": ", baselines", "published": ""}
    return [(part["label"].iloc[0] + suffix[block], readable(part)) for block, part in parts]


def display(frame: pd.DataFrame, caption: str = "") -> Styler:
    """A table for a notebook: text that wraps and is escaped, no index; of the comparison only what fits."""
    frame = frame[[*SHORT, "label"]] if "block" in frame else frame
    styler = Styler(readable(frame), uuid="table", cell_ids=False, escape="html").hide(axis="index")
    cell = "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: break-word; max-width: 34em"
    styler.set_table_styles([{"selector": "th, td", "props": cell}]).format(escape="html")
    return styler.set_caption(escape(caption)) if caption else styler


def comparison_text(run: RunFolder) -> str:
    """The comparison for a terminal of 120 columns."""
    lines, frame = [f"{run.root}: x 100 on good + logical images; positive is anomalous"], comparison(load_run(run))
    for title, rows in blocks(frame[["block", "label", *SHORT]]):
        rows["method"] = rows["method"].str.ljust(40)
        lines += ["", title, rows.drop(columns="label").to_string(index=False)]
    own = frame[frame["block"] == "run"].dropna(subset="images")
    few = own[own["images"] < own["images"].max()]
    lines += [f"\n{row.method} has {row.images} of {own['images'].max()} images" for row in few.itertuples()]
    return "\n".join(lines)


def of_run(results: RunResults) -> dict[str, pd.DataFrame]:
    """The tables of a run by name; sensitivity where inputs were changed."""
    frames = {
        "comparison": comparison(results), "categories": categories(results),
        "calibration": analysis.calibration(results), "defects": analysis.defects(results),
        "departures": departures(results.profile), "claims": claims.table(results),
    }  # fmt: skip
    return frames | ({"sensitivity": analysis.sensitivity(results)} if len(results.variations) else {})


def of_study(results: RunResults) -> dict[str, pd.DataFrame]:
    """The tables of a study by name; rationales and passes where they were stored."""
    frames = {"study-arms": analysis.arms(results), "study-differences": analysis.differences(results)}
    frames |= {"study-rationales": analysis.rationales(results)} if results.rationales else {}
    return frames | ({"study-passes": analysis.passes(results)} if len(results.passes) else {})


def write_all(results: RunResults, folder: Path, frames: Mapping[str, pd.DataFrame] | None = None) -> None:
    """Write metrics.json, and tables/*.{csv,md,tex} of ``frames`` (of the run where None), into ``folder``."""
    rows = ",\n".join(json.dumps(row) for row in results.scores)  # a row a line: a change shows as its lines
    write_text(folder / "metrics.json", f"[\n{rows}\n]\n")
    for name, frame in (of_run(results) if frames is None else frames).items():
        shown = readable(frame)
        write_text(folder / "tables" / f"{name}.csv", formats.csv(frame))
        write_text(folder / "tables" / f"{name}.md", formats.markdown(shown))
        write_text(folder / "tables" / f"{name}.tex", formats.latex(shown, UNPRINTED.get(name, ())))
