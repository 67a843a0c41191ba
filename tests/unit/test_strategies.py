# SPDX-License-Identifier: Apache-2.0
"""Selection methods: candidates, budgets, what is drawn and what is observed; the papers' own figures.

Costs 3 s, most of it for reading the two real networks.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from medyate import frontends
from medyate.errors import BudgetError, DataError
from medyate.ledger import ChannelCost
from medyate.passes.pipeline import Normalised, normalise
from medyate.rank.lara import LayerScore, Ranking, channel_costs
from medyate.sample.policy import draw_selection
from medyate.strategies import STRATEGIES, su
from medyate.strategies.boost import ONE, parse_boost
from medyate.strategies.candidates import Layers, by_lara, by_trady
from medyate.strategies.cost import DEVICE, PAPER, cost_model
from medyate.strategies.device import NoEvidence, device_form
from medyate.strategies.problem import Problem, Settings
from medyate.strategies.selection import footprint, largest_that_fit, layer_macs
from medyate.strategies.strategy import Course, Norms, Sampled, join
from medyate.strategies.velocity import MU, Equilibrium, Outputs, weight_budget
from proxyless import PROXYLESS
from shared_files import ROOT, shared

NONE = Settings()
SAMPLED = [name for name, s in STRATEGIES.items() if isinstance(s.rule, Sampled)]


@cache
def network(path: str) -> Normalised:
    return normalise(frontends.load(Path(path)))


def problem(normal: Normalised, budget: int, settings: Settings = NONE, cost: str = "paper") -> Problem:
    """With made-up scores: LaRa grows towards the end, TraDy's towards the start."""
    costs = channel_costs(normal.graph)
    scores = [LayerScore(name, i + 1.0, 1.0 / (i + 1), *facts) for i, (name, facts) in enumerate(costs.items())]
    ranking = Ranking(normal.graph.name, "made up", tuple(sorted(scores, key=lambda s: -s.lara)))
    return Problem(normal.graph, normal.weights, ranking, budget, cost_model(cost), settings)


@pytest.fixture
def digitnet() -> Normalised:
    return network(str(ROOT / "models" / "digitnet" / "digitnet.onnx"))


class Known:
    """Evidence that was written down."""

    def __init__(self, norms: Norms, outputs: list[Outputs] | None = None) -> None:
        self.norms, self.left, self.asked = norms, outputs or [], 0

    def gradient_norms(self, layers: Layers) -> Norms:
        self.asked += 1
        return {layer.layer: self.norms[layer.layer] for layer in layers}

    def outputs(self) -> Outputs:
        return self.left.pop(0)


def evidence(task: Problem) -> Known:
    random = np.random.default_rng(0)
    return Known({layer.layer: random.exponential(size=layer.channels) for layer in task.layers})


# --- the papers' figures ---


@pytest.mark.parametrize(
    ("name", "layers", "elements", "missing"),
    [("mbv2-w0.35", 51, 1_252_320, 51_968), ("mcunet-5fps", 42, 1_309_808, 0)],
)
def test_the_elements_of_a_network_are_those_of_the_papers(name: str, layers: int, elements: int, missing: int) -> None:
    """The papers' MbV2 has one more convolution than the checkpoint: 1 x 1, 112 to 448 channels at 4 x 4."""
    task = problem(network(str(shared(f"models/{name}.pkl"))), 1)
    final = LayerScore("final", 0.0, 0.0, 112, ChannelCost(448, 16))
    assert PAPER.layer(final) == 51_968
    assert len(task.layers) == layers
    assert PAPER.layers(task.layers) + missing == elements


def test_the_elements_of_proxyless_are_those_of_the_papers() -> None:
    final = LayerScore("final", 0.0, 0.0, 96, ChannelCost(384, 16))
    assert len(PROXYLESS) == 60
    assert PAPER.layers((*PROXYLESS, final)) == 1_162_032


PRINTED = {"mbv2-w0.35": (28_282, 46_208, 66_592, 83_840, 93_696)}
"""The papers print 27,946 for the smallest scheme of MbV2; the published one takes 336 more."""


@pytest.mark.parametrize("name", ["mbv2-w0.35", "mcunet-5fps", "proxyless-w0.3"])
def test_every_published_scheme_takes_the_elements_of_the_papers(name: str) -> None:
    layers: Layers = PROXYLESS
    if name != "proxyless-w0.3":
        layers = problem(network(str(shared(f"models/{name}.pkl"))), 1).layers
    known = su.known(layers)
    assert known is not None
    assert known.name == name
    by_name = {layer.layer: layer.cost for layer in layers}
    found = [
        sum(count * by_name[layer].elements for layer, count in su.counts(scheme, layers).items())
        for scheme in known.schemes
    ]
    assert tuple(found) == PRINTED.get(name, tuple(scheme.elements for scheme in known.schemes))


