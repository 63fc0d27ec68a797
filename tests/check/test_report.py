"""The report: what is looked for, what is left out, and the report as a page, as JSON and as an assertion."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polyak.check import assert_conforms, check, identify, report
from polyak.check.data import FORMAT, plain, written
from polyak.check.drivers.loading import load
from polyak.check.finding import FINDINGS, Finding, Outcome
from polyak.check.identity import Identity, Number
from polyak.check.text import location
from polyak.check.trial import Refused, Trial

DOCS = Path(__file__).parents[2]
SGD = "torch.optim:SGD"
TRIAL = Trial({"w": np.ones(1)}, [{"w": np.ones(1)}])
IDENTITY = Identity(
    "momentum",
    linear=True,
    sign=1,
    learning_rate=Number(0.1, np.inf),
    momenta=(Number(0.9, 1e-9),),
    nesterov=False,
    velocity="gradient",
    decay="none",
    impulse=np.array([0.1, 0.09]),
    poles=np.array([0.9 + 0.1j]),
    residues=np.array([0.1]),
    doubts=("what was not told",),
)


def sound(*_):
    return Outcome("a sound one", "pass", "all is well.", notes=("a NaN stays for ever.",))


def absent(*_):
    return Outcome("one that does not apply", "not applicable", "there is nothing of it.")


def broken(*_):
    found = [Finding(name, f"{name} is wrong.", [TRIAL]) for name in ("decay-kind", "decay-amount")]
    return Outcome("a broken one", "fail", "two things were measured.", tuple(found))


def refused(*_):
    raise Refused("ValueError: no such tensors")


def forbidden(*_):
    raise AssertionError("this check finds nothing that is selected")


@pytest.fixture
def checks(monkeypatch):
    """Checks that are known, in the place of those that measure."""
    known = {sound: ("ascent",), absent: ("recompiles",), broken: ("decay-kind", "decay-amount")}
    monkeypatch.setattr(report, "CHECKS", known)
    monkeypatch.setattr(report, "identified", lambda _: IDENTITY)
    return known


@pytest.mark.usefixtures("checks")
def test_a_report_has_what_the_checks_found():
    found = check(SGD, lr=0.1, momentum=0.9)
    assert found.title == "torch.optim:SGD(lr=0.1, momentum=0.9)"
    assert set(found.versions) == {"polyak", "torch"}
    assert found.identity is IDENTITY
    assert [outcome.status for outcome in found.outcomes] == ["pass", "not applicable", "fail"]
    assert [finding.identifier for finding in found.findings] == ["decay-kind", "decay-amount"]
    assert found.code == 1
    assert replace(found, outcomes=found.outcomes[:2]).code == 0


@pytest.mark.usefixtures("checks")
def test_what_is_ignored_is_no_finding_and_still_said():
    found = check(SGD, lr=0.1, ignore=["decay-kind"])
    assert [finding.identifier for finding in found.findings] == ["decay-amount"]
    assert [finding.identifier for finding in found.ignored] == ["decay-kind"]
    assert found.outcomes[2].status == "fail"
    assert found.outcomes[2].notes == ("decay-kind is ignored: decay-kind is wrong.",)
    found = check(SGD, lr=0.1, ignore=["decay-kind", "decay-amount", "ascent"])
    assert found.code == 0
    assert found.outcomes[2].status == "pass"
    assert str(found).endswith("no findings in 2 checks. Ignored: decay-kind, decay-amount.")


def test_only_the_checks_that_may_find_what_is_selected_are_run(checks):
    checks[forbidden] = ("sparse-differs",)
    found = check(SGD, lr=0.1, select=["decay-amount", "ascent"])
    assert [outcome.check for outcome in found.outcomes] == ["a sound one", "a broken one"]
    assert [finding.identifier for finding in found.findings] == ["decay-amount"]
    assert check(SGD, lr=0.1, select="decay-amount").ignored == ()


def test_an_error_of_the_optimizer_in_a_check_is_said_there(checks):
    checks[refused] = ("shape-fails",)
    outcome = check(SGD, lr=0.1, select=["shape-fails"]).outcomes[0]
    assert outcome == Outcome("refused", "not applicable", "It could not be measured: ValueError: no such tensors")


def test_an_optimizer_that_makes_no_step_cannot_be_checked():
    import torch

    class Broken(torch.optim.SGD):
        def step(self, closure=None):  # noqa: ARG002  (torch's signature)
            raise RuntimeError("out of order")

    with pytest.raises(ValueError, match="out of order"):
        check(lambda params: Broken(params, lr=0.1))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"select": ["decay-kin"]}, ValueError, "unknown identifier in select: 'decay-kin'.*Did you mean 'decay-kind'"),
        ({"ignore": ["option"]}, ValueError, "unknown identifier in ignore: 'option'"),
        ({"momentun": 0.9}, ValueError, "'momentun'.*Did you mean 'momentum'?"),
        ({"lr": -1.0}, ValueError, "Invalid learning rate: -1.0"),
    ],
)
def test_bad_arguments(given, error, message):
    with pytest.raises(error, match=message):
        check(SGD, **given)


def test_options_do_not_go_with_what_is_made():
    with pytest.raises(TypeError, match=r"options are given with a name.*got lr with"):
        check(print, lr=0.1)


@pytest.mark.usefixtures("checks")
def test_the_page():
    page = str(check(SGD, lr=0.1, momentum=0.9)).splitlines()
    assert re.fullmatch(r"torch\.optim:SGD\(lr=0\.1, momentum=0\.9\)   polyak \S+, torch \S+", page[0])
    assert "doubt: what was not told" in page
    assert "pass            a sound one: all is well." in page
    assert "                note: a NaN stays for ever." in page
    assert "not applicable  one that does not apply: there is nothing of it." in page
    at = page.index("FAIL            a broken one: two things were measured.")
    assert page[at + 1 : at + 5] == [
        "                decay-kind: decay-kind is wrong.",
        "                  docs/findings/decay-kind.md",
        "",
        "    import torch",
    ]
    assert page[-1] == "2 findings in 2 checks: decay-kind, decay-amount."
    assert max(map(len, page)) <= 110


@pytest.mark.usefixtures("checks")
def test_the_script_on_the_page_runs(capsys):
    page = str(check(SGD, lr=0.1, select=["decay-kind"])).splitlines()
    begin = next(i for i, line in enumerate(page) if "import torch" in line)
    script = "\n".join(line[4:] for line in page[begin : page.index("", begin + 4)])
    exec(script, {})  # noqa: S102  (what a person would paste)
    assert capsys.readouterr().out == "[0.9]\n"


@pytest.mark.usefixtures("checks")
def test_json():
    found = json.loads(written(check(SGD, lr=0.1, ignore=["decay-amount"])), parse_constant=pytest.fail)
    assert (found["format"], found["code"]) == (FORMAT, 1)
    assert found["optimizer"]["name"] == SGD
    assert found["optimizer"]["options"] == {"lr": 0.1}
    assert found["optimizer"]["defaults"]["momentum"] == 0
    assert found["identity"]["learning_rate"] == {"value": 0.1, "error": None}  # JSON has no infinity
    assert found["identity"]["poles"] == [[0.9, 0.1]]
    assert found["identity"]["residues"] == [[0.1, 0.0]]
    assert found["identity"]["impulse"] == [0.1, 0.09]
    assert [outcome["status"] for outcome in found["checks"]] == ["pass", "not applicable", "fail"]
    assert found["checks"][0]["notes"] == ["a NaN stays for ever."]
    finding = found["checks"][2]["findings"][0]
    assert (finding["identifier"], finding["page"]) == ("decay-kind", "docs/findings/decay-kind.md")
    assert finding["scripts"][0].startswith("import torch\n")
    assert [finding["identifier"] for finding in found["ignored"]] == ["decay-amount"]


def test_what_json_does_not_have_is_said_in_python():
    assert plain({"a": np.float32(0.5), 2: (np.nan, True, None), "c": len}) == {
        "a": 0.5,
        "2": [None, True, None],
        "c": "<built-in function len>",
    }


@pytest.mark.usefixtures("checks")
def test_an_assertion_has_the_findings_and_nothing_else():
    with pytest.raises(AssertionError) as caught:
        assert_conforms(SGD, lr=0.1, ignore=["decay-amount"])
    message = str(caught.value)
    assert message.startswith("torch.optim:SGD(lr=0.1)")
    assert "decay-kind: decay-kind is wrong.\n  docs/findings/decay-kind.md\n\n    import torch\n" in message
    assert "a sound one" not in message
    assert message.endswith("1 finding in 2 checks: decay-kind. Ignored: decay-amount.")
    assert assert_conforms(SGD, lr=0.1, ignore=["decay-amount", "decay-kind"]) is None


# With the checks themselves; two that are quick, and one of them finds something.


def torch_factory():
    import torch

    return lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9)


def keras_factory():
    import keras

    return lambda: keras.optimizers.SGD(0.1, momentum=0.9)


def optax_factory():
    import optax

    return lambda: optax.sgd(0.1, 0.9)


@pytest.mark.parametrize("factory", [torch_factory, keras_factory, optax_factory])
def test_factories_of_each_framework_conform(factory):
    assert_conforms(factory(), select=["instances-share-state", "gradient-written"])


def test_a_transformation_conforms_too():
    import optax

    assert_conforms(optax.sgd(0.1), select=["gradient-written"])


def test_a_finding_of_pytorch():
    with pytest.raises(AssertionError, match="state-by-position: "):
        assert_conforms(SGD, lr=0.1, momentum=0.9, select=["state-by-position"])


def test_identify_takes_what_check_takes():
    subject = load(SGD, {"lr": 0.1, "momentum": 0.9})
    for found in (identify(SGD, lr=0.1, momentum=0.9), identify(subject)):
        assert found.kind == "momentum"
        assert found.momenta[0].agrees(0.9)


# The pages


def test_each_finding_has_its_page_and_none_is_left_over():
    pages = {path.stem: path.read_text() for path in (DOCS / "docs" / "findings").glob("*.md")}
    assert set(pages) == set(FINDINGS)
    for identifier, sentence in FINDINGS.items():
        assert location(identifier) == f"docs/findings/{identifier}.md"
        page = pages[identifier]
        assert page.startswith(f"# {identifier}\n\n{sentence}")
        parts = re.findall(r"^\*\*(.*?)\*\*", page, re.MULTILINE)
        assert parts == ["How polyak tells.", "Who met it.", "How to fix it."]
        # An issue is named with its repository and its number, as a link to it, or none is known.
        links = re.findall(r"\[([\w.-]+/[\w.-]+#(\d+))\]\(https://github\.com/([\w.-]+/[\w.-]+)/(?:issues|pull)/(\d+)\)", page)
        assert all(text == f"{repository}#{number}" for text, _, repository, number in links)
        assert bool(links) != ("None is known to us" in page)


def test_the_table_of_checks_leads_to_each_page():
    linked = re.findall(r"\[([\w-]+)\]\(findings/([\w-]+)\.md\)", (DOCS / "docs" / "check.md").read_text())
    assert all(name == page for name, page in linked)
    assert sorted(name for name, _ in linked) == sorted(FINDINGS)
