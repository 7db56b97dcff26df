"""The words of functions: what is refused, where, and what the model says of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy import order
from proxy.conf import load
from proxy.conf.inherit import Block
from proxy.conf.report import ConfError
from proxy.functions.declared import read_functions
from proxy.functions.model import (
    Function,
    Handler,
    Limits,
    Queue,
    Ready,
    Scale,
    find_function,
)
from proxy.upstream.sticky import Sticky

order.declare_all()


def read(folder: Path, inside: str) -> Block:
    if not (folder / "app.py").exists():
        (folder / "app.py").touch()
    conf = folder / "headrace.conf"
    conf.write_text(f"events {{ }}\nhttp {{\n{inside}\n}}\n")
    return load(str(conf), f"{folder}/", "")


def read_one(folder: Path, inside: str) -> Function:
    (found,) = read_functions(read(folder, f"function a {{ {inside} }}")).values()
    return found


REFUSED = [
    ("function a/b { command true; }", 'invalid function name "a/b"'),
    ("function a { }", 'function "a" has nothing to run'),
    ("function a { version v2 { weight 1; } }", 'function "a" has nothing to run'),
    ("function a { command x; python app.py:f; }", 'both "command" and "python"'),
    ("function a { command x; version v2 { fork x; static 1.2.3.4:5; } }",
     'version "v2" has both "fork" and "static"'),
    ("function a { command x; }\nfunction a { command y; }", 'duplicate function "a.openfaas-fn"'),
    ("function a { command x; version v2 { } version v2 { } }", 'duplicate version "v2"'),
    ("function a { command x; version v1 { } }", 'function "a" itself is version "v1"'),
    ("function a { command x; version a/b { } }", 'invalid version name "a/b"'),
    ("function a { command x; version b { weight 60; } version c { weight 50; } }",
     "are more than 100 together"),
    ("function a { command x; weight 0; }", 'no version of function "a" has a weight'),
    ("function a { command x; version b { weight 10; mirror 5%; } }", 'can have no "weight"'),
    ("function a { command x; version b { mirror 0%; } }", 'invalid share "0%"'),
    ("function a { command x; version b { namespace x; } }", "is not allowed here"),
    ("function a { command x; namespace a.b; }", 'invalid namespace "a.b"'),
    ("function a { python app.py; }", "invalid handler"),
    ("function a { python app.py:f-g; }", "invalid handler"),
    ("function a { python none.py:f; }", "failed (2: No such file or directory)"),
    ("function a { lambda app; }", "it must be FILE.handler"),
    ("function a { lambda none.f; }", "failed (2: No such file or directory)"),
    ("function a { openwhisk none.py; }", "failed (2: No such file or directory)"),
    ("function a { static backend:80; }", '"backend:80" is no address'),
    ("function a { provider A; }", 'invalid provider name "A"'),
    ("function a { command x; interpreter python3; }", '"interpreter" is for "python" only'),
    ("function a { python app.py:f; interpreter x; venv y; }", 'both "interpreter" and "venv"'),
    ("function a { command x; env A=B 1; }", "invalid name of an environment variable"),
    ("function a { command x; env PORT 1; }", '"PORT" is set by Headrace'),
    ("function a { command x; env SECRETS_PATH 1; }", '"SECRETS_PATH" is set by Headrace'),
    ("function a { command x; ready here; }", 'invalid path "here"'),
    ("function a { command x; ready / soon=1s; }", 'invalid parameter "soon=1s"'),
    ("function a { command x; min_scale 1001; }", "value must be between 0 and 1000"),
    ("function a { command x; min_scale 3; max_scale 2; }", 'more than "max_scale" 2'),
    ("function a { command x; metric cpu; }", 'invalid value "cpu"'),
    ("function a { command x; target 0; }", "value must be between 0.01 and"),
    ("function a { command x; utilization 70; }", "value must be between 1% and 100%"),
    ("function a { command x; panic_threshold 100%; }", "value must be between 110% and 1000%"),
    ("function a { command x; window 2h; }", "value must be from 1s to 1h"),
    ("function a { command x; queue size=x; }", 'invalid parameter "size=x"'),
    ("function a { command x; queue seize=1; }", 'invalid parameter "seize=1"'),
    ("function a { command x; sticky body=1; }", 'invalid parameter "body=1"'),
    ("function a { command x; sticky cookie=a;b; }", "unknown directive"),
    ("function a { command x; sticky header=a expires=1h; }", 'invalid parameter "expires=1h"'),
    ("function a { command x; sticky address=1; }", 'invalid parameter "address=1"'),
    ("function a { command x; labels team; }", 'invalid label "team"'),
    ("function a { command x; limits memory=lots; }", 'invalid parameter "memory=lots"'),
    ("function a { command x; secrets ../key; }", 'invalid name of a secret "../key"'),
    ("function a { command x; labels com.openfaas.scale.type=cpu; }",
     'com.openfaas.scale.type: "cpu" is not supported'),
    ("function a { command x; annotation autoscaling.knative.dev/window 1s; }",
     'autoscaling.knative.dev/window: "1s" is not from 6s to 3600s'),
    ("function a { command x; max_scal 3; }", 'unknown directive "max_scal"'),
    ("functions { rot x; }", 'unknown directive "rot"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text for text, _ in REFUSED])
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfError) as caught:
        read_functions(read(tmp_path, text))
    assert message in str(caught.value)
    assert "headrace.conf:" in str(caught.value)


def test_a_function_nobody_declared_is_refused(tmp_path: Path) -> None:
    from proxy import plan

    model = read(tmp_path, "server { location / { function_pass none; } }")
    with pytest.raises(ConfError, match='function "none" is not declared'):
        plan.check(model)


def test_every_word_of_the_example(tmp_path: Path) -> None:
    (tmp_path / "two.py").touch()
    it = read_one(
        tmp_path,
        """
        namespace     photos;
        python        app.py:handle;
        min_scale     0;  max_scale 20;  initial_scale 1;  prewarm 1;
        metric        concurrency;  target 10;  utilization 70%;
        window        60s;  panic_window 10%;  scale_down_delay 0s;  retention 30s;
        concurrency   10;
        queue         size=1000 bytes=64m wait=30s;
        timeout       60s;
        ready         /healthz interval=20ms timeout=1s;
        labels        team=pay tier=gold;
        annotation    headrace.io/route "GET api.example.com/thumbs/*";
        version       v2 { python two.py:handle;  weight 10; }
        sticky        cookie=hr_version;
        """,
    )
    assert it.key == "a.photos"
    assert it.labels == {"team": "pay", "tier": "gold"}
    assert it.annotations == {"headrace.io/route": "GET api.example.com/thumbs/*"}
    assert it.sticky == Sticky("cookie", "hr_version")
    assert str(it.sticky) == "cookie=hr_version"
    one, two = it.versions
    assert (one.key, two.key) == ("a.photos/v1", "a.photos/v2")
    assert (one.weight, two.weight) == (90, 10)
    assert two.handler == Handler("python", (f"{tmp_path}/two.py", "handle"))
    assert one.scale == two.scale == Scale(max_scale=20, prewarm=1, target=10)
    assert two.concurrency == 10
    assert two.queue == Queue(1000, 64 << 20, 30_000)
    assert two.ready == Ready("/healthz", 20, 1000)
    assert it.is_from_conf


def test_what_a_version_says_wins_over_its_function(tmp_path: Path) -> None:
    it = read_one(
        tmp_path,
        "command x; env A 1; timeout 5s; max_scale 3; weight 1; tag old;"
        "version b { weight 3; env B 2; max_scale 4; tag new; }"
        "version c { mirror 2.5%; timeout 1s; }",
    )
    one, b, c = it.versions
    assert [it.weight for it in it.versions] == [1, 3, 0]
    assert [it.tag for it in it.versions] == ["old", "new", ""]
    assert b.handler == c.handler == one.handler
    assert (one.env, b.env, c.env) == ((("A", "1"),), (("B", "2"),), (("A", "1"),))
    assert (one.scale.max_scale, b.scale.max_scale, c.scale.max_scale) == (3, 4, 3)
    assert (b.timeout_ms, c.timeout_ms) == (5000, 1000)
    assert (c.mirror, c.is_shadow, b.is_shadow) == (2.5, True, False)


def test_versions_alone(tmp_path: Path) -> None:
    it = read_one(tmp_path, "timeout 1s; version b { command x; weight 1; }")
    assert [it.name for it in it.versions] == ["b"]


KINDS = [
    ("command a b", Handler("command", ("a", "b"))),
    ("fork cat", Handler("fork", ("cat",))),
    ("lambda app.handler", Handler("lambda", ("%DIR%/app.py", "handler"))),
    ("lambda app.py:handler", Handler("lambda", ("%DIR%/app.py", "handler"))),
    ("openwhisk app.py", Handler("openwhisk", ("%DIR%/app.py",))),
    ("static 127.0.0.1:1 [::1]:2 unix:/a", Handler("static", ("127.0.0.1:1", "[::1]:2",
                                                              "unix:/a"))),
    ("provider openfaas http://x", Handler("openfaas", ("http://x",))),
]  # fmt: skip


@pytest.mark.parametrize(("text", "handler"), KINDS, ids=[text for text, _ in KINDS])
def test_kinds(tmp_path: Path, text: str, handler: Handler) -> None:
    (version,) = read_one(tmp_path, f"{text};").versions
    words = tuple(word.replace("%DIR%", str(tmp_path)) for word in handler.words)
    assert version.handler == Handler(handler.kind, words)


def test_defaults_are_knatives(tmp_path: Path) -> None:
    (version,) = read_one(tmp_path, "command x;").versions
    assert version.scale == Scale()
    assert (version.concurrency, version.timeout_ms) == (0, 60_000)
    assert version.queue == Queue()
    assert version.limits == Limits()


@pytest.mark.parametrize(
    ("words", "scale"),
    [
        ("labels com.openfaas.scale.min=2 com.openfaas.scale.max=5;", Scale(2, 5)),
        ("labels com.openfaas.scale.min=2 com.openfaas.scale.zero=true"
         " com.openfaas.scale.zero-duration=15m;",
         Scale(0, activation_scale=2, retention_ms=900_000)),
        ("labels com.openfaas.scale.type=rps com.openfaas.scale.target=50"
         " com.openfaas.scale.target-proportion=0.9 com.openfaas.scale.factor=20;",
         Scale(metric="rps", target=50, utilization=0.9)),
        ("annotation autoscaling.knative.dev/min-scale 1;"
         "annotation autoscaling.knative.dev/maxScale 4;"
         "annotation autoscaling.knative.dev/window 6s;"
         "annotation autoscaling.knative.dev/target-utilization-percentage 50;"
         "annotation autoscaling.knative.dev/panic-threshold-percentage 300;",
         Scale(1, 4, window_ms=6000, utilization=0.5, panic_threshold=3)),
        ("annotation autoscaling.knative.dev/metric-aggregation-algorithm weighted-exponential;",
         Scale(aggregation="weighted")),
        ("labels com.openfaas.scale.max=5; max_scale 9;", Scale(max_scale=9)),
    ],
)  # fmt: skip
def test_labels_and_annotations_mean_the_same(tmp_path: Path, words: str, scale: Scale) -> None:
    assert read_one(tmp_path, f"command x; {words}").versions[0].scale == scale


def test_values(tmp_path: Path) -> None:
    model = read(
        tmp_path,
        "function a { command ./serve --at $PORT/${SOCKET}/$PORTS; env A 1; env B 'x y';"
        "ready /up interval=5ms timeout=2s; min_scale 3; drain_timeout 5s; limits cpu=500m"
        " memory=64m; secrets one two; user nobody; }"
        "function b { python app.py:App.run; interpreter py/bin/python; working_directory sub; }"
        "function c { python app.py:f; venv env; }",
    )
    found = read_functions(model)
    assert list(found) == ["a.openfaas-fn", "b.openfaas-fn", "c.openfaas-fn"]
    a, b, c = (it.versions[0] for it in found.values())
    assert a.ready == Ready("/up", 5, 2000)
    assert (a.scale.min_scale, a.start_timeout_ms, a.drain_timeout_ms) == (3, 60_000, 5000)
    assert a.limits == Limits(memory_bytes=64 << 20, cpu_milli=500)
    assert (a.secrets, a.user) == (("one", "two"), "nobody")
    order = a.order(77, "/s")
    assert order["argv"] == [f"{tmp_path}/./serve", "--at", "77//s/$PORTS"]
    assert {"A": "1", "B": "x y", "PORT": "77", "SOCKET": "/s"}.items() <= order["env"].items()
    argv = b.order(77, "/s")["argv"]
    assert argv[0] == f"{tmp_path}/py/bin/python"
    assert argv[-2:] == [f"{tmp_path}/app.py", "App.run"]
    assert b.cwd == f"{tmp_path}/sub"
    assert c.interpreter == f"{tmp_path}/env/bin/python"


def test_a_replica_gets_nothing_of_the_gateways_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (version,) = read_one(tmp_path, "command x;").versions
    assert "secret" not in repr(version.order(1, "/s"))


def test_what_makes_it_another_version(tmp_path: Path) -> None:
    def stamp(inside: str) -> str:
        return read_one(tmp_path, f"python app.py:f; {inside}").versions[0].fingerprint

    first = stamp("")
    for inside in (
        "env A 1;", "ready /;", "interpreter x;", "working_directory sub;", "secrets a;",
        "limits nproc=9;", "user nobody;",
    ):  # fmt: skip
        assert stamp(inside) != first, inside
    for inside in ("min_scale 7;", "drain_timeout 1s;", "start_timeout 1s;", "weight 3;"):
        assert stamp(inside) == first, inside
    os.utime(tmp_path / "app.py", ns=(1, 1))
    assert stamp("") != first


def test_whom_a_name_means() -> None:
    keys = {"a.openfaas-fn", "a.x", "b.x", "c.x", "c.y", "d.e.x"}
    assert find_function("a", keys) == "a.openfaas-fn"
    assert find_function("a.x", keys) == "a.x"
    assert find_function("b", keys) == "b.x"
    assert find_function("c", keys) is None
    assert find_function("d.e", keys) == "d.e.x"
    assert find_function("none", keys) is None
