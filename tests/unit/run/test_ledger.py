import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.detections import random_detections, random_oriented

from geo_retina.detections import Detections
from geo_retina.errors import OutputError, RunError
from geo_retina.grid import Window
from geo_retina.options import DetectOptions
from geo_retina.run import BlockResult, Ledger, manifest_for
from geo_retina.scene import LostPart


def record(scene: int, block: int, n: int = 3, error: str | None = None) -> BlockResult:
    found = Detections.empty() if error else random_detections(n, seed=100 * scene + block)
    left = Detections.empty() if error else random_detections(n // 2, seed=100 * scene + block + 50)
    return BlockResult(scene, block, Window(block, 0, 5, 6), found, 4, 1, 0, error, undecided=left)


def manifest(**changes):
    values = {"paths": ["a.tif"], "versions": {"a.tif": {"bytes": 5}}, "model": "m" * 64}
    options = DetectOptions(score=changes.pop("score", None))
    return manifest_for(**{**values, **changes}, options=options, block_px=4096)


@pytest.fixture
def opened(tmp_path):
    """Opens a ledger, and lets the last one go first, as a process that ends does."""
    last = []

    def open_ledger(values=None, *, restart=False):
        if last:
            last.pop().close()
        last.append(Ledger.open(tmp_path / "run", values or manifest(), restart=restart))
        return last[0]

    yield open_ledger
    for ledger in last:
        ledger.close()


def test_what_is_written_is_read_by_scene_in_order(opened):
    three = manifest(paths=["a.tif", "b.tif", "c.tif"])
    ledger = opened(three)
    ledger.write(1, [record(1, 1), record(2, 0, n=0)])
    ledger.write(0, [record(0, 0), record(1, 0)])
    again = opened(three)
    scenes = list(again.scenes())
    assert [(s.scene_index, [p.block for p in s.results]) for s in scenes] == [
        (0, [0]),
        (1, [0, 1]),
        (2, [0]),
    ]
    assert scenes[1].settled({0, 1}) == Detections.concat(
        [random_detections(3, 100), random_detections(3, 101)]
    )
    assert scenes[1].settled({1}) == random_detections(3, 101)
    assert scenes[1].undecided() == Detections.concat(
        [random_detections(1, 150), random_detections(1, 151)]
    )
    assert len(scenes[2].settled({0})) == len(scenes[2].undecided()) == 0
    assert scenes[0].results[0].window == Window(0, 0, 5, 6)
    assert again.blocks_done() == {(0, 0), (1, 0), (1, 1), (2, 0)}
    assert again.next_task_batch() == 2


def test_oriented_boxes_are_kept_beside_blocks_without_any(opened):
    ledger = opened(manifest(paths=["a.tif"]))
    found, left = random_oriented(3, 7), random_oriented(2, 8)
    window = Window(0, 0, 5, 6)
    ledger.write(
        0,
        [
            BlockResult(0, 0, window, Detections.empty(), 4),
            BlockResult(0, 1, window, found, 4, undecided=left),
            BlockResult(0, 2, window, Detections.empty(), error="broken"),
        ],
    )
    [scene] = opened(manifest(paths=["a.tif"])).scenes()
    assert scene.settled({0, 1}) == found
    assert scene.undecided() == left
    assert scene.settled({0, 1}).is_oriented


def test_a_failed_part_is_done_again_and_the_better_try_counts(opened):
    ledger = opened()
    ledger.write(0, [record(0, 0), record(0, 1, error="broken")])
    assert ledger.blocks_done() == {(0, 0)}
    assert [p.error for s in ledger.scenes() for p in s.results] == [None, "broken"]
    ledger.write(1, [record(0, 1)])
    assert ledger.blocks_done() == {(0, 0), (0, 1)}
    assert [p.error for s in ledger.scenes() for p in s.results] == [None, None]


def partial(block: int, *windows: Window) -> BlockResult:
    lost = tuple(LostPart(window, "broken") for window in windows)
    return dataclasses.replace(record(0, block), lost=lost)


def test_a_block_that_lost_a_part_is_done_again_and_the_better_try_counts(opened):
    small, large = Window(0, 0, 2, 2), Window(0, 0, 2, 3)
    ledger = opened()
    ledger.write(0, [record(0, 0, error="broken"), partial(1, large), partial(2, small)])
    ledger.write(1, [partial(0, large), partial(1, small), partial(2, large)])
    assert ledger.blocks_done() == set()
    assert ledger.blocks_known() == {(0, 0), (0, 1), (0, 2)}
    again = opened()
    [scene] = again.scenes()
    assert [[each.window for each in result.lost] for result in scene.results] == [
        [large],
        [small],
        [small],
    ]
    assert scene.results[0].lost[0].error == "broken"
    again.write(2, [record(0, 1, error="broken"), record(0, 2), record(0, 0)])
    [scene] = again.scenes()
    assert [result.is_whole for result in scene.results] == [True, False, True]
    assert again.blocks_done() == {(0, 0), (0, 2)}


def test_of_two_ledgers_the_better_try_of_a_block_is_adopted(tmp_path):
    small, large = Window(0, 0, 2, 2), Window(0, 0, 2, 3)
    whole, other = (Ledger.open(tmp_path / name, manifest()) for name in ("whole", "part"))
    whole.write(0, [partial(0, large), partial(1, small), record(0, 2), partial(3, small)])
    other.write(0, [partial(0, small), record(0, 1), partial(2, small), record(0, 3, error="no")])
    whole.adopt(other)
    [scene] = whole.scenes()
    assert [result.lost_px for result in scene.results] == [4, 0, 0, 4]
    assert scene.settled({0, 1, 2, 3}) == Detections.concat(
        [random_detections(3, block) for block in range(4)]
    )
    for each in (whole, other):
        each.close()


@pytest.mark.parametrize(
    "lost", [[[[0, 0, 2], "broken"]], [[[0, 0, -2, 2], "broken"]], [[[0, 0, 2, 2], 5]], 7]
)
def test_lost_parts_that_somebody_edited_are_damage(opened, lost):
    ledger = opened()
    ledger.write(0, [partial(0, Window(0, 0, 2, 2))])
    path = ledger.folder / "unit-0000000.parquet"
    table = pq.read_table(path)
    stats = json.loads(table.schema.metadata[b"parts"])
    stats[0]["lost"] = lost
    pq.write_table(table.replace_schema_metadata({"parts": json.dumps(stats)}), path)
    assert opened().blocks_known() == set()


def test_another_run_is_refused_and_the_difference_named(opened):
    opened()
    for changed, text in [
        (manifest(score=0.3), r"options\.score: None, now 0\.3"),
        (manifest(model="n" * 64), "model: mmm.*now nnn"),
        (manifest(paths=["b.tif"]), r"scenes\[0\]: a\.tif, now b\.tif"),
        (manifest(versions={"a.tif": {"bytes": 6}}), r"a\.tif \(the file was replaced\)"),
    ]:
        with pytest.raises(RunError, match=text):
            opened(changed)
    restarted = opened(manifest(score=0.3), restart=True)
    assert restarted.blocks_done() == set()


def test_a_scene_that_became_readable_is_no_difference(opened):
    opened(manifest(versions={}))
    healed = opened()
    assert healed.manifest["versions"] == {"a.tif": {"bytes": 5}}


def test_a_foreign_folder_is_left_alone(tmp_path, opened):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.docx").write_text("mine")
    for restart in (False, True):
        with pytest.raises(RunError, match="not the folder of a run"):
            opened(manifest(), restart=restart)
    assert (tmp_path / "run" / "thesis.docx").exists()


def test_a_folder_that_vanished_is_one_sentence(opened):
    ledger = opened()
    ledger.remove()
    with pytest.raises(OutputError, match="cannot be written"):
        ledger.write(0, [record(0, 0)])


def test_half_written_files_are_not_seen(tmp_path, opened):
    ledger = opened()
    (tmp_path / "run" / ".unit-0000000.parquet.tmp").write_bytes(b"half")
    assert ledger.blocks_done() == set()
    assert list(ledger.scenes()) == []


def test_a_damaged_run_is_refused_but_can_be_discarded(tmp_path, opened):
    ledger = opened()
    ledger.write(0, [record(0, 0)])
    (tmp_path / "run" / "manifest.json").write_text("{half")
    with pytest.raises(RunError, match=r"discard the run with RunOptions\.restart=True"):
        opened()
    assert opened(manifest(), restart=True).blocks_done() == set()


def test_a_unit_cut_short_by_a_crash_is_done_again(tmp_path, opened):
    ledger = opened()
    ledger.write(0, [record(0, 0)])
    ledger.write(1, [record(0, 1)])
    whole = tmp_path / "run" / "unit-0000001.parquet"
    whole.write_bytes(whole.read_bytes()[:50])
    again = opened()
    assert again.blocks_done() == {(0, 0)}
    assert again.next_task_batch() == 2
    assert [result.block for s in again.scenes() for result in s.results] == [0]


def rewritten(path, change=lambda table: table, stats=lambda stats: stats):
    """Write a file again with other rows or another footer."""
    table = pq.read_table(path)
    found = stats(json.loads(table.schema.metadata[b"parts"]))
    table = change(table).replace_schema_metadata({"parts": json.dumps(found)})
    pq.write_table(table, path)


def scrambled(path):
    """Fill the middle of a file with noise; its footer says nothing of that."""
    content = bytearray(path.read_bytes())
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[4:end] = np.random.default_rng(0).bytes(end - 4)
    path.write_bytes(content)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "no footer": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "noise before the footer": scrambled,
    "a column is missing": lambda path: rewritten(path, lambda t: t.drop_columns("scores")),
    "a row is missing": lambda path: rewritten(path, lambda t: t.slice(1)),
    "a box at infinity": lambda path: rewritten(
        path, lambda t: t.set_column(0, "x_min", [np.full(len(t), np.inf)])
    ),
    "one count of rows": lambda path: rewritten(path, stats=lambda s: [{**s[0], "rows": [4]}]),
    "no block": lambda path: rewritten(path, stats=lambda s: s[0]),
    "an unknown key": lambda path: rewritten(path, stats=lambda s: [{**s[0], "colour": 1}]),
    "an unknown scene": lambda path: rewritten(path, stats=lambda s: [{**s[0], "scene_index": 9}]),
    "a negative count": lambda path: rewritten(path, stats=lambda s: [{**s[0], "tiles": -1}]),
    "a text for a count": lambda path: rewritten(path, stats=lambda s: [{**s[0], "block": "1"}]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_only_the_blocks_of_a_damaged_file_are_done_again(tmp_path, opened, kind):
    ledger = opened()
    for block in range(3):
        ledger.write(block, [record(0, block)])
    DAMAGE[kind](tmp_path / "run" / "unit-0000001.parquet")
    again = opened()
    assert again.blocks_done() == {(0, 0), (0, 2)}
    assert "unit-0000001.parquet is damaged" in (tmp_path / "run" / "run.log").read_text()
    again.write(again.next_task_batch(), [record(0, 1)])
    (scene,) = again.scenes()
    assert scene.settled({0, 1, 2}) == Detections.concat(record(0, b).detections for b in range(3))


def test_going_on_reads_every_file_once(opened, monkeypatch):
    ledger = opened()
    for block in range(20):
        ledger.write(block, [record(0, block)])
    read, whole = [], pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path: read.append(path) or whole(path))
    again = opened()
    assert len(again.blocks_done()) == 20
    again.write(again.next_task_batch(), [record(0, 20)])
    (scene,) = again.scenes()
    assert [result.block for result in scene.results] == list(range(21))
    assert len(read) == len(set(read)) == 20


def test_a_second_run_on_one_output_is_kept_out(tmp_path, opened):
    first = opened()
    first.write(0, [record(0, 0)])
    for restart in (False, True):
        with pytest.raises(RunError, match="another run is writing to"):
            Ledger.open(tmp_path / "run", manifest(), restart=restart)
    assert opened().blocks_done() == {(0, 0)}  # its end let the next one in


def test_the_log_is_for_people_and_its_failure_is_none_of_the_runs(tmp_path, opened, capsys):
    ledger = opened()
    ledger.log.warning("%s is %s", "a.tif", "cloudy")
    text = (tmp_path / "run" / "run.log").read_text()
    assert text.endswith("WARNING a.tif is cloudy\n")
    handler = ledger.log.handlers[0]
    handler.stream.close()
    handler.stream = open("/dev/full", "w")  # noqa: SIM115 - the handler closes it
    ledger.log.warning("more")
    assert capsys.readouterr() == ("", "")
    ledger.write(0, [record(0, 0)])
    assert opened().blocks_done() == {(0, 0)}


def test_a_full_disk_is_one_sentence_and_what_was_finished_is_kept(opened, monkeypatch):
    import errno

    import pyarrow.parquet as pq

    ledger = opened()
    ledger.write(0, [record(0, 0)])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OutputError, match=r"No space left on device.*finished before is kept"):
        ledger.write(1, [record(0, 1)])
    monkeypatch.undo()
    assert opened().blocks_done() == {(0, 0)}


@pytest.mark.parametrize("number", [None, 1, 99])
def test_a_half_done_run_of_a_program_with_other_results_is_refused(opened, number):
    """Its blocks would not fit those that are still to be detected."""
    older = manifest()
    older.pop("results") if number is None else older.update(results=number)
    opened(older).write(0, [record(0, 0)])
    with pytest.raises(RunError, match=r"results version .* RunOptions.restart=True"):
        opened(manifest())
    assert opened(manifest(), restart=True).blocks_done() == set()
