# SPDX-License-Identifier: Apache-2.0
"""medyate: fine-tune a pretrained network on the microcontroller itself.

    import medyate

    net = medyate.load("net.tflite")
    data = medyate.data("photos/")
    plan = net.plan(data, ram="128KiB", target="stm32f746")
    built = plan.compile("out/")
    with built.simulate() as sim:
        run = sim.fit(data, epochs=20)
        sim.export("trained.tflite")

What the objects can do: `medyate.api`. Every error is a `MedyateError` with `what` is wrong and a `remedy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medyate.errors import MedyateError
from medyate.version import VERSION

if TYPE_CHECKING:
    from medyate.api import Built, Network, Plan, Run, Simulator, data, load

__version__ = VERSION
__all__ = ["Built", "MedyateError", "Network", "Plan", "Run", "Simulator", "__version__", "data", "load"]


def __getattr__(name: str) -> Any:
    """The API, when it is asked for: commands that need none of it start sooner."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'medyate' has no attribute '{name}'")
    from medyate import api

    return getattr(api, name)
