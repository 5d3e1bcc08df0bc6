#!/usr/bin/env python3
"""Checks what was handed out in this folder, with Python 3.8 or later alone. Who signed it, VERIFY.md says how to check.

python3 verify.py [--without-files]                 all sessions, and the other files of a bag
python3 verify.py [--without-files] ENTRY PROOF     one, such as data/0001/entry.json data/0001/entry.tlog-proof
"""
import sys
if __name__ == "__main__" and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    del sys.path[0]  # this folder: what is named json.py or the like in it must not take the place of Python's own
import base64, csv, hashlib, json, os, pathlib, re
from typing import Any, List

OTHERS = ["VERIFY.md", "account.csv", "bag-info.txt", "bagit.txt", "loadfile.csv", "manifest-sha256.txt", "verify.py"]
OTHERS += ["evidence/allowed_signers", "evidence/checkpoint", "evidence/checkpoint.sig"]

def need(holds: object, what: str) -> None:
    if not holds:
        raise ValueError(what)

def regular(path: pathlib.Path) -> pathlib.Path:
    need(path.is_file() and not path.is_symlink(), f"{path.name} is missing, or is no file")
    return path

def read(path: pathlib.Path) -> bytes:
    need(regular(path).stat().st_size < 1 << 26, f"{path.name} is too long")
    return path.read_bytes()

def hash_of(path: pathlib.Path, length: Any = None) -> str:
    digest = hashlib.sha256()
    with regular(path).open("rb") as file:
        need(length in (None, path.stat().st_size), f"{path.name} has another length than was recorded")
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()

def names(files: List[Any]) -> List[str]:
    """Of a record's files here: 1.wav is what has place 1, and 1-2.wav the second that has; place 0 are transcriptions."""
    places = [str(file["ordinal"] or "transcriptions") for file in files]
    again = [places[:number].count(place) for number, place in enumerate(places)]
    ends = [re.search(r"\.([A-Za-z0-9]{1,8})\Z", file["file_name"]) for file in files]
    return [f"{place}{f'-{n + 1}' if n else ''}.{end[1].lower() if end else 'bin'}" for place, n, end in zip(places, again, ends)]

def check_proof(entry: bytes, proof: bytes, checkpoint: bytes) -> None:
    head, _, note = proof.partition(b"\n\n")
    need(note == checkpoint, "the proof's checkpoint is another one than evidence/checkpoint")
    at = re.fullmatch(rb"c2sp\.org/tlog-proof@v1\nindex (0|[1-9][0-9]{0,18})((?:\n[^\n]+)*)", head)
    sealed = re.match(rb"[^\n]+\n([1-9][0-9]{0,18})\n([^\n]+)\n\n", checkpoint)
    if not at or not sealed:
        raise ValueError("no proof, or no checkpoint")
    spelt = [*at[2].split(b"\n")[1:], sealed[2]]
    *hashes, root = [base64.b64decode(text) for text in spelt]
    need(all(len(h) == 32 and base64.b64encode(h) == text for h, text in zip([*hashes, root], spelt)), "a hash is misspelt")
    place, last, found = int(at[1]), int(sealed[1]) - 1, hashlib.sha256(b"\0" + entry).digest()
    need(place <= last, "the index is not below the size of the ledger")
    for hashed in hashes:  # RFC 9162, 2.1.3.2
        need(last, "the proof has hashes too many")
        left = place & 1 or place == last
        found = hashlib.sha256(b"\1" + (hashed + found if left else found + hashed)).digest()
        while left and place and not place & 1:
            place, last = place >> 1, last >> 1
        place, last = place >> 1, last >> 1
    need(not last and found == root, "the entry is not what the ledger has at this place")

