# SPDX-License-Identifier: Apache-2.0
"""What `run` finds without a rate and where it ends, beside 0.01 and a rate that was searched for.

    python tools/rate_study.py [SHARED]

digitnet on its field task, two seeds, in the demonstration's RAM; with SHARED, the folder with models/ and data/, also
MobileNetV2-w0.35 on flowers17. By the host twin, whose integers are the device's.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from demo import DIGITNET, EPOCHS, RAM, RATE, digitnet
from medyate import datasets
from medyate.datasets import Dataset
from medyate.plan.budget import Limits
from medyate.recipe import CLIP
from medyate.recipe import RATE as DEFAULT
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, run
from medyate.stages import Options, compile_model

WAYS = {"auto": (DEFAULT, CLIP), "--rate 0.01": (DEFAULT, CLIP), "no clip": (DEFAULT, 0.0), "searched": (RATE, 0.0)}


def study(model: Path, dataset: Dataset, options: Options, training: Training, ways: tuple[str, ...]) -> None:
    """Prints a row for each way and seed."""
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        folder = Path(name)
        compile_model(model, dataset, options, folder / "out")
        compiled = Compiled.read(folder / "out")
        for way in ways:
            rate, clip = WAYS[way]
            for seed in (0, 1):
                chosen = replace(training, rate=rate, clip=clip, seed=seed)
                auto = way == "auto"
                told = RunOptions(
                    "host",
                    chosen,
                    folder / "f.bin",
                    evaluate_each=False,
                    find_rate=auto,
                    find_flip=auto,
                    measure=False,
                    overwrite=True,
                )
                log = run(compiled, dataset, told, lambda _: None)
                head = "" if log["accuracy_head_only"] is None else f"{log['accuracy_head_only']:.4f}"
                found = f"{log['rate']:.3g} | {log['clip']:g} | {log['accuracy_after']:.4f} | {head}"
                print(f"| {compiled.plan['network']} on {dataset.name} | {way} | {seed} | {found} |", flush=True)


def main() -> None:
    """Runs all of it."""
    print("| network | how | seed | rate | clip | accuracy | head alone, before |", flush=True)
    print("| --- | --- | --: | --: | --: | --: | --: |", flush=True)
    split = digitnet("task").load_adaptation()
    parts = (split.x_train, split.y_train, split.x_test, split.y_test)
    field = Dataset("its field task", tuple(map(str, range(10))), *parts)
    training = Training(DEFAULT, EPOCHS, len(field.x_train))
    study(DIGITNET / "digitnet.onnx", field, Options("host", Limits(RAM), head="keep"), training, tuple(WAYS))
    if len(sys.argv) > 1:
        shared = Path(sys.argv[1])
        some = datasets.load(str(shared / "data" / "flowers17")).first(340, 0)
        options = Options("host", Limits(128 << 10))
        model = shared / "models" / "mbv2-w0.35.pkl"
        study(model, some, options, Training(DEFAULT, 6, len(some.x_train)), ("auto", "no clip"))


if __name__ == "__main__":
    main()
