"""The words that the command lines have in common: one for each thing, in every tool."""

import argparse
import os

from .errors import ConfigError


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The text as it is written, and the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, False, "") or action.default == []:
            return action.help or ""
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """
    A command's parser: its help begins with the script's own text, one sentence and examples.
    Options may stand between, before or behind what is named by its place.
    """

    def __init__(self, doc: str | None = None, **kwargs) -> None:
        """
        Args:
            doc: of the script. kwargs: see ArgumentParser.
        """
        description = {"description": doc.strip()} if doc else {}
        super().__init__(**description, **kwargs, formatter_class=_Formatter)

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        if self._subparsers:
            return super().parse_args(args, namespace)
        return self.parse_intermixed_args(args, namespace)


class _Pairs(argparse.Action):
    """Takes changes of a config; a tool may add its own behind them."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from .typed import pairs_of  # which waits for PyTorch

        try:
            pairs_of(values)
        except ConfigError as error:
            parser.error(f"{option_string}: {error}")
        setattr(namespace, self.dest, values)


def add_opts(parser: argparse.ArgumentParser) -> None:
    """The pairs that change a config; they stand last."""
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        action=_Pairs,
        default=[],
        metavar="KEY VALUE",
        help="changes of the config, to the end of the line",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """What names a trained model: RUN in the first place, or a config and weights."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="trained model: the output folder of a training, or a checkpoint in it",
    )
    parser.add_argument("--config-file", metavar="FILE", help="with --weights, in the place of RUN")
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint (.pth)")
    add_opts(parser)


def check_model(
    parser: argparse.ArgumentParser, args: argparse.Namespace, behind: str = ""
) -> None:
    """
    Leave with usage unless the arguments tell one model.

    Args:
        behind: the list of arguments that stand behind RUN, if there is one.
    """
    named = bool(args.config_file or args.weights)
    both = bool(args.config_file and args.weights)
    if named and args.run and behind and (both or not _is_run(args.run)):  # the first of them
        getattr(args, behind).insert(0, args.run)
        args.run = None
    if args.run and named:
        parser.error("give RUN, or --config-file and --weights, not both")
    if not args.run and not both:
        for name in filter(_is_run, getattr(args, behind, ())):
            parser.error(f"{name} is a model: name {behind} behind it")
        parser.error("which model? Give RUN, or --config-file FILE and --weights FILE")


def _is_run(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "config.yaml"))


def at_least_one(text: str) -> int:
    """A number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value
