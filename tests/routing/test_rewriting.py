"""set, if, rewrite, return and break: what a block of them makes of a request."""

import os

import pytest

from proxy.conf import ConfError, load_text
from proxy.routing._rewrite import run_on
from proxy.routing.rewrite import compile_rewrite
from proxy.variables import directives  # noqa: F401
from proxy.variables.door import Probe
from proxy.variables.freeze import begin, finish

FAULT_INTERNAL = -64
FAULT_LOOP = -67


PLANS = []  # a plan outlives its requests, so that texts may be borrowed from it


class Setting:
    """Stands for what the plan makes of an `if` block: its Location."""

    def __init__(self):
        self.made = []

    def __call__(self, block):
        from proxy.base._request import Location

        location = Location(b"if%d" % len(self.made))
        self.made.append(location)
        return location


def program_of(text, in_server=False):
    body = text if in_server else "location / {\n" + text + "\n}"
    main = load_text("events {} http { server {\n" + body + "\n} }", "t.conf")
    begin(main)
    server = main.find("http")[0].find("server")[0]
    block = server if in_server else server.find("location")[0]
    program = compile_rewrite(block, None if in_server else Setting())
    finish()
    PLANS.append(program)
    return program


def run(text, target="/", *, uri=None, in_server=False, head=""):
    program = program_of(text, in_server)
    probe = Probe(
        f"GET {target} HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode(),
        uri=None if uri is None else uri.encode("latin-1"),
    )
    return probe, run_on(program, probe.request)


REWRITES = [
    # conf, target, normalised path, what run says, uri, args
    ("rewrite ^/a/(.*) /b/$1;", "/a/x", None, "again", "/b/x", ""),
    ("rewrite ^/a/(.*) /b/$1 last;", "/a/x?q=1", None, "again", "/b/x", "q=1"),
    ("rewrite ^/a/(.*) /b/$1 break;", "/a/x?q=1", None, "go", "/b/x", "q=1"),
    ("rewrite ^/no /b;", "/a/x?q=1", None, "go", "/a/x", "q=1"),
    ("rewrite ^ /b?c=d;", "/a?q=1", None, "again", "/b", "c=d&q=1"),
    ("rewrite ^ /b?c=d;", "/a", None, "again", "/b", "c=d"),
    ("rewrite ^ /b?c=d?;", "/a?q=1", None, "again", "/b", "c=d"),
    ("rewrite ^ /b?;", "/a?q=1", None, "again", "/b", ""),
    ("rewrite ^(.*) $1?c=$1;", "/x/%25?a=b", "/x/%", "again", "/x/%", "c=/x/%25&a=b"),
    ("rewrite ^(.*) $1?c=$1;", "/x/y?a=b", None, "again", "/x/y", "c=/x/y&a=b"),
    ("rewrite ^/(?<n>.*) /u/$n-$host;", "/me", None, "again", "/u/me-h", ""),
    ("rewrite ^ /b; rewrite ^/b /c; rewrite ^/a /d;", "/a", None, "again", "/c", ""),
    ("rewrite ^ /b last; rewrite ^ /c;", "/a", None, "again", "/b", ""),
    ("rewrite ^ /b; break; rewrite ^ /c;", "/a", None, "go", "/b", ""),
    ("break; rewrite ^ /c;", "/a", None, "go", "/a", ""),
    ("set $args z=1;", "/a?q=1", None, "go", "/a", "z=1"),
    ("set $args $args&z=1; rewrite ^ /b;", "/a?q=1", None, "again", "/b", "q=1&z=1"),
]


@pytest.mark.parametrize(("conf", "target", "path", "said", "uri", "args"), REWRITES)
def test_rewrites(conf, target, path, said, uri, args):
    probe, verdict = run(conf, target, uri=path)
    assert (verdict, probe.uri, probe.args) == (said, uri.encode(), args.encode())


def test_break_keeps_the_location_and_sends_the_new_uri():
    for conf in ("rewrite ^ /b break;", "rewrite ^ /b; break;"):
        probe, verdict = run(conf)
        assert verdict == "go"
        assert probe.is_uri_in_proxy
    assert not run("break;")[0].is_uri_in_proxy
    assert not run("rewrite ^ /b;")[0].is_uri_in_proxy


def test_a_server_searches_once_anyway():
    probe, verdict = run("rewrite ^/a /b;", "/a", in_server=True)
    assert (verdict, probe.uri) == ("go", b"/b")


