"""What MLflow's pages show of runs: their addresses, and a view that is kept with the experiment.

The view has the columns that one compares runs by, and charts of evaluation and training before all others. MLflow
finds it by the experiment's tag and the key in the address, as it finds a view that somebody shared by its button.
"""

from __future__ import annotations

import json
from typing import Any, Final

from rl8.data import EVAL_RETURNS_MEAN, RETURNS_MEAN, TRANSITIONS_PER_S

#: What the pages are for when they are opened by our address: training models, not evaluating language models.
TRAINING: Final = "machine_learning"
#: Tag of an experiment: what its pages are for when they are opened otherwise.
KIND: Final = "mlflow.experimentKind"
#: The key of our view, and the tag that holds it.
VIEW: Final = "rl8"
VIEW_TAG: Final = f"mlflow.sharedViewState.{VIEW}"
_PRIMARY: Final = "mlflow.experiment.primaryMetric.name"
_COLUMNS: Final = (
    f"metrics.`{EVAL_RETURNS_MEAN}`",
    f"metrics.`{RETURNS_MEAN}`",
    f"metrics.`{TRANSITIONS_PER_S}`",
    "params.`env._target_`",
    "params.`algo._target_`",
    "params.`seed`",
    "attributes.`Duration`",
)
_FIRST_CHARTS: Final = (EVAL_RETURNS_MEAN, RETURNS_MEAN)


def experiment_tags() -> dict[str, str]:
    """Return the tags of an experiment that say how its pages look."""
    return {KIND: "custom_model_development", _PRIMARY: EVAL_RETURNS_MEAN, VIEW_TAG: json.dumps(_view())}


def _view() -> dict[str, Any]:
    sections = list(dict.fromkeys(metric.partition("/")[0] for metric in _FIRST_CHARTS))
    shown = {"display": True, "isReordered": True, "deleted": False, "isGenerated": True}
    return {
        "selectedColumns": list(_COLUMNS),
        "isAccordionReordered": True,
        "compareRunSections": [{"uuid": f"rl8-{name}", "name": name, **shown} for name in sections],
        "compareRunCharts": [
            {
                "type": "LINE",
                "uuid": f"rl8-{metric}",
                "metricSectionId": f"rl8-{metric.partition('/')[0]}",
                "metricKey": metric,
                "displayName": metric,
                "isGenerated": True,
                "deleted": False,
                "runsCountToCompare": 10,
                "xAxisKey": "step",
                "selectedXAxisMetricKey": "",
                "useGlobalXaxisKey": False,
                "useGlobalLineSmoothing": True,
                "lineSmoothness": 0,
                "xAxisScaleType": "linear",
                "scaleType": "linear",
                "range": {},
            }
            for metric in _FIRST_CHARTS
        ],
    }


def run_page(base: str, experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page."""
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}?workflowType={TRAINING}"


def runs_page(base: str, experiment_id: str) -> str:
    """Return the address of an experiment's table of runs, in our view."""
    return f"{base}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&workflowType={TRAINING}"
