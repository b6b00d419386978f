"""The datasets in their published folders: samples, pairs, images, checks and downloads. No torch.

from ladlib.data import read_dataset
samples = read_dataset(Path("data"), "mvtec_loco")
"""

from ladlib.data.layout import FOLDERS, find_dataset
from ladlib.data.readers import read_dataset

__all__ = ["FOLDERS", "find_dataset", "read_dataset"]
