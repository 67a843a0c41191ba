# SPDX-License-Identifier: Apache-2.0
"""Images for real chips: they link, banks and code lie apart, and QEMU's STM32F405 trains the host's integers."""

from __future__ import annotations

import dataclasses
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from chips import CHIPS, RAM, compiled, limits
from medyate import artefact, datasets
from medyate.boards import BOARDS, Board
from medyate.build.project import source_folders, target_defines
from medyate.errors import LinkError
from medyate.run.session import Digests, Session, Training
from medyate.run.train import Compiled, connect, int8_samples
from medyate.run.transport import emulator
from medyate.stages import Options, compile_model
from shared_files import ROOT, field_digits, shared

STEPS = 64
PTY_SECONDS = 10.0


@pytest.fixture(scope="module")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once for all chips, with the host's image of the F405's plan."""
    return compiled(tmp_path_factory.mktemp("host"), "host", BOARDS["stm32f405"], None).folder / "04_ranking.json"


def spans(elf: Path) -> dict[str, tuple[int, int]]:
    """Where sections that the program needs lie: [begin, end)."""
    with elf.open("rb") as file:
        sections = [s for s in ELFFile(file).iter_sections() if s["sh_flags"] & 2 and s["sh_size"]]
        return {s.name: (s["sh_addr"], s["sh_addr"] + s["sh_size"]) for s in sections}


def symbol(elf: Path, name: str) -> int:
    with elf.open("rb") as file:
        (found,) = ELFFile(file).get_section_by_name(".symtab").get_symbol_by_name(name)
        return int(found["st_value"])


def programmed(elf: Path) -> list[tuple[int, int]]:
    """What a programmer writes: [begin, end) of each segment with contents, by load address."""
    with elf.open("rb") as file:
        found = [s for s in ELFFile(file).iter_segments() if s["p_type"] == "PT_LOAD" and s["p_filesz"]]
        return [(s["p_paddr"], s["p_paddr"] + s["p_filesz"]) for s in found]


def check_places(board: Board, elf: Path, banks: int, reserved: int) -> None:
    """Vectors at the start of the flash, nothing in the banks, data in the chip's RAM areas."""
    flash = board.flash
    assert flash is not None
    assert spans(elf)[".vectors"][0] == flash.address
    for start, end in programmed(elf):
        assert flash.address <= start < end <= flash.address + flash.bytes
        assert end <= banks or start >= banks + reserved
    for name, (start, end) in spans(elf).items():
        if name in (".stack", ".data", ".bss") or name.startswith(".area"):
            assert any(a.address <= start and end <= a.address + a.bytes for a in board.areas), name


@pytest.mark.parametrize("target", CHIPS)
def test_an_image_for_a_chip_keeps_clear_of_its_banks(target: str, ranking: Path, tmp_path: Path) -> None:
    board = BOARDS[target]
    image = compiled(tmp_path, target, board, ranking)
    flash, banks = board.flash, image.model["banks"]
    assert flash is not None
    first = banks["banks"][0]["address"]
    assert symbol(image.image, "mdy_banks") == first
    assert {address for address, _ in flash.sectors} >= {bank["address"] for bank in banks["banks"]}
    check_places(board, image.image, first, banks["reserved_bytes"])
    files = {path.suffix for path in image.image.parent.glob("firmware.*")}
    assert {".elf", ".bin", ".hex", ".map"} <= files
    assert (".uf2" in files) == bool(board.build and board.build.uf2_family)
    assert image.model["static_bytes"] <= image.plan["static_reserved_bytes"]
    assert image.model["stack_bound_bytes"] <= image.plan["stack_reserved_bytes"]


