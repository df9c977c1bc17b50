"""The command line: a flat table of verbs, each a module that is imported only when it is asked for."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from lprf.errors import LprfError, Terminated

# Exit codes, the same for every verb.
OK, SOME_FAILED, WRONG, UNEXPECTED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141

# The verb `some-verb` lives in cli/some_verb.py, with `add_arguments(parser)`, `run(args) -> int` and EXAMPLES.
VERBS: dict[str, dict[str, str]] = {
    "Reading and training": {
        "run": "run a recipe: read plates, train networks, measure",
        "bench": "time a recipe: each node, throughput, memory; alone or against another",
        "compare": "measure every combination of detectors, rectifiers and recognizers",
        "runs": "list training runs, their stages and what they scored",
        "export": "write a recipe's networks as ONNX, and prove that they read the same",
    },
    "Recipes": {
        "recipes": "list the recipes that are there by name",
        "copy": "copy a shipped recipe to a file of your own",
        "validate": "check a recipe and report every mistake at its line",
        "show": "print a recipe resolved, and where each value came from",
        "schema": "print the JSON Schema of recipes, for editors",
    },
    "What is installed": {
        "plugins": "list plugins, who distributes them, and what is wrong",
        "components": "list components, or one with its ports and parameters",
        "weights": "list, verify and import the weights of networks",
        "new-plugin": "write a plugin distribution of your own, tests included",
        "doctor": "is this machine ready: torch, GPU, OpenCV, weights, folders",
    },
}

HELP = """\
usage: lprf VERB [ARGUMENT ...]
       lprf VERB --help

Reads licence plates from photos and video, by recipe.
{verbs}

Examples:
  lprf run read-plates                            read the bundled samples with the bundled weights
  lprf run read-plates -s images.path=holiday/    read a folder of your own
  lprf copy read-plates my.yaml                   start a recipe of your own
  lprf validate my.yaml                           every mistake in it at once
  lprf components mtcnn.detector                  what a component can be told

Exit codes: 0 all well, 1 some inputs failed, 2 the recipe or the command is wrong, 3 an unexpected error,
130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and give its exit code; errors are printed, and raised only under `--debug`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    _wait_quietly()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as a daemon's may be
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that is not text must not end a run
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _main(arguments)
        sys.stdout.flush()
        return code
    except LprfError as error:
        if debug:
            raise
        print(_labelled(error), file=sys.stderr)
        return WRONG
    except KeyboardInterrupt as error:
        if debug:
            raise
        print("\ninterrupted; what was written is whole", file=sys.stderr)
        return 128 + error.args[0] if isinstance(error, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`lprf … | head`); what is left in the buffer must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except SystemExit as error:  # argparse
        return error.code if isinstance(error.code, int) else WRONG
    except OSError as error:  # a full disk, a name too long, a folder that may not be read
        if debug:
            raise
        print(f"lprf: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
        return WRONG
    except Exception as error:
        if debug:
            raise
        print(f"lprf: unexpected {type(error).__name__}: {error}", file=sys.stderr)
        print(f"{_save_trace()}; --debug shows it here", file=sys.stderr)
        return UNEXPECTED


def _wait_quietly() -> None:
    """Let torch's threads sleep soon where they wait for each other, before torch is there: by themselves they spin on,
    each on a core that another program may need before what they wait for can go on."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return OK
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"lprf {version('lprf')}")
        return OK
    name = arguments[0]
    summaries = {verb: summary for group in VERBS.values() for verb, summary in group.items()}
    if name not in summaries:
        from lprf.plugins import suggest

        print(f"lprf: there is no verb '{name}'{suggest(name, summaries)}", file=sys.stderr)
        print("`lprf --help` lists the verbs", file=sys.stderr)
        return WRONG
    module, parser = parser_of(name)
    code: int = module.run(parser.parse_args(arguments[1:]))
    return code


def parser_of(name: str) -> tuple[Any, argparse.ArgumentParser]:
    """The module of a verb, which is imported, and its parser."""
    module = importlib.import_module(f"lprf.cli.{name.replace('-', '_')}")
    summary = next(verbs[name] for verbs in VERBS.values() if name in verbs)
    parser = argparse.ArgumentParser(
        prog=f"lprf {name}",
        description=summary[0].upper() + summary[1:] + ".",
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the stack trace of an error")
    return module, parser


def help_text() -> str:
    """What `lprf --help` prints: the verbs in their groups, and examples."""
    lines = []
    for group, verbs in VERBS.items():
        lines += ["", f"{group}:", *(f"  {name:<12}{summary}" for name, summary in verbs.items())]
    return HELP.format(verbs="\n".join(lines))


def _labelled(error: LprfError) -> str:
    """The message as it is where it starts with a place (file:line:column), else said to be an error."""
    from lprf.errors import RecipeError, printable

    text = str(error) if isinstance(error, RecipeError) else f"lprf: {error}"
    return "\n".join(map(printable, text.split("\n")))  # names in it may be a stranger's


def _save_trace() -> str:
    import tempfile
    import traceback

    with (
        contextlib.suppress(OSError),
        tempfile.NamedTemporaryFile("w", prefix="lprf-", suffix=".log", delete=False) as f,
    ):
        f.write(f"lprf {' '.join(sys.argv[1:])}\n\n{traceback.format_exc()}")
        return f"the stack trace is in {f.name}"
    return "the stack trace could not be saved"
