"""The work of mutate-guardrails.sh: see there. The table is tests/mutants.txt."""
import concurrent.futures
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.getcwd()
TABLE = os.path.join(ROOT, "tests", "mutants.txt")

# Where a file belongs: the first prefix that fits, its project and its assembly.
ASSEMBLIES = [("agent/Core/", "agent/Core", "Sidecar.Core.dll"),
              ("agent/", "agent", "conn-sidecar.dll"),
              ("probes/Values/", "probes/Values", "Sidecar.Values.dll"), ("probes/", "probes", "Sidecar.Probes.dll")]
TESTS = {"tests/core": "Sidecar.CoreTests.dll", "tests/unit": "Sidecar.UnitTests.dll"}
BINARIES = "bin/Debug/net10.0"

# Analyzers have had their say on the real tree; a mutant may well have an unused variable.
BUILD = ["-v", "quiet", "--nologo", "-nodeReuse:false",
         "-p:TreatWarningsAsErrors=false", "-p:RunAnalyzers=false", "-p:GenerateDocumentationFile=false"]

# A mutant may make a test run for ever: that is noticed too.
TESTS_END_WITHIN = 300


def read_table():
    """Blocks of `mutant`, `file`, `tests`, `take` and `put` lines, parted by empty lines. Texts are taken exactly."""
    mutants, current = [], {}
    for number, line in enumerate(open(TABLE, encoding="utf-8"), 1):
        line = line.rstrip("\n")
        if not line.strip() or line.startswith("#"):
            if current:
                mutants.append(current)
                current = {}
            continue
        key, _, value = line.partition(": ")
        if key not in ("mutant", "file", "tests", "take", "put"):
            sys.exit(f"{TABLE}:{number}: expected mutant, file, tests, take or put")
        if key in current:
            sys.exit(f"{TABLE}:{number}: a second {key}; an empty line parts two mutants")
        current[key] = value
        current["line"] = number
    if current:
        mutants.append(current)
    for mutant in mutants:
        missing = {"mutant", "file", "tests", "take", "put"} - set(mutant)
        if missing:
            sys.exit(f"{TABLE}:{mutant['line']}: {', '.join(sorted(missing))} missing")
    names = [mutant["mutant"] for mutant in mutants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        sys.exit(f"{TABLE}: two mutants are named {twice[0]}")
    return mutants


def applied(mutant, tree):
    """The file and its text before and after; None where the text to take is not there exactly once."""
    path = os.path.join(tree, mutant["file"])
    if not os.path.isfile(path):
        return None
    text = open(path, encoding="utf-8").read()
    return (path, text, text.replace(mutant["take"], mutant["put"])) if text.count(mutant["take"]) == 1 else None


def classes_in(tests):
    return {name[:-3] for _, _, names in os.walk(os.path.join(ROOT, tests)) for name in names if name.endswith(".cs")}


def tests_of(mutant):
    """The test project: tests/core where it has all classes that are to notice."""
    return "tests/core" if set(mutant["tests"].split()) <= CORE_CLASSES else "tests/unit"


def home_of(mutant):
    """Project and assembly of the mutated file."""
    return next((project, assembly) for prefix, project, assembly in ASSEMBLIES if mutant["file"].startswith(prefix))


def filter_of(classes):
    return "|".join(f"FullyQualifiedName~.{name}." for name in sorted(set(classes)))


class Runner:
    """Runs programs, and ends those that still run when all is over."""

    def __init__(self):
        self._running = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, tree, *command, timeout=None):
        """Exit status and output; the status is None where the program had to be ended."""
        with self._lock:
            if self._stopped:
                return None, ""
            process = subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
            self._running.add(process)
        try:
            output, _ = process.communicate(timeout=timeout)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            end(process)
            process.communicate()
            return None, ""
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self):
        with self._lock:
            self._stopped = True
            for process in self._running:
                end(process)


