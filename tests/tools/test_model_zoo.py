import pytest

from tests.conftest import REPOSITORY, load_script

zoo = load_script("tools/model_zoo.py")


def test_a_row_is_the_pages():
    row = zoo.zoo_row(REPOSITORY / "configs" / "PascalVOC-Detection" / "fssd_R_18.yaml")
    link, size, parameters, giga, anchors, *paper, ours = row
    assert "fssd_R_18" in link and size == "320x320" and anchors == 12750
    assert parameters == pytest.approx(16.28, rel=0.01) and giga > 1
    assert paper == [50.3, 51.8, 51.0, 52.1] and ours is None
    (line,) = (line for line in zoo.PAGE.read_text().splitlines() if link in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    numbers = [f"{parameters:.2f}", f"{giga:.1f}", str(anchors)]
    assert cells == [link, size, *numbers, *map(str, paper), ""]
    assert zoo.paper_ap("configs/COCO-Detection/fssd_R_18.yaml") == [26.1, None, None, 27.0]
    assert zoo.paper_ap("configs/COCO-Detection/fcos_R_18.yaml") == [None] * 4


def test_maps_that_strides_do_not_divide_are_rounded_up():
    cfg, model = zoo.build(REPOSITORY / "configs" / "PascalVOC-Detection" / "fcos_R_50_FPN.yaml")
    # Of 100x152, 50x76, 25x38, 13x19 and 7x10, as Detectron2's convolutions make them.
    points = 15200 + 3800 + 950 + 247 + 70
    assert zoo.num_candidates(model, *zoo.input_size(cfg)) == points


def test_objects_to_time_with_are_of_the_detectors_classes():
    assert zoo.objects(64, 64, num_classes=2, count=50).gt_classes.unique().tolist() == [0, 1]


@pytest.mark.parametrize("option", ["--time", "--repeats"])
def test_no_images_and_no_steps_are_refused(option, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "write_text", pytest.fail)
    with pytest.raises(SystemExit):
        zoo.main([option, "0"])
    assert f"{option}: must be 1 or more" in capsys.readouterr().err


def test_the_page_lists_every_config():
    page = zoo.PAGE.read_text()
    for folder in zoo.FOLDERS:
        for path in (REPOSITORY / "configs" / folder).glob("*.yaml"):
            assert f"configs/{folder}/{path.name}" in page
