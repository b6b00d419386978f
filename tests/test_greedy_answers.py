"""The shipped model answers fifteen drawn pairs as it did when ``greedy_answers.jsonl`` was written.

Both ways of decoding are held to it. The file is made anew only with the model or the drawn images:
``evaluate(load_profile("smoke", **{"model.max_new_tokens": 160}), ...)``, keys id to completion_tokens.
"""

from pathlib import Path

import pytest

from ladlib import evaluate
from ladlib.config import load_profile
from ladlib.runs import RunFolder, read_jsonl
from ladlib.toy.datasets import write_datasets

STORED = {row["id"]: row for row in read_jsonl(Path(__file__).with_name("greedy_answers.jsonl"))}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    write_datasets(root, load_profile("smoke").toy)
    return root


@pytest.mark.parametrize("shared_prefix", [False, True], ids=["generate", "shared prefix"])
def test_greedy_texts_and_p_yes_are_the_stored_ones(drawn, tmp_path, shared_prefix):
    values = {"model.max_new_tokens": 160, "model.shared_prefix": shared_prefix}
    path = evaluate.evaluate(load_profile("smoke", **values), drawn, RunFolder(tmp_path), 0, arm="base", model="")
    rows = {row["id"]: row for row in read_jsonl(path)}
    assert len(rows) == 15 and rows.keys() == STORED.keys()
    for name, stored in STORED.items():
        assert {key: rows[name][key] for key in stored} == stored | {"p_yes": pytest.approx(stored["p_yes"], abs=1e-4)}