@contextmanager
def netduino(image: Path, folder: Path) -> Iterator[str]:
    """QEMU's board with an STM32F405; the name of the pseudo-terminal that is its USART1."""
    command = [emulator(), "-M", "netduinoplus2", "-display", "none", "-monitor", "none", "-serial", "pty"]
    log = (folder / "qemu.log").open("w+b")
    process = subprocess.Popen([*command, "-kernel", str(image)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = PTY_SECONDS
        while not (found := re.search(rb"/dev/\S+", (folder / "qemu.log").read_bytes())):
            assert process.poll() is None and deadline > 0, (folder / "qemu.log").read_text()
            deadline -= 0.05
            subprocess.run(["sleep", "0.05"], check=True)
        yield os.fsdecode(found.group())
    finally:
        process.kill()
        process.wait()
        log.close()


def train(session: Session, image: Compiled) -> tuple[list[float], Digests]:
    """Losses of some steps, and what they leave."""
    samples, _ = int8_samples(image, field_digits())
    session.begin(Training(0.02, 2, STEPS, flip=True, seed=3))
    results = [session.train(samples[i], int(field_digits().y_train[i])) for i in range(STEPS)]
    assert all((result.milliseconds > 0) == (session.hello.ticks_per_second > 0) for result in results)
    return [result.loss for result in results], session.digests()


def test_an_emulated_f405_trains_the_hosts_integers_and_tells_that_its_flash_refuses(
    ranking: Path, tmp_path: Path
) -> None:
    """QEMU's flash is memory that cannot be written, and its controller's registers read 0: no commit can succeed."""
    board = BOARDS["stm32f405"]
    host = compiled(tmp_path / "host", "host", board, ranking)
    chip = compiled(tmp_path / "chip", "stm32f405", board, ranking)
    assert host.model["digest"] == chip.model["digest"]
    with connect(host, "host", tmp_path / "flash.bin") as session:
        here = train(session, host)
    with netduino(chip.image, tmp_path) as port, connect(chip, f"serial:{port}", tmp_path / "none") as session:
        assert session.hello.ticks_per_second == 1_000_000
        losses, there = train(session, chip)
        with pytest.raises(LinkError, match="the flash refused twice: sector 0"):
            session.commit()
        assert session.digests().deltas == there.deltas  # and it goes on
        marks = session.marks()
    assert losses == here[0]
    assert dataclasses.replace(there, flash=0) == dataclasses.replace(here[1], flash=0)
    assert there.deltas != 0
    assert 0 < marks.stack <= chip.model["stack_bound_bytes"]
    assert marks.static + chip.plan["stack_reserved_bytes"] <= RAM


@pytest.mark.parametrize("target", CHIPS)
def test_a_port_is_clean_with_both_compilers(target: str, ranking: Path, tmp_path: Path) -> None:
    board = BOARDS[target]
    assert board.build is not None
    firmware = ROOT / "firmware"
    flags = ["-mthumb", "-mfloat-abi=soft", "-std=c11", "-O2", f"-mcpu={board.build.cpu}"]
    flags += [f"-W{name}" for name in ("all", "extra", "conversion", "shadow", "pedantic", "error")]
    flags += [f"-D{define}" for define in target_defines(board)]
    flags += [f"-I{firmware}/boards/common", f"-I{ROOT}/runtime_c/include", f"-I{ranking.parent}/project/src"]
    clang = ["clang", "--target=arm-none-eabi", "-isystem", "/usr/include/newlib"]
    sources = [file for folder in source_folders(board) for file in sorted((firmware / folder).glob("*.c"))]
    assert len(sources) > 4
    for compiler in (["arm-none-eabi-gcc"], clang):
        for source in sources:
            subprocess.run([*compiler, *flags, "-c", str(source), "-o", str(tmp_path / "o.o")], check=True)


def test_code_that_runs_while_the_flash_is_away_lies_in_ram_and_calls_nothing_there(
    ranking: Path, tmp_path: Path
) -> None:
    image = compiled(tmp_path, "rp2350", BOARDS["rp2350"], ranking).image
    objdump = ["arm-none-eabi-objdump", "-d", "--section=.data", str(image)]
    listing = subprocess.run(objdump, check=True, capture_output=True, text=True).stdout
    body = listing.partition("<operate>:")[2]
    assert body and not re.search(r"\tbl?\.?[nw]?\t[0-9a-f]+ <(?!operate)", body), body
    assert len(re.findall(r"\tblx\tr\d", body)) == 5  # the ROM's functions and the set-up of fast reads
    head = image.with_suffix(".bin").read_bytes()[:4096]
    assert bytes.fromhex("d3deffff42012110ff01000000000000793512ab") in head


def test_the_h743_turns_its_memories_on_before_it_uses_its_stack(ranking: Path, tmp_path: Path) -> None:
    image = compiled(tmp_path, "stm32h743", BOARDS["stm32h743"], ranking).image
    objdump = ["arm-none-eabi-objdump", "-d", "--disassemble=mdy_reset", str(image)]
    code = subprocess.run(objdump, check=True, capture_output=True, text=True).stdout.partition("<mdy_reset>:")[2]
    steps = [line.split("\t")[2:] for line in code.splitlines() if line.count("\t") >= 3]
    assert [step[0].partition(".")[0] for step in steps] in (
        ["cpsid", "ldr", load, "ldr", orr, "str", "ldr", "dsb", "b"]
        for load in ("ldr", "mov")
        for orr in ("orr", "orrs")
    )
    assert "mdy_start" in steps[-1][1] and steps[5][1] == "r2, [r0, #0]"
    assert struct.pack("<I", 0x580244DC) in image.with_suffix(".bin").read_bytes()


def test_platformio_builds_the_same_and_knows_every_key_of_its_public_environments(
    ranking: Path, tmp_path: Path
) -> None:
    made = compiled(tmp_path / "make", "stm32f405", BOARDS["stm32f405"], ranking)
    pio = compiled(tmp_path / "pio", "stm32f405", BOARDS["stm32f405"], ranking, "platformio")
    for key in ("digest", "static_bytes", "stack_bound_bytes"):
        assert pio.model[key] == made.model[key], key
    banks, others = dict(pio.model["banks"]), dict(made.model["banks"])
    difference = banks.pop("image_bytes") - others.pop("image_bytes")  # objects in another order are aligned otherwise
    assert banks == others and abs(difference) < 64
    assert pio.image.with_suffix(".hex").is_file()
    lint = [sys.executable, "-m", "platformio", "project", "config", "--lint", "-d", str(tmp_path / "pio" / "project")]
    said = subprocess.run(lint, check=True, capture_output=True, text=True).stdout
    assert "free from linting errors" in said and "warning" not in said.lower(), said


def test_without_random_numbers_a_key_opens_nothing_and_nothing_hangs(ranking: Path, tmp_path: Path) -> None:
    """QEMU's board has no random number generator: its registers read 0."""
    key = bytes(range(32))
    chip = compiled(tmp_path / "chip", "stm32f405", BOARDS["stm32f405"], ranking, key=key)
    with netduino(chip.image, tmp_path) as port, connect(chip, f"serial:{port}", tmp_path / "none", key=key) as session:
        with pytest.raises(LinkError, match="does not fit the state"):
            session.reset()
        train(session, chip)


@pytest.mark.long
def test_mobilenet_links_for_the_chips_that_have_room(tmp_path: Path) -> None:
    """MobileNetV2-w0.35 at 128 x 128; on the F405 the epoch region fills the CCM, the code lies behind the banks."""
    model = shared("models/derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx")
    flowers = datasets.load(str(shared("data/flowers17")), 0.25)
    kept: Path | None = None
    for target, ram in (("stm32f405", 184), ("stm32f746", 320), ("stm32h743", 512)):
        board = BOARDS[target]
        within = dataclasses.replace(limits(board), ram_bytes=ram * 1024)
        options = Options(target, within, rank_epochs=1, builder="make", ranking=kept, board=board)
        plan, image = compile_model(model, flowers, options, tmp_path / target)
        kept = kept or tmp_path / target / "04_ranking.json"
        assert len(plan.candidates) > 20
        assert image.static_bytes + plan.arena_bytes + plan.limits.stack_bytes <= ram * 1024
        banks = artefact.read_json(tmp_path / target / "model.json")["banks"]
        check_places(board, image.path, banks["banks"][0]["address"], banks["reserved_bytes"])
