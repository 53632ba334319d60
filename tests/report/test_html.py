import functools
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nognet.errors import WireError
from nognet.metrics.definitions import NOT_COMPARABLE_TEXT, definition_texts
from nognet.report.drawn import CASES_FILE_NAME
from nognet.report.html import build_report, render_report
from nognet.report.metrics_file import write_metrics
from nognet.report.metrics_schema import RunMetrics
from nognet.report.numbers import DASH, number, signed
from tests.builders.run_metrics import build_case, build_run

VOID = {"meta", "img", "br", "hr", "link", "input", "source"}


class _Page(HTMLParser):
    """Collect tags, addresses and text, and hold every tag to be closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@functools.cache
def _finished_page() -> str:
    return render_report(build_run())


def _run_folder(folder: Path, metrics: RunMetrics) -> Path:
    write_metrics(folder / "metrics.json", metrics)
    return folder


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    path = build_report(_run_folder(tmp_path, build_run(rounds=1)), [build_case(size=32)])
    page = path.read_text()
    parsed = _Page(page)
    assert parsed.addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in parsed.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(parsed.tags)
    assert parsed.handlers == []
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^'\")]*)", page))
    assert "default-src 'none'" in page


def test_the_table_shows_means_deviations_and_differences_of_every_site() -> None:
    metrics = build_run()
    assert metrics.final is not None
    text = _Page(_finished_page()).text
    for entry in metrics.final.sites.values():
        model, copy = entry.test["federated"]["dsc"], entry.test["copy"]["dsc"]
        assert model.mean is not None
        assert copy.mean is not None
        spread = f"{number(model.mean)} \N{PLUS-MINUS SIGN} {number(model.sd)}"
        assert f"{spread} {signed(model.mean - copy.mean)}" in text
        assert f"{number(copy.mean)} \N{PLUS-MINUS SIGN} {number(copy.sd)}" in text


def test_every_definition_and_the_warnings_are_printed() -> None:
    text = _Page(_finished_page()).text
    for definition in definition_texts().values():
        assert definition in text
    assert NOT_COMPARABLE_TEXT in text
    assert text.index("Not a medical device") < text.index("Results on test patients")


def test_a_hostile_name_stays_text_everywhere() -> None:
    name = "<img src=x onerror=alert(1)>\"'&"
    metrics = build_run(sites=(name, "beta"), rounds=1)
    values = metrics.model_dump(mode="json")
    values["study"]["name"] = name
    values["rounds"][0]["sites"]["beta"].update(status="left-out", reason="<script>boo</script>")
    values["definitions"]["<b>new</b>"] = "<i>text</i>"
    page = render_report(RunMetrics.model_validate(values))
    parsed = _Page(page)
    assert "<img src=x" not in page
    assert not {"script", "img"} & set(parsed.tags)
    assert html.escape("<script>boo</script>") in page
    assert name in parsed.text


def test_a_running_run_has_a_report_without_results() -> None:
    text = _Page(render_report(build_run(rounds=2, finished=False))).text
    assert "The run is still going" in text
    assert "No test results yet" in text
    assert "left out (TrainingError:not-finite)" in text


def test_a_run_before_its_first_round_has_a_report() -> None:
    text = _Page(render_report(build_run(sites=(), rounds=0, finished=False))).text
    assert "No site has joined yet" in text
    assert "No round is finished yet" in text


def test_missing_values_are_dashes() -> None:
    values = build_run(sites=("alpha",), rounds=1).model_dump(mode="json")
    model = values["final"]["sites"]["alpha"]["test"]["federated"]
    model["dsc"]["strata"]["growing"] = {"mean": None, "n_pairs": 0}
    values["rounds"][0]["sites"]["alpha"]["train"]["bytes_up"] = None
    page = render_report(RunMetrics.model_validate(values))
    assert page.count(f"<dd>{DASH}</dd>") >= 1  # the tile
    assert f"<td>{DASH}</td>" in page  # strata, bytes, epsilon
    assert ">None<" not in page
    assert "nan" not in _Page(page).text.lower().split()


def test_without_cases_the_page_says_why() -> None:
    assert "images never leave the hospital" in _Page(_finished_page()).text


def test_cases_stay_when_the_report_is_built_again(tmp_path: Path) -> None:
    folder = _run_folder(tmp_path, build_run(rounds=1))
    first = build_report(folder, [build_case(size=32, title="<alpha> growing")]).read_text()
    again = build_report(folder, out=tmp_path / "again.html").read_text()
    assert again == first
    assert "&lt;alpha&gt; growing" in first
    assert "0.894" in _Page(first).text


def test_a_case_file_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    folder = _run_folder(tmp_path, build_run(rounds=1))
    for png in ('"><script>', "AAAA"):
        row = {"title": "x", "figures": {}, "png_base64": png}
        (folder / CASES_FILE_NAME).write_text(json.dumps([row]))
        with pytest.raises(WireError, match="aren't drawn cases"):
            build_report(folder)


def test_coordinators_paths_and_addresses_are_not_in_the_page() -> None:
    values = build_run(rounds=1).model_dump(mode="json")
    values["study"]["server"] = {"listen": "secret.example.org:9443", "key": "/keys/server.key"}
    values["study"]["runs"] = "/home/someone/runs"
    page = render_report(RunMetrics.model_validate(values))
    assert "secret.example.org" not in page
    assert "someone" not in page


def test_a_folder_without_metrics_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="no such file"):
        build_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
