"""Record what `tl` answers, and compare the records of two checkouts: the safety net of a refactoring.

    python -m benchmarks.reference_outputs record CHECKOUT FOLDER --datasets DIR [--hostile DIR] [--plans OLD] ...
    python -m benchmarks.reference_outputs compare OLD NEW [--common]

``record`` drives the `tl` of any checkout in subprocesses and writes one JSON file per command into FOLDER. ``compare`` prints
"equal" or the first differences for each file, and exits with 1 if a difference is not allowed. The tables below say what
may differ: KEYS and VALUES (renamed), REMOVED, CLOCK, MACHINE and VOLATILE_PATHS (masked), TEXT (prose), ON_PURPOSE (changed).

Plans are fixed: the first record makes them and keeps them in FOLDER/plans; a later record runs them with ``--plans``, keys
translated by KEYS, so that both train the same. Numeric libraries get one thread, because model digests depend on their number.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

# Renamed JSON keys, old -> new. Both sides are translated, so the order of OLD and NEW does not matter.
# Extend this table when a key is renamed; dotted names (`plan.wishes.seed` in a diff) are translated part by part.
KEYS: Final = {
    "wishes": "constraints",
    "licence": "license",
    "colour": "color",
    "grey_fraction": "gray_fraction",
    "part": "split",
    "parts": "splits",
    "memory": "reference_features",
    "probe_answers": "reference_predictions",
    "probe_images": "reference_images",
    "suspects": "label_issues",
    "num_probed": "num_predicted",
    "relabelled": "relabeled",
    "num_relabelled": "num_relabeled",
    "num_learned_from": "num_training_images",
    "switched_off": "disabled",
    "picture": "heatmap",
}
# Renamed string values (codes, enumerations), old -> new; the whole string has to match.
VALUES: Final = {
    "pictures": "images",
    "parts_differ": "splits_differ",
    "groups_across_parts": "groups_across_splits",
    "between_parts": "between_splits",
    "suspected_labels": "label_issues",
    "telling_files": "metadata_leak",
    "probe": "reference-predictions",
    "refused": "failed",
}
# Renamed options, old -> new: a record uses the one that the checkout knows.
OPTIONS: Final = {"--probe": "--predictions"}
# Removed JSON keys, key -> reason: not compared, and left out of plans that a newer checkout carries out.
UNUSED_OPTION: Final = "recipe option that no strategy uses"
REMOVED: Final = dict.fromkeys(
    ("averaging", "class_weighting", "dropout", "mixup_alpha", "momentum", "optimizer"), UNUSED_OPTION
)
# Keys whose values depend on the clock, the machine or the user: only null or not, and the length of lists, are compared.
CLOCK: Final = frozenset({"created_at", "latency_ms", "seconds", "seconds_by_step", "since", "trained_s", "until"})
MACHINE: Final = frozenset(
    {"actor", "command", "environment", "lineage", "manifest_digest", "memory_mib", "origin", "report", "root"}
)
# Volatile only in some places: patterns of "item:path" as `compare` prints it.
VOLATILE_PATHS: Final = (
    "registry-verify*:output.num_bytes",  # counts the manifests, which contain times
    "registry-gc*:output.blobs",  # digests of manifests
)
# Keys whose values are prose for human readers: not compared.
TEXT: Final = frozenset(
    {"accuracy_source", "advice", "description", "detail", "error", "message", "notes", "reasons"}
    | {"text", "title", "why", "words"}
)
CODE_OR_TEXT: Final = frozenset({"reason", "abstained"})  # compared unless there is a space in it


class Allowed(NamedTuple):
    """A difference that is there on purpose."""

    pattern: str  # of "item:path", as `compare` prints it; * matches anything
    reason: str


METADATA: Final = "metadata inside the file is named reference_features; its tensors are compared in tensors-*"
ADDED: Final = "new key: the recognized layout, the headline metric, classes that are never found (decisions 48 and 49)"
METRIC: Final = "new key: the metric that is asked for, and its value (decision 67)"
BLOCKS: Final = "blocks of neighboring files stay together in these splits (decision 59); equal until commit 3875aa6"
ON_PURPOSE: Final[tuple[Allowed, ...]] = (
    Allowed("*:output.blobs.reference_features.digest", METADATA),
    Allowed("*:output.blobs.reference_features.size_bytes", METADATA),
    Allowed("*.index.layout", ADDED),
    Allowed("*.headline", ADDED),
    Allowed("*.warnings", ADDED),
    Allowed("registry-*.balanced_accuracy", ADDED),
    Allowed("*.index.rejected.*.digest", "new key: corrections name images by digest, rejected ones too (decision 55)"),
    Allowed("registry-diff:output.corrected", "new key: images whose labels were corrected (decision 55)"),
    *(Allowed(f"*.{key}", METRIC) for key in ("metric", "class_weights", "value", "value_interval", "log_loss_interval*")),
    Allowed("*.group_by", BLOCKS),
    Allowed("*.grouping", BLOCKS),
    Allowed("*.block_images", BLOCKS),
    *(Allowed(f"*-{name}*", BLOCKS) for name in ("brain_mri", "digits8x8", "gtsrb14", "neu_defects", "sign_digits")),
    Allowed("*-pets3-*.accuracy_interval.*", "near-duplicates count less in a plan's interval (design effect, decision 59)"),
    Allowed("registry-*", f"digits8x8: {BLOCKS}"),
)

MODEL_SETS: Final = ("hymenoptera", "pets3", "flowers5", "neu_defects", "brain_mri", "digits8x8")
PLANS: Final = {  # item: options of `tl auto plan`; a head that was asked for is kept even where the linear probe is better
    "linear_probe": "--strategy linear_probe --backbone lite/efficientnet_lite0",
    "tail": "--strategy tail --backbone lite/efficientnet_lite0",
    "tail_mlp": "--strategy tail --backbone lite/efficientnet_lite0 --head mlp:64",
}
MLP_SETS: Final = ("pets3", "neu_defects")  # the only ones with a tail_mlp
NUM_PREDICTED: Final = 20
STAGES: Final = ("data", "models", "registry")
THREADS: Final = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
SHOWN: Final = 5  # differences per item

REGISTRY_SET: Final = "digits8x8"  # version 1: linear_probe, version 2: tail
GATES: Final = "[models.digits8x8]\nmin_accuracy = 0.999\n"  # in force for the items named "gated"
SESSION: Final = (  # item, arguments of `tl registry`; the life of two versions, in this order
    ("list", "list"),
    ("list-best", "list digits8x8 --sort accuracy --last 1"),
    ("diff", "diff digits8x8@1 digits8x8@2"),
    ("promote", "promote digits8x8@1 production --reason first"),
    ("promote-lost", "promote digits8x8@2 production --expect 7"),  # compare-and-set fails
    ("promote-expected", "promote digits8x8@2 production --expect 1"),
    ("promote-gated", "promote digits8x8@1 production"),  # the gate refuses
    ("promote-gated-forced", "promote digits8x8@1 production --force --reason exercise"),
    ("history", "history digits8x8"),
    ("rollback", "rollback digits8x8 production --reason back"),
    ("rollback-nothing", "rollback digits8x8 staging"),
    ("demote", "demote digits8x8 production"),
    ("tag", "tag digits8x8@2 --add reviewed --add draft"),
    ("tag-remove", "tag digits8x8@2 --remove draft"),
    ("show-unknown", "show nothing"),
    ("show-malformed", "show a/b@c"),
    ("path", "path digits8x8@1 head"),
    ("verify", "verify"),
    ("verify-probe", "verify digits8x8@1 --probe"),
    ("export", "export digits8x8@2 second.tar"),
    ("export-exists", "export digits8x8@2 second.tar"),
    ("import", "import second.tar --name copy"),
    ("import-again", "import second.tar --name copy"),
    ("delete-refused", "delete digits8x8@1"),  # it was in production lately
    ("delete-unknown", "delete copy@1"),  # an import keeps its number
    ("delete", "delete copy@2 --reason exercise"),
    ("gc-dry-run", "gc --dry-run"),
    ("gc", "gc"),
    ("prune", "prune digits8x8 --keep-best 1 --dry-run"),
    ("rebuild", "rebuild"),
    ("history-rebuilt", "history digits8x8 --alias production"),
    ("list-rebuilt", "list"),
)


class Recorder:
    """Runs the `tl` of one checkout, with a data directory of its own, and writes a JSON file per command.

    Args:
        checkout: root of a working tree, with ``plugins`` and ``registry`` below it.
        folder: where the records go.
        work: temporary folder: data directory, exported archives.
        places: absolute folders and the word that stands for each in the records.
    """

    def __init__(self, checkout: Path, folder: Path, work: Path, places: dict[Path, str]) -> None:
        self.folder, self.work = folder, work
        work.mkdir(exist_ok=True)
        self._places = {**places, work: "$WORK", checkout: "$CHECKOUT"}
        paths = os.pathsep.join(map(str, (checkout, checkout / "plugins", checkout / "registry")))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TL_")}
        own = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "TL_HOME": str(work / "home"), "NO_COLOR": "1"}
        self._environment = {**inherited, **THREADS, **own}

    def help(self, *command: str) -> str:
        """Return the help of a command."""
        line = [sys.executable, "-m", "automl_tl", *command, "--help"]
        return subprocess.run(line, env=self._environment, capture_output=True, text=True, check=True).stdout

    def __call__(self, item: str, *command: str | Path, digits: int | None = None) -> object:
        """Run one command with ``--json`` and record its exit code and output.

        Args:
            item: name of the record.
            command: arguments of `tl`.
            digits: decimal places to which floats in the output are rounded; None keeps them as they are.

        Returns:
            The output: one JSON value, a list of those if the command prints JSON lines, or None without output.
        """
        began = time.monotonic()
        words = [str(word) for word in command]
        line = [sys.executable, "-m", "automl_tl", *words, "--json"]
        done = subprocess.run(line, env=self._environment, cwd=self.work, capture_output=True, text=True, check=False)
        output = parsed(done.stdout)
        record = {"command": words, "exit_code": done.returncode, "message": done.stderr[-2000:], "output": output}

        def portable(leaf: object) -> object:
            if isinstance(leaf, str):
                for place, word in self._places.items():
                    leaf = leaf.replace(str(place), word)
            return round(leaf, digits) if digits is not None and isinstance(leaf, float) else leaf

        write(self.folder / f"{item}.json", each(record, portable))
        print(f"{time.monotonic() - began:6.1f} s  exit {done.returncode}  {item}", flush=True)
        return output


def each(value: object, change: Callable[[object], object]) -> object:
    """Return a JSON value with every leaf changed by a function."""
    if isinstance(value, dict):
        return {key: each(below, change) for key, below in value.items()}
    return [each(below, change) for below in value] if isinstance(value, list) else change(value)


def parsed(text: str) -> object:
    """Return the JSON value, or the list of values of JSON lines, that a command printed; text that is neither stays text."""
    lines = [line for line in text.splitlines() if line.strip()]
    for read in (lambda: json.loads(text), lambda: [json.loads(line) for line in lines]):
        try:
            return read() if lines else None
        except json.JSONDecodeError:
            continue
    return text


def write(file: Path, value: object) -> None:
    """Write a JSON file, and the folder around it if needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def record_data(tl: Recorder, datasets: Path, hostile: Path | None) -> None:
    """Check and split every data set; check both folders of hostile inputs, on their own and together."""
    for folder in sorted(place for place in datasets.iterdir() if place.is_dir()):
        tl(f"check-{folder.name}", "data", "check", folder)
        tl(f"split-{folder.name}", "data", "split", folder)
    if hostile is not None:
        for name, folder in (("train", hostile / "train"), ("test", hostile / "test"), ("both", hostile)):
            tl(f"check-hostile-{name}", "data", "check", folder)