def test_an_empty_path_is_a_fault():
    assert run("rewrite ^ $arg_none;")[1] == FAULT_INTERNAL


def test_ten_rounds_and_no_more():
    program = program_of("rewrite ^ /again;")
    probe = Probe()
    assert [run_on(program, probe.request) for _ in range(11)] == ["again"] * 10 + [FAULT_LOOP]


REDIRECTS = [
    ("rewrite ^ http://e/ redirect;", "/", None, 302, "http://e/"),
    ("rewrite ^ http://e/;", "/?a=b", None, 302, "http://e/?a=b"),
    ("rewrite ^ https://e/ permanent;", "/", None, 301, "https://e/"),
    ("rewrite ^ $scheme://e/;", "/", None, 302, "http://e/"),
    ("rewrite ^ /x permanent;", "/", None, 301, "/x"),
    ("rewrite ^ http://e/?c=d redirect;", "/?a=b", None, 302, "http://e/?c=d&a=b"),
    ("rewrite ^ http://e/?c=d? redirect;", "/?a=b", None, 302, "http://e/?c=d"),
    ("rewrite ^(.*) http://e$1 redirect;", "/a/b", None, 302, "http://e/a/b"),
    ("rewrite ^ $arg_r? redirect;", "/?r=http%3A%2F%2Fe%2F%3Ffrom", None, 302, "http://e/?from"),
    ("rewrite ^ $arg_r? redirect;", "/?r=http%3A%2F%2Fe%0D%0As", None, 302, "http://e%0D%0As"),
    ("rewrite ^ http://e$uri? redirect;", "/a%0D%0AX:b", "/a\r\nX:b", 302, "http://e/a%0D%0AX:b"),
    ("return 302 http://e$uri;", "/a%0D%0AX:b", "/a\r\nX:b", 302, "http://e/a%0D%0AX:b"),
    ("return 301 /new$is_args$args;", "/?q", None, 301, "/new?q"),
    ("return 308 text;", "/", None, 308, "text"),
    ("return http://e/;", "/", None, 302, "http://e/"),
    ("return $scheme://$host$request_uri;", "/p?q", None, 302, "http://h/p?q"),
]


@pytest.mark.parametrize(("conf", "target", "path", "status", "location"), REDIRECTS)
def test_redirects(conf, target, path, status, location):
    probe, verdict = run(conf, target, uri=path)
    assert (verdict, probe.status) == ("status", status)
    assert probe.fields == [(b"Location", location.encode())]


RETURNS = [
    ("return 204;", "done", 204, ""),
    ("return 200;", "done", 200, ""),
    ('return 200 "";', "done", 200, ""),
    ('return 200 "uri:$uri args:$args";', "done", 200, "uri:/x args:a=1"),
    ("return 404 text;", "done", 404, "text"),
    ("return 306;", "done", 306, ""),
    ("return 405;", "status", 405, ""),
    ('return 405 "";', "status", 405, ""),
    ("return 444;", "status", 444, ""),
    ("return 200 a; return 201 b;", "done", 200, "a"),
]


@pytest.mark.parametrize(("conf", "said", "status", "text"), RETURNS)
def test_returns(conf, said, status, text):
    probe, verdict = run(conf, "/x?a=1")
    assert (verdict, probe.status, probe.text) == (said, status, text.encode())


CONDITIONS = [
    ("$arg_a", "a=1", True),
    ("$arg_a", "a=0", False),
    ("$arg_a", "a=00", True),
    ("$arg_a", "a=", False),
    ("$arg_a", "", False),
    ("$arg_a = x", "a=x", True),
    ("$arg_a = x", "a=X", False),
    ('$arg_a = ""', "", True),
    ("$arg_a != x", "a=x", False),
    ("$arg_a != x", "", True),
    ("$arg_a = $arg_b", "a=1&b=1", True),
    ("$arg_a ~ ^x", "a=xy", True),
    ("$arg_a ~ ^x", "a=Xy", False),
    ("$arg_a ~* ^x", "a=Xy", True),
    ("$arg_a !~ ^x", "a=xy", False),
    ("$arg_a !~* ^x", "a=Xy", False),
    ("$arg_a !~* ^x", "a=y", True),
    (" $arg_a ", "a=1", True),
]


