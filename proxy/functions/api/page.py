"""`GET /ui/`: one page that shows the functions and calls one, made of the API and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.functions.http import Answer

if TYPE_CHECKING:
    from proxy.functions.api.service import Api
    from proxy.functions.http import Request, Routes

POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Functions</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
    padding: 0 1rem }
  table { border-collapse: collapse; width: 100% }
  th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ccc }
  td { overflow-wrap: anywhere }
  td.n { font-variant-numeric: tabular-nums; white-space: nowrap }
  th:last-child, td:last-child { padding-right: 0; text-align: right; white-space: nowrap }
  @media (max-width: 40rem) { .wide { display: none } }
  textarea, pre { width: 100%; box-sizing: border-box; font: 14px/1.4 monospace }
  pre { background: #f4f4f4; padding: .5rem; white-space: pre-wrap; overflow-wrap: anywhere }
  @media (prefers-color-scheme: dark) {
    body { background: #181818; color: #ddd } pre { background: #222 } th, td { border-color: #444 }
  }
</style>
<h1>Functions</h1>
<table>
  <thead><tr><th>Name<th class="wide">Namespace<th>Ready<th>Calls<th class="wide">Image<th></thead>
  <tbody id="rows"></tbody>
</table>
<p id="state" role="status"></p>
<h2>Call <span id="name">one of them</span></h2>
<textarea id="body" rows="4" aria-label="Body of the call"></textarea>
<pre id="answer" hidden></pre>
<script>
const by = id => document.getElementById(id), MOST = 500;
function cell(row, text, name) {
  const it = row.insertCell();
  it.textContent = text;
  if (name) it.className = name;
}
async function look() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/system/functions?namespace=*");
    if (!answer.ok) throw new Error(answer.status + " " + answer.statusText);
    const rows = document.createElement("tbody");
    rows.id = "rows";
    const all = await answer.json(), held = document.activeElement.dataset.key;
    for (const it of all.slice(0, MOST)) {
      const row = rows.insertRow();
      cell(row, it.name);
      cell(row, it.namespace, "wide");
      cell(row, it.replicas ? it.availableReplicas + "/" + it.replicas : "asleep", "n");
      cell(row, it.invocationCount, "n");
      cell(row, it.envProcess || it.image, "wide");
      const button = document.createElement("button");
      button.textContent = "Call";
      button.dataset.key = it.name + "." + it.namespace;
      button.setAttribute("aria-label", "Call " + button.dataset.key);
      button.onclick = () => call(button.dataset.key);
      row.insertCell().append(button);
    }
    by("rows").replaceWith(rows);
    if (held) rows.querySelector('[data-key="' + CSS.escape(held) + '"]')?.focus();
    by("state").textContent = !all.length ? "There is none yet."
      : all.length > MOST ? MOST + " of " + all.length + " are shown." : "";
  } catch (error) {
    by("state").textContent = "The gateway does not answer: " + error.message;
  }
}
async function call(key) {
  by("name").textContent = key;
  by("answer").hidden = false;
  by("answer").textContent = "…";
  const began = performance.now();
  try {
    const path = "/function/" + encodeURIComponent(key);
    const answer = await fetch(path, { method: "POST", body: by("body").value });
    const text = await answer.text();
    const took = Math.round(performance.now() - began);
    by("answer").textContent = answer.status + " in " + took + " ms\\n\\n" + text;
  } catch (error) {
    by("answer").textContent = error.message;
  }
  look();
}
look();
setInterval(look, 2000);
</script>
"""


class PageApi:
    """See above."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def add_routes(self, routes: Routes) -> None:
        routes.add("GET", "/ui", self.api.auth.guard(self.page))
        routes.add("GET", "/ui/index.html", self.api.auth.guard(self.page))

    async def page(self, request: Request) -> Answer:
        fields = [("Content-Security-Policy", POLICY), ("Cache-Control", "no-store")]
        return Answer(200, PAGE.encode(), "text/html; charset=utf-8", fields)
