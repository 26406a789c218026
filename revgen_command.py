"""The entry point of the command ``revgen``. Ctrl-C ends it without a traceback, from the first import to the end."""

import sys


def run() -> int:
    """Run the command and return its exit status."""
    sys.excepthook = _show_exception  # before anything else is imported
    sys.unraisablehook = _interrupt_again
    import signal

    is_interactive = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background of a shell
    if is_interactive:
        signal.signal(signal.SIGINT, _interrupt)
    from revgen.cli import main

    try:
        return main()
    finally:
        if is_interactive:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the end of the interpreter would print a traceback


def _interrupt(number: int, frame: object) -> None:
    """Raise KeyboardInterrupt, or end the process if a module is being imported, which would fail with other errors."""
    import os
    import signal

    while frame is not None:
        if getattr(frame, "f_code", run.__code__).co_filename == "<frozen importlib._bootstrap>":
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        frame = getattr(frame, "f_back", None)
    raise KeyboardInterrupt


def _show_exception(kind: type[BaseException], error: BaseException, traceback: object) -> None:
    """Print an exception as usual, but nothing for Ctrl-C."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)  # type: ignore[arg-type]


def _interrupt_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Repeat a Ctrl-C that Python ignored because it arrived in a destructor or a callback; print other exceptions."""
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    import os
    import signal
    import threading

    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()  # after the destructor
