"""What the file of a checkpoint tells without PyTorch: whether it is whole."""

import os
import zipfile


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
