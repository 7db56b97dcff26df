"""The command line: from words to a running master, or to an answer (-t, -T, -v, -V, -h, -s)."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from proxy import VERSION
from proxy.process.options import OptionError, Options, read_options, version_text

if TYPE_CHECKING:
    from proxy.observe.error_log import ErrorLog

SAID_ON_STDERR = ("emerg", "alert", "crit", "error", "warn")
# what the master obeys and what would end it before it can; TERM and INT may
HELD_SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


def main() -> int:
    """Exit status: 0, or 1 for whatever was refused."""
    if sys.argv[1:2] == ["fn"]:
        from proxy.functions.command import main as run

        return run(sys.argv[2:])
    if sys.argv[1:2] == ["queue"]:
        from proxy.functions.queue.command import main as run_queue

        return run_queue(sys.argv[2:])
    try:
        options = read_options(sys.argv[1:])
    except OptionError as error:
        tell(str(error))
        return 1
    if options.is_version:
        sys.stderr.write(version_text(options))
        if not options.is_test:
            return 0
    return Start(options).run()


def tell(line: str) -> None:
    """A line for whoever started us."""
    data = f"headrace: {line}\n".encode("utf-8", "surrogateescape")
    os.write(2, data)


class Start:
    """One start, test or signal."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.log = open_first_log(options)

    def say(self, level: str, line: str) -> None:
        """Into the first log, and for the worse levels to stderr too."""
        from proxy.process.generation import level_of

        self.log.write(level_of(level), line)
        if level in SAID_ON_STDERR and self.log.fd != 2:
            tell(f"[{level}] {line}")

    def run(self) -> int:
        from proxy.conf.report import ConfError
        from proxy.process.generation import Refused
        from proxy.process.pidfile import PidFileError
        from proxy.process.sockets import BindError

        try:
            return self._run()
        except ConfError as error:
            self.say("emerg", str(error))
        except Refused as error:
            for level, line in error.lines:
                self.say(level, line)
        except PidFileError as error:
            self.say(error.level, str(error))
        except BindError:
            pass  # each try was told
        if self.options.is_test:
            tell(f"configuration file {self.options.conf_path} test failed")
        return 1

    def _run(self) -> int:
        from proxy.process.generation import pid_path_of, read_model

        options = self.options
        model = read_model(options)
        if options.signal:
            from proxy.process import pidfile

            self.say("notice", "signal process started")
            pidfile.send(pid_path_of(model, options), options.signal)
            return 0
        if options.is_test:
            self._test(model)
            return 0
        return self._serve(model)

    def _test(self, model) -> None:  # type: ignore[no-untyped-def]
        """-t and -T. Raises what `run` tells."""
        from proxy.process import generation, pidfile, sockets

        options = self.options
        generation.check(model)
        for level, line in model.notes:
            self.say(level, line)
        if not options.is_quiet:
            for it in model.ignored:
                why = it.directive.ignored
                tell(f'[info] "{it.name}" means nothing here: {why} in {it.file}:{it.line}')
            tell(f"the configuration file {options.conf_path} syntax is ok")
        made = generation.Generation(model, options)
        for address in made.addresses:
            error = sockets.probe(address)
            if error is not None and error.errno != 98:  # it may well be serving already
                line = f"bind() to {address.key} failed ({error.errno}: {error.strerror})"
                self.say("emerg", line)
                raise sockets.BindError(line)
        pidfile.try_to_write(made.pid_path)
        if not options.is_quiet:
            tell(f"configuration file {options.conf_path} test is successful")
        if options.is_dump:
            from proxy.conf.dump import dump

            sys.stdout.buffer.write(dump(model).encode("utf-8", "surrogateescape"))
            sys.stdout.flush()
        gc.freeze()  # on its way out Python would look through all of it several times

    def _serve(self, model) -> int:  # type: ignore[no-untyped-def]
        from proxy.process import upgrade
        from proxy.process.generation import Generation, Refused, check_apart
        from proxy.process.sockets import Sockets

        options = self.options
        lines = check_apart(options, model)
        refusals = [it for it in lines if it[0] == "emerg"]
        if refusals:
            raise Refused(lines)
        for level, line in lines:
            self.say(level, line)
        left, wrong = upgrade.take_up()
        for line in wrong:
            self.say("emerg", line)
        generation = Generation(model, options, post=left.post)
        sockets = Sockets()
        for fd, slot in left.sockets:
            try:
                sockets.adopt(fd, slot)
            except OSError as error:
                line = f"getsockname() of the inherited socket #{fd} failed ({error.strerror})"
                self.say("crit", line)
        if model.get("master_process"):  # a signal that comes as soon as we listen is obeyed
            signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        sockets.open(generation.addresses, generation.workers, lambda line: self.say("emerg", line))
        generation.log.write(6, f"headrace/{VERSION}")
        if left.is_empty and model.get("daemon"):
            become_daemon()
        from proxy.process.master import Master, redirect_stderr

        if not model.get("master_process"):
            from proxy.process.alone import run_alone

            redirect_stderr(generation)
            run_alone(options, generation, sockets)
            return 0
        master = Master(options, generation, sockets, left)
        if self.log.fd != 2:
            self.log.close()
            self.log = generation.log
        redirect_stderr(generation)
        master.run()
        return 0


def open_first_log(options: Options) -> ErrorLog:
    """The log of -e (or the default), for what is said before the conf names one."""
    from proxy.observe.error_log import NOTICE, ErrorLog

    if not options.has_error_log and os.path.isdir(options.prefix):
        from proxy.process.generation import make_log_directory

        make_log_directory(options)
    try:
        return ErrorLog([(options.error_log, NOTICE)])
    except OSError as error:
        why = f"({error.errno}: {error.strerror})"
        tell(f'[alert] could not open error log file: open() "{options.error_log}" failed {why}')
        return ErrorLog([("", NOTICE)])


def become_daemon() -> None:
    """Into the background, without a terminal. The parent's exit says that all listen."""
    sys.stdout.flush()
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
