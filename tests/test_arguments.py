import pytest

from mutual_guidance.arguments import Parser, add_model, add_opts, at_least_one, check_model


def parse(*argv):
    parser = Parser("Do it.\n\n    python tools/do.py RUN a.jpg")
    add_model(parser)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--batch-size", type=at_least_one, default=8, help="images at once")
    args = parser.parse_args(argv)
    check_model(parser, args, "inputs")
    return args


@pytest.mark.parametrize(
    "argv",
    [
        ("run", "a", "b", "--batch-size", "2", "--opts", "A.B", "-1"),
        ("run", "--batch-size", "2", "a", "b", "--opts", "A.B", "-1"),
        ("--batch-size", "2", "run", "a", "b", "--opts", "A.B", "-1"),
    ],
)
def test_options_stand_anywhere_before_the_pairs(argv):
    args = parse(*argv)
    assert (args.run, args.inputs, args.batch_size) == ("run", ["a", "b"], 2)
    assert args.opts == ["A.B", "-1"]


def test_a_key_without_a_value_is_told(capsys):
    parser = Parser()
    add_opts(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--opts", "A.B", "1", "C.D"])
    assert "--opts: C.D is followed by no value" in capsys.readouterr().err


@pytest.mark.parametrize("inputs", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_config_and_weights_stand_for_a_run(inputs):
    args = parse("--config-file", "c.yaml", *inputs, "--weights", "w.pth")
    assert (args.run, args.config_file, args.weights) == (None, "c.yaml", "w.pth")
    assert args.inputs == inputs


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("a",), "which model?"),
        (("--config-file", "c.yaml", "a"), "which model?"),
        (("run", "a", "--batch-size", "0"), "must be 1 or more, got 0"),
    ],
)
def test_what_is_missing_is_told(argv, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(*argv)
    assert message in capsys.readouterr().err


def test_a_model_without_inputs_is_told(tmp_path, capsys):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(SystemExit, match="2"):
        parse(str(tmp_path))
    assert f"{tmp_path} is a model: name inputs behind it" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        parse(str(tmp_path), "a.jpg", "--weights", "w.pth")
    assert "not both" in capsys.readouterr().err


def test_help_has_the_example_and_the_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    told = capsys.readouterr().out
    assert "Do it.\n\n    python tools/do.py RUN a.jpg\n" in told
    assert "images at once (default: 8)" in told and "None" not in told
