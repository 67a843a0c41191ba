# SPDX-License-Identifier: Apache-2.0
"""Instructions of a training step before anything is built: work by kind, weighed by what an emulated Cortex-M7 takes.

A step is the forward pass, the head, the input gradients of all that lies behind the deepest selected layer, and what
selected channels add: their deltas' share of both passes, their weight gradients, made twice where they are clipped
(once where memory is left for their sums), and the update of each weight. The weights are fitted to measured steps, of
which none takes more (tools/instruction_study.py says how close they are).
They count instructions of `gcc -O2` for the emulated board, not cycles. Where most of a gradient is zero, a step takes
less; of uint8 networks, whose weights have zero points, up to a quarter more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

from medyate.ir import Graph, Node, elements
from medyate.ops import OPS
from medyate.rank.lara import LayerScore

WEIGHTS: Mapping[str, float] = {
    "back biases": 51.4,
    "back conv2d": 0.548,
    "back depthwise": 17.4,
    "back other": 262,
    "back values": 77.8,
    "back windows": 36.6,
    "forward conv2d": 5.11,
    "forward depthwise": 14.3,
    "forward other": 2.19,
    "forward values": 141,
    "forward windows": 1.1,
    "head": 65.7,
    "selected batch": 131,
    "selected conv2d": 15.7,
    "selected depthwise": 77.9,
    "selected taps": 274,
    "selected weights": 100,
}
"""Instructions for each unit of work."""
WIDE = 1.3
"""What gradients of 16 bits take of the work that has to do with them, those of 8 bits taken as 1."""
WIDENED = ("back", "selected")


class Effort:
    """What the steps of one network take."""

    def __init__(
        self,
        graph: Graph,
        outputs: int,
        grad_bits: int = 8,
        batch: int = 1,
        biases: Iterable[str] = (),
        weights: Mapping[str, float] = WEIGHTS,
    ) -> None:
        """`outputs`: of the head; `batch`: samples of one update; `biases`: layers whose biases are trained."""
        wide = {kind: weight * (WIDE if kind.startswith(WIDENED) else 1.0) for kind, weight in weights.items()}
        self.graph, self.outputs, self.batch = graph, outputs, batch
        self.weights = weights if grad_bits == 8 else wide
        self.biases = frozenset(biases)
        self.places = {node.name: number for number, node in enumerate(graph)}

    def instructions(self, work: Mapping[str, int]) -> int:
        """Of some work."""
        return round(sum(self.weights[kind] * amount for kind, amount in work.items()))

    # --- Work ---

    def base(self) -> Counter[str]:
        """Forward pass and head: what every step makes; the last one of a batch updates the head by all its samples."""
        features = elements(self.graph.shapes[self.graph.output])
        return self.forward(range(len(self.graph.nodes))) + Counter({"head": features * self.outputs * self.batch})

    def forward(self, numbers: Iterable[int]) -> Counter[str]:
        """Of some nodes."""
        return _sum(self._node(self.graph.nodes[number], "forward") for number in numbers)

    def chain(self, deepest: str) -> Counter[str]:
        """Input gradients behind a layer."""
        return _sum(self._node(node, "back") for node in self.graph.nodes[self.places[deepest] + 1 :])

    def selected(self, channels: Mapping[str, int]) -> Counter[str]:
        """What so many selected channels of layers add."""
        chosen = [node for node in self.graph if channels.get(node.name, 0)]
        work = _sum(Counter({f"selected {node.op}": channels[node.name] * self._channel_macs(node)}) for node in chosen)
        work["selected weights"] = sum(channels[node.name] * self._channel_weights(node) for node in chosen)
        work["selected taps"] = sum(channels[node.name] * math.prod(kernel_of(node)) for node in chosen)
        if self.batch > 1:  # the last step of a batch goes over the sums
            work["selected batch"] = work["selected weights"]
        return work

    def biased(self) -> Counter[str]:
        """What trained biases add: outputs start from them, and their gradients are summed up."""
        shapes = self.graph.shapes
        return Counter({"back biases": sum(elements(shapes[n.output]) for n in self.graph if n.name in self.biases)})

    def _node(self, node: Node, direction: str) -> Counter[str]:
        inputs, output = self.graph.input_shapes(node), self.graph.shapes[node.output]
        if OPS[node.op].channel_axes is None:
            return Counter({f"{direction} other": sum(map(elements, inputs)) + elements(output)})
        macs, windows = OPS[node.op].macs(node.attrs, inputs), elements(output)
        made = output if direction == "forward" else inputs[0]
        taps = macs // (windows * inputs[0][2] // getattr(node.attrs, "groups", 1)) if node.op == "conv2d" else 0
        work = Counter({f"{direction} {node.op}": macs, f"{direction} values": elements(made)})
        return work + Counter({f"{direction} windows": windows * taps})

    def _channel_macs(self, node: Node) -> int:
        inputs = self.graph.input_shapes(node)
        return OPS[node.op].macs(node.attrs, inputs) // inputs[0][2]

    def _channel_weights(self, node: Node) -> int:
        cost = OPS[node.op].channel_cost
        assert cost is not None  # it was selected
        return cost(node.attrs, self.graph.input_shapes(node)).weights

    # --- Bounds ---

    @cached_property
    def base_instructions(self) -> int:
        """Of a step that trains the head alone."""
        return self.instructions(self.base())

    def least(self, layer: str) -> int:
        """Of a step that trains one channel of a layer."""
        return self.base_instructions + self.instructions(self.chain(layer) + self.selected({layer: 1}))

    def step(self, scores: Sequence[LayerScore], budget: int, repeated: Collection[str] = ()) -> int:
        """Of the dearest selection of so many bytes among layers; `repeated`: nodes that run forward once more."""
        fixed = self._fixed(scores, repeated)
        for rate, most in self._rates(scores):
            taken = min(budget, most)
            fixed += rate * taken
            budget -= taken
        return round(fixed)

    def budget(self, scores: Sequence[LayerScore], limit: int, repeated: Collection[str] = ()) -> int:
        """The largest budget, a multiple of 4, with which no selection takes more than `limit`; -4: not even none."""
        left, budget = limit - self._fixed(scores, repeated), 0.0
        if left < 0:
            return -4
        for rate, most in self._rates(scores):
            taken = max(0.0, min(float(most), left / rate))
            budget += taken
            left -= rate * taken
        return int(budget) // 4 * 4

    def _fixed(self, scores: Sequence[LayerScore], repeated: Collection[str]) -> float:
        trained = (*(score.layer for score in scores), *self.biases)
        chain = self.chain(min(trained, key=lambda name: self.places[name])) if trained else Counter()
        again = self.forward(self.places[name] for name in repeated)
        return self.base_instructions + self.instructions(chain + again + self.biased())

    def _rates(self, scores: Sequence[LayerScore]) -> list[tuple[float, int]]:
        """(instructions for each byte of selected channels, bytes of all) of layers, the dearest first."""
        whole = ((self.instructions(self.selected({score.layer: score.channels})), score.bytes) for score in scores)
        return sorted(((work / size, size) for work, size in whole), reverse=True)


def kernel_of(node: Node) -> tuple[int, int]:
    """Height and width of a layer's window."""
    kernel: tuple[int, int] = node.attrs.kernel  # type: ignore[attr-defined]
    return kernel


def _sum(parts: Iterable[Counter[str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for part in parts:
        found.update(part)
    return found
