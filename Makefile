# make demo   set-up, then the whole pipeline on the built-in world → runs/demo/report.html
# make test   set-up, then the tests
PYTHON ?= python3
BIN    := .venv/bin
DEMO   := runs/demo

.PHONY: setup demo serve serve-cluster test test-slow bench bench-full gpu-check check format

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "FirstPlay needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps musicnn==0.1.0  # for its weights: its code needs an old TensorFlow
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps milvus-lite==3.2.2  # faiss-cpu, which it asks for, would lie over faiss-gpu
	@touch $@

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" sh demo.sh $(DEMO)

serve: setup  # what `make demo` has made, on this machine alone; the console is the page at the address that it prints
	@test -d $(DEMO)/service || { echo "$(DEMO)/service is not there: make demo makes it (some four minutes)"; exit 1; }
	$(BIN)/python -m serving model=$(DEMO)/service store=$(DEMO)/store $(OPTIONS)

serve-cluster: setup  # two services over one PostgreSQL, behind HAProxy (Debian: apt-get install postgresql haproxy)
	@test -d $(DEMO)/service || { echo "$(DEMO)/service is not there: make demo makes it (some four minutes)"; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" sh configs/cluster/serve.sh $(DEMO)/service $(DEMO)/cluster

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

bench bench-full: setup  # trainings are measured on the catalogue of `make demo`
	PATH="$(CURDIR)/$(BIN):$$PATH" sh bench.sh $(if $(findstring full,$@),full,small) $(DEMO)

gpu-check: setup
	$(BIN)/python -m pytest -m gpu -rs -n 0
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/python -m benchmarks.speed.gpu_speed out=runs/gpu_speed.json; \
	else echo 'no GPU here: benchmarks.speed.gpu_speed has not run'; fi

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
