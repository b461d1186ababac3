"""The table of classifiers: what `train` makes of each public set by its own choice of recipe, as it is served.

    python -m tests.benchmarks.classifier_table --data SETS --out DIR --seeds 3 --only fpb --only sms

`SETS/<set>/{train,dev}.jsonl` are the labelled texts. For each row and seed: `streamgauge train`, `evaluate
--robustness` and `compress`, as commands, without a recipe. All that was measured is kept in `DIR/rows.jsonl`; who
starts again goes on where it was. Printed is the table in Markdown, mean and deviation over the seeds. A teacher is
trained once a set, if its base encoder was fetched, and its time is that of the first seed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROWS = {  # row: set, file of its training texts
    "fpb": ("fpb_50agree", "train"),
    "twitter": ("twitter_fin_news", "train"),
    "sentfin": ("sentfin_headline", "train"),
    "banking": ("banking77", "train"),
    "banking-10": ("banking77", "train_10shot"),
    "clinc": ("clinc150", "train"),
    "hwu": ("hwu64", "train"),
    "hwu-10": ("hwu64", "train_10shot"),
    "smishing": ("smishing_5971", "train"),
    "sms": ("sms_spam", "train"),
    "loans": ("sba_loan_default", "train"),
    "complaints": ("cfpb_product", "train"),
}
HEADINGS = "| row | recipe | accuracy | macro-F1 | fp16 | int8 | ECE (floor) | worst drop | else | CPU minutes |"


def command(*args: str | Path) -> tuple[dict[str, Any], float]:
    """What a `streamgauge` command says with --json, and the CPU minutes it took."""

    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = cpu_s()
    said = subprocess.run(
        [sys.executable, "-m", "streams.cli", *map(str, args), "--json"], check=True, stdout=subprocess.PIPE
    ).stdout
    return json.loads(said), (cpu_s() - before) / 60


def measured(name: str, seed: int, sets: Path, out: Path, train: Sequence[str]) -> dict[str, Any]:
    """One row with one seed; its release stays in `out`."""
    task, (folder, file) = name.partition("-")[0], ROWS[name]
    data, dev, release = sets / folder / f"{file}.jsonl", sets / folder / "dev.jsonl", out / f"{name}-{seed}"
    trained, minutes = command(
        "train", task, "--data", data, "--dev", dev, "--seed", str(seed), "--out", release, *train
    )
    graded, _ = command("evaluate", task, "--release", release, "--data", dev, "--robustness")
    compressed, _ = command("compress", task, "--release", release, "--data", dev)
    return {
        "row": name,
        "seed": seed,
        "recipe": trained["recipe"],
        "cpu_minutes": minutes,
        "best_epoch": trained["metrics"].get("best_epoch"),
        **{key: graded[key] for key in ("accuracy", "macro_f1", "ece", "ece_floor")},
        **{key: graded.get(key) for key in ("auc", "average_precision", "out_of_scope")},  # where they can be had
        "worst_drop": graded["robustness"]["worst_drop"],
        "variants": {
            one["precision"]: {**one["grades"][task], "refused": one["refused"]} for one in compressed["variants"]
        },
        "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def over_seeds(values: Sequence[float], digits: int = 3) -> str:
    """Mean, and deviation where there is one."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def line(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """A row of the table."""

    def of(key: str) -> str:
        return over_seeds([row[key] for row in rows])

    def served(precision: str) -> str:
        its = [row["variants"][precision] for row in rows]
        refused = sum(one["refused"] is not None for one in its)
        return (
            over_seeds([one["macro_f1"] for one in its]) + (f" ({refused} refused)" if refused else "") if its else ""
        )

    more = []
    if rows[0]["auc"] is not None:
        more.append(f"AUC {of('auc')}, average precision {of('average_precision')}")
    if rows[0]["out_of_scope"] is not None:
        for key, word in (("in_scope_accuracy", "in scope"), ("recall", "out of scope found")):
            more.append(f"{word} {over_seeds([row['out_of_scope'][key] for row in rows])}")
    cells = [
        f"{name} ({len(rows)})",
        ", ".join(sorted({row["recipe"] for row in rows})),
        *(of(key) for key in ("accuracy", "macro_f1")),
        *(served(precision) for precision in ("fp16", "int8-dynamic")),
        f"{of('ece')} ({fmean(row['ece_floor'] for row in rows):.3f})",
        over_seeds([100 * row["worst_drop"] for row in rows], 1),
        "; ".join(more),
        over_seeds([row["cpu_minutes"] for row in rows], 0),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure what is not measured yet, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=7)
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("train", nargs="*", help="further arguments of `train`, after --")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / "rows.jsonl"
    wanted = args.only or list(ROWS)
    for seed in range(args.first_seed, args.first_seed + args.seeds):  # one seed of every row before the next seed
        for name in wanted:
            done = [json.loads(row) for row in kept.read_text().splitlines()] if kept.exists() else []
            if not any((row["row"], row["seed"]) == (name, seed) for row in done):
                row = measured(name, seed, args.data, args.out, args.train)
                with kept.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    rows = [json.loads(row) for row in kept.read_text().splitlines()]
    print(HEADINGS, "|---" * HEADINGS.count(" | ") + "|---|", sep="\n")
    for name in wanted:
        print(line(name, [row for row in rows if row["row"] == name]))


if __name__ == "__main__":
    main()