@pytest.mark.parametrize(("budget", "target"), [(27_946, 139_730), (66_592, 332_960), (93_696, 468_480)])
def test_lara_takes_the_fewest_layers_with_five_times_the_budget(budget: int, target: int) -> None:
    task = problem(network(str(shared("models/mbv2-w0.35.pkl"))), budget)
    chosen = by_lara(task)
    assert PAPER.layers(chosen) >= target
    assert PAPER.layers(chosen) - PAPER.layer(chosen[0]) < target  # LaRa falls towards the start in this ranking


def test_trady_takes_the_fewest_layers_that_hold_97_percent(digitnet: Normalised) -> None:
    task = problem(digitnet, 100)
    chosen = by_trady(task)
    total = sum(layer.trady for layer in task.layers)
    assert sum(layer.trady for layer in chosen) >= 0.97 * total
    assert sum(layer.trady for layer in chosen[:-1]) < 0.97 * total
    assert by_trady(replace(task, settings=Settings(k=3))) == task.layers[:3]


# --- what every strategy promises ---


@pytest.mark.parametrize("cost", ["paper", "device"])
@pytest.mark.parametrize("name", SAMPLED)
def test_a_selection_is_within_the_budget_and_uses_it_up(name: str, cost: str, digitnet: Normalised) -> None:
    task = problem(digitnet, 3000, cost=cost)
    known, course = evidence(task), Course(STRATEGIES[name], task, 5)
    epochs = [course.select(epoch, known) for epoch in range(2)]
    for selection in epochs:
        left = task.budget - sum(
            len(selection.channels.get(layer.layer, ())) * task.cost.channel(layer.cost) for layer in task.layers
        )
        unused = [s for s in course.layers if len(selection.channels.get(s.layer, ())) < s.channels]
        assert 0 <= left < min(task.cost.channel(layer.cost) for layer in unused)
        assert selection.layers <= {layer.layer for layer in course.layers}
    assert (epochs[0] == epochs[1]) == (name.startswith("s-") or name.startswith("det-"))
    again = Course(STRATEGIES[name], task, 5)
    assert again.select(0, known) == epochs[0]


@pytest.mark.parametrize("name", [n for n, s in STRATEGIES.items() if "device" in s.runs_on])
def test_a_device_strategy_needs_no_gradient_and_is_three_facts(name: str, digitnet: Normalised) -> None:
    task = problem(digitnet, 3000, Settings(boost="rank"))
    if name != "su":  # the search of other networks' schemes is tested below
        Course(STRATEGIES[name], task, 1).select(0, NoEvidence())
    layers, form = device_form(STRATEGIES[name], task, 1)
    policies = {"medyate": "proportional", "prev-medyate": "proportional"}
    uniform = ("trady", "lara-trady", "d-full-random")
    assert form.policy == policies.get(name, "uniform" if name in uniform else "fixed")
    course = Course(STRATEGIES[name], task, 1)
    if form.policy == "fixed":
        assert set(form.channels) == {layer.layer for layer in layers}
        assert form.candidates(task.ranking) == tuple(s for s in task.ranking.scores if s in layers)
        assert form.channels == course.select(0, NoEvidence()).channels
    else:
        start = [norm for layer in layers for norm in form.start[layer.layer]]
        assert start == course.norms
        costs = [task.cost.channel(s.cost) for s in layers for _ in range(s.channels)]
        drawn = draw_selection(start, costs, task.budget, 1, 0)
        assert drawn == join(layers, course.select(0, NoEvidence()).channels)


def test_a_host_strategy_has_no_device_form(digitnet: Normalised) -> None:
    with pytest.raises(BudgetError, match="does not run on the device"):
        device_form(STRATEGIES["prob-raw"], problem(digitnet, 3000), 0)


def test_a_budget_below_one_channel_is_refused(digitnet: Normalised) -> None:
    with pytest.raises(BudgetError, match="holds no channel"):
        Course(STRATEGIES["medyate"], problem(digitnet, 3), 0)


# --- norms ---


