# Two commands on a fresh machine: `make demo` and `make test`. Each makes a virtual environment
# with an MPI of its own: MPICH, with MPI=openmpi Open MPI, with MPI=site the site's own (load its
# module first).
# the newest Python that can make a virtual environment
FIT := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c '$(FIT)' 2>/dev/null && echo $$p && break; done)
MPI ?= mpich
RANKS ?= 1 2
WHERE ?= $(shell find tests -name 'test_mpi_*.py' | sort)
MINUTES ?= 60
VENV ?= .venv$(if $(filter-out mpich,$(MPI)),-$(MPI))
BIN := $(VENV)/bin
EXTRA := $(if $(filter-out site,$(MPI)),$(MPI))
comma := ,

# What Open MPI needs as root, with more ranks than cores, without a network card.
# The environment's bin/activate sets it, too, where nobody has.
ifeq ($(MPI),openmpi)
VARIABLES := OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe \
	PRTE_MCA_hwloc_default_binding_policy=none OMPI_MCA_btl=^ofi OMPI_MCA_osc=^ucx \
	OMPI_MCA_mpi_yield_when_idle=1 PMIX_MCA_psec=native
$(foreach variable,$(VARIABLES),$(eval export $(variable)))
endif
PYTEST := $(BIN)/python -m pytest -q
ONRANKS := $(PYTEST) --color=no --with-mpi -m mpi
MPIRUN := $(if $(EXTRA),$(BIN)/mpirun,mpirun)
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --editable

.PHONY: demo test test-kernels test-plain test-serial test-launched test-mpi test-slurm lint \
	fuzz soak soak-memory results bench clean help

help:            ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

demo: $(VENV)/installed   ## install, prepare the digits, compare on two ranks, once and as a study
	$(MPIRUN) -n 2 $(BIN)/ensync demo

# Two halves, each about one core's work: one begins with compiling kernels and ends with tests on
# ranks, of which most wait for rank 0; the other starts programs, which wait much, and then tests
# the rest. Networks that are started come when the first has compiled their kernels, and one rank
# compiles what is left before several would, each for itself.
STARTED := $(wildcard tests/launched/test_*.py)
FIRST := $(filter $(addprefix tests/launched/test_,abort.py cli_% examples.py library.py study.py \
	wheel.py),$(STARTED))
test: $(VENV)/installed-test   ## install, then the whole suite
	+@.ci/both $(MAKE) --no-print-directory test-kernels test-launched test-mpi test-plain \
		STARTED="$(filter-out $(FIRST),$(STARTED))" RANKS="$(filter-out 1,$(RANKS))" -- \
		$(MAKE) --no-print-directory test-launched test-mpi test-serial \
		STARTED="$(FIRST)" RANKS="$(filter 1,$(RANKS))"

test-kernels: $(VENV)/installed-test   ## the tests of compiled kernels
	@echo "== $$(date +%T) compiled kernels"; $(PYTEST) tests/kernels

