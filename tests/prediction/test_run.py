import numpy as np
import pytest
import torch

from mutual_guidance.prediction import Writer, predict_all
from mutual_guidance.prediction.run import read_ahead
from mutual_guidance.visualization.predictions import MAX_SIDE
from tests.conftest import predicted


class Predictor:
    """Finds in every image boxes with the scores 0.1, 0.2, ... 0.9."""

    def preprocess(self, image):
        return {"height": image.shape[0], "width": image.shape[1]}

    def predict(self, inputs):
        scores = torch.arange(9, 0, -1) / 10
        found = torch.zeros(9, 4), scores, [0] * 9
        return [predicted(*found, (x["height"], x["width"])) for x in inputs]


class Recorder(Writer):
    needs_pixels = True

    def __init__(self):
        self.names, self.counts, self.shapes, self.ended = [], [], [], False

    def add(self, name, instances, pixels):
        self.names.append(name)
        self.counts.append(len(instances))
        self.shapes.append(pixels.shape)

    def __exit__(self, *error):
        self.ended = True


def frames(count, shape=(4, 6, 3)):
    return ((str(i), np.zeros(shape, np.uint8)) for i in range(count))


def test_every_image_in_order_with_the_scores_asked_for():
    recorder = Recorder()
    summary = predict_all(Predictor(), frames(7), [recorder], min_score=0.3, batch_size=3)
    assert recorder.names == list("0123456") and recorder.ended
    assert recorder.counts == [7] * 7  # 0.3 to 0.9
    assert (summary.images, summary.boxes, summary.faults) == (7, 49, {})
    assert summary.best_score == pytest.approx(0.9)
    assert 0 < summary.model_seconds <= summary.seconds


def test_what_cannot_be_read_is_left_out_and_told(tmp_path):
    (tmp_path / "torn.jpg").write_text("no image")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    paths = [(name, str(tmp_path / name)) for name in ("torn.jpg", "gone.jpg")]
    recorder = Recorder()
    summary = predict_all(Predictor(), [*paths, *frames(1)], [recorder], 0, 8)
    assert recorder.names == ["0"] and list(summary.faults) == ["torn.jpg", "gone.jpg"]
    assert summary.faults["torn.jpg"].startswith("image cannot be read")
    reason = "image is missing: it is there as a link that leads nowhere"
    assert summary.faults["gone.jpg"] == reason


def test_what_nothing_is_left_of_is_left_out_and_told():
    class Narrow(Predictor):
        def preprocess(self, image):
            if image.shape[0] == 1:
                raise ValueError("height and width must be > 0")
            return super().preprocess(image)

    line = ("line", np.zeros((1, 3000, 3), np.uint8))
    summary = predict_all(Narrow(), [line, *frames(1)], [Recorder()], 0, 8)
    assert summary.images == 1 and summary.faults == {"line": "height and width must be > 0"}


def test_an_interruption_ends_the_writers():
    class Interrupted(Predictor):
        def predict(self, inputs):
            raise KeyboardInterrupt

    recorder = Recorder()
    summary = predict_all(Interrupted(), frames(7), [recorder], 0, 3)
    assert summary.interrupted and recorder.ended and recorder.names == []


def test_an_error_ends_the_writers():
    class Full(Recorder):
        def add(self, name, instances, pixels):
            raise OSError("no space left on device")

    full, recorder = Full(), Recorder()
    with pytest.raises(OSError, match="no space"):
        predict_all(Predictor(), frames(7), [recorder, full], 0, 3)
    assert full.ended and recorder.ended


def test_reads_no_more_than_a_batch_ahead():
    asked = []

    def source():
        for i in range(100):
            asked.append(i)
            yield i

    items = read_ahead(source(), lambda x: x, batch_size=4)
    for taken in range(20):
        assert next(items) == taken
        assert len(asked) <= taken + 1 + 4
    items.close()


def test_pixels_of_a_large_image_are_not_kept():
    recorder = Recorder()
    predict_all(Predictor(), frames(1, (3, 3 * MAX_SIDE, 3)), [recorder], 0, 1)
    assert recorder.shapes == [(1, MAX_SIDE, 3)]
