"""report.html in a browser: tables sort, the threshold moves, rows are filtered, offline."""

import numpy as np
import pytest
from browser import Browser, needs_browser
from datasets import Dataset

from shared.evaluation.rules import DecisionRule
from shared.reports.page import PAGE, write_page

LABELS = ["bug", "docs", "speed"]
THRESHOLD = 0.5


@pytest.fixture(scope="module")
def arrays():
    """Labels and scores of 60 rows, of which some are wrong."""
    rng = np.random.default_rng(0)
    y = rng.random((60, 3)) < (0.5, 0.3, 0.4)
    return y, (0.4 * y + 0.6 * rng.random((60, 3))).round(3)


def explain(lists, labels):
    """Return the reasons of the first row of the first list: one word for, none against."""
    first = lists[0][0]
    words = [(0, [["crash", 1.5], ["<b>", 0.25]]), (1, [])]
    neighbours = [
        {"row": 7, "cosine": 0.834, "text": "<i>near</i>", "labels": [0, 2]},
        {"row": 9, "cosine": 0.5, "text": "", "labels": []},
    ]
    return {first: {"words": words, "neighbours": neighbours}}, "Reasons of a tagger."


@pytest.fixture(scope="module")
def browser(arrays, tmp_path_factory):
    """The page of a report, opened as a file."""
    folder = tmp_path_factory.mktemp("report")
    y, scores = arrays
    texts = [f"text {i} of {'a crash' if i % 2 else 'an idea'}" for i in range(len(y))]
    write_page(
        folder,
        title="a title",
        evaluation="On rows.",
        rows=Dataset.from_dict({"row": range(len(y)), "text": texts}),
        label_names=LABELS,
        y_true=y,
        scores=scores,
        predicted=scores >= THRESHOLD,
        rule=DecisionRule.of(THRESHOLD, 3),
        metrics={"test_micro_f1": 0.5},
        thresholds=[THRESHOLD] * 3,
        explain=explain,
        cache_dir=str(folder.parent),
    )
    browser = Browser((folder / PAGE).as_uri(), folder)
    yield browser
    browser.driver.quit()


@needs_browser
def test_a_heading_sorts_the_table(arrays, browser):
    y, _ = arrays
    assert browser.texts("#label-table tbody th") == LABELS
    by_rows = [LABELS[i] for i in np.argsort(-y.sum(axis=0))]
    button = browser.element("#label-table button", "Rows")
    for direction, expected in (("descending", by_rows), ("ascending", by_rows[::-1])):
        button.click()
        assert browser.texts("#label-table tbody th") == expected
        (header,) = browser.driver.find_elements("css selector", f"th[aria-sort={direction}]")
        assert header.text == "Rows"
    browser.element("#label-table button", "Label").click()
    assert browser.texts("#label-table tbody th") == LABELS
    assert browser.texts("th[aria-sort=ascending]") == ["Label"]
    assert browser.texts("th[aria-sort=descending]") == []


@needs_browser
def test_the_slider_changes_the_numbers(arrays, browser):
    from selenium.webdriver import Keys

    y, scores = (array[:, LABELS.index("speed")] for array in arrays)

    def figures():
        terms, values = (browser.texts(f"#threshold-figures {tag}") for tag in ("dt", "dd b"))
        return dict(zip(terms, values, strict=True))

    def expected(threshold):
        chosen = scores >= threshold
        hits, n = (chosen & y).sum(), chosen.sum()
        changed = abs(n - (scores >= THRESHOLD).sum())
        return {
            "precision": f"{hits / n:.3f}",
            "recall": f"{hits / y.sum():.3f}",
            "F1": f"{2 * hits / (n + y.sum()):.3f}",
            "rows predicted": str(n),
            "rows that change": str(changed),
        }

    browser.element("#curve-label").send_keys(f"speed ({y.sum()})")
    assert browser.texts("#threshold-value") == ["0.500"]
    assert figures() == expected(THRESHOLD)
    slider = browser.element("#threshold")
    slider.send_keys(*[Keys.ARROW_RIGHT] * 3)
    (value,) = browser.texts("#threshold-value")
    assert float(value) > THRESHOLD
    assert slider.get_attribute("aria-valuetext") == value
    assert figures() == expected(float(value))
    assert figures()["rows that change"] != "0"
    (status,) = browser.driver.find_elements("css selector", "#threshold-status")
    assert figures()["precision"] in status.get_attribute("textContent")


@needs_browser
def test_rows_are_filtered_by_list_label_and_words(arrays, browser):
    y, scores = arrays
    predicted = scores >= THRESHOLD
    wrong = np.flatnonzero((predicted != y).any(axis=1))

    def count(rows):
        return [f"{min(10, len(rows))} of {len(rows)} rows"]

    status = "#rows-status"
    assert browser.texts(status) == count(wrong)
    browser.element("#more-rows").click()
    assert browser.texts(status) == [f"{min(20, len(wrong))} of {len(wrong)} rows"]

    browser.element("#row-label").send_keys("docs")
    of_label = wrong[(y | predicted)[wrong, LABELS.index("docs")]]
    assert 0 < len(of_label) < len(wrong)
    assert browser.texts(status) == count(of_label)

    search = browser.element("#row-search")
    search.send_keys("CRASH")
    odd = of_label[of_label % 2 == 1]
    assert browser.texts(status) == count(odd)
    headlines = browser.texts("#row-list summary")
    assert len(headlines) == min(10, len(odd))
    assert {*headlines} <= {f"text {i} of a crash" for i in odd}

    search.clear()
    browser.element("#row-label").send_keys("all")
    browser.element("label", "Most doubtful").click()
    assert browser.texts(status) == count(y)


@needs_browser
def test_reasons_unfold(browser):
    browser.element("label", "Worst errors").click()
    assert browser.texts("#reasons-note") == ["Reasons of a tagger."]
    (reasons,) = browser.driver.find_elements("css selector", ".reasons")
    assert reasons.text == "Reasons"
    browser.element(".reasons summary").click()
    assert browser.texts(".words dt") == ["bug", "docs"]
    assert browser.texts(".words dd") == ["crash 1.50 <b> 0.25", "none"]
    assert browser.texts(".neighbours li") == [
        "<i>near</i>\nRow 7, cosine 0.83: bug, speed",
        "(no text)\nRow 9, cosine 0.50: no label",
    ]


@needs_browser
def test_the_console_has_no_error_and_nothing_is_requested(browser):
    for chart in browser.driver.find_elements("css selector", ".chart"):
        browser.element(f"#{chart.get_attribute('id')} svg")
    assert browser.errors() == []
    assert browser.requests() == set()
