"""Download archives, check and unpack them, count what came out: shared by prepare_*.py.

Whatever interrupts it, giving the same command again goes on: a download resumes where it stopped,
and a folder has its name only when it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from mutual_guidance.arguments import Parser
from mutual_guidance.errors import UserError, run_main

TRIES = 5  # in a row that bring nothing new
WAIT = 1.0  # seconds before the second try; doubles with every further one
TIMEOUT = 60.0  # seconds without an answer
CHUNK = 2**20  # bytes


class PrepareError(UserError):
    """A data set that cannot be had; the message says why and what to do."""


class Archive(NamedTuple):
    """A file to download."""

    url: str  # below the base
    md5: str | None  # None where the server packs it anew for every download: see Part.expected
    name: str = ""  # of the file here; default: the last part of the url

    def below(self, root: Path) -> Path:
        """Where the file is while it is needed."""
        return root / (self.name or PurePosixPath(self.url).name)


class Part(NamedTuple):
    """A folder of a data set."""

    folder: str  # below the root
    archives: tuple[Archive, ...]
    inside: str  # where the folder is within the archives
    count: Callable[[Path], dict[str, int | str]]
    expected: dict[str, int | str]  # what count finds in the whole folder: numbers, digests


def main(doc: str, base: str, parts: Sequence[Part], argv: list[str] | None = None) -> None:
    """The command line of a prepare_*.py; ``doc`` is its text, ``base`` the official server."""
    parser = Parser(doc)
    names = [part.folder for part in parts]
    root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    parser.add_argument("--root", type=Path, default=root, help="folder of the data sets")
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", choices=names, default=names, help="folders to make"
    )
    parser.add_argument("--url-base", default=base, help="a mirror of the official server")
    args = parser.parse_args(argv)
    if "://" not in args.url_base:
        parser.error(f"--url-base {args.url_base} is no URL: begin it with https:// or http://")
    chosen = [part for part in parts if part.folder in args.parts]
    interrupted = "Interrupted: give the same command again to go on."
    run_main(_prepare_all, chosen, args.root, args.url_base, interrupted=interrupted)


def _prepare_all(parts: Sequence[Part], root: Path, base: str) -> None:
    for part in parts:
        made = prepare(part, root, base)
        found = ", ".join(_words(what, n) for what, n in part.expected.items())
        print(f"{root / part.folder}: {'made' if made else 'already there'}, {found}")


def _words(what: str, found: int | str) -> str:
    return f"{what} {found}" if isinstance(found, str) else f"{found:,} {what}"


def prepare(part: Part, root: Path, base: str) -> bool:
    """
    Make sure that the folder of ``part`` is below ``root``, whole.

    Returns:
        Whether it was made; False if it was there.

    Raises:
        PrepareError: a download or an archive failed, or the numbers of files are not the expected.
    """
    folder = root / part.folder
    partial = folder.with_name(f".{folder.name}.partial")
    if folder.exists():
        check_counts(part, folder)
        if partial.exists():  # an earlier call ended in the middle of this
            _clean_up([archive.below(root) for archive in part.archives], partial)
        return False
    if folder.is_symlink():
        raise PrepareError(f"{folder} is a link to {os.readlink(folder)}, which is not there")
    folder.parent.mkdir(parents=True, exist_ok=True)
    base = base.rstrip("/")
    archives = [fetch(f"{base}/{a.url}", a.below(root), a.md5) for a in part.archives]
    shutil.rmtree(partial, ignore_errors=True)
    for archive in archives:
        unpack(archive, partial)
    check_counts(part, partial / part.inside)
    (partial / part.inside).rename(folder)
    _clean_up(archives, partial)
    return True


def _clean_up(archives: list[Path], partial: Path) -> None:
    """Remove what the folder was made from; ``partial`` last, which tells that there is some."""
    for archive in archives:
        archive.unlink(missing_ok=True)
    shutil.rmtree(partial)


def check_counts(part: Part, folder: Path) -> None:
    """Raise PrepareError unless the folder has what it is expected to have."""
    found = part.count(folder)
    wrong = [
        f"{_words(what, found[what])} instead of {n if isinstance(n, str) else f'{n:,}'}"
        for what, n in part.expected.items()
        if found[what] != n
    ]
    if wrong:
        raise PrepareError(f"{folder} has {', '.join(wrong)}: move it away and run this again")


def fetch(url: str, path: Path, md5: str | None) -> Path:
    """
    Download a file to ``path``, which is returned, going on with what an earlier call has left;
    a whole one that no checksum vouches for is downloaded again.

    Raises:
        PrepareError: the server does not answer or refuses, or the file has another checksum.
    """
    partial = path.with_name(path.name + ".part")
    if not path.exists() or md5 is None:
        _download(url, partial)
        partial.replace(path)
    actual = md5 and _md5(path)
    if actual != md5:
        path.unlink()
        raise PrepareError(
            f"{path} has md5 {actual} instead of {md5} and was removed: run this again, or name "
            "another server with --url-base"
        )
    return path


def _download(url: str, partial: Path) -> None:
    """Receive the whole file, with new tries as long as each brings something."""
    failures, most = 0, _size(partial)
    while True:
        try:
            _receive(url, partial)
            return
        except (OSError, HTTPException) as error:
            if _is_of_the_disk(error):
                raise
            refused = isinstance(error, HTTPError) and error.code < 500
            failures = 1 if _size(partial) > most else failures + 1
            most = max(most, _size(partial))
            if refused or failures >= TRIES:
                raise PrepareError(
                    f"{url}: {error}; {_size(partial):,} bytes of it are kept: give the same "
                    "command again to go on, or name another server with --url-base"
                ) from error
            time.sleep(WAIT * 2 ** (failures - 1))


def _is_of_the_disk(error: Exception) -> bool:
    """Whether no new try and no other server would help."""
    if isinstance(error, URLError) or not isinstance(error, OSError):
        return False
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)


def _receive(url: str, partial: Path) -> None:
    """One request for what is missing. Raises OSError where the connection ends early."""
    start = _size(partial)
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and start:  # nothing is missing, or it is another file: see md5
            return
        raise
    with response:
        if response.status != 206:  # the server sends all of it
            start = 0
        length = response.headers["Content-Length"]
        total = None if length is None else start + int(length)
        # Unpacked beside it, the archive takes as much again: images hardly compress.
        _require_space(partial.parent, int(length or 0) + (total or 0))
        bar = tqdm(
            desc=partial.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None
        )
        with bar, open(partial, "ab" if start else "wb") as f:
            while chunk := response.read(CHUNK):
                f.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(partial) < total:
        raise OSError(f"the connection ended after {_size(partial):,} of {total:,} bytes")


def unpack(archive: Path, folder: Path) -> None:
    """
    Unpack a tar or zip file, progress shown.

    Raises:
        PrepareError: it is torn, or has a member that would land outside of ``folder``, a link out
            of it, or a device.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        else:
            _unpack_tar(archive, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise PrepareError(f"{archive} cannot be unpacked: {error}") from error


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        _require_space(folder.parent, sum(m.file_size for m in members))
        for member in tqdm(members, desc=f"Unpacking {archive.name}", disable=None):
            path = PurePosixPath(member.filename.replace("\\", "/"))
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            if path.is_absolute() or ".." in path.parts or is_link:
                raise zipfile.BadZipFile(f"{member.filename!r} leads outside or is a link")
            file.extract(member, folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise PrepareError(
            "this Python cannot unpack tar files safely: use 3.10.12, 3.11.4, 3.12 or newer"
        )
    with tarfile.open(archive) as file:
        members = file.getmembers()
        _require_space(folder.parent, sum(m.size for m in members))
        for member in tqdm(members, desc=f"Unpacking {archive.name}", disable=None):
            # The data sets have none, and the filter of older Pythons lets some lead outside.
            if not member.isfile() and not member.isdir():
                raise tarfile.TarError(f"{member.name!r} is a link or a device")
            file.extract(member, folder, filter="data")


def _require_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise PrepareError(
            f"{folder} has {free / 1e9:.1f} GB free, {num_bytes / 1e9:.1f} GB are needed: make "
            "room, or choose another --root"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    bar = tqdm(
        desc=f"Checking {path.name}", total=_size(path), unit="B", unit_scale=True, disable=None
    )
    with bar, open(path, "rb") as f:
        while chunk := f.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
