"""Certificates that the conf names by variables: who is shown which, what no client may choose,
and what the cache keeps."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway import Gateway, run
from rawclient import RawClient

from proxy.conf import load_text
from proxy.conf.report import ConfError
from proxy.engine._certificates import KeyPair
from proxy.engine.certificates import CertificateCache, find_pair, stamp_of
from proxy.order import declare_all

declare_all()
Make = Callable[..., Gateway]
BY_NAME = "ssl_certificate certs/$ssl_server_name.crt; ssl_certificate_key certs/{}.key;".format(
    "$ssl_server_name"
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a, b, c, locked (needs the password "word") and ec sign themselves."""
    at = tmp_path_factory.mktemp("keys")
    for name in ("a", "b", "c", "locked", "ec"):
        kind = ["rsa:2048"] if name != "ec" else ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        lock = ["-passout", "pass:word"] if name == "locked" else ["-nodes"]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", *kind, *lock, "-days", "9", "-subj",
             f"/CN={name}", "-keyout", at / f"{name}.key", "-out", at / f"{name}.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
    return at


def lay(gateway: Gateway, keys: Path, **names: str) -> Path:
    """certs/ beside the conf; names: of a file there → which pair it is."""
    at = gateway.prefix / "certs"
    for name, which in names.items():
        for end in ("crt", "key"):
            file = at / f"{name.replace('__', '/')}.{end}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((keys / f"{which}.{end}").read_bytes())
    return at


def context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.minimum_version = made.maximum_version = version
    return made


def shown(port: int, name: str | None, made: ssl.SSLContext | None = None) -> bytes | None:
    """The certificate that a client is shown; None: its handshake fails."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as sock,
            (made or context()).wrap_socket(sock, server_hostname=name) as link,
        ):
            return link.getpeercert(binary_form=True)
    except OSError:
        return None


def der(keys: Path, name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert((keys / f"{name}.crt").read_text())


def server(text: str, number: int = 0) -> str:
    port = f"%%PORT_{number}%%" if number else "%%PORT%%"
    return f"server {{ listen 127.0.0.1:{port} ssl; {text} }}\n"


# ---------------------------------------------------------------- clients


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_name_chooses_its_files(headrace: Make, keys: Path, version: ssl.TLSVersion) -> None:
    gateway = headrace(server(BY_NAME + "return 200 $ssl_server_name;"))
    lay(gateway, keys, a="a", b="b")
    for name in ("a", "b", "a"):
        assert shown(gateway.port, name, context(version)) == der(keys, name)
    assert shown(gateway.port, "c", context(version)) is None  # has no files yet
    assert shown(gateway.port, None, context(version)) is None
    lay(gateway, keys, c="c")
    assert shown(gateway.port, "c", context(version)) == der(keys, "c")


def test_all_kinds_of_variables(headrace: Make, keys: Path) -> None:
    """A folder from a map, an address from the connection, the text itself, two kinds of key."""
    pem = {end: (keys / f"b.{end}").read_text() for end in ("crt", "key")}
    gateway = headrace(
        f"map $ssl_server_name $place {{ a {keys}/a; default {keys}/c; }}"
        f'map $ssl_server_name $crt {{ default "{pem["crt"]}"; }}'
        f'map $ssl_server_name $key {{ default "{pem["key"]}"; }}'
        "geo $who { 127.0.0.0/8 a; default b; }"
        + server("ssl_certificate $place.crt; ssl_certificate_key $place.key;")
        + server(f"ssl_certificate {keys}/$who.crt; ssl_certificate_key {keys}/$who.key;", 1)
        + server('ssl_certificate "data:$crt"; ssl_certificate_key "data:$key";', 2)
        + server(f"ssl_certificate {keys}/$who.crt; ssl_certificate_key {keys}/$who.key;"
                 f"ssl_certificate {keys}/ec.crt; ssl_certificate_key {keys}/ec.key;", 3)
    )  # fmt: skip
    assert shown(gateway.port, "a") == der(keys, "a")
    assert shown(gateway.port, "elsewhere") == der(keys, "c")
    assert shown(gateway.ports[1], "any") == der(keys, "a")
    assert shown(gateway.ports[2], "any") == der(keys, "b")
    for kind, name in (("RSA", "a"), ("ECDSA", "ec")):
        made = context(ssl.TLSVersion.TLSv1_2)
        made.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
        assert shown(gateway.ports[3], "any", made) == der(keys, name)


def test_each_server_has_its_own_way(headrace: Make, keys: Path) -> None:
    """Fixed and variable certificates side by side; who has none is shown the default's."""
    gateway = headrace(
        server("server_name a; " + BY_NAME)
        + server(f"server_name b; ssl_certificate {keys}/b.crt; ssl_certificate_key {keys}/b.key;")
        + server("server_name c; return 204;")
    )
    lay(gateway, keys, a="a", b="a", c="c")
    for name in ("a", "b", "c"):
        assert shown(gateway.port, name) == der(keys, name)


