# SPDX-License-Identifier: Apache-2.0
"""Trained networks go out and come back: the device, TFLite's kernels, onnxruntime and a second import agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from medyate import artefact, datasets, frontends
from medyate.check import run_device
from medyate.export.trained import logit_range, read_compiled, trained_network
from medyate.ir import QGraph
from medyate.oracle import oracle_for
from medyate.oracle.onnx import EXACT_SUMS
from medyate.plan.budget import Limits
from medyate.plan.plan import inference_plan
from medyate.quantize.apply import input_quant, reference
from medyate.run.generation import newest
from medyate.run.session import Training
from medyate.run.train import Compiled, connect, int8_samples
from medyate.stages import silent
from oracles import forms
from shared_files import shared, some_long

SAMPLES = 100
ONNX_STEPS = 2
"""Largest difference of onnxruntime's logits in output steps, or what its own kernels differ by if that is more."""
NETWORKS = {
    "ic": ("models/ic_resnet8_cifar10_int8.tflite", "data/cifar10", "200KiB", "keep"),
    "kws": ("models/kws_dscnn_int8.tflite", "data/kws01", "100KiB", "keep"),
    "mbv2": ("models/mbv2-w0.35.pkl", "data/flowers17", "320KiB", "new"),
}


def source(name: str) -> str:
    """A folder of images, or the one npz in a folder."""
    folder = shared(name)
    return str(next(iter(sorted(folder.glob("*.npz"))), folder))


def trained(name: str, rounding: str, run_cli: Cli, folder: Path) -> tuple[Compiled, str]:
    """A network after some training on the host twin."""
    model, samples, ram, head = NETWORKS[name]
    out, source_ = folder / "out", source(samples)
    options = ("--ram", ram, "--head", head, "--rounding", rounding)
    made = run_cli("compile", shared(model), "--data", source_, *options, "-o", out)
    assert made.code == 0, made.err
    given = ("--data", source_, "--rate", 0.01, "--epochs", 2, "--limit", 200)
    ran = run_cli("run", out, *given, "--no-measure", "--evaluate-at-end")
    assert ran.code == 0, ran.err
    return Compiled.read(out), source_


def features_of(qgraph: QGraph) -> QGraph:
    """The network up to what its last convolution reads."""
    graph = qgraph.graph
    last = max(i for i, node in enumerate(graph.nodes) if node.op == "conv2d")
    nodes = graph.nodes[:last]
    names = {graph.input} | {node.output for node in nodes}
    kept = tuple(t for t in graph.tensors if t[0] in names)
    return replace(qgraph, graph=replace(graph, nodes=nodes, tensors=kept, output=graph.nodes[last].inputs[0]))


@pytest.mark.parametrize("name", some_long(NETWORKS, lambda name: name != "kws"))
def test_a_trained_network_goes_to_tflite_and_comes_back(name: str, run_cli: Cli, tmp_path: Path) -> None:
    compiled, source_ = trained(name, "twice", run_cli, tmp_path)
    path = tmp_path / "trained.tflite"
    ended = run_cli("export", compiled.folder, "-o", path)
    assert ended.code == 0, ended.err
    dataset = datasets.load(source_)
    stored = int8_samples(compiled, dataset)[1][:SAMPLES]
    with connect(compiled, "host", compiled.folder / "flash.bin") as session:
        session.begin(replace(Training(0.0015, 2, 200), fresh=False))
        device = [(session.infer(sample).prediction, session.output()) for sample in stored]

    back = frontends.load(path)
    assert back.qgraph is not None
    ours = reference(back.qgraph, back.weights, stored)
    assert np.array_equal(ours, oracle_for(path)(path, forms(stored)))
    backbone = features_of(back.qgraph)
    assert np.array_equal(reference(backbone, back.weights, stored), np.array([output for _, output in device]))
    agree = float(np.mean(ours.argmax(1) == [prediction for prediction, _ in device]))
    assert agree >= 0.97, "the head's int8 form predicts otherwise"
    plan = inference_plan(back.qgraph, back.weights, Limits(1 << 30))
    assert np.array_equal(run_device(plan, "host", stored, silent), ours)


def onnx_logits(path: Path, tensor: str, samples: np.ndarray, level: str) -> np.ndarray:
    """The int8 logits that onnxruntime computes for real samples (n, H, W, C), as (n, classes)."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info(f"{tensor}/int8", onnx.TensorProto.INT8, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.add_session_config_entry(*EXACT_SUMS)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    name = session.get_inputs()[0].name
    rows = [session.run([f"{tensor}/int8"], {name: sample.transpose(2, 0, 1)[None]})[0] for sample in samples]
    return np.concatenate(rows).reshape(len(samples), -1).astype(int)


def logits_of(whole: QGraph) -> QGraph:
    """The network without a softmax at its end."""
    graph = whole.graph
    last = graph.nodes[-1]
    if last.op != "softmax":
        return whole
    tensors = tuple(t for t in graph.tensors if t[0] != last.output)
    return replace(whole, graph=replace(graph, nodes=graph.nodes[:-1], tensors=tensors, output=last.inputs[0]))


@pytest.mark.parametrize("name", some_long(NETWORKS, lambda name: name != "kws"))
def test_a_trained_network_goes_to_onnx(name: str, run_cli: Cli, tmp_path: Path) -> None:
    compiled, source_ = trained(name, "once", run_cli, tmp_path)
    path = tmp_path / "trained.onnx"
    ended = run_cli("export", compiled.folder, "-o", path)
    assert ended.code == 0, ended.err
    stored = int8_samples(compiled, datasets.load(source_))[1][:SAMPLES]
    qgraph, weights, facts = read_compiled(compiled)
    generation = newest(facts, (compiled.folder / "flash.bin").read_bytes())
    bounds = logit_range(artefact.read_json(compiled.folder / "run.json"))
    whole, arrays = trained_network(compiled, qgraph, weights, generation, bounds)
    quant, cut = input_quant(whole), logits_of(whole)
    real = ((stored.astype(np.float32) - quant.zero) * np.float32(quant.scale)).astype(np.float32)

    ours = reference(cut, arrays, stored).astype(int)
    fused, plain = (onnx_logits(path, cut.graph.output, real, level) for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"))
    assert float((fused.argmax(1) == ours.argmax(1)).mean()) >= 0.99
    assert np.abs(fused - ours).max() <= max(ONNX_STEPS, np.abs(fused - plain).max())
    assert float((oracle_for(path)(path, forms(real)).argmax(1) == ours.argmax(1)).mean()) >= 0.99
    again = frontends.load(path)
    assert again.qgraph is not None
    back = reference(again.qgraph, again.weights, stored)
    assert float((back.argmax(1) == ours.argmax(1)).mean()) >= 0.99
