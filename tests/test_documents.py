import os
import time

import pytest
import yaml

from mutual_guidance.config import load_config
from mutual_guidance.documents import check_bases, read_yaml
from mutual_guidance.errors import ConfigError

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)
)
BOMBS = {
    "aliases": LAUGHS,
    "nest": "a: " + "[" * 50_000,
    "closed nest": "a: " + "[" * 3_000 + "]" * 3_000,
    "loop": "a: &a [*a]",
    "long": "a: [" + "x, " * 300_000 + "]",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_at_once(tmp_path, text):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(yaml.YAMLError):
        read_yaml(path)
    with pytest.raises(ConfigError, match=r"bomb\.yaml"):
        load_config(str(path), [])
    assert time.process_time() - start < 5


def test_what_is_no_bomb_is_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a [1, 2]\nb: *a\nc: {<<: {d: 3}}")
    assert read_yaml(path) == {"a": [1, 2], "b": [1, 2], "c": {"d": 3}}


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("SOLVER: {EPOCHS: 1}\nMODEL: {}\nSOLVER: {BASE_LR: 1}")
    with pytest.raises(ConfigError, match=r"SOLVER is there twice, once in .*a\.yaml, line 3"):
        load_config(str(path), [])
    path.write_text("a: &a {x: 1}\nb: {<<: *a, <<: {y: 2}, x: 3, 1: 4, '1': 5}")
    assert read_yaml(path)["b"] == {"x": 3, "y": 2, 1: 4, "1": 5}


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ValueError, match="is no file"):
        read_yaml(tmp_path / "pipe.yaml")


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("https://example.com/a.yaml", "is no file: download it"),
        ("s3://a.yaml", "is no file: download it"),
        ("a.yaml", "leads back to"),
        ("./../{folder}/a.yaml", "leads back to"),
        ("[3]", "is no file"),
    ],
)
def test_bases_are_files(tmp_path, base, reason):
    path = tmp_path / "a.yaml"
    path.write_text(f"_BASE_: {base.format(folder=tmp_path.name)}")
    with pytest.raises(ValueError, match=reason):
        check_bases(str(path))
    with pytest.raises(ConfigError, match=reason):
        load_config(str(path), [])
