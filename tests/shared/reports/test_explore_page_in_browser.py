"""explore.html in a browser: charts are drawn offline, a point shows its text, a phone has room."""

import pytest
from browser import Browser, needs_browser

from shared.reports.explore_page import PAGE, write_explore_page

ROWS = [7, 12, 13, 40]
POINTS = [
    {"row": row, "labels": labels, "x": float(i), "y": float(i % 2), "text": f"<b>text</b> {row}"}
    for i, (row, labels) in enumerate(zip(ROWS, [[0], [0, 1], None, []], strict=True))
]


def group(texts):
    example = {"row": 7, "labels": ["bug"], "text": "<i>the same</i>"}
    members = [{"labels": ["bug"], "rows": [7]}, {"labels": None, "rows": [12]}]
    members = [member | {"texts": 1} for member in members]
    return {
        **{"texts": texts, "different_texts": 1, "copies_conflict": True},
        **{"labels": members, "examples": [example]},
    }


def figures():
    length = {"p5": 2, "p50": 9, "p95": 90, "p99": 300, "mean": 20, "max": 700}
    return {
        "next_steps": [{"section": "labels", "text": "Few: --min_label_count 10 leaves it out."}],
        "rows": {
            **{"source": "a/rows.csv", "layout": "CSV", "text_columns": ["text"], "notes": ["one"]},
            **{"label_columns": ["label"], "rows_read": 4, "pull_requests": 0, "blank_texts": 0},
            **{"exact_duplicates": 0, "joined_rows": 0, "rows": 4, "labelled": 3, "unlabelled": 1},
            "blank_rows": [],
        },
        "labels": {
            **{"n_labels": 2, "single_label": False, "labels_per_text": [1, 1, 1], "left_out": {}},
            "labels": [
                {"label": "bug", "texts": 2, "share": 2 / 3, "rows": [7, 12]},
                {"label": "docs", "texts": 1, "share": 1 / 3, "rows": [12]},
            ],
            "pairs": [{"labels": ["bug", "docs"], "texts": 1, "rows": [12], "shares": [0.5, 1.0]}],
            "together": {"labels": ["bug", "docs"], "counts": [[2, 1], [1, 1]]},
            "similar_names": [],
        },
        "words": [
            {
                **{"label": "bug", "texts": 2},
                "words": [{"word": "crash", "z": 4.2, "texts": 2, "other_texts": 0, "rows": [7]}],
            }
        ],
        "lengths": {
            **{"characters_count_as_words": False, "words": length, "tokens": length, "model": "m"},
            **{"model_limit": 512, "unknown_tokens": 0.01, "texts_counted": 4, "short_texts": 1},
            "histogram": [{"from": 2, "to": 8, "texts": 1}, {"from": 8, "to": 1024, "texts": 3}],
            "cuts": [
                {"max_length": n, "texts_cut": 1} | {"share_of_texts": 0.1, "share_of_tokens": 0.1}
                for n in (128, 256, 512)
            ],
            "longest": [{"row": 7, "tokens": 700, "words": 600, "text": "long"}],
            "short": [{"row": 13, "text": "ok"}],
        },
        "languages": {
            "texts_counted": 4,
            "languages": [
                {"language": "de", "texts": 4, "share": 1.0, "rows": ROWS, "example": "x" * 100}
            ],
        },
        "copies": {
            **{"groups": 1, "texts": 2, "exact_groups": 1, "exact_texts": 2, "conflicts": 1},
            **{"conflicts_of_copies": 1, "largest": [group(2)], "conflicting": [group(2)]},
        },
        "templates": {
            **{"lines": 1, "share_of_words": 0.1, "texts_with_shared_lines": 4},
            "frequent": [{"line": "## What " + "y" * 90, "texts": 4, "share": 1.0, "rows": ROWS}],
            **{"mostly_template": 0, "mostly": []},
        },
        "time": {
            **{"column": "date", "dated": 4, "undated": 0, "first": "2024-01-01"},
            **{"last": "2024-02-03", "unit": "month", "periods": ["2024-01-01", "2024-02-01"]},
            **{"texts": [2, 2], "labelled": [1, 2], "labels": {"bug": [1, 1]}},
            "newest_share": 0.25,
            "shifts": [{"label": "bug", "before": 0.5, "after": 0.7, "z": 1.0}],
        },
        "map": {"model": "m", "projection": "t-SNE"},
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    write_explore_page(
        *(folder, figures(), POINTS, ["bug", "docs"]), subtitle="rows", cache_dir=str(folder.parent)
    )
    browser = Browser((folder / PAGE).as_uri(), folder)
    yield browser
    browser.driver.quit()


@needs_browser
def test_all_charts_are_drawn_without_a_network(browser):
    names = ("label", "together", "length", "time", "trend", "map")
    for name in names:
        browser.element(f"#{name}-chart svg")
    assert browser.texts(".next code") == ["--min_label_count"]
    assert "German" in browser.texts("#languages tbody th")
    assert browser.requests() == set()
    assert browser.errors() == []


@needs_browser
def test_a_point_of_the_map_shows_its_text(browser):
    browser.element("#map-chart svg")
    for index, point in enumerate(POINTS):
        browser.driver.execute_script(f"showPoint({index})")
        names = ["bug", "bug, docs", "unlabelled", "none applies"][index]
        assert browser.texts("#map-text p") == [f"Row {point['row']}: {names}"]
        assert browser.texts("#map-text pre") == [point["text"]]
    marks = browser.driver.find_elements("css selector", "#map-chart path[aria-label]")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", marks[0])
    marks[0].click()
    browser.element("#map-text p", "Row ")
    browser.driver.execute_script(
        "by('map-label').value = '1'; by('map-label').dispatchEvent(new Event('input'))"
    )
    browser.element("#map-chart svg text", "docs")


@needs_browser
def test_a_phone_has_room_for_the_page(browser):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
