# make demo    POT-GAN and WGAN-GP on the 8-Gaussian ring, on the CPU: a table, a picture, a report
# make test    every test that this machine can run
# make lint    ruff and mypy
# make bench   kernel benchmarks into benchmarks/results/
# make gpu     the tests that need an NVIDIA GPU
# PYTHON=...   the interpreter that .venv is made with

PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin/python
READY  := $(VENV)/ready

.PHONY: demo test test-python test-cpp lint bench gpu clean

demo: $(READY)
	$(RUN) -m train.demo

test: test-python test-cpp

test-python: $(READY)
	$(RUN) -m pytest

test-cpp: $(READY)
	$(VENV)/bin/cmake -S . -B build/cpp -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
	    -DPython_EXECUTABLE=$(abspath $(RUN)) -DOTKERNELS_CUDA=0 -DOTKERNELS_TESTS=ON -DOTKERNELS_WERROR=ON
	$(VENV)/bin/cmake --build build/cpp --target otkernels_tests otkernels_cuda_on_host
	$(VENV)/bin/ctest --test-dir build/cpp --output-on-failure

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy

bench: $(READY)
	$(RUN) -m benchmarks

gpu: $(READY)
	$(RUN) -m pytest -m gpu

clean:
	rm -rf $(VENV) build runs otkernels/_C.*.so

$(READY): pyproject.toml setup.py constraints.txt CMakeLists.txt $(shell find csrc -type f)
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -c constraints.txt -e '.[train,test,lint]'
	touch $@