def end(process):
    """Ends a program that was started here, with its children: it leads a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Unfit(Exception):
    """The tree does not build, or its tests fail, without any mutant."""


class Tree:
    """A copy of the project in which one mutant at a time is built and tested."""

    def __init__(self, scratch, number, runner):
        self._tree = os.path.join(scratch, f"tree{number}")
        self._originals = os.path.join(scratch, f"originals{number}")
        self._runner = runner
        self._prepared = set()

    def copy(self, files):
        for name in files:
            os.makedirs(os.path.join(self._tree, os.path.dirname(name)), exist_ok=True)
            shutil.copy2(os.path.join(ROOT, name), os.path.join(self._tree, name))

    def prepare(self, tests, mutants):
        """Builds a test project, and sees that its tests pass without a mutant."""
        if tests in self._prepared:
            return
        self._prepared.add(tests)
        status, output = self._runner.run(self._tree, "dotnet", "build", tests, *BUILD)
        if status != 0:
            raise Unfit(output)
        mutants = [mutant for mutant in mutants if tests_of(mutant) == tests]
        classes = [name for mutant in mutants for name in mutant["tests"].split()]
        status, output = self._test(tests, classes)
        if status not in (0, None):
            status, output = self._test(tests, classes)  # a test on the real kernel may be late on a busy machine; twice it is not
        if status != 0:
            raise Unfit("without any mutant the tests fail already:\n" + output[-4000:])
        os.makedirs(os.path.join(self._originals, tests))
        for assembly in {home_of(mutant)[1] for mutant in mutants}:
            shutil.copy2(os.path.join(self._tree, tests, BINARIES, assembly), os.path.join(self._originals, tests, assembly))

    def try_out(self, mutant):
        """Whether it was noticed, and that in words; None where it could not be applied."""
        path, before, after = applied(mutant, self._tree)
        project, assembly = home_of(mutant)
        tests = tests_of(mutant)
        beside = os.path.join(self._tree, tests, BINARIES, assembly)
        with open(path, "w", encoding="utf-8") as file:
            file.write(after)
        try:
            # Only the mutated project is built, and its assembly put beside the tests, which stay as they are.
            status, output = self._runner.run(self._tree, "dotnet", "build", project, "--no-restore", "-p:BuildProjectReferences=false", *BUILD)
            if status != 0:
                return None, "DOES NOT COMPILE\n" + output[-1500:]
            shutil.copy2(os.path.join(self._tree, project, BINARIES, assembly), beside)
            status, output = self._test(tests, mutant["tests"].split())
            failed = [line.strip().split("[")[0].split()[1].split("(")[0].split(".")[-1] for line in output.splitlines() if line.startswith("  Failed ")]
            if status is None:
                return True, "noticed: the tests did not end"
            if status != 0 and failed:
                return True, f"noticed by {len(failed)}: {failed[0]}"
            return False, "SURVIVED" + ("" if status == 0 else "\n" + output[-1500:])
        finally:
            with open(path, "w", encoding="utf-8") as file:
                file.write(before)
            shutil.copy2(os.path.join(self._originals, tests, assembly), beside)

    def _test(self, tests, classes):
        return self._runner.run(
            self._tree, "dotnet", "test", os.path.join(tests, BINARIES, TESTS[tests]), "--nologo", "--filter", filter_of(classes), timeout=TESTS_END_WITHIN)


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    mutants = [mutant for mutant in read_table() if any(word in mutant[key] for key in ("mutant", "file", "tests"))]
    if not mutants:
        sys.exit(f"no mutant's name, file or tests contain {word}")
    stale = [mutant for mutant in mutants if applied(mutant, ROOT) is None]
    for mutant in stale:
        print(f"{mutant['mutant']}: {mutant['file']} does not contain exactly once: {mutant['take']}", flush=True)
    total = len(mutants)
    mutants = sorted((mutant for mutant in mutants if mutant not in stale), key=tests_of)  # those of the smaller project first

    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, stdout=subprocess.PIPE, text=True).stdout
    files = [name for name in listed.split("\0") if name and os.path.isfile(name)]
    jobs = max(1, min(int(os.environ.get("JOBS", os.cpu_count() or 1)), 4, len(mutants)))
    noticed, survived, failed = 0, [], len(stale)
    runner = Runner()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scratch = tempfile.mkdtemp(prefix="mutants-")
    try:
        with concurrent.futures.ThreadPoolExecutor(jobs) as workers:
            try:
                free = queue.SimpleQueue()
                for number in range(jobs):
                    tree = Tree(scratch, number, runner)
                    tree.copy(files)
                    free.put(tree)

                def try_out(mutant):
                    started = time.monotonic()
                    tree = free.get()
                    try:
                        tree.prepare(tests_of(mutant), mutants)
                        verdict, words = tree.try_out(mutant)
                    finally:
                        free.put(tree)
                    return mutant, verdict, words, time.monotonic() - started

                for done in concurrent.futures.as_completed([workers.submit(try_out, mutant) for mutant in mutants]):
                    mutant, verdict, words, took = done.result()
                    print(f"{mutant['mutant']}: {words} ({took:.0f} s)", flush=True)
                    noticed += verdict is True
                    failed += verdict is None
                    survived += [mutant["mutant"]] if verdict is False else []
            except BaseException as e:
                runner.stop()
                workers.shutdown(wait=True, cancel_futures=True)
                if isinstance(e, Unfit):
                    sys.exit(str(e))
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for name in survived:
        print(f"survived: {name}")
    print(f"{noticed} of {total} mutants noticed, {len(survived)} survived, {failed} could not be applied")
    sys.exit(0 if noticed == total else 1)


CORE_CLASSES = classes_in("tests/core")
main()
