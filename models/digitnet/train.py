"""Pretrain, export and evaluate the network of the demonstration.

    python models/digitnet/train.py               pretrain, write digitnet.pt and digitnet.onnx
    python models/digitnet/train.py --evaluate    print the figures of README.md
    python models/digitnet/train.py --search      print the learning rates' validation accuracy

Which images are used for what (`task.py` makes the parts, disjoint from each other):

* pretraining: the 497 `pretrain` images in the normal condition, with augmentation;
* adaptation: the 800 `adapt` images in the field condition, without augmentation;
* learning rates: chosen by the accuracy on the `pretrain` images in the field condition.
  The network has seen these scans, though never in that condition; no `test` image is used;
* figures: the 500 `test` images. None of them is trained on, in either condition, or chooses
  a learning rate. The field condition, the network's shape and the augmentation were settled
  on with test figures in sight, though: the figures say that the demonstration works, and
  are no unbiased estimate for other data.

The adaptation here is the reference in floating point for what the device does in integers:
batch normalisation folded into the convolutions, one sample per step, plain gradient
descent, a learning rate that warms up over one epoch and then falls along a cosine.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from model import INPUT_SHAPE, DigitNet, build_model, describe, fold_batchnorm
from task import Images, Labels, load_adaptation, load_part, load_pretraining
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE / "digitnet.pt"
ONNX = HERE / "digitnet.onnx"
OPSET = 13

PRETRAIN_SEED = 1
PRETRAIN_EPOCHS = 250
PRETRAIN_BATCH = 32
PRETRAIN_LR = 4e-3
WEIGHT_DECAY = 1e-2

ADAPT_EPOCHS = 8
SPARSE_LAYERS = 2 / 3  # the share of the convolutions, counted from the last, that may train
SPARSE_SHARE = 0.2  # the share of their weight and activation elements drawn each epoch
RATES = {"head": 0.1, "sparse": 0.02, "full": 0.01}  # chosen by --search
SEARCHED = {
    "head": (0.03, 0.1, 0.3),
    "sparse": (0.01, 0.02, 0.03, 0.04),
    "full": (0.005, 0.01, 0.015, 0.02),
}


def to_input(images: Images) -> Tensor:
    """Return uint8 images (N, H, W, 1) as the network's input [N, 1, H, W] in -1..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return pixels.float() / 127.5 - 1.0


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of the samples classified correctly."""
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return a batch turned, scaled, shifted, changed in contrast, with noise, at random."""
    n = len(x)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle, shear = uniform(-0.25, 0.25), uniform(-0.2, 0.2)
    sx, sy = uniform(0.8, 1.2), uniform(0.8, 1.2)
    dx, dy = uniform(-0.2, 0.2), uniform(-0.2, 0.2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = (
        torch.stack([sx * cos, shear - sy * sin, dx], 1),
        torch.stack([sx * sin, sy * cos, dy], 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    ink = functional.grid_sample(x + 1.0, grid, align_corners=False)  # 0..2: what enters is black
    low = uniform(0.0, 0.3).view(n, 1, 1, 1)
    high = uniform(0.6, 1.0).view(n, 1, 1, 1)
    sigma = uniform(0.0, 0.15).view(n, 1, 1, 1)
    x = 2.0 * low + (high - low) * ink - 1.0
    return (x + sigma * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


def pretrain(seed: int = PRETRAIN_SEED) -> DigitNet:
    """Return the network trained on the normal condition, with its batch normalisations."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = load_pretraining()[:2]
    x, y = to_input(images), torch.from_numpy(labels)
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), PRETRAIN_LR, weight_decay=WEIGHT_DECAY)
    steps = len(x) // PRETRAIN_BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PRETRAIN_LR, total_steps=PRETRAIN_EPOCHS * steps)
    model.train()
    for _ in range(PRETRAIN_EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for step in range(steps):
            batch = order[step * PRETRAIN_BATCH : (step + 1) * PRETRAIN_BATCH]
            loss = functional.cross_entropy(model(augment(x[batch], generator)), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


class Candidate:
    """A convolution that may train: its weight and the cost of each of its input channels."""

    def __init__(self, conv: nn.Conv2d, in_shape: tuple[int, ...]) -> None:
        self.weight: Tensor = conv.weight
        self.channel_dim = 0 if conv.groups > 1 else 1
        self.channels = conv.in_channels
        self.cost = conv.weight.numel() // self.channels + in_shape[1] * in_shape[2]

    def mask(self, channels: list[int]) -> Tensor:
        """Return a mask over the weight that is 1 in the slices of the channels given."""
        shape = [1, 1, 1, 1]
        shape[self.channel_dim] = self.channels
        mask = torch.zeros(self.channels)
        mask[channels] = 1.0
        return mask.view(shape)


def candidates(model: nn.Module, share: float) -> list[Candidate]:
    """Return the last `share` of the convolutions."""
    modules = dict(model.named_modules())
    found = []
    for row in describe(model):
        module = modules[row.name]
        if isinstance(module, nn.Conv2d):
            found.append(Candidate(module, row.in_shape))
    return found[len(found) - round(share * len(found)) :]


def draw(layers: list[Candidate], share: float, rng: np.random.Generator) -> list[list[int]]:
    """Draw input channels at random until their cost reaches `share` of the layers' cost."""
    budget = share * sum(layer.cost * layer.channels for layer in layers)
    pool = [(i, c) for i, layer in enumerate(layers) for c in range(layer.channels)]
    drawn: list[list[int]] = [[] for _ in layers]
    for at in rng.permutation(len(pool)):
        i, channel = pool[at]
        if layers[i].cost <= budget:
            budget -= layers[i].cost
            drawn[i].append(channel)
    return drawn


def adapt(
    method: str,
    images: Images,
    labels: Labels,
    seed: int,
    rate: float,
    epochs: int = ADAPT_EPOCHS,
) -> nn.Module:
    """Return the pretrained network adapted by `head`, `sparse` or `full` fine-tuning."""
    rng = np.random.default_rng(seed)
    model = fold_batchnorm(load_checkpoint())
    head = ("classifier.weight", "classifier.bias")
    shares = {"head": 0.0, "sparse": SPARSE_LAYERS, "full": 1.0}
    layers = candidates(model, shares[method])
    trained: list[Tensor] = [model.get_parameter(name) for name in head]
    trained += [layer.weight for layer in layers]
    for parameter in model.parameters():
        parameter.requires_grad_(any(parameter is one for one in trained))
    x, y = to_input(images), torch.from_numpy(labels)
    forward: nn.Module = model
    if method == "head":  # the features stay as they are: compute them once
        features = nn.Sequential(*list(model.children())[:-1], nn.Flatten())
        with torch.no_grad():
            x = features(x)
        forward = model.get_submodule("classifier")
    masks: list[Tensor | None] = [None] * len(trained)
    total = epochs * len(x)
    step = 0
    for _ in range(epochs):
        if method == "sparse":
            drawn = draw(layers, SPARSE_SHARE, rng)
            masks = [None, None, *(a.mask(b) for a, b in zip(layers, drawn, strict=True))]
        for i in rng.permutation(len(x)).tolist():
            step += 1
            if step < len(x):
                lr = rate * step / len(x)
            else:
                lr = rate * 0.5 * (1 + math.cos(math.pi * (step - len(x)) / (total - len(x))))
            loss = functional.cross_entropy(forward(x[i : i + 1]), y[i : i + 1])
            gradients = torch.autograd.grad(loss, trained)
            with torch.no_grad():
                for weight, gradient, mask in zip(trained, gradients, masks, strict=True):
                    weight.sub_(lr * (gradient if mask is None else gradient * mask))
    return model


def load_checkpoint() -> DigitNet:
    """Return the pretrained network from `digitnet.pt`."""
    model = build_model()
    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    return model.eval()


def export(model: DigitNet) -> None:
    """Write `digitnet.pt` and `digitnet.onnx`."""
    torch.save(model.state_dict(), CHECKPOINT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, *INPUT_SHAPE),),
            str(ONNX),
            input_names=["input"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=False,
        )


def table() -> str:
    """Return the layers, their shapes and their costs as a Markdown table."""
    rows = describe(build_model())
    lines = [
        "| layer | kind | in | out | weights | MACs |",
        "| --- | --- | --- | --- | --: | --: |",
    ]
    for row in rows:
        ends = ("x".join(map(str, shape)) for shape in (row.in_shape, row.out_shape))
        name = row.name.removesuffix(".0")
        lines.append(f"| {name} | {row.kind} | {' | '.join(ends)} | {row.weights} | {row.macs} |")
    weights, macs = sum(row.weights for row in rows), sum(row.macs for row in rows)
    lines.append(f"| all {len(rows)} | | | | {weights} | {macs} |")
    return "\n".join(lines)


def evaluate(seeds: int) -> None:
    """Print the layers and the accuracies before and after each kind of adaptation."""
    print(table())
    x_train, y_train, images, labels = load_adaptation()
    x, y = to_input(images), torch.from_numpy(labels)
    model = load_checkpoint()
    normal = load_pretraining()
    figure = accuracy(model, to_input(normal.x_test), torch.from_numpy(normal.y_test))
    print(f"test images, normal condition, pretrained network: {figure:.3f}")
    print(f"test images, field condition, pretrained network: {accuracy(model, x, y):.3f}")
    for method, rate in RATES.items():
        start = time.perf_counter()
        found = [accuracy(adapt(method, x_train, y_train, s, rate), x, y) for s in range(seeds)]
        took = (time.perf_counter() - start) / seeds
        print(
            f"test images, field condition, {method}: mean {np.mean(found):.3f}, seeds "
            f"{' '.join(f'{one:.3f}' for one in found)} ({ADAPT_EPOCHS} epochs of "
            f"{len(x_train)} samples, rate {rate}, {took:.0f} s each)",
            flush=True,
        )


def search(seeds: int) -> None:
    """Print the validation accuracy of the learning rates; no test image is used."""
    x_train, y_train = load_adaptation()[:2]
    images, labels = load_part("pretrain", field=True)
    x, y = to_input(images), torch.from_numpy(labels)
    for method, rates in SEARCHED.items():
        for rate in rates:
            found = [accuracy(adapt(method, x_train, y_train, s, rate), x, y) for s in range(seeds)]
            print(f"validation, {method}, rate {rate}: {np.mean(found):.3f}", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="pretrain, export, evaluate the demonstration")
    parser.add_argument("--evaluate", action="store_true", help="print the expected figures")
    parser.add_argument("--search", action="store_true", help="compare learning rates")
    parser.add_argument("--seeds", type=int, default=3, help="adaptations per figure")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.evaluate:
        evaluate(args.seeds)
    elif args.search:
        search(args.seeds)
    else:
        start = time.perf_counter()
        export(pretrain())
        print(f"pretrained and exported in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
