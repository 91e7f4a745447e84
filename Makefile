# One environment, made once: `make demo` and `make test` need nothing but Python 3.11 to 3.13, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTED := $(VENV)/.installed-tested

.PHONY: demo test lint installed docs bench bench-compare gpu lock image clean

demo: $(STAMP)
	$(BIN)/python -m tradsys.train +experiment=demo

# all that lint and test need, in one installation
installed: $(TESTED)

# files in their own order: by number of tests, the long files of one test each would come last, on one worker
test: $(TESTED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck runpod/*.sh
	$(BIN)/lint-imports

# the documentation as a site, in build/site; a broken link fails
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py --json benchmarks/latest.json

# make bench-compare OTHER=bench.json: what is slower in the last `make bench` than there; NOW=... for another file
NOW ?= benchmarks/latest.json
bench-compare: $(STAMP)
	$(BIN)/python benchmarks/run.py --compare $(OTHER) $(NOW)

# runs with torch, pytorch_lightning, numpy, numba, onnx and pytest alone, on whatever Python holds them
gpu:
	PYTHONPATH=src $(PYTHON) -m pytest -m gpu tests/gpu --confcutdir=tests/gpu -p no:cacheprovider -rs

# constraints.lock: the versions of constraints.txt that the image and the pods install, with the hashes of their files on
# PyPI for every platform; nothing is downloaded but the index. Run it after constraints.txt or pyproject.toml changed.
lock: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip compile --quiet pyproject.toml --extra postgres -c constraints.txt --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --custom-compile-command 'make lock' -o constraints.lock

# the GPU image on the digests that its two base images have now; prints the lines that pin them in Dockerfile.gpu
IMAGE ?= tradsys:gpu
image:
	@set -eu; build=; for name in UV_IMAGE CUDA_IMAGE; do \
	  tag=$$(sed -n "s/^ARG $$name=//p" Dockerfile.gpu); \
	  digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$$tag"); \
	  echo "ARG $$name=$${tag%%@*}@$$digest"; \
	  build="$$build --build-arg $$name=$${tag%%@*}@$$digest --label tradsys.$$name=$$digest"; \
	done; docker build -f Dockerfile.gpu -t $(IMAGE) $$build .

# the pip that comes with Python 3.11 takes twice the CPU time for the same packages
$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(None if (3, 11) <= v <= (3, 13) else f"tradsys needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}; make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip==26.3

# pip compiles one file after the other, packages' own tests included: a third of an installation. Here all cores do it,
# without those tests; a template that does not compile is no error, as in pip
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
COMPILED := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib/python3.*/site-packages || true

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev,postgres]'
	$(COMPILED)
	touch $(STAMP)

# the extras whose parts are tested: pods, sources that download, live trading, MLflow; the demo does without
$(TESTED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev,postgres,cloud,sources,live,mlflow,mlflow-server]'
	$(COMPILED)
	touch $(STAMP) $(TESTED)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
