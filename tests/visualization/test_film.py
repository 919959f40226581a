import json
import logging
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mutual_guidance.errors import OutputError
from mutual_guidance.visualization import Film, canvas
from mutual_guidance.visualization import film as film_module


def picture(color, size=(8, 6)):
    return Image.new("RGB", size, color)


def lines(film):
    return [json.loads(x) for x in (film.folder / "counts.jsonl").read_text().splitlines()]


def test_a_picture_and_its_line(tmp_path):
    film = Film(tmp_path / "film")
    film.add("cat", 19, picture("red"), {"ground_truths": 2})
    assert lines(film) == [
        {"iteration": 19, "image": "cat", "file": "cat/0000019.png", "counts": {"ground_truths": 2}}
    ]
    with Image.open(film.folder / "cat" / "0000019.png") as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)


def test_the_same_picture_again_takes_its_place(tmp_path):
    film = Film(tmp_path)
    film.add("cat", 19, picture("red"), {"static": 1})
    film.add("dog", 19, picture("red"), {"static": 2})
    film.add("cat", 19, picture("blue"), {"static": 3})
    assert [(r["image"], r["counts"]["static"]) for r in lines(film)] == [("dog", 2), ("cat", 3)]
    with Image.open(film.folder / "cat" / "0000019.png") as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)
    assert not list(film.folder.rglob("*.unfinished"))


def test_no_line_is_lost_where_two_draw_at_a_time(tmp_path):
    def draw(image_name):
        film = Film(tmp_path)
        for iteration in range(10):
            film.add(image_name, iteration, picture("red"), {})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(draw, "abcd"))
    assert len(lines(Film(tmp_path))) == 40


def test_forget_from(tmp_path):
    film = Film(tmp_path)
    film.forget_from(0)  # nothing there yet
    for iteration in (9, 19, 29):
        film.add("cat", iteration, picture("red"), {})
    film.forget_from(19)
    assert [r["iteration"] for r in lines(film)] == [9]


def test_torn_lines_are_left_out_with_a_warning(tmp_path, caplog):
    film = Film(tmp_path)
    film.add("cat", 9, picture("red"), {})
    with open(tmp_path / "counts.jsonl", "a") as f:
        f.write('{"iteration": 19, "ima\n[]\n')
    with caplog.at_level(logging.WARNING):
        film.add("cat", 29, picture("red"), {})
    assert [r["iteration"] for r in lines(film)] == [9, 29]
    assert "line 2" in caplog.text and "line 3" in caplog.text


def test_gif_has_a_frame_a_picture_by_iteration(tmp_path):
    film = Film(tmp_path)
    assert film.write_gif("cat") is None
    film.add("cat", 29, picture("blue"), {})
    assert film.write_gif("cat") is None  # one picture is no film
    film.add("cat", 9, picture("red"), {})
    film.add("cat", 19, picture("lime"), {})
    film.add("dog", 19, picture("white"), {})
    path = film.write_gif("cat")
    assert path == tmp_path / "cat" / "film.gif"
    with Image.open(path) as gif:
        frames = [f.convert("RGB").getpixel((3, 3)) for f in ImageSequence.Iterator(gif)]
    assert frames == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    (tmp_path / "cat" / "0000009.png").unlink()
    with Image.open(film.write_gif("cat")) as gif:
        assert gif.n_frames == 2


def test_gif_holds_few_pictures_at_once(tmp_path, monkeypatch):
    film, read, pictures, alive = Film(tmp_path), film_module._read, [], []
    for iteration in range(9):
        film.add("cat", iteration, picture("red"), {})

    def counted(path):
        image = read(path)
        pictures.append(weakref.ref(image))
        alive.append(sum(p() is not None for p in pictures))
        return image

    monkeypatch.setattr(film_module, "_read", counted)
    film.write_gif("cat")
    assert max(alive) <= 3


def test_gif_keeps_the_colours_of_small_marks(tmp_path):
    film = Film(tmp_path)
    pixels = np.random.randint(60, 200, (64, 64, 3), dtype=np.uint8)  # more than 256 colours
    pixels[10, 10:14] = canvas.MARKS
    for iteration in (9, 19):
        film.add("cat", iteration, Image.fromarray(pixels), {})
    with Image.open(film.write_gif("cat")) as gif:
        got = np.asarray(gif.convert("RGB"))[10, 10:14]
    assert got.tolist() == [list(color) for color in canvas.MARKS]


def test_gif_of_pictures_that_differ_in_size(tmp_path):
    film = Film(tmp_path)
    film.add("cat", 9, picture("red"), {})
    film.add("cat", 19, picture("red", (9, 6)), {})
    with pytest.raises(OutputError, match="differ in size"):
        film.write_gif("cat")
