"""What a run writes down: metrics.jsonl, trackers, the progress line, tables and pictures of its samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from align.engine.distributed import Processes
from align.engine.folder import RunFolder
from align.engine.metrics_file import MetricsFile, json_number
from align.engine.progress import Progress
from align.engine.trackers import Picture, Trackers
from align.types import Batch, Samples

Row = dict[str, object]


class Recorder:
    """The main process's pen. Other processes have none, except for the pictures of their own samples.

    Args:
        folder: run folder.
        trackers: any set.
        progress: the bar.
    """

    def __init__(self, folder: RunFolder, trackers: Trackers, progress: Progress) -> None:
        self.progress = progress
        self.trackers = trackers
        self._file = MetricsFile(folder.metrics)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line for the step."""
        self._file.append(step, metrics)
        self.trackers.log(step, {name: value for name, value in metrics.items() if json_number(value) is not None})
        self.progress.update(step, metrics)

    def flush_to_disk(self) -> None:
        """Lines written so far survive a power cut."""
        self._file.flush_to_disk()

    def close(self) -> None:
        """Close everything."""
        self.progress.close()
        self.trackers.close()
        self._file.close()


def write_samples(folder: RunFolder, step: int, batch: Batch, pictures: int, processes: Processes) -> list[Picture]:
    """Table of all samples of a step and the pictures of its first ones; a collective.

    Each process writes the pictures of its own rows; the first ones are those with the smallest global row number, so
    they do not depend on the number of processes.

    Returns:
        The pictures with their captions on the main process, nothing elsewhere.
    """
    samples = batch.samples
    if samples is None:
        return []
    rows = sample_rows(batch, samples)
    for place, row in enumerate(rows):
        index = int(samples.index[place])
        if samples.images is None or index >= pictures:
            continue
        path = folder.of_step("images", step) / f"{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        samples.images[place].save(path)
        row["image"] = str(path.relative_to(folder.path))
    everywhere = [row for part in processes.gather_objects(rows) for row in part]
    gathered = sorted(everywhere, key=lambda row: cast("int", row["index"]))  # as `sample_rows` makes it
    if not processes.is_main:
        return []
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in gathered)
    folder.of_step("samples", step, ".jsonl").write_text(lines, encoding="utf-8")
    return _read_pictures(folder, gathered)


def sample_rows(batch: Batch, samples: Samples) -> list[Row]:
    """One JSON object per sample of this process; unknown numbers are null."""
    table, signal = batch.rewards, batch.signal
    rows: list[Row] = []
    for place, prompt in enumerate(samples.prompts):
        values = {} if table is None else dict(zip(table.names, table.values[place].tolist(), strict=True))
        advantage = None if signal is None else signal.advantages[place].float().mean().item()
        completion = {} if samples.completions is None else {"completion": samples.completions[place]}
        rows.append(
            {
                "index": int(samples.index[place]),
                "group_id": int(samples.group_ids[place]),
                "prompt": prompt,
                **completion,
                "image": None,
                "rewards": {name: json_number(value) for name, value in values.items()},
                "score": None if signal is None else json_number(signal.scores[place].item()),
                "advantage": None if advantage is None else json_number(advantage),
            }
        )
    return rows


def _read_pictures(folder: RunFolder, rows: Sequence[Row]) -> list[Picture]:
    from PIL import Image

    shown = []
    for row in rows:
        if row["image"] is not None:
            with Image.open(folder.path / str(row["image"])) as file:
                shown.append(Picture(image=file.convert("RGB"), caption=f"{row['prompt']} | score {row['score']}"))
    return shown
