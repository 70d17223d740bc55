"""Type random words and train in random environments, a long run of both: `python run.py --count 5000 --seed 1`.

Each input follows from the seed and its number alone, so that `--only typed/17` repeats one. Inputs run in a process of
their own, which is replaced when one kills it. Results: `results/counts.json`, and `results/README.md` with a table and
every input that broke the rule.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
KINDS = ("typed", "environments")
# What a row counts: outcomes first, then the ways to break the rule.
OUTCOMES = ("trained", "printed", "refused", "diverged")
FAULTS = (
    "traceback", "hang", "crash", "file left", "message without key", "several messages", "advice", "not as typed",
    "message without class", "message without mend", "right environment refused",
)  # fmt: skip
# Seconds without news after which a process counts as hung.
SILENCE = 150.0
# Bytes of address space: a size that the machine cannot hold fails at once rather than all else.
MEMORY = 24 * 2**30


def plan(count: int, share: float) -> dict[str, int]:
    """Return how many inputs of each kind there are."""
    typed = round(count * share)
    return {"typed": typed, "environments": count - typed}


def one(kind: str, seed: int, number: int) -> dict[str, Any]:
    """Do one input and return what came of it."""
    import environments
    import typed

    source = Random(f"{kind}/{seed}/{number}")
    if kind == "typed":
        with typed.quick():
            done = typed.attempt(typed.words(source))
            broken = typed.faults(done)
        own = [word for word in done.words if word not in typed.TINY]
        return _row(number, done.kind, broken, " ".join(own), done.err, done.seconds)
    begin = time.perf_counter()
    made = environments.attempt(source)
    broken = environments.faults(made)
    if made.kind == "refused" and not made.mistake:
        broken.append("right environment refused")
    text = f"{made.mistake or 'no mistake'}: {made.text}"
    message = f"{made.message} {' '.join(made.trace)}"
    return _row(number, made.kind, broken, text, message, time.perf_counter() - begin)


def _row(number: int, kind: str, broken: list[str], text: str, message: str, seconds: float) -> dict[str, Any]:
    message = message.strip()
    if broken and "Traceback" in message:
        message = message.splitlines()[-1]
    return {
        "number": number, "kind": kind, "faults": broken, "input": text[:1000],
        "message": message[-600:] if broken else "", "seconds": round(seconds, 3),
    }  # fmt: skip


def work(kind: str, seed: int, numbers: range) -> None:
    """Do inputs one after the other, each reported by a line of JSON."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    import torch

    from rl8.config import catalog

    torch.set_num_threads(1)
    catalog.prepare()
    news = os.fdopen(os.dup(1), "w")
    for number in numbers:
        print(json.dumps(one(kind, seed, number)), file=news, flush=True)


def supervise(kind: str, seed: int, count: int, chunk: int = 200) -> Iterator[dict[str, Any]]:
    """Yield what came of each input, from processes that are replaced when they die."""
    number = 0
    while number < count:
        stop = min(number + chunk, count)
        words = [
            sys.executable,
            __file__,
            "--work",
            kind,
            "--seed",
            str(seed),
            "--from",
            str(number),
            "--to",
            str(stop),
        ]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
        ) as process:
            assert process.stdout is not None
            for line in _lines(process):
                yield json.loads(line)
                number += 1
            process.kill()
            code = process.wait()
        if number < stop:
            hung = code == -9
            fault = "hang" if hung else "crash"
            yield _row(number, fault, [fault], f"(--only {kind}/{number})", f"the process ended with {code}", SILENCE)
            number += 1


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield lines until the process ends or is silent for too long."""
    import selectors

    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(SILENCE):
            line = process.stdout.readline()
            if not line:
                process.wait()
                return
            yield line


def summary(rows: dict[str, list[dict[str, Any]]], seed: int) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Random inputs: results",
        "",
        f"`python experiments/fuzz/run.py --count {sum(map(len, rows.values()))} --seed {seed}`; commit {_commit()}, "
        f"{platform.python_implementation()} {platform.python_version()}. An input may break the rule in several ways.",
        "",
        "| | words typed | environments |",
        "|---|---|---|",
        f"| inputs | {' | '.join(f'{len(rows[kind]):,}' for kind in KINDS)} |",
    ]
    outcomes = {kind: Counter(row["kind"] for row in rows[kind]) for kind in KINDS}
    broken = {kind: Counter(name for row in rows[kind] for name in _names(row)) for kind in KINDS}
    table = [(name, outcomes) for name in OUTCOMES] + [(f"**{name}**", broken) for name in FAULTS]
    for name, found in table:
        cells = [f"{found[kind][name.strip('*')]:,}" for kind in KINDS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    longest = {kind: max((row["seconds"] for row in rows[kind]), default=0.0) for kind in KINDS}
    lines.append(f"| longest, s | {' | '.join(f'{longest[kind]:.1f}' for kind in KINDS)} |")
    for kind in KINDS:
        failing = [row for row in rows[kind] if row["faults"]]
        lines += ["", f"## {kind}: {len(failing)} inputs broke the rule", ""]
        for row in failing:
            text = f"{row['input']} -> {row['message']}".replace("\n", " ").replace("`", "'")
            lines.append(f"- {kind}/{row['number']} {', '.join(_names(row))}: `{text}`")
    return "\n".join(lines) + "\n"


def _names(row: dict[str, Any]) -> list[str]:
    return sorted({fault.partition(":")[0] for fault in row["faults"]})


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> None:
    """Read the flags, do the inputs, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="inputs (default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.4, help="of typed words among them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another draws other inputs (default: %(default)s)")
    parser.add_argument("--only", help="do one input again, e.g. typed/17, and print all of it")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder (default: %(default)s)")
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--from", type=int, dest="begin", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=int, dest="end", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.seed, range(args.begin, args.end))
        return
    if args.only:
        kind, _, number = args.only.partition("/")
        print(json.dumps(one(kind, args.seed, int(number)), indent=2, ensure_ascii=False))
        return
    rows: dict[str, list[dict[str, Any]]] = {}
    for kind, count in plan(args.count, args.share).items():
        rows[kind] = []
        for row in supervise(kind, args.seed, count):
            rows[kind].append(row)
            if row["faults"]:
                print(f"{kind}/{row['number']} {row['faults']}: {row['input']}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    kept = {kind: [row for row in found if row["faults"]] for kind, found in rows.items()}
    counts = {
        kind: {
            "inputs": len(found),
            "outcomes": Counter(row["kind"] for row in found),
            "faults": Counter(name for row in found for name in _names(row)),
        }
        for kind, found in rows.items()
    }
    content = {"seed": args.seed, "commit": _commit(), "counts": counts, "broken": kept}
    (args.out / "counts.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (args.out / "README.md").write_text(summary(rows, args.seed), encoding="utf-8")
    print(f"{args.out / 'README.md'}: {sum(map(len, kept.values()))} of {args.count} inputs broke the rule")


if __name__ == "__main__":
    main()
