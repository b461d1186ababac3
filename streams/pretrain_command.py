"""`streamgauge pretrain`: an encoder reads a domain's unlabelled text before it is fine-tuned."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from models.distillation import MOST_UNLABELLED, read_unlabelled
from models.errors import TRAIN_EXTRA, MissingExtra, ModelError
from models.tasks import PACKAGED_BASE
from streams.command_line import AsJson, TextColumn
from streams.model_output import clear_errors, progress_bar

MOST = "Texts at most; of more a random part is taken."
LEAVE_OUT = "Data whose texts are left out: what models are to be graded on. May be repeated."


def pretrain(
    data: Annotated[list[Path], typer.Option(help="Text to read: JSON lines, CSV or Parquet. May be repeated.")],
    out: Annotated[Path, typer.Option(help="Directory to become the new base encoder.")],
    base: Annotated[str, typer.Option(help="The encoder to start from.")] = PACKAGED_BASE,
    leave_out: Annotated[list[Path] | None, typer.Option(help=LEAVE_OUT)] = None,
    most: Annotated[int, typer.Option(min=20, max=5_000_000, help=MOST)] = MOST_UNLABELLED,
    text_column: TextColumn = "text",
    epochs: Annotated[int, typer.Option(min=1, max=1000)] = 3,
    max_tokens: Annotated[int, typer.Option(min=8, max=8192, help="A longer text is read in pieces.")] = 128,
    seed: Annotated[int, typer.Option(help="Same seed, text and machine: same encoder.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Train a base encoder further on unlabelled text of your domain; `train --base DIR` takes what comes out."""
    started = time.perf_counter()
    with clear_errors():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ModelError(f"--out {out}: is there already; choose a directory that is not")
        graded_on = read_unlabelled(leave_out or (), 5_000_000, seed, (), text_column)
        texts = read_unlabelled(data, most, seed, graded_on, text_column)
        try:
            from models.pretraining import PretrainSettings
            from models.pretraining import pretrain as train_further
        except ImportError as error:
            raise MissingExtra(f"pre-training needs the train extra: {TRAIN_EXTRA} ({error})") from error
        settings = PretrainSettings(base=base, epochs=epochs, max_tokens=max_tokens, seed=seed)
        name = ", ".join(path.name for path in data)
        with progress_bar() as progress:
            record = train_further(texts, name, settings, out, progress)
    seconds = round(time.perf_counter() - started, 1)
    if as_json:
        shown = {"name": record.name, "directory": str(out), "sha256": record.sha256, "texts": len(texts)}
        print(json.dumps({**shown, "metrics": record.metrics, "seconds": seconds}))
        return
    before, after = record.metrics["held_out_loss_before"], min(record.metrics["held_out_loss_of_epochs"])
    print(f"{len(texts)} texts read in {seconds} seconds; loss on held-out text {before:.3f} before, {after:.3f} after")
    print(out)
