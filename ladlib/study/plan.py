"""The stages of a study in the order in which they are wanted, with what each depends on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ladlib.config import Profile
from ladlib.pipeline.stages import PACKAGE
from ladlib.runs import RunFolder
from ladlib.study import work
from ladlib.study.arms import Arm, with_starts

CHECKING = ("parsing.py", "toy/statements.py", "toy/truth.py")
REPORTING = ("metrics.py", "statistics.py", "parsing.py", "sampling.py")  # and all of the package report
SAMPLED = ("base", "sft")  # what GRPO could start from: has it anything to choose from?
UNTRAINED_SEED = 0  # greedy answers of a model that is not trained depend on no seed
SEEN = {"min_pixels", "max_pixels", "reference_seed"}  # values of the profile's data that change what a model sees


@dataclass(frozen=True)
class Stage:
    """One process. It is done while its outputs are there and its values and files are those recorded."""

    name: str
    work: Callable[..., None]  # of a module, so that another process can import it
    options: Mapping[str, object]  # its arguments
    outputs: tuple[Path, ...]
    after: tuple[str, ...] = ()  # names of the stages whose outputs it needs
    values: Mapping[str, object] = field(default_factory=dict)  # what it depends on beside files
    files: tuple[Path, ...] = ()  # files and folders whose contents it depends on


@dataclass(frozen=True)
class Source:
    """A model that a stage loads."""

    model: str
    files: tuple[Path, ...]
    after: tuple[str, ...] = ()  # the stage that makes it


@dataclass(frozen=True)
class Plan:
    """Makes the stages of one study."""

    profile: Profile
    run: RunFolder
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]

    def stages(self) -> list[Stage]:
        """All stages of the arms and of those they start from, each after those it needs.

        What GRPO can start from is trained and sampled before any GRPO run.
        """
        trained = self._seeded(arm for arm in with_starts(self.arms) if arm.stage != "none")
        judged = self._seeded(arm for arm in self.arms if arm.judged)
        stages = [
            self._data(),
            *(self._train(*each) for each in trained if each[0].name in SAMPLED),
            *(self._sample(*each) for each in judged if each[0].name in SAMPLED),
            *(self._train(*each) for each in trained if each[0].name not in SAMPLED),
            *(self._judge(*each) for each in judged),
            *(self._check(*each) for each in judged),
        ]
        return [*stages, self._report(stages)] if judged else stages

    def _seeded(self, arms: Iterable[Arm]) -> list[tuple[Arm, int]]:
        return [(arm, seed) for arm in arms for seed in self._seeds(arm)]

    def _seeds(self, arm: Arm) -> tuple[int, ...]:
        if arm.stage == "none":
            return (UNTRAINED_SEED,)
        return self.seeds if arm.judged else self.seeds[:1]

    def _data(self) -> Stage:
        options = {"profile": self.profile, "run": self.run}
        files = tuple(sorted((PACKAGE / "toy").glob("*.py")))
        return Stage("data", work.draw_data, options, (self.run.data,), (), self.profile.data.toy.model_dump(), files)

    def _train(self, arm: Arm, seed: int) -> Stage:
        profile, start = arm.profile(self.profile), self._start(arm, seed)
        options = self._options(arm, seed, start) | {"profile": profile}
        outputs = (self.run.checkpoint(arm.name, seed), self.run.log(arm.name, seed))
        values = _trained_with(profile, arm.stage) | {"seed": seed}
        if arm.stage == "grpo":
            options["anomalous_share"] = values["anomalous_share"] = arm.anomalous_share
            outputs = (*outputs, self.run.rollouts(arm.name, seed))
        what = work.train_sft if arm.stage == "sft" else work.train_grpo
        return self._stage("train", what, arm, seed, start, options, outputs, values)

    def _sample(self, arm: Arm, seed: int) -> Stage:
        drawn = {"group_size", "temperature", "max_completion_tokens"}
        kept = {"data": SEEN | {"validation_share"}, "model": {"dtype"}, "grpo": drawn}
        values = self.profile.model_dump(include=kept) | {"seed": seed, "pairs": work.PAIRS_PER_RULE}
        source = self._end(arm, seed)
        outputs = (self.run.samples(arm.name, seed),)
        options = self._options(arm, seed, source)
        return self._stage("sample", work.draw_samples, arm, seed, source, options, outputs, values)

    def _judge(self, arm: Arm, seed: int) -> Stage:
        kept = {"data": SEEN, "model": {"dtype"}, "evaluate": {"max_new_tokens"}}
        source, outputs = self._end(arm, seed), (self.run.generations(arm.name, seed),)
        options, values = self._options(arm, seed, source), self.profile.model_dump(include=kept)
        return self._stage("judge", work.judge, arm, seed, source, options, outputs, values)

    def _check(self, arm: Arm, seed: int) -> Stage:
        answers = self.run.generations(arm.name, seed)
        source = Source("", (answers, *(PACKAGE / name for name in CHECKING)), (f"judge-{arm.name}-seed{seed}",))
        options = {"run": self.run, "arm": arm.name, "seed": seed}
        outputs = (self.run.rationales(arm.name, seed),)
        return self._stage("check", work.check_rationales, arm, seed, source, options, outputs, {})

    def _report(self, stages: Sequence[Stage]) -> Stage:
        stored = [path for stage in stages for path in stage.outputs if path.suffix == ".jsonl"]
        modules = [*sorted((PACKAGE / "report").glob("*.*")), *(PACKAGE / name for name in REPORTING)]
        outputs = (self.run.metrics_json, self.run.tables, self.run.figures, self.run.report)
        after = tuple(stage.name for stage in stages)
        return Stage("report", work.report, {"run": self.run}, outputs, after, files=(*stored, *modules))

    def _stage(
        self, verb: str, what: Callable[..., None], arm: Arm, seed: int, source: Source,
        options: Mapping[str, object], outputs: tuple[Path, ...], values: Mapping[str, object],
    ) -> Stage:  # fmt: skip
        after, files = ("data", *source.after), (self.run.data, *source.files)
        return Stage(f"{verb}-{arm.name}-seed{seed}", what, options, outputs, after, values, files)

    def _options(self, arm: Arm, seed: int, source: Source) -> dict[str, object]:
        named = {"arm": arm.name, "seed": seed, "model": source.model}
        return {"profile": self.profile, "run": self.run} | named

    def _start(self, arm: Arm, seed: int) -> Source:
        """What the arm's training starts from."""
        if arm.start in ("", "large"):
            name = self.profile.model.large if arm.start else self.profile.model.base
            return Source(name, weight_files(name))
        return self._checkpoint(arm.start, seed)

    def _end(self, arm: Arm, seed: int) -> Source:
        """What the arm answers with."""
        return self._start(arm, seed) if arm.stage == "none" else self._checkpoint(arm.name, seed)

    def _checkpoint(self, name: str, seed: int) -> Source:
        folder = self.run.checkpoint(name, seed)
        return Source(str(folder), (folder,), (f"train-{name}-seed{seed}",))


def weight_files(name: str) -> tuple[Path, ...]:
    """The files that make up a shipped model or a model folder; () where it is not there."""
    shipped = PACKAGE / "assets" / name
    folder = shipped if shipped.is_dir() else Path(name)
    return tuple(sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json"), *folder.glob("tokenizer.json")]))


def _trained_with(profile: Profile, stage: str) -> dict[str, object]:
    """The values of the profile that a stage of training depends on, beside the images and the weights."""
    data = SEEN | {"validation_share", "sft_samples" if stage == "sft" else "grpo_pairs"}
    if stage == "sft" and profile.data.sft_file:
        data |= {"sft_file"}
    model = {"revision", "dtype", "attention", "lora", "freeze_vision"}
    return profile.model_dump(include={"data": data, "model": model, stage: True})