def test_medyate_keeps_the_norms_it_saw_and_favours_what_it_did_not(digitnet: Normalised) -> None:
    task = problem(digitnet, 3000)
    course = Course(STRATEGIES["medyate"], task, 0)
    selection = course.select(0, NoEvidence())
    seen = {name: np.linspace(0.1, 0.5, len(channels)) for name, channels in selection.channels.items()}
    largest = max(float(norms.max()) for norms in seen.values())
    course.observe(0, selection, seen)
    norms = iter(course.norms)
    for layer in course.layers:
        chosen = selection.channels.get(layer.layer, ())
        expected = np.full(layer.channels, largest)
        expected[list(chosen)] = seen.get(layer.layer, np.zeros(0))
        np.testing.assert_allclose([next(norms) / 2**32 for _ in range(layer.channels)], expected, rtol=1e-3)  # 11 bits


def test_uniform_sampling_never_observes(digitnet: Normalised) -> None:
    course = Course(STRATEGIES["trady"], problem(digitnet, 3000), 0)
    selection = course.select(0, NoEvidence())
    course.observe(0, selection, {name: np.ones(len(c)) for name, c in selection.channels.items()})
    assert set(course.norms) == {1}


@pytest.mark.parametrize("name", ["det-rgn", "det-raw", "s-det-rgn"])
def test_a_deterministic_oracle_takes_the_largest(name: str, digitnet: Normalised) -> None:
    task = problem(digitnet, 3000)
    known, course = evidence(task), Course(STRATEGIES[name], task, 0)
    selection = course.select(0, known)
    per_cost = name != "det-raw"
    costs = {layer.layer: layer.cost.elements for layer in task.layers}
    score = {
        (layer.layer, c): known.norms[layer.layer][c] / (costs[layer.layer] if per_cost else 1)
        for layer in course.layers
        for c in range(layer.channels)
    }
    best = max(score, key=lambda key: score[key])
    assert best[1] in selection.channels[best[0]]
    cheapest_taken = min(score[name, c] for name, chosen in selection.channels.items() for c in chosen)
    left = task.budget - sum(len(chosen) * costs[name] for name, chosen in selection.channels.items())
    better = [key for key in score if score[key] > cheapest_taken and key[1] not in selection.channels.get(key[0], ())]
    assert all(costs[layer] > left for layer, _ in better)
    course.select(1, known)
    assert known.asked == (1 if name == "s-det-rgn" else 2)


def test_what_does_not_fit_is_skipped() -> None:
    assert largest_that_fit([5.0, 4.0, 3.0, 2.0], [6, 7, 3, 1], 10) == (0, 2, 3)


@pytest.mark.parametrize("text", ["lara", "rank", "softmax(0.5)"])
def test_a_boost_starts_higher_layers_higher(text: str, digitnet: Normalised) -> None:
    task = problem(digitnet, 3000)
    norms = parse_boost(text)(task.layers)
    assert (np.diff(norms) > 0).all()  # LaRa grows towards the end in this ranking
    assert 1 <= norms.min() <= norms.max() <= ONE


def test_a_boost_changes_the_first_draw(digitnet: Normalised) -> None:
    def last_layers(boost: str) -> int:
        total = 0
        for seed in range(20):
            task = problem(digitnet, 1000, Settings(k=10, boost=boost))
            chosen = Course(STRATEGIES["medyate"], task, seed).select(0, NoEvidence()).channels
            total += sum(len(chosen.get(layer.layer, ())) for layer in by_lara(task)[-3:])
        return total

    assert last_layers("softmax(0.1)") > 1.5 * last_layers("none")


