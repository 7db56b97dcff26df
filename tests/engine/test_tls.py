"""TLS on both sides of a running gateway: who is shown which certificate, who may pass, what
resumes, and what a wrong conf is told."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway import Gateway, wait_for
from rawclient import RawClient
from recorder import Recorder, answer

from proxy.conf import load_text
from proxy.conf.report import ConfError
from proxy.engine.tls import freeze_server, make_client
from proxy.order import declare_all

declare_all()
Make = Callable[..., Gateway]


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca signs deep, a, b, us; deep signs leaf (*.up.test). other signs itself."""
    at = tmp_path_factory.mktemp("keys")
    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}/{name}.key",
                "-out", f"{at}/{name}.crt", "-subj", f"/CN={name}", "-days", "9",
                "-addext", "keyUsage=keyCertSign,cRLSign,digitalSignature")  # fmt: skip
    for name, issuer, kind, extension in (
        ("deep", "ca", "rsa:2048", "basicConstraints=critical,CA:TRUE"),
        ("leaf", "deep", "rsa:2048", "subjectAltName=DNS:*.up.test,DNS:exact.test"),
        ("a", "ca", "rsa:2048", "subjectAltName=DNS:a.test"),
        ("b", "ca", "rsa:2048", "subjectAltName=DNS:b.test"),
        ("ec", "ca", "ec", "subjectAltName=DNS:a.test"),
        ("us", "ca", "rsa:2048", "subjectAltName=DNS:us.test"),
    ):
        (at / "ext").write_text(extension)
        more = ["-pkeyopt", "ec_paramgen_curve:prime256v1"] if kind == "ec" else []
        openssl("req", "-newkey", kind, *more, "-nodes", "-keyout", f"{at}/{name}.key", "-out",
                f"{at}/{name}.csr", "-subj", f"/CN={name}.cn.test")  # fmt: skip
        openssl("x509", "-req", "-in", f"{at}/{name}.csr", "-CA", f"{at}/{issuer}.crt", "-CAkey",
                f"{at}/{issuer}.key", "-CAcreateserial", "-out", f"{at}/{name}.crt", "-days", "9",
                "-extfile", f"{at}/ext")  # fmt: skip
    openssl("rsa", "-aes128", "-passout", "pass:word", "-in", f"{at}/us.key", "-out",
            f"{at}/us.locked")  # fmt: skip
    (at / "passwords").write_text("wrong\nword\n")
    (at / "chain.crt").write_text((at / "leaf.crt").read_text() + (at / "deep.crt").read_text())
    (at / "ticket.key").write_bytes(bytes(range(80)))
    return at


def use(keys: Path, name: str) -> str:
    """The two directives of a certificate and its key."""
    return f"ssl_certificate {keys}/{name}.crt; ssl_certificate_key {keys}/{name}.key;"