# Coverage counts what runs on one rank, without the kernels: machine code. What is in LATER needs
# most kernels: tests/kernels has compiled them by then.
LATER := tests/nn tests/training
test-serial: $(VENV)/installed-test   ## the others that start no program and need no other rank
	@echo "== $$(date +%T) one rank, all but kernels"; $(BIN)/coverage erase; failed=0; \
	$(BIN)/coverage run -m pytest -q $(filter-out \
		tests/kernels tests/launched $(LATER) tests/slurm tests/bench,$(wildcard \
		tests/test_*.py $(patsubst %/,%,$(wildcard tests/*/)))) $(LATER) || failed=1; \
	$(BIN)/coverage combine -q; $(BIN)/coverage report; exit $$failed

test-launched: $(VENV)/installed-test   ## the tests that start the program
	@echo "== $$(date +%T) the program as it is started"; $(PYTEST) $(STARTED)

lint: $(VENV)/installed-lint   ## install, then check style (ruff) and types (mypy)
	$(BIN)/ruff check src tests jobs
	$(BIN)/ruff format --check src tests jobs
	$(BIN)/mypy

test-mpi: $(VENV)/installed-test   ## only the tests that run on ranks, of them those in WHERE
	@for n in $(RANKS); do echo "== $$(date +%T) $$n ranks"; \
		$(MPIRUN) -n $$n $(ONRANKS) $(WHERE) || exit 1; done

# Small arrays only, in the place of vectors numpy (tests/plain_simd.py). What is not covered is
# covered by compiled kernels alone.
test-plain: $(VENV)/installed-test   ## kernels as plain Python, with their coverage
	@echo "== $$(date +%T) kernels as plain Python"; mkdir -p .cache/coverage
	@NUMBA_DISABLE_JIT=1 ENSYNC_SIMD=plain $(BIN)/coverage run --branch \
		--source=ensync.kernels --omit='*/kernels/simd/*' -p \
		--data-file=.cache/coverage/kernels -m pytest -q -p plain_simd -m "not compiled" \
		$(addprefix tests/kernels/,convolution dense elementwise optim)
	@$(BIN)/coverage combine -q --data-file=.cache/coverage/kernels
	@$(BIN)/coverage report --data-file=.cache/coverage/kernels --skip-empty

test-slurm: $(VENV)/installed-test   ## the batch scripts on a throw-away Slurm (root on Debian)
	$(PYTEST) tests/slurm

fuzz: $(VENV)/installed-test   ## damaged files by the thousand; random networks beside PyTorch
	ENSYNC_FUZZ=5000 $(PYTEST) tests/storage/test_sources_fuzz.py tests/core/test_job_fuzz.py \
		--timeout 3000
	ENSYNC_FUZZ=1000 $(PYTEST) tests/runs/test_run_fuzz.py --timeout 3000
	ENSYNC_FUZZ=600 $(PYTEST) tests/nn/test_random_networks.py
	ENSYNC_FUZZ=400 $(PYTEST) --with-mpi -m mpi tests/runs/test_mpi_random_runs.py
	@for n in 2 3; do ENSYNC_FUZZ=100 ENSYNC_FUZZ_SEED=$${n}000 \
		$(MPIRUN) -n $$n $(ONRANKS) tests/runs/test_mpi_random_runs.py || exit 1; done

soak: $(VENV)/installed-test   ## kill writers of checkpoints 300 times, then soak-memory
	$(BIN)/python tests/soak/checkpoint_kills.py 300
	$(MAKE) --no-print-directory soak-memory

soak-memory: $(VENV)/installed-test   ## train for MINUTES: memory, files and logs stay bounded
	$(MPIRUN) -n 2 $(BIN)/python tests/soak/long_run.py $(MINUTES) --work epochs
	$(MPIRUN) -n 2 $(BIN)/python tests/soak/long_run.py $(MINUTES) --work sweeps

results: $(VENV)/installed   ## write jobs/RESULTS.md and its picture from jobs/results
	$(BIN)/python jobs/results.py

bench: $(VENV)/installed-test   ## measure, beside PyTorch where it is installed
	$(BIN)/python tests/bench/run.py

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "Ensync needs Python 3.11 or newer with venv" \
		"(Debian: apt-get install python3-venv); give PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@for each in $(VARIABLES); do name=$${each%%=*}; \
		echo "export $$name=\"\$${$$name-$${each#*=}}\""; done >> $(BIN)/activate
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	$(INSTALL) '.$(if $(EXTRA),[$(EXTRA)])'
	@touch $@

$(VENV)/installed-test: $(VENV)/made pyproject.toml
	$(INSTALL) '.[$(if $(EXTRA),$(EXTRA)$(comma))test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-lint: $(VENV)/made pyproject.toml
	$(INSTALL) '.[$(if $(EXTRA),$(EXTRA)$(comma))test$(comma)lint]'
	@touch $(VENV)/installed $(VENV)/installed-test $@

clean:           ## remove environments, caches and runs; keep data
	rm -rf .venv* .cache runs build .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
