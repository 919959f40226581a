"""YAML and JSON of strangers: of files only, and refused where a few bytes of it mean very many."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

_MAX_BYTES = 2**19  # a second or two of PyYAML's; the longest of the project's has 2**14
_MAX_VALUES = 100_000
_MERGE = "tag:yaml.org,2002:merge"


class BoundedLoader(yaml.SafeLoader):
    """
    PyYAML's safe one, without aliases that multiply, nests without end and loops, and without keys
    that stand twice, of which PyYAML would drop the first without a word.
    """

    def get_single_node(self) -> yaml.Node | None:
        try:
            node = super().get_single_node()
            values = _num_values(node, {})
        except RecursionError as error:
            raise yaml.YAMLError("it is nested too deeply") from error
        if values > _MAX_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MAX_VALUES} values")
        return node


def _num_values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """With those that aliases repeat; a node that holds itself has no end, so very many."""
    if id(node) not in known:
        known[id(node)] = _MAX_VALUES + 1  # until it is counted
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated(key for key, _ in children)
            children = (child for pair in children for child in pair)
        known[id(node)] = 1 + sum(_num_values(child, known) for child in children)
    return known[id(node)]


def _refuse_repeated(keys: Iterable[yaml.Node]) -> None:
    found = set()
    for key in keys:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        if (key.tag, key.value) in found:
            mark = key.start_mark
            file = "" if mark.name.startswith("<") else f"{mark.name}, "  # <unicode string>
            where = f"{file}line {mark.line + 1}"
            raise yaml.YAMLError(f"{key.value} is there twice, once in {where}: remove one")
        found.add((key.tag, key.value))


def is_no_file(path: str | os.PathLike) -> bool:
    """Whether there is a folder, or a pipe or device, which would be waited for."""
    return os.path.exists(path) and not os.path.isfile(path)


def read_yaml(path: str | os.PathLike) -> Any:
    """
    The plain values of a file.

    Raises:
        OSError: it is missing. ValueError: it is no file, or no text.
        yaml.YAMLError: it is no YAML of plain values, has a key twice, or means too much.
    """
    if is_no_file(path):
        raise ValueError(f"{os.fspath(path)} is no file")
    if os.path.getsize(path) > _MAX_BYTES:
        raise yaml.YAMLError(f"it has more than {_MAX_BYTES >> 10} KiB")
    with open(path, encoding="utf-8") as f:
        return yaml.load(f, BoundedLoader)


def check_bases(path: str, derived: tuple[str, ...] = ()) -> None:
    """
    Check a config and those that its ``_BASE_`` names, which must be files.

    Raises:
        ValueError: a base is no file, or leads back to one that it is a base of.
        OSError, ValueError, yaml.YAMLError: as of :func:`read_yaml`.
    """
    if path in derived:
        raise ValueError(f"_BASE_ of {derived[-1]} leads back to {path}")
    if derived and not os.path.isfile(path):
        from .typed import nearest_path  # which waits for PyTorch

        raise ValueError(f"_BASE_ of {derived[-1]}: there is no file {path}{nearest_path(path)}")
    for below in _bases(path, read_yaml(path)):
        check_bases(below, (*derived, path))


def _bases(path: str, content: Any) -> list[str]:
    bases = content.get("_BASE_", []) if isinstance(content, dict) else []
    below = []
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or "://" in base:
            raise ValueError(f"_BASE_ {base} of {path} is no file: download it, and name that")
        name = os.path.join(os.path.dirname(path), os.path.expanduser(base))
        below.append(os.path.normpath(name))
    return below


def nearest_key(path: str, node: str, keys: Sequence[str]) -> str | None:
    """
    The first of some keys of a node that a checked config has, or else the base that wins over its
    others; None where none has any.
    """
    content = read_yaml(path)
    own = content.get(node) if isinstance(content, dict) else None
    found = [key for key in keys if isinstance(own, dict) and key in own]
    if found:
        return found[0]
    of_bases = (nearest_key(base, node, keys) for base in reversed(_bases(path, content)))
    return next(filter(None, of_bases), None)