def check_session(pair: List[pathlib.Path], with_files: bool) -> None:
    need(len(pair) == 2, "name an entry and its proof, or nothing for all")
    folder, line = pair[0].parent, read(pair[0])
    check_proof(line, read(pair[1]), read(folder.parent.parent / "evidence" / "checkpoint"))
    said, content = json.loads(line), read(folder / "session.json")
    need(said["record"] == hashlib.sha256(content).hexdigest(), "session.json is not the record that entry.json names")
    record = json.loads(content)
    files, told = record["files"], ("bot", "kind", "state")
    need([said["session"], *map(said.get, told)] == [record["session_id"], *map(record.get, told)], "of another session")
    audio = sorted({(file["ordinal"], file["sha256"]) for file in files if file["ordinal"]})
    need([list(pair) for pair in audio] == said["files"] if "files" in said else len(audio) == said["files_count"], "other files")
    expected = dict(zip(names(files), files)) if with_files else {}
    there = {path.name for path in folder.iterdir()} - {"entry.json", "entry.tlog-proof", "session.json"}
    for name in sorted(there | set(expected)):
        need(name in expected, f"{name} belongs to nothing that was recorded")
        need(hash_of(folder / name, expected[name]["bytes"]) == expected[name]["sha256"], f"{name} is not what was recorded")

def check_rest(bag: pathlib.Path) -> None:
    lines = read(bag / "tagmanifest-sha256.txt").decode("ascii").split("\n")
    listed = {line.partition("  ")[2]: line.partition("  ")[0] for line in lines[:-1]}
    there = {path.relative_to(bag).as_posix() for path in [*bag.iterdir(), *(bag / "evidence").iterdir()]}
    need(not lines[-1] and {*listed} == {*OTHERS}, "tagmanifest-sha256.txt lists other files than a bag has")
    odd = sorted((there - {"data", "evidence", "tagmanifest-sha256.txt"}) ^ {*OTHERS})
    need(not odd, f"missing, or not part of the bag: {odd[:3]}")
    for name, expected in listed.items():
        need(hash_of(bag / name) == expected, f"{name} is not what tagmanifest-sha256.txt says")
    with (bag / "manifest-sha256.txt").open("rb") as manifest:
        sessions = {line.split(b"/")[1].decode("ascii") for line in iter(lambda: manifest.readline(1 << 10), b"")}
    odd = sorted({path.name for path in (bag / "data").iterdir()} ^ sessions)
    need(not odd, f"in data or in manifest-sha256.txt alone: {odd[:3]}")
    here = {f"data/{name}": json.loads(read(bag / "data" / name / "entry.json")) for name in sessions}
    need(len({(said["bot"], said["session"], said["kind"]) for said in here.values()}) == len(here), "a session is here twice")
    with (bag / "account.csv").open(encoding="utf-8", newline="") as account:
        told = {row["folder"]: row["session"].lstrip("'") for row in csv.DictReader(account) if row["exported"] == "yes"}
    need(told == {folder: said["session"] for folder, said in here.items()}, "account.csv tells of other sessions than data has")

def fails(name: str, check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except Exception as error:
        print(f"WRONG: {name!a}: {str(error)[:200]!a}")
        return True
    return False

def main(arguments: List[str]) -> int:
    given = [pathlib.Path(os.path.abspath(each)) for each in arguments if each != "--without-files"]
    bag = pathlib.Path(os.path.abspath(__file__)).parent
    pairs = [given] if given else [[f / "entry.json", f / "entry.tlog-proof"] for f in sorted((bag / "data").glob("*"))]
    wrong = sum([fails(pair[0].parent.name, check_session, pair, "--without-files" not in arguments) for pair in pairs])
    if not pairs or (not given and {"bagit.txt", "manifest-sha256.txt"} & {path.name for path in bag.iterdir()}):
        wrong += fails(bag.name, check_rest, bag)
    if not wrong:
        print(f"{len(pairs)} checked: what is here is what the ledger has whose state evidence/checkpoint is. Now ssh-keygen")
        print("must verify that checkpoint, with a key whose fingerprint you have from elsewhere than this folder: see VERIFY.md")
    return 1 if wrong else 0

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
