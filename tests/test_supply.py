"""What is loaded cannot run code: safetensors alone, no pickle, nothing remote; revisions are pinned."""

import ast
import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny import tiny_base, tiny_profile, write_data

import ladlib
from ladlib import sft
from ladlib.config import PROFILES, load_profile
from ladlib.models import load_model
from ladlib.published_models import PUBLISHED, commit_of
from ladlib.runs import RunFolder
from ladlib.training import StepLog

ROOT = Path(ladlib.__file__).parent
SOURCES = sorted(path for path in ROOT.rglob("*.py") if "notebooks" not in path.parts)
UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {
    "eval", "exec", "os.system", "os.popen", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "pd.read_pickle", "pandas.read_pickle", "__import__",
}  # fmt: skip


def calls(path):
    return [one for one in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(one, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_runs_what_a_file_holds(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & UNSAFE_MODULES
    for call in calls(path):
        assert ast.unparse(call.func) not in UNSAFE_CALLS, ast.unparse(call)
        given = {word.arg: word.value for word in call.keywords}
        for name in ("trust_remote_code", "allow_pickle", "shell"):
            assert name not in given or ast.unparse(given[name]) == "False", ast.unparse(call)


def test_every_load_of_a_model_takes_safetensors_and_every_load_of_a_tokenizer_no_remote_code():
    loads = [one for path in SOURCES for one in calls(path) if ast.unparse(one.func).endswith(".from_pretrained")]
    kinds = {"Qwen2_5_VLForConditionalGeneration": "use_safetensors=True", "AutoTokenizer": "trust_remote_code=False"}
    for call in loads:
        wanted = kinds.get(ast.unparse(call.func).split(".")[0], "")
        assert wanted in ast.unparse(call), ast.unparse(call)
    assert len(loads) >= 4


def test_the_profiles_load_a_commit_and_no_branch():
    for name in PROFILES:
        model = load_profile(name).model
        for weights in (model.base, model.large):
            revision = commit_of(weights, model.revision)
            assert weights.startswith("toy-") or re.fullmatch("[0-9a-f]{40}", revision)
    assert commit_of("someone/else", "pinned") == "main" and commit_of(min(PUBLISHED), "main") == "main"


def test_weights_as_pickle_are_not_loaded_even_where_nothing_else_is_there(tmp_path):
    folder = shutil.copytree(tiny_base(), tmp_path / "model")
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ladlib.errors.UserError, match="safetensors"):
        load_model(str(folder), tiny_profile().model)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_training_that_goes_on_loads_its_state_without_running_it(tmp_path, monkeypatch):
    data, run = write_data(tmp_path / "data"), RunFolder(tmp_path / "run")
    profile = tiny_profile(sft__steps=3, sft__trl={"save_steps": 1})
    with monkeypatch.context() as patch:
        patch.setattr(StepLog, "on_step_begin", stop_after_two, raising=False)
        with pytest.raises(KeyboardInterrupt):
            sft.train(profile, data, run, 0)
    load, how = torch.load, []
    monkeypatch.setattr(
        torch, "load", lambda *args, **kw: how.append(kw.get("weights_only", True)) or load(*args, **kw)
    )
    sft.train(profile, data, run, 0)
    assert how and all(how), "optimizer, schedule and random state are tensors and numbers, no objects"


def stop_after_two(self, args, state, control, **_):
    if state.global_step == 2:
        raise KeyboardInterrupt
