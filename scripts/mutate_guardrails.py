"""The work of mutate-guardrails.sh: see there. The table is tests/mutants.txt."""
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.getcwd()
ASSEMBLIES = {"agent": ["conn-sidecar.dll"], "probes": ["Sidecar.Probes.dll"]}
TABLE = os.path.join(ROOT, "tests", "mutants.txt")


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
        current[key] = value
        current["line"] = number
    if current:
        mutants.append(current)
    for mutant in mutants:
        missing = {"mutant", "file", "tests", "take", "put"} - set(mutant)
        if missing:
            sys.exit(f"{TABLE}:{mutant['line']}: {', '.join(sorted(missing))} missing")
    return mutants


def applied(mutant, tree):
    """The file's text before and after, or None where the text to take is not there exactly once."""
    path = os.path.join(tree, mutant["file"])
    text = open(path, encoding="utf-8").read()
    return (path, text, text.replace(mutant["take"], mutant["put"])) if text.count(mutant["take"]) == 1 else None


def run(tree, *command):
    return subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    mutants = [mutant for mutant in read_table() if word in mutant["mutant"]]
    if not mutants:
        sys.exit(f"no mutant's name contains {word}")
    stale = [mutant for mutant in mutants if applied(mutant, ROOT) is None]
    for mutant in stale:
        print(f"{mutant['mutant']}: {mutant['file']} does not contain exactly once: {mutant['take']}")
    if stale:
        sys.exit(1)

    scratch = tempfile.mkdtemp(prefix="mutants-")
    tree = os.path.join(scratch, "tree")
    failures = 0
    try:
        files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, stdout=subprocess.PIPE, text=True).stdout
        for name in filter(None, files.split("\0")):
            if os.path.isfile(name):
                os.makedirs(os.path.join(tree, os.path.dirname(name)), exist_ok=True)
                shutil.copy2(name, os.path.join(tree, name))
        # Analyzers have had their say on the real tree; a mutant may well have an unused variable.
        build = ["-v", "quiet", "--nologo", "-nodeReuse:false",
                 "-p:TreatWarningsAsErrors=false", "-p:RunAnalyzers=false", "-p:GenerateDocumentationFile=false"]
        first = run(tree, "dotnet", "build", "tests/unit", *build)
        if first.returncode != 0:
            sys.exit(first.stdout)
        everything = "|".join(sorted({f"FullyQualifiedName~{name}" for mutant in mutants for name in mutant["tests"].split()}))
        sane = run(tree, "dotnet", "test", "tests/unit", "--no-build", "--nologo", "--filter", everything)
        if sane.returncode != 0:
            sys.exit("without any mutant the tests fail already:\n" + sane.stdout[-4000:])
        originals = {}
        for assembly in (name for names in ASSEMBLIES.values() for name in names):
            originals[assembly] = os.path.join(scratch, assembly)
            shutil.copy2(os.path.join(tree, "tests/unit/bin/Debug/net10.0", assembly), originals[assembly])
        for mutant in mutants:
            started = time.monotonic()
            path, before, after = applied(mutant, tree)
            with open(path, "w", encoding="utf-8") as file:
                file.write(after)
            try:
                # Only the mutated project is built, and its assembly put beside the tests, which stay as they are.
                project = mutant["file"].split("/")[0]
                built = run(tree, "dotnet", "build", project, "--no-restore", "-p:BuildProjectReferences=false", *build)
                for assembly in ASSEMBLIES[project]:
                    shutil.copy2(os.path.join(tree, project, "bin/Debug/net10.0", assembly), os.path.join(tree, "tests/unit/bin/Debug/net10.0", assembly))
                if built.returncode != 0:
                    verdict = "DOES NOT COMPILE\n" + built.stdout[-1500:]
                    failures += 1
                else:
                    names = "|".join(f"FullyQualifiedName~{name}" for name in mutant["tests"].split())
                    tested = run(tree, "dotnet", "test", "tests/unit", "--no-build", "--nologo", "--filter", names)
                    failed = [line.strip().split("[")[0].split()[1].split(".")[-1] for line in tested.stdout.splitlines() if line.startswith("  Failed ")]
                    if tested.returncode != 0 and failed:
                        verdict = f"noticed by {len(failed)}: {failed[0]}"
                    else:
                        verdict = "SURVIVED"
                        failures += 1
            finally:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(before)
                for assembly, whole in originals.items():
                    shutil.copy2(whole, os.path.join(tree, "tests/unit/bin/Debug/net10.0", assembly))
            print(f"{mutant['mutant']}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{len(mutants) - failures} of {len(mutants)} mutants noticed")
    sys.exit(1 if failures else 0)


main()