def test_a_session_is_resumed_without_its_files(headrace: Make, keys: Path) -> None:
    gateway = headrace(server(BY_NAME + "return 200 $ssl_session_reused;"))
    at = lay(gateway, keys, a="a")
    made = context(ssl.TLSVersion.TLSv1_2)
    session, said = None, []
    for _ in range(2):
        with RawClient(gateway.port) as client:
            link = client.sock = made.wrap_socket(
                client.sock, server_hostname="a", session=session
            )
            said.append(client.get().text)
            session = link.session
        (at / "a.key").unlink(missing_ok=True)
    assert said == [".", "r"]


def test_streams_have_them_too(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        main="stream { server { listen 127.0.0.1:%%PORT%% ssl; return $ssl_server_name;"
        f"{BY_NAME} }} }}"
    )
    lay(gateway, keys, a="a", b="b")
    assert [shown(gateway.port, name) for name in ("a", "b")] == [der(keys, "a"), der(keys, "b")]
    assert shown(gateway.port, "c") is None


# ---------------------------------------------------------------- who asks chooses nothing else


def patched_hello(name: bytes) -> bytes:
    """A ClientHello that asks for any bytes at all."""
    kind_and_length = bytes([0, 0, len(name)])  # RFC 6066 §3
    stand_in = kind_and_length + b"x" * len(name)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    link = context().wrap_bio(incoming, outgoing, server_hostname="x" * len(name))
    with pytest.raises(ssl.SSLWantReadError):
        link.do_handshake()
    hello = outgoing.read()
    assert hello.count(stand_in) == 1
    return hello.replace(stand_in, kind_and_length + name)


