"""Golden files: a conf, a line of dashes, then the model it gives or the error it is refused with.

The first line may be a comment that begins with `# differs:` and says why the real nginx does
not give the same verdict in the same words. `-g "…"` texts stand in a `# globals:` line.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import vocabulary

from proxy.conf import ConfError, load

HERE = Path(__file__).parent / "golden"
FILES = sorted(HERE.glob("*.conf"))
SEPARATOR = "-" * 40 + "\n"
EMERG = re.compile(r"\[emerg\] (?:\d+#\d+: )?(.*)")
HINT = re.compile(r', did you mean "\w+"\?')
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


def parts(file: Path) -> tuple[str, str]:
    # Not read_text(): newlines stay as they are.
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    conf, dashes, expected = text.partition(SEPARATOR)
    assert dashes, f"{file.name} has no line of dashes"
    return conf, expected


def globals_of(conf: str) -> str:
    match = re.search(r"^# globals: (.*)$", conf, re.M)
    return match[1] if match else ""


def lay_out(file: Path, into: Path) -> Path:
    """The conf and the files that it may include, in a directory of their own."""
    shutil.copytree(HERE / "include", into / "include")
    target = into / file.name
    target.write_bytes(parts(file)[0].encode("utf-8", "surrogateescape"))
    return target


def outcome(target: Path, conf: str) -> str:
    """What the golden file should hold below its dashes."""
    try:
        root = load(str(target), globals=globals_of(conf))
    except ConfError as error:
        return f"[emerg] {error}\n".replace(f"{target.parent}/", "")
    notes = [f"[{level}] {text}\n" for level, text in root.notes]
    return "".join(notes).replace(f"{target.parent}/", "") + vocabulary.show(root)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden(file: Path, tmp_path: Path) -> None:
    target = lay_out(file, tmp_path)
    conf, expected = parts(file)
    with vocabulary.alone():
        assert outcome(target, conf) == expected


def test_there_are_enough() -> None:
    assert len(FILES) >= 80


@pytest.mark.parametrize(
    "file", [f for f in FILES if "# differs:" not in parts(f)[0]], ids=lambda file: file.stem
)
def test_nginx_says_the_same(file: Path, tmp_path: Path) -> None:
    """Debian's nginx accepts what we accept, and refuses the rest in the same words and place."""
    target = lay_out(file, tmp_path)
    conf, expected = parts(file)
    command = [str(NGINX), "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(target)]
    own = f"pid {tmp_path}/pid; error_log stderr; {globals_of(conf)}"
    answer = subprocess.run([*command, "-g", own], capture_output=True, text=True, timeout=20)
    said = answer.stderr.replace(f"{tmp_path}/", "")
    if expected.startswith("[emerg]"):
        match = EMERG.search(said)
        assert match is not None, said
        assert "[emerg] " + match[1] == HINT.sub("", expected).rstrip("\n")
    else:
        # Not the exit code: -t also binds sockets, which is not what is asked here.
        assert "syntax is ok" in said, said
