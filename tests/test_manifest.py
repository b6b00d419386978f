"""Which files a training stage is shown, by their bytes."""

import hashlib
import shutil

import pandas as pd
import pytest
from tiny import tiny_base, tiny_profile, write_data

from ladlib import grpo, sft
from ladlib.conversations import balanced_pairs, pairs_to_train_on
from ladlib.data import find_dataset, read_dataset
from ladlib.errors import UserError
from ladlib.manifest import shown_files, write_manifest
from ladlib.runs import RunFolder


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def a_test_image(data):
    loco = next(one for one in read_dataset(data, "mvtec_loco") if one.anomaly == "logical")
    return find_dataset(data, "mvtec_loco") / loco.image


@pytest.mark.parametrize(("stage", "arm"), [(sft.train, "sft"), (grpo.train, "sft_grpo")])
def test_a_stage_leaves_the_hash_of_every_image_it_was_trained_on(data, tmp_path, stage, arm):
    run = RunFolder(tmp_path / "run")
    stage(tiny_profile(), data, run, 0, model=tiny_base())
    rows = pd.read_csv(run.manifest(arm, 0), keep_default_na=False)
    assert len(rows) > 1 and not rows.duplicated(["dataset", "test"]).any()
    for row in rows.itertuples():
        for name, digest in ((row.reference, row.reference_sha256), (row.test, row.test_sha256)):
            assert hashlib.sha256((find_dataset(data, row.dataset) / name).read_bytes()).hexdigest() == digest


def test_the_manifest_keeps_the_order_and_the_labels_of_the_pairs(data, tmp_path):
    pairs = balanced_pairs(tiny_profile(), data, 0)
    write_manifest(tmp_path / "manifest.csv", shown_files(pairs, data))
    rows = pd.read_csv(tmp_path / "manifest.csv", keep_default_na=False)
    assert [(row.test, row.label) for row in rows.itertuples()] == [(one.test.image, one.test.label) for one in pairs]


@pytest.mark.parametrize("as_reference", [False, True])
def test_a_test_image_under_a_training_images_name_is_refused(data, as_reference):
    one = pairs_to_train_on(tiny_profile(), data)[0]
    name = one.reference if as_reference else one.test.image
    shutil.copy(a_test_image(data), find_dataset(data, one.test.dataset) / name)
    with pytest.raises(UserError, match=f"{name} has the bytes of .*logical_anomalies.*an image of the test set"):
        shown_files([one], data)


@pytest.mark.parametrize(("stage", "arm"), [(sft.train, "sft"), (grpo.train, "sft_grpo")])
def test_a_stage_that_would_see_a_test_image_stops_before_it_begins(data, tmp_path, stage, arm):
    for one in pairs_to_train_on(tiny_profile(), data):
        shutil.copy(a_test_image(data), find_dataset(data, one.test.dataset) / one.test.image)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match="an image of the test set"):
        stage(tiny_profile(), data, run, 0, model="not-even-looked-for")
    assert not run.checkpoint(arm, 0).exists() and not run.manifest(arm, 0).exists()


def test_without_the_test_set_beside_it_training_data_are_taken_as_they_are(data):
    shutil.rmtree(find_dataset(data, "mvtec_loco"))
    pairs = balanced_pairs(tiny_profile(), data, 0)
    assert len(shown_files([*pairs, *pairs], data)) == len(pairs), "a pair that is asked about twice has one row"