def client_context(
    certificate: Path | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class TlsClient(RawClient):
    """A RawClient over TLS; `link` is the wrapped socket."""

    def __init__(
        self,
        port: int,
        name: str = "a.test",
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(port)
        self.link = (context or client_context()).wrap_socket(
            self.sock, server_hostname=name, session=session, suppress_ragged_eofs=False
        )
        self.sock = self.link

    def subject(self) -> bytes:
        return self.link.getpeercert(binary_form=True) or b""


def der(keys: Path, name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert((keys / f"{name}.crt").read_text())


def test_a_request_is_answered_and_told_what_was_settled(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        f"server {{ listen %%PORT%% ssl; {use(keys, 'a')} location / {{ return 200 "
        '"$scheme $https $ssl_protocol $ssl_server_name $ssl_session_reused '
        '$ssl_alpn_protocol $ssl_client_verify"; } }'
    )
    context = client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with TlsClient(gateway.port, context=context) as client:
        first = client.get()
        assert first.text == "https on TLSv1.3 a.test . http/1.1 NONE"
        assert client.get().text == first.text  # keep-alive
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)  # pipelined
        assert [client.read().status for _ in range(3)] == [200] * 3
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.read().status == 200
        assert client.link.recv(1) == b""  # ended by close_notify: no SSLEOFError


def test_each_name_has_its_certificate(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        f"server {{ listen %%PORT%% ssl; server_name a.test; {use(keys, 'a')} return 200 a; }}"
        f"server {{ listen %%PORT%% ssl; server_name b.test ~^x; {use(keys, 'b')} return 200 b; }}"
        "server { listen %%PORT%% ssl; server_name c.test; return 200 c; }"
    )
    for name, shown, said in (
        ("a.test", "a", "a"),
        ("b.test", "b", "b"),
        ("B.TEST", "b", "b"),
        ("xyz", "b", "b"),
        ("unknown", "a", "a"),
        ("c.test", "a", "c"),
    ):
        with TlsClient(gateway.port, name) as client:
            assert client.subject() == der(keys, shown), name
            assert client.get(Host=name).text == said
    with TlsClient(gateway.port, "a.test") as client:  # without verification Host rules
        assert client.get(Host="b.test").text == "b"


def test_two_kinds_of_key(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        f"server {{ listen %%PORT%% ssl; {use(keys, 'a')} {use(keys, 'ec')} return 204; }}"
    )
    for kind, shown in (("RSA", "a"), ("ECDSA", "ec")):
        context = client_context(version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
        with TlsClient(gateway.port, context=context) as client:
            assert client.subject() == der(keys, shown)


def test_a_chain_and_a_locked_key(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        f"server {{ listen %%PORT%% ssl; ssl_certificate {keys}/us.crt; ssl_certificate_key "
        f"{keys}/us.locked; ssl_password_file {keys}/passwords; return 204; }}"
        f"server {{ listen %%PORT_1%% ssl; ssl_certificate {keys}/chain.crt;"
        f"ssl_certificate_key {keys}/leaf.key; return 204; }}"
    )
    with TlsClient(gateway.port) as client:
        assert client.get().status == 204
    context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    with TlsClient(gateway.ports[1], "x.up.test", context) as client:
        assert client.get().status == 204


def test_ciphertext_split_at_each_byte(headrace: Make, keys: Path) -> None:
    gateway = headrace(f"server {{ listen %%PORT%% ssl; {use(keys, 'a')} return 200 whole; }}")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    link = client_context().wrap_bio(incoming, outgoing, server_hostname="a.test")
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def finish(act: Callable[[], object]) -> object:
            while True:
                try:
                    done, result = True, act()
                except ssl.SSLWantReadError:
                    done, result = False, None
                for byte in outgoing.read():
                    sock.send(bytes([byte]))
                if done:
                    return result
                incoming.write(sock.recv(65536))

        finish(link.do_handshake)
        finish(lambda: link.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"))
        assert b"whole" in finish(lambda: link.read(65536))  # type: ignore[operator]


def test_large_bodies_both_ways(headrace: Make, keys: Path, upstream: Recorder) -> None:
    body = bytes(range(256)) * 8192
    upstream.answer = answer(body)
    gateway = headrace(
        f"client_max_body_size 8m; server {{ listen %%PORT%% ssl; {use(keys, 'a')}"
        f"location / {{ proxy_pass http://127.0.0.1:{upstream.port}; }} }}"
    )
    with TlsClient(gateway.port) as client:
        got = client.ask("POST", "/", body)
        assert got.body == body
    assert upstream.requests[-1].body == body


def test_plain_http_is_understood_and_refused(headrace: Make, keys: Path) -> None:
    gateway = headrace(f"server {{ listen %%PORT%% ssl; {use(keys, 'a')} return 200 no; }}")
    got = gateway.get()
    assert got.status == 400
    assert "The plain HTTP request was sent to HTTPS port" in got.text


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\xff\xff" + b"x" * 70000,
        b"\x80\x01",
        b"\x16",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\x40\x00",
    ],
)
def test_garbage_ends_alone(headrace: Make, keys: Path, data: bytes) -> None:
    gateway = headrace(
        "client_header_timeout 300ms;"
        f"server {{ listen %%PORT%% ssl; {use(keys, 'a')} return 204; }}"
    )
    with gateway.client() as client, contextlib.suppress(ConnectionError):
        client.send(data).read_all()  # ends by an alert, or by the handshake's time limit
    with TlsClient(gateway.port) as client:
        assert client.get().status == 204


def test_versions(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        f"{use(keys, 'a')} ssl_protocols TLSv1.2;"
        "server { listen %%PORT%% ssl; return 200 $ssl_protocol; }"
        "server { listen %%PORT%% ssl; server_name b.test; ssl_protocols TLSv1.3; return 200 "
        "$ssl_protocol; }"
    )
    with TlsClient(gateway.port) as client:
        assert client.get().text == "TLSv1.2"
    with TlsClient(gateway.port, "b.test") as client:  # SNI brings the versions along
        assert client.get(Host="b.test").text == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        TlsClient(gateway.port, context=client_context(version=ssl.TLSVersion.TLSv1_3))


def test_handshakes_for_unknown_names_are_rejected(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        "server { listen %%PORT%% ssl; ssl_reject_handshake on; }"
        f"server {{ listen %%PORT%% ssl; server_name a.test; {use(keys, 'a')} return 204; }}"
    )
    with TlsClient(gateway.port) as client:
        assert client.get(Host="a.test").status == 204
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
        TlsClient(gateway.port, "b.test")


# ---------------------------------------------------------------- clients' certificates


def verifying(keys: Path) -> str:
    told = 'return 200 "$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn";'
    ca = f"ssl_client_certificate {keys}/ca.crt;"
    return (
        f"{use(keys, 'a')} server {{ listen %%PORT%% ssl; server_name a.test; {told} }}"
        f"server {{ listen %%PORT%% ssl; server_name on; ssl_verify_client on; {ca} {told} }}"
        f"server {{ listen %%PORT%% ssl; server_name twin; ssl_verify_client on; {ca} {told} }}"
        f"server {{ listen %%PORT%% ssl; server_name maybe; ssl_verify_client optional; {ca}"
        f"{told} }} server {{ listen %%PORT%% ssl; server_name any;"
        f"ssl_verify_client optional_no_ca; {told} }}"
    )


@pytest.mark.parametrize(
    ("name", "certificate", "status", "text"),
    [
        ("a.test", "us", 200, "NONE||"),
        ("on", None, 400, "No required SSL certificate was sent"),
        ("on", "other", 400, "The SSL certificate error"),
        ("on", "us", 200, "SUCCESS|CN=us.cn.test|CN=ca"),
        ("maybe", None, 200, "NONE||"),
        ("maybe", "other", 400, "The SSL certificate error"),
        ("maybe", "us", 200, "SUCCESS|CN=us.cn.test|CN=ca"),
        ("any", "other", 200, "FAILED:self-signed certificate|CN=other|CN=other"),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_may_pass(
    headrace: Make, keys: Path, name: str, certificate: str | None, status: int, text: str,
    version: ssl.TLSVersion,
) -> None:  # fmt: skip
    gateway = headrace(verifying(keys))
    context = client_context(keys / f"{certificate}.crt" if certificate else None, version)
    with TlsClient(gateway.port, name, context) as client:
        got = client.get(Host=name)
        assert got.status == status
        assert text in got.text


@pytest.mark.parametrize(
    ("sni", "host", "status"),
    [
        ("a.test", "on", 421),
        ("maybe", "on", 421),
        ("a.test", "maybe", 421),
        ("on", "a.test", 200),
        ("on", "twin", 200),  # verified alike
        ("unknown", "on", 421),
    ],
)
def test_host_cannot_go_round_a_verification(
    headrace: Make, keys: Path, sni: str, host: str, status: int
) -> None:
    gateway = headrace(verifying(keys))
    with TlsClient(gateway.port, sni, client_context(keys / "us.crt")) as client:
        assert client.get(Host=host).status == status


# ---------------------------------------------------------------- sessions

RESUMED = "return 200 '$ssl_session_reused $pid';"


def resume(port: int, version: ssl.TLSVersion, times: int = 12) -> list[tuple[str, str]]:
    """(resumed, worker) of connections that all offer the first one's session."""
    context = client_context(version=version)
    seen = []
    session = None
    for _ in range(times):
        with TlsClient(port, context=context, session=session) as client:
            resumed, pid = client.get().text.split()
            seen.append((resumed, pid))
            session = session or client.link.session
    return seen


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "more",
    [
        "",
        "ssl_session_ticket_key KEYS/ticket.key;",
        "ssl_session_tickets off; ssl_session_cache shared:all:1m;",
    ],
)
def test_a_session_resumes_on_any_worker(
    headrace: Make, keys: Path, version: ssl.TLSVersion, more: str
) -> None:
    gateway = headrace(
        f"{use(keys, 'a')} {more.replace('KEYS', str(keys))}"
        f"server {{ listen %%PORT%% ssl; {RESUMED} }}",
        main="worker_processes 3;",
    )
    first, *others = resume(gateway.port, version)
    assert first[0] == "."
    assert {resumed for resumed, _ in others} == {"r"}
    assert len({pid for _, pid in others}) > 1


def test_a_session_resumes_over_a_reload(headrace: Make, keys: Path) -> None:
    gateway = headrace(f"server {{ listen %%PORT%% ssl; {use(keys, 'a')} {RESUMED} }}")
    context = client_context()
    with TlsClient(gateway.port, context=context) as client:
        before = client.get().text.split()
        session = client.link.session
    gateway.reload()
    with TlsClient(gateway.port, context=context, session=session) as client:
        after = client.get().text.split()
    assert (before[0], after[0]) == (".", "r")
    assert before[1] != after[1]


def test_without_tickets_and_cache_nothing_resumes(headrace: Make, keys: Path) -> None:
    gateway = headrace(
        f"server {{ listen %%PORT%% ssl; {use(keys, 'a')} ssl_session_tickets off; {RESUMED} }}"
    )
    assert {it for it, _ in resume(gateway.port, ssl.TLSVersion.TLSv1_2, 3)} == {"."}


def test_a_session_of_one_verification_does_not_resume_at_another(
    headrace: Make, keys: Path
) -> None:
    gateway = headrace(
        f"server {{ listen %%PORT%% ssl; server_name a.test; {use(keys, 'a')} return 204; }}"
        f"server {{ listen %%PORT%% ssl; server_name b.test; {use(keys, 'b')} ssl_verify_client on;"
        f"ssl_client_certificate {keys}/ca.crt; {RESUMED} }}"
    )
    context = client_context()
    with TlsClient(gateway.port, "a.test", context) as client:
        client.get()
        session = client.link.session
    with TlsClient(gateway.port, "b.test", context, session) as client:
        assert not client.link.session_reused
        assert client.get(Host="b.test").status == 400


# ---------------------------------------------------------------- towards upstreams

VERIFIED = "proxy_ssl_verify on; proxy_ssl_trusted_certificate KEYS/ca.crt;"


def between(keys: Path, text: str) -> str:
    """A location that passes to a TLS server of the same gateway, which tells what it saw."""
    return (
        f"server {{ listen %%PORT_1%% ssl; ssl_certificate {keys}/chain.crt; ssl_certificate_key "
        f"{keys}/leaf.key; ssl_verify_client optional_no_ca; keepalive_timeout 0; return 200 "
        '"$ssl_server_name|$ssl_protocol|$ssl_session_reused|$ssl_client_s_dn"; }'
        "server { listen %%PORT%%; location / { proxy_pass https://127.0.0.1:%%PORT_1%%;"
        f"{text.replace('KEYS', str(keys))} }} }}"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "|TLSv1.3|.|"),
        ("proxy_ssl_name a.up.test;", "|TLSv1.3|.|"),
        ("proxy_ssl_name a.up.test:44; proxy_ssl_server_name on;", "a.up.test|TLSv1.3|.|"),
        (f"{VERIFIED} proxy_ssl_name a.up.test;", "|TLSv1.3|.|"),
        (f"{VERIFIED} proxy_ssl_name exact.test; proxy_ssl_server_name on;", "exact.test|"),
        ("proxy_ssl_protocols TLSv1.2;", "|TLSv1.2|.|"),
        (
            "proxy_ssl_certificate KEYS/us.crt; proxy_ssl_certificate_key KEYS/us.locked;"
            "proxy_ssl_password_file KEYS/passwords;",
            "|TLSv1.3|.|CN=us.cn.test",
        ),
    ],
)  # fmt: skip
def test_passing_to_tls(headrace: Make, keys: Path, text: str, said: str) -> None:
    assert headrace(between(keys, text)).get().text.startswith(said)


@pytest.mark.parametrize(
    "text",
    [
        *(f"{VERIFIED} proxy_ssl_name {it};" for it in ("up.test", "a.b.up.test", "leaf.cn.test")),
        VERIFIED,  # an address is no name
        "proxy_ssl_verify on; proxy_ssl_trusted_certificate KEYS/other.crt; proxy_ssl_name "
        "a.up.test;",
        f"{VERIFIED} proxy_ssl_verify_depth 0; proxy_ssl_name a.up.test;",
    ],
)
def test_a_wrong_upstream_is_not_asked(headrace: Make, keys: Path, text: str) -> None:
    assert headrace(between(keys, text)).get().status == 502


def test_an_upstream_that_speaks_no_tls(headrace: Make, upstream: Recorder) -> None:
    gateway = headrace(
        "server { listen %%PORT%%; location / {"
        f"proxy_pass https://127.0.0.1:{upstream.port}; proxy_connect_timeout 500ms; }} }}"
    )
    assert gateway.get().status in (502, 504)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize(("reuse", "second"), [("on", "r"), ("off", ".")])
def test_sessions_with_upstreams(
    headrace: Make, keys: Path, version: str, reuse: str, second: str
) -> None:
    text = f"proxy_ssl_protocols {version}; proxy_ssl_session_reuse {reuse};"
    gateway = headrace(between(keys, text))
    assert [gateway.get().text.split("|")[2] for _ in range(3)] == [".", second, second]


def test_a_large_answer_from_a_tls_upstream(headrace: Make, keys: Path, upstream: Recorder) -> None:
    body = bytes(range(256)) * 8192
    upstream.answer = answer(body)
    gateway = headrace(
        f"server {{ listen %%PORT_1%% ssl; {use(keys, 'a')} client_max_body_size 8m; location / {{"
        f"proxy_pass http://127.0.0.1:{upstream.port}; }} }}"
        "server { listen %%PORT%%; client_max_body_size 8m; location / {"
        "proxy_pass https://127.0.0.1:%%PORT_1%%; } }"
    )
    assert gateway.ask("POST", "/", body).body == body
    assert upstream.requests[-1].body == body


# ---------------------------------------------------------------- what is refused

CERTIFICATE = "ssl_certificate KEYS/a.crt; ssl_certificate_key KEYS/a.key;"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssl_certificate KEYS/a.crt;", 'no "ssl_certificate_key" is defined for certificate'),
        ("ssl_certificate KEYS/no; ssl_certificate_key KEYS/a.key;", "2: No such file"),
        ("ssl_certificate KEYS/a.key; ssl_certificate_key KEYS/a.key;", "cannot load certificate"),
        ("ssl_certificate KEYS/a.crt; ssl_certificate_key KEYS/b.key;", "key values mismatch"),
        ("ssl_certificate KEYS/us.crt; ssl_certificate_key KEYS/us.locked;", "certificate key"),
        ("ssl_certificate engine:x; ssl_certificate_key engine:x;", "not supported by Headrace"),
        (f"{CERTIFICATE} ssl_verify_client on;", "no ssl_client_certificate or ssl_trusted_cert"),
        (f"{CERTIFICATE} ssl_verify_client on; ssl_client_certificate KEYS/no;", "2: No such file"),
        (f"{CERTIFICATE} ssl_trusted_certificate KEYS/a.key;", "SSL_CTX_load_verify_locations"),
        (f"{CERTIFICATE} ssl_ciphers NONSENSE;", 'SSL_CTX_set_cipher_list("NONSENSE") failed'),
        (f"{CERTIFICATE} ssl_protocols SSLv3;", "no TLS version"),
        (f"{CERTIFICATE} ssl_ecdh_curve nonsense;", 'SSL_CTX_set1_curves_list("nonsense") failed'),
        (f"{CERTIFICATE} ssl_dhparam KEYS/a.key;", "PEM_read_bio_DHparams() failed"),
        (f"{CERTIFICATE} ssl_session_ticket_key KEYS/passwords;", "must be 48 or 80 bytes"),
        (f"{CERTIFICATE} ssl_conf_command No Sense;", 'SSL_CONF_cmd("No", "Sense") failed'),
        ("ssl_session_cache shared:a:1k;", "is too small"),
        ("ssl_session_cache some;", 'invalid session cache "some"'),
        ("ssl_password_file KEYS/no;", "failed (2: No such file or directory)"),
    ],
)
def test_what_a_server_cannot_hold(keys: Path, text: str, message: str) -> None:
    with pytest.raises(ConfError) as error:
        conf = load_text(
            f"events {{ }}\nhttp {{\nserver {{\n{text.replace('KEYS', str(keys))}\n}} }}"
        )
        freeze_server(conf.find("http")[0].find("server")[0])
    assert message in str(error.value)
    assert "in conf:" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("proxy_ssl_verify on;", "no proxy_ssl_trusted_certificate for proxy_ssl_verify"),
        ("proxy_ssl_certificate KEYS/us.crt;", 'no "proxy_ssl_certificate_key" is defined for'),
        (
            "proxy_ssl_certificate KEYS/us.crt; proxy_ssl_certificate_key KEYS/us.locked;"
            "proxy_ssl_password_file KEYS/none;",
            'none" failed (2: No such file or directory)',
        ),
        ("proxy_ssl_verify on; proxy_ssl_trusted_certificate KEYS/no;", "2: No such file"),
        ("proxy_ssl_ciphers NONSENSE;", 'SSL_CTX_set_cipher_list("NONSENSE") failed'),
        ("proxy_ssl_protocols SSLv2;", "no TLS version"),
    ],
)
def test_what_a_location_cannot_hold(keys: Path, text: str, message: str) -> None:
    text = text.replace("KEYS", str(keys))
    conf = load_text(f"events {{ }}\nhttp {{ server {{ location / {{\n{text}\n}} }} }}")
    with pytest.raises(ConfError) as error:
        make_client(conf.find("http")[0].find("server")[0].find("location")[0])
    assert message in str(error.value)
    assert "in conf:2" in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "server { listen %%PORT%% ssl; }",
        "server { listen %%PORT%% ssl; ssl_reject_handshake on; } server { listen %%PORT%% ssl; }",
    ],
)
def test_a_tls_port_without_a_certificate(headrace: Make, text: str) -> None:
    gateway = headrace(text, start=False)
    with pytest.raises(AssertionError, match='no "ssl_certificate" is defined for the "listen'):
        gateway.start()


