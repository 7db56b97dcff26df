"""Server names and hosts: nginx's rules, as its own tests state them."""

import pytest

from proxy.base._pcre import Pattern
from proxy.conf import ConfError, load_text
from proxy.routing import directives  # noqa: F401  (declares server_name)
from proxy.routing._names import Names, host_of
from proxy.routing.server_name import ServerName, build_names, names_of

FUTURE = b"[v0123456789aBcDeF.!$&'()*+,;=-._~AbCdEfGhIjKlMnOpQrStUvWxYz0123456789:]"


@pytest.mark.parametrize(
    ("field", "host", "port"),
    [
        (b"l", b"l", 0),
        (b"L", b"l", 0),
        (b"abcd-ef.g02.xyz:", b"abcd-ef.g02.xyz", 0),
        (b"abcd-ef.g02.xyz:8080", b"abcd-ef.g02.xyz", 8080),
        (b"www.abcd-ef.g02.xyz.", b"www.abcd-ef.g02.xyz", 0),
        (b"abcd-ef.g02.xyz.:88", b"abcd-ef.g02.xyz", 88),
        (b"AbC-d93.0.34ZhGt-s.nk.Ru:88", b"abc-d93.0.34zhgt-s.nk.ru", 88),
        (b"123.40.56.78:65535", b"123.40.56.78", 65535),
        (b"[abcd::ef98:0:7654:321]", b"[abcd::ef98:0:7654:321]", 0),
        (b"[ABCD::ef98:0:7654:321]:80", b"[abcd::ef98:0:7654:321]", 80),
        (b"[::ffff:12.30.67.89]:4321", b"[::ffff:12.30.67.89]", 4321),
        (FUTURE, FUTURE.lower(), 0),
        (b"a_b~c!$&'()*+,;=", b"a_b~c!$&'()*+,;=", 0),
        (b"a%20b", b"a%20b", 0),
        (b".a", b".a", 0),
    ],
)
def test_host(field, host, port):
    assert host_of(field) == (host, port)


@pytest.mark.parametrize(
    "field",
    [
        b"", b".", b":", b":80", b"example.com.:1.2", b"1.2.3.4:98777", b"1.2.3.4:65536",
        b"1.2.3.4:9000:80", b"example.com/\\:552", b"..examp-LE.com", b"com.exa-m.45..:",
        b"[abcd::e\\f98:0/:7654:321]", b"[abcd::ef98].", b"[abcd::ef98].:98", b"[abcd::ef98]..:98",
        b"[ab..cd::ef98]", b"extra[abcd::ef98]:98", b"[abcd::ef98", b"[", b"localhost\x02", b"a b",
        b"a@b", b"a,b c", b"a\0", b"a?b", b"a#b", b"\xc3\xa4.de", b"a]", b"[a%20]", b"a:8o",
        b"a:99999999999999999999",
    ],
)  # fmt: skip
def test_host_refused(field):
    with pytest.raises(ValueError, match="invalid host"):
        host_of(field)


@pytest.fixture
def names():
    names = Names("default")
    for name in (
        "localhost", "", "www.example.com", "many.example.com", "*.wc.example.com",
        "*.pref.wc.example.com", "wc2.example.*", "wc2.example.com.*", ".dot.example.com",
    ):  # fmt: skip
        assert names.add(name, name)
    names.add_pattern(Pattern(r"^EXAMPLE\.COM$", caseless=True), "regex")
    names.add_pattern(Pattern(r"^(?P<name>[a-z]+)\Q.example.com\E$"), "named")
    names.add_pattern(Pattern(r"^(?P<name>www\p{N}+)\.example\.com$"), "number")
    return names


@pytest.mark.parametrize(
    ("host", "server", "groups"),
    [
        (b"xxx", "default", None),
        (b"", "", None),
        (b"www.example.com", "www.example.com", None),
        (b"example.com", "regex", [b"example.com"]),
        (b"blah.example.com", "named", [b"blah.example.com", b"blah"]),
        (b"www01.example.com", "number", [b"www01.example.com", b"www01"]),
        (b"many.example.com", "many.example.com", None),
        (b"www.wc.example.com", "*.wc.example.com", None),
        (b"a.b.wc.example.com", "*.wc.example.com", None),
        (b"wc.example.com", "named", [b"wc.example.com", b"wc"]),
        (b"www.pref.wc.example.com", "*.pref.wc.example.com", None),
        (b"wc2.example.net", "wc2.example.*", None),
        (b"wc2.example.co.uk", "wc2.example.*", None),
        (b"wc2.example", "default", None),
        (b"wc2.example.com.pref", "wc2.example.com.*", None),
        (b"www.dot.example.com", ".dot.example.com", None),
        (b"dot.example.com", ".dot.example.com", None),
        (b"xdot.example.com", "named", [b"xdot.example.com", b"xdot"]),
    ],
)
def test_server(names, host, server, groups):
    assert names.find(host) == (server, groups)


def test_a_host_longer_than_any_name(names):
    assert names.find(b"a" * 5000 + b".wc.example.com")[0] == "default"


@pytest.mark.parametrize("name", ["a*", "*a.b", "a..b", "*.a.*", "a.*.b", "*.*"])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="invalid server name or wildcard"):
        Names("default").add(name, 1)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.b", "A.B"), ("*.a", "*.a"), ("*.a", ".a"), (".a", "*.a"), ("a", ".a"), ("a.*", "a.*")],
)
def test_the_first_of_two_stays(first, second):
    names = Names("default")
    assert names.add(first, 1)
    assert not names.add(second, 2)


def conf(*servers):
    text = "\n".join("server {" + it + "}" for it in servers)
    return load_text("events {} http {" + text + "}", "conf").find("http")[0].find("server")


def test_names_from_a_conf():
    servers = conf("server_name a *.B; server_name ~^(X)y$;", "server_name a ~^x;", "")
    pairs = list(zip(servers, "ABC", strict=True))
    names, warnings = build_names("127.0.0.1:80", pairs, "A")
    assert names.find(b"a")[0] == "A"
    assert names.find(b"q.b")[0] == "A"
    assert names.find(b"xy") == ("A", [b"xy", b"x"])
    assert names.find(b"xz")[0] == "B"
    assert names.find(b"")[0] == "C"
    assert warnings == ['conflicting server name "a" on 127.0.0.1:80, ignored']


def test_the_shown_name():
    (server,) = conf("server_name .dot.Example.com;")
    assert names_of(server)[0].shown == "dot.example.com"
    (server,) = conf(r"server_name ~^EX\.COM$;")
    assert names_of(server)[0].shown == r"~^EX\.COM$"
    assert names_of(conf("")[0]) == [ServerName("", None)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~", 'empty regex in server name "~" in conf:1'),
        ("*", 'server name "*" is invalid in conf:1'),
        ("*a", 'server name "*a" is invalid in conf:1'),
        (".", 'server name "." is invalid in conf:1'),
        ("~a(", 'pcre2_compile() failed: missing closing parenthesis in "a(" in conf:1'),
    ],
)
def test_names_refused_with_their_place(name, message):
    with pytest.raises(ConfError) as error:
        conf(f"server_name {name};")
    assert str(error.value) == message
