"""What does a person see in MLflow's pages? Trains, sweeps, and looks at them with a real browser.

    python experiments/mlflow_ui/look.py [--pictures docs]

Needs Playwright and a Chromium (`apt install chromium`, `pip install playwright`). Prints a line per page: what must
stand on it, and whether it does. The pictures are those of the docs.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["trainer.view=none", "algo.num_envs=64", "algo.horizon=32", "network.hiddens=[64,64]"]
RUN = ["env=cartpole", "goal.env_steps=60_000", "trainer.steps_per_eval=3", *SMALL]
SWEEP = [
    "-m",
    "env=cartpole",
    "algo.gamma=0.9,0.97,0.99",
    "algo.num_sgd_iters=2,4,8",
    "seed=1,2",
    "goal.env_steps=16_000",
    "trainer.render=false",
    *SMALL,
]


def main() -> int:
    """Look at every page; return 1 if one lacks something."""
    parser = argparse.ArgumentParser(description="Look at MLflow's pages with a real browser.")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs", help="where they go")
    parser.add_argument("--work", type=Path, help="a folder with the runs of an earlier call; by default they are made")
    args = parser.parse_args()
    args.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.work or Path(scratch)
        if not (folder / "mlflow.db").exists():
            folder.mkdir(parents=True, exist_ok=True)
            for words in (RUN, SWEEP):
                rl8(folder, words)
        with server(folder) as base:
            return look(base, folder, args.pictures)


def rl8(folder: Path, words: Sequence[str]) -> None:
    """Do what a user would type."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-m", "rl8", *words], cwd=folder, env=environment, check=True)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve the folder's runs as `mlflow ui` does; yield the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{base}/health")
                break
            except OSError:
                time.sleep(0.5)
        yield base
    finally:
        process.terminate()
        process.wait()


def look(base: str, folder: Path, pictures: Path) -> int:
    """Visit the pages, print what is right and what is not, and take pictures."""
    from mlflow import MlflowClient
    from PIL import Image
    from playwright.sync_api import sync_playwright

    from rl8.data import EVAL_RETURNS_MEAN
    from rl8.tracking.pages import run_page, runs_page

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    number = client.get_experiment_by_name("rl8").experiment_id
    runs = client.search_runs([number], order_by=["attributes.start_time ASC"])
    run = next(run for run in runs if run.info.run_name == "cartpole-ppo-seed1")
    sweep = next(run for run in runs if run.info.run_name.startswith("sweep of"))
    table, charts = runs_page(base, number), f"{runs_page(base, number)}&compareRunsMode=CHART"
    page_of_run = run_page(base, number, run.info.run_id)
    metrics = page_of_run.replace("?", "/model-metrics?")
    film = page_of_run.replace("?", "/artifacts/policy.gif?")
    overview = run_page(base, number, sweep.info.run_id).replace("?", "/artifacts/sweep-overview.png?")
    steps = [point.step for point in client.get_metric_history(run.info.run_id, EVAL_RETURNS_MEAN)]
    # name of the picture, address, what is typed into the search field, what must stand there
    visits: list[tuple[str, str, str, list[str]]] = [
        (
            "runs",
            table,
            "",
            ["Model training", "eval/returns/mean", "transitions_per_s", "cartpole-ppo-seed1", "sweep of"],
        ),
        ("charts", charts, "", ["eval/returns/mean", "returns/mean"]),
        (
            "run",
            page_of_run,
            "",
            ["Model training", "cartpole-ppo-seed1", "CartPole", "evaluation", "FINISHED|Finished"],
        ),
        ("metrics", metrics, "returns/mean", ["eval/returns/mean[\\s\\S]*\\breturns/mean"]),
        ("files", film, "", ["config.yaml", "learning_curve.png", "policy.gif", "policy.pt"]),
        ("sweep", overview, "", ["sweep.csv", "sweep-overview.png"]),
    ]
    wrong = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, address, typed, expected in visits:
            page: Any = browser.new_page(viewport={"width": 1440, "height": 850})
            page.goto(address, timeout=120_000)
            if typed:
                page.get_by_placeholder("Search metric charts").fill(typed, timeout=90_000)
            for _ in range(90):
                text = page.inner_text("body")
                missing = [words for words in expected if not re.search(words, text)]
                if not missing:
                    break
                page.wait_for_timeout(1_000)
            with suppress(Exception):  # a panel that is open at first and covers a quarter of the page
                header = page.get_by_text("MLflow Assistant").locator("xpath=ancestor::*[.//button][1]//button")
                header.last.click(timeout=2_000)
            page.wait_for_timeout(8_000)  # charts are drawn after the last answer
            missing += wrong_order(page) if name == "charts" else []
            missing += wrong_axis(page, steps) if name in ("charts", "metrics") else []
            with Image.open(io.BytesIO(page.screenshot())) as picture:  # a tenth of the size in 64 colours
                picture.convert("RGB").quantize(64).save(pictures / f"mlflow-{name}.png", optimize=True)
            print(f"{name}: {'right' if not missing else f'wrong, without {missing}'}", flush=True)
            wrong += bool(missing)
            page.close()
        browser.close()
    return min(wrong, 1)


def wrong_order(page: Any) -> list[str]:
    """Return what is not as promised: evaluation, then training, then all other charts."""
    text = page.inner_text("body")
    sections = re.findall(r"^\s*([\w/]+)\s*\(\d+\)\s*$", text, re.MULTILINE)
    charts = re.findall(r"^\s*(\w+/[\w/]+)\s*$", text, re.MULTILINE)
    return [
        *([] if sections[:2] == ["eval", "returns"] else [f"sections eval, returns before {sections}"]),
        *([] if charts[:2] == ["eval/returns/mean", "returns/mean"] else [f"charts of means before {charts}"]),
    ]


def wrong_axis(page: Any, steps: Sequence[int]) -> list[str]:
    """Return what is not as promised of the first chart: it has the evaluations, against env steps.

    Args:
        page: With charts.
        steps: Env steps of the run's evaluations.
    """
    axis, *lines = page.evaluate(
        "() => {const plot = document.querySelector('.js-plotly-plot');"
        "return [plot._fullLayout.xaxis.title.text, ...plot._fullData.map(line => [...(line.x || [])])]}"
    )
    right = axis == "Step" and list(steps) in lines
    return [] if right else [f"points at {steps}: {lines} against {axis!r}"]


if __name__ == "__main__":
    sys.exit(main())