def test_damaged_handshakes_harm_nobody(headrace: Make, keys: Path) -> None:
    gateway = headrace(f"server {{ listen %%PORT%% ssl; {use(keys, 'a')} return 204; }}")
    outgoing = ssl.MemoryBIO()
    link = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        link.do_handshake()
    hello = outgoing.read()
    wait_for(gateway.workers)
    before = gateway.workers()
    chance = random.Random(7)
    for at in range(0, len(hello), 3):
        damaged = bytearray(hello)
        damaged[at] = chance.randrange(256)
        damaged[chance.randrange(len(hello))] ^= 1 << chance.randrange(8)
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as sock:
            sock.sendall(damaged[: chance.randrange(at, len(hello)) + 1])
    with TlsClient(gateway.port) as client:
        assert client.get().status == 204
    assert gateway.workers() == before


def records(data: bytes) -> list[int]:
    """The lengths of the TLS records of a stream (RFC 8446 §5.1)."""
    found = []
    while len(data) >= 5:
        size = int.from_bytes(data[3:5], "big")
        found.append(size)
        data = data[5 + size :]
    return found


@pytest.mark.parametrize(("name", "most"), [("a.test", 4096), ("b.test", 16384)])
def test_ssl_buffer_size_bounds_the_records(
    headrace: Make, keys: Path, name: str, most: int
) -> None:
    gateway = headrace(
        "server { listen %%PORT%% ssl; server_name a.test; ssl_buffer_size 4k; "
        f"{use(keys, 'a')} root %%DIR%%; }}"
        f"server {{ listen %%PORT%% ssl; server_name b.test; {use(keys, 'b')} root %%DIR%%; }}"
    )
    (gateway.prefix / "file").write_bytes(b"f" * 200_000)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    link = client_context().wrap_bio(incoming, outgoing, server_hostname=name)
    came = b""
    with RawClient(gateway.port) as client:
        while True:
            try:
                link.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.send(outgoing.read())
                incoming.write(client.sock.recv(65536))
        link.write(f"GET /file HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        came = client.send(outgoing.read()).read_all()
    overhead = 256
    sizes = records(came)
    assert sum(sizes) > 200_000
    assert most - overhead < max(sizes) <= most + overhead
