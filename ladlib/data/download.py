"""A dataset downloaded and unpacked, from the links, licences and checksums in ``sources.yaml``.

    download("visa", read_sources()["visa"], Path("/data/anomaly"))

pooch fetches and checks the SHA-256. Archives are unpacked here: ``pooch.Untar`` follows paths and links that lead
outside the folder (pooch 1.9.0).
"""

import errno
import lzma
import shutil
import sys
import tarfile
import zlib
from functools import cache
from importlib import resources
from io import FileIO
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from ladlib.checksums import sha256
from ladlib.data.layout import FOLDERS, is_dataset, subfolders
from ladlib.errors import UserError

RETRIES = 3  # of each link, after a broken connection or a wrong checksum
TIMEOUT = 60  # seconds without a byte
BROKEN = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ValueError, KeyError, OSError)


@cache
def read_sources() -> dict[str, dict]:
    """The committed ``sources.yaml`` by dataset, in the order of ``FOLDERS``."""
    sources = yaml.safe_load((resources.files("ladlib.data") / "sources.yaml").read_text(encoding="utf-8"))
    return {name: sources[name] for name in FOLDERS}


def licence_text(source: dict) -> str:
    """The licence in three lines, to be shown before anything is fetched."""
    return "{title} is under {licence}, {licence_url}\n{terms}\nPublisher: {page}".format_map(source)


def download(dataset: str, source: dict, out: Path) -> Path:
    """Bring ``dataset`` to ``out / FOLDERS[dataset]``, which is returned; a file that lies there already is used.

    Raises :class:`UserError` where the disk is too small, no link gives the file (after printing what to download by
    hand), a checksum is wrong, or an archive is broken or unsafe.
    """
    folder = out / FOLDERS[dataset]
    for file in source["files"]:
        is_archive = file["unpacked"] > 0
        path = (out if is_archive else folder) / file["name"]
        target = folder if is_archive else path
        if target.exists():
            if not (is_dataset(folder, dataset) if is_archive else path.is_file()):
                raise UserError(f"{target} exists, but does not hold {file['name']}.", "Move it away, then run again.")
            print(f"{target} exists already.")
            continue
        needed = file["unpacked"] + (0 if path.exists() else file["size"])
        existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
        if (free := shutil.disk_usage(existing).free) < needed:
            what = f"{source['title']} needs {_size(needed)}, and {out} has {_size(free)} free."
            raise UserError(what, "Make room, or give a folder on another disk with --out.")
        if path.is_file():
            print(f"{path.name}: checking the SHA-256")
            if (digest := sha256(path)) != file["sha256"]:
                what = f"{path} has the SHA-256 {digest}, not the published {file['sha256']}."
                raise UserError(what, "Remove it, then run again.")
        elif failures := _fetch(file, path):
            print(f"Open {source['page']}. {source['remark']}\nPut {path.name} ({_size(file['size'])}) as {path}.")
            print("Run the same command again: it checks the SHA-256 and does the rest.")
            raise UserError(f"No link gives {path.name} ({failures}).", "Download it by hand as described above.")
        if is_archive:
            unpack(path, folder, dataset)
            print(f"{path} ({_size(path.stat().st_size)}) is no longer needed.")
    return folder


def _fetch(file: dict, path: Path) -> str:
    """Bring ``file`` to ``path`` from the first link that gives it; "" or what each link answered."""
    import pooch

    class Sized(FileIO):  # a link may never end
        def write(self, data: bytes) -> int:
            if self.tell() > file["size"]:
                raise OSError(errno.EFBIG, "more than the published file")
            return super().write(data)

    answers = []
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**20, timeout=TIMEOUT)
    for url in file["urls"]:
        pooch.get_logger().setLevel("WARNING")
        registry, urls = {path.name: f"sha256:{file['sha256']}"}, {path.name: url}
        store = pooch.create(path.parent, base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES)
        try:
            print(f"{path.name} ({_size(file['size'])}) from {urlsplit(url).hostname}", flush=True)
            store.fetch(path.name, downloader=lambda url, part, _: downloader(url, Sized(part, "w"), _))
            return ""
        except OSError as error:  # as all of requests' errors are
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = f"HTTP {status}" if status else error.strerror or type(error).__name__
            answers.append(f"{urlsplit(url).hostname}: {reason}")
        except ValueError:  # of pooch, for a wrong checksum
            answers.append(f"{urlsplit(url).hostname}: another file than the published one, by its SHA-256")
    return "; ".join(answers)


def unpack(archive: Path, folder: Path, dataset: str) -> None:
    """Unpack ``archive`` (tar in any compression), which holds ``dataset`` or a folder of it, as ``folder``.

    It is unpacked beside ``folder`` and renamed when complete: a killed call leaves no ``folder``. Raises
    :class:`UserError` for an archive that is broken or of something else, and for a path or link that leads outside.
    """
    partial = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    hint = "Remove it and download it again; a full disk needs room first."
    try:
        print(f"{archive.name}: unpacking", flush=True)
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        content = next((path for path in (partial, *subfolders(partial)[:1]) if is_dataset(path, dataset)), None)
        if content is None:
            raise UserError(f"{archive} does not hold the dataset.", hint)
        content.rename(folder)
    except BROKEN as error:
        raise UserError(f"{archive} cannot be unpacked: {str(error).splitlines()[0]}.", hint) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _size(count: float) -> str:
    """Bytes for people, decimal as disks are sold: "5.3 GB", "0.1 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
