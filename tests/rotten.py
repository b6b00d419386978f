"""A corpus of rotten input: each row spoils one thing in a way that disks, archives, editors or people do.

``BAD_IMAGES`` and ``ODD_IMAGES`` are files; the other tables spoil a folder of datasets, a run, a model or a file.
"""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

LOCO, AD, VISA, MMAD = "mvtec_loco_anomaly_detection", "mvtec_anomaly_detection", "visa", "mmad"
JUICE = f"{LOCO}/juice_bottle"
CONFIG = f"{JUICE}/defects_config.json"
MASK = f"{JUICE}/ground_truth/logical_anomalies/000/000.png"
COLOURS = np.array(
    [[(200, 30, 40), (30, 200, 40)], [(20, 60, 220), (240, 240, 10)], [(0, 0, 0), (255, 255, 255)]], dtype=np.uint8
)
"""Three rows of two colours: each place of it is told from every other, however it is turned."""


class Row(NamedTuple):
    """One file of a folder, and what happens to it."""

    what: str
    name: str
    change: bytes | str | Callable[[bytes], bytes] | None  # new content, or how it comes from the old; None = removed
    words: tuple[str, ...]  # all of them stand in the one line of the error

    def spoil(self, root: Path) -> None:
        path, content = root / self.name, self.change
        if content is None:
            path.unlink()
            return
        if callable(content):
            content = content(path.read_bytes())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(old.encode(), new.encode())


def with_keys(**values: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(json.loads(data) | values).encode()


# Images


def picture(scale: int = 16) -> Image.Image:
    """``COLOURS``, each a square of ``scale`` pixels."""
    return Image.fromarray(COLOURS.repeat(scale, axis=0).repeat(scale, axis=1))


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def without_palette(png: bytes) -> bytes:
    start = png.index(b"PLTE") - 4
    return png[:start] + png[start + 12 + int.from_bytes(png[start : start + 4]) :]


NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "PNG")
DAMAGED = "does not decode"
BAD_IMAGES = [
    ("a web page", "a.jpg", b"<!doctype html><html>", DAMAGED),
    ("half a png", "a.png", NOISE[:4000], DAMAGED),
    ("a broken checksum", "a.png", NOISE.replace(b"IDAT", b"IDAT\x00", 1), DAMAGED),
    ("a bomb of 20,000 by 20,000", "a.ppm", b"P5 20000 20000 255\n", "too large"),
    ("floating-point grey", "a.tif", encoded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), DAMAGED),
    ("a palette png without its colours", "a.png", without_palette(encoded(picture().quantize(8), "PNG")), DAMAGED),
    ("postscript, which would start a program", "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", DAMAGED),
]


