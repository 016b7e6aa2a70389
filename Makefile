# Thin: each target is a script or one dotnet command. `make demo` is the place to begin.

.PHONY: build test unit lab slow simulate fuzz mutate soak demo bench deb release release-test schemas format clean

build:
	scripts/publish.sh

test:
	scripts/test.sh

# Seconds, without root.
unit:
	dotnet test tests/unit --nologo

# make lab ONLY=Recycle runs the lab tests whose name contains that.
lab:
	scripts/test.sh lab $(ONLY)

# Lab tests that take minutes each, and that no other target runs; ONLY= as above.
slow:
	scripts/test.sh slow $(ONLY)

# A million connection-hours of everything that may go wrong, or HOURS= of them; some minutes. The tests go through the same.
simulate:
	scripts/simulate.sh $(if $(HOURS),--hours $(HOURS))

# Millions of damaged and hostile inputs to everything that the agent reads; INPUTS= for more or fewer than a million.
fuzz:
	scripts/fuzz.sh $(if $(INPUTS),--inputs $(INPUTS))

# Each guardrail taken out in turn: a test has to notice; a quarter of an hour.
mutate:
	scripts/mutate-guardrails.sh

# Everything at once in the lab; an hour unless MINUTES= says otherwise.
soak: build
	scripts/soak.sh $(MINUTES)

demo: build
	scripts/prerequisites.sh lab
	dotnet run --project tests/lab --configuration Release -- demo

# make bench TARGET=release runs one of them.
bench: build
	scripts/prerequisites.sh bench
	dotnet run --project tests/bench --configuration Release -- $(TARGET)

deb:
	scripts/prerequisites.sh deb
	scripts/deb.sh

# What is published of a version, in out/release; RELEASE_KEY= names the file with the secret key that signs, ARGS= is for scripts/release.sh.
release:
	scripts/prerequisites.sh deb release
	scripts/release.sh $(ARGS)

# Booted machines, for minutes each: what installs from a release (apt, Ansible, autopkgtest), and ten minutes of a default
# install, in which nothing may be shown that is false; ONLY= as above.
release-test:
	scripts/test.sh release $(ONLY)

# The schemas of what is written as JSON, from the types that are written.
schemas:
	WRITE_SCHEMAS=1 dotnet test tests/unit --nologo --filter FullyQualifiedName~SchemaTests.The_published_schemas

format:
	dotnet format Sidecar.sln

clean:
	rm -rf out artifacts
	find . -type d \( -name bin -o -name obj \) -prune -exec rm -rf {} +
