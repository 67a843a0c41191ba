# SPDX-License-Identifier: Apache-2.0
"""Runs a TFLite file with the reference kernels: MODEL X.npy Y.npy [OUTPUT]. Without arguments: which runtime.

Needs NumPy and a TFLite runtime only, and runs in a Python that need not know medyate.
"""

import sys

import numpy as np

try:
    from tflite_runtime import interpreter as lite

    RUNTIME = "tflite-runtime"
except ImportError:
    from ai_edge_litert import interpreter as lite

    RUNTIME = "ai-edge-litert"


def main() -> None:
    """Reads samples, writes outputs (n, k)."""
    if len(sys.argv) < 4:
        print(RUNTIME, getattr(lite, "__version__", ""))
        return
    model, inputs, outputs = sys.argv[1:4]
    number = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    runner = lite.Interpreter(model, experimental_op_resolver_type=lite.OpResolverType.BUILTIN_REF, num_threads=1)
    runner.allocate_tensors()
    source, target = runner.get_input_details()[0], runner.get_output_details()[number]
    found = []
    for sample in np.load(inputs):
        runner.set_tensor(source["index"], as_input(sample, source))
        runner.invoke()
        value = runner.get_tensor(target["index"]).reshape(-1)
        found.append((value.astype(np.int16) - 128).astype(np.int8) if value.dtype == np.uint8 else value)
    np.save(outputs, np.array(found))


def as_input(sample: np.ndarray, details: dict) -> np.ndarray:  # type: ignore[type-arg]
    """A sample in the file's own type; int8 stands 128 below uint8."""
    dtype = details["dtype"]
    if dtype == np.uint8:
        sample = sample.astype(np.int16) + 128
    return sample.astype(dtype).reshape(details["shape"])


if __name__ == "__main__":
    main()
