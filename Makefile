# SPDX-License-Identifier: Apache-2.0
# make demo    sets everything up and runs the main job on an emulated Cortex-M7
# make test    sets everything up and passes the tests
# make test-long    likewise, with those that take more than a minute each: more than an hour on two cores
# make faults  what docs/RELIABILITY.md says was tried: a bad flash, bad lines, kills and restarts; takes long
# make setup   leaves .venv/bin/medyate

PYTHON ?= python3
# The CPU build where pip can find one, else the build of that version that pip finds.
TORCH ?= 2.13.0
BIN := .venv/bin
STAMP := .venv/.medyate-$(TORCH)

.PHONY: setup demo test test-long lint faults study clean
.NOTPARALLEL:

setup: $(STAMP)

$(STAMP): pyproject.toml tools/system_packages.sh tools/tflite_runtime.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "medyate needs Python 3.11 or newer; set PYTHON=python3.x" >&2; exit 2; }
	@PYTHON="$(PYTHON)" sh tools/system_packages.sh
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@echo "installing Python packages (some minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check "torch==$(TORCH)+cpu" 2>/dev/null || \
	    { echo "pip knows no index with PyTorch's CPU build; taking the default build (large)"; \
	    $(BIN)/python -m pip install -q --disable-pip-version-check "torch==$(TORCH)"; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[torch,onnx,tflite,report,digits,study,sweep,dev]'
	@sh tools/tflite_runtime.sh $(BIN)/python .venv/tflite
	@touch $@

demo: setup
	@$(BIN)/python tools/demo.py

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/python tools/check_runtime.py
	@$(BIN)/python tools/check_c.py

test: lint
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m "not long"
	@MEDYATE_CACHE=build/stages $(BIN)/python tools/sizes.py qemu-m7

test-long: lint
	@MEDYATE_LONG=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

faults: setup
	@$(BIN)/python tools/fault_study.py --faults 120000
	@$(BIN)/python tools/link_study.py
	@$(BIN)/python tools/host_study.py

# Three seeds of the real network, half an hour on two cores; docs/RESULTS.md says where both come from.
MODEL ?= ../shared/models/derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx
DATA ?= ../shared/data/flowers17
study: setup
	@test -e "$(MODEL)" -a -e "$(DATA)" || { echo "set MODEL=net.onnx and DATA=folder" >&2; exit 2; }
	@$(BIN)/python tools/transfer_study.py "$(MODEL)" --data "$(DATA)" --ram 320KiB \
	    --min-elements 27946 --schedule layer --epochs 12 --rate 0.0015 -o build/flowers17 --json build/flowers17/study.json

clean:
	rm -rf build
