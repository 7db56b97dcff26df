"""`watch on`: replicas are renewed when their files change; nobody notices but by the answers."""

from __future__ import annotations

from gateway import wait_for

CONF = """
    function w { python app.py:handle; min_scale 1; watch on; }
    function s { python still.py:handle; min_scale 1; }
    server { listen 127.0.0.1:%%PORT%%; location /w { function_pass w; }
             location /s { function_pass s; } }
"""
TEXT = "import part\ndef handle(event, context):\n    return f'{part.WORD} one'\n"


def test_a_changed_file_is_served_without_a_reload(headrace) -> None:
    it = headrace(CONF, start=False)
    (it.prefix / "app.py").write_text(TEXT)
    (it.prefix / "still.py").write_text("def handle(event, context): return 'still'\n")
    (it.prefix / "part.py").write_text("WORD = 'first'\n")
    it.start()
    wait_for(lambda: it.get("/w").body == b"first one", 15)
    (it.prefix / "app.py").write_text(TEXT.replace("one", "two"))
    (it.prefix / "still.py").write_text("def handle(event, context): return 'moved'\n")
    statuses = set()

    def answers(body: bytes) -> bool:
        found = it.get("/w")
        statuses.add(found.status)
        return found.body == body

    wait_for(lambda: answers(b"first two"), 15)
    (it.prefix / "part.py").write_text("WORD = 'second'\n")  # what the handler imports
    wait_for(lambda: answers(b"second two"), 15)
    (it.prefix / "app.py").write_text("def handle(:")  # the old ones stay while the new fail
    wait_for(lambda: "SyntaxError" in it.error_log, 15)
    assert answers(b"second two")
    assert statuses == {200}
    assert "function w.openfaas-fn/v1: its files have changed" in it.error_log
