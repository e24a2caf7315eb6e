# Every target completes .venv first, so each works on a fresh machine: see scripts/setup.
export PYTHONNOUSERSITE = 1
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL = help
.PHONY: help setup run demo test vm-test check docs support bench lint wheel install uninstall clean

help:            ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s  %s\n", $$1, $$2 }' Makefile

setup:    ## make .venv; install BCC and bpftool where apt may
	@scripts/setup

run: setup       ## serve on 127.0.0.1:9090; ARGS="..." are options of `serve`
	@exec .venv/bin/chainbench-agent serve $(ARGS)

demo: setup      ## measure a small workload and show its evidence
	@exec .venv/bin/chainbench-agent demo $(ARGS)

test: MARKS = not vm and not image and not service and not fresh
vm-test: MARKS = vm or service
check: MARKS = not bpf and not vm and not image and not service and not fresh
check: lint

test: setup      ## all tests that this user may run on this kernel
vm-test: setup   ## the tests that boot Debian's kernels in QEMU
check: setup     ## lint, and the tests that need neither root nor BPF
test vm-test check:
	@.venv/bin/pytest -m "$(MARKS)" $(PYTEST_ARGS)

docs: setup      ## write the generated parts of docs/: metrics, settings, remedies, the evidence's schema
	@.venv/bin/python tests/written_docs.py

support: setup   ## write docs/support.md: what each kernel offers, by booting them all
	.venv/bin/python tests/vm/support.py --write

bench: setup     ## docs/performance.md: the agent compared with other tools; ARGS=--quick for a trial
	@.venv/bin/python -m pip install -qq --disable-pip-version-check -e '.[bench]'
	@.venv/bin/python -m bench $(ARGS)

lint: setup      ## check format, types and words; changes nothing
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	find probes -name '*.[ch]' -exec .venv/bin/clang-format --dry-run -Werror {} +
	scripts/check_words.py

wheel: setup     ## dist/*.whl, probes included
	@rm -rf build  # setuptools would put files of earlier builds into the wheel
	.venv/bin/python -m build --wheel --no-isolation

install:         ## install the agent as a systemd service: PREFIX=/usr/local, DESTDIR to stage
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" SYSCONFDIR="$(SYSCONFDIR)" scripts/install install

uninstall:       ## remove the service, but not its settings and state
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" SYSCONFDIR="$(SYSCONFDIR)" scripts/install uninstall

clean:           ## remove all generated files, including .venv
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

lint check docs vm-test wheel: export NEEDS_BPF = no
test check: export NEEDS_TESTS = yes
