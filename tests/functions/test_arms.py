"""Which version answers: exact shares, clients that stay where they were, tags, shadows."""

from __future__ import annotations

from collections import Counter

import pytest

from proxy.functions._arms import Affinity, Arms
from proxy.upstream.sticky import Sticky, read_words
from proxy.variables.door import Probe


def arms(*weights: tuple, key: bytes = b"thumbs.photos", affinity=None) -> Arms:
    rows = [(name, weight, *(more or ("", 0))) for name, weight, *more in weights]
    return Arms(key, rows, affinity)


def moved(before: Arms, after: Arms) -> Counter:
    """(from, to) of every place whose arm changed."""
    pairs = ((before.arm_at(place), after.arm_at(place)) for place in range(10_000))
    return Counter(it for it in pairs if it[0] != it[1])


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((100,), [10_000]),
        ((0,), [0]),
        ((90, 10), [9000, 1000]),
        ((0, 100), [0, 10_000]),
        ((99, 1), [9900, 100]),
        ((1, 1, 1), [3334, 3333, 3333]),
        ((70, 20, 10), [7000, 2000, 1000]),
        ((0, 1, 3), [0, 2500, 7500]),
        ((1_000_000, 1), [9999, 1]),  # who has weight has a place
    ],
)
def test_each_arm_has_the_places_that_its_weight_says(weights, shares):
    found = arms(*((f"v{n}", weight) for n, weight in enumerate(weights, 1)))
    assert found.shares() == shares


@pytest.mark.parametrize("weights", [(90, 10), (50, 50), (70, 20, 10), (1, 2, 97), (100, 0)])
def test_of_each_hundred_new_clients_the_arms_get_exactly_their_percent(weights):
    found = arms(*((f"v{n}", weight) for n, weight in enumerate(weights)))
    for _ in range(3):
        got = Counter(found.take_next() for _ in range(100))
        assert [got[n] for n in range(len(weights))] == list(weights)


def test_a_canary_is_not_served_in_a_row():
    found = arms(("v1", 75), ("v2", 25))
    order = [found.take_next() for _ in range(8)]
    assert order.count(1) == 2
    assert (1, 1) not in set(zip(order, order[1:], strict=False))


def test_a_weight_that_grows_takes_clients_from_the_first_version_alone():
    before, after = arms(("v1", 90), ("v2", 10)), arms(("v1", 75), ("v2", 25))
    assert moved(before, after) == {(0, 1): 1500}
    assert moved(after, before) == {(1, 0): 1500}


def test_other_versions_keep_nearly_all_their_clients():
    before = arms(("v1", 80), ("v2", 10), ("v3", 10))
    after = arms(("v1", 70), ("v2", 20), ("v3", 10))
    found = moved(before, after)
    # the 1000 that must; v3's that v2 takes are made up for from v1
    assert found[0, 1] + found[2, 1] == 1000
    assert found[2, 1] == found[0, 2]
    assert found[2, 1] < 150
    assert found[1, 0] == found[1, 2] == found[2, 0] == 0


def test_a_version_that_goes_gives_its_clients_to_the_first():
    before = arms(("v1", 80), ("v2", 10), ("v3", 10))
    after = arms(("v1", 90), ("v2", 0), ("v3", 10))
    found = moved(before, after)
    assert sum(found.values()) < 1150
    assert found[1, 0] + found[1, 2] == 1000


def test_a_client_is_known_again_by_every_worker_and_every_gateway():
    found = arms(("v1", 50), ("v2", 50))
    got = [found.arm_of(b"user-%d" % n) for n in range(20)]
    # these are a contract: with a release that changes them, clients change their versions
    assert "".join(map(str, got)) == "10011011001111101110"


def test_keys_fall_evenly():
    found = arms(("v1", 90), ("v2", 10))
    got = Counter(found.arm_of(b"user-%d" % n) for n in range(100_000))
    assert got == {0: 89_973, 1: 10_027}


def test_functions_do_not_all_try_new_things_on_the_same_clients():
    one, two = (arms(("v1", 90), ("v2", 10), key=key) for key in (b"a.x", b"b.x"))
    users = [b"user-%d" % n for n in range(10_000)]
    first = {it for it in users if one.arm_of(it) == 1}
    second = {it for it in users if two.arm_of(it) == 1}
    assert 0 < len(first & second) < 200


def test_a_shadow_has_no_share_and_gets_its_percent_of_copies():
    found = arms(("v1", 100), ("dark", 50, "", 10), ("rare", 0, "", 0.5))
    assert found.has_copies
    assert found.shares() == [10_000, 0, 0]
    copies = Counter()
    for _ in range(400):
        arm = -1
        while (arm := found.take_copy(arm + 1)) >= 0:
            copies[arm] += 1
    assert copies == {1: 40, 2: 2}


def test_many_arms_are_bounded():
    with pytest.raises(ValueError, match="at most 64 versions"):
        arms(*((f"v{n}", 1) for n in range(65)))
    assert sum(arms(*((f"v{n}", 1) for n in range(64))).shares()) == 10_000


