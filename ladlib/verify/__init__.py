"""A finished run held against what is committed: a line a claim, each with its value, its band and its tolerance.

>>> from ladlib.verify import verify
>>> for claim in verify(RunFolder("results/runs/toy")):  # doctest: +SKIP
...     print(claim.line)
held    metrics.json: 63 rows as the generations give them, expected equal to 1e-09
...

Reads stored files only: no model, no image, no torch. Five kinds of claim:

1. the stored run is whole, agrees with itself (:mod:`ladlib.verify.integrity`, :mod:`ladlib.verify.beside`), and
   nobody has changed it since (:mod:`ladlib.verify.untouched`);
2. a toy run lies in the seed band of the released study (:mod:`ladlib.verify.study`);
3. a run on real data replicates the paper's table (:mod:`ladlib.verify.paper`);
4. on either, training helped: ``sft_grpo`` above ``base``;
5. what the claims of ``results/claims.yml`` come to (:mod:`ladlib.verify.registry`).
"""

from ladlib.errors import UserError
from ladlib.records import Generation
from ladlib.report.stored import read_generations, read_run
from ladlib.runs import STUDY, RunFolder
from ladlib.verify import beside, integrity, paper, registry, study, untouched
from ladlib.verify.claim import Claim


def verify(run: RunFolder, released: RunFolder | None = None) -> list[Claim]:
    """All claims about ``run``; ``released`` is the study it is held against, the committed one where None.

    Raises :class:`UserError` where the folder is no run, or a stored file cannot be read.
    """
    _check_readable(run)
    stored = read_run(run)
    expected = released or STUDY
    published = study.claims(run, stored, expected) if stored.is_toy else paper.claims(stored)
    whole = [*integrity.claims(run, stored), *beside.claims(stored), *untouched.claims(run, stored)]
    return [*whole, *published, *paper.order(stored), *registry.claims(run, stored)]


def _check_readable(run: RunFolder) -> None:
    if not run.run_json.is_file():
        raise UserError(f"{run.root} is not a run folder: it has no run.json.", "Run `ladlib reproduce` first.")
    run.read()
    wrong = next((one for one in read_generations(run) if not _is_probability(one)), None)
    if wrong:
        raise UserError(
            f"{run.generations(wrong.arm, wrong.seed)}: p_yes of {wrong.id} is {wrong.p_yes}, not within 0..1.",
            "Move the file away and evaluate again.",
        )


def _is_probability(one: Generation) -> bool:
    """Whether ``p_yes`` lies within 0..1; an endpoint need not tell it."""
    return bool(one.served) if one.p_yes is None else 0 <= one.p_yes <= 1
