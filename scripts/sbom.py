#!/usr/bin/env python3
"""Writes what a package of conn-sidecar is made of, as CycloneDX 1.5: sbom.py PACKAGE.deb

The components are what out/conn-sidecar.deps.json says: the packages whose code is in the published file, and the .NET runtime
that is part of it. Their hashes are those of the NuGet packages. The same commit gives the same bytes.
"""

import base64
import datetime
import hashlib
import json
import os
import subprocess
import sys
import uuid
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def licence(folder, name):
    """Of a package's own description: an SPDX expression, or an address; nothing where it has neither."""
    described = next(folder.glob("*.nuspec"), None)
    if described is None:
        raise SystemExit(f"sbom: {name} is not among the restored packages ({folder})")
    for element in xml.parse(described).iter():
        tag = element.tag.rpartition("}")[2]
        if tag == "license" and element.get("type") == "expression":
            return [{"expression": element.text.strip()}]
        if tag == "licenseUrl" and element.text and "aka.ms/deprecateLicenseUrl" not in element.text:
            return [{"license": {"name": "see url", "url": element.text.strip()}}]
    return []


def component(packages, name, version, content_hash):
    folder = packages / name.lower() / version.lower()
    made = {"type": "library", "bom-ref": f"pkg:nuget/{name}@{version}", "name": name, "version": version}
    if not content_hash:
        content_hash = json.loads((folder / ".nupkg.metadata").read_text())["contentHash"]
    made["hashes"] = [{"alg": "SHA-512", "content": base64.b64decode(content_hash).hex()}]
    if licences := licence(folder, name):
        made["licenses"] = licences
    made["purl"] = made["bom-ref"]
    return made


def main():
    package = Path(sys.argv[1])
    name, version, architecture = output("dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}", str(package.resolve())).split()
    packages = Path(output("dotnet", "nuget", "locals", "global-packages", "--list").split(":", 1)[1].strip())

    # What the linker left in the published file, packages and the runtime; the project's own assemblies are the product.
    described = json.loads((ROOT / "out" / "conn-sidecar.deps.json").read_text())
    asks, parts = {}, {}
    for reference, library in described["libraries"].items():
        if library["type"] in ("package", "runtimepack"):
            each, exact = reference.removeprefix("runtimepack.").rsplit("/", 1)
            parts[reference] = component(packages, each, exact, library["sha512"].removeprefix("sha512-"))
    for target in described["targets"].values():
        for reference, entry in target.items():
            asks[reference] = {f"{other}/{exact}" for other, exact in entry.get("dependencies", {}).items()}
    own = [reference for reference, library in described["libraries"].items() if library["type"] == "project"]

    product = f"pkg:deb/{name}@{version}?arch={architecture}"
    made = int(os.environ.get("SOURCE_DATE_EPOCH") or output("git", "log", "-1", "--format=%ct"))
    checksum = hashlib.sha256(package.read_bytes()).hexdigest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, product + checksum)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(made, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application", "bom-ref": product, "name": name, "version": version,
                "hashes": [{"alg": "SHA-256", "content": checksum}], "licenses": [{"expression": "MIT"}], "purl": product,
            },
        },
        "components": [parts[each] for each in sorted(parts)],
        "dependencies": [
            {"ref": product, "dependsOn": sorted({parts[other]["bom-ref"] for each in own for other in asks[each] if other in parts})},
            *({"ref": parts[each]["bom-ref"], "dependsOn": sorted(parts[other]["bom-ref"] for other in asks.get(each, ()) if other in parts)}
              for each in sorted(parts)),
        ],
    }
    json.dump(document, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
