"""The command line, as nginx's: options, versions, help."""

from __future__ import annotations

import os

from proxy import VERSION

PREFIX = "/usr/local/headrace/"
CONF = "conf/headrace.conf"
ERROR_LOG = "logs/error.log"
SIGNALS = ("stop", "quit", "reopen", "reload")

# What nginx's own test suite and other tools search in the output of -V. A name in here is a
# promise: claim what is there, deny what nginx has by default and Headrace has not.
ARGUMENTS = (
    "--with-http_ssl_module",
    "--with-http_v2_module",
    "--with-http_v3_module",
    "--with-http_realip_module",
    "--with-http_auth_request_module",
    "--with-http_stub_status_module",
    "--with-stream",
    "--with-stream_realip_module",
    "--with-stream_ssl_module",
    "--with-stream_ssl_preread_module",
    "--without-stream_pass_module",
    "--without-http_fastcgi_module",
    "--without-http_uwsgi_module",
    "--without-http_scgi_module",
    "--without-http_memcached_module",
    "--without-http_userid_module",
    "--without-http_autoindex_module",
    "--without-http_empty_gif_module",
    "--without-http_browser_module",
    "--without-http_tunnel_module",
    "--without-http-cache",
)

HELP = f"""\
Usage: headrace [-?hvVtTq] [-s signal] [-p prefix]
                [-e filename] [-c filename] [-g directives]

Options:
  -?,-h         : this help
  -v            : show version and exit
  -V            : show version and configure options then exit
  -t            : test configuration and exit
  -T            : test configuration, dump it and exit
  -q            : suppress non-error messages during configuration testing
  -s signal     : send signal to a master process: {", ".join(SIGNALS)}
  -p prefix     : set prefix path (default: {PREFIX})
  -e filename   : set error log file (default: {ERROR_LOG})
  -c filename   : set configuration file (default: {CONF})
  -g directives : set global directives out of configuration file

"""


class OptionError(Exception):
    """A command line that nginx would refuse, in its words."""


class Options:
    """What the command line said. Paths are absolute; `prefix` ends in a slash."""

    __slots__ = (
        "conf_path", "error_log", "globals", "has_error_log", "is_dump", "is_help", "is_quiet",
        "is_test", "is_verbose_version", "is_version", "prefix", "signal",
    )  # fmt: skip

    def __init__(self) -> None:
        self.prefix = PREFIX
        self.conf_path = CONF
        self.error_log = ERROR_LOG
        self.has_error_log = False
        self.globals = ""
        self.signal = ""
        self.is_dump = False
        self.is_help = False
        self.is_quiet = False
        self.is_test = False
        self.is_verbose_version = False
        self.is_version = False

    def path(self, name: str) -> str:
        """A name of the command line or the conf, seen from the prefix."""
        return os.path.join(self.prefix, name)


def read_options(argv: list[str]) -> Options:
    """Options from the words behind the program's name. Raises OptionError."""
    options = Options()
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            raise OptionError(f'invalid option: "{word}"')
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in "?h":
                options.is_version = options.is_help = True
            elif letter == "v":
                options.is_version = True
            elif letter == "V":
                options.is_version = options.is_verbose_version = True
            elif letter == "t":
                options.is_test = True
            elif letter == "T":
                options.is_test = options.is_dump = True
            elif letter == "q":
                options.is_quiet = True
            elif letter in WANTED:
                value = letters or next(words, "")
                if not value:
                    raise OptionError(f'option "-{letter}" requires {WANTED[letter]}')
                _set(options, letter, value)
                letters = ""
            else:
                raise OptionError(f'invalid option: "{letter}"')
    options.prefix = os.path.join(os.path.abspath(options.prefix), "")
    options.conf_path = options.path(options.conf_path)
    if options.error_log:
        options.error_log = options.path(options.error_log)
    return options


WANTED = {
    "p": "directory name",
    "e": "file name",
    "c": "file name",
    "g": "parameter",
    "s": "parameter",
}


def _set(options: Options, letter: str, value: str) -> None:
    if letter == "p":
        options.prefix = value
    elif letter == "e":
        options.error_log = "" if value == "stderr" else value
        options.has_error_log = True
    elif letter == "c":
        options.conf_path = value
    elif letter == "g":
        options.globals = value
    elif value in SIGNALS:
        options.signal = value
    else:
        raise OptionError(f'invalid option: "-s {value}"')


def version_text(options: Options) -> str:
    """What -v, -V and -h print, to stderr as nginx does."""
    text = f"headrace version: headrace/{VERSION}\n"
    if options.is_help:
        text += HELP
    if options.is_verbose_version:
        text += f"built with {_openssl()}\nTLS SNI support enabled\n"
        text += f"configure arguments: {' '.join(ARGUMENTS)}\n"
    return text


def _openssl() -> str:
    try:
        from _ssl import OPENSSL_VERSION  # the C half: `ssl` itself is dear
    except ImportError:
        return "no OpenSSL"
    return OPENSSL_VERSION
