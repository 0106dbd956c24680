# Everything runs from a private virtual environment that the first target makes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test check fix bench fuzz clean

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)          ## make a capture with known contents and hash every file in it
	mkdir -p demo
	$(BIN)/offpath synth demo/demo.pcap --files 40 --seed 7 --faults
	$(BIN)/offpath run scripts/sha1_files.lua --capture demo/demo.pcap --records demo/records.jsonl

test: $(STAMP)          ## the whole test suite
	$(BIN)/python -m pytest -n auto

check: $(STAMP)         ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(STAMP)           ## format and mend what can be mended mechanically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)         ## every benchmark, side by side with its peers
	$(BIN)/python -m benchmarks all

fuzz: $(STAMP)          ## broken packets for all that reads packets, ten minutes; `pip install atheris` makes it better
	$(BIN)/python -m tests.fuzz --minutes 10

clean:
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
