import pytest
from torch.utils.data import DataLoader, Dataset

from mutual_guidance import errors
from mutual_guidance.errors import (
    DatasetError,
    UserError,
    has_controls,
    printable,
    run_main,
    sentence,
)
from tests.runs import run_python


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DatasetError("a.jpg: torn; replace it")


@pytest.mark.parametrize("workers", [0, 1])
def test_sentence_of_an_error_in_a_worker(workers):
    with pytest.raises(DatasetError) as error:
        next(iter(DataLoader(Broken(), num_workers=workers)))
    assert sentence(error.value) == "a.jpg: torn; replace it"


def test_the_kinds_are_user_errors():
    kinds = [
        v
        for v in vars(errors).values()
        if isinstance(v, type) and v.__module__ == "mutual_guidance.errors"
    ]
    assert len(kinds) > 5 and all(issubclass(kind, UserError) for kind in kinds)


def test_a_main_returns_its_result():
    assert run_main(lambda a, b: a + b, 1, 2) == 3


def test_python_ends_without_a_last_look_for_garbage():
    """Which would take it a second."""
    told = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0))"
    main = "from mutual_guidance.errors import run_main; run_main(int)"
    assert run_python(f"{told}; {main}").stdout == "True\n"


def fail(error):
    raise error


def test_a_main_ends_with_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: a\.jpg: torn; replace it$"):
        run_main(fail, DatasetError("a.jpg: torn; replace it"))
    with pytest.raises(SystemExit, match="^error: .*/none.txt: No such file or directory$"):
        run_main((tmp_path / "none.txt").read_text)
    with pytest.raises(ValueError, match="a fault of the program"):
        run_main(fail, ValueError("a fault of the program"))


def test_ctrl_c_is_told_and_ends_with_the_code_of_a_shell(capsys):
    with pytest.raises(SystemExit) as end:
        run_main(fail, KeyboardInterrupt(), interrupted="Interrupted: go on")
    assert end.value.code == 130 and capsys.readouterr().err == "Interrupted: go on\n"


@pytest.mark.parametrize(
    "name",
    [
        "👩\u200d🚒",
        "می\u200cخواهم",
        "क्\u200dष",
        "子\u3000犬",
        "10\u00a0km",
        "e\u0301",
        "☎\ufe0f",
        "שלום",
    ],
)
def test_names_of_any_script_stay_as_they_are(name):
    assert printable(name) == name and not has_controls(name)


def test_names_cannot_steer_a_terminal(capsys):
    name = "caf\udce9\x1b[2Jé\r\u202e.jpg"
    assert printable(f"a b\tc\n{name}") == "a b\tc\ncaf\\udce9\\x1b[2Jé\\r\\u202e.jpg"
    with pytest.raises(SystemExit, match=r"^error: caf\\udce9\\x1b\[2Jé\\r\\u202e\.jpg$"):
        run_main(fail, DatasetError(name))
