"""Runs and records that no model wrote, for the tests of the report. Everything in them is invented."""

import json

from ladlib.records import Generation, RunRecord
from ladlib.results import to_frame
from ladlib.rewards import group_advantages
from ladlib.runs import RunFolder

CATEGORIES = ("pushpins", "screw_bag")
HOSTILE = "<script>alert('$x_1$')</script> | a & b_c \x00"


def made_up(arm, category, anomaly, number, answer, text=None, seed=0):
    """A generation that no model wrote."""
    return Generation(
        id=f"{category}/test/{anomaly}/{number:03d}", arm=arm, seed=seed, dataset="mvtec_loco", category=category,
        anomaly=anomaly, defect="" if anomaly == "good" else "missing_part",
        label="no" if anomaly == "good" else "yes", reference="good.png", test="test.png",
        text=text or f"<think>made up</think><answer>{answer}</answer>", answer=None,
        p_yes=0.8 if answer == "yes" else 0.3, prompt_sha256="", images_sha256=("", ""),
        pixels=((28, 28), (28, 28)), finish="stop", prompt_tokens=1, completion_tokens=1, seconds=0.1,
    )  # fmt: skip


def made_up_arm(arm, answers, seed=0):
    kinds = ("good", "logical", "structural")
    return [
        made_up(arm, category, anomaly, number, answer, seed=seed)
        for category in CATEGORIES
        for anomaly in kinds
        for number, answer in enumerate(answers)
    ]


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_generations(run, arm, rows, seed=0):
    write_rows(run.generations(arm, seed), [row.model_dump(mode="json") for row in rows])


def sft_rows(count=6):
    return [{"step": step, "loss": 2.0 / step} for step in range(1, count + 1)]


def grpo_rows(count=6):
    keys = ("reward", "accuracy_reward", "format_reward", "reward_std", "frac_reward_zero_std", "completion_length",
            "clipped_share", "yes_rate", "kl", "entropy", "grad_norm", "seconds_generate", "seconds_reward",
            "seconds_update")  # fmt: skip
    return [{"step": step, **{key: 0.1 * step for key in keys}} for step in range(1, count + 1)]


def made_up_group(rewards=(2.0, 1.0, 0.0, 1.0), step=1):
    scored = zip(rewards, group_advantages(rewards), strict=True)
    tries = [
        {"text": HOSTILE, "accuracy": float(reward > 1), "format": float(reward > 0), "reward": reward, "advantage": up}
        for reward, up in scored
    ]
    return {"step": step, "id": "transistor/<b>", "category": "transistor", "label": "yes", "completions": tries}


def made_up_run(root, profile="toy"):
    run = RunFolder(root)
    run.write(RunRecord(profile=profile, seed=0))
    write_generations(run, "base", made_up_arm("base", ["yes", "no"]))
    hostile = made_up("sft_grpo", "pushpins", "logical", 9, "no", text=HOSTILE)
    write_generations(run, "sft_grpo", [*made_up_arm("sft_grpo", ["yes", "no", "yes"]), hostile])
    write_rows(run.log("sft", 0), sft_rows())
    write_rows(run.log("sft_grpo", 0), grpo_rows())
    write_rows(run.rollouts("sft_grpo", 0), [made_up_group()])
    return run


def frame_of(generations):
    """The same as a frame of answers."""
    return to_frame(list(generations))
