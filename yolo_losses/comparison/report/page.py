"""The report as one HTML file, from its Markdown: figures inlined, light and dark, no script and nothing to load."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from markdown_it import MarkdownIt

from yolo_losses.comparison.language import translate

STYLE = """\
:root{--ink:#1b1f24;--soft:#5b6470;--page:#fff;--panel:#f5f7f9;--line:#d9dee4;--better:#1b66b3;--worse:#b8471a}
@media(prefers-color-scheme:dark){:root{--ink:#d7dce2;--soft:#99a3af;--page:#14171b;--panel:#1c2026;--line:#333a43;\
--better:#6fb1f2;--worse:#f0935f}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .5rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;padding-top:1rem;border-top:1px solid var(--line);overflow-wrap:anywhere}
p,li{max-width:52rem;overflow-wrap:anywhere}
p{margin:.75rem 0}
blockquote{margin:1rem 0;padding:.25rem 1rem;background:var(--panel);border-left:4px solid var(--line)}
.scroll{overflow-x:auto;margin:.25rem 0 1rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .75rem .3rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);\
white-space:nowrap}
th{color:var(--soft);vertical-align:bottom;white-space:normal}
th:first-child,td:first-child{position:sticky;left:0;background:var(--page)}
td.better{color:var(--better);font-weight:600}
td.worse{color:var(--worse);font-weight:600}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));gap:1rem 2rem;\
align-items:start;max-width:none}
figure{margin:.5rem 0;min-width:0}
svg{display:block;height:auto}
svg text{paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
code,pre{font:.9rem/1.45 ui-monospace,monospace}
pre{background:var(--panel);padding:.75rem;border-radius:4px;white-space:pre-wrap;overflow-wrap:anywhere}
"""


def to_html(markdown: str, figures: Mapping[str, str], language: str = "en") -> str:
    """Return the page of a report.

    Args:
        markdown: the report as Markdown.
        figures: SVG elements by the path that the report names.
        language: language of the report.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    for word in ("better", "worse"):
        said = translate(word, language)
        body = body.replace(f"<td>{said}</td>", f'<td class="{word}">{said}</td>')
    body = re.sub(r"<p>((?:<img [^>]*>\s*)+)</p>", r'<div class="figures">\1</div>', body)
    body = re.sub(
        r'<img src="([^"]+)" alt="([^"]*)" />',
        lambda found: f'<figure role="img" aria-label="{found[2]}">{figures[html.unescape(found[1])]}</figure>',
        body,
    )
    heading = re.search(r"<h1>(.*?)</h1>", body)
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{heading[1] if heading else 'Comparison'}</title>\n<style>\n{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
