# SPDX-License-Identifier: Apache-2.0
"""What `run --early-stop` brings: digitnet on its field task, with few and many samples and with wrong labels.

    python tools/early_stop_study.py

Each row is the mean over three seeds, in the demonstration's RAM and at its rate, by the host twin, whose integers are
the device's. Test labels are never wrong.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from demo import DIGITNET, RAM, RATE, digitnet
from medyate.datasets import Dataset
from medyate.plan.budget import Limits
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, epoch_samples, run
from medyate.stages import Options, compile_model

EPOCHS = 20
SEEDS = (0, 1, 2)
SAMPLES = (100, 200, 800)
WRONG = (0.0, 0.2)
"""Share of the training labels that are drawn anew."""
PATIENCE = (None, 3, 5)


def with_wrong_labels(dataset: Dataset, share: float) -> Dataset:
    """The same samples; some training labels say nothing."""
    random = np.random.default_rng(0)
    labels = dataset.y_train.copy()
    wrong = random.random(len(labels)) < share
    labels[wrong] = random.integers(0, 10, int(wrong.sum()))
    return replace(dataset, y_train=labels)


def main() -> None:
    """Runs all of it."""
    split = digitnet("task").load_adaptation()
    parts = (split.x_train, split.y_train, split.x_test, split.y_test)
    field = Dataset("its field task", tuple(map(str, range(10))), *parts)
    print("| samples | wrong labels | --early-stop | accuracy | epochs trained | kept |", flush=True)
    print("| --: | --: | --: | --: | --: | --: |", flush=True)
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        folder = Path(name)
        compile_model(DIGITNET / "digitnet.onnx", field, Options("host", Limits(RAM), head="keep"), folder / "out")
        compiled = Compiled.read(folder / "out")
        for samples in SAMPLES:
            for share in WRONG:
                dataset = with_wrong_labels(field.first(samples, len(field.x_test)), share)
                for patience in PATIENCE:
                    logs = []
                    for seed in SEEDS:
                        training = Training(RATE, EPOCHS, epoch_samples(dataset, None, patience), clip=0.0, seed=seed)
                        options = RunOptions(
                            "host",
                            training,
                            folder / "flash.bin",
                            evaluate_each=False,
                            guard=True,
                            early_stop=patience,
                            measure=False,
                            overwrite=True,
                        )
                        logs.append(run(compiled, dataset, options, lambda _: None))
                    means = [
                        statistics.mean(values)
                        for values in zip(
                            *(
                                (log["accuracy_after"], log["epochs"], log["kept_epoch"] or log["epochs"])
                                for log in logs
                            ),
                            strict=True,
                        )
                    ]
                    print(
                        f"| {samples} | {share:.0%} | {patience or ''} | {means[0]:.4f} | {means[1]:.1f} | "
                        f"{means[2]:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
