# SPDX-License-Identifier: Apache-2.0
"""A plan, as `medyate plan` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from medyate.report.boards import TYPICAL

PEAK_VALUES = 8
"""Values of the peak that are listed by name."""


def print_table(content: Mapping[str, Any], console: Console) -> None:
    """The numbers of layers that were tried, and the chosen one."""
    table = Table("K", "planned", "state", "left", "B_mem", "M_K", "B/M", "deepest layer")
    for r in content["table"]:
        share = f"{r['b_mem_bytes'] / r['m_bytes']:.3f}" if r["m_bytes"] else ""
        cells = [f"{r[k]:,}" for k in ("planned_bytes", "state_bytes", "left_bytes", "b_mem_bytes", "m_bytes")]
        table.add_row(str(r["k"]), *cells, share, r["deepest"])
    console.print(table)
    spare = content["workspace_bytes"]
    for_kernels = f"; {spare:,} left over for kernels to work in" if spare else ""
    console.print(
        f"{content['network']}: {len(content['candidates'])} of {content['total_layers']} layers may be trained, "
        f"{content['b_mem_bytes']:,} B = {content['b_mem_elements']:,} elements at a time\n"
        f"arena {content['arena_bytes']:,} B = planned {content['planned_bytes']:,} "
        f"(lower bound {content['planned_lower_bound_bytes']:,}{for_kernels}) + epoch {content['epoch_bytes']:,} "
        f"+ state {content['state_bytes']:,}; reserved: static {content['static_reserved_bytes']:,}, "
        f"stack {content['stack_reserved_bytes']:,}; limit {content['ram_limit_bytes']:,} B"
    )
    if content["batch"] > 1:
        console.print(f"one update for {content['batch']} samples, whose sums are part of B_mem and state")
    if content["biases"]:
        count = sum(layer["count"] for layer in content["biases"])
        console.print(f"{count:,} biases of {len(content['biases'])} layers are trained as well")
    if content["weights"] == "ram":
        console.print(
            f"weights of the candidate layers in RAM: {content['bank_weight_bytes']:,} B of the state region; what is "
            "learned is lost with the power"
        )


def print_plan(content: Mapping[str, Any], console: Console) -> None:
    """All of `planning.overview`."""
    print_table(content, console)
    console.print(
        f"the backward pass reaches {content['depth']} layers down to {content['deepest_layer']}, "
        f"{content['expected_depth']:.1f} on average over first selections"
    )
    gradient = content["gradient"]
    console.print(
        f"a step takes at most about {content['step_instructions_bound'] / 1e6:,.1f} M instructions of a Cortex-M7; an "
        f"epoch trains {100 * gradient['share']:.2f} % of the ranking's squared gradients: "
        f"{100 * gradient['per_kib']:.3f} % for each KiB, "
        f"{100 * gradient['per_million_instructions']:.3f} % for each million instructions\n"
    )
    table = Table("region", "bytes", "area", title="RAM", title_justify="left")
    for row in content["regions"]:
        table.add_row(row["region"], f"{row['bytes']:,}", row["area"])
    console.print(table)
    _peak(content["peak"], console)
    _alternatives(content["alternatives"], console)
    if content["banks"] is not None:
        print_banks(content["banks"], content["board"], console)


def _peak(peak: Mapping[str, Any], console: Console) -> None:
    steps = ", ".join(peak["steps"][:3]) + (" ..." if len(peak["steps"]) > 3 else "")
    console.print(f"\nthe peak is {peak['bytes']:,} B, {peak['phase']}, group {peak['group']}: {steps}")
    for value in peak["values"][:PEAK_VALUES]:
        place = f" in the place of {value['over']}" if value["over"] else ""
        console.print(f"  {value['bytes']:>9,} B  {value['kind']:<10} {value['name']}{place}")
    rest = peak["values"][PEAK_VALUES:]
    if rest:
        console.print(f"  {sum(value['bytes'] for value in rest):>9,} B  in {len(rest)} smaller ones")


def _alternatives(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    console.print("\nwhat would lower planned and state regions:" if found else "\nno other way takes less memory")
    for other in found:
        console.print(f"  {-other['saved_bytes']:>9,} B  {other['change']}: {_price(other)}")


def _price(other: Mapping[str, Any]) -> str:
    if "--grad-bits" in other["change"]:
        return "gradients are rounded to 8 bits, the training differs"
    if "--batch" in other["change"]:
        return f"B_mem {other['b_mem_bytes']:,} B in the same memory, one update for each sample"
    if not other["change"].startswith("--"):
        return f"B_mem {other['b_mem_bytes']:,} B"
    more = f"{other['macs'] / 1e6:+,.1f} M multiply-adds per step, " if other["macs"] else ""
    return f"{more}the training stays the same"


def print_banks(banks: Mapping[str, Any], board: str, console: Console) -> None:
    """Where generations lie on the board, and how long they take and last."""
    console.print(
        f"\nflash of {board}: image {banks['image_bytes']:,} B from 0x{banks['code_address']:08x}, "
        f"a generation of {banks['generation_bytes']:,} B in two banks"
    )
    for number, bank in enumerate(banks["banks"]):
        console.print(
            f"  bank {number} at 0x{bank['address']:08x}, {_count(bank['sectors'], 'sector')}, {bank['bytes']:,} B: "
            f"commit {_seconds(bank, 'commit')} s = erase {_seconds(bank, 'erase')} "
            f"+ program {_seconds(bank, 'program')}"
        )
    wait = "no code runs meanwhile" if banks["stalls"] else "code runs meanwhile, from the other half of the flash"
    console.print(f"  a commit erases one of them: {banks['epochs']:,} epochs until a sector has its guaranteed erases")
    console.print(f"  {wait}; times at {banks['parallelism']}: {banks['source']}; {TYPICAL[banks['typical']]}")


def _seconds(bank: Mapping[str, Any], part: str) -> str:
    """Typical to largest, or one number where both are the same."""
    low, high = (f"{bank[f'{part}{end}_ms'] / 1000:.2f}" for end in ("", "_max"))
    return low if low == high else f"{low}-{high}"


def print_frontier(content: Mapping[str, Any], console: Console) -> None:
    """The least memory, and what more of it gives."""
    console.print(f"the smallest RAM in which {content['network']} trains is {content['smallest_ram_bytes']:,} B")
    console.print("depth: trainable layers that the backward pass reaches; expected: on average over first selections")
    names = ("--ram", "K", "B_mem", "elements", "depth", "expected")
    columns = [Column(name, justify="right", no_wrap=True) for name in names]
    table = Table(*columns, Column("sample", no_wrap=True), Column("deepest layer", overflow="fold"))
    for p in content["frontier"]:
        numbers = [f"{p[key]:,}" for key in ("ram_bytes", "layers", "b_mem_bytes", "b_mem_elements", "depth")]
        table.add_row(*numbers, f"{p['expected_depth']:.1f}", p["sample"], p["deepest"])
    console.print(table)
    repeating = [p for p in content["frontier"] if p["repeated_macs"]]
    if repeating:
        again = ", ".join(f"{p['ram_bytes']:,} B: {p['repeated_macs'] / 1e6:.1f} M" for p in repeating)
        console.print(f"multiply-adds that a step repeats in the backward pass: {again}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