@pytest.mark.parametrize(
    "wrong", [{"boost": "more"}, {"boost": "softmax(0)"}, {"k": 0}, {"alpha": 0.0}, {"alpha": 1.5}, {"coverage": "x"}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DataError):
        Settings(**wrong)  # type: ignore[arg-type]


def test_unknown_names_are_refused_with_the_list() -> None:
    with pytest.raises(DataError, match="paper, device"):
        cost_model("bits")
    assert cost_model("device") is DEVICE


# --- sparse update ---


def test_a_scheme_trains_the_channels_with_the_largest_weights() -> None:
    task = problem(network(str(shared("models/mcunet-5fps.pkl"))), 64_832)
    selection = su.select(task)
    assert footprint(selection, task.layers, layer_macs(task.graph), task.outputs).elements == 64_832
    assert selection.biases == {layer.layer for layer in task.layers[-22:]}
    layer = task.layers[36]
    assert len(selection.channels[layer.layer]) == layer.channels // 8
    norms = task.magnitudes(layer)
    inside = np.isin(np.arange(layer.channels), selection.channels[layer.layer])
    assert norms[inside].min() >= norms[~inside].max()


def test_the_papers_budget_names_their_scheme() -> None:
    normal = network(str(shared("models/mbv2-w0.35.pkl")))
    assert su.select(problem(normal, 27_946)) == su.select(problem(normal, 1, Settings(scheme="49kb")))
    with pytest.raises(BudgetError, match="no scheme"):
        su.select(problem(normal, 27_945))
    with pytest.raises(DataError, match="49kb"):
        su.select(problem(normal, 27_946, Settings(scheme="50kb")))


def test_search_spends_the_budget_where_it_is_worth_most(digitnet: Normalised) -> None:
    task = problem(digitnet, 2000)
    worth = {(layer.layer, ratio): 0.0 for layer in task.layers for ratio in su.RATIOS}
    best = max(task.layers, key=lambda layer: -layer.elements)
    worth |= {(best.layer, ratio): ratio for ratio in su.RATIOS}
    assert su.search(task, worth) == {best.layer: best.channels}
    found = su.search(task, su.gradient_contributions(task))
    cost = sum(found.get(layer.layer, 0) * layer.cost.elements for layer in task.layers)
    assert 0 < cost <= 2000


def test_contributions_are_measured_against_biases_alone(digitnet: Normalised) -> None:
    task = problem(digitnet, 2000)
    found = su.measured(task, lambda selection: 0.5 + 0.01 * sum(map(len, selection.channels.values())))
    assert all(
        worth == pytest.approx(0.01 * int(ratio * next(s.channels for s in task.layers if s.layer == name)))
        for (name, ratio), worth in found.items()
    )


# --- velocity ---


def test_velocity_is_the_change_of_the_similarity_less_the_velocity_before() -> None:
    """Angles between successive outputs: 60, 90, 0 degrees."""
    turned = [0.0, np.pi / 3, np.pi / 3 + np.pi / 2, np.pi / 3 + np.pi / 2]
    equilibrium = Equilibrium()
    found = []
    for angle in turned:
        equilibrium.update({"layer": np.array([[np.cos(angle)], [np.sin(angle)]], np.float32)})
        found.append(dict(equilibrium.velocity))
    assert found[0] == found[1] == {}
    assert found[2]["layer"] == pytest.approx([0.0 - 0.5], abs=1e-6)
    assert found[3]["layer"] == pytest.approx([1.0 - MU * -0.5], abs=1e-6)


def test_velocity_trains_the_neurons_that_still_move(digitnet: Normalised) -> None:
    task = problem(digitnet, 3000)
    random = np.random.default_rng(1)
    still = {s.layer: random.normal(size=(30, task.outputs[s.layer])).astype(np.float32) for s in task.layers}
    turned = {name: values.copy() for name, values in still.items()}
    moving = task.layers[2].layer
    turned[moving][:, 1] = random.normal(size=30)
    course = Course(STRATEGIES["velocity"], task, 0)
    known = Known({}, [still, still, turned])
    first = course.select(0, known)
    course.select(1, known)
    chosen = course.select(2, known)
    assert 1 in chosen.neurons[moving]
    assert first.channels == chosen.channels == {}
    weights = footprint(chosen, task.layers, layer_macs(task.graph), task.outputs).weights
    assert 0 < weights <= weight_budget(task) < task.budget


# --- the others, and the command ---


def test_given_selections(digitnet: Normalised) -> None:
    task = problem(digitnet, 1500)
    macs = layer_macs(task.graph)

    def take(name: str, chosen: Problem = task) -> tuple[int, int]:
        selection = Course(STRATEGIES[name], chosen, 0).select(0, NoEvidence())
        return footprint(selection, task.layers, macs, task.outputs).elements, len(selection.biases)

    assert take("head") == (0, 0)
    assert take("bias") == (0, len(task.layers))
    assert take("full") == (PAPER.layers(task.layers), len(task.layers))
    assert take("last-k", replace(task, settings=Settings(k=2))) == (PAPER.layers(task.layers[-2:]), 2)
    assert 0 < take("last-k")[0] <= 1500
    full = Course(STRATEGIES["full"], task, 0).select(0, NoEvidence())
    assert footprint(full, task.layers, macs, task.outputs).macs == sum(macs[s.layer] for s in task.layers)


def test_the_command_lists_every_strategy(run_cli: Cli) -> None:
    listed = json.loads(run_cli("strategies", "--json").out)["strategies"]
    assert [entry["name"] for entry in listed] == list(STRATEGIES)
    assert all(set(entry) == {"name", "source", "runs_on"} and entry["source"] for entry in listed)
    assert "lara-trady" in run_cli("strategies").out
