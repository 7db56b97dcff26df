"""map, split_clients and geo: what a conf with them answers."""

import pytest

from proxy.conf import ConfError, load_text
from proxy.variables import directives  # noqa: F401
from proxy.variables._variables import compile
from proxy.variables.door import Probe
from proxy.variables.freeze import begin, finish
from proxy.variables.networks import flatten, read_network


def plan(text):
    main = load_text("events {} http {\n" + text + "\n}", "t.conf")
    begin(main)
    finish()


def get(path="/", head="", client="127.0.0.1"):
    return Probe(f"GET {path} HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode(), client=client)


MAP = r"""
map $arg_a $m {
    default        none;
    x              one;
    Upper          two;
    ""             empty;
    \default       word;
    ~^(?<n>\d+)z   "n=$n 1=$1 $host";
    ~*^case        caseless;
    ~^case2        late;
}
"""


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("x", "one"),
        ("X", "one"),
        ("upper", "two"),
        ("", "empty"),
        ("default", "word"),
        ("42z", "n=42 1=42 h"),
        ("CASE2", "caseless"),
        ("other", "none"),
    ],
)
def test_map(value, found):
    plan(MAP)
    assert get(f"/?a={value}").value("m") == found.encode()


HOSTS = """
map $arg_a $m {
    hostnames;
    default            0;
    example.com        1;
    *.example.com      2;
    *.deep.example.com 3;
    .both.test         4;
    tail.*             5;
    tail.long.*        6;
    ~^re               7;
}
"""


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("example.com", 1),
        ("example.com.", 1),
        ("EXAMPLE.com", 1),
        ("a.example.com", 2),
        ("b.a.example.com", 2),
        ("a.deep.example.com", 3),
        ("deep.example.com", 2),
        ("both.test", 4),
        ("x.both.test", 4),
        ("tail.org", 5),
        ("tail.long.org", 6),
        ("tail", 0),
        ("rest", 7),
        ("." * 5000, 0),
    ],
)
def test_map_of_host_names(value, found):
    plan(HOSTS)
    assert get(f"/?a={value}").value("m") == str(found).encode()


def test_volatile_is_asked_again():
    plan("map $args $v { volatile; ~^a A; default B; } map $args $k { ~^a A; default B; }")
    set_args = compile("$v$k")
    probe = get("/?a")
    assert probe.evaluate(set_args) == b"AA"


def test_a_map_that_asks_for_itself_is_a_fault():
    plan("map $m $m { default $m; }")
    with pytest.raises(ArithmeticError):
        get().value("m")


