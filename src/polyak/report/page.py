"""report.html: a run on one page."""

from html import escape

import numpy as np

from polyak.report import figures
from polyak.report.html import charts, document, facts, section
from polyak.report.reading import Statement, reading
from polyak.report.recorded import Recorded
from polyak.report.recursion import recursion

# A sign beside the word: no colour says it.
_SIGNS = {"yes": "●", "no": "○", "can't tell": "?"}


def page(run: Recorded) -> str:
    """The page of a run as HTML."""
    about = run.environment
    title = f"{about.get('task', 'run')}: {about['optimizer']['class']} on {about.get('model', 'a model')}"
    parts = [f"<header>\n<h1>{escape(title)}</h1>\n{facts(_facts(run))}\n</header>", "<main>"]
    parts.append(section("The optimizer", _optimizer(run)))
    if notes := about.get("notes"):
        parts.append(section("The data", "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"))
    parts.append(section("Reading", '<div class="reading">\n' + "\n".join(map(_statement, reading(run))) + "\n</div>"))
    if drawn := [*figures.scores(run)]:
        parts.append(section("Loss and score", charts(drawn, "score")))
        parts.append(section("Learning rate and momentum", charts(figures.settings(run), "setting")))
    if len(run.steps.get("step", ())):
        parts.append(section("What the steps did", charts(figures.motion(run), "motion")))
    if len(run.layers.get("step", ())):
        parts.append(section("Layer by layer", charts(figures.layers(run), "layer")))
    parts += ["</main>", f"<footer>{escape(_footer(run))}</footer>"]
    return document(title, "\n".join(parts))


def _facts(run: Recorded) -> list[tuple[str, str]]:
    about, result = run.environment, run.result
    examples = ", ".join(f"{n:,} {part}" for part, n in about.get("examples", {}).items() if n)
    pairs = [
        ("Task", str(about.get("task", "")) + (f" ({examples} {about.get('unit', 'examples')})" if examples else "")),
        ("Model", f"{about.get('model', '')}, {about.get('parameters', 0):,} parameters"),
        ("Backend", str(about.get("backend", ""))),
        ("Seed", str(run.options.get("seed", ""))),
        ("Trained", _trained(run)),
        ("Result", _ended(run)),
    ]
    scores = {name: value for name, value in result.items() if name.startswith(("test_", "val_")) and value is not None}
    for part, word in (("test_", "Test"), ("val_", "Validation")):
        if own := [
            f"{name.removeprefix(part)} {score(run, name.removeprefix(part), x)}"
            for name, x in scores.items()
            if name.startswith(part)
        ]:
            pairs.append((word, ", ".join(own)))
    return [(name, value) for name, value in pairs if value]


def score(run: Recorded, name: str, value: float) -> str:
    """A score as people write it."""
    return f"{value:.2%}" if figures.is_share(run, name) else f"{value:.4g}"


def _trained(run: Recorded) -> str:
    epochs = len(run.epochs.get("epoch", ()))
    if not epochs:
        return "less than one epoch"
    steps, size = run.epochs["step"][-1], run.options.get("batch_size")
    text = f"{epochs} epoch{'s' * (epochs != 1)}, {steps:,.0f} steps" + (f" of {size}" if size else "")
    seconds = run.clock.get("seconds", np.empty(0))
    return f"{text}, {seconds[-1]:,.0f} seconds" if len(seconds) else text


def _ended(run: Recorded) -> str:
    if not run.result:
        return "not ended: it goes on, or was killed"
    status, stopped = run.result.get("status", "unknown"), run.result.get("stopped")
    return f"{status}: {stopped}" if stopped else str(status)


def _optimizer(run: Recorded) -> str:
    about = "g is the gradient of the loss with respect to a weight w; v, the velocity, starts at 0."
    return f"<pre>{escape(chr(10).join(recursion(run.environment['optimizer'])))}</pre>\n<p>{about}</p>"


def _statement(said: Statement) -> str:
    verdict = (
        f'<span class="verdict"><span aria-hidden="true">{_SIGNS[said.verdict]}</span> {said.verdict.capitalize()}.</span>'
    )
    return f"""<article>
<h3>{escape(said.question)}</h3>
<p>{verdict} {escape(said.answer)}</p>
{facts(said.numbers) if said.numbers else ""}
<details><summary>How this is told</summary><p>{escape(said.rule)}</p></details>
</article>"""


def _footer(run: Recorded) -> str:
    versions = run.environment.get("versions", {})
    return "polyak report. " + ", ".join(f"{name} {version}" for name, version in versions.items())
