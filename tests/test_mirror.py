"""Mirrors of run folders: what is pushed, in which order, and what another node finds after a kill."""

from __future__ import annotations

import os
import tempfile
import uuid
from contextlib import nullcontext
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.errors import LeaseLost, RunAborted
from splatfix.mirror import Mirror, open_mirror


@pytest.fixture(params=["memory", "s3"])
def url(request, tmp_path: Path) -> str:
    """A folder on a store that does not exist yet."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return f"memory://{uuid.uuid4().hex}/run"


@pytest.fixture
def node(url: str, tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "a" / "run", url)


@pytest.fixture
def other(url: str, tmp_path: Path) -> Mirror:
    """The same run on a node with a separate disk."""
    return Mirror(tmp_path / "b" / "run", url)


@pytest.fixture
def copies(monkeypatch) -> list[str]:
    """The names of files in the order in which they are copied or deleted."""
    names: list[str] = []
    for function in ("upload", "download", "delete"):
        original = getattr(storage, function)

        def record(*arguments, original=original, function=function):
            url = next(argument for argument in arguments if isinstance(argument, str))
            names.append(f"{function} {url.split('/run/')[-1] if '/run/' in url else url.split('/', 4)[-1]}")
            return original(*arguments)

        monkeypatch.setattr(storage, function, record)
    return names


def write(mirror: Mirror, **contents: str) -> None:
    for number, (name, text) in enumerate(contents.items()):
        path = mirror.path / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, ns=(0, 10**18 + hash(text) % 10**9 + 10**10 * number))


def read(mirror: Mirror) -> dict[str, str]:
    files = (path for path in mirror.path.rglob("*") if path.is_file())
    return {path.relative_to(mirror.path).as_posix(): path.read_text() for path in files}


def test_records_are_pushed_and_pulled_after_the_files_that_they_speak_of(node, other, copies) -> None:
    write(node, run_json="r", trials__1__trial_json="t", results_json="s", splat="x", trials__1__a="y")
    (node.path / ".hidden.partial").touch()
    (node.path / "mlflow.db").touch()
    node.push()
    pushed = [name.removeprefix("upload ") for name in copies]
    assert set(pushed[:2]) == {"splat", "trials/1/a"}
    assert pushed[2:] == ["trials/1/trial.json", "results.json", "run.json"]
    copies.clear()
    other.pull()
    pulled = [name.removeprefix("download ") for name in copies]
    assert set(pulled[:2]) == {"splat", "trials/1/a"} and pulled[-1] == "run.json"
    assert read(other) == {name: text for name, text in read(node).items() if name in pulled}


def test_what_has_not_changed_is_not_copied(node, other, copies) -> None:
    write(node, a="1", b="2", c_json="3")
    node.push()
    copies.clear()
    (node.path / "a").touch()
    write(node, b="20")
    (node.path / "c.json").unlink()
    node.push()
    assert copies == ["delete c.json", "upload b"]
    copies.clear()
    node.push()
    node.pull()
    assert copies == []
    other.pull()
    assert read(other) == {"a": "1", "b": "20"}


def test_parts_are_copied_alone_and_files_that_were_deleted_elsewhere_go(node, other, copies) -> None:
    write(node, top="1", trials__1__a="2", trials__1__b="3", trials__2__a="4")
    node.push(".")
    assert copies == ["upload top"]
    node.push("trials/1")
    other.pull(".", "trials/1")
    assert set(read(other)) == {"top", "trials/1/a", "trials/1/b"}
    (other.path / "trials/1/b").unlink()
    other.push("trials/1")
    node.pull("trials/1")
    assert set(read(node)) == {"top", "trials/1/a", "trials/2/a"}


@pytest.mark.parametrize("after", range(5))
def test_an_interrupted_push_is_repeated_by_any_node(node, other, monkeypatch, after: int) -> None:
    write(node, state_json="1", checkpoint="1", picture="1")
    node.push()
    write(node, checkpoint="22", picture="22", new="22", state_json="22", run_json="22")
    upload, num = storage.upload, 0

    def fail(path: Path, url: str) -> str:
        nonlocal num
        num += 1
        if num > after:
            raise OSError("gone")
        return upload(path, url)

    monkeypatch.setattr(storage, "upload", fail)
    monkeypatch.setattr(storage, "NUM_REQUESTS", 1)
    with pytest.raises(OSError, match="gone"):
        node.push()
    monkeypatch.setattr(storage, "upload", upload)
    other.pull()
    found = read(other)
    assert found["state.json"] == ("22" if after == 4 else "1") and "run.json" not in found
    if found["state.json"] == "22":
        assert found["checkpoint"] == found["picture"] == found["new"] == "22"
    node.pull()
    node.push()
    other.pull()
    assert read(other) == read(node) and read(other)["run.json"] == "22"


def test_a_killed_process_has_noted_nothing_and_loses_nothing(bucket: str, tmp_path: Path, copies) -> None:
    node = Mirror(tmp_path / "a" / "run", f"{bucket}/run")
    write(node, a="1", state_json="1")
    node.push()
    (node.path.parent / "index.json").unlink()  # as if it had been killed before it wrote this
    write(node, unpushed="2")
    copies.clear()
    node.pull()
    node.push()
    assert copies == ["upload unpushed"]


def test_work_of_another_node_replaces_what_was_never_pushed(node, other) -> None:
    write(node, trials__1__a="1", trials__1__trial_json="1")
    node.push()
    write(node, trials__1__half="2")
    other.pull()
    write(other, trials__1__a="33", trials__1__trial_json="33")
    other.push()
    node.pull()
    assert read(node) == {**read(other), "trials/1/half": "2"}
    write(other, trials__1__a="444")
    other.push()
    node.pull(discard=True)
    assert read(node) == read(other)


def test_a_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    mirror = open_mirror(tmp_path / "run")
    assert mirror == Mirror(tmp_path / "run")
    mirror.pull()
    mirror.push()
    assert list(tmp_path.iterdir()) == []
    first, second = open_mirror("s3://bucket/runs/one/"), open_mirror("s3://bucket/runs/two")
    assert first.path.name == "one" and first.url == "s3://bucket/runs/one" and first.path.parent != second.path.parent


def test_files_that_were_lost_on_a_node_stay_on_the_store(node) -> None:
    write(node, a="1", shared__b="2")
    node.push()
    for name in ("a", "shared/b"):
        (node.path / name).unlink()
    node.pull(skip=["shared"])
    node.push()
    assert read(node) == {"a": "1"}
    assert storage.list_tree(str(node.url)) == ["a", "shared/b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("x"), None])
def test_a_driver_pushes_at_its_end(node: Mirror, other: Mirror, error: BaseException | None) -> None:
    with pytest.raises(type(error)) if error is not None else nullcontext(), node.drive():
        write(node, a="done")
        if error is not None:
            raise error
    other.pull()
    assert read(other) == {"a": "done"}


def test_a_driver_that_another_one_replaced_pushes_nothing(node: Mirror, other: Mirror) -> None:
    def lose() -> None:
        with node.drive():
            other.pull()
            write(other, state_json="2")
            other.push()
            write(node, state_json="old", x="old")
            raise LeaseLost

    write(node, state_json="1")
    node.push()
    with pytest.raises(LeaseLost):
        lose()
    again = Mirror(node.path.parent.parent / "c" / "run", node.url)
    again.pull()
    assert read(again) == {"state.json": "2"}


@pytest.mark.parametrize("error", [ValueError, RunAborted])
def test_errors_name_the_url(node: Mirror, error: type[Exception]) -> None:
    for context in (node.drive, node.name_errors):
        with pytest.raises(error, match=rf"^{node.url}/run.json: steps was 3$"), context():
            raise error(f"{node.path}/run.json: steps was 3")
    with pytest.raises(UnicodeDecodeError), node.drive():
        b"\xff".decode()


def test_files_that_vanish_during_a_push_are_left_out(node: Mirror, other: Mirror, monkeypatch) -> None:
    write(node, a="1", b="2", c="3")
    real_upload = storage.upload

    def upload(path: Path, url: str) -> str:
        if path.name == "b":  # another process of this node deletes it
            path.unlink()
        return real_upload(path, url)

    monkeypatch.setattr(storage, "upload", upload)
    real_list = Mirror._list_local
    monkeypatch.setattr(Mirror, "_list_local", lambda self, part: [*real_list(self, part), "gone"])
    node.push()
    other.pull()
    assert read(other) == {"a": "1", "c": "3"}


def test_copies_are_in_a_folder_of_the_user(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copies = open_mirror("memory://x/run").path.parents[1]
    assert copies.parent == tmp_path and copies.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ValueError, match="belongs to another user; set TMPDIR"):
        open_mirror("memory://x/run")
