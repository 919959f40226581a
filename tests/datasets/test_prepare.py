"""The downloads of data sets, from a server of our own that tears them."""

import hashlib
import importlib
import io
import json
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from torchvision.datasets.voc import DATASET_YEAR_DICT

from tests.conftest import REPOSITORY

CONTENT = bytes(range(256)) * 64  # 16 KiB


@pytest.fixture(scope="module")
def scripts():
    """The modules in datasets/, which is a folder of scripts and not a package."""
    names = ("download", "prepare_voc", "prepare_coco", "prepare_bccd")
    sys.path.insert(0, str(REPOSITORY / "datasets"))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(REPOSITORY / "datasets"))
        for name in names:
            del sys.modules[name]


@pytest.fixture
def download(scripts, monkeypatch):
    monkeypatch.setattr(scripts["download"], "WAIT", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return scripts["download"]


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path; ``tears`` are the bytes after which the next answers end."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.tears, self.ranges, self.knows_ranges = {}, [], [], True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = int(asked[len("bytes=") : -1]) if asked and self.server.knows_ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = self.server.tears.pop(0) if self.server.tears else len(content)
        self.wfile.write(content[start : start + stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def fetch(download, server, tmp_path):
    """Fetches a.bin from the server, in which CONTENT is."""
    server.files["/a.bin"] = CONTENT

    def fetch(expected=CONTENT):
        return download.fetch(f"{server.url}/a.bin", tmp_path / "a.bin", md5(expected))

    return fetch


def test_torn_download_goes_on_where_it_stopped(fetch, server, tmp_path):
    server.tears = [5000, 7000]
    path = fetch()
    assert path.read_bytes() == CONTENT and [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert server.ranges == [None, "bytes=5000-", "bytes=12000-"]


def test_later_call_goes_on_with_what_is_there(download, fetch, server):
    server.tears = [5000, 0, 0, 0, 0]
    with pytest.raises(download.PrepareError, match=r"ended after 5,000 of 16,384 .* go on"):
        fetch()
    del server.ranges[:]
    assert fetch().read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000-"]


def test_whole_part_is_not_asked_for_again(fetch, server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)  # stopped before it was renamed
    assert fetch().read_bytes() == CONTENT
    del server.ranges[:]
    fetch()
    assert server.ranges == []


def test_server_without_ranges_sends_all_again(fetch, server):
    server.tears, server.knows_ranges = [5000], False
    assert fetch().read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_removed(download, fetch, tmp_path):
    with pytest.raises(download.PrepareError, match=f"{md5(CONTENT)} instead of {md5(b'')}"):
        fetch(expected=b"")
    assert list(tmp_path.iterdir()) == []


def test_refusal_and_silence_are_told(download, server, tmp_path):
    with pytest.raises(download.PrepareError, match="404"):
        download.fetch(f"{server.url}/none.bin", tmp_path / "none.bin", "")
    assert len(server.ranges) == 1  # not tried again
    with pytest.raises(download.PrepareError, match="refused"):
        download.fetch("http://127.0.0.1:9/a.bin", tmp_path / "a.bin", "")


def test_full_disk_is_told_before_the_download(download, fetch, tmp_path, monkeypatch):
    # Of the archive, but not of what is in it.
    usage = download.shutil.disk_usage(tmp_path)._replace(free=len(CONTENT) + 10)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(download.PrepareError, match=r"0\.0 GB free"):
        fetch()


def tar_of(members):
    """(name, content), or a ready TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = name
            if isinstance(name, str):
                info = tarfile.TarInfo(name)
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def damaged(content):
    """With what follows the header of the first member, of 35 bytes, flipped."""
    return content[:35] + bytes(b ^ 255 for b in content[35:75]) + content[75:]


def tar_link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def zip_link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    "content",
    [
        tar_of([("../out.txt", b"x")]),
        tar_of([("a/../../out.txt", b"x")]),
        tar_of([(tar_link("link", "../"), b""), ("link/out.txt", b"x")]),
        tar_of([(tar_link("link", "/etc"), b"")]),
        tar_of([("a.txt", b"x"), (tar_link("link", "a.txt"), b"")]),
        zip_of([("../out.txt", b"x")]),
        zip_of([("/out.txt", b"x")]),
        zip_of([("a\\..\\..\\out.txt", b"x")]),
        zip_of([(zip_link("link"), b"/etc")]),
        tar_of([("a.txt", CONTENT)])[:4000],
        zip_of([("a.txt", CONTENT)])[:4000],
        damaged(zip_of([("a.txt", CONTENT)], zipfile.ZIP_DEFLATED)),
        b"<html>log in first</html>",
    ],
    ids=[
        "tar-parent", "tar-inner-parent", "tar-link-parent", "tar-link-absolute",
        "tar-link-inside", "zip-parent", "zip-absolute",
        "zip-backslash", "zip-link", "tar-torn", "zip-torn", "zip-damaged", "no-archive",
    ],
)  # fmt: skip
def test_bad_archives_are_refused(download, tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(download.PrepareError, match="cannot be unpacked"):
        download.unpack(tmp_path / "archive", tmp_path / "folder")
    assert not (tmp_path / "out.txt").exists()


def serve(server, part, contents):
    """Serve archives in the place of the part's, and return the part with their sums."""
    archives = []
    for archive, content in zip(part.archives, contents, strict=True):
        server.files[f"/{archive.url}"] = content
        archives.append(archive._replace(md5=archive.md5 and md5(content)))
    return part._replace(archives=tuple(archives))


def voc_files(split, ids):
    files = [(f"VOCdevkit/VOC2007/ImageSets/Main/{split}.txt", "\n".join(ids).encode())]
    for i in ids:
        files.append((f"VOCdevkit/VOC2007/JPEGImages/{i}.jpg", b"image"))
        files.append((f"VOCdevkit/VOC2007/Annotations/{i}.xml", b"<annotation/>"))
    return files


def test_voc_is_laid_out_and_counted(scripts, download, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DETECTRON2_DATASETS", "~")  # as Detectron2 takes it
    archives = [tar_of(voc_files("trainval", ["1", "2"])), tar_of(voc_files("test", ["3"]))]
    part = serve(server, scripts["prepare_voc"].PARTS[0], archives)
    part = part._replace(expected={"images": 3, "annotations": 3, "trainval": 2, "test": 1})
    arguments = ["--url-base", f"{server.url}/"]
    download.main("", "http://unused", [part], arguments)
    assert "VOC2007: made, 3 images, 3 annotations" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["VOC2007"]
    assert len(list((tmp_path / "VOC2007" / "JPEGImages").iterdir())) == 3

    del server.ranges[:]
    download.main("", "http://unused", [part], arguments)
    assert "already there" in capsys.readouterr().out and server.ranges == []
    (tmp_path / "VOC2007" / "JPEGImages" / "2.jpg").unlink()
    with pytest.raises(SystemExit, match=r"error: .*VOC2007 has 2 images instead of 3: move it"):
        download.main("", "http://unused", [part], arguments)


def test_a_mirror_without_a_scheme_is_refused(download, capsys):
    with pytest.raises(SystemExit):
        download.main("", "http://unused", [], ["--url-base", "mirror.example"])
    assert "mirror.example is no URL: begin it with https://" in capsys.readouterr().err


def test_coco_is_laid_out_and_counted(scripts, server, download, tmp_path):
    listed = json.dumps({"images": [1, 2], "annotations": [1, 2, 3]}).encode()
    files = [(f"annotations/instances_{split}2017.json", listed) for split in ("train", "val")]
    annotations, val, train = scripts["prepare_coco"].PARTS
    annotations = serve(server, annotations, [zip_of(files)])
    annotations = annotations._replace(
        expected={"train images": 2, "train boxes": 3, "val images": 2, "val boxes": 3}
    )
    val = serve(server, val, [zip_of([("val2017/1.jpg", b""), ("val2017/2.jpg", b"")])])
    val = val._replace(expected={"images": 2})
    chosen = ["--parts", "coco/annotations", "coco/val2017"]
    arguments = ["--root", str(tmp_path), "--url-base", server.url, *chosen]
    download.main("", "http://unused", [annotations, val, train], arguments)
    assert sorted(p.name for p in (tmp_path / "coco").iterdir()) == ["annotations", "val2017"]


def bccd_files(ids, folder="BCCD_Dataset-master/BCCD", line_end="\n"):
    files = [(f"{folder}/../README.md", b"")]
    for split in ("train", "val", "trainval", "test"):
        files.append((f"{folder}/ImageSets/Main/{split}.txt", "\n".join(ids).encode()))
    for i in ids:
        xml = f"<annotation>{line_end}\t<filename>{i}.jpg</filename>{line_end}</annotation>"
        files.append((f"{folder}/Annotations/{i}.xml", xml.encode()))
        files.append((f"{folder}/JPEGImages/{i}.jpg", b"image"))
    return [(name.replace("BCCD/../", ""), content) for name, content in files]


@pytest.fixture
def bccd(scripts, server, tmp_path):
    """The part of two images, served, and the arguments that fetch it."""
    (part,) = scripts["prepare_bccd"].PARTS
    part = serve(server, part, [zip_of(bccd_files(["a", "b"]))])
    counts = dict.fromkeys(("images", "annotations", "train", "val", "trainval", "test"), 2)
    words = "".join(
        f"{i}.xml <annotation> <filename>{i}.jpg</filename> </annotation> " for i in "ab"
    )
    words += "train.txt a b val.txt a b trainval.txt a b test.txt a b "
    digest = hashlib.sha256(words.encode()).hexdigest()[:16]
    part = part._replace(expected={**counts, "digest": digest})
    return part, ["--root", str(tmp_path / "root"), "--url-base", server.url]


def test_bccd_is_laid_out_and_its_annotations_compared(download, bccd, server, tmp_path, capsys):
    part, arguments = bccd
    download.main("", "http://unused", [part], arguments)
    assert "BCCD: made, 2 images, 2 annotations, 2 train" in capsys.readouterr().out
    root = tmp_path / "root"
    assert [p.name for p in root.iterdir()] == ["BCCD"]
    assert sorted(p.name for p in (root / "BCCD").iterdir()) == [
        "Annotations", "ImageSets", "JPEGImages",
    ]  # fmt: skip
    windows = zip_of(bccd_files(["a", "b"], line_end="\r\n  "))
    server.files["/archive/refs/heads/master.zip"] = windows
    assert download.prepare(part, tmp_path / "other", server.url)


def test_bccd_of_other_annotations_is_refused(download, bccd, server, tmp_path):
    part, arguments = bccd
    server.files["/archive/refs/heads/master.zip"] = zip_of(bccd_files(["a", "c"]))
    with pytest.raises(SystemExit, match=r"has digest \w{16} instead of \w{16}: move"):
        download.main("", "http://unused", [part], arguments)
    assert not (tmp_path / "root" / "BCCD").exists()


def test_torn_archive_without_a_checksum_is_fetched_again(download, bccd, server, tmp_path):
    part, arguments = bccd
    path = "/archive/refs/heads/master.zip"
    whole, server.files[path] = server.files[path], server.files[path][:-30]
    with pytest.raises(SystemExit, match=r"\.BCCD\.zip cannot be unpacked"):
        download.main("", "http://unused", [part], arguments)
    server.files[path] = whole
    download.main("", "http://unused", [part], arguments)
    assert (tmp_path / "root" / "BCCD").is_dir()


def test_bccd_is_the_data_of_the_results(scripts, real_data):
    (part,) = scripts["prepare_bccd"].PARTS
    assert part.count(real_data / "BCCD") == part.expected


def test_folder_has_its_name_only_when_whole(scripts, server, download, tmp_path):
    part = serve(server, scripts["prepare_coco"].PARTS[1], [zip_of([("val2017/1.jpg", b"")])])
    with pytest.raises(download.PrepareError, match="1 images instead of 5,000"):
        download.prepare(part, tmp_path, server.url)
    assert not (tmp_path / "coco" / "val2017").exists()


@pytest.mark.parametrize("fails_at", ["rmtree", "unlink"])
def test_what_a_stop_after_the_rename_left_is_removed(
    scripts, server, download, tmp_path, monkeypatch, fails_at
):
    part = serve(server, scripts["prepare_coco"].PARTS[1], [zip_of([("val2017/1.jpg", b"")])])
    part = part._replace(expected={"images": 1})

    def stop(*args, **kwargs):
        if (tmp_path / "coco" / "val2017").exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        where = download.shutil if fails_at == "rmtree" else download.Path
        patch.setattr(where, fails_at, stop)
        download.prepare(part, tmp_path, server.url)
    assert len(list(tmp_path.rglob("*.zip"))) == (fails_at == "unlink")
    assert not download.prepare(part, tmp_path, server.url)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["1.jpg", "coco", "val2017"]


def test_a_link_that_leads_nowhere_is_told_before_the_download(scripts, server, download, tmp_path):
    part = serve(server, scripts["prepare_coco"].PARTS[1], [b""])
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "val2017").symlink_to(tmp_path / "unmounted")
    with pytest.raises(download.PrepareError, match="a link to .*unmounted, which is not there"):
        download.prepare(part, tmp_path, server.url)
    assert not server.ranges


def test_errors_of_the_disk_are_not_the_servers(fetch, server, tmp_path):
    (tmp_path / "a.bin.part").mkdir()  # cannot be written to, by root neither
    with pytest.raises(IsADirectoryError):
        fetch()
    assert len(server.ranges) == 1


def test_torn_annotations_are_told_as_such(scripts, tmp_path):
    (tmp_path / "instances_val2017.json").write_text('{"images": [')
    assert scripts["prepare_coco"].count_annotations(tmp_path)["val images"] == 0


def test_an_archive_that_was_not_downloaded_here_is_kept(scripts, server, download, tmp_path):
    part = serve(server, scripts["prepare_coco"].PARTS[1], [b""])._replace(expected={"images": 0})
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    (tmp_path / "val2017.zip").write_bytes(b"somebody's own")
    assert not download.prepare(part, tmp_path, server.url)
    assert (tmp_path / "val2017.zip").exists()


def test_checksums_of_voc_are_torchvisions(scripts):
    published = {tuple(d["url"].split("/")[-2:]): d["md5"] for d in DATASET_YEAR_DICT.values()}
    for part in scripts["prepare_voc"].PARTS:
        for archive in part.archives:
            assert published[tuple(archive.url.split("/"))] == archive.md5