@pytest.mark.parametrize(("condition", "args", "is_true"), CONDITIONS)
@pytest.mark.parametrize("in_server", [False, True])
def test_conditions(condition, args, is_true, in_server):
    conf = f"if ({condition}) {{ return 200 yes; }} return 200 no;"
    probe, _ = run(conf, "/?" + args, in_server=in_server)
    assert probe.text == (b"yes" if is_true else b"no")


def test_file_conditions(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "run").write_text("x")
    (tmp_path / "run").chmod(0o755)
    os.symlink(tmp_path / "nowhere", tmp_path / "broken")
    told = {"file": "fe", "run": "fex", ".": "dex", "none": "", "broken": ""}
    for name, kinds in told.items():
        for kind in "fdex":
            for bang in ("", "!"):
                conf = f"if ({bang}-{kind} {tmp_path}/$arg_f) {{ return 200 yes; }} return 200 no;"
                probe, _ = run(conf, f"/?f={name}")
                assert (probe.text == b"yes") == ((kind in kinds) != bool(bang)), (name, bang, kind)


def test_an_if_in_a_location_has_its_settings():
    conf = "if ($arg_a) { set $x in; } if ($arg_b) { set $x $x-b; } set $y $x;"
    probe, verdict = run(conf, "/?a=1")
    assert (verdict, probe.location.name) == ("go", b"if0")
    assert probe.value("y") == b"in"
    assert run(conf, "/?a=1&b=1")[0].location.name == b"if1"
    assert run(conf, "/")[0].location.name == b"/"
    assert run(conf, "/")[0].value("y") == b""


def test_captures_of_a_condition_reach_what_follows():
    conf = "if ($arg_a ~ ^(?<named>.)(.)) { return 200 $1$2$named; } return 200 [$1];"
    assert run(conf, "/?a=xy")[0].text == b"xyx"
    assert run(conf, "/?a=")[0].text == b"[]"


def test_a_set_name_of_a_family_holds_only_where_it_was_set():
    conf = "if ($arg_a) { set $http_foo set; } return 200 $http_foo;"
    assert run(conf, "/?a=1", head="Foo: sent\r\n")[0].text == b"set"
    assert run(conf, "/", head="Foo: sent\r\n")[0].text == b"sent"


def test_break_inside_an_if_ends_the_whole_block():
    assert run("if ($arg_a) { break; } return 200 x;", "/?a=1")[1] == "go"


def test_set_escapes_captures_of_an_encoded_path():
    # as nginx: until a rewrite of the same block matched
    conf = "if ($uri ~ ^/(.*)) { set $x $1; } return 200 $x;"
    assert run(conf, "/a%20b", uri="/a b")[0].text == b"a%20b"
    assert run(conf, "/ab")[0].text == b"ab"


WRONG = {
    "if $a { }": 'invalid condition "$a" in t.conf:3',
    "if ($host { }": 'invalid condition "($host" in t.conf:3',
    "if ($host == a) { }": 'unexpected "==" in condition in t.conf:3',
    "if ($host a) { }": 'invalid condition "$host" in t.conf:3',
    "if (host = a) { }": 'invalid condition "host" in t.conf:3',
    "if (-g /x) { }": 'invalid condition "-g" in t.conf:3',
    "if () { }": 'invalid condition "" in t.conf:3',
    "set host a;": 'invalid variable name "host" in t.conf:3',
    "set $host a;": 'the duplicate "host" variable in t.conf:3',
    "set $x $y;": 'unknown "y" variable in t.conf:3',
    "rewrite ^ /a often;": 'invalid parameter "often" in t.conf:3',
    'rewrite ^ "";': "empty replacement in t.conf:3",
    "return abc;": 'invalid return code "abc" in t.conf:3',
    "return 1000;": 'invalid return code "1000" in t.conf:3',
    "return http://e/ x;": 'invalid return code "http://e/" in t.conf:3',
    "rewrite ( /a;": 'pcre2_compile() failed: missing closing parenthesis in "(" in t.conf:3',
}


@pytest.mark.parametrize("conf", WRONG)
def test_wrong_directives_are_refused(conf):
    with pytest.raises(ConfError) as error:
        program_of(conf)
    assert str(error.value) == WRONG[conf]


def test_a_value_cannot_grow_without_bound():
    assert run("set $a 0123456789; " + "set $a $a$a; " * 40 + "return 200 $a;")[1] == -65
