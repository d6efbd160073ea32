"""The command line: one file a command, each a dataclass whose fields are the flags and whose ``run`` does the work.

::

    clipfold convert SRC --out DIR      argv[1] -> the table below -> clipfold/cli/convert.py: Convert(...).run()

Exit codes: 0 done, 1 the work failed, 2 wrong use, 130 interrupted. Errors are one readable message; ``--debug``
anywhere on the line shows the traceback as well.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module

from clipfold.errors import ClipfoldError, PluginError

__all__ = ["main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "convert": ("clipfold.cli.convert:Convert", "turn videos and image folders into shards of clips"),
    "status": ("clipfold.cli.status:Status", "how far a conversion is, also while it runs"),
    "codecs": ("clipfold.cli.codecs:Codecs", "try every codec on a sample of your own clips"),
    "repack": ("clipfold.cli.repack:Repack", "another codec, shard size or split; several corpora to one; a subset"),
    "verify": ("clipfold.cli.verify:Verify", "check every checksum and every sample of a corpus"),
    "preview": ("clipfold.cli.preview:Preview", "draw a few clips of each class: picture, animation or page"),
    "doctor": ("clipfold.cli.doctor:Doctor", "look at videos and image folders before converting them"),
    "train": ("clipfold.cli.train:Train", "train a clip classifier on a corpus"),
    "evaluate": ("clipfold.cli.evaluate:Evaluate", "evaluate a trained run on a split of a corpus"),
    "demo": ("clipfold.cli.demo:Demo", "make a small corpus, convert it, train and evaluate: the whole road"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``clipfold``; those of the process where ``None``.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"clipfold {version('clipfold')}")
        return 0
    if words[0] not in COMMANDS:
        close = get_close_matches(words[0], COMMANDS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        print(f"clipfold: unknown command {words[0]!r}.{hint}\n\n{_help()}", file=sys.stderr)
        return 2
    try:
        with _interruptible():
            return _run(words[0], words[1:])
    except SystemExit as stop:  # --help, or flags that cannot be parsed: tyro has said why
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; nothing more can be said
        return 1
    except Exception as error:
        if debug:
            raise
        return _report(error)


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C. A class of its own: where exactly a ``KeyboardInterrupt`` passes through code that is compiled from a
    text (each dataclass has some, while it is imported), CPython takes note, and ``python -m`` then dies of the signal
    although the exception was caught: no exit code of ours would count.
    """


@contextmanager
def _interruptible() -> Iterator[None]:
    """While the block runs, Ctrl-C raises :class:`_Interrupted`; what somebody else wants of it is left alone."""

    def interrupt(number: int, frame: object) -> None:
        raise _Interrupted

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(command: str, words: Sequence[str]) -> int:
    import tyro

    module, _, name = COMMANDS[command][0].partition(":")
    member = getattr(import_module(module), name)
    prog = f"clipfold {command}"
    parsed = member.parse(words, prog) if hasattr(member, "parse") else tyro.cli(member, args=words, prog=prog)
    return int(parsed.run())


def _report(error: Exception) -> int:
    """One message on the standard error, and the exit code that goes with it."""
    if isinstance(error, ClipfoldError):
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2 if isinstance(error, PluginError) else 1
    if isinstance(error, OSError):
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if isinstance(error, (ValueError, TypeError)):
        print(f"{error}\n  (--debug shows where this was raised)", file=sys.stderr)
        return 2
    print(f"{type(error).__name__}: {error}\n  (this is a bug: --debug shows where)", file=sys.stderr)
    return 1


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: clipfold COMMAND [flags]\n\n"
        "Turns videos and image sequences into clips, streams them to the GPU as bytes, and trains on them.\n\n"
        f"{rows}\n\n"
        "`clipfold COMMAND --help` lists the flags of a command; `--debug` shows tracebacks; `--version` the version."
    )
