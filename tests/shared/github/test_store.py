"""Pages on disk: what is kept, what is refused, what a kill leaves."""

import pytest

from shared.cli.errors import UserError
from shared.github.store import PageStore

SETTINGS = {"repo": "owner/name", "labels": ["a", "b"], "since": None}
DATES = ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]


def put(store, url, ids, *, date=DATES[0], next_url=None, value=0, **options):
    rows = [{"id": id, "value": value} for id in ids]
    options = {
        "etag": f"of {url}",
        "next_url": next_url,
        "number_of": lambda row: -row["id"],
    } | options
    store.put("issues", url, rows, date=date, **options)


def ids(store):
    return [row["id"] for row in store.rows("issues")]


@pytest.fixture
def store(tmp_path):
    store = PageStore(tmp_path / "folder" / "pages.sqlite", SETTINGS)
    yield store
    store._database.close()


def fill(store):
    """Fetch two pages, of the rows 1 to 3."""
    store.begin("issues", update=False)
    put(store, "a", [1, 2], next_url="b")
    put(store, "b", [3], date=DATES[1])
    store.finish("issues")


def test_a_run_that_was_stopped_goes_on(store):
    run = store.begin("issues", update=False)
    put(store, "a", [1, 2], next_url="b")
    again = store.begin("issues", update=True)  # an update needs all rows first
    assert (again.number, again.since, again.started) == (run.number, None, DATES[0])
    assert store.page("a").next_url == "b"
    assert store.page("b") is None
    put(store, "b", [3], date=DATES[1])
    store.finish("issues")
    run = store.run("issues")
    assert (run.is_open, run.finished) == (False, DATES[0])
    assert ids(store) == [3, 2, 1]  # by number


def test_a_run_of_everything_removes_what_it_has_not_met(store):
    fill(store)
    store.keep_facts(changes=0)
    run = store.begin("issues", update=False)
    store.keep("issues", "a", DATES[2])
    assert store.page("a").run == run.number
    store.finish("issues")
    assert ids(store) == [2, 1]
    assert store.page("b") is None
    assert store.n_changes == 1
    assert store.run("issues").finished == DATES[2]


def test_an_update_changes_the_rows_that_it_has(store):
    fill(store)
    store.keep_facts(changes=0)
    assert store.begin("issues", update=True).since == DATES[0]
    put(store, "since", [2, 4], date=DATES[2], value=1)
    put(store, "more", [3, 1], date=DATES[2], is_wanted=lambda row: row["id"] == 1)
    store.finish("issues")
    assert list(store.rows("issues")) == [
        *({"id": 4, "value": 1}, {"id": 2, "value": 1}, {"id": 1, "value": 0}),
    ]
    assert store.n_changes == 3  # 2 changed, 4 is new, 3 is gone, 1 is as before
    assert store.run("issues").finished == DATES[2]
    assert store.page("a") is not None  # for the next run of everything


def test_an_update_without_any_row_asks_for_the_same_again(store):
    fill(store)
    for _ in range(2):
        assert store.begin("issues", update=True).since == DATES[0]
        put(store, "since", [], date=DATES[2])
        store.finish("issues")


def test_a_run_of_everything_takes_the_place_of_an_update_that_was_stopped(store):
    fill(store)
    update = store.begin("issues", update=True)
    put(store, "since", [4], next_url="more")
    run = store.begin("issues", update=False)
    assert (run.number, run.since) == (update.number + 1, None)


def test_rows_of_one_number(store):
    fill(store)
    assert [row["id"] for row in store.rows("issues", -2)] == [2]
    assert list(store.rows("comments", -2)) == []


def test_other_settings_are_refused_by_their_names(store):
    fill(store)
    path = store.path
    store.close()
    with pytest.raises(UserError, match="was fetched with --labels a b, --since unset; repeat"):
        PageStore(path, SETTINGS | {"labels": None, "since": "2026"})
    with PageStore(path, SETTINGS) as store:
        assert ids(store) == [3, 2, 1]


def test_a_store_without_pages_takes_any_settings(store):
    store.begin("issues", update=False)
    store._database.close()  # as a kill does
    with PageStore(store.path, SETTINGS | {"repo": "another/one"}) as store:
        assert store.fact("settings")["repo"] == "another/one"


def test_a_new_store_without_pages_leaves_no_file(tmp_path):
    path = tmp_path / "pages.sqlite"
    with PageStore(path, SETTINGS) as store:
        store.begin("issues", update=False)
        assert path.exists()
    assert not path.exists()


def test_two_at_a_time_are_refused(store):
    fill(store)
    with pytest.raises(UserError, match="another fetch is writing this file"):
        PageStore(store.path, SETTINGS)


def test_a_page_is_kept_whole_or_not_at_all(store):
    fill(store)

    def number_of(row):
        if row["id"] == 6:
            raise KeyboardInterrupt
        return row["id"]

    store.begin("issues", update=False)
    with pytest.raises(KeyboardInterrupt):
        put(store, "c", [5, 6], number_of=number_of)
    assert ids(store) == [3, 2, 1]
    assert store.page("c") is None


def test_a_full_disk_loses_no_page(store):
    fill(store)
    store.begin("issues", update=False)
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UserError, match="full; free some space"):
        put(store, "c", range(10, 1000))
    assert ids(store) == [3, 2, 1]


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(100)])
def test_another_file_is_refused_and_kept(content, tmp_path):
    path = tmp_path / "pages.sqlite"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: .*; delete it"):
        PageStore(path, SETTINGS)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot be created"):
        PageStore(tmp_path / "file" / "pages.sqlite", SETTINGS)
