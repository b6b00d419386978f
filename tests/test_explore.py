"""The explorers: moving a control changes what is shown, text from outside is escaped, and a still stands beside."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_processor, tiny_profile

from ladlib import explore
from ladlib.conversations import view
from ladlib.data import read_dataset
from ladlib.data.pairing import pair
from ladlib.errors import UserError
from ladlib.explore import pairs, playground, rollouts, scenes, threshold
from ladlib.explore.view import choice, explorer
from ladlib.generations import Completion
from ladlib.metrics import judge as judged
from ladlib.metrics import measure
from ladlib.parsing import TAGS
from ladlib.records import Generation
from ladlib.rewards import accuracy_reward, format_reward
from ladlib.toy.datasets import write_loco
from ladlib.toy.scenes import Part, Scene

HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(1)'>\x1b[31m"
MARKUP = re.compile(r"<script|<img src=x|\x1b")


DATA = tiny_profile().data


class Says:
    """A judge that calls a pair anomalous as far as the test image is bright, and keeps what it was shown."""

    def __init__(self, text="<think>a1 red disc same .</think><answer>no</answer>"):
        self.text, self.shown, self.profile = text, [], tiny_profile()

    def __call__(self, pairs):
        self.shown += pairs
        return [Completion(self.text, "stop", float(np.asarray(test).mean()) / 255, 1, 1) for _, test in pairs]

    def seen(self, image):
        return image


def generation(label, p_yes, arm="sft", text="<think>x</think><answer>yes</answer>"):
    one = dict(
        id=f"{arm}{label}{p_yes}", arm=arm, seed=0, dataset="mvtec_loco", category="juice_bottle",
        anomaly="logical" if label == "yes" else "good", defect="", label=label, reference="a.png", test="b.png",
        text=text, answer="yes", p_yes=p_yes, prompt_sha256="", images_sha256=("", ""), pixels=((28, 28), (28, 28)),
        finish="stop", prompt_tokens=1, completion_tokens=1, seconds=0.0,
    )  # fmt: skip
    return Generation(**one)


def rollout(step=1, id="cable/1", texts=("one", "two"), advantages=(0.7, -0.7)):
    completions = [
        {"text": text, "accuracy": float(value > 0), "format": 1.0, "reward": 1.0 + (value > 0), "advantage": value}
        for text, value in zip(texts, advantages, strict=True)
    ]
    return {"step": step, "id": id, "label": "yes", "completions": completions}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_loco(folder, tiny_profile().data.toy)
    return folder


# What all explorers share


def test_moving_a_control_draws_the_view_again():
    shown = explorer("Letters", lambda letter: letter, letter=choice("Letter", ["a", "b"]))
    assert ">a<" in shown.view.value
    shown.controls["letter"].value = "b"
    assert ">b<" in shown.view.value


def test_an_explorer_shows_its_still_beside_itself(monkeypatch):
    shown = explorer("Letters", lambda letter: letter, letter=choice("Letter", ["a", "b"]))
    displayed = []
    monkeypatch.setattr("ladlib.explore.view.display", displayed.append)
    shown._repr_mimebundle_()
    assert ">a<" in displayed[0].data and "Letters, as it opens" in displayed[0].data


def test_what_the_user_can_mend_is_told_in_the_view_and_escaped():
    def refuse(letter):
        raise UserError(f"There is no {HOSTILE}.", "Give another.")

    shown = explorer("Letters", refuse, letter=choice("Letter", ["a"])).view.value
    assert "Give another." in shown and not MARKUP.search(shown)


def test_nothing_to_choose_from_is_one_line():
    with pytest.raises(UserError, match="no group to choose from"):
        explore.rollout_explorer([])


def every_explorer(toy):
    judge = Says()
    some = pair(read_dataset(toy, "mvtec_loco"), 0)[:2]
    folder = scenes_folder(toy)
    yield explore.pair_browser(some, folder, DATA, tiny_processor())
    yield explore.reward_playground()
    yield explore.rollout_explorer([rollout()])
    yield explore.threshold_slider([generation("yes", 0.7)])
    yield explore.scene_editor(judge, folder)


def scenes_folder(toy):
    return next(toy.rglob("scenes.jsonl")).parent


def test_every_control_says_what_it_is_and_every_picture_has_a_text(toy):
    for shown in every_explorer(toy):
        assert all(one.description and one.tabbable is not False for one in shown.controls.values())
        images = re.findall(r"<img [^>]*>", shown.view.value)
        assert all(re.search(r"alt='[^']+'", one) for one in images)
        assert len(shown.still) > 100 and "src='http" not in shown.still and "<script" not in shown.still


# The pair browser


def test_the_category_changes_the_defects_and_the_mask_the_picture(toy):
    folder = scenes_folder(toy)
    every = pair(read_dataset(toy, "mvtec_loco"), 0)
    shown = explore.pair_browser(every, folder, DATA, tiny_processor())
    shown.controls["category"].value = "pushpins"
    assert set(shown.controls["defect"].options) == set(pairs.defects_of(every, "pushpins"))
    bad = next(one for one in shown.controls["defect"].options if one not in ("all", "good"))
    shown.controls["defect"].value = bad
    before = shown.view.value
    assert bad.replace("_", " ") in before and "visual tokens" in before
    shown.controls["masked"].value = True
    masked = shown.view.value
    shown.controls["pixels"].value = pairs.AS_STORED
    assert len({before, masked, shown.view.value}) == 3 and "visual tokens" not in shown.view.value


def test_who_wants_to_guess_is_told_neither_label_nor_defect_nor_a_file_that_names_them(toy):
    shown = explore.pair_browser(pair(read_dataset(toy, "mvtec_loco"), 0), scenes_folder(toy), DATA, tiny_processor())
    shown.controls["masked"].value = True
    before, shown.controls["hidden"].value = shown.view.value, True
    guess = re.sub(r"src='[^']*'", "", shown.view.value)
    assert "logical" in before and not re.search("logical|label (yes|no)|good|anomaly|mask", guess)
    assert "Normal or anomalous" in guess and guess.count("<img") == 2


def test_the_slider_goes_as_far_as_there_are_pairs_and_names_another_file(toy):
    every = pair(read_dataset(toy, "mvtec_loco"), 0)
    shown = explore.pair_browser(every, scenes_folder(toy), DATA, tiny_processor())
    own = pairs.matching(every, shown.controls["category"].value, "all")
    assert shown.controls["number"].max == len(own)
    assert next(one for one in own if one.test.label == "yes").test.image in shown.view.value
    for number in (1, len(own)):
        shown.controls["number"].value = number
        assert own[number - 1].test.image in shown.view.value


def test_what_the_processor_sees_is_the_resized_picture_patch_by_patch(toy):
    one = pair(read_dataset(toy, "mvtec_loco"), 0)[0]
    image = view(scenes_folder(toy) / one.test.image, DATA.min_pixels, DATA.max_pixels)
    again = pairs.seen_pixels(image, tiny_processor())
    assert again.size == image.size
    assert np.abs(np.asarray(again).astype(int) - np.asarray(image)).max() <= 1


# The reward playground


def test_typing_changes_both_rewards_and_says_why():
    shown = explore.reward_playground()
    assert shown.view.value.count("<b>1</b>") == 2
    shown.controls["completion"].value = "<answer>yes</answer>"
    assert "<b>0</b>" in shown.view.value and "&lt;think&gt; occurs 0 times" in shown.view.value
    shown.controls["label"].value = "no"
    assert "The answer is yes and the label is no" in shown.view.value


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("There is a ring missing, so yes.", 'the first word "yes"'),
        ("<think>Is it?</think><answer>yes or no</answer>", 'holds "yes or no"'),
        ("<think>a</think><answer>yes</answer><answer>no</answer>", "another number of tags"),
        ("<think>Perhaps <answer>yes</answer></think>", "inside the thinking"),
    ],
)
def test_an_answer_that_cannot_be_read_is_explained(completion, reason):
    assert reason in playground.why_accuracy(completion, "yes")


@given(st.lists(st.sampled_from([*TAGS, "yes", "no", " ", "x", "<|im_end|>"]), max_size=9).map("".join))
def test_the_reason_agrees_with_the_reward_whatever_is_typed(text):
    assert playground.why_format(text).startswith("Not in the form") == (format_reward(text) == 0.0)
    paid = accuracy_reward(text, "yes") == 1.0
    assert (playground.why_accuracy(text, "yes") == "The answer is yes and the label is yes.") == paid


def test_what_is_typed_is_never_obeyed_as_markup():
    shown = explore.reward_playground()
    shown.controls["completion"].value = f"<think>{HOSTILE}</think><answer>{HOSTILE}</answer>"
    assert not MARKUP.search(shown.view.value)


# The threshold


def test_the_slider_moves_images_between_the_cells_of_the_matrix():
    rows = [generation("yes", 0.9), generation("yes", 0.4), generation("no", 0.6), generation("no", 0.1)]
    shown = explore.threshold_slider(rows)
    assert "TP <b>1</b>" in shown.view.value and "FP <b>1</b>" in shown.view.value
    shown.controls["at"].value = 0.3
    assert "TP <b>2</b>" in shown.view.value and "FP <b>1</b>" in shown.view.value
    shown.controls["at"].value = 0.95
    assert "TP <b>0</b>" in shown.view.value and "TN <b>2</b>" in shown.view.value


def test_at_the_ends_everything_or_nothing_is_called_anomalous_as_the_trivial_rows_have_it():
    rows = [generation(label, value) for label, value in (("yes", 0.9), ("yes", 0.4), ("no", 0.6))]
    always = measure([judged(one)._replace(called=True) for one in rows])
    assert threshold.measured_at(rows, 0.0)["f1"] == always["f1"]


# The rollout explorer


def test_the_step_changes_the_groups_and_the_group_the_table():
    shown = explore.rollout_explorer([rollout(1, "first"), rollout(2, "second"), rollout(2, "third")])
    assert "first" in shown.view.value
    shown.controls["step"].value = 2
    assert [name.split()[0] for name, _ in shown.controls["group"].options] == ["second", "third"]
    shown.controls["group"].value = 2
    assert "third" in shown.view.value


def test_the_colours_say_what_they_mean_and_change_with_the_menu():
    shown = explore.rollout_explorer([rollout()], lambda one: [[("gained", 1.0)], [("lost", -1.0)]])
    assert "Colours: log-probability" in shown.view.value and "title='+1.00'>gained" in shown.view.value
    shown.controls["colour"].value = rollouts.BY_ADVANTAGE
    assert "Colours: the completion" in shown.view.value and "title='-0.70'>two" in shown.view.value


def test_a_group_without_spread_is_said_to_teach_nothing():
    assert "teaches nothing" in explore.rollout_explorer([rollout(advantages=(0.0, 0.0))]).view.value


def test_a_hostile_completion_and_id_are_escaped():
    shown = explore.rollout_explorer([rollout(id=HOSTILE, texts=(HOSTILE, HOSTILE))])
    assert not MARKUP.search(shown.view.value)


# Scenes of one's own


SCENE = Scene(
    rows=2, cols=2,
    parts=(Part(shape="pin", colour="yellow", row=0, col=0), Part(shape="tag", colour="red", row=1, col=1)),
    under=(Part(shape="juice", colour="red", row=1, col=1),),
)  # fmt: skip


def held(scene):
    return {place: part.name for place, part in scene.at().items()}


def test_a_part_can_be_taken_out_put_in_and_swapped():
    assert held(scenes.edited(SCENE, scenes.REMOVE, "a1", "a2", "red pin")) == {"b2": "red tag"}
    assert held(scenes.edited(SCENE, scenes.ADD, "a2", "a2", "red pin"))["a2"] == "red pin"
    assert held(scenes.edited(SCENE, scenes.SWAP, "a1", "b2", "")) == {"b2": "yellow pin", "a1": "red tag"}
    assert scenes.edited(SCENE, scenes.LEAVE, "a1", "b2", "") == SCENE


def test_what_lay_beneath_a_part_comes_to_light():
    assert held(scenes.edited(SCENE, scenes.REMOVE, "b2", "a1", ""))["b2"] == "red juice"


def test_an_edit_asks_the_model_about_a_new_picture_and_tells_the_truth(toy):
    judge = Says()
    shown = explore.scene_editor(judge, scenes_folder(toy))
    shown.controls["product"].value = "pushpins"
    assert "differ at a1" in shown.view.value and "exactly one yellow pushpin" in shown.view.value
    asked = len(judge.shown)
    shown.controls["action"].value = scenes.LEAVE
    assert "the two scenes are the same" in shown.view.value and len(judge.shown) == asked + 1


def test_every_product_can_be_edited_in_every_way(toy):
    shown = explore.scene_editor(Says(), scenes_folder(toy))
    for product in shown.controls["product"].options:
        shown.controls["product"].value = product
        for action in shown.controls["action"].options:
            shown.controls["action"].value = action
            assert "P(anomalous)" in shown.view.value


def test_an_unreadable_or_hostile_rationale_is_shown_as_text(toy):
    shown = explore.scene_editor(Says(HOSTILE), scenes_folder(toy))
    assert "no answer that can be read" in shown.view.value and not MARKUP.search(shown.view.value)


# A real model behind them


@pytest.mark.slow
def test_a_real_model_judges_and_two_checkpoints_colour_tokens(toy, tmp_path):
    profile = tiny_profile()
    session = SimpleNamespace(profile=profile, data=toy)
    judge = explore.load_judge(session)
    every = pair(read_dataset(toy, "mvtec_loco"), 0)
    changes = explore.changes_between(session, profile.model.base, profile.model.base, every)
    group = rollout(id=every[0].id, texts=("<think>a1 red disc .</think>", "no"))
    tokens = changes(group)
    assert ["".join(text for text, _ in line) for line in tokens] == [one["text"] for one in group["completions"]]
    assert all(abs(value) < 1e-5 for line in tokens for _, value in line)
    assert "P(anomalous)" in explore.scene_editor(judge, scenes_folder(toy)).view.value