WRONG = {
    "map $host m { }": 'invalid variable name "m" in t.conf:2',
    "map $host $m { a b c; }": "invalid number of the map parameters in t.conf:2",
    "map $host $m {\n default 1;\n default 2; }": "duplicate default map parameter in t.conf:4",
    "map $host $m {\n a 1;\n A 2; }": 'conflicting parameter "A" in t.conf:4',
    "map $host $host { }": 'the duplicate "host" variable in t.conf:2',
    "map $nope $m { }": 'unknown "nope" variable in t.conf:2',
    "map $host $m { hostnames; a*b 1; }": 'invalid hostname or wildcard "a*b" in t.conf:2',
    "split_clients $host $s { 60% a; 50% b; }": "percent total is greater than 100% in t.conf:2",
    "split_clients $host $s { 0% a; }": 'invalid percent value "0%" in t.conf:2',
    "split_clients $host $s { x a; }": 'invalid percent value "x" in t.conf:2',
    "geo $g { 10.0.0.0/33 1; }": 'invalid network "10.0.0.0/33" in t.conf:2',
    "geo $g { ranges; 10.0.0.9-10.0.0.1 1; }": 'invalid range "10.0.0.9-10.0.0.1" in t.conf:2',
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_blocks_are_refused(text):
    with pytest.raises(ConfError) as error:
        plan(text)
    assert str(error.value) == WRONG[text]


def test_split_clients():
    plan("split_clients $arg_a $s { 51.2% ka; 10% kb; * rest; }")
    assert get("/").value("s") == b"ka"
    # as nginx parts twenty connections numbered from one
    first = [get(f"/?a={i}").value("s") for i in range(1, 21)]
    assert (first.count(b"ka"), first.count(b"kb"), first.count(b"rest")) == (12, 2, 6)
    parts = [get(f"/?a={i}").value("s") for i in range(2000)]
    assert 900 < parts.count(b"ka") < 1150
    assert 140 < parts.count(b"kb") < 260


def test_split_clients_without_rest():
    plan("split_clients $arg_a $s { 0.01% a; }")
    assert get("/?a=1").value("s") == b""


GEO = """
geo $g {
    default       none;
    10.0.0.0/8    ten;
    10.1.0.0/16   inner;
    10.1.2.3      host;
    192.0.2.0/24  gone;
    delete        192.0.2.0/24;
    2001:db8::/32 six;
    ::1           loop;
}
geo $arg_ip $by_arg { default d; 10.0.0.0/8 ten; 255.255.255.255 nowhere; }
geo $r { ranges; default d; 10.0.0.0-10.0.0.255 a; 10.0.0.7-10.0.0.9 b; 10.1.0.0-10.1.255.255 c;
    delete 10.1.0.0-10.1.255.255; }
geo $p { default d; proxy 127.0.0.1; proxy 10.0.0.0/24; 10.0.0.5 five; 192.0.2.1 far; }
geo $q { proxy_recursive; default d; proxy 127.0.0.1; proxy 10.0.0.0/24; 192.0.2.1 far; }
"""


@pytest.mark.parametrize(
    ("client", "found"),
    [
        ("127.0.0.1", "none"),
        ("10.9.9.9", "ten"),
        ("10.1.9.9", "inner"),
        ("10.1.2.3", "host"),
        ("10.1.2.4", "inner"),
        ("10.2.0.0", "ten"),
        ("11.0.0.0", "none"),
        ("192.0.2.1", "none"),
        ("2001:db8:1::1", "six"),
        ("2001:db9::", "none"),
        ("::1", "loop"),
        ("::ffff:10.1.2.3", "host"),
        ("unix:", "none"),
    ],
)
def test_geo(client, found):
    plan(GEO)
    assert get(client=client).value("g") == found.encode()


@pytest.mark.parametrize(
    ("address", "found"), [("10.0.0.1", "ten"), ("1.1.1.1", "d"), ("x", "nowhere"), ("", "nowhere")]
)
def test_geo_of_another_variable(address, found):
    plan(GEO)
    assert get(f"/?ip={address}").value("by_arg") == found.encode()


@pytest.mark.parametrize(
    ("client", "found"),
    [("10.0.0.6", "a"), ("10.0.0.7", "b"), ("10.0.0.9", "b"), ("10.0.0.10", "a"),
     ("10.0.1.0", "d"), ("10.1.0.0", "d"), ("::1", "d")],
)  # fmt: skip
def test_geo_ranges(client, found):
    plan(GEO)
    assert get(client=client).value("r") == found.encode()


@pytest.mark.parametrize(
    ("forwarded", "once", "all_the_way"),
    [
        (["192.0.2.1"], "far", "far"),
        (["192.0.2.1, 10.0.0.5"], "five", "far"),
        (["192.0.2.1", "10.0.0.5"], "five", "far"),
        (["junk"], "d", "d"),
        ([], "d", "d"),
    ],
)
def test_geo_behind_proxies(forwarded, once, all_the_way):
    plan(GEO)
    probe = get(head="".join(f"X-Forwarded-For: {line}\r\n" for line in forwarded))
    assert probe.value("p") == once.encode()
    assert probe.value("q") == all_the_way.encode()


def test_nested_networks_are_parted():
    nets = {}
    for text in ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "255.255.255.255"):
        first, prefix, _ = read_network(text)
        nets[first, prefix] = text.encode()
    rows = flatten(nets, 32)
    assert [row[2] for row in rows] == [
        b"0.0.0.0/0", b"10.0.0.0/16", b"10.0.0.0/8", b"0.0.0.0/0", b"255.255.255.255",
    ]  # fmt: skip
    assert rows[0][0] == 0 and rows[-1][1] == 0xFFFFFFFF
    assert all(a[1] + 1 == b[0] for a, b in zip(rows, rows[1:], strict=False))
