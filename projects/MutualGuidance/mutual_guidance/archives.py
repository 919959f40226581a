"""What the file of a checkpoint tells without PyTorch: whether it is whole, and its iteration."""

import os
import zipfile

from .pickles import read_outline

_MAX_OUTLINE = 2**26  # bytes; that of a detector with its optimiser has some 2**17


def archive_fault(path: str) -> str | None:
    """Why a file is not a whole one of ``torch.save``, or None; reads all of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(m.file_size for m in archive.infolist()) > os.path.getsize(path):
                return "it would unpack to more than it is"
            damaged = archive.testzip()
    except Exception as error:  # torn archives fail in many ways
        return f"torn or unreadable ({type(error).__name__}: {error})"
    return f"damaged: {damaged} in it has another sum" if damaged else None


def iteration_inside(path: str) -> int | None:
    """The iteration that a training's checkpoint goes on from; None where it tells none."""
    try:
        with zipfile.ZipFile(path) as archive:
            (member,) = [m for m in archive.infolist() if m.filename.endswith("/data.pkl")]
            if member.file_size > _MAX_OUTLINE:
                return None
            iteration = read_outline(archive.read(member))["trainer"]["iteration"]
    except Exception:  # torn archives fail in many ways
        return None
    return iteration if type(iteration) is int and iteration >= 0 else None
