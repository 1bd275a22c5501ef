"""Cache keys, the status of committed records, and the check for uncommitted changes."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reproduce.__main__ import main
from reproduce.core import cache, discovery
from reproduce.core.context import Context
from reproduce.core.discovery import discover, script_folder
from reproduce.core.figure import Figure
from reproduce.core.record import read_record, write_record
from reproduce.core.run import DirtyTreeError, available_inputs, run
from reproduce.lock import locked_version
from tests.reproduce.test_figures import script

INPUTS = {"corpus": "imagenet65k", "checkpoint": "c" * 64, "data": "d" * 64}
WITHOUT_DATA = {name: INPUTS[name] for name in ("corpus", "checkpoint")}  # without the data set


@pytest.fixture
def figure(tmp_path):
    (tmp_path / "boxes.yaml").write_text("cat: [1, 2, 3, 4]  # a comment\n")
    config = {"images": 10, "curve": (1, 2)}
    return Figure(
        "small",
        "Small",
        "It is small.",
        ("model", "images"),
        seed=3,
        time_budget=1,
        config=config,
        files=("boxes.yaml",),
    )


@pytest.fixture
def record(figure, tmp_path):
    from tests.reproduce.test_figures import record

    hashes = cache.file_hashes(figure, tmp_path)
    written = record(
        id=figure.id, inputs=INPUTS, config=figure.config, seed=figure.seed, version=figure.version, file_hashes=hashes,
        key=cache.cache_key(figure, INPUTS, hashes),
    )  # fmt: skip
    write_record(written, tmp_path / "record")
    return read_record(tmp_path / "record")  # as read from JSON


def test_key_depends_on_declared_inputs(figure, tmp_path):
    hashes = cache.file_hashes(figure, tmp_path)
    key = cache.cache_key(figure, INPUTS, hashes)
    changed_figures = [
        replace(figure, **changes)
        for changes in ({"id": "other"}, {"version": 2}, {"seed": 4}, {"config": {"images": 11}})
    ]
    changed_keys = [
        cache.cache_key(changed_figure, INPUTS, hashes) for changed_figure in changed_figures
    ]
    changed_keys += [cache.cache_key(figure, INPUTS | {name: "e" * 64}, hashes) for name in INPUTS]
    changed_keys.append(cache.cache_key(figure, INPUTS, {"boxes.yaml": "f" * 64}))
    assert len({key, *changed_keys}) == 1 + len(changed_keys)
    equivalent = replace(
        figure,
        title="T",
        claim="C",
        time_budget=9,
        paper={"a": 1},
        config={"curve": [1, 2], "images": 10},
    )
    assert cache.cache_key(equivalent, dict(reversed(INPUTS.items())), hashes) == key


def test_comments_in_declared_files_are_ignored(figure, tmp_path):
    before = cache.file_hashes(figure, tmp_path)
    (tmp_path / "boxes.yaml").write_text("# four numbers\ncat:\n- 1\n- 2\n- 3\n- 4\n")
    assert cache.file_hashes(figure, tmp_path) == before
    (tmp_path / "boxes.yaml").write_text("cat: [1, 2, 3, 5]\n")
    assert cache.file_hashes(figure, tmp_path) != before


def test_record_stays_current_without_its_data(figure, record, tmp_path):
    assert str(cache.record_status(figure, tmp_path, record, INPUTS)) == "current"
    assert (
        str(cache.record_status(figure, tmp_path, record, WITHOUT_DATA))
        == "current (not checked, data not available: data)"
    )
    assert str(cache.record_status(figure, tmp_path, None, WITHOUT_DATA)) == "missing"


def test_stale_record_names_the_differences(figure, record, tmp_path):
    def differs(figure=figure, record=record, inputs=WITHOUT_DATA):
        status = cache.record_status(figure, tmp_path, record, inputs)
        assert status.state == "stale"
        return status.differs

    assert differs(replace(figure, version=2)) == ("version",)
    assert differs(replace(figure, config={"images": 9}, seed=5)) == ("config", "seed")
    assert differs(inputs=INPUTS | {"data": "e" * 64}) == ("data",)
    assert differs(inputs=WITHOUT_DATA | {"checkpoint": "e" * 64}) == ("checkpoint",)
    # An input that was declared later.
    assert differs(inputs=WITHOUT_DATA | {"digits": "e" * 64}) == ("digits",)
    assert differs(record=replace(record, inputs=INPUTS | {"data": "e" * 64})) == ("key",)  # edited
    assert differs(record=replace(record, version=0)) == ("recorded before keys had versions",)
    (tmp_path / "boxes.yaml").write_text("cat: [0, 0, 1, 1]\n")
    assert differs() == ("files",)


def test_record_of_another_device_is_current(figure, record, tmp_path):
    hashes, inputs = cache.file_hashes(figure, tmp_path), INPUTS | {"device": "cuda"}
    gpu_record = replace(record, inputs=inputs, key=cache.cache_key(figure, inputs, hashes))
    assert (
        str(cache.record_status(figure, tmp_path, gpu_record, INPUTS | {"device": "cpu"}))
        == "current"
    )


def test_record_stores_the_parts_of_its_key(tmp_path):
    context = Context("imagenet65k", None)
    module = discover()["fig8"]
    run(module, context, tmp_path)
    record = read_record(tmp_path / "samples" / "fig8")
    assert record.version == module.FIGURE.version
    assert set(record.file_hashes) == {"faces.yaml"}
    assert cache.cache_key(module.FIGURE, record.inputs, record.file_hashes) == record.key
    inputs = available_inputs(context, module.FIGURE, "samples", hash_data=True)
    assert (
        str(cache.record_status(module.FIGURE, script_folder(module), record, inputs)) == "current"
    )


def test_declared_files_are_annotations_and_recipes():
    for module in discover().values():
        for name in module.FIGURE.files:
            assert Path(name).suffix in (".yaml", ".csv")
            assert (script_folder(module) / name).is_file()


def test_list_shows_the_status_of_records(tmp_path, capsys, monkeypatch):
    modules = {name: discover()[name] for name in ("fig3", "fig8", "tab1")}
    monkeypatch.setattr(discovery, "discover", lambda: modules)
    run(modules["fig3"], Context("imagenet65k", None), tmp_path)
    (tmp_path / "samples").rename(tmp_path / "imagenet65k")
    folder = tmp_path / "imagenet65k" / "fig3"
    record = read_record(folder)
    inputs = record.inputs | {"corpus": "imagenet65k"}
    locked = locked_version("torch")
    record = replace(record, environment={"torch": f"{locked}+cpu"})
    write_record(
        replace(record, inputs=inputs, key=cache.cache_key(modules["fig3"].FIGURE, inputs, {})),
        folder,
    )
    shutil.copytree(folder, folder.with_name("fig8"))
    older = replace(record, id="fig8", version=0, environment={"torch": "2.0.0"})
    write_record(older, folder.with_name("fig8"))
    monkeypatch.setattr("sys.argv", ["reproduce", "list", "--out", str(tmp_path)])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    states = dict(
        zip(
            (line.split()[0] for line in lines[::2]),
            (line.strip() for line in lines[1::2]),
            strict=True,
        )
    )
    assert states == {
        "fig3": "imagenet65k: current",
        "fig8": "imagenet65k: stale: recorded before keys had versions; "
        f"made with torch 2.0.0, requirements.lock has {locked}",
        "tab1": "imagenet65k: missing",
    }


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Create a git repository with a library and one corpus, and use it as the source of records."""

    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=tmp_path,
            check=True,
        )

    for folder in ("zfnet", "figures/imagenet65k"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("original")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    monkeypatch.setattr("reproduce.core.record.REPOSITORY", tmp_path)
    return tmp_path


def test_changed_sources_do_not_write_committed_records(repository):
    calls, context = [], Context("imagenet65k", None)
    module, figures = script(inputs=(), calls=calls), repository / "figures"
    module.FIGURE = replace(module.FIGURE, corpus="imagenet65k")
    assert not run(module, context, figures).cached
    (repository / "zfnet" / "file").write_text("changed")
    assert run(module, context, figures).cached  # reading is allowed
    module.FIGURE = replace(module.FIGURE, version=2)
    with pytest.raises(
        DirtyTreeError, match="small: sources have uncommitted changes.*--allow-dirty"
    ):
        run(module, context, figures)
    assert len(calls) == 1
    assert read_record(figures / "imagenet65k" / "small").version == 1
    (repository / "zfnet" / "file").write_text("original")
    (repository / "zfnet" / "new.py").touch()  # a source that no commit has
    with pytest.raises(DirtyTreeError):
        run(module, context, figures)
    (repository / "zfnet" / "new.py").unlink()
    (repository / "zfnet" / "file").write_text("changed")
    record = run(module, context, figures, allow_dirty=True).record
    assert (record.version, record.environment["commit"][-6:]) == (2, "-dirty")
    module.FIGURE = replace(module.FIGURE, corpus="")
    assert not run(module, context, figures).cached  # records of the samples are not committed