def reply(port: int, name: bytes) -> int:
    """The kind of the first record that a hello is answered by: 22 a handshake, 21 an alert."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(patched_hello(name))
        return sock.recv(1)[0]


@pytest.mark.parametrize(
    "name", [b"sub/a", b"../other/a", b"./a", b"..", b".a", b"x..a", b"a%2f", b"a b", b"a\xff"]
)
def test_a_name_is_one_of_a_host(headrace: Make, keys: Path, name: bytes) -> None:
    gateway = headrace(
        server(BY_NAME)
        + server("ssl_certificate $ssl_server_name; ssl_certificate_key $ssl_server_name;", 1)
        + server("server_name ~^(?<taken>.+)$; ssl_certificate certs/$taken.crt;"
                 "ssl_certificate_key certs/$taken.key;", 2)
    )  # fmt: skip
    at = lay(gateway, keys, a="a", sub__a="a", x__x="a")
    lay(gateway, keys, **{"..__other__a": "a"})
    for odd in ("..", ".a", "x..a", "a%2f", "a b", "a\udcff"):  # as files they are all there
        for end in ("crt", "key"):
            (at / f"{odd}.{end}").write_bytes((keys / f"a.{end}").read_bytes())
    assert reply(gateway.port, b"a") == 22
    assert reply(gateway.port, name) == 21
    assert reply(gateway.ports[1], str(keys / "a.crt").encode()) == 21  # an absolute one
    assert reply(gateway.ports[2], name) == 21
    assert shown(gateway.port, "a") == der(keys, "a")


def test_what_could_make_a_worker_wait_is_not_read(headrace: Make, keys: Path) -> None:
    gateway = headrace(server(BY_NAME))
    at = lay(gateway, keys, a="a", big="a", empty="a", mixed="a", junk="a")
    os.mkfifo(at / "pipe.crt")
    (at / "pipe.key").symlink_to("pipe.crt")
    (at / "folder.crt").mkdir()
    (at / "zero.crt").symlink_to("/dev/zero")
    (at / "big.crt").write_bytes((keys / "a.crt").read_bytes() + b"\n" * 65536)
    (at / "empty.crt").write_bytes(b"")
    (at / "mixed.key").write_bytes((keys / "b.key").read_bytes())
    (at / "junk.crt").write_bytes((keys / "a.crt").read_bytes()[:400])
    for name in ("pipe", "folder", "zero", "big", "empty", "mixed", "junk"):
        assert shown(gateway.port, name) is None
        assert shown(gateway.port, "a") == der(keys, "a"), name


# ---------------------------------------------------------------- what is kept


def cached(keys: Path, cache: CertificateCache, name: str) -> KeyPair:
    return find_pair(str(keys), cache, (b"word",), f"{name}.crt", f"{name}.key")


def names_of(cache: CertificateCache) -> list[str]:
    return [Path(certificate).stem for certificate, _ in cache.kept]


def test_the_cache_has_a_bound_and_drops_who_waits_longest(keys: Path) -> None:
    cache = CertificateCache(4, 60, 60)
    a = cached(keys, cache, "a")
    cached(keys, cache, "b")
    assert cached(keys, cache, "a") is a
    cached(keys, cache, "c")
    assert names_of(cache) == ["a", "c"]
    for number in range(50):
        (keys / f"{number}.crt").write_bytes((keys / "ec.crt").read_bytes())
        (keys / f"{number}.key").write_bytes((keys / "ec.key").read_bytes())
        cached(keys, cache, str(number))
        assert len(cache.kept) == 2


def test_what_a_password_opened_is_not_kept(keys: Path) -> None:
    cache = CertificateCache(4, 60, 60)
    cached(keys, cache, "locked")
    assert names_of(cache) == []
    with pytest.raises(ValueError, match="PEM_read_bio_PrivateKey"):
        find_pair(str(keys), cache, (), "locked.crt", "locked.key")


def test_what_failed_is_not_kept(keys: Path) -> None:
    cache = CertificateCache(4, 60, 60)
    with pytest.raises(ValueError, match="No such file"):
        cached(keys, cache, "nobody")
    assert names_of(cache) == []


def test_an_old_one_is_read_again_only_where_its_files_changed(
    keys: Path, tmp_path: Path
) -> None:
    for end in ("crt", "key"):
        (tmp_path / f"x.{end}").write_bytes((keys / f"a.{end}").read_bytes())
    cache = CertificateCache(4, 60, 30)
    first = cached(tmp_path, cache, "x")
    (kept,) = cache.kept.values()
    kept.checked_s -= 31
    assert cached(tmp_path, cache, "x") is first
    assert kept.checked_s > kept.used_s - 1  # good for another 30 s
    for end in ("crt", "key"):
        (tmp_path / f"new.{end}").write_bytes((keys / f"b.{end}").read_bytes())
        (tmp_path / f"new.{end}").rename(tmp_path / f"x.{end}")
    assert cached(tmp_path, cache, "x") is first
    kept.checked_s -= 31
    second = cached(tmp_path, cache, "x")
    assert second is not first
    (kept,) = cache.kept.values()
    kept.checked_s -= 31
    (tmp_path / "x.key").unlink()
    with pytest.raises(ValueError, match="No such file"):
        cached(tmp_path, cache, "x")


def test_what_nobody_asks_for_is_dropped(keys: Path) -> None:
    cache = CertificateCache(100, 10, 60)
    first = cached(keys, cache, "a")
    for kept in cache.kept.values():
        kept.used_s -= 11
    cached(keys, cache, "b")
    assert names_of(cache) == ["b"]
    assert cached(keys, cache, "a") is not first


def test_a_file_that_is_gone_equals_no_other(tmp_path: Path) -> None:
    assert stamp_of(str(tmp_path / "none")) != stamp_of(str(tmp_path))
    assert stamp_of("data:x") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max=0", 'invalid parameter "max=0"'),
        ("max=x", 'invalid parameter "max=x"'),
        ("max=1 valid=x", 'invalid parameter "valid=x"'),
        ("max=1 min_uses=2", 'invalid parameter "min_uses=2"'),
        ("valid=1s", 'must have the "max" parameter'),
        ("on", 'invalid parameter "on"'),
    ],
)
@pytest.mark.parametrize("name", ["ssl", "proxy_ssl", "grpc_ssl"])
def test_wrong_caches(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfError, match=words):
        load_text(f"events {{ }} http {{ {name}_certificate_cache {text}; }}")


def refusal(tmp_path: Path, text: str) -> str:
    conf = tmp_path / "a.conf"
    conf.write_text(f"events {{ }}\n{text}\n")
    done = run("-t", "-p", str(tmp_path), "-c", str(conf))
    assert done.returncode != 0
    return str(done.stdout + done.stderr)


def test_quic_says_that_it_knows_none(tmp_path: Path) -> None:
    said = refusal(tmp_path, f"http {{ server {{ listen 127.0.0.1:8443 quic; {BY_NAME} }} }}")
    assert 'variables in "ssl_certificate" are not supported on a server with "listen' in said


def test_a_bridge_says_that_it_knows_none(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        "http { function f { command true; } }"
        "mqtt { bridge 127.0.0.1:1 { proxy_ssl on; proxy_ssl_certificate $hostname;"
        "proxy_ssl_certificate_key $hostname; on_publish a { function_pass f; } } }",
    )
    assert '"proxy_ssl_certificate" of a bridge knows no variables' in said


def test_a_check_of_health_shows_none_of_a_request(tmp_path: Path) -> None:
    conf = tmp_path / "a.conf"
    conf.write_text(
        "events { } http { upstream up { zone up 64k; server 127.0.0.1:1; health_check tls; }"
        "server { listen 127.0.0.1:8080; location / { proxy_pass https://up;"
        "proxy_ssl_certificate $arg_a.crt; proxy_ssl_certificate_key $arg_a.key; } } }"
    )
    done = run("-t", "-p", str(tmp_path), "-c", str(conf))
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- towards upstreams

TELLING = (
    "server { listen 127.0.0.1:%%PORT_1%% ssl; http2 on; keepalive_requests 1000;"
    "ssl_certificate KEYS/c.crt; ssl_certificate_key KEYS/c.key;"
    "ssl_verify_client optional_no_ca;"
    'location / { return 200 "$ssl_client_s_dn $connection $ssl_session_reused"; } }'
)
OURS = "proxy_ssl_certificate KEYS/$arg_as.crt; proxy_ssl_certificate_key KEYS/$arg_as.key;"


def passing(headrace: Make, keys: Path, text: str) -> Gateway:
    conf = "upstream up { server 127.0.0.1:%%PORT_1%%; keepalive 8; }" + TELLING
    conf += f"server {{ listen 127.0.0.1:%%PORT%%; location / {{ {OURS} {text} }} }}"
    return headrace(conf.replace("KEYS", str(keys)))


def ask(gateway: Gateway, name: str) -> list[str]:
    got = gateway.get(f"/?as={name}")
    assert got.status == 200
    return got.text.split(" ")


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("cache", ["off", "max=8"])
def test_a_request_chooses_who_we_are(
    headrace: Make, keys: Path, version: str, cache: str
) -> None:
    """No connection and no session of one certificate serves a request that has another."""
    gateway = passing(
        headrace,
        keys,
        f"proxy_pass https://up; proxy_http_version {version}; proxy_ssl_certificate_cache {cache};"
        'proxy_set_header Connection "";',
    )
    seen = [(name, *ask(gateway, name)) for name in ("a", "b", "a", "a", "b", "b", "a")]
    assert all(subject == f"CN={name}" and reused == "." for name, subject, _, reused in seen)
    connections = {(connection, name) for name, _, connection, _ in seen}
    assert len({connection for connection, _ in connections}) == len(connections)
    if cache != "off":
        assert seen[3][2] == seen[2][2]  # the same one asks twice in a row


@pytest.mark.parametrize(
    "name", ["nobody", "../{folder}/a", "sub/a", ".", "..", "%2e%2e/a", "a%00b", "{keys}/a"]
)
def test_no_request_names_another_folder(headrace: Make, keys: Path, name: str) -> None:
    """And the peer is not blamed: it goes on answering the others."""
    (keys / "sub").mkdir(exist_ok=True)
    for end in ("crt", "key"):
        (keys / "sub" / f"a.{end}").write_bytes((keys / f"a.{end}").read_bytes())
    gateway = passing(headrace, keys, "proxy_pass https://up;")
    for _ in range(3):
        assert gateway.get("/?as=" + name.format(folder=keys.name, keys=keys)).status == 500
    assert ask(gateway, "a")[0] == "CN=a"


def test_an_empty_name_is_no_certificate(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        TELLING.replace("KEYS", str(keys))
        + "server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass https://127.0.0.1:%%PORT_1%%;"
        "proxy_ssl_certificate $arg_as; proxy_ssl_certificate_key $arg_as; } }"
    )
    assert ask(gateway, "")[0] == ""


def test_a_stream_chooses_too(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        TELLING.replace("KEYS", str(keys)),
        main="stream { map $remote_addr $us { default a; } server { listen 127.0.0.1:%%PORT%%;"
        "proxy_pass 127.0.0.1:%%PORT_1%%; proxy_ssl on; proxy_ssl_certificate_cache max=2;"
        f"proxy_ssl_certificate {keys}/$us.crt; proxy_ssl_certificate_key {keys}/$us.key; }} }}",
    )
    assert [ask(gateway, "")[0] for _ in range(2)] == ["CN=a"] * 2