def turned() -> bytes:
    """``COLOURS`` as a camera stores it that was held on its side; EXIF tells how to turn it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def animated() -> bytes:
    return encoded(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (32, 48), "blue")])


GREY = np.array([[[0] * 3, [77] * 3], [[128] * 3, [200] * 3], [[254] * 3, [255] * 3]], dtype=np.uint8)


def grey(factor: int, kind: type) -> Image.Image:
    return Image.fromarray((GREY[..., 0].astype(np.uint32) * factor).astype(kind))


ODD_IMAGES = [
    ("a png named jpg", "a.jpg", encoded(picture(), "PNG"), COLOURS, 0),
    ("sixteen-bit grey png", "a.png", encoded(grey(257, np.uint16), "PNG"), GREY, 0),
    ("palette png", "a.png", encoded(picture().quantize(8), "PNG"), COLOURS, 1),
    ("animated gif", "a.gif", animated(), COLOURS, 1),
    ("bytes after the end", "a.png", encoded(picture(), "PNG") + b"\x00trailing" * 9, COLOURS, 0),
    ("turned as EXIF says", "a.png", turned(), COLOURS, 0),
    ("a name in another script", "缺少_é_\u202e.png", encoded(picture(), "PNG"), COLOURS, 0),
]


# Folders of datasets


def defects(*entries: dict) -> str:
    return json.dumps([{"defect_name": "a", "pixel_value": 255} | entry for entry in entries])


DEEP, OTHER_GREY = encoded(grey(257, np.uint16), "PNG"), encoded(Image.new("L", (8, 8), 17), "PNG")
LOCO_ROWS = [
    Row("config gone", CONFIG, None, ("defects_config.json is missing", "Copy")),
    Row("value 0", CONFIG, defects({"pixel_value": 0}), ("0.pixel_value", "greater than or equal to 1")),
    Row("a value twice", CONFIG, defects({}, {"defect_name": "b"}), ("a pixel value twice", "Copy")),
    Row("a key twice", CONFIG, '[{"pixel_value": 1, "pixel_value": 2}]', ("'pixel_value' stands in it 2", "Copy")),
    Row("mask of sixteen bit", MASK, DEEP, ("000/000.png is of mode I;16", "Copy")),
    Row("mask with another value", MASK, OTHER_GREY, ("000/000.png has the pixel value 17", "Copy")),
    Row("two images of one name", f"{JUICE}/test/good/000.jpg", b"", ("000.png: two images of one name",)),
    Row("no text", f"{JUICE}/test/good/\udcff\udcfe.png", b"", (r"\udcff\udcfe.png has a name", "not UTF-8", "Rename")),
    Row("a folder of another kind", f"{JUICE}/test/broken/000.png", b"", ("broken is no folder of MVTec", "Use")),
]

SPLIT = f"{VISA}/split_csv/1cls.csv"
IMAGE, ROW = "pcb4/Data/Images/Normal/0002", "pcb4,test,normal"
VISA_ROWS = [
    Row("semicolons", SPLIT, replaced(",", ";"), ("1cls.csv has other columns than object,split", "Copy")),
    Row("a row too short", SPLIT, replaced(f"{ROW},", "pcb4,"), ("1cls.csv, line 4: split: ", "Copy")),
    Row("a path up and out", SPLIT, replaced(IMAGE, "../../etc/0002"), ("line 4: image", "leads outside", "Copy")),
    Row("a megabyte", SPLIT, replaced("pcb4,test", "x" * 2**20 + ",test"), ("1cls.csv is not a csv file", "Copy")),
]

QUESTIONS = f"{MMAD}/mmad.json"


def entry(image: str = "a/b/c/d", answer: str = "A") -> str:
    turn = {"Question": "q", "Answer": answer, "Options": {"A": "Yes."}, "type": "t"}
    return json.dumps({image: {"conversation": [turn]}})


MMAD_ROWS = [
    Row("questions gone", QUESTIONS, None, ("mmad.json is missing", "Copy")),
    Row("questions a list", QUESTIONS, "[]", ("the file: its form: Input should be", "Copy")),
    Row("an image up and out", QUESTIONS, entry("DS-MVTec/../../../etc/passwd"), ("leads outside", "Copy")),
    Row("no answer among its options", QUESTIONS, entry(answer="Z"), ("holds no question", "Copy")),
]


# Runs


def first_again(**values: object) -> Callable[[bytes], bytes]:
    """The first of the lines once more before all, with other ``values``."""
    return lambda data: with_keys(**values)(data.split(b"\n")[0]) + b"\n" + data


ANSWERS, LOG = "generations/base-seed0.jsonl", "logs/sft_grpo-seed0.jsonl"
RUN_ROWS = [
    Row("run.json gone", "run.json", None, ("is not a run folder", "ladlib reproduce")),
    Row("run.json cut off", "run.json", '{"profile": "to', ("run.json is damaged", "Restore it")),
    Row("run.json of an unknown profile", "run.json", '{"profile": "tyo", "seed": 0}', ("'tyo'", "Use one of")),
    Row("no text", ANSWERS, lambda data: b"\xff\xfe\n" + data, ("base-seed0.jsonl cannot be read", "again")),
    Row("up and out", ANSWERS, first_again(test="../../../etc/passwd"), ("test", "leads outside", "again")),
    Row("an answer twice", ANSWERS, first_again(), ("pushpins/test/good/000 twice", "Keep one")),
    Row("log without a step", LOG, lambda data: b'{"loss": 1.0}\n' + data, ("sft_grpo-seed0.jsonl: 0.step", "again")),
]

PARAMETER_ROWS = [
    ("grpo_steps=few", "is not a whole number"),
    ("grpo_learning_rate=nan", "is not a number"),
    ("grpo_learning_rate=" + "9" * 5000, "is not a number"),
    ("\x1b[31m=3", r"\x1b"),
    ("seed=3", "Give --seed"),
]


# Archives


def tar(*members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:xz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 0
    return info


ARCHIVES = [
    ("cut off", "a.tar.xz", tar(member("visa/a"))[:60], "cannot be unpacked"),
    ("up and out", "a.tar.xz", tar(member("../a")), "cannot be unpacked"),
    ("absolute", "a.tar.xz", tar(member("/tmp/a")), "does not hold"),
    ("of another system", "a.tar.xz", tar(member("C:\\a")), "does not hold"),
    ("a symbolic link out", "a.tar.xz", tar(member("a", tarfile.SYMTYPE, "/etc/passwd")), "cannot be unpacked"),
    ("a link up and out", "a.tar.xz", tar(member("b/a", tarfile.SYMTYPE, "../../x")), "cannot be unpacked"),
    ("a device", "a.tar.xz", tar(member("a", tarfile.CHRTYPE)), "cannot be unpacked"),
    ("a hard link to nothing", "a.tar.xz", tar(member("a", tarfile.LNKTYPE, "b")), "linkname 'b' not found"),
    ("too long a name", "a.tar.xz", tar(member("a" * 300)), "File name too long"),
    ("a file used as a folder", "a.tar.xz", tar(member("a"), member("a/b")), "cannot be unpacked"),
    ("something else", "a.tar.xz", tar(member("a")), "does not hold the dataset"),
]


# Models


TEMPLATE = "chat_template.jinja"
INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "../outside.safetensors"}})
MODEL_ROWS = [
    Row("a section a list", "config.json", with_keys(text_config=[]), ("config.json is no configuration", "Copy")),
    Row("ten million layers", "config.json", replaced('layers": 2', 'layers": 10000000'), ("10000000 layers", "Copy")),
    Row("a tower without end", "config.json", replaced('depth": 2', 'depth": 1000000'), ("1000000 layers", "Copy")),
    Row("a layer too many", "config.json", replaced('layers": 2', 'layers": 3'), ("layer", "Copy")),
    Row("another image token", "config.json", with_keys(image_token_id=3), ("another image token", "Copy")),
    Row("awq", "config.json", with_keys(quantization_config={"quant_method": "awq"}), ("need gptqmodel", "Install")),
    Row("aqlm", "config.json", with_keys(quantization_config={"quant_method": "aqlm"}), ("aqlm", "Copy")),
    Row("weights outside", "model.safetensors.index.json", INDEX, ("names '../outside.safetensors'", "Copy")),
    Row("no template", TEMPLATE, None, ("template", "missing", "Copy")),
    Row("a template's syntax", TEMPLATE, "{% if %}", ("cannot be used: Expected an expression", "Copy")),
    Row("a name it lacks", TEMPLATE, "{{ nothing.x }}", ("cannot be used: 'nothing' is undefined", "Copy")),
    Row("what it raises", TEMPLATE, "{{ raise_exception('one\ntwo') }}", ("cannot be used: one two", "Copy")),
    Row("what it includes", TEMPLATE, "{% include 'a' %}", ("cannot be used: no loader", "Copy")),
    Row("a division", TEMPLATE, "{{ 1 / 0 }}", ("cannot be used: division by zero", "Copy")),
    Row("three images", TEMPLATE, "<|image_pad|>" * 3, ("puts 3 images into a prompt of two", "Copy")),
    Row("no images", TEMPLATE, "{{ messages }}", ("puts 0 images into a prompt of two", "Copy")),
    Row("a large template", TEMPLATE, "x" * 2**21, ("more than a megabyte", "Copy")),
    Row("config cut off", "config.json", "{", ("config.json is not JSON", "Copy")),
    Row("another model", "config.json", with_keys(model_type="llama"), ("belong to a Qwen2.5-VL", "Give")),
    Row("weights cut off", "model.safetensors", lambda data: data[:9000], ("missing or damaged", "Copy")),
    Row("weights gone", "model.safetensors", None, ("safetensors", "Copy")),
    Row("an adapter of nothing", "adapter_config.json", "{}", ("does not say what", "Copy")),
]
