"""The HTML page at `/`: the operations of the API, and the backends as they are."""

from __future__ import annotations

from html import escape

from edgeproxy.api.operations import OPERATIONS
from edgeproxy.registry.registry import Registry
from edgeproxy.registry.views import BackendView

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
MAX_SHOWN = 500

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;
color-scheme:light dark}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #8884}
code{font-size:.95em}"""


def page(registry: Registry) -> str:
    """Return the page. Slow with many backends, so it runs in a thread."""
    health, table, shown = registry.health(), registry.table(), registry.first_views(MAX_SHOWN)
    rest = f"<p>and {health.backends - len(shown)} more</p>" if health.backends > len(shown) else ""
    operations = "".join(
        _row(f"{operation.method} {operation.path}", operation.summary, first="code")
        for operation in OPERATIONS
    )
    backends = "".join(map(_backend, shown))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>edgeProxy {escape(health.region)}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>edgeProxy {escape(health.version)}, POP {escape(health.region)}</h1>
<p>{health.backends} backends, {table.eligible} of them eligible, {table.leases} registered;
table {table.version}; up for {health.uptime_secs} s.
<a href="/openapi.json">OpenAPI document</a></p>
<h2>Backends</h2>
<table><tr><th>id<th>app<th>region<th>address<th>state<th>connections<th>silent for</tr>
{backends}</table>{rest}
<h2>Operations</h2>
<table>{operations}</table></body></html>
"""


def _backend(view: BackendView) -> str:
    host = f"[{view.ip}]" if ":" in view.ip else view.ip
    silent = f"{view.lease.age_secs:.0f} s" if view.lease else "-"
    load = f"{view.active_connections}/{view.hard_limit or 'no limit'}"
    return _row(view.id, view.app, view.region, f"{host}:{view.port}", view.state, load, silent)


def _row(*cells: str, first: str = "span") -> str:
    texts = list(map(escape, cells))
    texts[0] = f"<{first}>{texts[0]}</{first}>"
    return "<tr>" + "".join(f"<td>{text}</td>" for text in texts) + "</tr>\n"
