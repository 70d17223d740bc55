import json

from rl8.tracking.pages import VIEW_TAG, experiment_tags, run_page, runs_page
from rl8.tracking.run import Tracker
from rl8.tracking.store import open_store


def test_an_experiment_keeps_a_view_with_returns_first(store_dir):
    store = open_store()
    old = store.client.create_experiment("old", tags={"mine": "1"})
    addresses = []
    for name in ("new", "old", "old"):
        with Tracker.start(experiment_name=name) as tracker:
            addresses.append((tracker.url, tracker.table_url, tracker.run_id))
        tags = store.client.get_experiment_by_name(name).tags
        view = json.loads(tags[VIEW_TAG])
        assert view["selectedColumns"][0] == "metrics.`eval/returns/mean`"
        assert [section["name"] for section in view["compareRunSections"]] == ["eval", "returns"]
        assert [chart["metricKey"] for chart in view["compareRunCharts"]] == ["eval/returns/mean", "returns/mean"]
        sections = {section["uuid"] for section in view["compareRunSections"]}
        assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == sections
        assert tags.keys() == ({"mine", VIEW_TAG} if name == "old" else experiment_tags().keys())
    url, table, run_id = addresses[1]
    assert url == run_page("http://127.0.0.1:5000", old, run_id)
    assert table == runs_page("http://127.0.0.1:5000", old)
    assert table.endswith(f"/#/experiments/{old}/runs?viewStateShareKey=rl8&workflowType=machine_learning")


def test_the_tags_are_what_every_server_takes():
    assert all(len(value) <= 5000 for value in experiment_tags().values())
