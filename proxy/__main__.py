"""The command line: nginx's options, messages and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from proxy.process.options import OptionError, Options, read_options, version_text

if TYPE_CHECKING:
    from proxy.conf.inherit import Block


def main() -> int:
    """Exit code: 0, or 1 when the conf or the system says no."""
    try:
        options = read_options(sys.argv[1:])
    except OptionError as error:
        return fail(str(error))
    if options.is_version:
        say(version_text(options), end="")
        return 0
    if options.signal:
        return send_signal(options)
    if options.is_test:
        return test_conf(options)
    return start(options)


def say(text: str, end: str = "\n") -> None:
    sys.stderr.write(text + end)
    sys.stderr.flush()


def fail(text: str, level: str = "") -> int:
    say(f"headrace: [{level}] {text}" if level else f"headrace: {text}")
    return 1


def send_signal(options: Options) -> int:
    """-s: the pid file that the conf names leads to the master."""
    from proxy.conf.report import ConfError
    from proxy.process import pidfile
    from proxy.process.generation import pid_path_of, read_model

    try:
        pidfile.send(pid_path_of(read_model(options), options), options.signal)
    except ConfError as error:
        return fail(str(error), "emerg")
    except pidfile.PidFileError as error:
        return fail(str(error), error.level)
    return 0


def test_conf(options: Options) -> int:
    """-t and -T."""
    from proxy.conf.report import ConfError
    from proxy.process.generation import check_apart, read_model

    path = options.conf_path
    try:
        model = read_model(options)
    except ConfError as error:
        return refuse(options, [("emerg", str(error))])
    lines = check_apart(options, model)
    if any(level == "emerg" for level, _ in lines):
        return refuse(options, lines)
    if not options.is_quiet:
        for level, text in lines:
            say(f"headrace: [{level}] {text}")
        without_effect(model)
        say(f"headrace: the configuration file {path} syntax is ok")
    failed = try_files(model, options)
    if failed:
        return refuse(options, [("emerg", failed)])
    if not options.is_quiet:
        say(f"headrace: configuration file {path} test is successful")
    if options.is_dump:
        from proxy.conf.dump import dump

        sys.stdout.flush()
        sys.stdout.buffer.write(dump(model).encode("utf-8", "surrogateescape"))
    return 0


def without_effect(model: Block) -> None:
    """What was accepted and means nothing here, with the reason."""
    from proxy.conf.report import without_effect as lines_of

    for line in lines_of(model):
        say(f"headrace: {line}")


def try_files(model: Block, options: Options) -> str:
    """Could the pid file be written? The complaint, or nothing."""
    from proxy.process import pidfile
    from proxy.process.generation import make_log_directory, pid_path_of

    make_log_directory(options)
    try:
        pidfile.try_to_write(pid_path_of(model, options))
    except pidfile.PidFileError as error:
        return str(error)
    return ""


def refuse(options: Options, lines: list[tuple[str, str]]) -> int:
    for level, text in lines:
        say(f"headrace: [{level}] {text}")
    say(f"headrace: configuration file {options.conf_path} test failed")
    return 1


def start(options: Options) -> int:
    """Read, open, go to the background where the conf says so, and serve."""
    from proxy.conf.report import ConfError
    from proxy.process.generation import Refused
    from proxy.process.master import Master, run_alone
    from proxy.process.sockets import BindError

    master = Master(options)
    try:
        master.prepare()
    except ConfError as error:
        log_emergency(options, str(error))
        return fail(str(error), "emerg")
    except Refused as refused:
        for level, text in refused.lines:
            say(f"headrace: [{level}] {text}")
        return 1
    except BindError:
        return 1  # each failed try was told
    model = master.generation.model
    if not model.get("master_process"):
        return run_alone(options, master.generation, master.sockets)
    if model.get("daemon") and not master.is_successor:
        return in_background(master.run)
    return master.run(lambda _is_started: None)


def log_emergency(options: Options, text: str) -> None:
    """A conf that cannot be read names no log: the one of -e, or the default, hears it."""
    from proxy.observe.error_log import EMERG, ERROR, ErrorLog

    if options.error_log:
        with contextlib.suppress(OSError):
            log = ErrorLog([(options.error_log, ERROR)])
            log.write(EMERG, text)
            log.close()


def in_background(run) -> int:  # type: ignore[no-untyped-def]
    """daemon on: this process ends when the daemon serves, or with its failure."""
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        answer = os.read(told, 1)
        return 0 if answer == b"k" else 1
    os.close(told)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)

    def on_started(is_started: bool) -> None:
        os.write(tell, b"k" if is_started else b"n")
        os.close(tell)
        os.dup2(null, 1)
        os.dup2(null, 2)

    return run(on_started)  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
