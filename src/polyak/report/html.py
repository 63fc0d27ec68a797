"""One self-contained page: everything that it needs is inside, so that it opens without a network."""

from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files

from polyak.report.charts import Chart


def document(title: str, body: str) -> str:
    """A page with its style, Plotly, and what draws the charts."""
    own = files("polyak.report")
    style, script = ((own / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
{body}
<script>{_plotly()}</script>
<script>
{script}</script>
</body>
</html>
"""


@cache
def _plotly() -> str:
    """The library, which the Python package ships whole: there is no smaller build with heat maps in it."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def section(title: str, content: str) -> str:
    """A part of the page under a heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values."""
    return '<dl class="facts">' + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs) + "</dl>"


def charts(drawn: Iterable[Chart], name: str) -> str:
    """Charts side by side, or below each other where there is no room. `name` makes their ids unique in the page."""
    return '<div class="charts">\n' + "\n".join(_chart(chart, f"{name}-{i}") for i, chart in enumerate(drawn)) + "\n</div>"


def _chart(chart: Chart, name: str) -> str:
    content = chart.figure.to_json()  # with its "<" escaped, so that a name cannot end the element
    return f"""<figure class="{"wide" if chart.wide else "narrow"}">
<h3 id="{name}">{escape(chart.title)}</h3>
<div class="chart" role="img" aria-labelledby="{name}" aria-describedby="{name}-caption"></div>
<script type="application/json">{content}</script>
<figcaption id="{name}-caption">{escape(chart.caption)}</figcaption>
</figure>"""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table. Its first column names the rows."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return f'<div class="table" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
