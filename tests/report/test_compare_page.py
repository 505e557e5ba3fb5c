"""The page of a comparison: complete in itself, true to the record, whatever runs are called."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.text import Text

from ukan.report import plots
from ukan.report.compare_page import p_text, write_compare_page
from ukan.report.plots import Point, differences, score_against_cost

NASTY = "<img src=x onerror=alert(1)> & $x^"


def line(name: str, mean: float, **changes: Any) -> dict[str, Any]:
    scores = {
        key: {"mean": value, "interval95": [value * 0.9, value * 1.1], "by_class": {}}
        for key, value in (("dice", mean), ("iou", mean / 2), ("hd95_penalised", 100 * mean))
    }
    made = {"run": name, "folder": f"runs/{name}", "model": "unet", "weights": "none", "scores": scores, "against": None}
    made |= {"parameters": 1234567, "gflops": 4.5678, "images_per_second": 12.3, "time_ratio": 1.5}
    made |= {"time_ratio_range": [1.25, 1.75], "peak_mib": None, "activations_mib": 2345.6, "batch_size": 8}
    return made | {"input_size": "64x48", "steps": 1000, "seconds_per_step": None} | changes


def paired(difference: float, interval: list[float] | None, verdict: str, **changes: Any) -> dict[str, Any]:
    made = {"difference": difference, "interval95": interval, "p": 0.0123, "p_holm": 0.0246}
    return made | {"detectable": 0.0345, "detectable_holm": 0.0456, "verdict": verdict} | changes


def make(**changes: Any) -> dict[str, Any]:
    """Three runs from scratch, one of a nasty name, and one pretrained that stands alone."""
    better, shown = paired(0.1, [0.05, 0.15], "better"), paired(-0.02, [-0.06, 0.02], "no difference shown")
    runs = [line("first", 0.6), line(NASTY, 0.7, against=better), line("third", 0.58, against=shown)]
    pairs = [
        {"run": a, "against": b, "metric": "dice"} | pair
        for a, b, pair in (
            (NASTY, "first", better),
            ("third", "first", shown),
            ("third", NASTY, paired(-0.12, None, "worse")),
        )
    ]
    rng = np.random.default_rng(0)
    scores = {run["run"]: rng.uniform(0, 1, 9).tolist() for run in runs}
    by_case = {"case": list("abcdefghi"), "part": ["fold_0"] * 9, "group": list("abcdefghi"), "dice": scores}
    common = {"compared": {"dice": 9, "iou": 9, "hd95_penalised": 9}, "groups": 9}
    scratch = {"title": "trained from scratch", "reference": "first", "runs": runs, "pairs": pairs, "by_case": by_case}
    alone = line("pretty", 0.8, weights="imagenet", images_per_second=None, time_ratio=None, time_ratio_range=None)
    other = {"title": "began with pretrained weights", "reference": "pretty", "runs": [alone], "pairs": [], "by_case": {}}
    record = {"dataset": "toy & co", "protocol": "honest", "unit": "px", "classes": ["lesion"], "metric": "dice"}
    record |= {"what": "held-out cases"}
    record |= {"unequal": [f"train.lr: 1 ({NASTY}), 2 (first)"], "notes": ["Protocol honest, fold 0: 9 held-out cases."]}
    record |= {
        "tables": [scratch | common, other | common],
        "environment": {"commit": "abc", "command": ["ukan", "compare"]},
    }
    return record | changes


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def page(tmp_path: Path, **changes: Any) -> tuple[str, Tags]:
    write_compare_page(make(**changes), tmp_path / "compare.html")
    html = (tmp_path / "compare.html").read_text(encoding="utf-8")
    return html, Tags(html)


def test_the_page_needs_nothing_from_outside_and_takes_no_name_for_markup(tmp_path: Path) -> None:
    html, tags = page(tmp_path)
    assert not {tag for tag, _ in tags.found} & {"img", "script", "link", "iframe", "object"}
    assert not re.search(r"https?:", html) and "default-src 'none'" in html
    for _, attributes in tags.found:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert tags.text.count(NASTY) >= 4, "in tables and in the plots, as it is written"


def test_the_numbers_are_those_of_the_record(tmp_path: Path) -> None:
    _, tags = page(tmp_path)
    text = " ".join(tags.text.split())
    for said in (
        *("0.7000", "0.6300 to 0.7700", "58.00", "+0.1000", "+0.0500 to +0.1500", "0.012", "0.025", "0.0345", "0.0456"),
        *("better", "no difference shown", "worse", "1,234,567", "4.568", "12.3", "1.50 (1.25 to 1.75)", "2,346 (batch 8)"),
        *("64x48", "1,000", "train.lr: 1", "Protocol honest, fold 0: 9 held-out cases."),
    ):
        assert said in text, said
    assert "seconds a step" not in text and "peak" not in text, "of what nothing is known there is no column"
    assert "could have shown: 0.0345." in text and "significant" not in text


def test_pretrained_runs_have_their_own_table_and_no_differences(tmp_path: Path) -> None:
    html, _ = page(tmp_path)
    first, second = re.findall(r'<section id="table-\d">.*?</section>', html, re.DOTALL)
    assert "pretty" not in first and "All pairs" in first and "imagenet" in second
    assert "All pairs" not in second and "difference to" not in second


@pytest.mark.parametrize("what", ["held-out cases", "the official test part"])
def test_the_heading_says_of_which_cases_the_scores_are(tmp_path: Path, what: str) -> None:
    html, _ = page(tmp_path, what=what)
    assert f"<h1>toy &amp; co: 3 and 1 runs compared by {what}</h1>" in html


def test_what_could_not_have_been_shown_is_said(tmp_path: Path) -> None:
    record = make()
    for run in record["tables"][0]["runs"][1:]:
        run["against"] |= {"detectable": None, "detectable_holm": None, "interval95": None}
    _, tags = page(tmp_path, tables=record["tables"])
    assert "This data could have shown no difference" in tags.text


def test_several_classes_have_a_table(tmp_path: Path) -> None:
    record = make()
    for table in record["tables"]:
        for run in table["runs"]:
            for score in run["scores"].values():
                score["by_class"] = {"liver": 0.1234, "<b>": None}
    html, tags = page(tmp_path, tables=record["tables"], classes=["liver", "<b>"])
    assert "Class by class" in tags.text and "0.1234" in tags.text and "<b>," not in html


def test_effort_is_only_called_unequal_where_it_is(tmp_path: Path) -> None:
    assert "Not at equal effort" in page(tmp_path)[0] and "Not at equal effort" not in page(tmp_path, unequal=[])[0]


def test_names_beside_points_do_not_cover_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of matched costs lie close together: their names must still be read."""
    kept: list[matplotlib.figure.Figure] = []
    drawn = plots._svg
    monkeypatch.setattr(plots, "_svg", lambda figure, *rest: kept.append(figure) or drawn(figure, *rest))  # type: ignore[func-returns-value]
    points = [Point(f"a network {k}", 5.3 * (1 + 0.01 * k), 0.7 + 0.002 * k, (0.65, 0.75)) for k in range(6)]
    svg = score_against_cost([points, [Point(NASTY, 50, 0.8, None)]], "GFLOPs", "Dice", "n")
    assert all(point.name in svg for point in points) and "$x^" in svg and "<img" not in svg
    (figure,) = kept
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without the lines that lead to the points
    assert len(boxes) == 7
    overlaps = [(k, j) for k in range(7) for j in range(k) if boxes[k].shrunk(0.9, 0.9).overlaps(boxes[j].shrunk(0.9, 0.9))]
    assert not overlaps


def test_differences_of_one_run_and_of_many_cases_are_drawn() -> None:
    rows = [(NASTY, np.linspace(-1, 1, 3000).tolist(), 0.0, None)]
    svg = differences(rows, "Dice", "<first>", "n")
    assert "&lt;first&gt;" in svg and "data:image/png" in svg and len(svg) < 300_000


def test_a_small_p_is_not_printed_as_zero() -> None:
    assert [p_text(p) for p in (1.0, 0.0449, 0.001, 0.0004)] == ["1.000", "0.045", "0.001", "< 0.001"]
