"""The widgets: moving a control changes the view, text from outside is escaped, and a snapshot is displayed too."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_group

from ladlib.errors import UserError
from ladlib.notebook import start
from ladlib.parsing import TAGS
from ladlib.records import Completion
from ladlib.report import widgets
from ladlib.report.widgets import Explorer, menu
from ladlib.rewards import accuracy_reward, explain_accuracy, explain_format, format_reward
from ladlib.toy.scenes import Part, Scene

HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(1)'>\x1b[31m"
MARKUP = re.compile(r"<script|<img src=x|\x1b")
FEW = {"toy.train": 2, "toy.good": 2, "toy.logical": 4, "toy.structural": 1}
LINE = "<think>a1 red disc same .</think><answer>no</answer>"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return start("smoke", run=str(tmp_path_factory.mktemp("run")), overrides=FEW)


@pytest.fixture
def fake(session, monkeypatch):
    """A session whose model calls a pair anomalous as far as the test image is bright; it keeps what it was asked."""
    asked = []

    def answer(pairs, arm):
        asked.extend(pairs)
        return [Completion(LINE, "stop", float(np.asarray(test).mean()) / 255, 1, 1) for _, test in pairs]

    return SimpleNamespace(
        profile=session.profile, pairs=session.pairs, folder=session.folder, asked=asked, answer=answer,
        rollouts=lambda arm: [made_up_group()],
    )  # fmt: skip


def rollouts(*groups):
    return widgets.rollouts(SimpleNamespace(rollouts=lambda arm: list(groups)))


def answers(*rows):
    row = {"arm": "sft", "text": "", "category": "juice_bottle", "anomaly": "logical"}
    return pd.DataFrame([row | {"label": label, "p_yes": p_yes} for label, p_yes in rows])


def letters(draw=lambda letter: letter):
    return Explorer("Letters", draw, letter=menu("Letter", ["a", "b"]))


def test_moving_a_control_draws_the_view_again_and_a_snapshot_is_displayed(monkeypatch):
    shown, displayed = letters(), []
    monkeypatch.setattr("ladlib.report.widgets.display", displayed.append)
    shown._repr_mimebundle_()
    assert ">a<" in displayed[0].data and "Letters, snapshot" in displayed[0].data
    shown.controls["letter"].value = "b"
    assert ">b<" in shown.view.value


def test_what_the_user_can_fix_is_said_in_the_view_and_escaped():
    def refuse(letter):
        raise UserError(f"There is no {HOSTILE}.", "Give another.")

    assert "Give another." in letters(refuse).view.value and not MARKUP.search(letters(refuse).view.value)
    with pytest.raises(UserError, match="no group to choose from"):
        rollouts()


def test_every_control_has_a_name_and_every_image_a_text(fake):
    of_session = [draw(fake) for draw in (widgets.pair_browser, widgets.rollouts, widgets.scene_editor)]
    every = [*of_session, widgets.rewards(), widgets.threshold(answers(("yes", 0.7)))]
    for shown in every:
        assert all(one.description and one.tooltip and one.tabbable is not False for one in shown.controls.values())
        assert all(re.search(r"alt='[^']+'", one) for one in re.findall(r"<img [^>]*>", shown.view.value))
        assert "src='http" not in shown.view.value and "<script" not in shown.view.value


def test_the_pair_browser_follows_its_menus_and_names_what_it_displays(fake):
    shown = widgets.pair_browser(fake)
    shown.controls["category"].value = "pushpins"
    own = [pair.test for pair in fake.pairs() if pair.test.category == "pushpins"]
    assert shown.controls["number"].max == len(own)
    bad = next(number for number, test in enumerate(own, 1) if test.anomaly == "logical")
    shown.controls["number"].value = bad
    before = shown.view.value
    assert (
        own[bad - 1].image in before and own[bad - 1].defect.replace("_", " ") in before and "visual tokens" in before
    )
    shown.controls["mask"].value = True
    assert shown.view.value != before
    shown.controls["guess"].value = True
    guess = re.sub(r"src='[^']*'", "", shown.view.value)
    assert not re.search("logical|label (yes|no)|good|anomaly|mask", guess) and guess.count("<img") == 2


def test_typing_changes_both_rewards_and_is_never_obeyed_as_markup():
    shown = widgets.rewards()
    assert shown.view.value.count(">1</td>") == 2
    shown.controls["completion"].value = "<answer>yes</answer>"
    assert ">0</td>" in shown.view.value and "&lt;think&gt; occurs 0 times" in shown.view.value
    shown.controls["label"].value = "no"
    assert "The answer is yes and the label is no" in shown.view.value
    shown.controls["completion"].value = f"<think>{HOSTILE}</think><answer>{HOSTILE}</answer>"
    assert not MARKUP.search(shown.view.value)


@given(st.lists(st.sampled_from([*TAGS, "yes", "no", " ", "x", "<|im_end|>"]), max_size=9).map("".join))
def test_the_reason_agrees_with_the_reward_whatever_is_typed(text):
    assert explain_format(text).startswith("Invalid format") == (format_reward(text) == 0.0)
    right = accuracy_reward(text, "yes") == 1.0
    assert (explain_accuracy(text, "yes") == "The answer is yes and the label is yes.") == right


@pytest.mark.parametrize(
    ("value", "cells"),
    [(0.5, "TP1 FP1 FN1 TN1"), (0.3, "TP2 FP1 FN0 TN1"), (0.95, "TP0 FP0 FN2 TN2"), (0, "TP2 FP2 FN0 TN0")],
)
def test_the_threshold_moves_images_between_the_cells_of_the_matrix(value, cells):
    shown = widgets.threshold(answers(("yes", 0.9), ("yes", 0.4), ("no", 0.6), ("no", 0.1)))
    shown.controls["value"].value = value
    found = dict(re.findall(r"(TP|FP|FN|TN) (\d)<", shown.view.value))
    assert all(found[cell[:2]] == cell[2:] for cell in cells.split())


def test_the_menu_of_groups_changes_the_table_and_hostile_text_is_escaped():
    shown = rollouts(made_up_group(), made_up_group((1.0, 1.0), step=2))
    assert "+1.22" in shown.view.value
    shown.controls["group"].value = 1
    assert "step 2" in shown.view.value and "+1.22" not in shown.view.value
    assert "<script" not in shown.view.value and "<b>" not in shown.view.value


SCENE = Scene(
    rows=2, cols=2,
    parts=(Part(shape="pin", colour="yellow", row=0, col=0), Part(shape="tag", colour="red", row=1, col=1)),
    under=(Part(shape="juice", colour="red", row=1, col=1),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("action", "place", "parts"),
    [
        (widgets.REMOVE, "a1", {"b2": "red tag"}),
        (widgets.REMOVE, "b2", {"a1": "yellow pin", "b2": "red juice"}),  # what lay beneath becomes visible
        (widgets.ADD, "a2", {"a1": "yellow pin", "a2": "red pin", "b2": "red tag"}),
        (widgets.KEEP, "a1", {"a1": "yellow pin", "b2": "red tag"}),
        (widgets.REMOVE, "z9", {"a1": "yellow pin", "b2": "red tag"}),  # a menu that has not followed yet
    ],
)
def test_a_part_can_be_taken_out_and_exchanged(action, place, parts):
    scene = widgets.edited(SCENE, action, place, "red pin")
    assert {at: part.name for at, part in scene.at().items()} == parts


def test_every_product_can_be_edited_in_every_way_and_the_truth_is_told(fake):
    shown = widgets.scene_editor(fake)
    for product in shown.controls["product"].options:
        shown.controls["product"].value = product
        for action in shown.controls["action"].options:
            shown.controls["action"].value = action
            assert "P(anomalous)" in shown.view.value
    asked = len(fake.asked)
    shown.controls["product"].value, shown.controls["action"].value = "pushpins", widgets.KEEP
    assert "the two scenes are the same" in shown.view.value and "exactly one yellow pushpin" in shown.view.value
    assert len(fake.asked) > asked


def test_an_unparsed_and_hostile_rationale_is_displayed_as_text(fake):
    fake.answer = lambda pairs, arm: [Completion(HOSTILE, "length", 0.5, 1, 1)]
    shown = widgets.scene_editor(fake).view.value
    assert "unparsed answer" in shown and "truncated" in shown and not MARKUP.search(shown)
