"""What readers, pairing, resizing and stage data give of the drawn datasets, byte for byte and in their order."""

import hashlib
import warnings

import pytest

from ladlib.config import load_profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair
from ladlib.sft_data import balanced_pairs, make_conversations, training_pairs
from ladlib.toy.datasets import write_datasets

FEW = {"train": 8, "good": 8, "logical": 8, "structural": 4}  # images of each kind, for the toy profile
EXPECTED = {
    "smoke": {
        "mvtec_ad": "6e51f6ac1f4bc20d",
        "visa": "88cfcb7bcbecea35",
        "mvtec_loco": "94feffac2e4f0388",
        "pairs": "719ada51459fcfbe",
        "training pairs": "2e336cf2df1889c0",
        "conversations": "055915d2fc65fb50",
        "balanced": "2b0e8060cde06e40",
        "seed 1": "b754c6a2855bdc0a",
        "pixels": "364988cab5168ad8",
    },
    "toy": {
        "mvtec_ad": "7bf3b000dc773aaf",
        "visa": "59bff2ddcc922f7e",
        "mvtec_loco": "1a9a843150723d89",
        "pairs": "e92bd0e8f0cac6b8",
        "training pairs": "97b2372975cdf587",
        "conversations": "bac6b780dfb77162",
        "balanced": "d17d144ea6fd1034",
        "seed 1": "429da14510ec974c",
        "pixels": "e8312b94fc503f6e",
    },
}


def digest(records):
    return hashlib.sha256("\n".join(one.model_dump_json() for one in records).encode()).hexdigest()[:16]


def pixels(pairs, root, data):
    total = hashlib.sha256()
    for one in pairs:
        folder = find_dataset(root, one.test.dataset)
        for path in (one.reference, one.test.image):
            total.update(view(folder / path, data.min_pixels, data.max_pixels).tobytes())
    return total.hexdigest()[:16]


@pytest.mark.parametrize("name", ["smoke", "toy"])
def test_the_drawn_datasets_are_read_paired_resized_and_put_in_order_as_ever(tmp_path, name):
    profile = load_profile(name)
    sizes = profile.toy if name == "smoke" else profile.toy.model_copy(update=FEW)
    write_datasets(tmp_path, sizes)
    samples = {dataset: read_dataset(tmp_path, dataset) for dataset in ("mvtec_ad", "visa", "mvtec_loco")}
    found = {dataset: digest(rows) for dataset, rows in samples.items()}
    tested = pair(samples["mvtec_loco"], profile.data.reference_seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found |= {
            "pairs": digest(tested),
            "training pairs": digest(training_pairs(tmp_path, profile.data.reference_seed)),
            "conversations": digest(make_conversations(profile, tmp_path, 0)),
            "balanced": digest(balanced_pairs(profile, tmp_path, 0)),
            "seed 1": digest([*make_conversations(profile, tmp_path, 1), *balanced_pairs(profile, tmp_path, 1)]),
            "pixels": pixels(tested[:20], tmp_path, profile.data),
        }
    assert found == EXPECTED[name]
