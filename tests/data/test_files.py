import pytest

from mutual_guidance.data.files import parse_number, read_text, walk_files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_content(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("é\nb", encoding=encoding)
    assert read_text(str(tmp_path / "a.txt")) == "é\nb"


@pytest.mark.parametrize("content", [b"\xff\xd8\x00", b"a\x00b", "é".encode("latin1")])
def test_what_is_no_text(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError):
        read_text(str(tmp_path / "a.txt"))


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    for folder in ("a/b", "c"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a/b/2", "a/1", "c/3", "a/._1"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "c").symlink_to(tmp_path / "c")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "twice").symlink_to(tmp_path / "c")
    (tmp_path / "a" / "z").symlink_to(tmp_path / "a" / "z")  # to itself
    found = [path[len(str(tmp_path)) :] for path in walk_files(str(tmp_path / "a"))]
    assert found == ["/a/1", "/a/b/2", "/a/c/3", "/a/twice/3", "/a/z"]


def test_files_are_told_from_folders_without_looking_at_each(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for name in ("a/1", "2"):
        (tmp_path / name).touch()
    monkeypatch.setattr("os.path.isdir", lambda path: pytest.fail(f"looks at {path}"))
    found = [path[len(str(tmp_path)) :] for path in walk_files(str(tmp_path))]
    assert found == ["/2", "/a/1"]


def test_numbers():
    assert parse_number(" 1e-3") == 0.001
    for text in ("1_0", "1,0", "", "0x1"):
        with pytest.raises(ValueError, match=f"'{text}', not a number"):
            parse_number(text)
