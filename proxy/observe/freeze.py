"""The logs of a plan: what each location writes, and the files that its worker keeps open."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from proxy.conf.directive import MQTT_SERVER, STREAM_SERVER
from proxy.conf.lexer import Token
from proxy.conf.report import ConfError
from proxy.observe._format import Format
from proxy.observe._log import AccessLog, LogFile, LogSettings
from proxy.observe._sink import ErrorFile, begin, end
from proxy.observe._sink import tell as tell_error
from proxy.observe.directives import COMBINED, DEFAULT_PATH, AccessLogLine, find_format
from proxy.observe.path_cache import PathCache
from proxy.variables._variables import compile as compile_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.conf.inherit import Block
    from proxy.observe.error_log import ErrorLog

DEFAULT = AccessLogLine(Token(DEFAULT_PATH))


class Logs:
    """All logs of one worker. `freeze` while the plan is made, then `open`, at the end `close`."""

    def __init__(self) -> None:
        self.files: dict[str, LogFile] = {}
        self.error_files: dict[tuple[str, int], Any] = {}
        self.caches: dict[int, PathCache] = {}
        self.formats: dict[str, Format] = {}
        self.frozen: dict[tuple[int, ...], LogSettings] = {}
        self.wanted: list[tuple[LogSettings, list[tuple[str, int]]]] = []
        self.kept: list[Any] = []  # what ids in `frozen` belong to

    def freeze(self, block: Block) -> LogSettings:
        """The logs of a location; one object serves all that say the same. Raises ConfError."""
        lines, errors = block.get("access_log"), block.get("error_log")
        cache, root = block.get("open_log_file_cache"), self.root_of(block)
        tells_subs = block.get("log_subrequest")
        key = (id(lines), id(errors), id(cache), id(root), tells_subs)
        if key in self.frozen:
            return self.frozen[key]
        settings = self.frozen[key] = LogSettings()
        settings.tells_subs = tells_subs
        self.kept += (lines, errors, cache, root)
        if not any(line.path is None for line in lines):
            for line in lines or ([] if block.where in (STREAM_SERVER, MQTT_SERVER) else [DEFAULT]):
                settings.logs.append(self.freeze_log(line, block))
        if any(log.file is None for log in settings.logs):
            if cache is not None:
                settings.path_cache = self.caches.setdefault(id(cache), PathCache(cache))
            if block.where not in (STREAM_SERVER, MQTT_SERVER):  # they have no sites
                where = block.path(str(root)) if root else block.prefix
                settings.root = compile_text(where, block)
        self.wanted.append((settings, [(error_path(block, it), it.level) for it in errors]))
        return settings

    def root_of(self, block: Block) -> Any:
        """root or alias, whichever is nearer; where neither is declared, none."""
        with contextlib.suppress(LookupError):
            return block.own("alias") or block.get("root")
        return None

    def freeze_log(self, line: AccessLogLine, block: Block) -> AccessLog:
        log_format = self.format_of(line, block)
        condition = None if line.condition is None else compile_text(line.condition, block)
        path = line.path
        assert path is not None
        if "$" in path:
            return AccessLog(
                log_format,
                path=compile_text(path, block),
                prefix=os.fsencode(block.prefix),
                condition=condition,
            )
        absolute = block.path(str(path))
        wanted = (line.buffer_bytes, line.flush_ms, line.gzip_level)
        file = self.files.get(absolute)
        if file is None:
            file = self.files[absolute] = LogFile(os.fsencode(absolute), *wanted)
        elif line.buffer_bytes and file.parameters != wanted:
            raise ConfError(
                line.path,
                f'access_log "{absolute}" already defined with conflicting parameters',
            )
        return AccessLog(log_format, file=file, condition=condition)

    def format_of(self, line: AccessLogLine, block: Block) -> Format:
        """The compiled log_format that a line names."""
        name = line.format_name
        if name in self.formats:
            return self.formats[name]
        if name == "combined":
            made = Format(compile_text(COMBINED, block))
        else:
            it = find_format(name, block)
            assert it is not None  # or the conf would have been refused
            made = Format(compile_joined(it.pieces), it.escape)
        self.formats[name] = made
        return made

    def open(self, later: Callable[..., Any], log: ErrorLog) -> None:
        """Open every file, in the worker; `later` is the loop's call_later.

        A file that cannot be opened is told to `log`, and its lines are lost.
        """
        ours = [ErrorFile(os.fsencode(path), level, fd) for path, fd, level in log.files]
        begin(ours)
        for file in self.files.values():
            try:
                file.open(later)
            except OSError as error:
                self.complain(error)
        same = [(path, level) for path, _, level in log.files]
        for settings, wanted in self.wanted:
            if wanted and wanted != same:
                settings.errors = list(self.open_errors(wanted))
                settings.error_level = max((it.level for it in settings.errors), default=0)

    def open_errors(self, wanted: list[tuple[str, int]]) -> Iterator[Any]:
        for path, level in wanted:
            if (path, level) not in self.error_files:
                try:
                    made = ErrorFile(os.fsencode(path), level, -1 if path else 2)
                except OSError as error:
                    self.complain(error)
                    continue
                self.error_files[path, level] = made
            yield self.error_files[path, level]

    def complain(self, error: OSError) -> None:
        tell_error(
            1, f'open() "{os.fsdecode(error.filename)}" failed ({error.errno}: {error.strerror})'
        )

    def reopen(self) -> None:
        """USR1: what is buffered goes to the old files, what comes to new ones."""
        for file in self.files.values():
            file.reopen()
        for cache in self.caches.values():
            cache.close()
        for it in self.error_files.values():
            try:
                it.reopen()
            except OSError as error:
                self.complain(error)

    def close(self) -> None:
        """Write what is buffered; nothing is told from here on."""
        for file in self.files.values():
            file.close()
        for cache in self.caches.values():
            cache.close()
        end()
        for it in self.error_files.values():
            it.close()


def compile_joined(pieces: list[Any]) -> Any:
    """One Template of the pieces of a log_format, which follow each other without a space."""
    for piece in pieces:
        compile_text(piece)  # names are blamed where they stand
    return compile_text("".join(pieces), None)


def error_path(block: Block, it: Any) -> str:
    """Absolute; empty for stderr."""
    return block.path(it.path) if it.path else ""
