"""Names of classes: what may be one, and which of those in a file a data set takes."""

import difflib
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..errors import DatasetError, has_controls
from .faults import IGNORED, STOPS, TOLD, Fault, repeated

NO_OBJECT = "class has no object"
# How alike a name that was meant must be to one that is there.
_LIKENESS = 0.75


def clean_names(names: object, where: str) -> list[str]:
    """
    Names as a config, YAML or JSON gives them: text without the spaces around it; whole numbers
    become text.

    Raises:
        DatasetError: no list, none, a name that is no text, or two that are alike.
    """
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, (list, tuple)):
        shown = reprlib.repr(names)
        raise DatasetError(f"{where}: expected a list of names, as in [cat, dog], not {shown}")
    cleaned = [_clean_name(name, where) for name in names]
    if not cleaned:
        raise DatasetError(f"{where}: it names no class")
    if repeated(cleaned):
        twice = ", ".join(map(repr, repeated(cleaned)))
        raise DatasetError(f"{where}: {twice} stands there twice; no two classes have one name")
    return cleaned


def _clean_name(name: object, where: str) -> str:
    if isinstance(name, str) and has_controls(name.strip()):
        raise DatasetError(f"{where}: the name {name!r} has control characters: remove them")
    if isinstance(name, str) and name.strip():
        return name.strip()
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    hint = ""
    if name is None or isinstance(name, bool):
        hint = ": YAML reads yes, no, on, off, true, false and null so; quote it, as in 'yes'"
    raise DatasetError(f"{where}: {reprlib.repr(name)} is not the name of a class{hint}")


def bare(name: str) -> str:
    """A name by which two may be mistaken: without capitals, spaces, and codes of one letter."""
    return unicodedata.normalize("NFC", "".join(name.split())).casefold()


def _quoted(*names: str) -> list[str]:
    """Quote names that are to be told apart, in escapes where they would look alike."""
    alike = len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
    return [ascii(name) if alike else repr(name) for name in names]


def confusable(names: Iterable[str], file: str) -> list[Fault]:
    """What to tell of names that differ only in capitals, spaces or the codes of a letter."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(bare(name), []).append(name)
    return [
        Fault(
            file,
            "names of classes differ only in capitals, spaces or the codes of a letter",
            ", ".join(_quoted(*group)),
            TOLD,
        )
        for group in groups.values()
        if len(group) > 1
    ]


class ClassPicker:
    """
    Indices of names. Where the data set's entry chooses ``classes``, objects of all others are
    left out and counted; where it does not, its file's names are the classes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self._indices = {name: i for i, name in enumerate(classes)}
        self._taken = Counter()
        self._left_out = Counter()

    def __call__(self, name: str) -> int | None:
        """The index of an object's class, None for one that is left out."""
        index = self._indices.get(name)
        if index is None:
            self._left_out[name] += 1
        else:
            self._taken[name] += 1
        return index

    def faults(self, file: str, all_names: Callable[[], Iterable[str]]) -> list[Fault]:
        """
        What to tell of classes without an object and objects left out.

        Args:
            file: where they stand. all_names: gives the names that there are at all.
        """
        faults = [
            Fault(
                file,
                "object of a class that `classes` leaves out",
                f"{count} of {name!r}",
                IGNORED,
                count,
            )
            for name, count in self._left_out.most_common()
        ]
        empty = [name for name in self.classes if not self._taken[name]]
        known = set(all_names()) if empty and self._left_out else set()
        for name in empty:
            others = set() if name in known else known - set(self.classes)
            faults.append(self._of_empty(file, name, others))
        near = {bare(name): name for name in self.classes}
        for name in self._left_out:
            if bare(name) in near:
                there, chosen = _quoted(name, near[bare(name)])
                reason = f"class {there}: `classes` has {chosen}; write it in one way"
                faults.append(Fault(file, reason))
        return faults

    def _of_empty(self, file: str, name: str, others: set[str]) -> Fault:
        meant = difflib.get_close_matches(name, sorted(others), n=1, cutoff=_LIKENESS)
        if meant:
            return Fault(file, f"no class {name!r}; did you mean {meant[0]!r}?", "", STOPS)
        return Fault(file, NO_OBJECT, repr(name), TOLD)
