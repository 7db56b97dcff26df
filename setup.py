"""Builds every .pyx below proxy/ into an extension module beside it.

HEADRACE_DEBUG=1 poisons the shared read buffer after each read (the tests run so).
HEADRACE_ONLY=proxy/limits builds one room.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

TLS = ["ssl", "crypto"]
LIBRARIES = {
    "_pcre": ["pcre2-8"],
    "_client_certificate": TLS,
    "_crypt": ["crypt", "crypto"],
    "_handshake": ["crypto"],
    "_certificates": TLS,
    "_tls": TLS,
    "_tls_context": TLS,
    "_way": TLS,
    "_tls_variables": TLS,
}
HERE = Path(__file__).parent
only = os.environ.get("HEADRACE_ONLY", "proxy")
is_debug = os.environ.get("HEADRACE_DEBUG") == "1"


def extension(path: Path) -> Extension:
    return Extension(
        ".".join(path.with_suffix("").parts),
        [str(path)],
        libraries=LIBRARIES.get(path.stem, []) + ["pthread"],
        extra_compile_args=[
            "-O2",
            "-fno-strict-aliasing",
            "-fno-plt",
            "-Wno-unused-function",
            "-Wno-unreachable-code",
            *(["-DHEADRACE_DEBUG=1"] if is_debug else []),
        ],
    )


pyx = sorted(p.relative_to(HERE) for p in (HERE / "proxy").rglob("*.pyx"))
chosen = [p for p in pyx if str(p).startswith(only)]
setup(
    ext_modules=cythonize(
        [extension(p) for p in chosen],
        nthreads=int(os.environ.get("HEADRACE_JOBS", "2")),
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": False,
            "freethreading_compatible": False,
        },
    )
)
