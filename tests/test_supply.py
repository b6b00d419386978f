"""What is loaded cannot run code: safetensors alone, no pickle, nothing remote; revisions are pinned."""

import ast
import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny import tiny_base, tiny_profile

import ladlib
from ladlib.config import PROFILES, load_profile
from ladlib.errors import UserError
from ladlib.families import revision_of
from ladlib.models import load_model

ROOT = Path(ladlib.__file__).parent
TREES = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {
    "eval", "exec", "os.system", "os.popen", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "pd.read_pickle", "pandas.read_pickle", "__import__",
}  # fmt: skip
LOADERS = {
    "Qwen2_5_VLForConditionalGeneration": "use_safetensors=True", "AutoTokenizer": "trust_remote_code=False",
    "AutoModelForImageTextToText": "use_safetensors=True", "model_class": "use_safetensors=True",
}  # fmt: skip


def calls():
    return [(path, node) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_no_module_runs_what_a_file_holds():
    for path, tree in TREES.items():
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & UNSAFE_MODULES, path
    for path, call in calls():
        assert ast.unparse(call.func) not in UNSAFE_CALLS, (path, ast.unparse(call))
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        for name in ("trust_remote_code", "allow_pickle", "shell"):
            assert options.get(name, "False") == "False", (path, ast.unparse(call))


def test_every_load_of_a_model_takes_safetensors_and_every_load_of_a_tokenizer_no_remote_code():
    loads = [call for _, call in calls() if ast.unparse(call.func).endswith(".from_pretrained")]
    for call in loads:
        assert LOADERS.get(ast.unparse(call.func).split(".")[0], "") in ast.unparse(call), ast.unparse(call)
    assert len(loads) >= 4


def test_the_profiles_load_a_commit_and_no_branch():
    for name in PROFILES:
        model = load_profile(name).model
        for weights in (model.base, model.large):
            assert weights.startswith("toy-") or re.fullmatch("[0-9a-f]{40}", revision_of(weights))


def test_weights_as_pickle_are_not_loaded_even_where_nothing_else_is_there(tmp_path):
    folder = shutil.copytree(tiny_base(), tmp_path / "model")
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_model(str(folder), tiny_profile().model)
    assert not (tmp_path / "ran").exists()
