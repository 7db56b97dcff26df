"""The limiters' words in a conf: what is read, what is refused and in which words."""

import pytest

from proxy.base._shm import Zone
from proxy.conf.parser import load_text
from proxy.conf.report import ConfError
from proxy.limits import directives
from proxy.limits.directives import NODELAY
from proxy.limits.zones import open_zones, zones
from proxy.order import declare_all

declare_all()
ZONES = "limit_req_zone $k zone=one:1m rate=2r/s; limit_conn_zone $k zone=addr:1m;"


def model(http: str):
    return load_text(f"events {{ }}\nhttp {{\n{http}\n}}\n")


def http_of(text: str):
    return model(text).find("http")[0]


@pytest.mark.parametrize(("rate", "value"), [
    ("2r/s", 2000), ("30r/m", 500), ("1r/m", 16), ("5", 5000), ("99999999999r/s", 2**31 - 1),
])  # fmt: skip
def test_rates(rate, value):
    zone = http_of(f"limit_req_zone $k zone=one:1m rate={rate};").own("limit_req_zone")[0]
    assert (zone.name, zone.size_bytes, zone.key, zone.rate) == ("one", 1 << 20, "$k", value)


@pytest.mark.parametrize(("words", "burst", "delay"), [
    ("zone=one", 0, 0), ("zone=one burst=5", 5000, 0), ("burst=5 zone=one nodelay", 5000, NODELAY),
    ("zone=one burst=5 delay=3", 5000, 3000), ("zone=one burst=9999999999", 4_000_000_000, 0),
])  # fmt: skip
def test_limit_req(words, burst, delay):
    limit = http_of(f"{ZONES} limit_req {words};").own("limit_req")[0]
    assert (limit.zone, limit.burst, limit.delay) == ("one", burst, delay)


def test_limits_are_inherited_as_a_whole_or_replaced():
    http = http_of(ZONES + "limit_req_zone $k zone=two:1m rate=1r/s; limit_req zone=one;"
                   "limit_req zone=two; limit_conn addr 5;"
                   "server { location /a { limit_req zone=two; } location /b { } }")
    a, b = http.find("server")[0].find("location")
    assert [x.zone for x in a.get("limit_req")] == ["two"]
    assert [x.zone for x in b.get("limit_req")] == ["one", "two"]
    assert [(x.zone, x.number) for x in a.get("limit_conn")] == [("addr", 5)]


def test_defaults():
    http = http_of("")
    assert http.get("limit_req") == []
    assert (http.get("limit_req_status"), http.get("limit_conn_status")) == (503, 503)
    assert (http.get("limit_req_log_level"), http.get("limit_conn_dry_run")) == ("error", False)


REFUSED = [
    ("limit_req_zone $k zone=one rate=1r/s;", 'invalid zone size "zone=one"'),
    ("limit_req_zone $k zone=one: rate=1r/s;", 'invalid zone size "zone=one:"'),
    ("limit_req_zone $k zone=one:x rate=1r/s;", 'invalid zone size "zone=one:x"'),
    ("limit_req_zone $k zone=one:4k rate=1r/s;", 'zone "one" is too small'),
    ("limit_req_zone $k zone=one:1m rate=0r/s;", 'invalid rate "rate=0r/s"'),
    ("limit_req_zone $k zone=one:1m rate=1r/h;", 'invalid rate "rate=1r/h"'),
    ("limit_req_zone $k zone=one:1m rate=;", 'invalid rate "rate="'),
    ("limit_req_zone $k zone=one:1m x=1;", 'invalid parameter "x=1"'),
    ("limit_req_zone $k rate=1r/s rate=1r/s;", '"limit_req_zone" must have "zone" parameter'),
    ("limit_req_zone $k zone=:1m rate=1r/s;", '"limit_req_zone" must have "zone" parameter'),
    ("limit_req_zone $k zone=one:1m;",
     'invalid number of arguments in "limit_req_zone" directive'),
    ("limit_conn_zone $k rate=1r/s;", 'invalid parameter "rate=1r/s"'),
    ("limit_conn_zone $k zone=one;", 'invalid zone size "zone=one"'),
    (ZONES + "limit_req_zone $j zone=one:1m rate=1r/s;",
     'limit_req_zone "one" is already bound to key "$k"'),
    (ZONES + "limit_req_zone $k zone=one:2m rate=1r/s;",
     'the size 2097152 of shared memory zone "one" conflicts with already declared size 1048576'),
    (ZONES + "limit_conn_zone $k zone=one:1m;",
     'the shared memory zone "one" is already declared for a different use'),
    ("limit_req burst=1;", '"limit_req" must have "zone" parameter'),
    ("limit_req zone=one burst=0;", 'invalid burst value "burst=0"'),
    ("limit_req zone=one delay=x;", 'invalid delay value "delay=x"'),
    ("limit_req zone=one later;", 'invalid parameter "later"'),
    (ZONES + "limit_req zone=one; limit_req zone=one;", '"limit_req" directive is duplicate'),
    ("limit_conn addr 0;", 'invalid number of connections "0"'),
    ("limit_conn addr 65536;", "connection limit must be less 65536"),
    (ZONES + "limit_conn addr 1; limit_conn addr 2;", '"limit_conn" directive is duplicate'),
    ("limit_req_status 399;", "value must be between 400 and 599"),
    ("limit_req_log_level alert;", 'invalid value "alert"'),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[t[-40:] for t, _ in REFUSED])
def test_refused_with_its_line(text, message):
    with pytest.raises(ConfError) as error:
        model(text)
    assert error.value.message == message
    assert error.value.line == 3


def test_a_zone_that_nobody_declared():
    with pytest.raises(ConfError, match='zero size shared memory zone "nosuch"'):
        zones(model(ZONES + "server { location / { limit_req zone=nosuch; } }"))


def test_a_zone_of_the_other_kind():
    with pytest.raises(ConfError, match="already declared for a different use"):
        zones(model(ZONES + "limit_conn one 1;"))


def declared(text: str) -> dict[str, directives.LimitZone]:
    return zones(model(text))


def test_a_reload_keeps_what_has_the_same_name_and_size():
    first = open_zones(declared(ZONES), {})
    assert {name: zone.kind for name, zone in first.items()} == {
        "one": "limit_req", "addr": "limit_conn"}
    again = open_zones(declared(ZONES.replace("2r/s", "9r/s").replace("addr:1m", "addr:2m")), first)
    assert again["one"] is first["one"]
    assert again["addr"] is not first["addr"]
    assert isinstance(again["addr"], Zone)


@pytest.mark.parametrize(("old", "new", "word", "name"), [
    ("$k zone=one", "$j zone=one", "limit_req", "one"),
    ("$k zone=addr", "$j zone=addr", "limit_conn_zone", "addr"),
])  # fmt: skip
def test_a_reload_with_another_key_is_refused(old, new, word, name):
    first = open_zones(declared(ZONES), {})
    with pytest.raises(ConfError) as error:
        open_zones(declared(ZONES.replace(old, new)), first)
    assert str(error.value) == (
        f'{word} "{name}" uses the "$j" key while previously it used the "$k" key')
