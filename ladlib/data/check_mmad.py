"""MMAD's two files held against their release."""

import warnings
from pathlib import Path

from ladlib.data.counts import published
from ladlib.data.finding import Finding, Findings
from ladlib.data.images import sha256
from ladlib.data.mmad import read_knowledge, read_questions
from ladlib.data.sources import read_sources


def check_mmad(folder: Path, decode: bool) -> list[Finding]:
    """Findings for ``mmad.json`` and ``domain_knowledge.json``; there are no images to ``decode``."""
    findings = Findings("mmad")
    findings.attempt(lambda: _check_questions(folder, findings))
    findings.attempt(lambda: _check_knowledge(folder, findings))
    return findings.rows


def _check_questions(folder: Path, findings: Findings) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the count below says the same
        questions = read_questions(folder)
    images, expected = len({one.image for one in questions}), published("mmad")
    counts = f"mmad.json: {len(questions)} questions about {images} images"
    if sha256(folder / "mmad.json") == _released("mmad.json"):
        findings.ok(f"{counts}, the released file.")
    elif len(questions) in expected["all", "json", "questions"]:
        findings.warning(f"{counts}, but not the released file.", "Compare it with the release.")
    else:
        numbers = " or ".join(str(one) for one in expected["all", "json", "questions"])
        findings.error(
            f"{counts}, not {numbers} about {expected['all', 'json', 'images'][0]}.",
            "Copy it from the release.",
        )


def _released(name: str) -> str:
    """The SHA-256 of the released file."""
    return next(file.sha256 for file in read_sources()["mmad"].files if file.name == name)


def _check_knowledge(folder: Path, findings: Findings) -> None:
    found = sum(len(objects) for objects in read_knowledge(folder).values())
    expected = published("mmad")["all", "knowledge", "categories"][0]
    if found == expected:
        findings.ok(f"domain_knowledge.json: {found} categories as released.")
    else:
        findings.error(f"domain_knowledge.json: {found} categories, not {expected}.", "Copy it from the release.")