@pytest.mark.parametrize(
    ("words", "sticky"),
    [
        ("cookie=hr_version", Sticky("cookie", "hr_version")),
        ("cookie srv_id expires=1h domain=.example.com path=/a httponly secure samesite=lax",
         Sticky("cookie", "srv_id", "; Max-Age=3600; Domain=.example.com; Path=/a; SameSite=lax; "
                                    "HttpOnly; Secure")),
        ("header=X-User", Sticky("header", "X-User")),
        ("variable=$arg_user", Sticky("variable", "arg_user")),
        ("claim=sub", Sticky("variable", "jwt_claim_sub")),
        ("address tag_header=X-Version", Sticky("address", tag_header="X-Version")),
        ("tag_cookie=try", Sticky("", tag_cookie="try")),
    ],
)  # fmt: skip
def test_sticky_is_read_and_told_alike(words, sticky):
    assert read_words(words.split()) == sticky
    assert read_words(str(sticky).split()) == sticky
    Affinity(sticky)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "says by what"),
        ("cookie=", "cookie="),
        ("cookie=a b", '"b"'),
        ("cookie=a;b", "cookie=a;b"),
        ("cookie=a header=b", 'another "cookie"'),
        ("cookie=a cookie=b", 'another "cookie"'),
        ("header=X-A expires=1h", '"expires=1h": it is for a cookie'),
        ("cookie=a expires=soon", "expires=soon"),
        ("cookie=a samesite=no", "samesite=no"),
        ("cookie=a domain=x;y", "domain=x;y"),
        ("variable=$a-b", "variable"),
        ("address=1", "address=1"),
    ],
)
def test_what_sticky_cannot_mean_is_refused_by_its_word(words, why):
    with pytest.raises(ValueError, match=why.replace("$", r"\$")):
        read_words(words.split())


# -- of a request --------------------------------------------------------------------------------
def choose(found: Arms, *lines: str, client: str = "127.0.0.1:4711") -> tuple[int, str | None]:
    """(arm, Set-Cookie) for a request with these lines."""
    head = "GET /?user=ann HTTP/1.1\r\nHost: x\r\n" + "".join(f"{it}\r\n" for it in lines) + "\r\n"
    probe = Probe(head.encode(), client=client)
    arm, cookie = found.choose(probe.request)
    return arm, cookie.decode() if cookie is not None else None


def sticking(words: str, *weights: tuple) -> Arms:
    affinity = Affinity(read_words(words.split()))
    return arms(*(weights or (("v1", 50), ("v2", 50, "beta", 0))), affinity=affinity)


def test_a_cookie_brings_a_client_back_to_its_version():
    found = sticking("cookie=hr samesite=lax")
    for _ in range(20):
        arm, cookie = choose(found)
        name, _, rest = cookie.partition("=")
        place, _, attributes = rest.partition("; ")
        assert (name, attributes) == ("hr", "SameSite=lax; Path=/")
        assert found.arm_at(int(place)) == arm
        for _ in range(3):
            assert choose(found, f"Cookie: a=b; hr={place}; c=d") == (arm, None)


def test_new_clients_with_a_cookie_get_exactly_their_share():
    found = sticking("cookie=hr", ("v1", 90), ("v2", 10))
    got = Counter(choose(found)[0] for _ in range(100))
    assert got == {0: 90, 1: 10}


def test_a_cookie_follows_the_weights():
    before = sticking("cookie=hr", ("v1", 90), ("v2", 10))
    after = sticking("cookie=hr", ("v1", 0), ("v2", 100))
    for _ in range(10):
        place = choose(before)[1].split("=")[1][:4]
        assert choose(after, f"Cookie: hr={place}") == (1, None)


@pytest.mark.parametrize("value", ["", "12", "12345", "12a4", "-123", "v2"])
def test_a_cookie_that_is_none_of_ours_is_replaced(value):
    assert choose(sticking("cookie=hr"), f"Cookie: hr={value}")[1].startswith("hr=")


@pytest.mark.parametrize(
    ("words", "line"),
    [("header=X-User", "X-User: {}"), ("variable=$http_x_user", "X-User: {}")],
)
def test_a_header_or_a_variable_keeps_a_client_at_its_version(words, line):
    found = sticking(words)
    for user in ("ann", "bob", "cyd"):
        arm = found.arm_of(user.encode())
        assert {choose(found, line.format(user)) for _ in range(5)} == {(arm, None)}
    assert Counter(choose(found)[0] for _ in range(10)) == {0: 5, 1: 5}  # who has none


def test_an_address_keeps_a_client_at_its_version():
    found = sticking("address")
    for n in range(1, 20):
        arm = found.arm_of(bytes([10, 0, 0, n]))
        assert choose(found, client=f"10.0.0.{n}:99") == choose(found, client=f"10.0.0.{n}:1")
        assert choose(found, client=f"10.0.0.{n}:99") == (arm, None)


def test_a_tag_names_a_version_even_without_weight():
    found = sticking(
        "cookie=hr tag_header=X-Version tag_cookie=try",
        ("v1", 100, "stable", 0), ("v2", 0, "beta", 0),
    )  # fmt: skip
    assert choose(found, "Knative-Serving-Tag: beta") == (1, None)
    assert choose(found, "X-Version: beta") == (1, None)
    assert choose(found, "Cookie: try=beta") == (1, None)
    assert choose(found, "Knative-Serving-Tag: stable", "X-Version: beta") == (0, None)
    assert choose(found, "Knative-Serving-Tag: gone", "X-Version: beta") == (1, None)
    assert choose(found, "Knative-Serving-Tag: Beta")[0] == 0
    assert choose(found, "Knative-Serving-Tag:")[0] == 0


def test_nobody_answers_when_no_version_has_weight():
    assert choose(arms(("v1", 0), ("v2", 0)))[0] == -1
    assert choose(arms())[0] == -1