def record_models(tl: Recorder, datasets: Path, plans: Path | None, names: tuple[str, ...]) -> None:
    """Plan, fit and predict with every strategy; the versions stay in the registry of the recorder.

    Args:
        tl: recorder.
        datasets: folder of the data sets.
        plans: folder of plan files from an earlier record; None: made by this checkout.
        names: of the data sets.
    """
    for name in names:
        images = sorted(path for path in (datasets / name / "test").rglob("*") if path.is_file())
        images = [images[i * len(images) // NUM_PREDICTED] for i in range(NUM_PREDICTED)]
        chosen = [kind for kind in PLANS if kind != "tail_mlp" or name in MLP_SETS]
        for version, kind in enumerate(chosen, 1):
            item = f"{name}-{kind}"
            fresh = tl(f"plan-{item}", "auto", "plan", datasets / name, *PLANS[kind].split())
            if plans is None:
                plan = shortened(fresh)
            else:
                plan = translated(json.loads((plans / f"{item}.json").read_text(encoding="utf-8")), set(keys(fresh)))
            write(tl.folder / "plans" / f"{item}.json", plan)
            write(tl.work / "plan.json", plan)
            tl(f"fit-{item}", "auto", "fit", datasets / name, "--plan", "plan.json", "--name", name)
            shown = tl(f"show-{item}", "registry", "show", f"{name}@{version}")
            write(tl.folder / f"tensors-{item}.json", tensors(shown, tl.work / "home" / "registry" / "blobs" / "sha256"))
            tl(f"predict-{item}", "predict", f"{name}@{version}", *images, digits=4)


def tensors(shown: object, blobs: Path) -> object:
    """Digest each tensor of a version, so that renamed metadata inside a file does not hide that its numbers are the same.

    Args:
        shown: output of `registry show`.
        blobs: folder of the registry's files, each under its digest.

    Returns:
        Role -> tensor name -> [type, shape, sha256]; empty if there is no such version.
    """
    result: dict[str, dict[str, object]] = {}
    for role, blob in shown["blobs"].items() if isinstance(shown, dict) else ():
        content = (blobs / blob["digest"][:2] / blob["digest"]).read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")  # safetensors: length of the header, header (JSON), tensors
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        result[role] = {
            name: [one["dtype"], one["shape"], sha256(content[slice(*(start + at for at in one["data_offsets"]))]).hexdigest()]
            for name, one in header.items()
        }
    return result


def shortened(plan: object) -> object:
    """Cut training to one epoch, without a second training on all images.

    Linear heads start at the closed-form head. Where the linear probe stays better, `tl auto fit` keeps it, and only the losses
    that `registry show` lists tell about the training.
    """
    if isinstance(plan, dict) and plan["recipe"]["phases"]:
        plan["recipe"]["refit"] = False
        linear = not plan["recipe"]["head"]["hidden_dims"]
        if linear:
            plan["recipe"]["head"]["start"] = "solved"
        for phase in plan["recipe"]["phases"]:
            phase.update(epochs=1, **({"head_lr": 1e-4, "encoder_lr": 1e-4} if linear else {}))
    return plan


def keys(value: object) -> Iterator[str]:
    """All keys of all objects below a JSON value."""
    if isinstance(value, dict):
        yield from value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(below)


def translated(plan: object, known: set[str]) -> object:
    """Rename the keys of a plan to those of another checkout.

    Args:
        plan: JSON value with old keys.
        known: the keys that this checkout writes; a key is renamed only if its new name is one of them.

    Returns:
        The plan with the keys that this checkout reads.
    """
    if isinstance(plan, dict):
        kept = {key: below for key, below in plan.items() if key in known or key not in REMOVED}
        return {KEYS[key] if KEYS.get(key) in known else key: translated(below, known) for key, below in kept.items()}
    return [translated(below, known) for below in plan] if isinstance(plan, list) else plan


def record_registry(tl: Recorder) -> None:
    """Carry out SESSION with the versions of REGISTRY_SET, which are in the registry of the recorder."""
    gates = tl.work / "home" / "registry" / "gates.toml"
    for item, command in SESSION:
        if "gated" in item and gates.parent.is_dir():
            gates.write_text(GATES, encoding="utf-8")
        words = command.split()
        known = tl.help("registry", words[0])
        words = [OPTIONS[word] if word in OPTIONS and word not in known else word for word in words]
        tl(f"registry-{item}", "registry", *words)
        gates.unlink(missing_ok=True)


def record(arguments: argparse.Namespace) -> int:
    """Record the chosen stages of one checkout; return 0."""
    checkout, folder, datasets = (place.resolve() for place in (arguments.checkout, arguments.folder, arguments.datasets))
    hostile = arguments.hostile and arguments.hostile.resolve()
    plans = arguments.plans and arguments.plans.resolve() / "plans"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tl-reference-", ignore_cleanup_errors=True) as work:
        places = ({hostile: "$HOSTILE"} if hostile else {}) | {datasets: "$DATASETS"}
        models, session = Path(work).resolve() / "models", Path(work).resolve() / "session"  # two registries: lists don't mix
        if "data" in arguments.stages:
            record_data(Recorder(checkout, folder, models, places), datasets, hostile)
        if "models" in arguments.stages:
            names = tuple(name for name in MODEL_SETS if name != REGISTRY_SET or "registry" not in arguments.stages)
            record_models(Recorder(checkout, folder, models, places), datasets, plans, names)
        if "registry" in arguments.stages:
            tl = Recorder(checkout, folder, session, places)
            record_models(tl, datasets, plans, (REGISTRY_SET,))
            record_registry(tl)
    print(f"{time.monotonic() - began:.0f} s, records in {folder}")
    return 0


def canonical(value: object, path: str, key: str = "") -> object:  # noqa: PLR0911
    """Translate a record to new names and mask all that is not compared.

    Args:
        value: JSON value.
        path: of the value, "item:output.key.0.key".
        key: the last key on the way to the value.

    Returns:
        The value as it is compared.
    """
    if key in TEXT or (key in CODE_OR_TEXT and " " in str(value)):
        return "<text>"
    if key in CLOCK | MACHINE or any(fnmatchcase(path, pattern) for pattern in VOLATILE_PATHS):
        return None if value is None else ["<volatile>"] * (len(value) if isinstance(value, list) else 1)
    if isinstance(value, dict) and key == "kept":
        return sorted(value)  # why a version is kept is prose
    if isinstance(value, dict):
        below = {str(KEYS.get(name, name)): one for name, one in value.items() if name not in REMOVED}
        if len(below) < len(value.keys() - REMOVED.keys()):
            raise SystemExit(f"{path}: KEYS gives two of these keys the same name: {', '.join(value)}")
        return {name: canonical(one, f"{path}{'' if path.endswith(':') else '.'}{name}", name) for name, one in below.items()}
    if isinstance(value, list):
        if value and all(isinstance(row, dict) and row.keys() == {"key", "before", "after"} for row in value):
            return canonical(nested(value), path)
        return [canonical(below, f"{path}.{i}") for i, below in enumerate(value)]
    return VALUES.get(value, value) if isinstance(value, str) else value


def nested(rows: list[dict[str, str]]) -> object:
    """Turn the rows of `registry diff`, whose keys are dotted names, into nested objects, so that KEYS and masks apply."""
    result: dict[str, object] = {}
    for row in rows:
        *above, last = row["key"].split(".")
        if not (CLOCK | MACHINE | TEXT).isdisjoint((*above, last)):
            continue  # a row is there only if the two versions differ
        place = result
        for name in above:
            place = place.setdefault(name, {})  # type: ignore[assignment]
        place[last] = {"before": row["before"], "after": row["after"]}
    return result


def differences(old: object, new: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and description of every difference between two canonical records."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            below = f"{path}{'' if path.endswith(':') else '.'}{key}"
            if key in old and key in new:
                yield from differences(old[key], new[key], below)
            else:
                yield below, f"only in {'OLD' if key in old else 'NEW'}: {short(old.get(key, new.get(key)))}"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{path}.{i}")
    elif old != new or type(old) is not type(new):
        yield path, f"{short(old)} != {short(new)}"


def short(value: object) -> str:
    """One line of JSON, cut to 100 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."


def compare(arguments: argparse.Namespace) -> int:
    """Print for each record whether it is equal; return 1 if any differs in a way that is not allowed, else 0."""
    old, new = ({file.stem: file for file in folder.glob("*.json")} for folder in (arguments.old, arguments.new))
    items = sorted(old.keys() & new.keys() if arguments.common else old.keys() | new.keys())
    num_bad = 0
    for item in items:
        if item not in old or item not in new:
            bad, why = [(item, f"missing in {'NEW' if item in old else 'OLD'}")], set()
        else:
            one, other = (canonical(json.loads(side[item].read_text(encoding="utf-8")), f"{item}:") for side in (old, new))
            found = list(differences(one, other, f"{item}:"))
            why = {allowed.reason for path, _ in found for allowed in ON_PURPOSE if fnmatchcase(path, allowed.pattern)}
            bad = [one for one in found if not any(fnmatchcase(one[0], allowed.pattern) for allowed in ON_PURPOSE)]
        print(
            f"{'DIFFERS' if bad else 'equal':8}{item}{''.join(f'{chr(10)}    on purpose: {reason}' for reason in sorted(why))}"
        )
        print("".join(f"    {path}: {text}\n" for path, text in bad[:SHOWN]), end="")
        print(f"    and {len(bad) - SHOWN} more\n" if len(bad) > SHOWN else "", end="")
        num_bad += bool(bad)
    print(f"{len(items) - num_bad} of {len(items)} equal")
    return 1 if num_bad or not items else 0


def main() -> int:
    """Run the subcommand; return its exit code."""
    parser = argparse.ArgumentParser(description="Record what `tl` answers, and compare the records of two checkouts.")
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record", help="Run the commands of a checkout and write their outputs.")
    recording.add_argument("checkout", type=Path, help="Root of a working tree.")
    recording.add_argument("folder", type=Path, help="Folder of the records.")
    recording.add_argument("--datasets", type=Path, required=True, help="Folder of data sets with train/ and test/.")
    recording.add_argument("--hostile", type=Path, help="Folder with the train/ and test/ of damaged inputs.")
    recording.add_argument("--plans", type=Path, help="Earlier records whose plans to carry out. Default: make them.")
    recording.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="What to record. Default: everything.")
    recording.set_defaults(run=record)
    comparing = commands.add_parser("compare", help="Compare two folders of records.")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("--common", action="store_true", help="Only records that both folders have.")
    comparing.set_defaults(run=compare)
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
