"""The words of the conf and of annotations for asynchronous calls, and when they try again."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path

import pytest

from proxy.conf import load
from proxy.conf.report import ConfError
from proxy.functions.declared import read_functions
from proxy.functions.queue.calls import Result
from proxy.functions.queue.retry import Retry, judge, read_retry, read_retry_after_ms, wait_ms
from proxy.functions.queue.service import read_settings
from proxy.order import declare_all

declare_all()


def model(tmp_path: Path, http: str):
    conf = tmp_path / "h.conf"
    conf.write_text(f"events {{ }}\nhttp {{\n{http}\n}}\n")
    return load(str(conf), f"{tmp_path}/")


def test_what_functions_says(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hush\n")
    found, is_named = read_settings(
        model(
            tmp_path,
            "functions { queue sqlite:q/calls.db; async_body_size 2m; async_result_size 3m; "
            "results_keep 2h; async_parallelism 7; queue_limit calls=5 bytes=6k; "
            "callback_allow public 10.0.0.0/8 *.inside.example; callback_secret file:key; "
            "callback_attempts 4; }",
        )
    )
    assert is_named
    assert found.url == f"sqlite:{tmp_path}/q/calls.db"
    assert (found.body_bytes, found.result_bytes) == (2 << 20, 3 << 20)
    assert (found.results_keep_ms, found.parallelism) == (7_200_000, 7)
    assert (found.most_calls, found.most_bytes) == (5, 6144)
    assert found.callback_allow == ("public", "10.0.0.0/8", "*.inside.example")
    assert (found.callback_secret, found.callback_attempts) == (b"hush", 4)


def test_what_holds_when_it_says_nothing(tmp_path: Path) -> None:
    for http in ("", "functions { }"):
        found, is_named = read_settings(model(tmp_path, http))
        assert not is_named
        assert found.url == f"sqlite:{tmp_path}/var/queue.db"
        assert (found.body_bytes, found.results_keep_ms) == (1 << 20, 3_600_000)
        assert found.callback_allow == ("public",)


def test_a_queue_may_be_in_nats(tmp_path: Path) -> None:
    url = "nats://a:4222,b:4222/jobs?replicas=3"
    found, is_named = read_settings(model(tmp_path, f"functions {{ queue {url}; }}"))
    assert (found.url, is_named) == (url, True)


def test_a_function_says_how_it_is_tried(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("")
    http = (
        "function f { python f.py:h; async_parallelism 3; "
        "async_retry attempts=5 min_wait=1s max_wait=2m codes=429,500; }"
        'function g { python f.py:h; annotation com.openfaas.retry.attempts 30; '
        'annotation com.openfaas.retry.codes "429, 503"; '
        "annotation com.openfaas.retry.min_wait 5s; annotation com.openfaas.retry.max_wait 1m; }"
        "function h { python f.py:h; }"
    )
    functions = read_functions(model(tmp_path, http)).values()
    found = {it.name: read_retry(it.annotations) for it in functions}
    assert found["f"] == Retry(5, 1000, 120_000, frozenset((429, 500)), 3)
    assert found["g"] == Retry(30, 5000, 60_000, frozenset((429, 503)), 10)
    assert found["h"] == Retry()


@pytest.mark.parametrize(
    "words",
    ["async_retry attempts=0", "async_retry attempts=x", "async_retry attempts=1001",
     "async_retry codes=", "async_retry codes=5xx", "async_retry tries=1", "async_retry attempts",
     "async_retry min_wait=2s max_wait=1s", "async_retry min_wait=25h", "async_parallelism 0",
     "async_retry attempts=1 attempts=2"],
)  # fmt: skip
def test_nonsense_in_a_function_is_refused(tmp_path: Path, words: str) -> None:
    (tmp_path / "f.py").write_text("")
    with pytest.raises(ConfError):
        model(tmp_path, f"function f {{ python f.py:h; {words}; }}")


@pytest.mark.parametrize(
    "words",
    ["callback_allow 10.0.0.0/33", "callback_allow off public", "callback_allow 10.0.0.1/8",
     "callback_allow http://x/", "callback_secret file:nowhere", "queue_limit calls=0",
     "queue_limit rows=1", "queue_limit bytes=x", "async_parallelism 0", "callback_attempts 0",
     "results_keep soon", "async_body_size x", "queue sqlite:", "queue redis://x", "queue q.db",
     "queue nats://h/a.b", "queue nats://h?replicas=2", "queue sqlite:var/"],
)  # fmt: skip
def test_nonsense_in_functions_is_refused(tmp_path: Path, words: str) -> None:
    with pytest.raises(ConfError):
        model(tmp_path, f"functions {{ {words}; }}")


def test_annotations_that_make_no_sense_count_as_not_there() -> None:
    key = "com.openfaas.retry."
    wrong = {f"{key}attempts": "many", f"{key}codes": "5xx", f"{key}min_wait": "soon"}
    assert read_retry(wrong) == Retry()
    assert read_retry({f"{key}attempts": "0"}).attempts == 1
    assert read_retry({f"{key}attempts": "9" * 30}).attempts == 1000
    assert read_retry({f"{key}min_wait": "5m"}).max_wait_ms == 300_000


def test_waits_grow_to_their_bound_and_are_anything_up_to_it() -> None:
    retry = Retry(min_wait_ms=1000, max_wait_ms=6000)
    bounds = [1000, 2000, 4000, 6000, 6000]
    for attempts, bound in enumerate(bounds, 1):
        waits = [wait_ms(Result(500), attempts, retry) for _ in range(300)]
        assert 0 <= min(waits) < bound / 4
        assert bound * 3 / 4 < max(waits) <= bound
    assert wait_ms(Result(500), 1000, retry) <= 6000


def test_retry_after_is_honoured_where_it_means_something() -> None:
    retry = Retry(min_wait_ms=10, max_wait_ms=10)
    headers = [("Retry-After", "7")]
    assert wait_ms(Result(429, headers), 1, retry) == 7000
    assert wait_ms(Result(503, headers), 1, retry) == 7000
    assert wait_ms(Result(500, headers), 1, retry) <= 10
    at = formatdate(time.time() + 100, usegmt=True)
    assert 90_000 < read_retry_after_ms(at) <= 100_000
    assert read_retry_after_ms("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert read_retry_after_ms("9" * 40) == 86_400_000
    for nonsense in ("", "-1", "soon", "1.5"):
        assert read_retry_after_ms(nonsense) == 0


def test_judgement() -> None:
    retry = Retry(attempts=3)
    assert judge(Result(200), 1, retry).state == "done"
    assert judge(Result(404), 1, retry).state == "done"
    assert judge(Result(500), 2, retry).state == "queued"
    assert judge(Result(500), 3, retry).state == "dead"
    assert judge(Result(0, error="no"), 3, retry).state == "dead"
    ours = [("x-openfaas-internal", "gateway")]
    assert judge(Result(404, ours), 1, retry).state == "queued"
    assert judge(Result(200, ours), 1, retry).state == "done"
